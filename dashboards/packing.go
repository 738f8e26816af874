package dashboards

import (
	"fmt"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
)

// nodes is the number of nodes. Both replicas of the scheduler count them.
const nodes = "max(sum by (instance) (ebbtide_drainpack_nodes))"

// nodeStates are the states of nodes from the bottom up, and how they look.
var nodeStates = []struct {
	state       fleet.State
	name, color string
}{
	{fleet.Endless, "never", "dark-blue"}, {fleet.DrainsLater, "later", "blue"}, {fleet.Drains1h, "within 1 h", "dark-green"},
	{fleet.Drains15m, "within 15 m", "semi-dark-green"}, {fleet.Drains5m, "within 5 m", "green"}, {fleet.Drains1m, "within 1 m", "light-green"},
	{fleet.Empty, "empty", "red"}, {fleet.Leaving, "leaving", "purple"},
}

// podColors are those of fleet.PodBuckets.
var podColors = [len(fleet.PodBuckets)]string{"red", "orange", "yellow", "light-green", "green", "semi-dark-green", "dark-green"}

// byState draws the nodes of each state.
func byState(p *Panel) {
	for _, s := range nodeStates {
		query(s.name, fmt.Sprintf("max(ebbtide_drainpack_nodes{state=%q})", s.state))(p)
		colored(s.name, s.color)(p)
	}
}

// byPods draws the nodes with each number of pods, the fullest at the bottom.
func byPods(p *Panel) {
	for i := len(fleet.PodBuckets) - 1; i >= 0; i-- {
		name := fleet.PodBuckets[i] + " pods"
		query(name, fmt.Sprintf("max(ebbtide_drainpack_nodes_by_pods{pods=%q})", fleet.PodBuckets[i]))(p)
		colored(name, podColors[i])(p)
	}
}

// overBound is how many times the fewest possible node-seconds were spent over a time.
func overBound(window string) string {
	return fmt.Sprintf("max(increase(ebbtide_drainpack_node_seconds_total[%[1]s])) / "+
		"max(increase(ebbtide_drainpack_lower_bound_node_seconds_total[%[1]s]))", window)
}

func packing() *Dashboard {
	const trusted = "max(ebbtide_drainpack_run_time_correlation)"
	return newDashboard("packing", "Packing",
		"Whether pods sit on few nodes, and whether the other nodes drain and go. Of all nodes and pods of the cluster.", nil, arrange(
			stat("Nodes", "Nodes that there are, of every kind.", query("nodes", nodes), colored("nodes", "blue")),
			stat("Pods on a node", "In the mean, without DaemonSets'.",
				query("pods", `max(ebbtide_drainpack_pods{kind="keeping"}) / `+nodes), decimals(1), colored("pods", "green")),
			stat("CPU requested", "Share of all nodes' CPU that pods request.",
				query("cpu", `max(ebbtide_drainpack_used_ratio{resource="cpu"})`), unit("percentunit"), decimals(0), colored("cpu", "purple")),
			stat("Over least possible", "Over the range: node-hours that were spent, divided by those that any packing of "+
				"the same pods needs on nodes of the largest size. 1 can't be beaten, and nodes of other sizes or for other purposes raise it.",
				latest("ratio", overBound("$__range")), unit("suffix:×"), decimals(2), steps("green", at{1.5, "yellow"}, at{2.5, "orange"})),
			stat("Predictions", "Correlation between expected and real run times of the last pods: below 0.5 nodes are taken mostly by their age.",
				query("correlation", trusted), decimals(2), steps("text", at{-1, "orange"}, at{0.5, "green"}), noValue("no pod ended")),
			stat("Pending pods", "Pods that wait for a node, of all profiles.",
				query("pending", "sum(scheduler_pending_pods)"), steps("green", at{1, "yellow"}, at{100, "orange"})),

			graph("Nodes by when they drain", "By when the last of their pods is expected to end. Nodes should pass from green to empty "+
				"and be gone; an empty band that stays is money lost.", 12,
				byState, stacked, fromZero, unit("short")),
			graph("Nodes by pods", "By the number of pods that keep them. A good packing has full nodes and empty ones, and few between.", 12,
				byPods, stacked, fromZero, unit("short")),

			graph("Nodes and the fewest possible", "Node-seconds per second. The distance is what a better packing, or an autoscaler that removes "+
				"empty nodes sooner, could save.", 12,
				query("nodes", "max(rate(ebbtide_drainpack_node_seconds_total[$__rate_interval]))"),
				query("fewest possible", "max(rate(ebbtide_drainpack_lower_bound_node_seconds_total[$__rate_interval]))"),
				fromZero, unit("short"), colored("nodes", "blue"), colored("fewest possible", "green", dashed...)),
			graph("Pods", "On nodes, and waiting for one.", 12,
				query("on nodes", `max(ebbtide_drainpack_pods{kind="keeping"})`),
				query("DaemonSets' and the like", `max(ebbtide_drainpack_pods{kind="following"})`), query("pending", "sum(scheduler_pending_pods)"),
				fromZero, unit("short"), colored("on nodes", "green"), colored("DaemonSets' and the like", "text"), colored("pending", "orange")),

			graph("Empty until removed", "How long nodes stood empty before the autoscaler removed them, of those that went.", 12,
				percentiles("ebbtide_drainpack_empty_seconds", "", 50, 95), fromZero, unit("s")),
			graph("Waits longest to go", "The node that has been empty for longest since its last pod ended, and the one that is being "+
				"taken away for longest with pods still on it. What rises without end does not drain.", 12,
				query("empty", "max(ebbtide_drainpack_empty_longest_seconds)"), query("leaving", "max(ebbtide_drainpack_leaving_longest_seconds)"),
				fromZero, unit("s"), colored("empty", "red"), colored("leaving", "purple")),

			graph("Placements by tier", "Pods put on nodes per minute, by what the node was to them: one that outlasts them costs nothing "+
				"more, an empty or extended one lives longer for them.", 12,
				query("{{tier}}", perSecond("tier", "ebbtide_drainpack_placements_total", "")+" * 60"), stacked, fromZero, unit("short"),
				colored("endless", "dark-blue"), colored("outlasts", "green"), colored("extended", "yellow"), colored("empty", "red"),
				colored("leaving", "purple"), colored("unknown", "text")),
			graph("Extension added", "How much longer nodes are expected to live for a pod that was put there.", 12,
				query("mean", "sum(rate(ebbtide_drainpack_extension_seconds_sum[$__rate_interval])) / "+
					"sum(rate(ebbtide_drainpack_extension_seconds_count[$__rate_interval]))"),
				percentiles("ebbtide_drainpack_extension_seconds", "", 95), fromZero, unit("s")),

			graph("Run times over what was expected", "1 is a right expectation; 2, a pod that ran twice as long.", 8,
				percentiles("ebbtide_drainpack_run_time_ratio", "", 10, 50, 90), fromZero, unit("suffix:×")),
			graph("Scheduling attempts by offer", "Per minute. Candidates of the index are quick (offered); other pods look at all nodes: many "+
				"refused ones mean that another plugin refuses what this one offers.", 8,
				query("{{result}}", perSecond("result", "ebbtide_drainpack_candidates_total", "")+" * 60"), stacked, fromZero, unit("short"),
				colored("offered", "green"), colored("none", "yellow"), colored("complex", "blue"), colored("refused", "red")),
			graph("Time to place a pod", "From its first attempt to its node, waits for new nodes included.", 8,
				percentiles("scheduler_pod_scheduling_sli_duration_seconds", "", 50, 99), fromZero, unit("s")),
		))
}
