{{- /* Names of values in other charts, with advice for each. The schema accepts these names, so that this advice is printed
instead of a schema error. */ -}}
{{- define "tedee-exporter.otherCharts" -}}
{{- $strategy := "is not a value of this chart; the new pod starts before the old one stops only if config.state_url is set, because Tedee allows each account one sync in 20 seconds" -}}
args: is called extraArgs here
autoscaling: is not a value of this chart; one pod calls Tedee for an account, however many there are. For availability, set replicas
commonAnnotations: is not a value of this chart; set annotations, podAnnotations, or the annotations of an object
configExistingSecretName: is not a value of this chart; config must not contain secrets; set keys or existingSecret
containerPort: is not a value of this chart; the exporter listens on port 10333; set service.port
containerSecurityContext: is called securityContext here
customLabels: is called commonLabels here
deploymentAnnotations: is called annotations here
env: is called extraEnv here
envFrom: is called extraEnvFrom here
extraArguments: is called extraArgs here
extraConfigmapMounts: is not a value of this chart; set extraVolumes and extraVolumeMounts
extraDeploy: is called extraObjects here
extraEnvFromSecret: is called extraEnvFrom here
extraEnvVars: is called extraEnv here
extraInitContainers: is called initContainers here
extraLabels: is called commonLabels here
extraManifests: is called extraObjects here
extraSecretMounts: is not a value of this chart; set extraVolumes and extraVolumeMounts
grafana: is called dashboards here
grafanaDashboards: is called dashboards here
hostPort: is not a value of this chart; set hostNetwork, or service.type to NodePort
imagePullPolicy: is called image.pullPolicy here
kind: is not a value of this chart; the exporter is a Deployment
labels: is called commonLabels here
logLevel: is called log.level here
metrics: is not a value of this chart; set serviceMonitor
pdb: is called podDisruptionBudget here
persistentVolume: is called persistence here
pod: is not a value of this chart; set podLabels and podAnnotations
podMonitoring: is not a value of this chart; add the object to extraObjects
prometheus: is not a value of this chart; set serviceMonitor
rbac: is not a value of this chart; the exporter does not use the Kubernetes API
releaseLabel: is not a value of this chart; set serviceMonitor.labels.release
replicaCount: is called replicas here
restartPolicy: is not a value of this chart; a Deployment restarts its containers always
route: is called httpRoute here
secretConfig: is not a value of this chart; config must not contain secrets; set keys or existingSecret
serviceAccountName: is called serviceAccount.name here
sidecars: is called extraContainers here
storage: is called persistence here
strategy: {{ $strategy }}
updateStrategy: {{ $strategy }}
verticalPodAutoscaler: is not a value of this chart; add the object to extraObjects
volumeMounts: is called extraVolumeMounts here
volumes: is called extraVolumes here
image.name: is called image.repository here
image.pullSecrets: is called imagePullSecrets here
ingress.extraLabels: is called ingress.labels here
ingress.host: is called ingress.hosts here
ingress.hostname: is called ingress.hosts here
ingress.ingressClassName: is called ingress.className here
ingress.path: is not a value of this chart; set paths in ingress.hosts
ingress.pathType: is not a value of this chart; set paths in ingress.hosts
networkPolicy.allowMonitoringNamespace: is not a value of this chart; set networkPolicy.from
networkPolicy.ingress: is called networkPolicy.from here
persistence.accessMode: is called persistence.accessModes here
persistence.storageClassName: is called persistence.storageClass here
podMonitor.additionalLabels: is called podMonitor.labels here
podMonitor.path: is not a value of this chart; the path is /metrics, below web.routePrefix
podMonitor.selector: is called podMonitor.labels here
prometheusRule.additionalLabels: is called prometheusRule.labels here
prometheusRule.additionalRules: is called prometheusRule.additionalGroups here
prometheusRule.groups: is called prometheusRule.additionalGroups here
prometheusRule.rules: is called prometheusRule.additionalGroups here
service.ipDualStack: is not a value of this chart; set service.ipFamilyPolicy and service.ipFamilies
service.portName: is not a value of this chart; the port is called metrics
service.targetPort: is not a value of this chart; the exporter listens on port 10333; set service.port
serviceMonitor.additionalLabels: is called serviceMonitor.labels here
serviceMonitor.additionalMetricsRelabels: is called serviceMonitor.metricRelabelings here
serviceMonitor.additionalRelabeling: is called serviceMonitor.relabelings here
serviceMonitor.path: is not a value of this chart; the path is /metrics, below web.routePrefix
serviceMonitor.selector: is called serviceMonitor.labels here
serviceMonitor.selfMonitor: is not a value of this chart; set serviceMonitor.enabled
{{- end -}}

