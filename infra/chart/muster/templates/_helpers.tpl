{{/* What several templates need. An argument is a dict with `root` and, where it says so, `service` and `role`. */}}

{{/* What the chart knows of the code: roles, topics, drain times. */}}
{{- define "muster.facts" -}}
{{ .Files.Get "facts.yaml" }}
{{- end }}

{{- define "muster.name" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{/* Labels that never change, of a Deployment's pods: service, role. */}}
{{- define "muster.selector" -}}
app.kubernetes.io/name: muster
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service | default "operator" }}
muster/role: {{ .role }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "muster.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: muster
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: muster
{{- with .service }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .role }}
muster/role: {{ . }}
{{- end }}
{{- end }}

{{/* Labels of every pod. They do not name the chart, whose version alone restarts nothing. */}}
{{- define "muster.podLabels" -}}
{{- include "muster.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: muster
{{- with .root.Values.pods.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image by its name in values: image. */}}
{{- define "muster.image" -}}
{{- $image := index .root.Values.image .image -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/*
The Deployments of this release, as {"items": […]} in JSON: service, role, replicas, resources, and graceSeconds of each.
*/}}
{{- define "muster.deployments" -}}
{{- $facts := include "muster.facts" . | fromYaml -}}
{{- $replicas := get (dict
  "small" (dict "all" 1)
  "standard" (dict "api" 2 "consumer" 2 "relay" 1 "scheduler" 1 "worker" 1)
  "large" (dict "api" 3 "consumer" 4 "relay" 2 "scheduler" 2 "worker" 2)
) .Values.profile -}}
{{- $items := list -}}
{{- range $service, $known := $facts.services -}}
{{- $values := index $.Values.services $service -}}
{{- if $values.enabled -}}
{{- range $role := ternary (list "all") $known.roles (eq $.Values.profile "small") -}}
{{- $settings := mergeOverwrite (index $.Values.roles $role | deepCopy) (index ($values.roles | default dict) $role | default dict | deepCopy) -}}
{{- $_ := set $settings "service" $service -}}
{{- $_ := set $settings "role" $role -}}
{{- if not $settings.replicas }}{{ $_ := set $settings "replicas" (index $replicas $role) }}{{ end -}}
{{- $_ := set $settings "graceSeconds" (add (index $facts.drain_seconds $role | ceil | int) (ternary 5 0 (has $role (list "api" "all"))) 10) -}}
{{- $items = append $items $settings -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ dict "items" $items | toJson }}
{{- end }}

{{/* The settings of a service's containers, or of the operator's without a service, in JSON: service. */}}
{{- define "muster.settings" -}}
{{- $values := .root.Values -}}
{{- $env := dict
  "MUSTER_SECRETS_DIR" "/etc/muster/secrets"
  "MUSTER_KAFKA_BOOTSTRAP" $values.kafka.bootstrap
  "MUSTER_KAFKA_SECURITY_PROTOCOL" $values.kafka.securityProtocol
  "MUSTER_KAFKA_SASL_MECHANISM" $values.kafka.saslMechanism
  "MUSTER_TOPIC_PREFIX" $values.kafka.topicPrefix
  "MUSTER_OIDC_ISSUER" $values.oidc.issuer
  "MUSTER_OIDC_AUDIENCE" $values.oidc.audience
  "MUSTER_OIDC_JWKS" $values.oidc.jwks
-}}
{{- if or $values.trustedCA.configMap $values.trustedCA.secret -}}
{{- $_ := set $env "MUSTER_KAFKA_CA_FILE" "/etc/muster/ca/ca.crt" -}}
{{- if $values.trustedCA.https }}{{ $_ := set $env "SSL_CERT_FILE" "/etc/muster/ca/ca.crt" }}{{ end -}}
{{- end -}}
{{- if .service -}}
{{- $_ := set $env "MUSTER_ENVIRONMENT" $values.environment -}}
{{- $_ := set $env "MUSTER_HTTP_HOST" "0.0.0.0" -}}
{{- $_ := set $env "MUSTER_HTTP_PORT" "8000" -}}
{{- with $values.tracing.endpoint -}}
{{- $_ := set $env "OTEL_TRACES_EXPORTER" "otlp" -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" . -}}
{{- $_ := set $env "OTEL_TRACES_SAMPLER" "parentbased_traceidratio" -}}
{{- $_ := set $env "OTEL_TRACES_SAMPLER_ARG" ($values.tracing.ratio | toString) -}}
{{- end -}}
{{- end -}}
{{- if eq (.service | default "") "notify" -}}
{{- $_ := set $env "MUSTER_SMTP_HOST" $values.smtp.host -}}
{{- $_ := set $env "MUSTER_SMTP_PORT" ($values.smtp.port | toString) -}}
{{- $_ := set $env "MUSTER_SMTP_USERNAME" $values.smtp.username -}}
{{- $_ := set $env "MUSTER_SMTP_STARTTLS" ($values.smtp.startTLS | toString) -}}
{{- $_ := set $env "MUSTER_SMTP_FROM" $values.smtp.from -}}
{{- $_ := set $env "MUSTER_OPERATORS_EMAIL" $values.smtp.operators -}}
{{- end -}}
{{- if .service -}}
{{- $env = mergeOverwrite $env ($values.settings | deepCopy) ((index $values.services .service).settings | deepCopy) -}}
{{- else -}}
{{- range $service, $_ := $values.services -}}
{{- $_ := set $env (printf "MUSTER_%s_URL" (upper $service)) (printf "http://%s-%s" (include "muster.name" $.root) $service) -}}
{{- end -}}
{{- end -}}
{{ $env | toJson }}
{{- end }}

{{/* The same as a container's environment. */}}
{{- define "muster.environment" -}}
{{- range $name, $value := include "muster.settings" . | fromJson }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* What every pod has, but for its containers: secrets, a list of {name, items}. */}}
{{- define "muster.pod" -}}
{{- $pods := .root.Values.pods -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $pods.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $pods.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- mergeOverwrite (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) ($pods.securityContext | deepCopy) | toYaml | nindent 2 }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 256Mi}
  - name: secrets
    projected:
      defaultMode: {{ $pods.secretFileMode }}
      sources:
        {{- range .secrets }}
        - secret: {{- toYaml . | nindent 12 }}
        {{- end }}
  {{- with .root.Values.trustedCA }}
  {{- if .configMap }}
  - name: ca
    configMap:
      name: {{ .configMap }}
      items: [{key: {{ .key | quote }}, path: ca.crt}]
  {{- else if .secret }}
  - name: ca
    secret:
      secretName: {{ .secret }}
      items: [{key: {{ .key | quote }}, path: ca.crt}]
  {{- end }}
  {{- end }}
{{- end }}

{{/* What every container has, but for its name, arguments, environment, and resources: image. */}}
{{- define "muster.container" -}}
image: {{ include "muster.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
# A process that refuses to start says why in its last line, and `kubectl describe pod` shows it.
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: secrets, mountPath: /etc/muster/secrets, readOnly: true}
  {{- if or .root.Values.trustedCA.configMap .root.Values.trustedCA.secret }}
  - {name: ca, mountPath: /etc/muster/ca, readOnly: true}
  {{- end }}
{{- end }}
