package dashboards

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/ebbtide-dev/ebbtide/worker/summary"
)

const (
	// ofScaledJob selects what was scanned for the chosen ScaledJob. Both replicas of the scheduler see it: max, not sum.
	ofScaledJob = `{namespace="$namespace", scaledjob="$scaledjob"}`
	// within selects the bucket of waits within the objective. Prometheus 3 writes 60.0 for the bound 60.
	within = `{namespace="$namespace", scaledjob="$scaledjob", le=~"$objective([.]0)?"}`
	// idle is how many workers have no message.
	idle = `clamp_min(max(ebbtide_backlog_consumers` + ofPolicy + `) - max(ebbtide_backlog_in_flight_messages` + ofPolicy + `), 0)`
	// hoursInRange makes of a mean over the range what it comes to.
	hoursInRange = " * $__range_s / 3600"
)

// withinObjective is the share of messages that waited no longer than the objective.
func withinObjective(window string) string {
	return fmt.Sprintf("max(increase(ebbtide_scans_wait_seconds_bucket%s[%s])) / max(increase(ebbtide_scans_wait_seconds_count%s[%[2]s]))",
		within, window, ofScaledJob)
}

// byHourOfWeek is the mean of an expression without labels over the hours of the week, in the policy's time zone.
func byHourOfWeek(expr string) string {
	const local = "(time() + max(ebbtide_calendar_utc_offset_seconds" + ofPolicy + "))"
	// count_values makes labels of numbers; a day before, Monday is 0.
	hour := fmt.Sprintf(`label_replace(count_values("hour", hour(%s)), "hour", "0$1", "hour", "(.)")`, local)
	day := fmt.Sprintf(`count_values("day", day_of_week(%s - 86400))`, local)
	mean := fmt.Sprintf("avg_over_time((%s * on () group_left (day) %s * on () group_left () (%s))[$__range:$__interval])", hour, day, expr)
	return fmt.Sprintf(`label_join(%s, "slot", "", "hour", "day")`, mean)
}

// objectives are those that the histogram of waits has a bucket for.
func objectives() (all []string) {
	for _, bound := range summary.Bounds {
		all = append(all, strconv.FormatFloat(bound, 'g', -1, 64))
	}
	return all
}

func costAndService() *Dashboard {
	perMinute := func(by, metric string) string {
		return fmt.Sprintf("max by (%s) (rate(%s%s[$__rate_interval])) * 60", by, metric, ofScaledJob)
	}
	const perHour = "max(ebbtide_drainpack_allocatable_cpus) * $price"
	d := newDashboard("cost", "Cost and service",
		"How long messages wait compared with the objective, and the cost. Waits and run times come from the workers' termination messages.",
		slices.Concat(policyVariables, []Variable{
			values("scaledjob", "ScaledJob", `ebbtide_scans_pods_total{namespace="$namespace"}`),
			choice("objective", "Objective for waits, seconds", "60", objectives()...),
			text("price", "Price of a CPU-hour, with its memory", "0.04"),
		}),
		arrange(
			stat("In objective (range)", "Share of the messages in the time range that waited no longer than the objective for a worker.",
				latest("share", withinObjective("$__range")), unit("percentunit"), decimals(1), upTo(1), background,
				steps("text", at{0, "red"}, at{0.9, "orange"}, at{0.95, "green"}), noValue("no message ended")),
			stat("Wait p95 (range)", "95th percentile of the waits in the time range.",
				latest("p95", "histogram_quantile(0.95, max by (le) (increase(ebbtide_scans_wait_seconds_bucket"+ofScaledJob+"[$__range])))"),
				unit("s"), steps("blue")),
			stat("Messages (range)", "Messages scanned in the time range.",
				latest("messages", "sum(max by (outcome) (increase(ebbtide_scans_messages_total"+ofScaledJob+"[$__range])))"),
				unit("short"), decimals(0), steps("green")),
			stat("Node-hours (range)", "Node-hours of all nodes in the time range.",
				latest("node-hours", "max(increase(ebbtide_drainpack_node_seconds_total[$__range])) / 3600"),
				unit("suffix: h"), decimals(1), steps("blue")),
			stat("Idle hours (range)", "Hours that workers of the policy ran without a message in the time range: floor, idle reserve, and "+
				"jobs that found no message.",
				latest("idle", "avg_over_time(("+idle+")[$__range:1m])"+hoursInRange), unit("suffix: h"), decimals(1), steps("purple")),
			stat("Price (range)", "CPU-hours of all nodes in the time range, times the price of a CPU-hour.",
				latest("price", "avg_over_time(("+perHour+")[$__range:1m])"+hoursInRange), decimals(2), steps("orange")),

			graph("Waits", "Time from a message's timestamp to its first delivery, reported by workers when they end. The dashed line is the objective.", 12,
				percentiles("ebbtide_scans_wait_seconds", ofScaledJob, 50, 95, 99), query("objective", "vector($objective)"),
				fromZero, unit("s"), colored("p50", "green", bare), colored("p95", "orange", bare), colored("p99", "red", bare),
				colored("objective", "text", dashed...)),
			graph("Waits within the objective", "Share of the messages of the previous 30 minutes.", 12,
				query("share", withinObjective("30m")), fromZero, upTo(1), unit("percentunit"), colored("share", "green")),

			graph("Run times", "Run times of commands, successful or not.", 8,
				percentiles("ebbtide_scans_run_seconds", ofScaledJob, 50, 95), fromZero, unit("s"), colored("p50", "green", bare), colored("p95", "orange", bare)),
			graph("Messages", "Messages per minute, by outcome. Retried messages return to the queue.", 8,
				query("{{outcome}}", perMinute("outcome", "ebbtide_scans_messages_total")), stacked, fromZero, unit("short"),
				colored("succeeded", "green"), colored("retried", "yellow"), colored("dead-lettered", "red")),
			graph("Pods that ended", "Pods per minute. Idle pods found no message: if there are many, jobs are started twice, or the idle reserve is "+
				"not used. Silent pods wrote no summary (--summary-file).", 8,
				query("{{result}}", perMinute("result", "ebbtide_scans_pods_total")), stacked, fromZero, unit("short"),
				colored("worked", "green"), colored("idle", "purple"), colored("silent", "text"), colored("failed", "red")),

			graph("Workers and idle workers", "Workers of the policy. Idle workers are the price of short waits.", 12,
				query("workers", policyMax("ebbtide_backlog_consumers")), query("idle", idle), fromZero, unit("short"),
				colored("workers", "green"), colored("idle", "purple")),
			graph("Price per hour", "Price of all nodes, and of the lower bound for the same pods.", 12,
				query("price", perHour),
				query("lower bound", "("+perHour+") * max(rate(ebbtide_drainpack_lower_bound_node_seconds_total[$__rate_interval])) / "+
					"max(rate(ebbtide_drainpack_node_seconds_total[$__rate_interval]))"),
				fromZero, decimals(2), colored("price", "orange"), colored("lower bound", "green", dashed...)),

			week("Workers by hour of the week", "Mean pod-hours of the policy in each hour, in its time zone. "+
				"Select a time range of two weeks or more.", query("", byHourOfWeek(policyMax("ebbtide_backlog_consumers")))),
			week("Nodes by hour of the week", "Mean node-hours of all nodes in each hour, in the same time zone.",
				query("", byHourOfWeek(nodes))),
		))
	d.Time.From = "now-7d"
	return d
}
