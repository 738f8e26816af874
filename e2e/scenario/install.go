package scenario

import (
	"context"
	"fmt"
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
	if err := declareTopology(c.Broker.AMQPURL("/")); err != nil {
		return fmt.Errorf("declare queues: %w", err)
	}
	var specs []images.Spec
	for _, spec := range append(images.Specs(ImageTag, ""), images.Quickstart(ImageTag, "")) {
		spec.Arch = runtime.GOARCH
		switch spec.Name {
		case "ebbtide": // people run it, not the cluster
			continue
		case "ebbtide-worker":
			spec.Packages = append(spec.Packages, "./e2e/cmd/e2e-scan")
		}
		specs = append(specs, spec)
	}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return c.InstallKEDA(ctx) })
	both.Go(func() error { return c.AddImages(ctx, ImageTag, specs...) })
	return both.Wait()
}
