// Package dashboards is what Grafana shows of Ebbtide. Dashboards are made of a small model of Grafana's JSON, so that what many panels
// share is written once; the JSON is generated into charts/ebbtide/files/dashboards and committed. Their queries know no job or instance
// names: series are told apart by namespace, policy and ScaledJob, however Prometheus finds its targets.
package dashboards

import (
	"fmt"
	"regexp"
	"strings"
)

//go:generate go run ./generate

// All dashboards, by the names of their files.
func All() map[string]*Dashboard {
	return map[string]*Dashboard{"fleet": everyPolicy(), "decisions": decisions(), "packing": packing(), "cost-and-service": costAndService()}
}

// dataSource is the variable that chooses a Prometheus.
var dataSource = Variable{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus"}

// cluster is the variable that chooses one of several clusters with one Prometheus, by the external label that they usually have.
var cluster = Variable{
	Name: "cluster", Label: "Cluster", Type: "query", Query: "label_values(ebbtide_policy_valid, cluster)", Source: &prometheus, Refresh: 2, Sort: 1,
	IncludeAll: true, AllValue: ".*", Current: &option{"All", "$__all", true},
}

// metricName finds metrics in an expression, with the brace after them.
var metricName = regexp.MustCompile(`\b((?:ebbtide|keda|scheduler|leader_election)_\w+|ALERTS)\b(\{)?`)

// inCluster has every metric of an expression selected by the variable cluster.
func inCluster(expr string) string {
	return metricName.ReplaceAllStringFunc(expr, func(found string) string {
		if name, open := strings.CutSuffix(found, "{"); open {
			return name + `{cluster=~"$cluster", `
		}
		return found + `{cluster=~"$cluster"}`
	})
}

func newDashboard(uid, title, description string, variables []Variable, panels []*Panel) *Dashboard {
	for p := range each(panels) {
		for i := range p.Targets {
			p.Targets[i].Expr = inCluster(p.Targets[i].Expr)
		}
	}
	of := []Variable{dataSource, cluster}
	for _, v := range variables {
		if v.Type == "query" {
			v.Query = inCluster(v.Query)
		}
		of = append(of, v)
	}
	return &Dashboard{
		UID: "ebbtide-" + uid, Title: "Ebbtide / " + title, Description: description, Tags: []string{"ebbtide"},
		SchemaVersion: 41, Editable: true,
		GraphTooltip: 1, Refresh: "30s", Time: timeRange{"now-6h", "now"}, Timezone: "browser",
		Templating:  list[Variable]{of},
		Annotations: list[annotation]{[]annotation{}},
		Links: []link{{
			Type: "dashboards", Title: "Ebbtide", Tags: []string{"ebbtide"}, KeepTime: true, IncludeVars: true, Icon: "external link",
		}},
		Panels: panels,
	}
}

// values is a variable with the values of a label.
func values(name, label, series string) Variable {
	return Variable{
		Name: name, Label: label, Type: "query", Query: fmt.Sprintf("label_values(%s, %s)", series, name), Source: &prometheus,
		Refresh: 2, Sort: 1,
	}
}

// choice is a variable with fixed values, of which one is chosen at first.
func choice(name, label, chosen string, all ...string) Variable {
	v := Variable{Name: name, Label: label, Type: "custom", Query: strings.Join(all, ","), Current: &option{chosen, chosen, true}}
	for _, value := range all {
		v.Options = append(v.Options, option{value, value, value == chosen})
	}
	return v
}

// text is a variable that is typed in.
func text(name, label, value string) Variable {
	o := option{value, value, true}
	return Variable{Name: name, Label: label, Type: "textbox", Query: value, Current: &o, Options: []option{o}}
}

// ofPolicy selects the series of the chosen policy. Each replica of the scaler shows the decision that it took last itself: the highest
// value is shown of all.
const ofPolicy = `{namespace="$namespace", policy="$policy"}`

func policyMax(metric string) string { return "max(" + metric + ofPolicy + ")" }

// policyVariables choose a policy.
var policyVariables = []Variable{
	values("namespace", "Namespace", "ebbtide_policy_valid"), values("policy", "Policy", `ebbtide_policy_valid{namespace="$namespace"}`),
}

// percentiles of a histogram's observations, each a series.
func percentiles(metric, selector string, percent ...int) change {
	return func(p *Panel) {
		for _, q := range percent {
			query(fmt.Sprintf("p%d", q), fmt.Sprintf("histogram_quantile(%g, sum by (le) (rate(%s_bucket%s[$__rate_interval])))",
				float64(q)/100, metric, selector))(p)
		}
	}
}

// perSecond is a counter's rate, added up.
func perSecond(by, metric, selector string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s%s[$__rate_interval]))", by, metric, selector)
}
