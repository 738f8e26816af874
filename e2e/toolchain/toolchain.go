// Package toolchain builds the programs that a local cluster is made of from pinned Go modules, and keeps them in the
// user's cache directory under a key of those pins. Nothing is downloaded but module source.
package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// kubernetesVersion is stamped into the Kubernetes binaries, which learn their version from the linker.
const kubernetesVersion = "1.36.3"

// A tool is one program, built from a package of the module e2e/tools, or of a module in a folder of it.
type tool struct {
	name, pkg string
	ldflags   string
	module    string
}

var stampKubernetes = "-X k8s.io/component-base/version.gitVersion=v" + kubernetesVersion +
	" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"

// tools in the order in which they are built: those first that compile what others share.
var tools = []tool{
	{name: "kube-apiserver", pkg: "k8s.io/kubernetes/cmd/kube-apiserver", ldflags: stampKubernetes},
	{name: "kube-controller-manager", pkg: "k8s.io/kubernetes/cmd/kube-controller-manager", ldflags: stampKubernetes},
	{name: "kubelet", pkg: "k8s.io/kubernetes/cmd/kubelet", ldflags: stampKubernetes},
	{name: "kube-proxy", pkg: "k8s.io/kubernetes/cmd/kube-proxy", ldflags: stampKubernetes},
	{name: "kubectl", pkg: "k8s.io/kubernetes/cmd/kubectl", ldflags: stampKubernetes},
	{name: "etcd", pkg: "go.etcd.io/etcd/server/v3"},
	{name: "etcdutl", pkg: "go.etcd.io/etcd/etcdutl/v3", module: "etcdutl"},
	{name: "kwok", pkg: "sigs.k8s.io/kwok/cmd/kwok"},
	{name: "karpenter", pkg: "sigs.k8s.io/karpenter/kwok"},
	{name: "keda-operator", pkg: "github.com/kedacore/keda/v2/cmd/operator"},
	{name: "keda-adapter", pkg: "github.com/kedacore/keda/v2/cmd/adapter"},
	{name: "coredns", pkg: ".", module: "coredns"},
	{name: "helm", pkg: "helm.sh/helm/v4/cmd/helm", module: "charts"},
	{name: "helm-unittest", pkg: "github.com/helm-unittest/helm-unittest/cmd/helm-unittest", module: "charts"},
	{name: "kubeconform", pkg: "github.com/yannh/kubeconform/cmd/kubeconform", module: "charts"},
}

// assets are folders of YAML that the tools' modules bring: custom resource definitions, roles, stages.
var assets = []struct{ name, module, folder string }{
	{"keda-config", "github.com/kedacore/keda/v2", "config"},
	{"keda-crd", "github.com/kedacore/keda/v2", "config/crd/bases"},
	{"keda-rbac", "github.com/kedacore/keda/v2", "config/rbac"},
	{"keda-metrics-server", "github.com/kedacore/keda/v2", "config/metrics-server"},
	{"karpenter-crd", "sigs.k8s.io/karpenter", "pkg/apis/crds"},
	{"karpenter-kwok-crd", "sigs.k8s.io/karpenter", "kwok/apis/crds"},
	{"kwok-crd", "sigs.k8s.io/kwok", "kustomize/crd/bases"},
	{"kwok-rbac", "sigs.k8s.io/kwok", "kustomize/rbac"},
	{"kwok-node-initialize", "sigs.k8s.io/kwok", "kustomize/stage/node/fast"},
	{"kwok-node-heartbeat", "sigs.k8s.io/kwok", "kustomize/stage/node/heartbeat-with-lease"},
}

// Toolchain is a complete set of tools.
type Toolchain struct{ dir string }

// Bin is the path of a tool's binary.
func (t Toolchain) Bin(name string) string { return filepath.Join(t.dir, "bin", name) }

// Asset is the path of a folder of YAML.
func (t Toolchain) Asset(name string) string { return filepath.Join(t.dir, "assets", name) }

