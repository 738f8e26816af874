// Cluster holds the benchmarks that need a real cluster: it starts one on this machine, runs a workload, and writes what it
// measured. The Makefile's targets bench-churn, bench-karpenter, bench-drain and bench-startup call it.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

//go:embed manifests
var manifests embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "Measure Ebbtide beside its peers on a real cluster on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(churnCommand(), karpenterCommand(), drainCommand(), startupCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// flags are what all benchmarks have.
type flags struct{ dir, json *string }

func flagsOf(cmd *cobra.Command, file string) flags {
	return flags{
		dir:  cmd.Flags().String("dir", "", "folder of the cluster (default: a temporary one)"),
		json: cmd.Flags().String("json", "bench/out/"+file, "file of the figures"),
	}
}

// run calls f with a cluster that has nothing in it.
func (fl flags) run(ctx context.Context, start cluster.Starter, f func(context.Context, *cluster.Cluster) error) error {
	// First of all: it runs this program again, in namespaces that end with it.
	if err := proc.Contain(); err != nil {
		fmt.Fprintln(os.Stderr, "warning: should this be killed by SIGKILL, a few processes may stay:", err)
	}
	if *fl.dir == "" {
		made, err := os.MkdirTemp("", "ebbtide-bench-")
		if err != nil {
			return err
		}
		*fl.dir = made
	}
	return cluster.Run(ctx, *fl.dir, start, scans.Programs, f)
}

func churnCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "churn",
		Short: "Compare the jobs that KEDA's own rabbitmq trigger and Ebbtide's scaler make of the same messages",
		Args:  cobra.NoArgs,
	}
	common := flagsOf(cmd, "churn.json")
	messages := cmd.Flags().Int("messages", 2000, "how many messages to send with each scaler")
	scalers := cmd.Flags().StringSlice("scalers", churnScalerNames(), "which scalers to run")
	pollers := cmd.Flags().Int("pollers", 0, "how many ask for Ebbtide's policy beside KEDA, each once a second")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := allKnown("scalers", *scalers, churnScalerNames()); err != nil {
			return err
		}
		return common.run(cmd.Context(), cluster.Start, func(ctx context.Context, c *cluster.Cluster) error {
			results, runErr := runChurns(ctx, c, *scalers, *messages, *pollers, os.Stderr)
			return errors.Join(runErr, scans.WriteJSON(*common.json, results))
		})
	}
	return cmd
}

func karpenterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "karpenter",
		Short: "Compare the nodes that the stock scheduler, MostAllocated and DrainPack need of Karpenter for the same pods",
		Args:  cobra.NoArgs,
	}
	common := flagsOf(cmd, "karpenter.json")
	pods := cmd.Flags().Int("pods", 700, "how many pods each scheduler gets")
	runs := cmd.Flags().Int("runs", 1, "how many times, on one cluster; with a recorded load each time another part of it")
	var s slice
	cmd.Flags().StringVar(&s.file, "load", "", "a recorded load, CSV of start,seconds,class[,milliCPU]: --pods of its jobs, made faster; default: three generated waves over four minutes")
	cmd.Flags().StringVar(&s.statements, "statements", "exact", "how pods of a recorded load state their run times: "+strings.Join(simulator.Predictions(), ", "))
	cmd.Flags().DurationVar(&s.within, "within", 2*time.Minute, "pods of a recorded load come within this time, and run shorter alike")
	cmd.Flags().DurationVar(&s.longest, "longest", 3*time.Minute, "no pod of a recorded load runs longer")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loads := make([][]scans.Pod, *runs)
		for i := range loads {
			loads[i] = scans.PodWaves(*pods)
			if s.file != "" {
				var err error
				s.pods = *pods
				if loads[i], err = s.load(i, *runs); err != nil {
					return err
				}
			}
		}
		return common.run(cmd.Context(), cluster.Start, func(ctx context.Context, c *cluster.Cluster) error {
			results, runErr := runPackings(ctx, c, loads, os.Stderr)
			for _, r := range results {
				fmt.Fprintf(os.Stderr, "%+v\n", r)
			}
			return errors.Join(runErr, scans.WriteJSON(*common.json, results))
		})
	}
	return cmd
}

func drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Compare what kinds of workers, of Ebbtide and of KEDA, need of Karpenter's nodes for the same load at the same time",
		Args:  cobra.NoArgs,
	}
	common := flagsOf(cmd, "drain.json")
	messages := cmd.Flags().Int("messages", 240, "how many messages to send to each kind of workers")
	kinds := cmd.Flags().StringSlice("workers", drainKindNames(), "which kinds of workers to run; ratios are to the first")
	loads := cmd.Flags().StringSlice("loads", slices.Sorted(maps.Keys(drainLoads)), "which loads to run")
	seed := cmd.Flags().Uint64("seed", 1, "seed of the first run's load")
	runs := cmd.Flags().Int("runs", 1, "how many times, each with the next seed")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := errors.Join(allKnown("workers", *kinds, drainKindNames()), allKnown("loads", *loads, slices.Sorted(maps.Keys(drainLoads)))); err != nil {
			return err
		}
		start := func(ctx context.Context, o cluster.Options) (*cluster.Cluster, error) {
			o.Draining = true
			return cluster.Start(ctx, o)
		}
		return common.run(cmd.Context(), start, func(ctx context.Context, c *cluster.Cluster) error {
			results, runErr := runDrain(ctx, c, *kinds, *loads, *messages, *seed, *runs, os.Stderr)
			return errors.Join(runErr, printDrain(os.Stdout, results), scans.WriteJSON(*common.json, results))
		})
	}
	return cmd
}

func startupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "startup",
		Short: "Measure the steps between a message and its scan on real nodes",
		Args:  cobra.NoArgs,
	}
	common := flagsOf(cmd, "startup.json")
	messages := cmd.Flags().Int("messages", 20, "how many messages to send in each variant, one after the other")
	variants := cmd.Flags().StringSlice("variants", startupVariantNames(), "which variants to measure")
	seed := cmd.Flags().Uint64("seed", 1, "seed of the messages' times")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := allKnown("variants", *variants, startupVariantNames()); err != nil {
			return err
		}
		return common.run(cmd.Context(), cluster.RealNodes(2), func(ctx context.Context, c *cluster.Cluster) error {
			results, runErr := runStartup(ctx, c, *variants, *messages, *seed, os.Stderr)
			return errors.Join(runErr, printStartup(os.Stdout, results), scans.WriteJSON(*common.json, results))
		})
	}
	return cmd
}

// allKnown returns an error for the first name of a flag that is not known.
func allKnown(flag string, names, known []string) error {
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("--%s %q: must be one of %s", flag, name, strings.Join(known, ", "))
		}
	}
	return nil
}
