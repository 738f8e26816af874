{{- /* Fails for limits of a calendar that the scaler would refuse, before anything is deployed. Takes a list of the calendar, its place in the
values and the policy's cap. A limit that a period does not set comes from the default. */ -}}
{{- define "scan-jobs.checkLimits" -}}
{{- $calendar := index . 0 -}}{{- $place := index . 1 -}}{{- $most := index . 2 -}}
{{- $default := $calendar.default | default dict -}}
{{- include "scan-jobs.checkLimit" (list (printf "%s.default" $place) $default dict $most) -}}
{{- range $i, $period := $calendar.periods -}}
{{- include "scan-jobs.checkLimit" (list (printf "%s.periods[%d] (%s)" $place $i ($period.name | default "")) ($period.limits | default dict) $default $most) -}}
{{- end -}}
{{- range $i, $exception := $calendar.exceptions -}}
{{- with $exception.limits -}}
{{- include "scan-jobs.checkLimit" (list (printf "%s.exceptions[%d]" $place $i) . $default $most) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Takes a list of the place of the limits in the values, the limits, the default and the policy's cap. */ -}}
{{- define "scan-jobs.checkLimit" -}}
{{- $limits := merge (deepCopy (index . 1)) (index . 2) -}}{{- $where := index . 0 -}}
{{- range $name, $value := pick $limits "minReplicas" "idleReplicas" "maxReplicas" -}}
{{- if lt (int64 $value) 0 -}}{{ fail (printf "%s: %s is %d: must not be negative" $where $name (int64 $value)) }}{{- end -}}
{{- end -}}
{{- with $limits.surplus -}}
{{- if not (regexMatch "^(0|[1-9][0-9]{0,4}|100000|(0|[1-9][0-9]{0,2}|1000)%)$" (kindIs "float64" . | ternary (printf "%.0f" .) (toString .))) -}}
{{ fail (printf "%s: surplus is %v: must be a number of workers from 0 to 100000, or a percentage from 0%% to 1000%%" $where .) }}
{{- end -}}
{{- end -}}
{{- $cap := int64 (index . 3) -}}
{{- if hasKey $limits "maxReplicas" -}}{{- $cap = min $cap (int64 $limits.maxReplicas) -}}{{- end -}}
{{- $floor := int64 ($limits.minReplicas | default 0) -}}
{{- if gt $floor $cap -}}
{{- fail (printf "%s: minReplicas is %d: must not exceed the cap, %d" $where $floor $cap) -}}
{{- end -}}
{{- end -}}
