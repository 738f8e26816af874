{{- define "scan-jobs.name" -}}{{ .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- define "scan-jobs.queue" -}}{{ .Values.queue | default (include "scan-jobs.name" .) }}{{- end -}}
{{- define "scan-jobs.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ .Values.serviceAccount.name | default (include "scan-jobs.name" .) }}
{{- else -}}{{ .Values.serviceAccount.name | default "default" }}{{- end -}}
{{- end -}}
{{- /* A PriorityClass belongs to no namespace, so its name tells the namespace too. Whether it preempts can't be changed, so that is another
class. */ -}}
{{- define "scan-jobs.priorityClass" -}}
{{- if .Values.priorityClass.name -}}{{ .Values.priorityClass.name }}
{{- else if .Values.priorityClass.create -}}
{{ printf "%s-%s" .Release.Namespace (include "scan-jobs.name" .) }}{{ if .Values.headroom.replicas }}-preempting{{ end }}
{{- end -}}
{{- end -}}
{{- /* The label of the nodes that Karpenter makes for these pods, and their taint. */ -}}
{{- define "scan-jobs.pool" -}}{{ printf "%s-%s" .Release.Namespace (include "scan-jobs.name" .) | trunc 63 | trimSuffix "-" }}{{- end -}}

{{- /* Labels of everything. Those of pods are without the chart's version: a ScaledJob whose template is the same is the same. */ -}}
{{- define "scan-jobs.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "scan-jobs.podLabels" . }}
{{- end -}}

{{- define "scan-jobs.podLabels" -}}
app.kubernetes.io/part-of: ebbtide
{{ include "scan-jobs.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "scan-jobs.selector" -}}
app.kubernetes.io/name: scan-jobs
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scan-jobs.sourceClaim" -}}{{ .Values.sourceStore.claim | default (printf "%s-source" (include "scan-jobs.name" .)) }}{{- end -}}

{{- define "scan-jobs.workerImage" -}}
{{- $image := .Values.worker.image -}}{{- $name := $image.repository -}}
{{- if not (regexMatch "^([^/]*[.:][^/]*|localhost)/" $name) -}}
{{- $name = list (.Values.global.imageRegistry | default $image.registry) $name | compact | join "/" -}}
{{- end -}}
{{ $name }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}

{{- /* Takes a list of the root and an image. If that has no repository, the values' image is used. */ -}}
{{- define "scan-jobs.image" -}}
{{- $image := index . 1 | default dict -}}
{{- if not $image.repository }}{{ $image = (index . 0).Values.image }}{{ end -}}
{{ required "image.repository is empty: set it to the image of your scanner" $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default "latest" }}{{ end }}
{{- end -}}

{{- define "scan-jobs.restricted" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end -}}

{{- /* Where the worker is in every container of a scan, and, unless the image has it, what puts it there. */ -}}
{{- define "scan-jobs.worker" -}}{{ ternary "/usr/local/bin/ebbtide-worker" "/ebbtide/ebbtide-worker" .Values.worker.inImage }}{{- end -}}
{{- define "scan-jobs.workerVolume" -}}
{{- if not .Values.worker.inImage -}}
- {name: worker, emptyDir: {sizeLimit: 128Mi}}
{{- end }}
{{- end -}}
{{- define "scan-jobs.workerMount" -}}
{{- if not .Values.worker.inImage -}}
- {name: worker, mountPath: /ebbtide, readOnly: true}
{{- end }}
{{- end -}}
{{- define "scan-jobs.install" -}}
{{- if not .Values.worker.inImage -}}
- name: worker
  image: {{ include "scan-jobs.workerImage" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [install, /ebbtide]
  resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 64Mi}}
  securityContext: {{ include "scan-jobs.restricted" . }}
  volumeMounts: [{name: worker, mountPath: /ebbtide}]
{{- end -}}
{{- end -}}

{{- define "scan-jobs.pullSecrets" -}}
{{- $all := concat .Values.global.imagePullSecrets .Values.imagePullSecrets -}}
{{- range .Values.image.pullSecrets }}{{ $all = append $all (dict "name" .) }}{{ end -}}
{{- with uniq $all }}
imagePullSecrets:
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Where the broker is, for the worker. Commands do not get it. */ -}}
{{- define "scan-jobs.brokerEnv" -}}
- {name: AMQP_URI, valueFrom: {secretKeyRef: {name: {{ .Values.broker.secret }}, key: {{ .Values.broker.uriKey }}}}}
{{- end -}}

{{- /* The queues that workers consume from, as YAML: {queues: [{name, class, tenant, engine, exchange, queue}]}. Engine is empty for all there is, tenant for
everybody who has no queue; class is the name without the tenant. The one place that says how tenants and engines become queues, policies and
ScaledJobs. */ -}}
{{- define "scan-jobs.queues" -}}
{{- if and .Values.engines .Values.command }}{{ fail "command and engines are both set: set one of them" }}{{ end -}}
{{- if not (or .Values.engines .Values.command) }}{{ fail "command is empty: set it to a program of the image and its arguments" }}{{ end -}}
{{- $name := include "scan-jobs.name" . -}}{{- $queue := include "scan-jobs.queue" . -}}
{{- $engines := list "" -}}
{{- if and .Values.engines (eq .Values.enginesIn "pods") }}{{ $engines = keys .Values.engines | sortAlpha }}{{ end -}}
{{- $tenants := list "" -}}
{{- range .Values.tenants.queues }}{{ $tenants = append $tenants .name }}{{ end -}}
{{- if ne (len $tenants) (len (uniq $tenants)) }}{{ fail (printf "tenants.queues names a tenant twice: %s" (rest $tenants | join ", ")) }}{{ end -}}
queues:
{{- range $tenant := $tenants }}
{{- range $engine := $engines }}
{{- if has $engine (list "dead" "results") }}{{ fail (printf "engines.%s: another queue of the release has this name: choose a different one" $engine) }}{{ end }}
{{- $all := list $name $tenant $engine | compact | join "-" }}
{{- if gt (len $all) 63 }}{{ fail (printf "%s has more than 63 characters: choose shorter names of the release, its tenants or its engines" $all) }}{{ end }}
{{- $exchange := $tenant | empty | ternary $queue (printf "%s.for.%s" $queue $tenant) }}
- name: {{ $all | quote }}
  class: {{ list $name $engine | compact | join "-" | quote }}
  tenant: {{ $tenant | quote }}
  engine: {{ $engine | quote }}
  exchange: {{ $exchange | quote }}
  queue: {{ list $exchange $engine | compact | join "." | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The exchange that takes messages of all tenants. */ -}}
{{- define "scan-jobs.exchange" -}}{{ include "scan-jobs.queue" . }}{{ if .Values.tenants.queues }}.tenants{{ end }}{{- end -}}

{{- /* A quantity such as 1Gi or 500M in bytes; empty for one in another form. */ -}}
{{- define "scan-jobs.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if regexMatch "^[0-9]+(\\.[0-9]+)?([kMGT]|[KMGT]i)?$" . -}}
{{ mulf (regexFind "[0-9.]+" . | float64) (get $units (regexFind "[a-zA-Z]*$" .)) | int64 }}
{{- end -}}
{{- end -}}

{{- /* A duration such as 1h30m or 90s in whole seconds, rounded up. */ -}}
{{- define "scan-jobs.seconds" -}}
{{- $sum := 0.0 -}}
{{- $units := dict "ns" 0.000000001 "us" 0.000001 "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 -}}
{{- range regexFindAll "[0-9.]+[a-z]+" . -1 -}}
{{- $sum = addf $sum (mulf (regexFind "[0-9.]+" . | float64) (get $units (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{ ceil $sum | int64 }}
{{- end -}}

{{- /* Whole seconds as the worker writes them in names of retry queues: 90 is 1m30s, 3600 is 1h. */ -}}
{{- define "scan-jobs.brief" -}}
{{- $h := div . 3600 -}}{{- $m := div (mod . 3600) 60 -}}{{- $s := mod . 60 -}}
{{- if $h -}}{{ $h }}h{{ end -}}
{{- if or $m (and $h $s) -}}{{ $m }}m{{ end -}}
{{- if $s -}}{{ $s }}s{{ end -}}
{{- end -}}