// Ensure builds what is missing and returns the complete set. Module is the folder of the module that pins the tools.
// A line for each tool that has to be built goes to progress. Two calls at once, in any processes, build once: the
// second waits for the first. A tool is built again only when the pins of its module change.
func Ensure(ctx context.Context, module string, progress io.Writer) (Toolchain, error) {
	keys, key, err := pins(module)
	if err != nil {
		return Toolchain{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Toolchain{}, fmt.Errorf("find the user's cache directory: %w", err)
	}
	all := filepath.Join(cache, "ebbtide", "tools")
	t, store := Toolchain{filepath.Join(all, key)}, filepath.Join(all, "store")
	for _, dir := range []string{filepath.Join(t.dir, "bin"), store} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return t, err
		}
	}
	unlock, err := lock(ctx, filepath.Join(all, "lock"), progress)
	if err != nil {
		return t, err
	}
	defer unlock()

	begin, built := time.Now(), 0
	for i, tool := range tools {
		if exists(t.Bin(tool.name)) {
			continue
		}
		kept := filepath.Join(store, tool.name+"-"+keys[i])
		if !exists(kept) {
			start := time.Now()
			stop := ticking(progress, "building "+tool.name, start)
			err := build(ctx, module, tool, kept)
			stop()
			if err != nil {
				return t, fmt.Errorf("build %s: %w", tool.name, err)
			}
			built++
			fmt.Fprintf(progress, "built %-24s %5.0f s\n", tool.name, time.Since(start).Seconds())
		}
		if err := os.Link(kept, t.Bin(tool.name)); err != nil {
			return t, err
		}
	}
	for _, asset := range assets {
		if exists(t.Asset(asset.name)) {
			continue
		}
		if err := copyAsset(ctx, module, asset.module, asset.folder, t.Asset(asset.name)); err != nil {
			return t, fmt.Errorf("copy %s of %s: %w", asset.folder, asset.module, err)
		}
	}
	if built > 0 {
		fmt.Fprintf(progress, "built %d tools in %.0f s, kept in %s\n", built, time.Since(begin).Seconds(), store)
	}
	return t, nil
}

// pins are short hashes of everything that decides what each tool is, and of all of them.
func pins(module string) (keys []string, all string, err error) {
	set := sha256.New()
	for _, tool := range tools {
		hash := sha256.New()
		files := []string{"go.mod", "go.sum"}
		if tool.pkg == "." {
			files = append(files, "main.go")
		}
		for _, name := range files {
			text, err := os.ReadFile(filepath.Join(module, tool.module, name))
			if err != nil {
				return nil, "", fmt.Errorf("read the tools' pins: %w", err)
			}
			hash.Write(text)
		}
		fmt.Fprint(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH, tool)
		key := hex.EncodeToString(hash.Sum(nil))[:16]
		keys = append(keys, key)
		fmt.Fprintln(set, key)
	}
	fmt.Fprint(set, assets)
	return keys, hex.EncodeToString(set.Sum(nil))[:16], nil
}

// build compiles a tool. It uses the flags of the project's own builds, so that the packages they have in common are
// compiled once.
func build(ctx context.Context, module string, tool tool, path string) error {
	partial := path + ".partial"
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w "+tool.ldflags, "-o", partial, tool.pkg)
	cmd.Dir = filepath.Join(module, tool.module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(string(out)))
	}
	return os.Rename(partial, path)
}

func copyAsset(ctx context.Context, module, from, folder, to string) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", from)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	partial := to + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := os.CopyFS(partial, os.DirFS(filepath.Join(strings.TrimSpace(string(out)), folder))); err != nil {
		return err
	}
	return os.Rename(partial, to)
}

// lock takes an exclusive lock that the kernel releases when this process ends.
func lock(ctx context.Context, path string, progress io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waiting := false; ; waiting = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !waiting {
			fmt.Fprintln(progress, "another process is doing the same; waiting for it")
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// ticking says every half a minute that a long step still runs.
func ticking(progress io.Writer, what string, start time.Time) (stop func()) {
	ticker, done := time.NewTicker(30*time.Second), make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for {
			select {
			case <-ticker.C:
				fmt.Fprintf(progress, "%s: %.0f s so far\n", what, time.Since(start).Seconds())
			case <-done:
				return
			}
		}
	}()
	return func() { ticker.Stop(); close(done); <-finished }
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
