package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/images"
)

// install lets TestInstall install a release on a cluster.
var install = flag.Bool("install", false, "make a release and install it on a local cluster")

// TestMain runs TestInstall in separate namespaces, so that no process of its cluster outlives it.
func TestMain(m *testing.M) {
	flag.Parse()
	if *install {
		if err := proc.Contain(); err != nil {
			fmt.Fprintln(os.Stderr, "not contained:", err)
		}
	}
	os.Exit(m.Run())
}

// scanNamespace is where the charts of workloads are installed.
const scanNamespace = "scans"

// A release is installed as its users do it, on real nodes: images and charts from a registry, the command line by krew. Nothing is set but
// what a user must set, so the images are those that the charts name.
func TestInstall(t *testing.T) {
	if !*install {
		t.Skip("make e2e-release runs it")
	}
	t.Chdir("../..")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	root, tools, err := cluster.Prepare(ctx, "./cmd/ebbtide-scheduler") // which the cluster runs as its own scheduler
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.NodeAvailable(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("in CI this must run: ", err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "ebbtide-release-") // not t.TempDir, whose path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	c, err := cluster.StartNodes(ctx, cluster.Options{Dir: dir, Root: root, Tools: tools, Progress: os.Stderr}, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		if t.Failed() {
			t.Log("the logs are in", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Log("remove the cluster's folder:", err)
		}
	})
	if err := c.StartRegistry(ctx); err != nil {
		t.Fatal(err)
	}
	i := installed{T: t, ctx: ctx, c: c, release: release{
		version: version, output: filepath.Join(dir, "release"), push: c.Registry() + "/ebbtide-dev",
		helm: []string{tools.Bin("helm")}, architectures: []string{runtime.GOARCH},
		platforms: []string{"linux/" + runtime.GOARCH, "windows/amd64"}, out: os.Stderr,
	}}
	i.client, err = kubernetes.NewForConfig(c.Admin())
	i.must(err)
	both, bothCtx := errgroup.WithContext(ctx)
	both.Go(func() error { return c.InstallKEDA(bothCtx) })
	both.Go(func() error { return i.run(bothCtx) })
	i.must(both.Wait())
	t.Logf("a cluster with KEDA and the artifacts: %.0f s", time.Since(begin).Seconds())

	begin = time.Now()
	checkFiles(t, i.release)
	kubectl := i.krew(tools.Bin("kubectl"))
	i.installCharts()
	if out, err := kubectl("ebbtide", "doctor"); err != nil {
		t.Errorf("kubectl ebbtide doctor: %v\n%s", err, out)
	}
	i.uninstall()
	t.Logf("install, test and uninstall: %.0f s", time.Since(begin).Seconds())
}

// installed is a release on a cluster.
type installed struct {
	*testing.T
	release

	ctx    context.Context
	c      *cluster.Cluster
	client kubernetes.Interface
}

func (i *installed) must(err error) {
	i.Helper()
	if err != nil {
		i.Fatal(err)
	}
}

func (i *installed) exec(tool string, args ...string) string {
	i.Helper()
	out, err := i.c.Exec(i.ctx, tool, args...)
	i.must(err)
	return out
}

