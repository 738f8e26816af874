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
		if fleet.PodBuckets[i] == "1" {
			name = "1 pod"
		}
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
		"Whether pods run on few nodes, and whether the other nodes drain and are removed. All panels show all nodes and pods of the cluster.", nil, arrange(
			stat("Nodes, peak", "Most nodes at once in the time range.", over("max"), query("nodes", nodes), colored("nodes", "blue")),
			stat("Pods per node, mean", "Mean number of pods per node in the time range, without DaemonSets.", over("mean"),
				query("pods", `max(ebbtide_drainpack_pods{kind="keeping"}) / `+nodes), decimals(1), colored("pods", "green")),
			stat("CPU requested, mean", "Share of all nodes' CPU that pods requested, mean over the time range.", over("mean"),
				query("cpu", `max(ebbtide_drainpack_used_ratio{resource="cpu"})`), unit("percentunit"), decimals(0), colored("cpu", "purple")),
			stat("Over bound (range)", "Node-hours in the time range, divided by the fewest that any packing of the same pods needs on "+
				"nodes of the largest size. 1 is optimal; nodes of other sizes or for other purposes raise the ratio.",
				latest("ratio", overBound("$__range")), unit("suffix:×"), decimals(2), steps("green", at{1.5, "yellow"}, at{2.5, "orange"})),
			stat("Predictions (now)", "Correlation between expected and real run times of the last pods. Below 0.5, nodes are chosen mostly by age.",
				query("correlation", trusted), decimals(2), steps("text", at{-1, "orange"}, at{0.5, "green"}), noValue("no pod ended")),
			stat("Pending pods, peak", "Most pods that waited for a node at once in the time range, of all profiles.", over("max"),
				query("pending", "sum(scheduler_pending_pods)"), steps("green", at{1, "yellow"}, at{100, "orange"})),

			graph("Nodes by when they drain", "Nodes by the expected end of their last pod. Nodes should change from green to empty and be removed; "+
				"you pay for an empty band that stays.", 12,
				byState, stacked, fromZero, unit("short")),
			graph("Nodes by pods", "Nodes by the number of their pods. A good packing has full nodes and empty nodes, and few in between.", 12,
				byPods, stacked, fromZero, unit("short")),

			graph("Nodes and the lower bound", "Node-seconds per second. A better packing, or an autoscaler that removes empty nodes sooner, could save at most "+
				"the difference.", 12,
				query("nodes", "max(rate(ebbtide_drainpack_node_seconds_total[$__rate_interval]))"),
				query("lower bound", "max(rate(ebbtide_drainpack_lower_bound_node_seconds_total[$__rate_interval]))"),
				fromZero, unit("short"), colored("nodes", "blue"), colored("lower bound", "green", dashed...)),
			graph("Pods", "On nodes, and waiting for one.", 12,
				query("on nodes", `max(ebbtide_drainpack_pods{kind="keeping"})`),
				query("DaemonSets' and the like", `max(ebbtide_drainpack_pods{kind="following"})`), query("pending", "sum(scheduler_pending_pods)"),
				fromZero, unit("short"), colored("on nodes", "green"), colored("DaemonSets' and the like", "text"), colored("pending", "orange")),

			graph("Empty until removed", "How long removed nodes were empty before the autoscaler removed them.", 12,
				percentiles("ebbtide_drainpack_empty_seconds", "", 50, 95), fromZero, unit("s")),
			graph("Longest empty and leaving", "Longest time since the last pod of an empty node ended, and longest removal of a node with "+
				"pods. A line that keeps rising is a node that is not removed.", 12,
				query("empty", "max(ebbtide_drainpack_empty_longest_seconds)"), query("leaving", "max(ebbtide_drainpack_leaving_longest_seconds)"),
				fromZero, unit("s"), colored("empty", "red"), colored("leaving", "purple")),

			graph("Placements by tier", "Placed pods per minute, by the relation to their node: a node that outlasts the pod costs nothing "+
				"more, an empty or extended node lives longer because of it.", 12,
				query("{{tier}}", perSecond("tier", "ebbtide_drainpack_placements_total", "")+" * 60"), stacked, fromZero, unit("short"),
				colored("endless", "dark-blue"), colored("outlasts", "green"), colored("extended", "yellow"), colored("empty", "red"),
				colored("leaving", "purple"), colored("unknown", "text")),
			graph("Extension added", "How much longer nodes are expected to live because of a pod.", 12,
				query("mean", "sum(rate(ebbtide_drainpack_extension_seconds_sum[$__rate_interval])) / "+
					"sum(rate(ebbtide_drainpack_extension_seconds_count[$__rate_interval]))"),
				percentiles("ebbtide_drainpack_extension_seconds", "", 95), fromZero, unit("s")),

			collapsed("Draining, and details of the scheduler",
				graph("Drains", "Nodes that drain, and drains per hour that end with their node or before. None where draining is off.", 12,
					query("draining now", "max(ebbtide_draining_nodes)"),
					query("{{reason}}", perSecond("reason", "ebbtide_draining_ended_total", "")+" * 3600"), fromZero, unit("short"),
					colored("draining now", "blue"), colored("finished", "green"), colored("needs_room", "yellow"), colored("no_room", "orange"),
					colored("too_long", "red"), colored("not_ours", "text")),
				graph("Workers that give way", "Connected workers, and per minute: idle ones that were told to leave, and pods that got their room in time or not.", 12,
					query("connected", "max(ebbtide_draining_workers)"), query("for {{for}}", perSecond("for", "ebbtide_draining_workers_sent_away_total", "")+" * 60"),
					query("{{result}}", perSecond("result", "ebbtide_draining_promises_total", "")+" * 60"), fromZero, unit("short"),
					colored("connected", "blue"), colored("kept", "green"), colored("broken", "red")),
				graph("Run times over expectation", "Ratio of real to expected run time: at 2, a pod ran twice as long as expected.", 8,
					percentiles("ebbtide_drainpack_run_time_ratio", "", 10, 50, 90), fromZero, unit("suffix:×")),
				graph("Scheduling attempts by offer", "Attempts per minute. Candidates of the index are fast (offered); other pods evaluate all nodes. Many "+
					"refused attempts mean that another plugin refuses the offered nodes.", 8,
					query("{{result}}", perSecond("result", "ebbtide_drainpack_candidates_total", "")+" * 60"), stacked, fromZero, unit("short"),
					colored("offered", "green"), colored("none", "yellow"), colored("complex", "blue"), colored("refused", "red")),
				graph("Time to place a pod", "Time from the first attempt to the binding, including waits for new nodes.", 8,
					percentiles("scheduler_pod_scheduling_sli_duration_seconds", "", 50, 99), fromZero, unit("s")),
			),
		))
}
