package cluster_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
)

// The API server takes the objects of charts/scan-jobs, and its pods in a namespace of restricted ones; an upgrade of what is the policy's
// leaves the ScaledJob as it is, and with it the jobs that run; releases go beside each other, and an uninstall leaves nothing.
func TestIntegrationScanJobs(t *testing.T) {
	c := startControlPlane(t)
	root, tools := toolsOf(t)
	chart := filepath.Join(root, "charts", "scan-jobs")
	if err := c.Apply(t.Context(), tools.Asset("karpenter-crd")); err != nil {
		t.Fatal(err)
	}
	if err := c.ApplyYAML(t.Context(), []byte(
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: scan, labels: {pod-security.kubernetes.io/enforce: restricted}}\n")); err != nil {
		t.Fatal(err)
	}
	helm := newHelm(t, "--kubeconfig", c.Kubeconfig("admin"), "-n", "scan")
	kubectl := func(args ...string) string {
		t.Helper()
		return output(t, exec.CommandContext(t.Context(), c.Kubectl(), append(args, "--kubeconfig", c.Kubeconfig("admin"), "-n", "scan")...))
	}
	generation := func(object string) string { return kubectl("get", object, "-o", "jsonpath={.metadata.generation}") }

	// No pod runs here, so what hooks run is tried below: as pods, and in TestIntegrationScanJobsProcesses.
	demo := []string{"my-scans", chart, "--no-hooks", "-f", filepath.Join(chart, "values-test.yaml")}
	helm.run(t, append([]string{"install"}, demo...)...)
	scaledJob, policy := generation("scaledjob/my-scans"), generation("scalingpolicy/my-scans")
	helm.run(t, append([]string{"upgrade"}, append(demo, "--set", "policy.maxReplicas=9,policy.holdFor=1m,test.timeout=1m")...)...)
	if got := generation("scaledjob/my-scans"); got != scaledJob {
		t.Errorf("an upgrade of the policy made a new generation of the ScaledJob: %s, was %s", got, scaledJob)
	}
	if got := generation("scalingpolicy/my-scans"); got == policy {
		t.Errorf("the upgrade left the policy in its generation %s", got)
	}
	// An edit in the cluster belongs to whoever made it, until it is given up.
	kubectl("patch", "scalingpolicy", "my-scans", "--type=merge", "-p", `{"spec": {"target": {"maxReplicas": 40}}}`)
	most := func() string {
		return kubectl("get", "scalingpolicy/my-scans", "-o", "jsonpath={.spec.target.maxReplicas}")
	}
	for range 2 {
		out := helm.run(t, append([]string{"upgrade"}, append(demo, "--set", "policy.maxReplicas=9,test.timeout=2m")...)...)
		if got := most(); got != "40" || !strings.Contains(out, "edited in the cluster (by kubectl-patch)") {
			t.Errorf("an upgrade after an edit: maxReplicas is %s, want 40, and a warning:\n%s", got, out)
		}
	}
	helm.run(t, append([]string{"upgrade"}, append(demo, "--set", "policy.maxReplicas=9,policy.keepEdits=false", "--force-conflicts")...)...)
	if got := most(); got != "9" {
		t.Errorf("an upgrade that gives the edit up: maxReplicas is %s, want 9", got)
	}
	if out := helm.run(t, append([]string{"upgrade"}, append(demo, "--set", "policy.maxReplicas=10")...)...); most() != "10" {
		t.Errorf("an upgrade after that: maxReplicas is %s, want 10:\n%s", most(), out)
	}

	for name, values := range map[string][]string{
		"one-pod":   {"-f", filepath.Join(root, "examples/engines-one-pod/values.yaml")},
		"pod-group": {"-f", filepath.Join(root, "examples/engines-pod-group/values.yaml")},
		"source":    {"-f", filepath.Join(root, "examples/source-store/values.yaml")},
		"tenants":   {"--set", "tenants.queues[0].name=acme,tenants.queues[1].name=other"},
		"start-up":  {"--set", "worker.inImage=true,prePull.enabled=true,headroom.replicas=2"},
		// A Secret and a PriorityClass of its own, and nodes.
		"pools": {"-f", filepath.Join(root, "examples/eks/helmfile/values/scans.yaml")},
	} {
		args := append([]string{name, chart, "--no-hooks", "-f", filepath.Join(chart, "values-test.yaml"), "--set", "broker.secret=" + name}, values...)
		helm.run(t, append([]string{"install"}, args...)...)
	}
	if pools := kubectl("get", "nodepools", "-o", "name"); strings.Count(pools, "scan-pools-") != 2 {
		t.Errorf("NodePools: %s", pools)
	}

	for _, release := range []string{"my-scans", "one-pod", "pod-group", "pools", "source", "start-up", "tenants"} {
		for name, pod := range podsOf(t, helm.run(t, "get", "manifest", release)+"\n---\n"+helm.run(t, "get", "hooks", release)) {
			if out := dryRun(t, c, name, pod); !strings.Contains(out, "created (server dry run)") {
				t.Errorf("release %s, pod of %s: %s", release, name, out)
			}
		}
		helm.run(t, "uninstall", release, "--no-hooks")
	}
	left := kubectl("get", "scaledjobs,scalingpolicies,cronjobs,jobs,pods,secrets,configmaps,serviceaccounts,networkpolicies,priorityclasses,nodepools", "-A",
		"-l", "app.kubernetes.io/managed-by=Helm", "-o", "name")
	if left != "" {
		t.Errorf("left after the uninstall: %s", left)
	}
}

