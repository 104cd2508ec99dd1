{{- /* All that is wrong with the values at once, before anything is made of them. */ -}}
{{- define "tedee-exporter.check" -}}
{{- $problems := list -}}
{{- $accounts := default (list) .Values.config.accounts -}}

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
{{- range $name := keys .Values.keys | sortAlpha -}}
{{- if not (regexMatch "^[-._a-zA-Z0-9]{1,200}$" $name) -}}
{{- $problems = append $problems (printf "keys: %q cannot be the name of a file in a Secret, which has letters, digits, '-', '_' and '.'; an account whose name has others names its file itself, with personal_key_file: %s/NAME" $name (include "tedee-exporter.folder.keys" $)) -}}
{{- end -}}
{{- end -}}

{{- range $index, $account := $accounts -}}
{{- $where := printf "config.accounts[%d]" $index -}}
{{- range $inline, $instead := dict "personal_key" "keys" "access_token" "keys, and its name to access_token_file" -}}
{{- if hasKey $account $inline -}}
{{- $problems = append $problems (printf "%s.%s: would be for everybody to read in a ConfigMap; give it to %s" $where $inline $instead) -}}
{{- end -}}
{{- end -}}
{{- if not (or (include "tedee-exporter.hasCredential" $account) $.Values.existingSecret (hasKey $.Values.keys $account.name)) -}}
{{- $problems = append $problems (printf "%s: there is no key for %q; give it one in keys or existingSecret, or name a personal_key_file, access_token_file or oauth of its own" $where $account.name) -}}
{{- end -}}
{{- with $account.oauth -}}
{{- $file := .refresh_token_file -}}
{{- if hasPrefix "/etc/tedee-exporter/" $file -}}
{{- $problems = append $problems (printf "%s.oauth.refresh_token_file: is on a volume that cannot be written to, and each refresh brings a new token; let it be in %s" $where (include "tedee-exporter.folder.state" $)) -}}
{{- else if and (hasPrefix (include "tedee-exporter.folder.state" $) $file) (not $.Values.persistence.enabled) -}}
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
{{- end -}}

{{- range .Values.extraArgs -}}
{{- if regexMatch "^--(config\\.|sync\\.|web\\.|demo|version|help)" . -}}
{{- $problems = append $problems (printf "extraArgs: %s is set by the chart, or would break what it sets" .) -}}
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
