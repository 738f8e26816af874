package dashboards

import (
	"fmt"
)

// trouble ranks policies: what comes first needs somebody to look at it.
const trouble = `max by (namespace, policy) (` +
	`(1 - ebbtide_policy_valid) * 4 or ebbtide_target_constraint{constraint="outage"} * 3` +
	` or ebbtide_target_constraint{constraint="cap"} * 2 or ebbtide_target_constraint{constraint="hold"})`

var troubleWords = words(map[string]result{
	"0": {"none", "green", 0}, "1": {"backlog is held", "yellow", 1}, "2": {"at its cap", "orange", 2}, "3": {"outage", "red", 3},
	"4": {"not valid", "red", 4},
})

// everyPolicy is the page to start with: every policy, the worst first.
func everyPolicy() *Dashboard {
	byPolicy := func(metric string) string { return "max by (namespace, policy) (" + metric + ")" }
	age := "time() - " + byPolicy("ebbtide_decision_timestamp_seconds")
	return newDashboard("fleet", "Fleet",
		"All policies, the worst first, and firing alerts. Click a policy to open its decisions.",
		nil, arrange(
			table("Firing alerts", "Ebbtide's firing alerts. This Prometheus must evaluate their rules.", 4, noValue("no alert fires"),
				column("", `max by (alertname, severity, namespace, policy, scaledjob) (ALERTS{alertname=~"Ebbtide.*", alertstate="firing"})`),
				columns("alertname", "severity", "namespace", "policy", "scaledjob")),

			stat("Policies (now)", "Number of policies.", latest("", "count("+byPolicy("ebbtide_policy_valid")+")"), noValue("none")),
			stat("In trouble (now)", "Policies that are not valid, can't read their backlog, or are at their cap.",
				latest("", "sum("+trouble+" >= bool 2)"), noValue("none"), steps("green", at{1, "orange"})),
			stat("Waiting (now)", "Messages that wait, of all policies.",
				latest("", "sum("+byPolicy("ebbtide_backlog_ready_messages")+")"), unit("short"), noValue("unknown")),
			stat("Target (now)", "Number of unfinished jobs, or pods, that should exist for all policies.",
				latest("", "sum("+byPolicy("ebbtide_target_replicas")+")"), unit("short"), noValue("unknown")),
			stat("Workers (now)", "Consumers of all backlogs whose consumers can be counted.",
				latest("", "sum("+byPolicy("ebbtide_backlog_consumers")+")"), unit("short"), noValue("unknown")),
			stat("Oldest decision", "Longest time since the last decision of a policy.",
				latest("", "max("+age+")"), unit("s"), decimals(0), noValue("no decision yet"), steps("green", at{900, "orange"})),

			table("Policies, the worst first", "The list is sorted by trouble. If the age of the newest decision is above 15 minutes, KEDA does not "+
				"poll the policy.", 12, noValue("-"),
				column("Trouble", trouble), column("Constraint", constraintCode("namespace, policy", "")),
				column("Waiting", byPolicy("ebbtide_backlog_ready_messages")), column("Target", byPolicy("ebbtide_target_replicas")),
				column("Workers", byPolicy("ebbtide_backlog_consumers")), column("Age of decision", age),
				columns("namespace", "policy"), worstFirst("Trouble"),
				of("Trouble", troubleWords), of("Constraint", constraintWords()), of("Age of decision", unit("s"), decimals(0)),
				linked("policy", "/d/ebbtide-decisions?var-cluster=$cluster&var-namespace=${__data.fields.namespace}&var-policy=${__data.fields.policy}&${__url_time_range}")),
		))
}

// table shows the newest values: a row for each set of labels, a column for each label and query.
func table(title, description string, rows int, changes ...change) *Panel {
	p := newPanel("table", title, description, 24, rows,
		&tableField{Align: "auto", CellOptions: cellOptions{Type: "auto"}, MinWidth: 80},
		&tableOptions{ShowHeader: true, CellHeight: "sm"}, changes)
	for i := range p.Targets {
		p.Targets[i].Range, p.Targets[i].Instant, p.Targets[i].Format = false, true, "table"
	}
	return p
}

// column adds a query whose value is a column with a name; without one the value is not shown.
func column(name, expr string) change { return query(name, expr) }

// columns names the labels that are shown first, in this order, and gives queries' values their names.
func columns(labels ...string) change {
	return func(p *Panel) {
		order, names, hidden := map[string]int{}, map[string]string{}, map[string]bool{"Time": true}
		for i, label := range labels {
			order[label] = i
		}
		for i, target := range p.Targets {
			field := "Value"
			if len(p.Targets) > 1 {
				field = fmt.Sprintf("Value #%s", target.RefID)
			}
			order[field] = len(labels) + i
			if names[field] = target.Legend; target.Legend == "" {
				hidden[field] = true
			}
		}
		p.Transformations = []transformation{
			{"merge", map[string]any{}},
			{"organize", map[string]any{"indexByName": order, "renameByName": names, "excludeByName": hidden}},
		}
	}
}

// worstFirst sorts the rows, the highest value of a column first.
func worstFirst(name string) change {
	return func(p *Panel) {
		p.Transformations = append(p.Transformations,
			transformation{"sortBy", map[string]any{"sort": []map[string]any{{"field": name, "desc": true}}}})
	}
}

// of makes a column differ from the others.
func of(name string, changes ...change) change {
	return func(p *Panel) {
		var one Panel
		for _, change := range changes {
			change(&one)
		}
		defaults, o := one.FieldConfig.Defaults, override{matcher{"byName", name}, nil}
		if defaults.Mappings != nil {
			o.Properties = append(o.Properties, property{"mappings", defaults.Mappings},
				property{"custom.cellOptions", cellOptions{Type: "color-background", Mode: "basic"}})
		}
		if defaults.Unit != "" {
			o.Properties = append(o.Properties, property{"unit", defaults.Unit})
		}
		if defaults.Decimals != nil {
			o.Properties = append(o.Properties, property{"decimals", *defaults.Decimals})
		}
		p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, o)
	}
}

// linked makes the values of a column links.
func linked(name, url string) change {
	return func(p *Panel) {
		p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, override{matcher{"byName", name}, []property{
			{"links", []map[string]any{{"title": "Decisions of ${__value.text}", "url": url, "targetBlank": false}}},
		}})
	}
}
