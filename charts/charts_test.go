// Package charts_test checks what the charts and the kustomize manifests render, and what the charts refuse. It starts no cluster.
package charts_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
	"github.com/ebbtide-dev/ebbtide/internal/kubeschema"
)

// ours is the chart of scaler and scheduler.
const ours = "ebbtide"

func TestLint(t *testing.T) {
	b := newBundle(t)
	for _, chart := range b.charts(t) {
		b.run(t, "helm", append([]string{"lint", "--strict", chart}, testValues(chart)...)...)
	}
}

// Each chart's own tests pass, and its snapshots are complete.
func TestUnit(t *testing.T) {
	b := newBundle(t)
	for _, chart := range b.charts(t) {
		snapshots := filepath.Join("tests", "__snapshot__")
		want := read(t, filepath.Join(chart, snapshots))
		copied := filepath.Join(t.TempDir(), filepath.Base(chart))
		if err := os.CopyFS(copied, os.DirFS(chart)); err != nil {
			t.Fatal(err)
		}
		b.run(t, "helm-unittest", "--strict", copied)
		// A snapshot that is not there is taken and passes.
		if got := read(t, filepath.Join(copied, snapshots)); !maps.Equal(got, want) {
			t.Errorf("the snapshots of %s are not current: run make snapshots, look at them, and commit", chart)
		}
	}
}

// What can't work is refused before anything is installed, and the error names the value.
func TestRefusedValues(t *testing.T) {
	b := newBundle(t)
	for set, want := range map[string]string{
		"tls.mode=mtls":                     "tls/mode': value must be one of 'chart', 'cert-manager', 'existing', 'none'",
		"scaler.replica=3":                  "additional properties 'replica' not allowed",
		"scaler.timeout=5":                  "scaler/timeout': got number, want string",
		"scaler.timeout=5 seconds":          "scaler/timeout': '5 seconds' does not match pattern",
		"scheduler.drainPack.candidate=6":   "additional properties 'candidate' not allowed",
		"scheduler.drainPack.halfLife=1w":   "halfLife': '1w' does not match pattern",
		"scheduler.minAvailable=most":       "minAvailable': 'most' does not match pattern",
		"scheduler.schedulerName=":          "schedulerName': minLength",
		"scaler.image.digest=latest":        "digest': 'latest' does not match pattern",
		"image.tag=1":                       "image/tag': got number, want string",
		"scaler.podLabels.team=1":           "podLabels/team': got number, want string",
		"imagePullSecrets={registry}":       "imagePullSecrets/0': got string, want object",
		"global.imagePullSecrets[0].nme=x":  "additional properties 'nme' not allowed",
		"scaler.image.pullPolicy=Sometimes": "scaler/image/pullPolicy': value must be one of",
		"scaler.extraEnv[0].value=x":        "missing property 'name'",
		"metrics.podMonitor.enabled=true,metrics.serviceMonitor.enabled=true": "enable one, or every metric is scraped twice",
		"networkpolicy.enabled=false":                                         "additional properties 'networkpolicy' not allowed",
		"scheduler.schedulerName=default-scheduler":                           "schedulerName': 'not' failed",
	} {
		out, err := b.command(t, "helm", "template", "ebbtide", b.chart(ours), "--set", set).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s; want an error with %q", set, err, out, want)
		}
	}
	// A chart that this one is a part of hands these down; null takes a default away.
	for _, set := range []string{"global.x=y", "enabled=true", "podSecurityContext.runAsUser=null", "scaler.minAvailable=50%"} {
		b.template(t, set)
	}
}

// Names of a scan queue's tenants and engines that can't be told apart, or are too long, are refused.
func TestRefusedNames(t *testing.T) {
	b := newBundle(t)
	for set, want := range map[string]string{
		"command={x},tenants.queues[0].name=a,tenants.queues[1].name=b,tenants.queues[2].name=a":    "tenants.queues names a tenant twice: a, b, a",
		"enginesIn=pods,engines.dead.command={x}":                                                   "engines.dead: another queue of the release has this name",
		"enginesIn=pods,engines.a123456789b123456789.command={x},tenants.queues[0].name=a123456789": "has more than 63 characters",
		"command={x},tenants.queues[0].name=A":                                                      "does not match pattern",
	} {
		out, err := b.command(t, "helm", "template", "a123456789a123456789a123456789a123456789", b.chart("scan-jobs"), "--set", "image.repository=x,"+set).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s; want an error with %q", set, err, out, want)
		}
	}
}

