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
		Long: `Lists the last decisions of a running scaler, and with --watch prints new ones until it is interrupted. It makes a port-forward to every
replica of the scaler by itself, as each keeps the decisions that it was asked for.`,
		Example: `  ebbtide decisions scans -n scan
  ebbtide decisions --watch -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	reach.add(cmd, scalerComponent)
	out := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&namespace, "namespace", "n", "", "namespace of policies; default: all")
	flags.IntVar(&limit, "limit", 20, "how many of each policy")
	flags.BoolVarP(&watch, "watch", "w", false, "print new ones as they are taken")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 {
			return fmt.Errorf("--limit is %d, want at least 1", limit)
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		addresses, err := reach.reach(ctx, scalerComponent)
		if err != nil {
			return err
		}
		policy := ""
		if len(args) > 0 {
			policy = args[0]
		}
		var last time.Time
		for {
			list, err := decisionsAfter(ctx, addresses, namespace, policy, limit, last)
			if err != nil {
				return err
			}
			if len(list) == 0 && !watch && policy != "" {
				return fmt.Errorf("no decision of a policy %q: it does not exist, or KEDA has not asked for it yet", policy)
			}
			if len(list) > 0 || !watch {
				first := last.IsZero()
				if err := out.print(cmd, list, func(t *table) { printDecisions(t, list, first) }); err != nil {
					return err
				}
			}
			if !watch {
				return nil
			}
			if len(list) > 0 {
				last = list[len(list)-1].Time
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
	return cmd
}

// decisionsAfter are those of all replicas after an instant, in the order of time. Each replica keeps its own.
func decisionsAfter(ctx context.Context, addresses []string, namespace, policy string, limit int, after time.Time) ([]decision.View, error) {
	list := []decision.View{}
	for _, address := range addresses {
		query := url.Values{"limit": {strconv.Itoa(limit)}, "namespace": {namespace}, "policy": {policy}}
		for {
			var page decision.Views
			if err := getJSON(ctx, address+"/decisions", query, &page); err != nil {
				return nil, err
			}
			for _, d := range page.Decisions {
				if d.Time.After(after) {
					list = append(list, d)
				}
			}
			if page.Continue == "" {
				break
			}
			query.Set("continue", page.Continue)
		}
	}
	slices.SortStableFunc(list, func(a, b decision.View) int { return a.Time.Compare(b.Time) })
	return list, nil
}

func printDecisions(t *table, list []decision.View, header bool) {
	if header {
		t.row("TIME", "POLICY", "PERIOD", "READY", "IN FLIGHT", "TARGET", "BOUND BY", "REASON")
	}
	for _, d := range list {
		t.row(d.Time.Local().Format(time.DateTime), d.Namespace+"/"+d.Policy, d.Period, d.Ready, d.InFlight, d.Target, d.Constraint, d.Reason)
	}
}

func placementsCommand() *cobra.Command {
	var reach reachFlags
	var namespace string
	var limit int
	cmd := &cobra.Command{
		Use:   "placements [POD]",
		Short: "Say why the scheduler put pods where they are",
		Long: `Lists the last pods that DrainPack placed, what their nodes were to them, and why no other was chosen. It makes a port-forward to the
scheduler by itself; its profile must set explainAddress, as the one in manifests/scheduler does.`,
		Example: `  ebbtide placements -n scan --limit 10
  ebbtide placements scans-7xk2p-9vq4c -n scan -o yaml`,
		Args: cobra.MaximumNArgs(1),
	}
	reach.add(cmd, schedulerComponent)
	out := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&namespace, "namespace", "n", "", "namespace of pods; default: all")
	flags.IntVar(&limit, "limit", 20, "how many")
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
