package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a morning of 200 scans on a separate cluster, and measure it",
		Args:  cobra.NoArgs,
	}
	dir := cmd.Flags().String("dir", "", "folder of the cluster; default: a temporary one, removed when the demo succeeds")
	jsonPath := cmd.Flags().String("json", "", "also write the summary to this file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		contain()
		begin, temporary := time.Now(), *dir == ""
		var summary scans.Summary
		err := func() error {
			if temporary {
				made, err := os.MkdirTemp("", "ebbtide-demo-")
				if err != nil {
					return err
				}
				*dir = made
			}
			return withCluster(cmd.Context(), *dir, func(ctx context.Context, c *cluster.Cluster) error {
				var err error
				summary, err = scans.Run(ctx, c, begin, os.Stdout)
				return err
			})
		}()
		summary.WallSeconds = time.Since(begin).Round(100 * time.Millisecond).Seconds()
		if summary.Messages > 0 {
			summary.Print(os.Stdout)
		}
		if *jsonPath != "" {
			if writeErr := summary.WriteJSON(*jsonPath); err == nil {
				err = writeErr
			}
		}
		if err == nil {
			err = summary.Check()
		}
		if err != nil {
			return fmt.Errorf("%w\nthe cluster's folder stays, with its logs: %s", err, *dir)
		}
		if temporary {
			return os.RemoveAll(*dir)
		}
		return nil
	}
	return cmd
}
