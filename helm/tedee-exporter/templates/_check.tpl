{{- /* Names of other charts, and what to use here. The schema lets them pass, so that this can be said. */ -}}
{{- define "tedee-exporter.elsewhere" -}}
{{- $one := "is not a value of this chart; there is one pod, because Tedee allows each account one call in 20 seconds" -}}
autoscaling: {{ $one }}
replicaCount: {{ $one }}
replicas: {{ $one }}
strategy: {{ $one }}, and the old one ends before a new one starts
updateStrategy: {{ $one }}, and the old one ends before a new one starts
containerSecurityContext: is called securityContext here
deploymentAnnotations: is called annotations here
env: is called extraEnv here
envFrom: is called extraEnvFrom here
extraArguments: is called extraArgs here
extraDeploy: is called extraObjects here
extraEnvVars: is called extraEnv here
extraInitContainers: is called initContainers here
extraManifests: is called extraObjects here
sidecars: is called extraContainers here
volumeMounts: is called extraVolumeMounts here
volumes: is called extraVolumes here
ingress.ingressClassName: is called ingress.className here
persistence.storageClassName: is called persistence.storageClass here
podMonitor.additionalLabels: is called podMonitor.labels here
prometheusRule.additionalLabels: is called prometheusRule.labels here
prometheusRule.rules: is called prometheusRule.additionalGroups here
serviceMonitor.additionalLabels: is called serviceMonitor.labels here
serviceMonitor.scheme: is not a value of this chart; it is known from webConfig
podMonitor.scheme: is not a value of this chart; it is known from webConfig
{{- end -}}

{{- /* All that is wrong with the values at once, before anything is made of them. */ -}}
{{- define "tedee-exporter.check" -}}
{{- $problems := list -}}
{{- $accounts := default (list) .Values.config.accounts -}}

