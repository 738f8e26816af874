package dashboards

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// bound is how a constraint looks. Where replicas of the scaler differ for a moment, the last one here is shown.
var bound = []struct {
	constraint sizing.Constraint
	color      string
}{
	{sizing.Backlog, "green"}, {sizing.Drain, "semi-dark-green"}, {sizing.Floor, "blue"}, {sizing.Idle, "light-blue"},
	{sizing.Surplus, "super-light-blue"},
	{sizing.ScaleIn, "purple"}, {sizing.Cap, "orange"}, {sizing.Hold, "yellow"}, {sizing.Outage, "red"},
}

// constraintCode is a number for what binds the target of each policy, from 1 on in the order of bound.
func constraintCode(by, selector string) string {
	codes := make([]string, 0, len(bound))
	for i, b := range bound {
		codes = append(codes, fmt.Sprintf("ebbtide_target_constraint{%sconstraint=%q} * %d", selector, b.constraint, i+1))
	}
	return "max by (" + by + ") (" + strings.Join(codes, " or ") + ")"
}

// constraintWords name the codes.
func constraintWords() change {
	results := map[string]result{}
	for i, b := range bound {
		results[strconv.Itoa(i+1)] = result{string(b.constraint), b.color, i}
	}
	return words(results)
}

var yesNo = words(map[string]result{"0": {"no", "red", 0}, "1": {"yes", "green", 1}})

func decisions() *Dashboard {
	const ofNamespace = `{namespace="$namespace"}`
	period := "max by (period) (ebbtide_calendar_period" + ofPolicy + ")"
	d := newDashboard("decisions", "Decisions",
		"How many jobs should exist for a policy, why, and whether they exist. Start with the band of constraints.",
		policyVariables, arrange(
			stat("Bound by (now)", "Constraint of the newest target: the backlog, the calendar's floor, idle reserve or cap, or an outage.",
				latest("{{policy}}", constraintCode("policy", `namespace="$namespace", policy="$policy", `)), constraintWords(), background),
			stat("Target, peak", "Highest number of unfinished jobs, or pods, that should have existed in the time range.", over("max"),
				query("target", policyMax("ebbtide_target_replicas")), colored("target", "blue")),
			stat("Ready, peak", "Most messages that waited at once in the time range.", over("max"),
				query("ready", policyMax("ebbtide_backlog_ready_messages")), colored("ready", "orange")),
			stat("In flight, peak", "Most messages in progress at once in the time range.", over("max"),
				query("in flight", policyMax("ebbtide_backlog_in_flight_messages")), colored("in flight", "green")),
			stat("Period (now)", "Current period of the calendar.", latest("{{period}}", period), named("name")),
			stat("Next change", "When the calendar's limits change, and to which period.",
				latest("{{period}}", "max by (period) (ebbtide_calendar_next_change_timestamp_seconds"+ofPolicy+") * 1000"),
				unit("dateTimeFromNow"), named("value_and_name"), noValue("never")),

			// A timeline stands above the graph that it explains, as wide as the graph.
			timeline("What binds the target", "Constraint of each policy of the namespace. A long orange band means that the cap is too low for the load, "+
				"or a fault makes scans slow; yellow and red mean that the broker can't be read.", 12, 6,
				query("{{policy}}", constraintCode("policy", `namespace="$namespace", `)), constraintWords()),
			timeline("Periods", "Current period of the calendar, in the policy's time zone.", 12, 6,
				query("{{period}}", period), words(map[string]result{"1": {"in force", "blue", 0}})),

			graph("Target and workers", "Workers are the consumers of the queue, without jobs that still start. If there are fewer workers than the target for long, look at KEDA, "+
				"pending pods and nodes.", 12,
				query("target", policyMax("ebbtide_target_replicas")), query("workers", policyMax("ebbtide_backlog_consumers")),
				query("cap", policyMax("ebbtide_limit_max_replicas")), query("floor", policyMax("ebbtide_limit_min_replicas")),
				fromZero, unit("short"), underTimeline, colored("target", "blue", bare, bold), colored("workers", "green"),
				colored("cap", "red", dashed...), colored("floor", "purple", dashed...)),
			graph("Backlog", "Ready messages wait; messages in flight are in progress. If ready does not fall, workers are missing: compare with the target.", 12,
				query("ready", policyMax("ebbtide_backlog_ready_messages")),
				query("in flight", policyMax("ebbtide_backlog_in_flight_messages")),
				stacked, fromZero, unit("short"), underTimeline, colored("ready", "orange"), colored("in flight", "green")),
			graph("Age of the newest decision", "Time since the last poll of KEDA. It should vary between 0 and the polling interval.", 12,
				query("age", "time() - max(ebbtide_decision_timestamp_seconds"+ofPolicy+")"), fromZero, unit("s")),
			graph("KEDA: target and errors", "The value that KEDA received for each ScaledJob or ScaledObject of the "+
				"namespace, and its errors per minute. This requires KEDA's metrics.", 12,
				query("target of {{scaledObject}}",
					`max by (scaledObject) (keda_scaler_metrics_value{namespace="$namespace", metric=~".*ebbtide-target-replicas"})`),
				query("errors of {{scaledJob}}", perSecond("scaledJob", "keda_scaled_job_errors_total", ofNamespace)+" * 60"),
				fromZero, unit("short")),
			collapsed("What rarely changes: limits, health, latency",
				graph("Limits in force", "Cap, floor and idle reserve of the calendar.", 12,
					query("cap", policyMax("ebbtide_limit_max_replicas")), query("floor", policyMax("ebbtide_limit_min_replicas")),
					query("idle reserve", policyMax("ebbtide_limit_idle_replicas")),
					fromZero, unit("short"), underTimeline, colored("cap", "red", bare), colored("floor", "purple", bare), colored("idle reserve", "light-blue", bare)),
				timeline("Health", "Whether every replica of the scaler could read the backlog, and whether the newest version of the policy is valid. If not, the last "+
					"valid version is in force.", 12, 8,
					query("backlog read", "min(ebbtide_backlog_reachable"+ofPolicy+")"),
					query("policy valid", "min(ebbtide_policy_valid"+ofPolicy+")"), yesNo),

				graph("Decision latency", "Time from a call to its decision, including the broker's answer, for all policies. It should be far below "+
					"the scaler's --timeout of 5 s.", 12,
					percentiles("ebbtide_decision_duration_seconds", "", 50, 95, 99), fromZero, unit("s")),
				graph("Decisions", "Decisions per second, by policy. 0 means that KEDA does not poll.", 12,
					query("{{policy}}", perSecond("policy", "ebbtide_decisions_total", ofNamespace)), fromZero, unit("ops")),
			),
		))
	d.Annotations.List = append(d.Annotations.List, annotation{
		Name: "Period begins", Enable: true, Color: "purple", Source: prometheus, Step: "1m", TitleFormat: "{{period}}",
		Expr: inCluster(fmt.Sprintf("%s unless max by (period) (ebbtide_calendar_period%s offset 1m)", period, ofPolicy)),
	})
	return d
}
