{{/*
The services' configuration files: everything that is no secret. Strings are written as JSON, which TOML reads
as it is; numbers go through `int`, since Helm reads them as floats.
*/}}

{{- define "marquee.config.peerTls" -}}
[peer_tls]
ca_file = "/etc/marquee-tls/ca.crt"
cert_file = "/etc/marquee-tls/tls.crt"
key_file = "/etc/marquee-tls/tls.key"
{{- end -}}

{{- define "marquee.config.global" -}}
listen = "0.0.0.0:8080"
grpc_listen = "0.0.0.0:8081"
ops_listen = "0.0.0.0:9090"
log_format = {{ .Values.logFormat | toJson }}
issuer = {{ .Values.issuer | toJson }}
regions = {{ include "marquee.regionNames" . }}
access_token_secs = {{ int .Values.globalService.accessTokenSecs }}
refresh_token_secs = {{ int .Values.globalService.refreshTokenSecs }}

{{ include "marquee.config.peerTls" . }}

[mail]
from = {{ .Values.mail.from | toJson }}
link_url = {{ .Values.mail.linkUrl | toJson }}
{{- with .Values.bootstrapAdmin }}
{{- if .username }}

[bootstrap_admin]
username = {{ .username | toJson }}
email = {{ .email | toJson }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "marquee.config.gateway" -}}
region = {{ .Values.region | toJson }}
listen = "0.0.0.0:8080"
ops_listen = "0.0.0.0:9090"
log_format = {{ .Values.logFormat | toJson }}
issuer = {{ .Values.issuer | toJson }}
global_url = {{ .Values.globalUrl | toJson }}
global_grpc_url = {{ .Values.globalGrpcUrl | toJson }}
registry_urls = {{ include "marquee.registryUrls" . }}
trusted_proxies = {{ .Values.gateway.trustedProxies | toJson }}

{{ include "marquee.config.peerTls" . }}
{{- $own := printf "http://%s:8080" (include "marquee.component" (list . "gateway")) }}
{{- $ownRegional := printf "http://%s:8080" (include "marquee.component" (list . "regional")) }}
{{- range .Values.regions }}

[[regions]]
name = {{ .name | toJson }}
display_name = {{ .displayName | default .name | toJson }}
gateway_url = {{ .gatewayUrl | default $own | toJson }}
regional_url = {{ .regionalUrl | default $ownRegional | toJson }}
{{- if and (hasKey . "latitude") (hasKey . "longitude") }}
latitude = {{ float64 .latitude }}
longitude = {{ float64 .longitude }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "marquee.config.regional" -}}
region = {{ .Values.region | toJson }}
regions = {{ include "marquee.regionNames" . }}
listen = "0.0.0.0:8080"
ops_listen = "0.0.0.0:9090"
log_format = {{ .Values.logFormat | toJson }}
issuer = {{ .Values.issuer | toJson }}
global_grpc_url = {{ .Values.globalGrpcUrl | toJson }}
registry_urls = {{ include "marquee.registryUrls" . }}
hold_secs = {{ int .Values.regional.holdSecs }}
notices = {{ .Values.regional.notices }}

{{ include "marquee.config.peerTls" . }}

[replication]
listen = "0.0.0.0:8081"

[payments]
provider_url = {{ .Values.payments.providerUrl | toJson }}
timeout_ms = {{ int .Values.payments.timeoutMs }}
{{- end -}}

{{- define "marquee.config.raft" -}}
region = {{ .Values.region | toJson }}
data_dir = "/data"
listen = "0.0.0.0:8081"
ops_listen = "0.0.0.0:9090"
log_format = {{ .Values.logFormat | toJson }}
bootstrap = {{ .Values.raft.bootstrap }}
heartbeat_ms = {{ int .Values.raft.heartbeatMs }}
election_min_ms = {{ int .Values.raft.electionMinMs }}
election_max_ms = {{ int .Values.raft.electionMaxMs }}

[liveness]
region_timeout_ms = {{ int .Values.raft.regionTimeoutMs }}

[moves]
drain_per_sec = {{ int .Values.raft.drainPerSec }}
home_per_sec = {{ int .Values.raft.homePerSec }}
home_after_ms = {{ int .Values.raft.homeAfterMs }}

{{ include "marquee.config.peerTls" . }}
{{- range include "marquee.peers" . | fromJsonArray }}

[[peers]]
id = {{ int .id }}
region = {{ .region | toJson }}
url = {{ .url | toJson }}
{{- end }}
{{- end -}}