// What examples/eks applies, the API server takes; what helmfile installs from this project is rendered.
func TestIntegrationEKSExample(t *testing.T) {
	c := startControlPlane(t)
	helm := newHelm(t)
	root, _ := toolsOf(t)
	example := filepath.Join(root, "examples", "eks")

	var karpenter struct{ Dir, Version string }
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "github.com/aws/karpenter-provider-aws")
	download.Dir = filepath.Join(root, "hack", "schemas") // pins it
	out, err := download.Output()
	if err == nil {
		err = json.Unmarshal(out, &karpenter)
	}
	if err != nil {
		t.Fatalf("download Karpenter's definitions: %v: %s", err, out)
	}
	if err := c.Apply(t.Context(), filepath.Join(karpenter.Dir, "pkg/apis/crds")); err != nil {
		t.Fatal(err)
	}
	values := strings.NewReplacer("${name}", "scans", "${node_role}", "scans-node", "${file_system_id}", "fs-0123456789abcdef0",
		"${rabbitmq_uri}", "amqps://scans:password@broker:5671/%2F", "${rabbitmq_management}", "https://broker",
		"${brokers}", `["b-1:9096", "b-2:9096"]`, "${username}", "scans", "${password}", "password")
	for _, name := range []string{"platform.yaml.tftpl", "kafka.yaml.tftpl"} {
		text, err := os.ReadFile(filepath.Join(example, "manifests", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.ApplyYAML(t.Context(), []byte(values.Replace(string(text)))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	text, err := os.ReadFile(filepath.Join(example, "helmfile", "helmfile.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Releases []struct {
			Name, Namespace, Chart, Version string
			Values                          []string
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	rendered := 0
	for _, release := range file.Releases {
		args := []string{"template", release.Name, filepath.Join(example, "helmfile", release.Chart), "-n", release.Namespace}
		for _, name := range release.Values {
			if _, err := os.Stat(filepath.Join(example, "helmfile", name)); err != nil {
				t.Error(err)
			}
			args = append(args, "-f", filepath.Join(example, "helmfile", name))
		}
		if strings.HasPrefix(release.Chart, "../../../charts/") {
			helm.run(t, args...)
			rendered++
		}
		if release.Name == "karpenter" && "v"+release.Version != karpenter.Version {
			t.Errorf("helmfile installs Karpenter %s, the node class is checked against %s", release.Version, karpenter.Version)
		}
	}
	if rendered != 2 {
		t.Errorf("%d releases of this project's charts, want 2", rendered)
	}
}

// podsOf are the pods that the objects of a text make, by what makes them.
func podsOf(t *testing.T, text string) map[string]corev1.PodTemplateSpec {
	t.Helper()
	pods := map[string]corev1.PodTemplateSpec{}
	for _, document := range strings.Split(text, "\n---\n") {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     json.RawMessage
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		var spec struct {
			Template     corev1.PodTemplateSpec
			JobTargetRef struct{ Template corev1.PodTemplateSpec }
		}
		switch object.Kind {
		case "Job", "ScaledJob", "Pod", "Deployment", "DaemonSet":
			if err := json.Unmarshal(object.Spec, &spec); err != nil {
				t.Fatal(err)
			}
		default:
			continue
		}
		pod := spec.Template
		switch object.Kind {
		case "ScaledJob":
			pod = spec.JobTargetRef.Template
		case "Pod":
			if err := json.Unmarshal(object.Spec, &pod.Spec); err != nil {
				t.Fatal(err)
			}
		}
		pods[object.Kind+" "+object.Metadata.Name] = pod
	}
	if len(pods) < 3 {
		t.Errorf("only %d pods found, want those of scans, topology and test", len(pods))
	}
	return pods
}

// dryRun asks the API server for a pod in the namespace scan.
func dryRun(t *testing.T, c *cluster.Cluster, name string, template corev1.PodTemplateSpec) string {
	t.Helper()
	pod := corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.APIVersion, pod.Kind = "v1", "Pod"
	pod.Name, pod.Namespace = strings.ReplaceAll(strings.ToLower(name), " ", "-"), "scan"
	text, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), c.Kubectl(), "create", "--dry-run=server", "-f", "-", "--kubeconfig", c.Kubeconfig("admin"))
	cmd.Stdin = strings.NewReader(string(text))
	out, _ := cmd.CombinedOutput() // what it says is the result
	return string(out)
}

// What can't work is refused before anything is installed, and the error names the value; what the values offer is rendered.
func TestScanJobsValues(t *testing.T) {
	helm := newHelm(t)
	root, _ := toolsOf(t)
	chart := filepath.Join(root, "charts", "scan-jobs")
	const least = "image.repository=example.com/scanner,command={scan.sh}"
	for _, file := range []string{"charts/scan-jobs/values-test.yaml", "examples/eks/helmfile/values/scans.yaml"} {
		helm.run(t, "lint", "--strict", chart, "-f", filepath.Join(root, file))
	}
	for set, want := range map[string]string{
		"image.repository=x":                         "command is empty",
		"command={x}":                                "image.repository is empty",
		least + ",engines.one.command={x}":           "command and engines are both set",
		least + ",engines.one.comand={x}":            "engines",
		least + ",enginesIn=node":                    "enginesIn",
		least + ",worker.idletimeout=1s":             "idletimeout",
		least + ",worker.gracePeriod=5":              "gracePeriod",
		least + ",topology.mode=jobs":                "mode",
		least + ",nodePools.spot.weight=5":           "nodePools.spot.requirements is empty",
		least + ",nodePools.Spot.weight=5":           "'Spot' does not match pattern",
		least + ",scaledJob.successfulJobsHistory=3": "successfulJobsHistory",
		// What the scaler would refuse after the upgrade is complete.
		least + ",policy.maxReplicas=0":                                                                            "policy.calendar.periods[0] (workday): minReplicas is 1: must not exceed the cap, 0",
		least + ",policy.calendar.default.minReplicas=60":                                                          "policy.calendar.default: minReplicas is 60: must not exceed the cap, 50",
		least + ",policy.calendar.default.maxReplicas=0":                                                           "(workday): minReplicas is 1: must not exceed the cap, 0",
		least + ",policy.calendar.default.minReplicas=20":                                                          "policy.calendar.periods[1] (weekend): minReplicas is 20: must not exceed the cap, 10",
		least + ",policy.calendar.default.minReplicas=-1":                                                          "minReplicas is -1: must not be negative",
		least + ",policy.calendar.exceptions[0].limits.minReplicas=51":                                             "policy.calendar.exceptions[0]",
		least + ",policy.calendar.periods[0].limits.minReplicas=9,policy.calendar.periods[0].limits.maxReplicas=8": "minReplicas is 9: must not exceed the cap, 8",
		"image.repository=x,enginesIn=pods,engines.one.command={x},engines.one.maxReplicas=0":                      "minReplicas is 1: must not exceed the cap, 0",
	} {
		if out, err := helm.command(t, "template", "x", chart, "--set", set).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s; want an error with %q", set, err, out, want)
		}
	}
	for set, want := range map[string]struct{ with, without string }{
		least:                                {"secretKeyRef: {name: scan-mq, key: uri}", "kind: Secret"},
		least + ",broker.uri=amqp://broker/": {"kind: Secret", "nodeSelector:\n          ebbtide.dev/pool"},
		least + ",image.tag=v2":              {"image: example.com/scanner:v2", "@"},
		least + ",image.digest=sha256:" + strings.Repeat("0", 64): {"image: example.com/scanner@sha256:0", "scanner:"},
		least + ",worker.gracePeriod=1h1m1s":                      {"terminationGracePeriodSeconds: 3671", ""},
		least + ",topology.mode=none":                             {"kind: ScaledJob", "kind: Job"},
		least + ",topology.mode=operator":                         {"kind: Binding", "kind: Job"},
		least + ",topology.results=stream":                        {`"x-max-age": "7D"`, ""},
		least + ",topology.results=none":                          {"x.dead", `"destination": "x.results"`},
		least + ",scaler.authentication.name=":                    {"policy: x", "authenticationRef"},
		least + ",priorityClass.create=false":                     {"kind: ScaledJob", "priorityClassName"},
		least + ",serviceAccount.create=false":                    {"serviceAccountName: default", "kind: ServiceAccount\n"},
		least + ",networkPolicy.enabled=false":                    {"kind: ScaledJob", "kind: NetworkPolicy"},
		least + ",expectedDuration=90s":                           {"ebbtide.dev/expected-duration: 90s", ""},
		least + ",queue=team.scans":                               {`"pattern": "^team\\.scans$"`, ""},
		least + ",fullnameOverride=other,policy.drainWithin=10m":  {"drainWithin: 10m", "policy: x"},
	} {
		out := helm.run(t, "template", "x", chart, "--set", set)
		if !strings.Contains(out, want.with) || want.without != "" && strings.Contains(out, want.without) {
			t.Errorf("%s: want %q, and not %q:\n%s", set, want.with, want.without, out)
		}
	}
}