// Each object that can be rendered is one that its API has, with no field that it has not.
func TestObjectsConform(t *testing.T) {
	b := newBundle(t)
	rendered := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(rendered, name+".yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, set := range map[string]string{
		"default":      "",
		"cert-manager": "tls.mode=cert-manager,tls.certManager.issuer=ca",
		"existing":     "tls.mode=existing",
		"none":         "tls.mode=none,networkPolicy.enabled=false,networkPolicy.metricsFrom.team=x",
		"all": "metrics.podMonitor.enabled=true,metrics.podMonitor.labels.a=b,alerts.enabled=true,alerts.labels.a=b,scheduler.queue=true," +
			"scheduler.drainPack.candidates=6,scaler.secretNamespaces={a,b},scaler.extraArgs={--x},scaler.tracesEndpoint=http://x:4317," +
			"scaler.priorityClassName=x,image.pullSecrets={a,b},commonLabels.a=b,scaler.minAvailable=50%," +
			"networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b,global.imagePullSecrets[0].name=a,imagePullSecrets[0].name=c",
		"serviceMonitor": "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.a=b,revisionHistoryLimit=2," + more("scaler") + more("scheduler"),
	} {
		write(name, b.template(t, set))
	}
	for _, chart := range b.charts(t) {
		if values := testValues(chart); values != nil {
			write(filepath.Base(chart), b.run(t, "helm", append([]string{"template", "test", chart}, values...)...))
		}
	}
	for _, overlay := range append(overlays, "grafana", "prometheus") {
		write("manifests-"+filepath.Base(overlay), b.kustomize(t, overlay))
	}
	schemas := b.schemas(t)
	b.run(t, "kubeconform", "-strict", "-schema-location", schemas, rendered)

	for wrong, text := range map[string]string{
		"replica":         "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replica: 2, selector: {}, template: {}}",
		"bearerTokenFile": "apiVersion: monitoring.coreos.com/v1\nkind: PodMonitor\nmetadata: {name: x}\nspec: {selector: {}, podMetricsEndpoints: [{bearerTokenFile: x}]}",
		"queueName": "apiVersion: ebbtide.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {name: x}\n" +
			"spec: {backlog: {rabbitmq: {uri: {value: x}, queueName: x}}, target: {maxReplicas: 1}}",
	} {
		cmd := b.command(t, "kubeconform", "-strict", "-schema-location", schemas, "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), wrong) {
			t.Errorf("an object with the field %s: %v, %s", wrong, err, out)
		}
	}
}

// more are values of a component that add to its pods.
func more(component string) string {
	return strings.ReplaceAll("COMPONENT.extraEnv[0].name=A,COMPONENT.extraEnv[0].value=b,COMPONENT.extraVolumes[0].name=ca,COMPONENT.extraVolumes[0].configMap.name=ca,"+
		"COMPONENT.extraVolumeMounts[0].name=ca,COMPONENT.extraVolumeMounts[0].mountPath=/etc/ssl/certs,COMPONENT.serviceAccount.annotations.a=b,"+
		"COMPONENT.topologySpreadConstraints[0].maxSkew=2,COMPONENT.topologySpreadConstraints[0].topologyKey=zone,"+
		"COMPONENT.topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule,COMPONENT.livenessProbe.timeoutSeconds=3,COMPONENT.podAnnotations.a=b,", "COMPONENT", component)
}

// overlays are folders of manifests that a user applies.
var overlays = []string{".", "overlays/minimal", "overlays/local", "overlays/production"}

// What kustomize installs is what the chart does with the same choices, so that neither lags behind.
func TestManifestsAreTheChart(t *testing.T) {
	b := newBundle(t)
	for overlay, set := range map[string]string{
		".":                   "tls.mode=none",
		"overlays/minimal":    "tls.mode=none,scaler.replicas=1,scheduler.enabled=false",
		"overlays/local":      "tls.mode=none,scaler.replicas=1,scheduler.replicas=1,image.pullPolicy=Never",
		"overlays/production": "tls.mode=existing,image.tag=0.1.0",
	} {
		got := objects(t, b.kustomize(t, overlay))
		delete(got, "Namespace /ebbtide-system")
		want := objects(t, b.template(t, set+",dashboards.enabled=false,test.enabled=false,crd.keep=false", "-f", filepath.Join(b.root, "manifests", "values.yaml")))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("manifests/%s differs from the chart with %s (-chart +manifests):\n%s", overlay, set, diff)
		}
	}
}

