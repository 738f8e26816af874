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
	if err := DeclareTopology(c.Broker.AMQPURL("/")); err != nil {
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

// SourceVolume makes a volume for one claim of the scans' namespace: a folder of the machine, that all nodes have. It fits whatever access
// mode the claim asks for, and no other claim can take it.
func SourceVolume(ctx context.Context, c *cluster.Cluster, claim string) (folder string, err error) {
	folder = filepath.Join(c.Dir, "volume-"+claim)
	if err := os.Mkdir(folder, 0o755); err != nil {
		return "", err
	}
	if err := os.Chown(folder, 65532, 65532); err != nil {
		return "", err
	}
	volume, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "PersistentVolume", "metadata": map[string]any{"name": claim},
		"spec": map[string]any{
			"capacity": map[string]any{"storage": "1Gi"}, "accessModes": []string{"ReadWriteMany", "ReadWriteOnce"},
			"claimRef": map[string]any{"namespace": Namespace, "name": claim},
			"hostPath": map[string]any{"path": folder},
		},
	})
	if err != nil {
		return "", err
	}
	return folder, c.ApplyYAML(ctx, volume)
}
