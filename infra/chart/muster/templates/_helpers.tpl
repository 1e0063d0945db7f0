{{/* Shared by several templates. Arguments are dicts with `root` and, where noted, `service` and `role`. */}}

{{/* The facts of the code: roles, topics, drain times. */}}
{{- define "muster.facts" -}}
{{ .Files.Get "facts.yaml" }}
{{- end }}

{{- define "muster.name" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{/* Labels of every pod of the installation: a parent chart may have several in one release, each with its own name. */}}
{{- define "muster.release" -}}
app.kubernetes.io/name: muster
app.kubernetes.io/instance: {{ include "muster.name" . | quote }}
{{- end }}

{{/* The constant labels of a Deployment's pods. Arguments: service, role. */}}
{{- define "muster.selector" -}}
{{- include "muster.release" .root }}
app.kubernetes.io/component: {{ .service | default "operator" }}
muster/role: {{ .role }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "muster.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- include "muster.release" .root | nindent 0 }}
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

{{/* Labels of every pod, without the chart's version, so that a new chart alone restarts nothing. */}}
{{- define "muster.podLabels" -}}
{{- $isJob := has .role (list "migrate" "preflight" "provision" "operations" "self-test") -}}
{{- $image := dict "root" .root "image" (ternary "operator" "services" $isJob) "service" (ternary "" .service $isJob) -}}
{{- include "muster.selector" . }}
app.kubernetes.io/version: {{ include "muster.imageVersion" $image | replace ":" "-" | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/part-of: muster
{{- $own := ternary .root.Values.pods.jobLabels dict $isJob }}
{{- with merge (deepCopy $own) .root.Values.pods.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image's reference. Arguments: image, its name in the values; service, for a service's own tag or digest. */}}
{{- define "muster.image" -}}
{{- $version := include "muster.imageVersion" . -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ (index .root.Values.image .image).repository -}}
{{ ternary "@" ":" (contains ":" $version) }}{{ $version }}
{{- end }}

{{/* An image's digest or tag. Arguments as above. */}}
{{- define "muster.imageVersion" -}}
{{- $common := index .root.Values.image .image -}}
{{- $own := get .root.Values.services (.service | default "") | default dict -}}
{{ coalesce $own.digest $own.tag $common.digest $common.tag .root.Chart.AppVersion }}
{{- end }}

{{/*
The Deployments of this release, as {"items": […]} in JSON. Each has service, role, schema, replicas, resources, graceSeconds,
leastGraceSeconds, partitions (the most of any topic that it reads), and scaled: `hpa`, `keda`, or nothing.
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
{{- range $role := ternary (list "all") $known.roles (eq $.Values.profile "small") -}}
{{- if $values.enabled -}}
{{- $item := mergeOverwrite (index $.Values.roles $role | deepCopy) (index $values.roles $role | default dict | deepCopy) -}}
{{- $_ := set $item "service" $service -}}
{{- $_ := set $item "role" $role -}}
{{- $_ := set $item "schema" $known.schema -}}
{{- $_ := set $item "replicas" ($item.replicas | default (index $replicas $role)) -}}
{{- $least := add (index $facts.drain_seconds $role | ceil) (ternary (include "muster.preStopSeconds" . | int) 0 (has $role (list "api" "all"))) -}}
{{- $_ := set $item "leastGraceSeconds" $least -}}
{{- $_ := set $item "graceSeconds" ($item.terminationGracePeriodSeconds | default (add $least 10)) -}}
{{- $partitions := 0 -}}
{{- range $known.reads }}{{ $partitions = max $partitions (index $facts.topics .).partitions }}{{ end -}}
{{- $_ := set $item "partitions" $partitions -}}
{{- $_ := set $item "scaled" "" -}}
{{- if and (eq $role "api") $.Values.autoscaling.api.enabled }}{{ $_ := set $item "scaled" "hpa" }}{{ end -}}
{{- if and (eq $role "consumer") $.Values.autoscaling.consumer.enabled }}{{ $_ := set $item "scaled" "keda" }}{{ end -}}
{{- if has $service (include "muster.stopped" (dict "root" $) | fromJsonArray) -}}
{{- $_ := set $item "stopped" true -}}
{{- $_ := set $item "scaled" "" -}}
{{- end -}}
{{- $items = append $items $item -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ dict "items" $items | toJson }}
{{- end }}

{{/* Resources without null, in YAML. Helm removes null only in place of the chart's own default; to Kubernetes, it is 0. */}}
{{- define "muster.resources" -}}
{{- $kept := dict -}}
{{- range $kind, $quantities := . -}}
{{- range $name, $quantity := $quantities -}}
{{- if not (kindIs "invalid" $quantity) -}}
{{- $_ := set $kept $kind (merge (dict $name $quantity) (get $kept $kind | default dict)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toYaml $kept }}
{{- end }}

{{/* Seconds that an api pod keeps serving after its termination begins, until every node knows: a busy one learns it late. */}}
{{- define "muster.preStopSeconds" -}}
15
{{- end }}

{{/* How long a finished Job stays. */}}
{{- define "muster.ttl" -}}
{{- if not (kindIs "invalid" .Values.migrations.ttlSeconds) -}}
ttlSecondsAfterFinished: {{ .Values.migrations.ttlSeconds }}
{{- end -}}
{{- end }}

{{/* The options that restrict an operator's command to the services that run, in JSON. */}}
{{- define "muster.enabledServices" -}}
{{- $options := list -}}
{{- range $service, $values := .Values.services -}}
{{- if $values.enabled }}{{ $options = concat $options (list "--service" $service) }}{{ end -}}
{{- end -}}
{{ $options | toJson }}
{{- end }}

{{/* The services that are stopped for an operator's work, in JSON. */}}
{{- define "muster.stopped" -}}
{{- append .root.Values.operations.stopped .root.Values.operations.service | compact | uniq | sortAlpha | toJson -}}
{{- end }}

{{/*
The settings of a service's containers in JSON, or, without a service, of the operator's. Arguments: service, and its
`port` if it is not 8000; for the operator's, `here`, the ports of the services that run in the same pod.
*/}}
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
{{- /* Every address, of IPv4 and IPv6: a pod may have only the latter. */ -}}
{{- $_ := set $env "MUSTER_HTTP_HOST" "" -}}
{{- $_ := set $env "MUSTER_HTTP_PORT" (.port | default "8000") -}}
{{- with $values.tracing.endpoint -}}
{{- $_ := set $env "OTEL_TRACES_EXPORTER" "otlp" -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" . -}}
{{- $_ := set $env "OTEL_TRACES_SAMPLER" "parentbased_traceidratio" -}}
{{- $_ := set $env "OTEL_TRACES_SAMPLER_ARG" ($values.tracing.ratio | toString) -}}
{{- with $env.SSL_CERT_FILE }}{{ $_ := set $env "OTEL_EXPORTER_OTLP_CERTIFICATE" . }}{{ end -}}
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
{{- range $name, $value := $values.settings -}}
{{- if hasPrefix "MUSTER_KAFKA_" $name }}{{ $_ := set $env $name $value }}{{ end -}}
{{- end -}}
{{- with $values.operations.clientId -}}
{{- $_ := set $env "MUSTER_CLIENT_ID" . -}}
{{- $_ := set $env "MUSTER_CLIENT_SECRET_FILE" "/etc/muster/secrets/MUSTER_CLIENT_SECRET" -}}
{{- end -}}
{{- range $service, $own := $values.services -}}
{{- $url := ternary (printf "http://%s-%s" (include "muster.name" $.root) $service) "" $own.enabled -}}
{{- with index ($.here | default dict) $service }}{{ $url = printf "http://127.0.0.1:%s" . }}{{ end -}}
{{- with $url }}{{ $_ := set $env (printf "MUSTER_%s_URL" (upper $service)) . }}{{ end -}}
{{- end -}}
{{- $env = mergeOverwrite $env ($values.operations.settings | deepCopy) -}}
{{- end -}}
{{ $env | toJson }}
{{- end }}

{{/* The same settings as a container's environment. */}}
{{- define "muster.environment" -}}
{{- $variables := list -}}
{{- range $name, $value := include "muster.settings" . | fromJson -}}
{{- $variables = append $variables (dict "name" $name "value" (include "muster.text" $value)) -}}
{{- end -}}
{{ toYaml $variables }}
{{- end }}

{{/* A value as text. A number may be a float, and toString makes 2e+06 of two million. */}}
{{- define "muster.text" -}}
{{ ternary (toJson .) (toString .) (kindIs "float64" .) }}
{{- end }}

{{/* A pod's securityContext. */}}
{{- define "muster.securityContext" -}}
{{- $defaults := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{ mergeOverwrite $defaults (.Values.pods.securityContext | deepCopy) | toYaml }}
{{- end }}

{{/*
The common fields of every pod, without its containers. Arguments: secrets, a list of {name, items}; `sidecars`, a similar
list for each service that goes into another volume, so that no container sees the others' secrets; `hook`, whether Helm
waits for it.
*/}}
{{- define "muster.pod" -}}
{{- $pods := .root.Values.pods -}}
{{- /* Without its Secret, a hook would stand until its deadline; its process says at once what is missing. */ -}}
{{- $more := ternary (dict "optional" true) dict (.hook | default false) -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $pods.serviceAccountName }}
serviceAccountName: {{ . | quote }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with $pods.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $pods.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- /* By default, Kubernetes waits five minutes before it replaces the pods of a lost node. */}}
{{- $tolerations := $pods.tolerations | default list }}
{{- range $key := list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" }}
{{- $tolerated := false }}
{{- range $tolerations }}
{{- if and (eq (.key | default $key) $key) (eq (.effect | default "NoExecute") "NoExecute") }}{{ $tolerated = true }}{{ end }}
{{- end }}
{{- if not $tolerated }}
{{- $tolerations = append $tolerations (dict "key" $key "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" 30) }}
{{- end }}
{{- end }}
{{- with $tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "muster.securityContext" .root | nindent 2 }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 256Mi}
  {{- $volumes := dict "secrets" .secrets }}
  {{- range $service, $secrets := .sidecars }}{{ $_ := set $volumes (printf "%s-secrets" $service) $secrets }}{{ end }}
  {{- range $volume, $secrets := $volumes }}
  - name: {{ $volume }}
    projected:
      defaultMode: {{ $pods.secretFileMode }}
      sources: {{- if not $secrets }} []{{ end }}
        {{- range $secrets }}
        - secret: {{- merge (deepCopy $more) . | toYaml | nindent 12 }}
        {{- end }}
  {{- end }}
  {{- with .root.Values.trustedCA }}
  {{- if .configMap }}
  - name: ca
    configMap:
      name: {{ .configMap | quote }}
      items: [{key: {{ .key | quote }}, path: ca.crt}]
  {{- else if .secret }}
  - name: ca
    secret:
      secretName: {{ .secret | quote }}
      items: [{key: {{ .key | quote }}, path: ca.crt}]
  {{- end }}
  {{- end }}
{{- end }}

{{/* The common fields of every container. Arguments: image, and the volume of its secrets. */}}
{{- define "muster.container" -}}
image: {{ include "muster.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
# A process that refuses to start says why in its last line, which `kubectl describe pod` shows.
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: {{ .volume | default "secrets" }}, mountPath: /etc/muster/secrets, readOnly: true}
  {{- if or .root.Values.trustedCA.configMap .root.Values.trustedCA.secret }}
  - {name: ca, mountPath: /etc/muster/ca, readOnly: true}
  {{- end }}
{{- end }}
