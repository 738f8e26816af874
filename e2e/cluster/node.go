package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

// cgroupName is the cgroup of a real node of this program's.
func cgroupName(node string) string { return fmt.Sprintf("ebbtide-%d-%s", proc.OuterPID(), node) }

// Node is a real node: a kubelet with containerd and runc.
type Node struct {
	// Name of the node in the cluster.
	Name string

	cluster *Cluster
	dir     string
	socket  string
	cgroup  string
}

// NodeAvailable reports why no real node can run here, or nil.
func NodeAvailable() error {
	if os.Geteuid() != 0 {
		return errors.New("a kubelet needs root")
	}
	if !proc.Contained() {
		return errors.New("a kubelet's mounts and shims are only cleaned up inside proc.Contain")
	}
	for _, program := range []string{"containerd", "ctr", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: make tools", program)
		}
	}
	if _, err := cgroupParents(); err != nil {
		return err
	}
	return nil
}

// cgroupParents are the folders in which a cgroup must be made so that every controller knows it.
func cgroupParents() ([]string, error) {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return []string{root}, writable(root)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("no cgroups: %w", err)
	}
	var parents []string
	for _, entry := range entries {
		parent := filepath.Join(root, entry.Name())
		if _, err := os.Stat(filepath.Join(parent, "cgroup.procs")); err == nil && entry.Type()&os.ModeSymlink == 0 {
			parents = append(parents, parent)
		}
	}
	if len(parents) == 0 {
		return nil, errors.New("no cgroups: nothing is mounted under " + root)
	}
	return parents, writable(parents[0])
}

func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("cgroups are read-only (%s): %w", dir, err)
	}
	return nil
}

const containerdConfig = `version = 2
root = "{{ .Dir }}/containerd"
state = "{{ .Dir }}/containerd-run"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{{ .Socket }}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{ .Pause }}"
  # Where CAP_SYS_RESOURCE is missing, runc can't lower a score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{{ .Dir }}/cni"
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: {{ .Port }}
healthzBindAddress: 127.0.0.1
healthzPort: {{ .HealthPort }}
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
makeIPTablesUtilChains: false
resolvConf: ""
podLogsDir: "{{ .Dir }}/pod-logs"
volumePluginDir: "{{ .Dir }}/volume-plugins"
# The machine's disk is not the node's: its fill level evicts nobody.
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 5s
`

// podNetwork gives a pod an address that the host reaches, and is reached from. Workers of the scenarios use the host's network instead,
// as their broker listens on loopback.
const podNetwork = `{"cniVersion": "0.4.0", "name": "ebbtide", "plugins": [{"type": "ptp",
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}]}
`

// StartNode starts a real node whose containers' sandboxes are made of the pause image in a tarball. Its kubelet listens on loopback,
// where the API server reaches it (kubectl logs, port-forward) if the name resolves to that: localhost does. It needs
// proc.Contain: what kubelet and containerd mount and start can't be found again from outside.
func (c *Cluster) StartNode(ctx context.Context, name, pauseTarball, pauseReference string) (*Node, error) {
	if err := NodeAvailable(); err != nil {
		return nil, err
	}
	dir := c.path("node-" + name)
	n := &Node{Name: name, cluster: c, dir: dir, socket: filepath.Join(dir, "containerd.sock"),
		cgroup: cgroupName(name)}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	for _, sub := range []string{"cni", "kubelet", "pod-logs", "volume-plugins"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	// A kubelet wants mounts to propagate into its pods' namespaces. This mount namespace is the harness's own.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return nil, fmt.Errorf("share mounts: %w", err)
	}
	if err := n.makeCgroup(); err != nil {
		return nil, err
	}
	if err := n.startContainerd(ctx, pauseTarball, pauseReference); err != nil {
		return nil, err
	}
	return n, n.startKubelet(ctx)
}

func (n *Node) makeCgroup() error {
	parents, err := cgroupParents()
	if err != nil {
		return err
	}
	for _, parent := range parents {
		path := filepath.Join(parent, n.cgroup)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		// On cgroup v1 a cpuset is unusable until it has CPUs and memory.
		for _, file := range []string{"cpuset.mems", "cpuset.cpus"} {
			if text, err := os.ReadFile(filepath.Join(parent, file)); err == nil {
				if err := os.WriteFile(filepath.Join(path, file), bytes.TrimSpace(text), 0o644); err != nil {
					return fmt.Errorf("%s of %s: %w", file, path, err)
				}
			}
		}
	}
	return nil
}