// krew installs every archive of the command line by the release's manifest, which checks the manifest, the archive's checksum and what is in
// it. It returns kubectl with the plugin of this machine.
func (i *installed) krew(kubectl string) func(args ...string) (string, error) {
	i.Helper()
	manifest := filepath.Join(i.output, "krew.yaml")
	var plugin struct {
		Spec struct{ Platforms []struct{ URI, Bin string } }
	}
	decode(i.T, manifest, &plugin)
	if len(plugin.Spec.Platforms) != len(i.platforms) {
		i.Errorf("krew manifest: %+v, want a platform for each of %v", plugin, i.platforms)
	}
	here := ""
	for _, platform := range i.platforms {
		system, arch, _ := strings.Cut(platform, "/")
		home := filepath.Join(i.TempDir(), "krew")
		file := archive(i.version, system, arch)
		cmd := exec.CommandContext(i.ctx, "go", "tool", "-modfile=hack/release/krew/go.mod", "krew", "install", "--manifest="+manifest,
			"--archive="+filepath.Join(i.output, file))
		cmd.Env = append(os.Environ(), "KREW_ROOT="+home, "KREW_OS="+system, "KREW_ARCH="+arch, "KREW_NO_UPGRADE_CHECK=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			i.Errorf("krew install for %s: %v\n%s", platform, err, out)
		}
		if platform == runtime.GOOS+"/"+runtime.GOARCH {
			here = home
		}
		if !slices.ContainsFunc(plugin.Spec.Platforms, func(p struct{ URI, Bin string }) bool { return strings.HasSuffix(p.URI, "/v"+i.version+"/"+file) }) {
			i.Errorf("krew manifest: no platform has the archive %s", file)
		}
	}
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(i.ctx, kubectl, args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+i.c.Kubeconfig("admin"), "PATH="+filepath.Join(here, "bin")+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("ebbtide", "version"); err != nil || !strings.Contains(out, i.version) {
		i.Errorf("kubectl ebbtide version: %v\n%s", err, out)
	}
	return run
}

// installChart installs a chart from the registry.
func (i *installed) installChart(name, chart, namespace string, values map[string]any) {
	i.Helper()
	file := filepath.Join(i.TempDir(), name+".yaml")
	text, err := yaml.Marshal(values)
	i.must(err)
	i.must(os.WriteFile(file, text, 0o600))
	i.exec("helm", "install", name, "oci://"+i.push+"/charts/"+chart, "--version", i.version, "--plain-http", "-n", namespace, "--create-namespace",
		"--values", file, "--wait", "--timeout", "3m")
}

func (i *installed) helmTest(name, namespace string) {
	i.Helper()
	out := i.exec("helm", "test", name, "-n", namespace, "--logs", "--timeout", "3m")
	i.Logf("helm test %s:\n%s", name, out)
}

// installCharts installs all three. The command of the jobs is one that the release has an image of: ebbtide.
func (i *installed) installCharts() {
	i.installChart("ebbtide", "ebbtide", "ebbtide-system", nil)
	i.helmTest("ebbtide", "ebbtide-system")

	reference := images.Reference("ebbtide", i.version)
	repository, _, _ := strings.Cut(reference, ":")
	i.installChart("my-scans", "scan-jobs", scanNamespace, map[string]any{
		"image":   map[string]any{"repository": repository, "tag": i.version},
		"command": []string{"ebbtide", "version"},
		"broker":  map[string]any{"uri": cluster.AMQPURLInPods, "managementURI": cluster.ManagementURLInPods},
		"test":    map[string]any{"messages": []any{map[string]any{"body": "a message", "contains": i.version}}},
	})
	i.helmTest("my-scans", scanNamespace)

	i.installChart("my-jobs", "batch-jobs-min-nodes", scanNamespace, map[string]any{
		"jobs": []any{map[string]any{"name": "version", "image": reference, "command": []string{"ebbtide", "version"}}},
	})
	i.exec("kubectl", "wait", "--for=condition=complete", "jobs", "-l", "app.kubernetes.io/instance=my-jobs", "-n", scanNamespace, "--timeout=2m")
	i.sameImages()
}

// sameImages checks that what runs is what the release lists: by names and by digests.
func (i *installed) sameImages() {
	i.Helper()
	text, err := os.ReadFile(filepath.Join(i.output, "images.txt"))
	i.must(err)
	released := map[string]string{} // digests by repository
	for line := range strings.Lines(string(text)) {
		repository, digest, _ := strings.Cut(strings.TrimSpace(line), "@")
		released[repository] = digest
	}
	used := map[string]bool{}
	for _, namespace := range []string{"ebbtide-system", scanNamespace} {
		pods, err := i.client.CoreV1().Pods(namespace).List(i.ctx, metav1.ListOptions{})
		i.must(err)
		for _, pod := range pods.Items {
			for _, status := range append(slices.Clone(pod.Status.ContainerStatuses), pod.Status.InitContainerStatuses...) {
				i.sameImage(pod, status, released, used)
			}
		}
	}
	for repository := range released {
		if !used[repository] {
			i.Errorf("no pod ran %s", repository)
		}
	}
}

func (i *installed) sameImage(pod corev1.Pod, status corev1.ContainerStatus, released map[string]string, used map[string]bool) {
	i.Helper()
	repository, tag, _ := strings.Cut(status.Image, ":")
	used[repository] = true
	if tag != i.version || released[repository] == "" || !strings.HasSuffix(status.ImageID, "@"+released[repository]) {
		i.Errorf("pod %s/%s runs the image %s (%s), want one of %v with the tag %s", pod.Namespace, pod.Name, status.Image, status.ImageID, released, i.version)
	}
}

// uninstall removes everything in the order that the documentation gives; policies' definition stays.
func (i *installed) uninstall() {
	i.Helper()
	for _, release := range [][]string{{"my-jobs", scanNamespace}, {"my-scans", scanNamespace}, {"ebbtide", "ebbtide-system"}} {
		i.exec("helm", "uninstall", release[0], "-n", release[1], "--wait", "--timeout", "2m")
	}
	i.exec("kubectl", "get", "crd", "scalingpolicies.ebbtide.dev")
}
