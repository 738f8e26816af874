package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/images"
)

// URLs by which pods of real nodes reach RabbitMQ and its management API.
const (
	AMQPURLInPods       = "amqp://guest:guest@rabbitmq.rabbitmq:5672/%2f"
	ManagementURLInPods = "http://guest:guest@rabbitmq.rabbitmq:15672"
)

const (
	dnsServiceIP = "10.96.0.10"
	// toolTag is the tag of images that only the cluster itself uses.
	toolTag = "e2e"
)

// StartNodes starts a cluster of n real nodes as a platform team gets one: a control plane with the stock scheduler; pods with addresses,
// Services and DNS. RabbitMQ is the Service rabbitmq of the namespace rabbitmq. Nothing of KEDA's or Ebbtide's is there; see AddImages,
// InstallKEDA and Exec. It needs proc.Contain: what kubelet and containerd mount and start can't be found again from outside.
func StartNodes(ctx context.Context, o Options, n int) (*Cluster, error) {
	if err := NodeAvailable(); err != nil {
		return nil, err
	}
	return start(o, func(c *Cluster) error { return c.startNodes(ctx, n) })
}

func (c *Cluster) startNodes(ctx context.Context, n int) (err error) {
	if mountsOnce.Do(func() { mountsOnce.err = privateMounts(c.path("scratch")) }); mountsOnce.err != nil {
		return mountsOnce.err
	}
	if c.network, err = newNetwork(c.path("network")); err != nil {
		return err
	}
	first, firstCtx := errgroup.WithContext(ctx)
	first.Go(func() error { return c.startBroker(firstCtx) })
	first.Go(func() error { return c.startControlPlane(firstCtx) })
	first.Go(func() error {
		return c.AddImages(firstCtx, toolTag, images.Spec{Name: "pause", Packages: []string{"./images/pause"}, Arch: runtime.GOARCH})
	})
	first.Go(func() error { return c.wrapTool(firstCtx, "coredns", "/coredns", "coredns") })
	if err := first.Wait(); err != nil {
		return err
	}
	for _, port := range []int{c.ports.APIServer, c.Broker.Port(), c.Broker.ManagementPort()} {
		if err := c.network.forward(port); err != nil {
			return err
		}
	}
	if err := c.applyTemplate(ctx, "manifests/nodes.yaml", map[string]any{
		"AMQPPort": c.Broker.Port(), "ManagementPort": c.Broker.ManagementPort(), "Gateway": gatewayAddress, "DNS": dnsServiceIP,
		"CoreDNS": images.Reference("coredns", toolTag),
	}); err != nil {
		return err
	}
	second, secondCtx := errgroup.WithContext(ctx)
	for _, spec := range []func() (proc.Spec, error){c.controllerManager, c.stockScheduler} {
		second.Go(func() error {
			spec, err := spec()
			if err != nil {
				return err
			}
			return c.run(secondCtx, spec)
		})
	}
	second.Go(func() error {
		for range n {
			if err := c.addNode(secondCtx); err != nil {
				return err
			}
		}
		return nil
	})
	if err := second.Wait(); err != nil {
		return err
	}
	_, err = c.Exec(ctx, "kubectl", "rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=2m")
	return err
}

// applyTemplate applies the objects of an embedded manifest.
func (c *Cluster) applyTemplate(ctx context.Context, name string, values any) error {
	text, err := template.ParseFS(manifests, name)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := text.Execute(&out, values); err != nil {
		return err
	}
	return c.ApplyYAML(ctx, out.Bytes())
}