{{- $name := include "tedee-exporter.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- $problems = append $problems (printf "%q cannot be the name of a Service, which begins with a letter; name the release otherwise, or set fullnameOverride" $name) -}}
{{- end -}}

{{- range $name, $instead := include "tedee-exporter.elsewhere" . | fromYaml -}}
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
{{- $problems = append $problems "demo: brings its own accounts; it goes with none of config.accounts, keys and existingSecret" -}}
{{- else if and .Values.existingSecret (not $accounts) -}}
{{- $problems = append $problems (printf "config.accounts: is empty, and the chart cannot look into the Secret %s; name the accounts whose keys it has, as in: --set config.accounts[0].name=home" .Values.existingSecret) -}}
{{- else if not (or .Values.demo $accounts .Values.keys) -}}
{{- $problems = append $problems "no account is configured. Give the exporter a personal access key of Tedee, as in: --set-file keys.home=FILE; or see it work without one, against a simulated Tedee cloud: --set demo=true" -}}
{{- end -}}

{{- if and .Values.keys .Values.existingSecret -}}
{{- $problems = append $problems "keys: goes not with existingSecret; put the keys there, or leave it out" -}}
{{- end -}}
{{- $cannot := "cannot be the name of a file in a Secret, which has letters, digits, '-', '_' and '.', and is neither '.' nor begins with '..'" -}}
{{- $instead := printf "with personal_key_file: %s/NAME" (include "tedee-exporter.folder.keys" .) -}}
{{- range $name := keys .Values.keys | sortAlpha -}}
{{- if not (include "tedee-exporter.isFileName" $name) -}}
{{- $problems = append $problems (printf "keys: %q %s; an account whose name is another names its file itself, %s" $name $cannot $instead) -}}
{{- end -}}
{{- end -}}

{{- /* The exporter would say the rest, when the old pod is already gone. */ -}}
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

{{- $names := dict -}}
{{- range $index, $account := $accounts -}}
{{- $where := printf "config.accounts[%d]" $index -}}
{{- range $inline, $instead := dict "personal_key" "keys" "access_token" "keys, and its name to access_token_file" -}}
{{- if hasKey $account $inline -}}
{{- $problems = append $problems (printf "%s.%s: would be for everybody to read in a ConfigMap; give it to %s" $where $inline $instead) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $names $account.name -}}
{{- $problems = append $problems (printf "%s.name: is the name of config.accounts[%d] too" $where (get $names $account.name)) -}}
{{- else -}}
{{- $_ := set $names $account.name $index -}}
{{- end -}}
{{- $given := list -}}
{{- range $credential := list "personal_key_file" "access_token_file" "oauth" -}}
{{- if hasKey $account $credential -}}
{{- $given = append $given $credential -}}
{{- end -}}
{{- end -}}
{{- if gt (len $given) 1 -}}
{{- $problems = append $problems (printf "%s: has several credentials; give it one of %s" $where (join ", " $given)) -}}
{{- end -}}
{{- if or (include "tedee-exporter.hasCredential" $account) (hasKey $.Values.keys $account.name) -}}
{{- else if not (include "tedee-exporter.isFileName" $account.name) -}}
{{- $problems = append $problems (printf "%s: %q %s; name the file of its key, %s" $where $account.name $cannot $instead) -}}
{{- else if not $.Values.existingSecret -}}
{{- $problems = append $problems (printf "%s: there is no key for %q; give it one in keys or existingSecret, or name a personal_key_file, access_token_file or oauth of its own" $where $account.name) -}}
{{- end -}}
{{- with $account.oauth -}}
{{- $file := .refresh_token_file -}}
{{- if hasPrefix "/etc/tedee-exporter/" $file -}}
{{- $problems = append $problems (printf "%s.oauth.refresh_token_file: is on a volume that cannot be written to, and each refresh brings a new token; let it be in %s" $where (include "tedee-exporter.folder.state" $)) -}}
{{- else if and (hasPrefix (printf "%s/" (include "tedee-exporter.folder.state" $)) $file) (not $.Values.persistence.enabled) -}}
{{- $problems = append $problems (printf "%s.oauth.refresh_token_file: would be lost with the pod, and somebody would have to sign in again; set persistence.enabled" $where) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with .Values.webConfig -}}
{{- if and .config .existingSecret -}}
{{- $problems = append $problems "webConfig.config: goes not with webConfig.existingSecret; put it there, or leave it out" -}}
{{- end -}}
{{- if and (or .tls .clientCertificates) (not .existingSecret) -}}
{{- $problems = append $problems "webConfig.tls and webConfig.clientCertificates: say what is in webConfig.existingSecret, which is not set" -}}
{{- end -}}
{{- if hasKey .config "tls_server_config" -}}
{{- range $what := list "cert" "key" -}}
{{- $file := printf "%s_file" $what -}}
{{- $tls := $.Values.webConfig.config.tls_server_config -}}
{{- if and (hasKey $tls $what) (or (hasKey $tls $file) $.Values.webConfig.tlsSecret) -}}
{{- $problems = append $problems (printf "webConfig.config.tls_server_config.%s: goes with neither %s nor webConfig.tlsSecret; give one of them" $what $file) -}}
{{- else if not (or (hasKey $tls $what) (hasKey $tls $file) $.Values.webConfig.tlsSecret) -}}
{{- $problems = append $problems (printf "webConfig.config.tls_server_config: needs a %s; set webConfig.tlsSecret, or %s" $what $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with .Values.persistence -}}
{{- if and .existingClaim (not .enabled) -}}
{{- $problems = append $problems "persistence.existingClaim: is not used without persistence.enabled" -}}
{{- end -}}
{{- if and .sizeLimit .enabled -}}
{{- $problems = append $problems "persistence.sizeLimit: is of the volume that there is without a claim; with persistence.enabled set persistence.size" -}}
{{- end -}}
{{- end -}}

{{- with .Values.service -}}
{{- if and .nodePort (eq .type "ClusterIP") -}}
{{- $problems = append $problems "service.nodePort: goes not with service.type ClusterIP; set NodePort or LoadBalancer, or leave it out" -}}
{{- end -}}
{{- if and .externalTrafficPolicy (eq .type "ClusterIP") -}}
{{- $problems = append $problems "service.externalTrafficPolicy: needs service.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and .loadBalancerSourceRanges (ne .type "LoadBalancer") -}}
{{- $problems = append $problems "service.loadBalancerSourceRanges: needs service.type LoadBalancer" -}}
{{- end -}}
{{- if and (eq (default "" .clusterIP) "None") (ne .type "ClusterIP") -}}
{{- $problems = append $problems "service.clusterIP: None needs service.type ClusterIP" -}}
{{- end -}}
{{- end -}}

{{- with .Values.ingress -}}
{{- if and .enabled (include "tedee-exporter.demandsClientCertificates" $) -}}
{{- $problems = append $problems "ingress.enabled: goes not with webConfig that demands certificates of clients; the Ingress has none" -}}
{{- end -}}
{{- end -}}

{{- with .Values.podDisruptionBudget -}}
{{- if and .enabled (kindIs "invalid" .minAvailable) (kindIs "invalid" .maxUnavailable) -}}
{{- $problems = append $problems "podDisruptionBudget: needs maxUnavailable or minAvailable" -}}
{{- end -}}
{{- end -}}

{{- if and .Values.hostNetwork .Values.networkPolicy.enabled -}}
{{- $problems = append $problems "networkPolicy.enabled: does not hold for a pod with hostNetwork; leave one of them out" -}}
{{- end -}}

{{- range .Values.extraArgs -}}
{{- if regexMatch "^--(config\\.|sync\\.|web\\.|demo|version|help)" . -}}
{{- $problems = append $problems (printf "extraArgs: %s is set by the chart, or would break what it sets" .) -}}
{{- else if regexMatch "^--log\\." . -}}
{{- $problems = append $problems (printf "extraArgs: %s is set by the chart; set log.level or log.format" .) -}}
{{- end -}}
{{- end -}}
{{- range default (list) .Values.extraEnv -}}
{{- if and . (hasPrefix "TEDEE_" .name) -}}
{{- $problems = append $problems (printf "extraEnv: %s has no effect on the exporter, whose configuration is a file; set config" .name) -}}
{{- end -}}
{{- end -}}

{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- $problems = append $problems "podMonitor.enabled: goes not with serviceMonitor.enabled; everything would be scraped twice" -}}
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
{{- $problems = append $problems (printf "prometheusRule.limits: there is no %q; known: %s" $name ($limits | uniq | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- range $name := .Values.prometheusRule.disabled -}}
{{- if not (has $name $alerts) -}}
{{- $problems = append $problems (printf "prometheusRule.disabled: there is no alert %q; known: %s" $name ($alerts | uniq | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with $problems -}}
{{- fail (printf "\n%s\n" (join "\n" .)) -}}
{{- end -}}
{{- end -}}
