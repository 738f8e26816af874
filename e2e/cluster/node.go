package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/images"
)

// node is a real node: a kubelet with containerd, runc and a kube-proxy, in a network namespace of its own.
type node struct {
	cluster             *Cluster
	name, address, pods string // pods is their range of addresses
	dir, socket, cgroup string
	inside              namespace
}

// NodeAvailable reports why no real node can run here, or nil.
func NodeAvailable() error {
	if os.Geteuid() != 0 {
		return errors.New("a kubelet needs root")
	}
	if !proc.Contained() {
		return errors.New("a kubelet's mounts and shims are only cleaned up inside proc.Contain")
	}
	for _, program := range []string{"containerd", "ctr", "runc", "iptables", "ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: make tools", program)
		}
	}
	return proc.CgroupsAvailable()
}

const containerdConfig = `version = 2
root = "{{ .Dir }}/containerd"
state = "{{ .Dir }}/containerd-run"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{{ .Socket }}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{{ .Dir }}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{ .Pause }}"
  # Where CAP_SYS_RESOURCE is missing, runc can't lower a score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{{ .Dir }}/registries"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{{ .Dir }}/cni"
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {{ .Address }}
readOnlyPort: 0
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: "{{ .CA }}"}
authorization: {mode: Webhook}
tlsCertFile: "{{ .Cert }}.crt"
tlsPrivateKeyFile: "{{ .Cert }}.key"
containerRuntimeEndpoint: "unix://{{ .Socket }}"
cgroupDriver: cgroupfs
cgroupRoot: "/{{ .Cgroup }}"
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
clusterDNS: ["{{ .DNS }}"]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: "{{ .Dir }}/pod-logs"
volumePluginDir: "{{ .Dir }}/volume-plugins"
# The machine's disk is not the node's: its fill level evicts nobody.
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 5s
`

// podNetwork routes to each pod by itself, without a bridge, so that all its traffic passes the node's packet filter, where Services are.
const podNetwork = `{"cniVersion": "0.4.0", "name": "ebbtide", "plugins": [{"type": "ptp",
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "{{ .Pods }}"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
`

const kubeProxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: {{ .Pods }}
clientConnection: {kubeconfig: "{{ .Kubeconfig }}"}
# The sizes of the connection table are the machine's.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

