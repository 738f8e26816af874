package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

// A Starter starts a cluster: Start, or what RealNodes returns.
type Starter func(context.Context, Options) (*Cluster, error)

// RealNodes is the Starter of clusters with n nodes that are kubelets with containerd.
func RealNodes(n int) Starter {
	return func(ctx context.Context, o Options) (*Cluster, error) { return StartNodes(ctx, o, n) }
}

// Prepare makes sure of Debian's packages, the tools, and programs of the project. All of them are tried, so that one
// call tells everything that is missing. Progress goes to stderr.
func Prepare(ctx context.Context, programs ...string) (root string, tools toolchain.Toolchain, err error) {
	root, err = toolchain.Root()
	if err != nil {
		return "", tools, err
	}
	packagesErr := toolchain.EnsurePackages(ctx, os.Stderr)
	tools, toolsErr := toolchain.Ensure(ctx, toolchain.Module(root), os.Stderr)
	if err := errors.Join(packagesErr, toolsErr); err != nil || len(programs) == 0 {
		return root, tools, err
	}
	return root, tools, toolchain.BuildProject(ctx, root, filepath.Join(root, "bin"), os.Stderr, programs...)
}

// Run prepares and starts a cluster in the folder dir, calls f with it, and stops it.
func Run(ctx context.Context, dir string, start Starter, programs []string, f func(context.Context, *Cluster) error) error {
	root, tools, err := Prepare(ctx, programs...)
	if err != nil {
		return err
	}
	c, err := start(ctx, Options{Dir: dir, Root: root, Tools: tools, Progress: os.Stderr})
	if err != nil {
		return err
	}
	defer c.Stop()
	return f(ctx, c)
}
