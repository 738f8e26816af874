package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scenario"
)

func drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Compare what workers that go on, by age or not, need of Karpenter's nodes for a burst that ebbs",
		Args:  cobra.NoArgs,
	}
	dir := cmd.Flags().String("dir", "", "folder of the cluster; default: a temporary one")
	jsonPath := cmd.Flags().String("json", "bench/out/drain.json", "file of the figures")
	messages := cmd.Flags().Int("messages", 240, "how many messages to send to each kind of workers")
	kinds := cmd.Flags().StringSlice("workers", scenario.DrainWorkers(), "which kinds of workers to run")
	seed := cmd.Flags().Uint64("seed", 1, "seed of the load")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := allOf("workers", *kinds, scenario.DrainWorkers()); err != nil {
			return err
		}
		return onTemporaryCluster(cmd.Context(), *dir, func(ctx context.Context, c *cluster.Cluster) error {
			results, runErr := scenario.RunDrain(ctx, c, *kinds, *messages, *seed, os.Stderr)
			return errors.Join(runErr, scenario.WriteDrain(*jsonPath, results))
		})
	}
	return cmd
}
