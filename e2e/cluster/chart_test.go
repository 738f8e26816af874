package cluster_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

// The chart's objects pass the API server and its check of restricted pods, an upgrade and a rollback keep the certificates, a release of
// another name goes beside it, and an uninstall leaves nothing.
func TestIntegrationChart(t *testing.T) {
	c := startControlPlane(t)
	helm := helmOf(t, c)
	if err := c.ApplyYAML(t.Context(), []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: keda}
---
apiVersion: v1
kind: Namespace
metadata: {name: ebbtide-system, labels: {pod-security.kubernetes.io/enforce: restricted, pod-security.kubernetes.io/warn: restricted}}
`)); err != nil {
		t.Fatal(err)
	}
	// The definition is there already: this control plane starts with it.
	install := []string{"install", "ebbtide", helm.chart, "-n", "ebbtide-system", "--set", "crd.install=false"}
	if out := helm.run(t, install...); strings.Contains(out, "would violate PodSecurity") {
		t.Errorf("a pod is not restricted: %s", out)
	}
	first := certificate(t, c)
	if len(first) == 0 {
		t.Fatal("the chart made no certificate")
	}
	helm.run(t, "upgrade", "ebbtide", helm.chart, "-n", "ebbtide-system", "--set", "crd.install=false,scaler.replicas=3,scheduler.queue=true")
	helm.run(t, "rollback", "ebbtide", "1", "-n", "ebbtide-system")
	if string(certificate(t, c)) != string(first) {
		t.Error("an upgrade or a rollback changed the certificate")
	}
	helm.run(t, "install", "second", helm.chart, "-n", "ebbtide-system", "--set",
		"crd.install=false,keda.triggerAuthentication=second,metrics.readerRole=second")
	for _, release := range []string{"second", "ebbtide"} {
		helm.run(t, "uninstall", release, "-n", "ebbtide-system")
	}
	kinds := "deployments,services,secrets,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings," +
		"poddisruptionbudgets,networkpolicies,clustertriggerauthentications.keda.sh"
	left, err := exec.CommandContext(t.Context(), c.Kubectl(), "--kubeconfig", c.Kubeconfig("admin"), "get", kinds, "-A",
		"-l", "app.kubernetes.io/managed-by=Helm", "-o", "name").CombinedOutput()
	if err != nil || len(left) > 0 {
		t.Errorf("left after the uninstall (%v): %s", err, left)
	}
}

// What can't work is refused before anything is installed; each error names the value.
func TestIntegrationChartRefuses(t *testing.T) {
	c := startControlPlane(t)
	helm := helmOf(t, c)
	helm.run(t, "lint", "--strict", helm.chart)
	for set, want := range map[string]string{
		"tls.mode=mtls":         "tls.mode is \"mtls\"",
		"tls.mode=cert-manager": "tls.certManager.issuer must name a ClusterIssuer",
	} {
		out, err := exec.CommandContext(t.Context(), c.Helm(), "template", "ebbtide", helm.chart, "--set", set).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s; want an error with %q", set, err, out, want)
		}
	}
	for _, set := range []string{"tls.mode=none", "tls.mode=existing", "scheduler.enabled=false", "crd.keep=true",
		"tls.mode=cert-manager,tls.certManager.issuer=scan-ca", "metrics.podMonitor.enabled=true"} {
		if out := helm.run(t, "template", "ebbtide", helm.chart, "--set", set); set == "crd.keep=true" &&
			!strings.Contains(out, "helm.sh/resource-policy: keep") {
			t.Error("crd.keep=true does not keep the definition")
		}
	}
}

// What the chart and kustomize install may do the same things.
func TestIntegrationChartAgrees(t *testing.T) {
	c := startControlPlane(t)
	helm := helmOf(t, c)
	rendered := helm.run(t, "template", "ebbtide", helm.chart, "-n", "ebbtide-system")
	kustomized, err := exec.CommandContext(t.Context(), c.Kubectl(), "kustomize", filepath.Join(filepath.Dir(helm.chart), "..", "manifests")).Output()
	if err != nil {
		t.Fatal(err)
	}
	want, got := rolesOf(t, string(kustomized)), rolesOf(t, rendered)
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

type helmCommand struct {
	c     *cluster.Cluster
	chart string
}

func helmOf(t *testing.T, c *cluster.Cluster) helmCommand {
	t.Helper()
	root, err := toolchain.Root()
	if err != nil {
		t.Fatal(err)
	}
	return helmCommand{c, filepath.Join(root, "charts", "ebbtide")}
}

// run runs helm as the administrator and returns what it says.
func (h helmCommand) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), h.c.Helm(), append(args, "--kubeconfig", h.c.Kubeconfig("admin"))...)
	cmd.Env = append(cmd.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
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
