package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
			if !strings.Contains(","+strings.Join(scenario.ChurnScalers(), ",")+",", ","+name+",") {
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
			text, err := scenario.WriteChurn(results)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(*jsonPath), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(*jsonPath, text, 0o644); err != nil {
				return err
			}
			fmt.Print(string(text))
			return runErr
		})
	}
	return cmd
}