// stockScheduler is the cluster's own scheduler: kube-scheduler, which the project's program is as long as no profile asks for more.
func (c *Cluster) stockScheduler() (proc.Spec, error) {
	config := c.path("config", "kube-scheduler.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {kubeconfig: %q}
leaderElection: {leaderElect: false}
`, c.Kubeconfig("kube-scheduler")), 0o644); err != nil {
		return proc.Spec{}, err
	}
	trust, err := c.ca.clientConfig("admin")
	return proc.Spec{
		Name: "kube-scheduler", Path: c.Bin("ebbtide-scheduler"),
		Args: []string{
			"--config=" + config, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.ports.Scheduler),
			"--authentication-kubeconfig=" + c.Kubeconfig("kube-scheduler"), "--authorization-kubeconfig=" + c.Kubeconfig("kube-scheduler"),
			"--tls-cert-file=" + c.pki("scheduler-serving.crt"), "--tls-private-key-file=" + c.pki("scheduler-serving.key"),
		},
		Ready: proc.HTTPReady(fmt.Sprintf("https://127.0.0.1:%d/readyz", c.ports.Scheduler), trust),
	}, err
}

// AddImages builds images of the project, and gives them to every node, by images.Reference.
func (c *Cluster) AddImages(ctx context.Context, tag string, specs ...images.Spec) error {
	for _, spec := range specs {
		begin := time.Now()
		image, err := images.Build(ctx, c.root, spec)
		if err != nil {
			return err
		}
		if err := c.AddImage(ctx, spec.Name, tag, image); err != nil {
			return err
		}
		fmt.Fprintf(c.progress, "image %-18s on the nodes after %4.1f s\n", spec.Name, time.Since(begin).Seconds())
	}
	return nil
}

// wrapTool gives every node an image of a tool, which lies in it where the tool's own images have it.
func (c *Cluster) wrapTool(ctx context.Context, tool, place, name string) error {
	image, err := images.Wrap(c.tools.Bin(tool), place)
	if err != nil {
		return err
	}
	return c.AddImage(ctx, name, toolTag, image)
}

// AddImage gives an image to every node, by images.Reference.
func (c *Cluster) AddImage(ctx context.Context, name, tag string, image v1.Image) error {
	if err := os.MkdirAll(c.path("images"), 0o755); err != nil {
		return err
	}
	file := c.path("images", name+".tar")
	if err := images.WriteTarball(file, images.Reference(name, tag), image); err != nil {
		return err
	}
	return c.AddArchive(ctx, file)
}

// AddArchive gives every node the images of a file, which is one of `make images`, docker save or ctr images export.
func (c *Cluster) AddArchive(ctx context.Context, file string) error {
	c.mu.Lock()
	c.images = append(c.images, file)
	nodes := c.nodes
	c.mu.Unlock()
	all, ctx := errgroup.WithContext(ctx)
	for _, node := range nodes {
		all.Go(func() error { return node.importImage(ctx, file) })
	}
	return all.Wait()
}

// LoadArchive gives every node of the cluster in a folder, which may run in another process, the images of an archive, and returns their names.
func LoadArchive(ctx context.Context, dir, file string) (names []string, err error) {
	sockets, err := filepath.Glob(filepath.Join(dir, "node-*", "containerd.sock"))
	if err != nil {
		return nil, err
	}
	if len(sockets) == 0 {
		return nil, fmt.Errorf("the cluster in %s has no real nodes: start it with make up NODES=2", dir)
	}
	for _, socket := range sockets {
		out, err := ctrOutput(ctx, socket, "images", "import", file)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", file, err)
		}
		names = importedNames(out)
	}
	return names, nil
}

// importedNames are the images that ctr says it imported, in lines such as "unpacking scanner:dev (sha256:6f1c...)...done".
func importedNames(out string) (names []string) {
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "unpacking" {
			names = append(names, fields[1])
		}
	}
	return names
}

// Dial connects to an address of a node, a Service or a pod, as a node does.
func (c *Cluster) Dial(ctx context.Context, address string) (net.Conn, error) {
	if c.network == nil {
		return nil, errors.New("the cluster has no real nodes, so there is nothing to dial")
	}
	return c.network.dial(ctx, address)
}

// Exec runs kubectl or helm as the administrator, and returns what it says.
func (c *Cluster) Exec(ctx context.Context, tool string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.tools.Bin(tool), args...)
	home := c.path(tool)
	cmd.Dir = c.root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig("admin"), "KUBECACHEDIR="+home,
		"HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// kedaOverlay takes of KEDA's own manifests what a ScaledJob needs: not the metrics adapter, and not the admission webhooks.
const kedaOverlay = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [config/crd, config/general, config/rbac, config/manager, config/service_account]
images: [{name: ghcr.io/kedacore/keda, newName: ` + images.Registry + `/keda, newTag: ` + toolTag + `}]
patches:
- target: {kind: Deployment, name: keda-operator}
  patch: |
    - {op: replace, path: /spec/template/spec/containers/0/imagePullPolicy, value: Never}
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: --enable-webhook-patching=false}
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: --enable-apiservice-patching=false}
    - {op: replace, path: /spec/template/spec/containers/0/readinessProbe/initialDelaySeconds, value: 1}
`

// InstallKEDA installs KEDA's operator in a pod, from its own manifests and an image made of the tool, and returns when it is ready.
func (c *Cluster) InstallKEDA(ctx context.Context) error {
	begin := time.Now()
	if err := c.wrapTool(ctx, "keda-operator", "/keda", "keda"); err != nil {
		return err
	}
	if err := os.RemoveAll(c.kedaManifests()); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(c.kedaManifests(), "config"), os.DirFS(c.tools.Asset("keda-config"))); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.kedaManifests(), "kustomization.yaml"), []byte(kedaOverlay), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "-k", c.kedaManifests()},
		{"rollout", "status", "deployment/keda-operator", "-n", "keda", "--timeout=3m"},
	} {
		if _, err := c.Exec(ctx, "kubectl", args...); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.progress, "%-24s ready after %4.1f s\n", "KEDA", time.Since(begin).Seconds())
	return nil
}

// UninstallKEDA removes KEDA, its definitions and its namespace.
func (c *Cluster) UninstallKEDA(ctx context.Context) error {
	_, err := c.Exec(ctx, "kubectl", "delete", "-k", c.kedaManifests(), "--timeout=2m")
	return err
}

func (c *Cluster) kedaManifests() string { return c.path("config", "keda") }
