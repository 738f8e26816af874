package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

// prometheusName is the component's, and its user's.
const prometheusName = "prometheus"

// prometheusAccess is what a Prometheus needs to read the scheduler's metrics.
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
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ebbtide-e2e-metrics-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ebbtide-e2e-metrics-reader}
subjects:
- {kind: ServiceAccount, name: prometheus, namespace: monitoring}
`

// StartPrometheus starts a Prometheus that scrapes the scaler, the scheduler and KEDA every second, evaluates the project's alerts, and
// ends with the cluster.
func (c *Cluster) StartPrometheus(ctx context.Context) error {
	token, err := c.prometheusToken(ctx)
	if err != nil {
		return err
	}
	free, err := proc.FreePorts(1)
	if err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", free[0])
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
	text, err := yaml.Marshal(map[string]any{
		"global":     map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"},
		"rule_files": []string{filepath.Join(c.root, "charts", "ebbtide", "files", "alerts.yaml")},
		"scrape_configs": []any{
			scrape("ebbtide-scaler", c.ports.ScalerMetrics, nil),
			scrape("ebbtide-scheduler", c.ports.Scheduler, map[string]any{
				"scheme": "https", "authorization": map[string]any{"credentials": token}, "tls_config": map[string]any{"ca_file": c.ca.path()},
			}),
			scrape("keda-operator", c.ports.KEDAMetrics, nil),
		},
	})
	if err != nil {
		return err
	}
	file := c.path("config", "prometheus.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	c.prometheus = "http://" + address
	return c.run(ctx, proc.Spec{
		Name: prometheusName, Path: "prometheus", Ready: proc.HTTPReady(c.prometheus+"/-/ready", nil),
		Args: []string{
			"--config.file=" + file, "--storage.tsdb.path=" + c.path("prometheus"), "--web.listen-address=" + address, "--log.level=warn",
		},
	})
}

// PrometheusURL is where the cluster's Prometheus is; empty when none was started.
func (c *Cluster) PrometheusURL() string { return c.prometheus }

// prometheusToken makes the service account that a Prometheus reads metrics as, and returns its token.
func (c *Cluster) prometheusToken(ctx context.Context) (string, error) {
	if err := c.ApplyYAML(ctx, []byte(prometheusAccess)); err != nil {
		return "", err
	}
	clientset, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return "", err
	}
	if err := c.serviceAccountUser(ctx, clientset, prometheusName, "monitoring", prometheusName); err != nil {
		return "", err
	}
	user, err := c.Config(prometheusName)
	if err != nil {
		return "", err
	}
	return user.BearerToken, nil
}
