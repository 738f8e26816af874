package main

import (
	"context"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// pollBeside asks for the policy of the scans until ctx ends, as if others than KEDA did: so many of them, each once a second, one
// after the other.
func pollBeside(ctx context.Context, c *cluster.Cluster, pollers int) error {
	connection, err := c.DialScaler()
	if err != nil {
		return err
	}
	defer connection.Close()
	scaler := pb.NewExternalScalerClient(connection)
	ref := &pb.ScaledObjectRef{Name: "beside", Namespace: scans.Namespace, ScalerMetadata: map[string]string{"policy": "scans"}}
	start := time.Now()
	var all errgroup.Group
	for i := range pollers {
		all.Go(func() error {
			for at := start.Add(time.Duration(i) * time.Second / time.Duration(pollers)); ; at = at.Add(time.Second) {
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(time.Until(at)):
				}
				if _, err := scaler.IsActive(ctx, ref); err != nil && ctx.Err() == nil {
					return err
				}
			}
		})
	}
	return all.Wait()
}
