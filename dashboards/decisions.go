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
		"How many jobs there should be for a policy, why, and whether they are there. Start with the band of what binds the target.",
		policyVariables, arrange(
			stat("Bound by", "What decided the newest target: the backlog, the calendar's floor, idle reserve or cap, or an outage.",
				latest("{{policy}}", constraintCode("policy", `namespace="$namespace", policy="$policy", `)), constraintWords(), background),
			stat("Target", "Unfinished jobs, or pods, that should exist.",
				query("target", policyMax("ebbtide_target_replicas")), colored("target", "blue")),
			stat("Ready", "Messages that wait to be delivered.",
				query("ready", policyMax("ebbtide_backlog_ready_messages")), colored("ready", "orange")),
			stat("In flight", "Messages that are being worked on.",
				query("in flight", policyMax("ebbtide_backlog_in_flight_messages")), colored("in flight", "green")),
			stat("Period", "Period of the calendar in force.", latest("{{period}}", period), named("name")),
			stat("Next change", "When the calendar's limits change next, and to which period.",
				latest("{{period}}", "max by (period) (ebbtide_calendar_next_change_timestamp_seconds"+ofPolicy+") * 1000"),
				unit("dateTimeFromNow"), named("value_and_name"), noValue("never")),

			timeline("What binds the target", "Of each policy of the namespace. A long orange band means that the cap is too low for the load, "+
				"or a fault makes scans slow; yellow and red mean that the broker can't be read.", 24, 6,
				query("{{policy}}", constraintCode("policy", `namespace="$namespace", `)), constraintWords()),

			graph("Backlog", "Messages by what they wait for. What is ready and does not fall has no worker: compare the target.", 12,
				query("ready", policyMax("ebbtide_backlog_ready_messages")),
				query("in flight", policyMax("ebbtide_backlog_in_flight_messages")),
				stacked, fromZero, unit("short"), colored("ready", "orange"), colored("in flight", "green")),
			graph("Target and what is there", "Workers are the consumers that the broker sees: jobs that still start are not among them. "+
				"Workers that stay below the target do not start: look at KEDA, at pending pods and at nodes.", 12,
				query("target", policyMax("ebbtide_target_replicas")), query("workers", policyMax("ebbtide_backlog_consumers")),
				query("cap", policyMax("ebbtide_limit_max_replicas")), query("floor", policyMax("ebbtide_limit_min_replicas")),
				fromZero, unit("short"), colored("target", "blue", bare, bold), colored("workers", "green"),
				colored("cap", "red", dashed...), colored("floor", "purple", dashed...)),

			timeline("Periods", "The calendar's period in force, in the policy's time zone.", 12, 8,
				query("{{period}}", period), words(map[string]result{"1": {"in force", "blue", 0}})),
			graph("Limits in force", "What the calendar allows and asks for.", 12,
				query("cap", policyMax("ebbtide_limit_max_replicas")), query("floor", policyMax("ebbtide_limit_min_replicas")),
				query("idle reserve", policyMax("ebbtide_limit_idle_replicas")),
				fromZero, unit("short"), colored("cap", "red", bare), colored("floor", "purple", bare), colored("idle reserve", "light-blue", bare)),

			timeline("Health", "Whether every replica of the scaler that read the backlog last could, and whether the newest version of the policy "+
				"is in force; if it is not, the last good one is.", 12, 6,
				query("backlog read", "min(ebbtide_backlog_reachable"+ofPolicy+")"),
				query("policy valid", "min(ebbtide_policy_valid"+ofPolicy+")"), yesNo),
			graph("Age of the newest decision", "Time since KEDA asked last. It should saw between nothing and the polling interval.", 12, height(6),
				query("age", "time() - max(ebbtide_decision_timestamp_seconds"+ofPolicy+")"), fromZero, unit("s")),

			graph("Decision latency", "From a question to its decision, the broker's answer included, of all policies. It should be far below "+
				"the scaler's --timeout of 5 s.", 8,
				percentiles("ebbtide_decision_duration_seconds", "", 50, 95, 99), fromZero, unit("s")),
			graph("Decisions", "Taken per second, by policy. None means that KEDA does not ask.", 8,
				query("{{policy}}", perSecond("policy", "ebbtide_decisions_total", ofNamespace)), fromZero, unit("ops")),
			graph("KEDA: target and errors", "What KEDA made of the answers: the value that it got for each ScaledJob or ScaledObject of the "+
				"namespace, and its errors per minute. It needs KEDA's own metrics.", 8,
				query("target of {{scaledObject}}",
					`max by (scaledObject) (keda_scaler_metrics_value{namespace="$namespace", metric=~".*ebbtide-target-replicas"})`),
				query("errors of {{scaledJob}}", perSecond("scaledJob", "keda_scaled_job_errors_total", ofNamespace)+" * 60"),
				fromZero, unit("short")),
		))
	d.Annotations.List = append(d.Annotations.List, annotation{
		Name: "Period begins", Enable: true, Color: "purple", Source: prometheus, Step: "1m", TitleFormat: "{{period}}",
		Expr: inCluster(fmt.Sprintf("%s unless max by (period) (ebbtide_calendar_period%s offset 1m)", period, ofPolicy)),
	})
	return d
}
