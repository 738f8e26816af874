package cluster_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
)

// The chart's objects pass the API server and its check of restricted pods, an upgrade and a rollback keep the certificates, a release of
// another name goes beside it, and an uninstall leaves nothing.
func TestIntegrationChart(t *testing.T) {
	c := startControlPlane(t)
	helm := newHelm(t, "--kubeconfig", c.Kubeconfig("admin"), "-n", "ebbtide-system")
	kubectl := func(args ...string) string {
		t.Helper()
		return output(t, exec.CommandContext(t.Context(), c.Kubectl(), append(args, "--kubeconfig", c.Kubeconfig("admin"))...))
	}
	const definition = "customresourcedefinitions/scalingpolicies.ebbtide.dev"
	kubectl("delete", definition) // the control plane starts with it, and the chart brings it
	if out, err := helm.command(t, "install", "ebbtide", helm.chart, "--create-namespace").CombinedOutput(); err == nil || !strings.Contains(string(out), "install KEDA first") {
		t.Errorf("an installation without KEDA: %v, %s", err, out)
	}
	kubectl("create", "namespace", "keda")
	kubectl("create", "namespace", "scan")

	helm.run(t, "install", "ebbtide", helm.chart, "--create-namespace", "--set", "image.tag=dev")
	first := certificate(t, c)
	if len(first) == 0 {
		t.Fatal("the chart made no certificate")
	}
	kubectl("get", definition)
	// Says which of the namespace's pods the level would refuse, had they run.
	for _, workload := range []string{"scaler", "scheduler"} {
		template := kubectl("get", "deployment", "ebbtide-"+workload, "-n", "ebbtide-system", "-o", "json")
		if out := podOf(t, c, template); !strings.Contains(out, "created (server dry run)") {
			t.Errorf("a pod of %s in a restricted namespace: %s", workload, out)
		}
	}
	for _, change := range [][]string{
		{"upgrade", "ebbtide", helm.chart, "--set", "scaler.replicas=3,scheduler.queue=true,scaler.secretNamespaces={scan}"}, {"rollback", "ebbtide", "1"},
	} {
		helm.run(t, change...)
		if string(certificate(t, c)) != string(first) {
			t.Errorf("the %s changed the certificate", change[0])
		}
	}
	// As docs/how-to/recover.md says: dashboards that are gone are there again after an upgrade.
	upgrade := []string{"upgrade", "ebbtide", helm.chart, "--set", "dashboards.enabled=true"}
	helm.run(t, upgrade...)
	dashboards := []string{"configmaps", "-n", "ebbtide-system", "-l", "grafana_dashboard"}
	shown := func() string {
		return kubectl(append([]string{"get", "-o", "jsonpath={.items[*].data}"}, dashboards...)...)
	}
	before := shown()
	kubectl(append([]string{"delete"}, dashboards...)...)
	if helm.run(t, upgrade...); before == "" || shown() != before {
		t.Error("an upgrade does not bring back dashboards that were deleted")
	}
	// As the notes say.
	kubectl("create", "clusterrolebinding", "prometheus", "--clusterrole=ebbtide-metrics-reader", "--serviceaccount=monitoring:prometheus")
	kubectl("auth", "can-i", "get", "/metrics", "--as=system:serviceaccount:monitoring:prometheus")

	helm.run(t, "install", "second", helm.chart, "--set", "crd.install=false")
	for _, release := range []string{"second", "ebbtide"} {
		helm.run(t, "uninstall", release)
	}
	kubectl("delete", definition) // which an uninstall keeps
	left := kubectl("get", "deployments,services,secrets,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,"+
		"poddisruptionbudgets,networkpolicies,clustertriggerauthentications.keda.sh", "-A", "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name") +
		kubectl("get", definition, "--ignore-not-found", "-o", "name")
	if left != "" {
		t.Errorf("left after the uninstall: %s", left)
	}

	// Policies outlive a release, and the next one takes them over.
	for range 2 {
		helm.run(t, "install", "ebbtide", helm.chart)
		helm.run(t, "uninstall", "ebbtide")
		kubectl("get", definition)
	}
	helm.run(t, "install", "ebbtide", helm.chart, "--set", "crd.keep=false")
	helm.run(t, "uninstall", "ebbtide", "--wait", "--timeout", "2m")
	if left := kubectl("get", definition, "--ignore-not-found", "-o", "name"); left != "" {
		t.Errorf("crd.keep is false, and the uninstall left %s", left)
	}

	// From the chart before the first release (testdata has it, with one dashboard), with values whose form has changed since.
	helm.run(t, "install", "ebbtide", "testdata/ebbtide-0.0.9.tgz", "--set", "image.pullSecrets={registry},networkPolicy.metricsFrom.team=monitoring")
	first = certificate(t, c)
	if err := c.ApplyYAML(t.Context(), []byte(`
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog: {rabbitmq: {uri: {value: "amqp://broker"}, queue: scans}}
  target: {maxReplicas: 5}
`)); err != nil {
		t.Fatal(err)
	}
	const missing = "upgrade with --reset-then-reuse-values"
	if out, err := helm.command(t, "upgrade", "ebbtide", helm.chart, "--reuse-values").CombinedOutput(); err == nil || !strings.Contains(string(out), missing) {
		t.Errorf("an upgrade without the new values: %v, %s; want an error with %q", err, out, missing)
	}
	helm.run(t, "upgrade", "ebbtide", helm.chart, "--reset-then-reuse-values")
	if string(certificate(t, c)) != string(first) {
		t.Error("the upgrade from the chart before changed the certificate")
	}
	helm.run(t, "uninstall", "ebbtide")
	kubectl("get", "scalingpolicies", "scans", "-n", "scan") // the chart before would have deleted it
}

