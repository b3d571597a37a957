{{/* (list root component) → the pod template, which is the same for all services but for what they need */}}
{{- define "marquee.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values (include "marquee.valuesKey" $component) -}}
{{- $grpc := ne $component "gateway" -}}
{{- $http := ne $component "raft" -}}
metadata:
  labels:
    {{- include "marquee.labels" . | nindent 4 }}
    marquee/scrape: "true"
  annotations:
    # Files are read at the start only; a changed one is a new pod.
    checksum/config: {{ include (printf "marquee.config.%s" $component) $root | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "marquee.serviceAccountName" $root }}
  automountServiceAccountToken: false
  # Else every Service of the namespace named marquee-… puts MARQUEE_… variables into the settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ int $root.Values.terminationGracePeriodSeconds }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "marquee.selector" . | nindent 10 }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ $component }}
      image: {{ include "marquee.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ $component }}, --config, /etc/marquee/{{ $component }}.toml]
      env:
        {{- include "marquee.env" . | trim | nindent 8 }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- if $http }}
        - { name: http, containerPort: 8080 }
        {{- end }}
        {{- if $grpc }}
        - { name: grpc, containerPort: 8081 }
        {{- end }}
        - { name: ops, containerPort: 9090 }
      # Alive says only that the process runs: a database that is away must not restart it.
      startupProbe:
        httpGet: { path: /livez, port: ops }
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: { path: /livez, port: ops }
        periodSeconds: 10
        timeoutSeconds: 3
      readinessProbe:
        httpGet: { path: /readyz, port: ops }
        periodSeconds: 3
        timeoutSeconds: 2
        failureThreshold: 2
      lifecycle:
        preStop:
          sleep: { seconds: {{ int $root.Values.preStopSleepSeconds }} }
      securityContext:
        {{- include "marquee.containerSecurity" $root | nindent 8 }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - { name: config, mountPath: /etc/marquee, readOnly: true }
        - { name: tls, mountPath: /etc/marquee-tls, readOnly: true }
        {{- if eq $component "raft" }}
        - { name: data, mountPath: /data }
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "marquee.component" . }}
    - name: tls
      secret:
        secretName: {{ include "marquee.tlsSecret" . }}
        defaultMode: 0440
{{- end -}}

{{- define "marquee.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
