{{- define "marquee.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (list root component) → the component's object name */}}
{{- define "marquee.component" -}}
{{- printf "%s-%s" (include "marquee.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{/* (list root component) → the Secret of who it is to the others */}}
{{- define "marquee.tlsSecret" -}}
{{- printf "%s-tls" (include "marquee.component" .) -}}
{{- end -}}

{{/* (list root component) */}}
{{- define "marquee.selector" -}}
app.kubernetes.io/name: {{ default (index . 0).Chart.Name (index . 0).Values.nameOverride }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* (list root component) */}}
{{- define "marquee.labels" -}}
{{ include "marquee.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/part-of: marquee
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end -}}

{{- define "marquee.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "marquee.serviceAccountName" -}}
{{- $made := .Values.serviceAccount.create | ternary (include "marquee.fullname" .) "default" -}}
{{- .Values.serviceAccount.name | default $made -}}
{{- end -}}

{{/* The components of this release's role, space-separated. */}}
{{- define "marquee.components" -}}
{{- eq .Values.role "global" | ternary "global" "gateway regional raft" -}}
{{- end -}}

{{/* component → the key of its own values. `global` is Helm's own word among values. */}}
{{- define "marquee.valuesKey" -}}
{{- eq . "global" | ternary "globalService" . -}}
{{- end -}}

{{/* An environment variable from a Secret: (list name secret key) */}}
{{- define "marquee.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end -}}

{{- define "marquee.postgresEnv" -}}
{{- $secret := .Values.postgres.existingSecret | default (printf "%s-postgres" (include "marquee.fullname" .)) -}}
{{ include "marquee.secretEnv" (list "MARQUEE_POSTGRES_URL" $secret .Values.postgres.key) }}
{{- end -}}

{{/* (list root component) → the environment that holds the component's secrets */}}
{{- define "marquee.env" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := $root.Values -}}
{{- $full := include "marquee.fullname" $root -}}
{{- if has $component (list "global" "regional") }}
{{ include "marquee.postgresEnv" $root }}
{{ include "marquee.secretEnv" (list "MARQUEE_MASTER_KEY" ($values.masterKey.existingSecret | default (printf "%s-keys" $full)) $values.masterKey.key) }}
{{- end }}
{{- if has $component (list "gateway" "regional") }}
{{ include "marquee.secretEnv" (list "MARQUEE_REDIS_URL" ($values.redis.existingSecret | default (printf "%s-redis" $full)) $values.redis.key) }}
{{- end }}
{{- if eq $component "regional" }}
{{- $secret := $values.payments.existingSecret | default (printf "%s-payments" $full) }}
{{ include "marquee.secretEnv" (list "MARQUEE_PAYMENTS__API_KEY" $secret $values.payments.apiKeyKey) }}
{{ include "marquee.secretEnv" (list "MARQUEE_PAYMENTS__WEBHOOK_SECRET" $secret $values.payments.webhookSecretKey) }}
# Each process has an address of its own in the registry: a session ends when another opens at its address.
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: MARQUEE_HTTP_URL
  value: {{ $values.regional.processUrl | quote }}
- name: MARQUEE_REPLICATION__ADVERTISE
  value: {{ $values.regional.replicationUrl | quote }}
{{- end }}
{{- if and (eq $component "global") $values.bootstrapAdmin.username }}
{{- $secret := $values.bootstrapAdmin.existingSecret | default (printf "%s-admin" $full) }}
{{ include "marquee.secretEnv" (list "MARQUEE_BOOTSTRAP_ADMIN__PASSWORD" $secret $values.bootstrapAdmin.passwordKey) }}
{{- end }}
{{- if and (eq $component "global") $values.mail.existingSecret }}
{{ include "marquee.secretEnv" (list "MARQUEE_MAIL__SMTP_URL" $values.mail.existingSecret $values.mail.smtpUrlKey) }}
{{- end }}
{{- if eq $component "raft" }}
# The node id, of the prefix and the pod's ordinal: 1 and 0 make 10.
- name: POD_ORDINAL
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
- name: MARQUEE_NODE_ID
  value: "{{ int $values.raft.nodeIdPrefix }}$(POD_ORDINAL)"
{{- end }}
{{- end -}}

{{/* The registry's voters, as JSON: `raft.peers`, or this release's own. */}}
{{- define "marquee.peers" -}}
{{- if .Values.raft.peers -}}
{{- .Values.raft.peers | toJson -}}
{{- else -}}
{{- $peers := list -}}
{{- range $i := until (int .Values.raft.replicas) -}}
{{- $url := printf "http://%s-%d:8081" (include "marquee.component" (list $ "raft")) $i -}}
{{- $peers = append $peers (dict "id" (printf "%d%d" (int $.Values.raft.nodeIdPrefix) $i | int) "region" $.Values.region "url" $url) -}}
{{- end -}}
{{- $peers | toJson -}}
{{- end -}}
{{- end -}}

{{/* The voters' URLs as a TOML list, this region's first. */}}
{{- define "marquee.registryUrls" -}}
{{- $near := list -}}
{{- $far := list -}}
{{- range include "marquee.peers" . | fromJsonArray -}}
{{- if eq .region $.Values.region -}}{{- $near = append $near .url -}}{{- else -}}{{- $far = append $far .url -}}{{- end -}}
{{- end -}}
{{- concat $near $far | toJson -}}
{{- end -}}

{{- define "marquee.regionNames" -}}
{{- $names := list -}}
{{- range .Values.regions -}}{{- $names = append $names .name -}}{{- end -}}
{{- $names | toJson -}}
{{- end -}}
