package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scenario"
)

func startupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "startup",
		Short: "Measure the steps between a message and its scan on real nodes",
		Args:  cobra.NoArgs,
	}
	dir := cmd.Flags().String("dir", "", "folder of the cluster; default: a temporary one")
	jsonPath := cmd.Flags().String("json", "bench/out/startup.json", "file of the figures")
	messages := cmd.Flags().Int("messages", 20, "how many messages to send in each variant, one after the other")
	variants := cmd.Flags().StringSlice("variants", scenario.StartupVariants(), "which variants to measure")
	seed := cmd.Flags().Uint64("seed", 1, "seed of the messages' moments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := allOf("variants", *variants, scenario.StartupVariants()); err != nil {
			return err
		}
		return onTemporary(*dir, func(dir string) error {
			return withStarted(cmd.Context(), dir, realNodes(2), func(ctx context.Context, c *cluster.Cluster) error {
				results, runErr := scenario.RunStartup(ctx, c, *variants, *messages, *seed, os.Stderr)
				return errors.Join(runErr, scenario.PrintStartup(os.Stdout, results), scenario.WriteStartup(*jsonPath, results))
			})
		})
	}
	return cmd
}
