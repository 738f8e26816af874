{{- /* What is wrong with the jobs, one line each. The API server would refuse it half-way through an installation, or a pod would never start; and the schema
can't say how to fix it. */ -}}
{{- define "batch-jobs.problems" -}}
{{- $protocols := .Values.cache.protocols -}}
{{- $names := dict -}}
{{- include "batch-jobs.resourceProblems" (list "resources" .Values.resources) -}}
{{- range $i, $job := .Values.jobs }}
{{- $at := printf "jobs[%d]" $i }}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$" .name) }}
{{ $at }}.name is {{ quote .name }}: use at most 32 lower-case letters, digits and hyphens, and no hyphen at the start or end
{{- end }}
{{- if hasKey $names .name }}
{{ $at }}.name is {{ quote .name }}, like that of {{ get $names .name }}: give each job a different name
{{- end }}
{{- $_ := set $names .name $at }}
{{- if not (regexMatch "^(([A-Za-z0-9][A-Za-z0-9.-]*|\\[[0-9a-fA-F:]+\\])(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[a-z0-9]+:[0-9a-f]{32,})?$" .image) }}
{{ $at }}.image is {{ quote .image }}: must be the name of an image, such as registry.example/scanner:1.4, in lower case and without https://
{{- end }}
{{- if .repository }}
{{- $shown := regexReplaceAll "//[^/]*@" .repository "//...@" | quote }}
{{- if not (regexMatch (printf "^(%s)://." (join "|" $protocols)) .repository) }}
{{ $at }}.repository is {{ $shown }}: must begin with {{ range $n, $protocol := $protocols }}{{ if $n }} or {{ end }}{{ $protocol }}://{{ end }}; to allow other protocols, set cache.protocols; write git@HOST:PATH as ssh://git@HOST/PATH
{{- else if regexMatch "^https?://[^/]*@" .repository }}
{{ $at }}.repository is {{ $shown }}: must not contain credentials; put a token into a Secret and name it in cache.token.secret
{{- end }}
{{- if and .revision (not (regexMatch "^[^- ~^:?*\\\\[][^ ~^:?*\\\\[]*$" .revision)) }}
{{ $at }}.revision is {{ quote .revision }}: must be a branch, a tag, the full name of a ref, or the complete id of a commit
{{- end }}
{{- else if .revision }}
{{ $at }}.revision is {{ quote .revision }}, but the job has no repository: set {{ $at }}.repository, or remove the revision
{{- end }}
{{- if and (hasKey . "expectedDuration") (not (regexMatch "^([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+$" .expectedDuration)) }}
{{ $at }}.expectedDuration is {{ quote .expectedDuration }}: must be a duration, such as 90s, 10m or 1h30m
{{- end }}
{{- range $n, $variable := .env }}
{{- if not (regexMatch "^[-._a-zA-Z][-._a-zA-Z0-9]*$" .name) }}
{{ $at }}.env[{{ $n }}].name is {{ quote .name }}: use letters, digits, "_", "-" and ".", and no digit at the start
{{- end }}
{{- end }}
{{- include "batch-jobs.resourceProblems" (list (printf "%s.resources" $at) (.resources | default dict)) }}
{{- end }}
{{- end -}}

{{- /* A list of the place of resources in the values, and the resources. */ -}}
{{- define "batch-jobs.resourceProblems" -}}
{{- $at := index . 0 -}}{{- $resources := index . 1 -}}
{{- range $kind, $amounts := $resources }}
{{- if not (has $kind (list "requests" "limits" "claims")) }}
{{ $at }}.{{ $kind }}: unknown; write it in {{ $at }}.requests or {{ $at }}.limits
{{- else if ne $kind "claims" }}
{{- range $name, $amount := $amounts }}
{{- $text := toString $amount }}
{{- if hasPrefix "-" $text }}
{{ $at }}.{{ $kind }}.{{ $name }} is {{ $text }}: must not be negative
{{- else if not (include "batch-jobs.amount" $amount) }}
{{ $at }}.{{ $kind }}.{{ $name }} is {{ quote $text }}: must be a quantity, such as 500m or 2 for cpu and 512Mi or 1Gi for memory
{{- else if and (has $name (list "memory" "ephemeral-storage")) (hasSuffix "m" $text) }}
{{ $at }}.{{ $kind }}.{{ $name }} is {{ $text }}, which means thousandths of a byte: write {{ trimSuffix "m" $text }}Mi
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $limit := $resources.limits }}
{{- $least := include "batch-jobs.amount" (get ($resources.requests | default dict) $name) }}
{{- $most := include "batch-jobs.amount" $limit }}
{{- if and $least $most (gt (float64 $least) (float64 $most)) }}
{{ $at }}.requests.{{ $name }} is {{ get $resources.requests $name }}: must not exceed {{ $at }}.limits.{{ $name }}, {{ $limit }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* A quantity as a number; empty if it is none. */ -}}
{{- define "batch-jobs.amount" -}}
{{- $units := dict "n" 0.000000001 "u" 0.000001 "m" 0.001 "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
  "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- $text := toString . -}}
{{- if regexMatch "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)$" $text -}}{{ float64 $text }}
{{- else if regexMatch "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([numkMGTPE]|[KMGTPE]i)?$" $text -}}
{{ mulf (regexFind "[0-9.]+" $text | float64) (get $units (regexFind "[a-zA-Z]*$" $text)) }}
{{- end -}}
{{- end -}}
