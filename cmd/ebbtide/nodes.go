package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
)

func nodesCommand() *cobra.Command {
	var reach reachFlags
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "Say which nodes drain, and when nodes are expected to be empty",
		Long: `Lists the nodes that the scheduler knows: whether they drain, what runs there, and when the last of it is expected to end. It makes a port-forward
to the scheduler by itself; its profile must set explainAddress, as the one in manifests/scheduler does.`,
		Example: `  ebbtide nodes
  ebbtide nodes -o yaml`,
		Args: cobra.NoArgs,
	}
	reach.add(cmd, schedulerComponent)
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		addresses, err := reach.reach(ctx, schedulerComponent)
		if err != nil {
			return err
		}
		// All replicas know nodes, but workers speak to the leader only.
		byName := map[string]fleet.View{}
		for _, address := range addresses {
			var found []fleet.View
			if err := getJSON(ctx, address+"/nodes", nil, &found); err != nil {
				return err
			}
			for _, v := range found {
				if old, known := byName[v.Name]; !known || v.BusyWorkers+v.IdleWorkers > old.BusyWorkers+old.IdleWorkers {
					byName[v.Name] = v
				}
			}
		}
		list := make([]fleet.View, 0, len(byName))
		for _, v := range byName {
			list = append(list, v)
		}
		slices.SortFunc(list, func(a, b fleet.View) int { return strings.Compare(a.Name, b.Name) })
		return out.print(cmd, list, func(t *table) {
			t.row("NODE", "PODS", "BUSY", "IDLE", "STATE")
			for _, v := range list {
				t.row(v.Name, v.Pods, v.BusyWorkers, v.IdleWorkers, stateOfNode(v, time.Now()))
			}
		})
	}
	return cmd
}

// stateOfNode says in words what happens to a node.
func stateOfNode(v fleet.View, now time.Time) string {
	rest := ""
	switch {
	case v.Endless:
		rest = "a pod on it never ends"
	case v.Exit == nil:
		rest = "empty"
	default:
		left := max(0, v.Exit.Sub(now))
		if v.BusyWorkers > 0 && v.EmptiesIn != nil {
			left = time.Duration(*v.EmptiesIn * float64(time.Second))
		}
		rest = "works for about " + left.Round(time.Second).String()
	}
	switch {
	case v.Leaving:
		return "is being taken away, " + rest
	case v.Draining != nil:
		return fmt.Sprintf("drains since %s, %s", max(0, now.Sub(*v.Draining)).Round(time.Second), rest)
	default:
		return rest
	}
}