// objects are those of a YAML text by kind, namespace and name, without what only helm or only kustomize gives them.
func objects(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	text = regexp.MustCompile(`ebbtide-scheduler-config-\w{10}\b`).ReplaceAllString(text, "ebbtide-scheduler-config")
	all := map[string]map[string]any{}
	for document := range strings.SplitSeq(text, "\n---\n") {
		var object unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			t.Fatal(err)
		}
		if object.Object == nil {
			continue
		}
		for _, path := range [][]string{{"metadata"}, {"spec", "template", "metadata"}} {
			for _, label := range []string{"helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"} {
				unstructured.RemoveNestedField(object.Object, append(slices.Clone(path), "labels", label)...)
			}
			unstructured.RemoveNestedField(object.Object, append(slices.Clone(path), "annotations", "ebbtide.dev/config")...)
		}
		if object.GetKind() == "ConfigMap" {
			var config any
			data, _, _ := unstructured.NestedString(object.Object, "data", "scheduler-config.yaml")
			if err := yaml.Unmarshal([]byte(data), &config); err != nil {
				t.Fatal(err)
			}
			object.Object["data"] = map[string]any{"scheduler-config.yaml": config}
			unstructured.RemoveNestedField(object.Object, "metadata", "labels") // kustomize's generator gives it none
		}
		all[fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName())] = object.Object
	}
	return all
}

// bundle is what these tests share.
type bundle struct {
	root  string
	tools toolchain.Toolchain
}

func newBundle(t *testing.T) bundle {
	t.Helper()
	if testing.Short() {
		t.Skip("builds helm")
	}
	root, err := toolchain.Root()
	if err != nil {
		t.Fatal(err)
	}
	tools, err := toolchain.Ensure(t.Context(), toolchain.Module(root), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return bundle{root, tools}
}

func (b bundle) chart(name string) string { return filepath.Join(b.root, "charts", name) }

// charts are the folders of all charts.
func (b bundle) charts(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.chart("*"), "Chart.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no charts found: %v", err)
	}
	for i := range files {
		files[i] = filepath.Dir(files[i])
	}
	return files
}

// testValues are the flags by which helm reads what a chart can't be rendered without, where there is something.
func testValues(chart string) []string {
	for _, name := range []string{"values-test.yaml", "test_values.yaml"} {
		file := filepath.Join(chart, name)
		if _, err := os.Stat(file); err == nil {
			return []string{"-f", file}
		}
	}
	return nil
}

// command is one of a tool, with a home of its own.
func (b bundle) command(t *testing.T, tool string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), b.tools.Bin(tool), args...)
	home := t.TempDir()
	cmd.Env = append(cmd.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	return cmd
}

func (b bundle) run(t *testing.T, tool string, args ...string) string {
	t.Helper()
	cmd := b.command(t, tool, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, &stderr)
	}
	return string(out)
}

func (b bundle) template(t *testing.T, set string, more ...string) string {
	t.Helper()
	return b.run(t, "helm", append([]string{"template", "ebbtide", b.chart(ours), "-n", "ebbtide-system", "--set", set}, more...)...)
}

func (b bundle) kustomize(t *testing.T, overlay string) string {
	t.Helper()
	return b.run(t, "kubectl", "kustomize", filepath.Join(b.root, "manifests", overlay))
}

// schemas writes those of Kubernetes, of our own kinds and of all others that the charts make, and returns where kubeconform finds them.
func (b bundle) schemas(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	swagger, err := os.ReadFile(filepath.Join(b.module(t, ".", "k8s.io/kubernetes"), "api", "openapi-spec", "swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := kubeschema.WriteBuiltin(dir, swagger); err != nil {
		t.Fatal(err)
	}
	pins := filepath.Join("hack", "schemas")
	for _, pattern := range []string{
		filepath.Join(b.root, "manifests", "crd", "ebbtide.dev_*.yaml"),
		filepath.Join(b.tools.Asset("keda-crd"), "keda.sh_*.yaml"),
		filepath.Join(b.tools.Asset("karpenter-crd"), "karpenter.sh_*.yaml"),
		filepath.Join(b.module(t, pins, "github.com/cert-manager/cert-manager"), "deploy", "crds", "*_certificates.yaml"),
		filepath.Join(b.module(t, pins, "github.com/prometheus-operator/prometheus-operator"), "example", "prometheus-operator-crd", "*_[ps]*.yaml"),
	} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no definitions found: %s", pattern)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := kubeschema.WriteCustom(dir, text); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
	return kubeschema.Location(dir)
}

// module is the folder of a module's source, at the version that the go.mod of a folder pins.
func (b bundle) module(t *testing.T, pins, path string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", path)
	cmd.Dir = filepath.Join(b.root, pins)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", path, err, out)
	}
	var module struct{ Dir string }
	if err := yaml.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	return module.Dir
}

// read returns the files of a folder by name.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		content[filepath.Base(file)] = string(text)
	}
	return content
}
