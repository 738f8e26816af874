package cluster_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
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
	kubectl("create", "namespace", "keda")

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
		{"upgrade", "ebbtide", helm.chart, "--set", "scaler.replicas=3,scheduler.queue=true"}, {"rollback", "ebbtide", "1"},
	} {
		helm.run(t, change...)
		if string(certificate(t, c)) != string(first) {
			t.Errorf("the %s changed the certificate", change[0])
		}
	}
	helm.run(t, "install", "second", helm.chart, "--set", "crd.install=false,keda.triggerAuthentication=second,metrics.readerRole=second")
	for _, release := range []string{"second", "ebbtide"} {
		helm.run(t, "uninstall", release)
	}
	left := kubectl("get", "deployments,services,secrets,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,"+
		"poddisruptionbudgets,networkpolicies,clustertriggerauthentications.keda.sh", "-A", "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name") +
		kubectl("get", definition, "--ignore-not-found", "-o", "name")
	if left != "" {
		t.Errorf("left after the uninstall: %s", left)
	}
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

// What can't work is refused before anything is installed, and the error names the value; what the values offer is rendered.
func TestChartValues(t *testing.T) {
	helm := newHelm(t)
	helm.run(t, "lint", "--strict", helm.chart)
	for set, want := range map[string]string{
		"tls.mode=mtls":         `tls.mode is "mtls": must be chart, cert-manager, existing or none`,
		"tls.mode=cert-manager": "tls.certManager.issuer must name a ClusterIssuer",
	} {
		if out, err := helm.command(t, "template", "ebbtide", helm.chart, "--set", set).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s; want an error with %q", set, err, out, want)
		}
	}
	for set, want := range map[string]struct{ with, without string }{
		"tls.mode=none":                   {"kind: Deployment", "--tls-cert"},
		"tls.mode=existing":               {"--tls-cert", "kind: Secret"},
		"scheduler.enabled=false":         {"ebbtide-scaler", "ebbtide-scheduler"},
		"crd.keep=true":                   {"helm.sh/resource-policy: keep", ""},
		"metrics.podMonitor.enabled=true": {"kind: PodMonitor", "kind: PrometheusRule"},
		"tls.mode=cert-manager,tls.certManager.issuer=scan-ca": {"kind: Certificate", "kind: Secret"},
		"scheduler.drainPack.candidates=6":                     {"candidates: 6", "DrainPackQueue"},
	} {
		out := helm.run(t, "template", "ebbtide", helm.chart, "--set", set)
		if !strings.Contains(out, want.with) || want.without != "" && strings.Contains(out, want.without) {
			t.Errorf("%s: want %q, and not %q", set, want.with, want.without)
		}
	}
}

// What the chart and kustomize install may do the same things.
func TestChartAgreesWithManifests(t *testing.T) {
	root, tools := toolsOf(t)
	helm := newHelm(t)
	got := rolesOf(t, helm.run(t, "template", "ebbtide", helm.chart, "-n", "ebbtide-system"))
	want := rolesOf(t, output(t, exec.CommandContext(t.Context(), tools.Bin("kubectl"), "kustomize", filepath.Join(root, "manifests"))))
	for name, rules := range want {
		if got[name] != rules {
			t.Errorf("%s: the chart's rules are\n%s\nthose of manifests\n%s", name, got[name], rules)
		}
	}
	if len(want) < 8 {
		t.Errorf("only %d roles and bindings found in manifests", len(want))
	}
}

// rolesOf are the rules of roles and the roles of bindings in a YAML text, by kind and name.
func rolesOf(t *testing.T, text string) map[string]string {
	t.Helper()
	roles := map[string]string{}
	for _, document := range strings.Split(text, "\n---\n") {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
			Rules    []rbacv1.PolicyRule
			RoleRef  rbacv1.RoleRef
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(object.Kind, "Role") {
			roles[object.Kind+" "+object.Metadata.Name] = fmt.Sprint(object.Rules, object.RoleRef.Kind, object.RoleRef.Name)
		}
	}
	return roles
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