// podOf asks the API server for a pod of a deployment in a namespace that takes restricted pods only.
func podOf(t *testing.T, c *cluster.Cluster, deployment string) string {
	t.Helper()
	var object struct {
		Spec struct{ Template corev1.PodTemplateSpec }
	}
	if err := yaml.Unmarshal([]byte(deployment), &object); err != nil {
		t.Fatal(err)
	}
	if err := c.ApplyYAML(t.Context(), []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: restricted, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: restricted}
`)); err != nil {
		t.Fatal(err)
	}
	object.Spec.Template.Spec.ServiceAccountName, object.Spec.Template.Spec.DeprecatedServiceAccount = "default", ""
	object.Spec.Template.Spec.PriorityClassName = "" // of the system's namespace alone, where there is no quota for it
	pod, err := yaml.Marshal(corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: "restricted"}, Spec: object.Spec.Template.Spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), c.Kubectl(), "create", "--dry-run=server", "-f", "-", "--kubeconfig", c.Kubeconfig("admin"))
	cmd.Stdin = strings.NewReader(string(pod))
	out, _ := cmd.CombinedOutput() // what it says is the result
	return string(out)
}

// helm runs helm with a home of its own.
type helm struct {
	path, chart string
	flags       []string
}

func newHelm(t *testing.T, flags ...string) helm {
	t.Helper()
	if testing.Short() {
		t.Skip("builds helm")
	}
	root, tools := toolsOf(t)
	return helm{tools.Bin("helm"), filepath.Join(root, "charts", "ebbtide"), flags}
}

func (h helm) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), h.path, append(args, h.flags...)...)
	home := t.TempDir()
	cmd.Env = append(cmd.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	return cmd
}

func (h helm) run(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, h.command(t, args...))
}

// output is what a command prints; an error ends the test.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

func certificate(t *testing.T, c *cluster.Cluster) []byte {
	t.Helper()
	var server, client corev1.Secret
	for name, secret := range map[types.NamespacedName]*corev1.Secret{
		{Namespace: "ebbtide-system", Name: "ebbtide-scaler-tls"}: &server,
		{Namespace: "keda", Name: "ebbtide-scaler-client"}:        &client,
	} {
		if err := c.Client().Get(t.Context(), name, secret); err != nil {
			t.Fatal(err)
		}
	}
	if string(server.Data["ca.crt"]) != string(client.Data["ca.crt"]) {
		t.Error("the two sides have different authorities")
	}
	return server.Data["tls.crt"]
}
