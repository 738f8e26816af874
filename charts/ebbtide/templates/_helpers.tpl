{{- define "ebbtide.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if and (not .Values.fullnameOverride) (not (contains "ebbtide" $name)) -}}{{- $name = printf "%s-ebbtide" $name -}}{{- end -}}
{{ $name | trunc 40 | trimSuffix "-" }}
{{- end -}}

{{- define "ebbtide.scaler" -}}{{ include "ebbtide.name" . }}-scaler{{- end -}}
{{- define "ebbtide.scheduler" -}}{{ include "ebbtide.name" . }}-scheduler{{- end -}}

{{- /* Labels of everything; the component's own are in ebbtide.selector. */ -}}
{{- define "ebbtide.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "ebbtide.podLabels" . }}
{{- end -}}

{{- /* Those of them that pods have too: a new version of the chart alone restarts no pod. */ -}}
{{- define "ebbtide.podLabels" -}}
app.kubernetes.io/part-of: ebbtide
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels as a text, and more of the values that go before them; takes a list of both. */ -}}
{{- define "ebbtide.withLabels" -}}{{ merge (deepCopy (index . 1)) (index . 0 | fromYaml) | toYaml }}{{- end -}}

{{- /* The labels that pods of a component are found by; takes a list of the root and the component's name. The command ebbtide finds pods
by the first of them. */ -}}
{{- define "ebbtide.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: ebbtide-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{- /* Image and pull policy of a container; takes a list of the root, the image's values and its name. A repository that starts with a host,
by the rules of image names, is complete. */ -}}
{{- define "ebbtide.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- $name := $image.repository | default (index . 2) -}}
{{- if not (regexMatch "^([^/]*[.:][^/]*|localhost)/" $name) -}}
{{- $registry := coalesce $image.registry $root.Values.global.imageRegistry $root.Values.image.registry -}}
{{- $name = list $registry $name | compact | join "/" -}}
{{- end -}}
image: {{ $name }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ coalesce $image.tag $root.Values.image.tag $root.Chart.AppVersion }}{{ end }}
imagePullPolicy: {{ $image.pullPolicy | default $root.Values.image.pullPolicy }}
{{- end -}}

{{- define "ebbtide.pullSecrets" -}}
{{- $all := concat .Values.global.imagePullSecrets .Values.imagePullSecrets -}}
{{- range .Values.image.pullSecrets }}{{ $all = append $all (dict "name" .) }}{{ end -}}
{{- with uniq $all -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Name of a component's service account; takes a list of the root and the component's name. */ -}}
{{- define "ebbtide.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $account := (get $root.Values (index . 1)).serviceAccount -}}
{{- if $account.create -}}{{ $account.name | default (include (printf "ebbtide.%s" (index . 1)) $root) }}
{{- else -}}{{ $account.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "ebbtide.serviceAccountObject" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $account := (get $root.Values $component).serviceAccount -}}
{{- if $account.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "ebbtide.serviceAccount" . }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "ebbtide.labels" $root | nindent 4 }}
  {{- with $account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
---
{{- end }}
{{- end -}}

{{- /* 90% of a memory limit in bytes, as GOMEMLIMIT: at the limit itself Go would collect garbage only when the kernel already kills the
container. Takes the component's values. Nothing if there is no limit, or extraEnv has the variable. */ -}}
{{- define "ebbtide.memoryLimit" -}}
{{- $limit := dig "limits" "memory" "" (.resources | default dict) | default "" -}}
{{- if kindIs "float64" $limit }}{{ $limit = int64 $limit }}{{ end -}}
{{- $limit = toString $limit -}}
{{- $set := false -}}
{{- range .extraEnv }}{{ if eq .name "GOMEMLIMIT" }}{{ $set = true }}{{ end }}{{ end -}}
{{- if and $limit (not $set) -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[kKMGTi]*$" $limit -}}
{{- if and (regexMatch "^[0-9.]+[kKMGTi]*$" $limit) (hasKey $units $unit) -}}
- {name: GOMEMLIMIT, value: "{{ mulf (trimSuffix $unit $limit | float64) (get $units $unit) 0.9 | int64 }}"}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A probe: its handler, and what the values say of it. */ -}}
{{- define "ebbtide.probe" -}}{{ merge (deepCopy (index . 1)) (index . 0 | fromYaml) | toJson }}{{- end -}}

{{- define "ebbtide.serverSecret" -}}{{ .Values.tls.serverSecret | default (printf "%s-tls" (include "ebbtide.scaler" .)) }}{{- end -}}
{{- define "ebbtide.clientSecret" -}}{{ .Values.tls.clientSecret | default (printf "%s-client" (include "ebbtide.scaler" .)) }}{{- end -}}
{{- define "ebbtide.triggerAuthentication" -}}{{ .Values.keda.triggerAuthentication | default (include "ebbtide.scaler" .) }}{{- end -}}

{{- /* Names that KEDA may call the scaler by, one a line. */ -}}
{{- define "ebbtide.scalerNames" -}}
{{- $name := include "ebbtide.scaler" . -}}
{{- range list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) }}
- {{ . }}
{{- end }}
{{- end -}}

{{- /* What the pods of both components have in common; takes a list of the root, the component's name and its values. */ -}}
{{- define "ebbtide.pod" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}{{- $values := index . 2 -}}
enableServiceLinks: false
securityContext:
  {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- with include "ebbtide.pullSecrets" $root }}
{{ . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
# matchLabelKeys: pods that an upgrade removes do not count. Zones are no second constraint, because the scheduler ignores both where nodes
# have no zone.
topologySpreadConstraints:
{{- with $values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "ebbtide.selector" (list $root $component) | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
affinity:
{{- with $values.affinity }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: topology.kubernetes.io/zone
        labelSelector:
          matchLabels:
            {{- include "ebbtide.selector" (list $root $component) | nindent 12 }}
        matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end -}}

{{- /* Annotations by which a Prometheus finds a pod; takes a list of the root, the port and the scheme. */ -}}
{{- define "ebbtide.scrape" -}}
{{- if (index . 0).Values.metrics.annotations -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ index . 1 | quote }}
prometheus.io/path: /metrics
prometheus.io/scheme: {{ index . 2 }}
{{- end -}}
{{- end -}}

{{- define "ebbtide.restricted" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end -}}

{{- /* Secret of the leader's certificate for workers; empty: no TLS. */ -}}
{{- define "ebbtide.workersSecret" -}}
{{- if .Values.scheduler.draining.tlsSecret -}}{{ .Values.scheduler.draining.tlsSecret }}
{{- else if ne .Values.tls.mode "none" -}}
{{- fail "scheduler.draining.tlsSecret must name a Secret with ca.crt, tls.crt and tls.key, unless tls.mode is none: see docs/how-to/drain-with-workers.md" -}}
{{- end -}}
{{- end -}}

{{- /* The file's, with what the values change in it. */ -}}
{{- define "ebbtide.schedulerConfig" -}}
{{- $config := .Files.Get "files/scheduler-config.yaml" | fromYaml -}}
{{- $_ := set $config.leaderElection "resourceNamespace" .Release.Namespace -}}
{{- $_ := set $config.leaderElection "resourceName" (include "ebbtide.scheduler" .) -}}
{{- $profile := first $config.profiles -}}
{{- $_ := set $profile "schedulerName" .Values.scheduler.schedulerName -}}
{{- $drainPack := first $profile.pluginConfig -}}
{{- $args := merge (deepCopy .Values.scheduler.drainPack) $drainPack.args -}}
{{- if .Values.scheduler.draining.enabled -}}
{{- $files := dict -}}
{{- if include "ebbtide.workersSecret" . -}}
{{- $files = dict "certFile" "/etc/ebbtide-workers/tls.crt" "keyFile" "/etc/ebbtide-workers/tls.key" "clientCAFile" "/etc/ebbtide-workers/ca.crt" -}}
{{- end -}}
{{- $_ := set $args "draining" (merge (get $args "draining" | default dict) $files (dict "listenAddress" ":10261")) -}}
{{- end -}}
{{- $_ := set $drainPack "args" $args -}}
{{- if .Values.scheduler.queue -}}
{{- $_ := set $profile.plugins "queueSort" (dict "enabled" (list (dict "name" "DrainPackQueue")) "disabled" (list (dict "name" "*"))) -}}
{{- end -}}
{{ toYaml $config }}
{{- end -}}

{{- /* A budget that lets nodes be drained; takes a list of the root, the component's name and its values. */ -}}
{{- define "ebbtide.pdb" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}{{- $values := index . 2 -}}
{{- if gt (int $values.replicas) 1 }}
{{- if and (not (kindIs "string" $values.minAvailable)) (ge (int $values.minAvailable) (int $values.replicas)) }}
{{- fail (printf "%s.minAvailable is %v: must be less than %s.replicas, %v, or nodes can't be drained" $component $values.minAvailable $component $values.replicas) }}
{{- end }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include (printf "ebbtide.%s" $component) $root }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "ebbtide.labels" $root | nindent 4 }}
spec:
  minAvailable: {{ $values.minAvailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "ebbtide.selector" (list $root $component) | nindent 6 }}
{{- end }}
{{- end -}}

{{- /* Who may connect to a component: a list of the root, its name, the port of its metrics, and a rule for more or "". */ -}}
{{- define "ebbtide.networkPolicy" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $peers := $root.Values.networkPolicy.metricsFrom -}}
{{- if kindIs "map" $peers }}{{ $peers = list (dict "namespaceSelector" (dict "matchLabels" $peers)) }}{{ end -}}
{{- if $root.Values.networkPolicy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include (printf "ebbtide.%s" $component) $root }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "ebbtide.labels" $root | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "ebbtide.selector" (list $root $component) | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
  {{- if not (or $peers (index . 3)) }} []{{ end }}
  {{- with index . 3 }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if $peers }}
  - from:
    {{- toYaml $peers | nindent 4 }}
    ports: [{port: {{ index . 2 }}}]
  {{- end }}
{{- end }}
{{- end -}}

{{- /* A monitor of the Prometheus operator; takes a list of the root, the component's name, more of its endpoint, and PodMonitor or
ServiceMonitor. */ -}}
{{- define "ebbtide.monitor" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}{{- $kind := index . 3 -}}
{{- $values := get $root.Values.metrics (untitle $kind) -}}
apiVersion: monitoring.coreos.com/v1
kind: {{ $kind }}
metadata:
  name: {{ include (printf "ebbtide.%s" $component) $root }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "ebbtide.withLabels" (list (include "ebbtide.labels" $root) $values.labels) | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "ebbtide.selector" (list $root $component) | nindent 6 }}
  {{ eq $kind "PodMonitor" | ternary "podMetricsEndpoints" "endpoints" }}:
  - interval: {{ $values.interval }}
    honorLabels: true # the label namespace is the policy's
    {{- index . 2 | nindent 4 }}
{{- end -}}

{{- /* PodMonitor or ServiceMonitor; empty: neither. */ -}}
{{- define "ebbtide.monitorKind" -}}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled -}}
{{- fail "metrics.podMonitor.enabled and metrics.serviceMonitor.enabled are both true: enable one, or every metric is scraped twice" -}}
{{- end -}}
{{- if .Values.metrics.podMonitor.enabled }}PodMonitor{{ else if .Values.metrics.serviceMonitor.enabled }}ServiceMonitor{{ end -}}
{{- end -}}