{{- /* Fails with the list of all problems in the values, before any object is rendered. */ -}}
{{- define "tedee-exporter.check" -}}
{{- $problems := list -}}
{{- $accounts := default (list) .Values.config.accounts -}}

{{- $name := include "tedee-exporter.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- $problems = append $problems (printf "%q is not a valid name of a Service, which must begin with a letter; choose another release name, or set fullnameOverride" $name) -}}
{{- end -}}

{{- range $name, $instead := include "tedee-exporter.otherCharts" . | fromYaml -}}
{{- $steps := splitList "." $name -}}
{{- $section := $.Values -}}
{{- range initial $steps -}}
{{- $section = index $section . -}}
{{- end -}}
{{- if hasKey $section (last $steps) -}}
{{- $problems = append $problems (printf "%s: %s" $name $instead) -}}
{{- end -}}
{{- end -}}

{{- if and .Values.demo (or $accounts .Values.keys .Values.existingSecret) -}}
{{- $problems = append $problems "demo: has its own accounts and cannot be combined with config.accounts, keys or existingSecret" -}}
{{- else if and .Values.existingSecret (not $accounts) -}}
{{- $problems = append $problems (printf "config.accounts: is empty, and the chart cannot read the Secret %s; list the accounts whose keys it contains, as in: --set config.accounts[0].name=home" .Values.existingSecret) -}}
{{- else if not (or .Values.demo $accounts .Values.keys) -}}
{{- $problems = append $problems "no account is configured. Set a personal access key of Tedee, as in: --set-file keys.home=FILE; or try the exporter with a simulated Tedee cloud: --set demo=true" -}}
{{- end -}}

{{- if and .Values.keys .Values.existingSecret -}}
{{- $problems = append $problems "keys: cannot be combined with existingSecret; add the keys to that Secret, or remove existingSecret" -}}
{{- end -}}
{{- $invalidName := "is not a valid key of a Secret, which consists of letters, digits, '-', '_' and '.', is not '.' and does not begin with '..'" -}}
{{- $instead := printf "with personal_key_file: %s/NAME" (include "tedee-exporter.folder.keys" .) -}}
{{- range $name := keys .Values.keys | sortAlpha -}}
{{- if not (include "tedee-exporter.isFileName" $name) -}}
{{- $problems = append $problems (printf "keys: %q %s; an account with such a name refers to its file %s" $name $invalidName $instead) -}}
{{- end -}}
{{- end -}}

{{- $several := gt (int .Values.replicas) 1 -}}
{{- if and $several .Values.demo -}}
{{- $problems = append $problems "replicas: the demo has one pod, because each pod would simulate other locks" -}}
{{- else if and $several (not .Values.config.state_url) -}}
{{- $problems = append $problems "replicas: several need a store that they share, because Tedee allows each account one sync in 20 seconds. Set the URL of a PostgreSQL database, as in: --set config.state_url=postgresql://USER@HOST/DATABASE" -}}
{{- end -}}
{{- if and $several .Values.persistence.enabled -}}
{{- $problems = append $problems "persistence.enabled: cannot be combined with several replicas, which store their state in the database of config.state_url" -}}
{{- end -}}
{{- /* As libpq parses the user and the password. */ -}}
{{- if regexMatch "^[a-z]+://[^/@]*:[^/@]+@|[?&](ssl)?password=" (default "" .Values.config.state_url) -}}
{{- $problems = append $problems "config.state_url: the password would be readable in a ConfigMap; move it to a Secret, and set database.existingSecret" -}}
{{- end -}}
{{- /* A rolling update would run pods with different stores at the same time. Without a cluster, the result is empty. */ -}}
{{- $namespace := include "tedee-exporter.namespace" . -}}
{{- $deployment := lookup "apps/v1" "Deployment" $namespace $name -}}
{{- $running := lookup "v1" "ConfigMap" $namespace $name | dig "data" "tedee-exporter.yml" "" | fromYaml -}}
{{- if and $running (dig "status" "replicas" 0 $deployment) (not .Values.demo) -}}
{{- if ne (default "" $running.state_url) (default "" .Values.config.state_url) -}}
{{- $problems = append $problems (printf "config.state_url: differs from that of the running pods, which would call Tedee at the same time as the new ones; stop them first: kubectl --namespace %s scale deployment/%s --replicas=0" $namespace $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.database.existingSecret (not .Values.config.state_url) -}}
{{- $problems = append $problems "database.existingSecret: has no effect without config.state_url" -}}
{{- end -}}

{{- /* The exporter would reject these values as well, but only after the old pod has stopped. */ -}}
{{- with .Values.config.sync -}}
{{- $interval := include "tedee-exporter.seconds" (default "20s" .interval) | float64 -}}
{{- $stale := include "tedee-exporter.seconds" (default (printf "%fs" (maxf 300 (mulf 3 $interval))) .stale_after) | float64 -}}
{{- if lt $interval 20.0 -}}
{{- $problems = append $problems "config.sync.interval: Tedee allows one sync in 20s; a shorter interval would lock the account out of the API" -}}
{{- else if gt $interval 86400.0 -}}
{{- $problems = append $problems "config.sync.interval: must be at most 24h" -}}
{{- end -}}
{{- if lt $stale (mulf 2 $interval) -}}
{{- $problems = append $problems "config.sync.stale_after: must be at least twice the interval, or every late sync causes a gap" -}}
{{- end -}}
{{- if lt (mulf $stale (default 350 .requests_per_hour)) 7200.0 -}}
{{- $problems = append $problems "config.sync.requests_per_hour: is too low to keep data younger than stale_after" -}}
{{- end -}}
{{- end -}}

{{- $devicesInterval := include "tedee-exporter.seconds" (dig "interval" "10m" (default (dict) .Values.config.devices)) | float64 -}}
{{- if or (lt $devicesInterval 300.0) (gt $devicesInterval 86400.0) -}}
{{- $problems = append $problems "config.devices.interval: must be between 5m and 24h" -}}
{{- end -}}
{{- with .Values.config.events -}}
{{- $interval := include "tedee-exporter.seconds" (default "60s" .interval) | float64 -}}
{{- if or (lt $interval 20.0) (gt $interval 86400.0) -}}
{{- $problems = append $problems "config.events.interval: must be between 20s and 24h" -}}
{{- end -}}
{{- $sync := default (dict) $.Values.config.sync -}}
{{- $perHour := default 350 $sync.requests_per_hour -}}
{{- $syncsPerHour := divf 3600 (maxf 20 (include "tedee-exporter.seconds" (default "20s" $sync.interval) | float64)) -}}
{{- /* Four fifths of the share, without the syncs and 36 requests that are reserved for devices. */ -}}
{{- if and .enabled (lt (subf (mulf 0.8 $perHour) $syncsPerHour 36) 1.0) -}}
{{- $problems = append $problems "config.sync.requests_per_hour: leaves no requests for events; raise it or config.sync.interval, or set config.events.enabled to false" -}}
{{- end -}}
{{- end -}}

{{- $names := dict -}}
{{- range $index, $account := $accounts -}}
{{- $location := printf "config.accounts[%d]" $index -}}
{{- range $inline, $instead := dict "personal_key" "keys" "access_token" "keys, and set access_token_file" -}}
{{- if hasKey $account $inline -}}
{{- $problems = append $problems (printf "%s.%s: would be readable in a ConfigMap; move it to %s" $location $inline $instead) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $names $account.name -}}
{{- $problems = append $problems (printf "%s.name: is also the name of config.accounts[%d]" $location (get $names $account.name)) -}}
{{- else -}}
{{- $_ := set $names $account.name $index -}}
{{- end -}}
{{- $credentials := list -}}
{{- range $credential := list "personal_key_file" "access_token_file" "oauth" -}}
{{- if hasKey $account $credential -}}
{{- $credentials = append $credentials $credential -}}
{{- end -}}
{{- end -}}
{{- if gt (len $credentials) 1 -}}
{{- $problems = append $problems (printf "%s: has several credentials; keep only one of %s" $location (join ", " $credentials)) -}}
{{- end -}}
{{- with $account.expires -}}
{{- $day := substr 0 10 . -}}
{{- if ne (toDate "2006-01-02" $day | date "2006-01-02") $day -}}
{{- $problems = append $problems (printf "%s.expires: is not a date; write it as in 2027-11-30" $location) -}}
{{- end -}}
{{- if or (hasKey $account "oauth") (hasKey $account "access_token") (hasKey $account "access_token_file") -}}
{{- $problems = append $problems (printf "%s.expires: is for personal keys; other credentials report their expiry themselves" $location) -}}
{{- end -}}
{{- end -}}
{{- if or (include "tedee-exporter.hasCredential" $account) (hasKey $.Values.keys $account.name) -}}
{{- else if not (include "tedee-exporter.isFileName" $account.name) -}}
{{- $problems = append $problems (printf "%s: %q %s; refer to the file of its key %s" $location $account.name $invalidName $instead) -}}
{{- else if not $.Values.existingSecret -}}
{{- $problems = append $problems (printf "%s: there is no key for %q; add one to keys or existingSecret, or set personal_key_file, access_token_file or oauth" $location $account.name) -}}
{{- end -}}
{{- with $account.oauth -}}
{{- $file := .refresh_token_file -}}
{{- if $several -}}
{{- $problems = append $problems (printf "%s.oauth: cannot be combined with several replicas, because each refresh returns a new token, which one pod stores in its file; set replicas to 1, or use a personal key" $location) -}}
{{- else if hasPrefix "/etc/tedee-exporter/" $file -}}
{{- $problems = append $problems (printf "%s.oauth.refresh_token_file: is on a read-only volume, but each refresh returns a new token to store; use a file in %s" $location (include "tedee-exporter.folder.state" $)) -}}
{{- else if and (hasPrefix (printf "%s/" (include "tedee-exporter.folder.state" $)) $file) (not $.Values.persistence.enabled) -}}
{{- $problems = append $problems (printf "%s.oauth.refresh_token_file: would be lost with the pod, and the user would have to sign in again; set persistence.enabled" $location) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with .Values.webConfig -}}
{{- if and .config .existingSecret -}}
{{- $problems = append $problems "webConfig.config: cannot be combined with webConfig.existingSecret; move it there, or remove one of them" -}}
{{- end -}}
{{- if and (or .tls .clientCertificates) (not .existingSecret) -}}
{{- $problems = append $problems "webConfig.tls and webConfig.clientCertificates: describe webConfig.existingSecret, which is not set" -}}
{{- end -}}
{{- if hasKey .config "tls_server_config" -}}
{{- range $part := list "cert" "key" -}}
{{- $file := printf "%s_file" $part -}}
{{- $tls := $.Values.webConfig.config.tls_server_config -}}
{{- if and (hasKey $tls $part) (or (hasKey $tls $file) $.Values.webConfig.tlsSecret) -}}
{{- $problems = append $problems (printf "webConfig.config.tls_server_config.%s: cannot be combined with %s or webConfig.tlsSecret; keep only one of them" $part $file) -}}
{{- else if not (or (hasKey $tls $part) (hasKey $tls $file) $.Values.webConfig.tlsSecret) -}}
{{- $problems = append $problems (printf "webConfig.config.tls_server_config: needs a %s; set webConfig.tlsSecret, or %s" $part $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with .Values.persistence -}}
{{- if and .existingClaim (not .enabled) -}}
{{- $problems = append $problems "persistence.existingClaim: has no effect without persistence.enabled" -}}
{{- end -}}
{{- if and .sizeLimit .enabled -}}
{{- $problems = append $problems "persistence.sizeLimit: applies only without a claim; with persistence.enabled set persistence.size" -}}
{{- end -}}
{{- end -}}

{{- with .Values.service -}}
{{- if and .nodePort (eq .type "ClusterIP") -}}
{{- $problems = append $problems "service.nodePort: cannot be combined with service.type ClusterIP; set NodePort or LoadBalancer, or remove it" -}}
{{- end -}}
{{- if and .externalTrafficPolicy (eq .type "ClusterIP") -}}
{{- $problems = append $problems "service.externalTrafficPolicy: needs service.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- $service := . -}}
{{- range $name := list "loadBalancerClass" "loadBalancerSourceRanges" -}}
{{- if and (index $service $name) (ne $service.type "LoadBalancer") -}}
{{- $problems = append $problems (printf "service.%s: needs service.type LoadBalancer" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (default "" .clusterIP) "None") (ne .type "ClusterIP") -}}
{{- $problems = append $problems "service.clusterIP: None needs service.type ClusterIP" -}}
{{- end -}}
{{- end -}}

{{- range $name, $kind := dict "ingress" "Ingress" "httpRoute" "Gateway" -}}
{{- if and (index $.Values $name).enabled (include "tedee-exporter.requiresClientCertificates" $) -}}
{{- $problems = append $problems (printf "%s.enabled: cannot be combined with a webConfig that requires client certificates; the %s has none" $name $kind) -}}
{{- end -}}
{{- end -}}
{{- with .Values.httpRoute -}}
{{- if and .enabled (not .parentRefs) -}}
{{- $problems = append $problems "httpRoute.parentRefs: is empty; set the Gateway, as in: --set httpRoute.parentRefs[0].name=GATEWAY" -}}
{{- end -}}
{{- end -}}

{{- with .Values.podDisruptionBudget -}}
{{- if and (include "tedee-exporter.hasDisruptionBudget" $) (kindIs "invalid" .minAvailable) (kindIs "invalid" .maxUnavailable) -}}
{{- $problems = append $problems "podDisruptionBudget: needs maxUnavailable or minAvailable" -}}
{{- end -}}
{{- end -}}

{{- if and .Values.hostNetwork .Values.networkPolicy.enabled -}}
{{- $problems = append $problems "networkPolicy.enabled: does not apply to a pod with hostNetwork; remove one of them" -}}
{{- end -}}

{{- range .Values.extraArgs -}}
{{- if regexMatch "^--web\\.(external-url|route-prefix)" . -}}
{{- $problems = append $problems (printf "extraArgs: %s is set by the chart; set web.externalUrl or web.routePrefix" .) -}}
{{- else if regexMatch "^--(config\\.|sync\\.|web\\.|demo|version|help)" . -}}
{{- $problems = append $problems (printf "extraArgs: %s is set by the chart, or conflicts with a flag of the chart" .) -}}
{{- else if regexMatch "^--log\\." . -}}
{{- $problems = append $problems (printf "extraArgs: %s is set by the chart; set log.level or log.format" .) -}}
{{- end -}}
{{- end -}}
{{- range default (list) .Values.extraEnv -}}
{{- if and . (hasPrefix "TEDEE_" .name) -}}
{{- $problems = append $problems (printf "extraEnv: %s has no effect, because the configuration is a file; set config" .name) -}}
{{- else if and . $.Values.database.existingSecret (eq .name "PGPASSWORD") -}}
{{- $problems = append $problems "extraEnv: PGPASSWORD is also set by database.existingSecret; remove one of them" -}}
{{- end -}}
{{- end -}}

{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- $problems = append $problems "podMonitor.enabled: cannot be combined with serviceMonitor.enabled; the exporter would be scraped twice" -}}
{{- end -}}

{{- if .Values.prometheusRule.enabled -}}
{{- $limits := list -}}
{{- $alerts := list -}}
{{- range (.Files.Get "files/tedee.rules.yml" | fromYaml).groups -}}
{{- range .rules -}}
{{- if .alert -}}
{{- $alerts = append $alerts .alert -}}
{{- end -}}
{{- end -}}
{{- if eq .name "tedee-limits" -}}
{{- range .rules -}}
{{- $limits = append $limits .record -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name := keys .Values.prometheusRule.limits | sortAlpha -}}
{{- if not (has $name $limits) -}}
{{- $problems = append $problems (printf "prometheusRule.limits: unknown rule %q; known: %s" $name ($limits | uniq | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- range $name := .Values.prometheusRule.disabled -}}
{{- if not (has $name $alerts) -}}
{{- $problems = append $problems (printf "prometheusRule.disabled: unknown alert %q; known: %s" $name ($alerts | uniq | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with $problems -}}
{{- fail (printf "\n%s\n" (join "\n" .)) -}}
{{- end -}}
{{- end -}}
