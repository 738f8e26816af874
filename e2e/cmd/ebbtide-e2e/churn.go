package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scenario"
)

func churnCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "churn",
		Short: "Compare the jobs that KEDA's own rabbitmq trigger and Ebbtide's scaler make of the same messages",
		Args:  cobra.NoArgs,
	}
	dir := cmd.Flags().String("dir", "", "folder of the cluster; default: a temporary one")
	jsonPath := cmd.Flags().String("json", "bench/out/churn.json", "file of the figures")
	messages := cmd.Flags().Int("messages", 2000, "how many messages to send with each scaler")
	scalers := cmd.Flags().StringSlice("scalers", scenario.ChurnScalers(), "which scalers to run")
	pollers := cmd.Flags().Int("pollers", 0, "how many ask for Ebbtide's policy beside KEDA, each once a second")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := allOf("scalers", *scalers, scenario.ChurnScalers()); err != nil {
			return err
		}
		return onTemporaryCluster(cmd.Context(), *dir, func(ctx context.Context, c *cluster.Cluster) error {
			results, runErr := scenario.RunChurn(ctx, c, *scalers, *messages, *pollers, os.Stderr)
			return errors.Join(runErr, scenario.WriteChurn(*jsonPath, results))
		})
	}
	return cmd
}

func packingCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "packing",
		Short: "Compare the nodes that the stock scheduler, MostAllocated and DrainPack need of Karpenter for the same pods",
		Args:  cobra.NoArgs,
	}
	dir := cmd.Flags().String("dir", "", "folder of the cluster; default: a temporary one")
	jsonPath := cmd.Flags().String("json", "bench/out/karpenter.json", "file of the figures")
	pods := cmd.Flags().Int("pods", 700, "how many pods each scheduler gets")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return onTemporaryCluster(cmd.Context(), *dir, func(ctx context.Context, c *cluster.Cluster) error {
			results, err := scenario.RunPacking(ctx, c, *pods, os.Stderr)
			if err != nil {
				return err
			}
			for _, r := range results {
				fmt.Fprintf(os.Stderr, "%+v\n", r)
			}
			return scenario.WritePacking(*jsonPath, results)
		})
	}
	return cmd
}

// allOf says which of a flag's names is none that there is.
func allOf(flag string, names, known []string) error {
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("--%s %q: must be of %s", flag, name, strings.Join(known, ", "))
		}
	}
	return nil
}

// onTemporaryCluster runs f on a cluster with nothing in it, in a folder of its own when dir is empty.
func onTemporaryCluster(ctx context.Context, dir string, f func(context.Context, *cluster.Cluster) error) error {
	return onTemporary(dir, func(dir string) error { return withBareCluster(ctx, dir, f) })
}

// onTemporary runs f with a folder for a cluster: dir, or one of its own when that is empty.
func onTemporary(dir string, f func(dir string) error) error {
	contain()
	if dir == "" {
		made, err := os.MkdirTemp("", "ebbtide-bench-")
		if err != nil {
			return err
		}
		dir = made
	}
	return f(dir)
}
