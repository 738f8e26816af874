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
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, name := range *scalers {
			if !slices.Contains(scenario.ChurnScalers(), name) {
				return fmt.Errorf("--scalers %q: must be of %s", name, strings.Join(scenario.ChurnScalers(), ", "))
			}
		}
		contain()
		if *dir == "" {
			made, err := os.MkdirTemp("", "ebbtide-churn-")
			if err != nil {
				return err
			}
			*dir = made
		}
		return withBareCluster(cmd.Context(), *dir, func(ctx context.Context, c *cluster.Cluster) error {
			results, runErr := scenario.RunChurn(ctx, c, *scalers, *messages, os.Stderr)
			return errors.Join(runErr, scenario.WriteChurn(*jsonPath, results))
		})
	}
	return cmd
}
