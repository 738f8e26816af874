package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

// podPrometheusConfig scrapes the pods that a file lists. The label namespace is the policy's, not the pod's; the scheduler's certificate
// is signed by itself.
const podPrometheusConfig = `global: {scrape_interval: 2s}
scrape_configs:
- job_name: pods
  honor_labels: true
  file_sd_configs: [{files: [%q]}]
  authorization: {credentials: %q}
  tls_config: {insecure_skip_verify: true}
`

// StartPodPrometheus starts a Prometheus in the network of the real nodes. It scrapes pods that ask for it by the annotations
// prometheus.io/scrape, port, path and scheme, as that of many platforms does. The state of the cluster says where it is on the machine.
func (c *Cluster) StartPodPrometheus(ctx context.Context) error {
	token, err := c.prometheusToken(ctx)
	if err != nil {
		return err
	}
	clientset, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	config, targets := c.path("config", "prometheus.yaml"), c.path("config", "prometheus-targets.json")
	if err := os.WriteFile(config, fmt.Appendf(nil, podPrometheusConfig, targets, token), 0o600); err != nil {
		return err
	}
	const inside = "127.0.0.1:9090"
	node := c.nodes[0].inside
	if err := c.run(ctx, node.spec(proc.Spec{
		Name: prometheusName, Path: "prometheus", Ready: node.ready(inside),
		Args: []string{
			"--config.file=" + config, "--storage.tsdb.path=" + c.path("prometheus"), "--web.listen-address=" + inside, "--log.level=warn",
		},
	})); err != nil {
		return err
	}
	go listTargets(ctx, clientset, targets)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.network.closeLater(listener)
	c.prometheus = "http://" + listener.Addr().String()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				target, err := node.dial(ctx, inside)
				if err != nil {
					connection.Close()
					return
				}
				splice(connection, target)
			}()
		}
	}()
	return nil
}

// listTargets keeps a file of the pods that ask to be scraped until ctx ends: Debian's Prometheus is built without a way to find pods.
func listTargets(ctx context.Context, client kubernetes.Interface, file string) {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	var written []byte
	for ctx.Err() == nil {
		groups := []group{}
		pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		if err == nil {
			for _, pod := range pods.Items {
				if asks := pod.Annotations; asks["prometheus.io/scrape"] == "true" {
					groups = append(groups, group{[]string{net.JoinHostPort(pod.Status.PodIP, asks["prometheus.io/port"])}, map[string]string{
						"pod": pod.Name, "__scheme__": cmp.Or(asks["prometheus.io/scheme"], "http"),
						"__metrics_path__": cmp.Or(asks["prometheus.io/path"], "/metrics"),
					}})
				}
			}
		}
		text, marshalErr := json.Marshal(groups)
		if err == nil && marshalErr == nil && !bytes.Equal(text, written) && os.WriteFile(file, text, 0o600) == nil {
			written = text
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