// addNode adds a real node, which has the cluster's images.
func (c *Cluster) addNode(ctx context.Context) error {
	inside, number, err := c.network.addNode()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("node-%d", number)
	dir := c.path(name)
	n := &node{
		name: name, cluster: c, dir: dir, socket: filepath.Join(dir, "containerd.sock"),
		inside: inside, address: nodeAddress(number), pods: nodePodRange(number),
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for _, sub := range []string{"cni", "kubelet", "pod-logs", "volume-plugins"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if n.cgroup, err = proc.MakeCgroup(name); err != nil {
		return err
	}
	if err := n.startContainerd(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	tarballs := c.images
	c.mu.Unlock()
	for _, tarball := range tarballs {
		if err := n.importImage(ctx, tarball); err != nil {
			return err
		}
	}
	return n.startKubelet(ctx)
}

// mountsOnce guards the mount namespace, which all clusters of the program share.
var mountsOnce struct {
	sync.Once
	err error
}

// privateMounts prepares the harness's own mount namespace for nodes: mounts propagate into pods' namespaces, as a kubelet wants, and what
// containerd, its shims, CNI plugins and kubelets write to fixed places of the machine goes to memory, and away with the namespace.
func privateMounts(scratch string) error {
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", scratch, err)
	}
	for _, folder := range []string{"/run", "/var/lib", "/var/log"} {
		upper, work := filepath.Join(scratch, folder, "upper"), filepath.Join(scratch, folder, "work")
		for _, dir := range []string{upper, work} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount("overlay", folder, "overlay", 0, "lowerdir="+folder+",upperdir="+upper+",workdir="+work); err != nil {
			return fmt.Errorf("mount an overlay over %s: %w", folder, err)
		}
	}
	if err := unix.Unmount(scratch, unix.MNT_DETACH); err != nil { // the overlays keep it
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// unmountBelow detaches what is mounted in a folder, so that it can be removed.
func unmountBelow(dir string) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if fields := strings.Fields(lines[i]); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			_ = unix.Unmount(fields[4], unix.MNT_DETACH) // what stays mounted ends with the namespace
		}
	}
}

func (n *node) startContainerd(ctx context.Context) error {
	config := filepath.Join(n.dir, "containerd.toml")
	if err := n.render(config, containerdConfig, map[string]any{"Pause": images.Reference("pause", toolTag)}); err != nil {
		return err
	}
	if err := n.render(filepath.Join(n.dir, "cni", "10-ebbtide.conflist"), podNetwork, map[string]any{"Pods": n.pods}); err != nil {
		return err
	}
	return n.run(ctx, proc.Spec{
		Name: "containerd", Path: "containerd", Args: []string{"--config", config, "--log-level", "warn"},
		Ready: func(ctx context.Context) error { return n.ctr(ctx, "version") },
	})
}

// run starts a component in the node's network.
func (n *node) run(ctx context.Context, spec proc.Spec) error {
	spec.Name += "-" + n.name
	return n.cluster.run(ctx, n.inside.spec(spec))
}

// importImage makes the images of a tarball known to the node.
func (n *node) importImage(ctx context.Context, tarball string) error {
	return n.ctr(ctx, "images", "import", tarball)
}

func (n *node) ctr(ctx context.Context, args ...string) error {
	_, err := n.ctrOutput(ctx, args...)
	return err
}

func (n *node) ctrOutput(ctx context.Context, args ...string) (string, error) {
	return ctrOutput(ctx, n.socket, args...)
}

// ctrOutput runs ctr on the containerd of a socket.
func ctrOutput(ctx context.Context, socket string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// startKubelet starts the kubelet and the kube-proxy, and returns when the node is ready.
func (n *node) startKubelet(ctx context.Context) error {
	c := n.cluster
	kubelet, kubeProxy, serving := "kubelet-"+n.name, "kube-proxy-"+n.name, "kubelet-serving-"+n.name
	for name, s := range map[string]subject{
		kubelet:   {commonName: "system:node:" + n.name, organization: []string{"system:nodes"}},
		kubeProxy: {commonName: "system:kube-proxy"},
	} {
		if err := c.certificateUser(name, c.apiServerInside(), s); err != nil {
			return err
		}
	}
	if err := c.ca.issue(serving, subject{
		commonName: "system:node:" + n.name, dnsNames: []string{n.name}, addresses: []string{n.address},
	}); err != nil {
		return err
	}
	config, proxyConfig := filepath.Join(n.dir, "kubelet.yaml"), filepath.Join(n.dir, "kube-proxy.yaml")
	if err := n.render(config, kubeletConfig, map[string]any{
		"Address": n.address, "DNS": dnsServiceIP, "CA": c.ca.path(), "Cert": c.pki(serving), "Cgroup": n.cgroup,
	}); err != nil {
		return err
	}
	if err := n.render(proxyConfig, kubeProxyConfig, map[string]any{"Pods": podRange, "Kubeconfig": c.Kubeconfig(kubeProxy)}); err != nil {
		return err
	}
	if err := n.run(ctx, proc.Spec{
		Name: "kubelet", Path: c.tools.Bin("kubelet"),
		Args: []string{
			"--config=" + config, "--kubeconfig=" + c.Kubeconfig(kubelet), "--hostname-override=" + n.name, "--node-ip=" + n.address,
			"--root-dir=" + filepath.Join(n.dir, "kubelet"), "--cert-dir=" + filepath.Join(n.dir, "kubelet"),
		},
		Ready: n.inside.ready("127.0.0.1:10248"), ReadyWithin: 2 * time.Minute,
	}); err != nil {
		return err
	}
	if err := n.run(ctx, proc.Spec{
		Name: "kube-proxy", Path: c.tools.Bin("kube-proxy"),
		Args:  []string{"--config=" + proxyConfig, "--hostname-override=" + n.name},
		Ready: n.inside.ready(n.address + ":10256"), ReadyWithin: 2 * time.Minute,
	}); err != nil {
		return err
	}
	return n.waitReady(ctx)
}

// waitReady waits until the API server calls the node ready.
func (n *node) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer cancel()
	for {
		var object corev1.Node
		state := "it has not registered"
		if err := n.cluster.client.Get(ctx, types.NamespacedName{Name: n.name}, &object); err == nil {
			for _, condition := range object.Status.Conditions {
				if condition.Type == corev1.NodeReady {
					if condition.Status == corev1.ConditionTrue {
						return nil
					}
					state = condition.Message
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s is not ready: %w: %s; see %s", n.name, context.Cause(ctx), state,
				n.cluster.path("logs", "kubelet-"+n.name+".log"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (n *node) render(path, text string, values map[string]any) error {
	values["Dir"], values["Socket"] = n.dir, n.socket
	var out bytes.Buffer
	if err := template.Must(template.New("").Parse(text)).Execute(&out, values); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}
