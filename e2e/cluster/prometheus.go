package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

// prometheusName is the component's, and its user's.
const prometheusName = "prometheus"

// prometheusAccess is what a Prometheus needs to find pods and to read the scheduler's metrics.
const prometheusAccess = `
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: ebbtide-e2e-metrics-reader}
rules:
- nonResourceURLs: [/metrics]
  verbs: [get]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ebbtide-e2e-metrics-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ebbtide-e2e-metrics-reader}
subjects:
- {kind: ServiceAccount, name: prometheus, namespace: monitoring}
`

// StartPrometheus starts a Prometheus that scrapes the scaler, the scheduler and KEDA every second, evaluates the project's alerts, and
// ends with the cluster. On real nodes it finds them by the annotations of their pods, as many a Prometheus does, whenever they come.
func (c *Cluster) StartPrometheus(ctx context.Context) error {
	if err := c.ApplyYAML(ctx, []byte(prometheusAccess)); err != nil {
		return err
	}
	clientset, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	if err := c.serviceAccountUser(ctx, clientset, prometheusName, "monitoring", prometheusName); err != nil {
		return err
	}
	user, err := c.Config(prometheusName)
	if err != nil {
		return err
	}
	free, err := proc.FreePorts(1)
	if err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", free[0])
	scrapes := c.scrapeProcesses(user.BearerToken)
	if c.network != nil {
		if scrapes, err = c.scrapePods(user.BearerToken); err != nil {
			return err
		}
	}
	text, err := yaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"},
		"rule_files":     []string{filepath.Join(c.root, "charts", "ebbtide", "files", "alerts.yaml")},
		"scrape_configs": scrapes,
	})
	if err != nil {
		return err
	}
	file := c.path("config", "prometheus.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	c.prometheus = "http://" + address
	spec := proc.Spec{
		Name: prometheusName, Path: "prometheus", Ready: proc.HTTPReady(c.prometheus+"/-/ready", nil),
		Args: []string{
			"--config.file=" + file, "--storage.tsdb.path=" + c.path("prometheus"), "--web.listen-address=" + address, "--log.level=warn",
		},
	}
	if c.network != nil {
		if err := c.network.expose(free[0]); err != nil {
			return err
		}
		spec = c.nodes[0].inside.spec(spec)
	}
	return c.run(ctx, spec)
}

// scrapeProcesses are the scrapes of components that are processes of the harness.
func (c *Cluster) scrapeProcesses(token string) []any {
	scrape := func(job string, port int, more map[string]any) map[string]any {
		config := map[string]any{
			// The policy's namespace is what the label namespace means.
			"job_name": job, "honor_labels": true, "static_configs": []any{map[string]any{"targets": []string{fmt.Sprintf("127.0.0.1:%d", port)}}},
		}
		for key, value := range more {
			config[key] = value
		}
		return config
	}
	return []any{
		scrape("ebbtide-scaler", c.ports.ScalerMetrics, nil),
		scrape("ebbtide-scheduler", c.ports.Scheduler, map[string]any{
			"scheme": "https", "authorization": map[string]any{"credentials": token}, "tls_config": map[string]any{"ca_file": c.ca.path()},
		}),
		scrape("keda-operator", c.ports.KEDAMetrics, nil),
	}
}

// podScrapes are the scrapes of pods that are annotated for it, and of KEDA's operator, whose pod is not.
const podScrapes = `
- job_name: pods
  honor_labels: true
  authorization: {credentials: {{ .Token }}}
  tls_config: {insecure_skip_verify: true} # the scheduler signs its certificate itself
  kubernetes_sd_configs: &pods
  - role: pod
    api_server: {{ .APIServer }}
    authorization: {credentials: {{ .Token }}}
    tls_config: {ca_file: {{ .CA }}}
  relabel_configs:
  - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: "true", action: keep}
  - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scheme], regex: (https?), target_label: __scheme__}
  - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path], regex: (.+), target_label: __metrics_path__}
  - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
    regex: (.+);(.+)
    target_label: __address__
    replacement: $1:$2
  - {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name], regex: (.+), target_label: job}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
- job_name: keda-operator
  kubernetes_sd_configs: *pods
  relabel_configs:
  - {source_labels: [__meta_kubernetes_pod_label_app], regex: keda-operator, action: keep}
  - {source_labels: [__meta_kubernetes_pod_container_port_name], regex: http, action: keep}
`

func (c *Cluster) scrapePods(token string) ([]any, error) {
	var text bytes.Buffer
	if err := template.Must(template.New("").Parse(podScrapes)).Execute(&text, map[string]string{
		"Token": token, "APIServer": c.apiServerInside(), "CA": c.ca.path(),
	}); err != nil {
		return nil, err
	}
	var scrapes []any
	err := yaml.Unmarshal(text.Bytes(), &scrapes)
	return scrapes, err
}

// PrometheusURL is where the cluster's Prometheus is; empty when none was started.
func (c *Cluster) PrometheusURL() string { return c.prometheus }
