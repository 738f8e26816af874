package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/placement"
)

func decisionsCommand() *cobra.Command {
	var reach reachFlags
	var namespace string
	var limit int
	var watch bool
	cmd := &cobra.Command{
		Use:   "decisions [POLICY]",
		Short: "List the decisions of a running scaler, and watch them",
		Long: `Lists the last decisions of a running scaler. With --watch, it prints new decisions until it is interrupted. It forwards a port to every replica of
the scaler, because each replica keeps its own decisions.`,
		Example: `  ebbtide decisions scans -n scan
  ebbtide decisions --watch -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	reach.add(cmd, scalerComponent)
	out := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&namespace, "namespace", "n", "", "namespace of policies; default: all")
	flags.IntVar(&limit, "limit", 20, "number of decisions for each policy")
	flags.BoolVarP(&watch, "watch", "w", false, "print new decisions")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 {
			return fmt.Errorf("--limit is %d, want at least 1", limit)
		}
		policy := ""
		if len(args) > 0 {
			policy = args[0]
		}
		f := follower{
			reach: func(ctx context.Context) ([]string, error) { return reach.reach(ctx, scalerComponent) },
			list: func(ctx context.Context, addresses []string) ([]decision.View, error) {
				return decisionsOf(ctx, addresses, namespace, policy, limit)
			},
			now: time.Now, warn: cmd.ErrOrStderr(),
		}
		defer f.disconnect()
		list, err := f.next(cmd.Context())
		if err != nil {
			return err
		}
		if !watch {
			if len(list) == 0 && policy != "" {
				return fmt.Errorf("no decision of a policy %q: it does not exist, or KEDA has not asked for it yet", policy)
			}
			return out.print(cmd, list, func(t *table) { printDecisions(t.row, list, true) })
		}
		shown := &columns{w: cmd.OutOrStdout(), widths: []int{len(time.DateTime), 20, 8}} // the header may come before any decision
		for header := true; ; header = false {
			if len(list) > 0 || header && *out == "table" {
				if *out == "table" {
					printDecisions(shown.row, list, header)
					shown.flush()
				} else if err := out.print(cmd, list, nil); err != nil {
					return err
				}
			}
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(time.Second):
			}
			if list, err = f.next(cmd.Context()); err != nil {
				if cmd.Context().Err() != nil {
					return nil // interrupted
				}
				return err
			}
		}
	}
	return cmd
}

// decisionsOf are those of all replicas, in the order of time. Each replica keeps its own.
func decisionsOf(ctx context.Context, addresses []string, namespace, policy string, limit int) ([]decision.View, error) {
	list := []decision.View{}
	for _, address := range addresses {
		query := url.Values{"limit": {strconv.Itoa(limit)}, "namespace": {namespace}, "policy": {policy}}
		for {
			var page decision.Views
			if err := getJSON(ctx, address+"/decisions", query, &page); err != nil {
				return nil, err
			}
			list = append(list, page.Decisions...)
			if page.Continue == "" {
				break
			}
			query.Set("continue", page.Continue)
		}
	}
	sortByTime(list)
	return list, nil
}

func sortByTime(list []decision.View) {
	slices.SortStableFunc(list, func(a, b decision.View) int { return a.Time.Compare(b.Time) })
}

func printDecisions(row func(...any), list []decision.View, header bool) {
	if header {
		row("TIME", "POLICY", "PERIOD", "READY", "IN FLIGHT", "TARGET", "BOUND BY", "REASON")
	}
	for _, d := range list {
		row(d.Time.Local().Format(time.DateTime), d.Namespace+"/"+d.Policy, d.Period, d.Ready, d.InFlight, d.Target, d.Constraint, d.Reason)
	}
}

func placementsCommand() *cobra.Command {
	var reach reachFlags
	var namespace string
	var limit int
	cmd := &cobra.Command{
		Use:   "placements [POD]",
		Short: "Explain why pods are on their nodes",
		Long: `Lists the last pods that DrainPack placed, their relation to the node, and why the next best node lost. It forwards a port to the scheduler. The
scheduler's profile must set explainAddress, as the chart does.`,
		Example: `  ebbtide placements -n scan --limit 10
  ebbtide placements scans-7xk2p-9vq4c -n scan -o yaml`,
		Args: cobra.MaximumNArgs(1),
	}
	reach.add(cmd, schedulerComponent)
	out := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&namespace, "namespace", "n", "", "namespace of pods; default: all")
	flags.IntVar(&limit, "limit", 20, "number of pods")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		addresses, err := reach.reach(ctx, schedulerComponent)
		if err != nil {
			return err
		}
		query := url.Values{"limit": {strconv.Itoa(limit)}, "namespace": {namespace}}
		if len(args) > 0 {
			query.Set("pod", args[0])
		}
		list := []placement.Placement{}
		var missing error
		for _, address := range addresses { // only the leader places pods
			var found []placement.Placement
			switch err := getJSON(ctx, address+"/placements", query, &found); {
			case errors.Is(err, errNotFound):
				missing = err
			case err != nil:
				return err
			}
			list = append(list, found...)
		}
		if len(list) == 0 && missing != nil {
			return missing
		}
		slices.SortStableFunc(list, func(a, b placement.Placement) int { return cmp.Compare(a.Time.UnixNano(), b.Time.UnixNano()) })
		return out.print(cmd, list, func(t *table) {
			t.row("TIME", "POD", "NODE", "TIER", "FEASIBLE", "REASON")
			for _, p := range list {
				t.row(p.Time.Local().Format(time.DateTime), p.Namespace+"/"+p.Pod, p.Node, p.Tier, p.Feasible, p.Reason)
			}
		})
	}
	return cmd
}
