{{- define "ebbtide.name" -}}
{{- if contains "ebbtide" .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- else -}}{{ printf "%s-ebbtide" .Release.Name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "ebbtide.scaler" -}}{{ include "ebbtide.name" . }}-scaler{{- end -}}
{{- define "ebbtide.scheduler" -}}{{ include "ebbtide.name" . }}-scheduler{{- end -}}

{{- /* Labels of everything; the component's own are in ebbtide.selector. */ -}}
{{- define "ebbtide.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/part-of: ebbtide
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The labels that pods of a component are found by; takes a list of the root and the component's name. The command ebbtide finds pods
by the first of them. */ -}}
{{- define "ebbtide.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: ebbtide-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{- define "ebbtide.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.registry }}/ebbtide-{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end -}}

{{- define "ebbtide.serverSecret" -}}{{ .Values.tls.serverSecret | default (printf "%s-tls" (include "ebbtide.scaler" .)) }}{{- end -}}
{{- define "ebbtide.clientSecret" -}}{{ .Values.tls.clientSecret | default (printf "%s-client" (include "ebbtide.scaler" .)) }}{{- end -}}

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
securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
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
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "ebbtide.selector" (list $root $component) | nindent 6 }}
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
