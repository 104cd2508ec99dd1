{{- define "tedee-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end -}}

{{- /* The name of most objects. A Service needs a DNS label, but the name of a release may contain dots. */ -}}

{{- define "tedee-exporter.fullname" -}}
{{- $name := include "tedee-exporter.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | replace "." "-" | trunc 63 | trimAll "-" -}}
{{- end -}}

{{- define "tedee-exporter.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "tedee-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tedee-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* The labels of the pod of `helm test`, which no selector of the release may match. */ -}}
{{- define "tedee-exporter.testLabels" -}}
app.kubernetes.io/name: {{ include "tedee-exporter.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* The labels of an object. The argument is a list of the root context and maps of additional labels. Earlier maps take
precedence over later ones, and the chart's own labels over all maps, because selectors use them. */ -}}
{{- define "tedee-exporter.labels" -}}
{{- $ := index . 0 -}}
{{- $labels := include "tedee-exporter.selectorLabels" $ | fromYaml -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- $_ := set $labels "app.kubernetes.io/version" ($.Chart.AppVersion | replace "+" "_") -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $.Release.Service -}}
{{- range rest . -}}
{{- $labels = merge $labels . -}}
{{- end -}}
{{- merge $labels $.Values.commonLabels | toYaml -}}
{{- end -}}

{{- define "tedee-exporter.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with default .Values.image.registry (.Values.global).imageRegistry -}}
{{- /* The part before the first slash is a registry if it could be a host name (as in Docker's references). */ -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" $repository .digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Pull Secrets. Each is a name or a mapping with a name; other charts use either. */ -}}
{{- define "tedee-exporter.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat (default (list) (.Values.global).imagePullSecrets) (default (list) .Values.imagePullSecrets) -}}
{{- $secrets = append $secrets (ternary (dict "name" .) . (kindIs "string" .)) -}}
{{- end -}}
{{- with uniq $secrets -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- /* A host of the Ingress (a name or a mapping) as a mapping with `host` and `paths`. */ -}}
{{- define "tedee-exporter.ingressHost" -}}
{{- $host := ternary . (dict "host" .) (kindIs "map" .) -}}
{{- $paths := list -}}
{{- range default (list "/") $host.paths -}}
{{- $paths = append $paths (merge (dict) (ternary . (dict "path" .) (kindIs "map" .)) (dict "path" "/" "pathType" "Prefix")) -}}
{{- end -}}
{{- $name := default "" $host.host -}}
{{- dict "host" (ternary "" $name (eq $name "*")) "paths" $paths | toYaml -}}
{{- end -}}

{{- /* The fields of a map of values that are passed unchanged. The arguments are the map and the names of the fields. Empty
fields are omitted. */ -}}
{{- define "tedee-exporter.fields" -}}
{{- $values := first . -}}
{{- $fields := dict -}}
{{- range $name := rest . -}}
{{- if index $values $name -}}
{{- $_ := set $fields $name (index $values $name) -}}
{{- end -}}
{{- end -}}
{{- with $fields -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- /* The start of a command that upgrades the release with changed values only. */ -}}
{{- define "tedee-exporter.upgrade" -}}
helm upgrade {{ .Release.Name }} oci://ghcr.io/tedee-exporter/charts/{{ .Chart.Name }} --version {{ .Chart.Version }} \
        --namespace {{ .Release.Namespace }} --reset-then-reuse-values
{{- end -}}

{{- define "tedee-exporter.serviceAccountName" -}}
{{- default (ternary (include "tedee-exporter.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "tedee-exporter.keysSecret" -}}
{{- if .Values.existingSecret -}}
{{- .Values.existingSecret -}}
{{- else if .Values.keys -}}
{{- include "tedee-exporter.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "tedee-exporter.folder.keys" -}}/etc/tedee-exporter/keys{{- end -}}
{{- define "tedee-exporter.folder.tls" -}}/etc/tedee-exporter/tls{{- end -}}
{{- define "tedee-exporter.folder.state" -}}/var/lib/tedee-exporter{{- end -}}

{{- /* The configuration of the exporter. Each account has a credential. */ -}}
{{- define "tedee-exporter.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $accounts := list -}}
{{- range default (list) $config.accounts -}}
{{- $accounts = append $accounts (include "tedee-exporter.account" . | fromYaml) -}}
{{- end -}}
{{- if not $accounts -}}
{{- range $name := keys .Values.keys | sortAlpha -}}
{{- $accounts = append $accounts (include "tedee-exporter.account" (dict "name" $name) | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "accounts" $accounts -}}
{{- if $config.state_url -}}
{{- $_ := unset $config "state_file" -}}
{{- end -}}
{{- range $section := list "api" "sync" "devices" "events" "state_url" -}}
{{- if not (index $config $section) -}}
{{- $_ := unset $config $section -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- /* "true" if the state is in a database. The demo stores its state in memory. */ -}}
{{- define "tedee-exporter.usesDatabase" -}}
{{- if and .Values.config.state_url (not .Values.demo) -}}true{{- end -}}
{{- end -}}

{{- /* The ports of the hosts in `state_url`, one per line. */ -}}
{{- define "tedee-exporter.databasePorts" -}}
{{- $hosts := regexReplaceAll "^[a-z]+://([^/@]*@)?([^/?]*).*$" .Values.config.state_url "${2}" -}}
{{- range splitList "," $hosts }}
{{ regexFind ":[0-9]+$" . | trimPrefix ":" | default "5432" }}
{{- end }}
{{- end -}}

{{- define "tedee-exporter.hasStateVolume" -}}
{{- if or .Values.persistence.enabled (not (include "tedee-exporter.usesDatabase" .)) -}}true{{- end -}}
{{- end -}}

{{- /* "true" if the pods store nothing, so that old and new pods can run at the same time. A refresh token is in a file,
and can be used only once. */ -}}
{{- define "tedee-exporter.isStateless" -}}
{{- $stateful := include "tedee-exporter.hasStateVolume" . -}}
{{- range default (list) .Values.config.accounts -}}
{{- $stateful = or $stateful .oauth -}}
{{- end -}}
{{- if not $stateful -}}true{{- end -}}
{{- end -}}

{{- define "tedee-exporter.hasDisruptionBudget" -}}
{{- $enabled := .Values.podDisruptionBudget.enabled -}}
{{- if ternary $enabled (gt (int .Values.replicas) 1) (kindIs "bool" $enabled) -}}true{{- end -}}
{{- end -}}

{{- /* The environment variables of the exporter. */ -}}
{{- define "tedee-exporter.env" -}}
{{- $env := list -}}
{{- with .Values.database -}}
{{- if .existingSecret -}}
{{- $reference := dict "name" .existingSecret "key" .passwordKey -}}
{{- $env = append $env (dict "name" "PGPASSWORD" "valueFrom" (dict "secretKeyRef" $reference)) -}}
{{- end -}}
{{- end -}}
{{- with concat $env (default (list) .Values.extraEnv) -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- /* The fields of a pod that select its node. */ -}}
{{- define "tedee-exporter.scheduling" -}}
{{- include "tedee-exporter.fields" (list .Values "affinity" "nodeSelector" "priorityClassName" "runtimeClassName" "schedulerName" "tolerations") -}}
{{- end -}}

{{- define "tedee-exporter.topologySpreadConstraints" -}}
{{- if .Values.topologySpreadConstraints -}}
{{- toYaml .Values.topologySpreadConstraints -}}
{{- else if gt (int .Values.replicas) 1 -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "tedee-exporter.selectorLabels" . | nindent 6 }}
{{- end -}}
{{- end -}}

{{- /* "true" if a text is a valid key of a Secret. */ -}}
{{- define "tedee-exporter.isFileName" -}}
{{- if regexMatch "^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]{0,198}$" . -}}true{{- end -}}
{{- end -}}

{{- /* A duration, such as 1h30m, in seconds. */ -}}
{{- define "tedee-exporter.seconds" -}}
{{- $seconds := 0.0 -}}
{{- range regexFindAll "[0-9.]+[a-z]+" . -1 -}}
{{- $unit := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) (regexFind "[a-z]+" .) -}}
{{- $seconds = addf $seconds (mulf (regexFind "[0-9.]+" . | float64) $unit) -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{- define "tedee-exporter.account" -}}
{{- if include "tedee-exporter.hasCredential" . -}}
{{- toYaml . -}}
{{- else -}}
{{- set (deepCopy .) "personal_key_file" (printf "%s/%s" (include "tedee-exporter.folder.keys" .) .name) | toYaml -}}
{{- end -}}
{{- end -}}

{{- define "tedee-exporter.hasCredential" -}}
{{- if or .personal_key .personal_key_file .access_token .access_token_file .oauth -}}true{{- end -}}
{{- end -}}

{{- /* The web configuration. Empty if there is none, or if it is in an existing Secret. */ -}}
{{- define "tedee-exporter.webConfig" -}}
{{- if not .Values.webConfig.existingSecret -}}
{{- $config := deepCopy .Values.webConfig.config -}}
{{- if .Values.webConfig.tlsSecret -}}
{{- $folder := include "tedee-exporter.folder.tls" . -}}
{{- $files := dict "cert_file" (printf "%s/tls.crt" $folder) "key_file" (printf "%s/tls.key" $folder) -}}
{{- $_ := set $config "tls_server_config" (merge (default (dict) $config.tls_server_config) $files) -}}
{{- end -}}
{{- with $config -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tedee-exporter.webConfigSecret" -}}
{{- if .Values.webConfig.existingSecret -}}
{{- .Values.webConfig.existingSecret -}}
{{- else if include "tedee-exporter.webConfig" . -}}
{{- include "tedee-exporter.fullname" . }}-web
{{- end -}}
{{- end -}}

{{- define "tedee-exporter.scheme" -}}
{{- $config := include "tedee-exporter.webConfig" . | fromYaml -}}
{{- $declared := or .Values.webConfig.tls .Values.webConfig.clientCertificates .Values.webConfig.tlsSecret -}}
{{- if or $declared $config.tls_server_config -}}https{{- else -}}http{{- end -}}
{{- end -}}

{{- /* The path below which all endpoints are, without a slash at the end. Empty if there is none. */ -}}
{{- define "tedee-exporter.routePrefix" -}}
{{- with default (urlParse .Values.web.externalUrl).path .Values.web.routePrefix | trimAll "/" -}}/{{ . }}{{- end -}}
{{- end -}}

{{- define "tedee-exporter.requiresClientCertificates" -}}
{{- $config := include "tedee-exporter.webConfig" . | fromYaml -}}
{{- $type := dig "tls_server_config" "client_auth_type" "" $config -}}
{{- if or .Values.webConfig.clientCertificates (eq $type "RequireAndVerifyClientCert") -}}true{{- end -}}
{{- end -}}

{{- /* The handler of a probe. The kubelet does not verify certificates and has no client certificate. */ -}}
{{- define "tedee-exporter.probe" -}}
{{- $ := index . 0 -}}
{{- if include "tedee-exporter.requiresClientCertificates" $ -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ include "tedee-exporter.routePrefix" $ }}{{ index . 1 }}
  port: metrics
  scheme: {{ include "tedee-exporter.scheme" $ | upper }}
{{- end }}
{{- end -}}

{{- /* The endpoint of a ServiceMonitor or PodMonitor. */ -}}
{{- define "tedee-exporter.endpoint" -}}
{{- $ := index . 0 -}}
{{- $monitor := index . 1 -}}
port: metrics
path: {{ include "tedee-exporter.routePrefix" $ }}/metrics
scheme: {{ default (include "tedee-exporter.scheme" $) $monitor.scheme }}
{{- with include "tedee-exporter.fields" (list $monitor "interval" "scrapeTimeout" "honorLabels" "params" "proxyUrl" "tlsConfig" "basicAuth" "relabelings" "metricRelabelings") }}
{{ . }}
{{- end }}
{{- if kindIs "bool" $monitor.honorTimestamps }}
honorTimestamps: {{ $monitor.honorTimestamps }}
{{- end }}
{{- end -}}

{{- define "tedee-exporter.initContainers" -}}
{{- $containers := list -}}
{{- if not (or .Values.demo .Values.persistence.enabled (include "tedee-exporter.usesDatabase" .) (ne (dir .Values.config.state_file) (include "tedee-exporter.folder.state" .))) -}}
{{- $containers = append $containers (include "tedee-exporter.stateContainer" . | fromYaml) -}}
{{- end -}}
{{- with concat $containers .Values.initContainers -}}
{{- tpl (toYaml .) $ -}}
{{- end -}}
{{- end -}}

{{- /* Without a state file, the exporter assumes a first start and calls Tedee immediately. But the previous pod, whose
state is lost, may have called a second ago. With an empty state file, the exporter waits 31 seconds. */ -}}
{{- define "tedee-exporter.stateContainer" -}}
name: state
image: {{ include "tedee-exporter.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command:
  - python3
  - -c
  - import pathlib, sys; pathlib.Path(sys.argv[1]).touch(0o600)
  - {{ .Values.config.state_file | quote }}
volumeMounts:
  - name: state
    mountPath: {{ include "tedee-exporter.folder.state" . }}
{{- with include "tedee-exporter.fields" (list .Values "resources" "securityContext") }}
{{ . }}
{{- end }}
{{- end -}}
