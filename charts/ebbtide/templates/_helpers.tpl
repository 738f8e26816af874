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

{{- /* Takes a list of the root, the component's name and its values. */ -}}
{{- define "ebbtide.image" -}}
{{- $root := index . 0 -}}{{- $image := (index . 2).image -}}
{{ $image.repository | default (printf "%s/ebbtide-%s" $root.Values.image.registry (index . 1)) }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end -}}

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
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
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
# matchLabelKeys: what an upgrade takes away does not count. Zones are no second constraint: where nodes have no zone, the scheduler would
# heed neither.
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "ebbtide.selector" (list $root $component) | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
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

{{- /* The file's, with what the values change in it. */ -}}
{{- define "ebbtide.schedulerConfig" -}}
{{- $config := .Files.Get "files/scheduler-config.yaml" | fromYaml -}}
{{- $_ := set $config.leaderElection "resourceNamespace" .Release.Namespace -}}
{{- $_ := set $config.leaderElection "resourceName" (include "ebbtide.scheduler" .) -}}
{{- $profile := first $config.profiles -}}
{{- $_ := set $profile "schedulerName" .Values.scheduler.schedulerName -}}
{{- $drainPack := first $profile.pluginConfig -}}
{{- $_ := set $drainPack "args" (merge (deepCopy .Values.scheduler.drainPack) $drainPack.args) -}}
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

{{- /* Who may reach a component: a list of the root, its name, the port of its metrics, and a rule for more or "". */ -}}
{{- define "ebbtide.networkPolicy" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
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
  {{- with index . 3 }}
  {{- . | nindent 2 }}
  {{- end }}
  - from:
    {{- with $root.Values.networkPolicy.metricsFrom }}
    - namespaceSelector:
        matchLabels:
          {{- toYaml . | nindent 10 }}
    {{- else }}
    - namespaceSelector: {}
    {{- end }}
    ports: [{port: {{ index . 2 }}}]
{{- end }}
{{- end -}}

{{- /* Takes a list of the root, the component's name, and more of its endpoint. */ -}}
{{- define "ebbtide.podMonitor" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include (printf "ebbtide.%s" $component) $root }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "ebbtide.withLabels" (list (include "ebbtide.labels" $root) $root.Values.metrics.podMonitor.labels) | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "ebbtide.selector" (list $root $component) | nindent 6 }}
  podMetricsEndpoints:
  - interval: {{ $root.Values.metrics.podMonitor.interval }}
    honorLabels: true # the label namespace means the policy's
    {{- index . 2 | nindent 4 }}
{{- end -}}