// removeCgroups ends what runs in this program's real nodes and removes their cgroups.
func removeCgroups() {
	parents, err := cgroupParents()
	if err != nil {
		return // there are none
	}
	for _, parent := range parents {
		roots, _ := filepath.Glob(filepath.Join(parent, cgroupName("*")))
		for _, root := range roots {
			removeCgroup(root)
		}
	}
}

// removeCgroup kills what is in a cgroup, then removes it from the leaves up. What can't be removed stays: an empty
// cgroup costs nothing, and the next node removes it.
func removeCgroup(root string) {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	deadline := time.Now().Add(5 * time.Second)
	for i := len(dirs) - 1; i >= 0; i-- {
		for unix.Rmdir(dirs[i]) != nil && time.Now().Before(deadline) {
			text, err := os.ReadFile(filepath.Join(dirs[i], "cgroup.procs"))
			if err != nil {
				break
			}
			for _, field := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func (n *Node) startContainerd(ctx context.Context, pauseTarball, pauseReference string) error {
	config := filepath.Join(n.dir, "containerd.toml")
	if err := n.render(config, containerdConfig, map[string]any{"Pause": pauseReference}); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(n.dir, "cni", "10-ebbtide.conflist"), []byte(podNetwork), 0o644); err != nil {
		return err
	}
	if err := n.cluster.run(ctx, proc.Spec{
		Name: "containerd-" + n.Name, Path: "containerd", Args: []string{"--config", config, "--log-level", "warn"},
		Ready: func(ctx context.Context) error { return n.ctr(ctx, "version") },
	}); err != nil {
		return err
	}
	return n.Import(ctx, pauseTarball)
}

// Import makes the images of a tarball known to the node.
func (n *Node) Import(ctx context.Context, tarball string) error {
	return n.ctr(ctx, "images", "import", tarball)
}

func (n *Node) ctr(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ctr", append([]string{"--address", n.socket, "--namespace", "k8s.io"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func (n *Node) startKubelet(ctx context.Context) error {
	c := n.cluster
	ports, err := proc.FreePorts(2)
	if err != nil {
		return err
	}
	user := "node-" + n.Name
	if err := c.certificateUser(user, subject{commonName: "system:node:" + n.Name, organization: []string{"system:nodes"}}); err != nil {
		return err
	}
	if err := c.ca.issue("kubelet-serving-"+n.Name, subject{commonName: "system:node:" + n.Name, dnsNames: []string{n.Name}}); err != nil {
		return err
	}
	config := filepath.Join(n.dir, "kubelet.yaml")
	if err := n.render(config, kubeletConfig, map[string]any{
		"Port": ports[0], "HealthPort": ports[1], "CA": c.ca.path(), "Cert": c.pki("kubelet-serving-" + n.Name), "Cgroup": n.cgroup,
	}); err != nil {
		return err
	}
	if err := c.run(ctx, proc.Spec{
		Name: "kubelet-" + n.Name, Path: c.tools.Bin("kubelet"),
		Args: []string{
			"--config=" + config, "--kubeconfig=" + c.Kubeconfig(user), "--hostname-override=" + n.Name,
			"--root-dir=" + filepath.Join(n.dir, "kubelet"), "--cert-dir=" + filepath.Join(n.dir, "kubelet"),
		},
		Ready: proc.HTTPReady(fmt.Sprintf("http://127.0.0.1:%d/healthz", ports[1]), nil), ReadyWithin: 2 * time.Minute,
	}); err != nil {
		return err
	}
	return n.waitReady(ctx)
}

// waitReady waits until the API server calls the node ready.
func (n *Node) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer cancel()
	for {
		var node corev1.Node
		state := "it has not registered"
		if err := n.cluster.client.Get(ctx, types.NamespacedName{Name: n.Name}, &node); err == nil {
			for _, condition := range node.Status.Conditions {
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
			return fmt.Errorf("node %s is not ready: %w: %s; see %s", n.Name, context.Cause(ctx), state,
				n.cluster.path("logs", "kubelet-"+n.Name+".log"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (n *Node) render(path, text string, values map[string]any) error {
	values["Dir"], values["Socket"] = n.dir, n.socket
	var out bytes.Buffer
	if err := template.Must(template.New("").Parse(text)).Execute(&out, values); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}
