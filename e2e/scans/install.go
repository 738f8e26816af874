package scans

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/images"
)

// ImageTag is the tag of the project's images on a cluster of real nodes, as make images gives it.
const ImageTag = "dev"

// PrepareInstall gives a cluster of real nodes what comes before the chart: the queues of a scan service, KEDA, and the project's images,
// the worker's with a scanner in it.
func PrepareInstall(ctx context.Context, c *cluster.Cluster) error {
	if err := DefaultTopology.Declare(c.Broker.AMQPURL("/")); err != nil {
		return fmt.Errorf("declare queues: %w", err)
	}
	var specs []images.Spec
	for _, spec := range append(images.Specs(ImageTag, ""), images.Quickstart(ImageTag, "")) {
		spec.Arch = runtime.GOARCH
		if spec.Name == "ebbtide-worker" {
			spec.Packages = append(spec.Packages, "./e2e/cmd/e2e-scan")
		}
		specs = append(specs, spec)
	}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return c.InstallKEDA(ctx) })
	both.Go(func() error { return c.AddImages(ctx, ImageTag, specs...) })
	return both.Wait()
}

// SourceVolume makes a volume for one claim of the scans' namespace, and for no other.
func SourceVolume(ctx context.Context, c *cluster.Cluster, claim string) (folder string, err error) {
	return volume(ctx, c, claim, map[string]any{"claimRef": map[string]any{"namespace": Namespace, "name": claim}})
}

// Volumes makes n volumes, for whatever claims ask for one.
func Volumes(ctx context.Context, c *cluster.Cluster, n int) error {
	for i := range n {
		if _, err := volume(ctx, c, fmt.Sprintf("any-%d", i+1), map[string]any{}); err != nil {
			return err
		}
	}
	return nil
}

// volume makes a folder of the machine, which all nodes have, a volume for either access mode. It has no quota: claims are matched by its
// capacity.
func volume(ctx context.Context, c *cluster.Cluster, name string, spec map[string]any) (folder string, err error) {
	folder = filepath.Join(c.Dir, "volume-"+name)
	if err := os.RemoveAll(folder); err != nil { // of an earlier cluster in this folder
		return "", err
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		return "", err
	}
	if err := os.Chown(folder, 65532, 65532); err != nil {
		return "", err
	}
	spec["capacity"] = map[string]any{"storage": "20Gi"}
	spec["accessModes"] = []string{"ReadWriteMany", "ReadWriteOnce"}
	spec["hostPath"] = map[string]any{"path": folder}
	object, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": map[string]any{"name": name}, "spec": spec})
	if err != nil {
		return "", err
	}
	return folder, c.ApplyYAML(ctx, object)
}
