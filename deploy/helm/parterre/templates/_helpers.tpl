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
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "parterre.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Settings, a dict, as the environment variables that every command reads. */}}
{{- define "parterre.settings" -}}
{{- range $name, $value := . }}
- name: FL_{{ upper $name }}
  value: {{ $value | toString | quote }}
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

{{- define "parterre.enrollSecret" -}}
{{- default (printf "%s-enroll" (include "parterre.name" .)) .Values.clients.enrollSecret -}}
{{- end }}

{{/* Secret that holds a certificate which is not of the server's own making. */}}
{{- define "parterre.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}{{ include "parterre.name" . }}-tls{{- else -}}{{ .Values.tls.existingSecret }}{{- end -}}
{{- end }}

{{- define "parterre.fleet" -}}
{{- if .Values.clients.server -}}{{ .Values.clients.server }}{{- else -}}{{ include "parterre.name" . }}-server:{{ .Values.service.port }}{{- end -}}
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
{{- if and .Values.podDisruptionBudget.enabled (ge (int .Values.podDisruptionBudget.minAvailable) (int .Values.clients.replicas)) (not .Values.autoscaling.enabled) -}}
{{- fail (printf "podDisruptionBudget.minAvailable must be below clients.replicas (%d), or no node could ever be drained; it is %d." (int .Values.clients.replicas) (int .Values.podDisruptionBudget.minAvailable)) -}}
{{- end -}}
{{- end }}
