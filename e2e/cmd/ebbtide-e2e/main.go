// ebbtide-e2e builds the tools of a local cluster, runs one, and runs the demo on it. The Makefile's targets call it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/compat"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "ebbtide-e2e",
		Short:         "Run a real cluster with Ebbtide as child processes on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(toolsCommand(), upCommand(), serveCommand(), downCommand(), statusCommand(), logsCommand(), loadCommand(),
		publishCommand(), demoCommand(), compatCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// defaultDir is the folder of the cluster that up, down, status and logs mean.
func defaultDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "ebbtide-cluster")
	}
	return filepath.Join(cache, "ebbtide", "cluster")
}

func dirFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("dir", defaultDir(), "folder of the cluster: data, credentials and logs")
}

func toolsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tools",
		Short: "Build the tools of a cluster, and install Debian's packages",
		Args:  cobra.NoArgs,
	}
	show := cmd.Flags().Bool("show-folder", false, "print the folder of the tools' binaries")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_, tools, err := cluster.Prepare(cmd.Context())
		if err != nil {
			return err
		}
		if *show {
			fmt.Println(tools.Bin(""))
			return nil
		}
		_, err = tools.With(cmd.Context(), os.Stderr, compat.Quick().Releases...)
		return err
	}
	return cmd
}
