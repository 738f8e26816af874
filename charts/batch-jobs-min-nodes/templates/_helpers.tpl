{{- define "batch-jobs.name" -}}{{ .Values.fullnameOverride | default .Release.Name | trunc 30 | trimSuffix "-" }}{{- end -}}

{{- define "batch-jobs.selector" -}}
app.kubernetes.io/name: batch-jobs-min-nodes
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "batch-jobs.podLabels" -}}
{{ include "batch-jobs.selector" . }}
app.kubernetes.io/part-of: ebbtide
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "batch-jobs.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "batch-jobs.podLabels" . }}
{{- end -}}

{{- define "batch-jobs.workerImage" -}}
{{- $image := .Values.worker.image -}}{{- $name := $image.repository -}}
{{- if not (regexMatch "^([^/]*[.:][^/]*|localhost)/" $name) -}}
{{- $name = list (.Values.global.imageRegistry | default $image.registry) $name | compact | join "/" -}}
{{- end -}}
{{ $name }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}

{{- define "batch-jobs.restricted" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end -}}

{{- define "batch-jobs.claim" -}}{{ .Values.cache.claim | default (printf "%s-cache" (include "batch-jobs.name" .)) }}{{- end -}}

{{- /* "true" if a job has a repository: then there is a cache. */ -}}
{{- define "batch-jobs.cached" -}}
{{- range .Values.jobs }}{{ if .repository }}true{{ end }}{{ end -}}
{{- end -}}

{{- /* "true" if only one node at a time can mount the cache. */ -}}
{{- define "batch-jobs.oneNode" -}}{{ if eq .Values.cache.accessMode "ReadWriteOnce" }}true{{ end }}{{- end -}}

{{- /* Tells the pods that mount the cache, of all releases that share it. */ -}}
{{- define "batch-jobs.cacheLabel" -}}
ebbtide.dev/cache: {{ include "batch-jobs.claim" . | trunc 63 | trimAll "-._" }}
{{- end -}}

{{- /* Puts pods that mount the cache onto the node of the others that do. Kubernetes does not: a pod on another node could not mount the volume, and would
hold its room there until the others have ended. */ -}}
{{- define "batch-jobs.cacheNode" -}}
requiredDuringSchedulingIgnoredDuringExecution:
- topologyKey: kubernetes.io/hostname
  labelSelector:
    matchLabels:
      {{- include "batch-jobs.cacheLabel" . | nindent 6 }}
{{- end -}}

{{- /* "true" if Ebbtide's scheduler places the pods. */ -}}
{{- define "batch-jobs.ebbtide" -}}
{{- if eq .Values.scheduling.mode "ebbtide" -}}true
{{- else if eq .Values.scheduling.mode "auto" -}}
{{- $deployment := lookup "apps/v1" "Deployment" .Values.scheduling.namespace .Values.scheduling.deployment -}}
{{- if gt (dig "status" "availableReplicas" 0 $deployment | int) 0 }}true{{ end -}}
{{- end -}}
{{- end -}}

{{- /* What all pods of the chart have in common. */ -}}
{{- define "batch-jobs.pod" -}}
restartPolicy: Never
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Copies the worker into the pod. */ -}}
{{- define "batch-jobs.install" -}}
- name: worker
  image: {{ include "batch-jobs.workerImage" . }}
  imagePullPolicy: {{ .Values.pullPolicy }}
  args: [install, /ebbtide]
  resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 64Mi}}
  securityContext: {{ include "batch-jobs.restricted" . }}
  volumeMounts: [{name: worker, mountPath: /ebbtide}]
{{- end -}}
