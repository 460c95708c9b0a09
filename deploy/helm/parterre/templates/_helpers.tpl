{{- define "parterre.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "parterre.labels" -}}
app.kubernetes.io/name: parterre
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels by which pods of one component are found: (dict "root" . "component" "server"). */}}
{{- define "parterre.selector" -}}
app.kubernetes.io/name: parterre
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "parterre.image.server" -}}
{{ .Values.image.registry }}{{ .Values.image.server }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- define "parterre.image.client" -}}
{{ .Values.image.registry }}{{ .Values.image.client }}:{{ coalesce .Values.image.clientTag .Values.image.tag .Chart.AppVersion }}
{{- end }}

{{- define "parterre.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "parterre.podSecurity" -}}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end }}

{{- define "parterre.containerSecurity" -}}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}

{{/* Not empty where the chart leaves the number of clients alone. */}}
{{- define "parterre.scaledElsewhere" -}}
{{- if or .Values.autoscaling.enabled (kindIs "invalid" .Values.clients.replicas) -}}yes{{- end -}}
{{- end }}

{{/* A value as it was written: helm reads whole numbers as floats, and prints large ones as 1.2e+07. */}}
{{- define "parterre.written" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) (lt . 1e15) -}}{{ printf "%.0f" . }}{{- else -}}{{ toString . }}{{- end -}}
{{- end }}

{{/* Settings, a dict, as the environment variables that every command reads. */}}
{{- define "parterre.settings" -}}
{{- range $name, $value := . }}
- name: FL_{{ upper $name }}
  value: {{ include "parterre.written" $value | quote }}
{{- end }}
{{- end }}

{{/* All names under which the server is reached, comma separated: they stand in its certificate. */}}
{{- define "parterre.serverNames" -}}
{{- $name := printf "%s-server" (include "parterre.name" .) -}}
{{- $control := printf "%s-control" (include "parterre.name" .) -}}
{{- $names := list "localhost" "127.0.0.1" -}}
{{- range $each := list $name $control -}}
{{- $names = concat $names (list $each (printf "%s.%s" $each $.Release.Namespace) (printf "%s.%s.svc" $each $.Release.Namespace) (printf "%s.%s.svc.cluster.local" $each $.Release.Namespace)) -}}
{{- end -}}
{{- if and .Values.ingress.enabled .Values.ingress.host -}}{{- $names = append $names .Values.ingress.host -}}{{- end -}}
{{- join "," (concat $names .Values.server.names) -}}
{{- end }}

{{/* The names of the release's own services, which are reached through no proxy, whatever the environment injects. */}}
{{- define "parterre.ownNames" -}}
- name: FL_NO_PROXY
  value: {{ $name := include "parterre.name" . }}{{ $space := .Release.Namespace }}
  {{- $names := list -}}
  {{- range $each := list (printf "%s-server" $name) (printf "%s-control" $name) -}}
  {{- $names = concat $names (list $each (printf "%s.%s" $each $space) (printf "%s.%s.svc" $each $space) (printf "%s.%s.svc.cluster.local" $each $space)) -}}
  {{- end }} {{ join "," $names | quote }}
{{- end }}

{{- define "parterre.enrollSecret" -}}
{{- default (printf "%s-enroll" (include "parterre.name" .)) .Values.clients.enrollSecret -}}
{{- end }}

{{/* Secret that holds a certificate which is not of the server's own making. */}}
{{- define "parterre.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}{{ include "parterre.name" . }}-tls{{- else -}}{{ .Values.tls.existingSecret }}{{- end -}}
{{- end }}

{{- define "parterre.fleet" -}}
{{- if .Values.clients.server -}}{{ .Values.clients.server }}{{- else -}}{{ include "parterre.name" . }}-server:{{ int64 .Values.service.port }}{{- end -}}
{{- end }}

{{- define "parterre.checks" -}}
{{- if and .Values.clients.server (not .Values.clients.enrollSecret) -}}
{{- fail "clients.server names a server elsewhere, so its enrolment token is needed: make a Secret with the key `token` and set clients.enrollSecret to its name." -}}
{{- end -}}
{{- if and .Values.clients.data.storage (ne .Values.clients.kind "StatefulSet") -}}
{{- fail "clients.data.storage makes a volume for each client, which needs clients.kind=StatefulSet; it is Deployment." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas must be at most maxReplicas (%d); it is %d." (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager.enabled needs tls.certManager.issuerRef.name, the issuer that signs the server's certificate." -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled .Values.tls.existingSecret -}}
{{- fail "tls.existingSecret and tls.certManager.enabled both name a certificate; set one of them." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host, the name under which clients reach the server." -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (ge (int .Values.podDisruptionBudget.minAvailable) (int .Values.clients.replicas)) (not (include "parterre.scaledElsewhere" .)) -}}
{{- fail (printf "podDisruptionBudget.minAvailable must be below clients.replicas (%d), or no node could ever be drained; it is %d." (int .Values.clients.replicas) (int .Values.podDisruptionBudget.minAvailable)) -}}
{{- end -}}
{{- end }}
