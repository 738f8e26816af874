package dashboards

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// example are values of all variables.
var example = map[string]string{
	"__rate_interval": "1m", "__range": "6h", "__range_s": "21600", "__interval": "1m",
	"namespace": "scan", "policy": "scans", "scaledjob": "scans", "objective": "60", "price": "0.04", "cluster": ".*",
}

// metric is what the reference says of one.
type metric struct {
	kind   string
	labels []string
}

// foreign are the metrics of others that we use, and whose they are.
var foreign = map[string]metric{
	// KEDA's operator.
	"keda_scaler_metrics_value":    {"gauge", []string{"namespace", "metric", "scaledObject", "scaler", "triggerIndex", "type"}},
	"keda_scaled_job_errors_total": {"counter", []string{"namespace", "scaledJob"}},
	// kube-scheduler, of which ours is one.
	"scheduler_pending_pods":                        {"gauge", []string{"queue"}},
	"scheduler_pod_scheduling_sli_duration_seconds": {"histogram", []string{"attempts"}},
	"leader_election_master_status":                 {"gauge", []string{"name"}},
	"ALERTS":                                        {"gauge", []string{"alertname", "alertstate", "severity", "namespace", "policy", "scaledjob"}}, // of Prometheus itself
}

// known metrics, from the tables of the reference: tests of the scaler and of the scheduler keep them to what is registered.
func known(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile("../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := map[string]metric{}
	for name, m := range foreign {
		metrics[name] = m
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(ebbtide_\\w+)` \\| (\\w+) \\| (.*?) \\|").FindAllStringSubmatch(string(text), -1) {
		m := metric{row[2], regexp.MustCompile(`\w+`).FindAllString(row[3], -1)}
		metrics[row[1]] = m
	}
	if len(metrics) < 40 {
		t.Fatalf("only %d metrics are in the reference", len(metrics))
	}
	for name, m := range metrics {
		if m.kind == "histogram" {
			for suffix, more := range map[string][]string{"_bucket": {"le"}, "_sum": nil, "_count": nil} {
				metrics[name+suffix] = metric{"counter", append(more, m.labels...)}
			}
			delete(metrics, name)
		}
	}
	return metrics
}

// checkExpr says what is wrong with an expression: it does not parse, names a metric or a label that nobody exports, takes the rate of
// what is no counter, or shows a counter as it is. It returns the labels that the series may have.
func checkExpr(expr string, metrics map[string]metric) (has []string, err error) {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return nil, err
	}
	has = []string{"instance", "hour", "day", "slot"} // the target's, and those that count_values and label_join make
	var wrong error
	parser.Inspect(parsed, func(node parser.Node, path []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		m, ok := metrics[selector.Name]
		if !ok {
			wrong = fmt.Errorf("no metric %q", selector.Name)
			return nil
		}
		has = append(has, m.labels...)
		for _, matcher := range selector.LabelMatchers {
			if matcher.Name != model.MetricNameLabel && matcher.Name != "cluster" && !slices.Contains(m.labels, matcher.Name) {
				wrong = fmt.Errorf("%s has no label %q", selector.Name, matcher.Name)
			}
		}
		rated, absent := false, false
		for _, above := range path {
			if call, ok := above.(*parser.Call); ok {
				rated = rated || slices.Contains([]string{"rate", "increase", "changes"}, call.Func.Name)
				absent = absent || call.Func.Name == "absent"
			}
		}
		if rated != (m.kind == "counter") && !absent {
			wrong = fmt.Errorf("%s is a %s, and is it rated: %v", selector.Name, m.kind, rated)
		}
		return nil
	})
	if wrong != nil {
		return nil, wrong
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		var names []string
		switch n := node.(type) {
		case *parser.AggregateExpr:
			names = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				names = append(slices.Clone(n.VectorMatching.MatchingLabels), n.VectorMatching.Include...)
			}
		}
		for _, name := range names {
			if !slices.Contains(has, name) {
				wrong = fmt.Errorf("nothing in it has the label %q", name)
			}
		}
		return nil
	})
	return has, wrong
}

func TestQueries(t *testing.T) {
	metrics, variable := known(t), regexp.MustCompile(`\$\{?\w+`)
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	for name, d := range All() {
		for _, q := range d.Queries(example) {
			has, err := checkExpr(q.Expr, metrics)
			if err != nil {
				t.Errorf("%s, %s: %v\n%s", name, q.Panel, err, q.Expr)
			}
			for _, label := range legend.FindAllStringSubmatch(q.Legend, -1) {
				if !slices.Contains(has, label[1]) {
					t.Errorf("%s, %s: the legend names %q, which no series has: %s", name, q.Panel, label[1], q.Expr)
				}
			}
			// "0$1" is label_replace's.
			if left := variable.FindString(strings.ReplaceAll(q.Expr, `"0$1"`, "")); left != "" {
				t.Errorf("%s, %s: %s is no variable of the dashboard", name, q.Panel, left)
			}
		}
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			arguments := strings.TrimSuffix(strings.TrimPrefix(v.Query, "label_values("), ")")
			i := strings.LastIndex(arguments, ", ")
			has, err := checkExpr(Replacer(example).Replace(arguments[:i]), map[string]metric{
				"ebbtide_policy_valid":     {"gauge", append(metrics["ebbtide_policy_valid"].labels, "cluster")},
				"ebbtide_scans_pods_total": {"gauge", metrics["ebbtide_scans_pods_total"].labels}, // its values do not matter
			})
			if err != nil || !slices.Contains(has, arguments[i+2:]) {
				t.Errorf("%s, variable %s: %s: %v", name, v.Name, v.Query, err)
			}
		}
	}
}

// Every metric of every dashboard is selected by the cluster.
func TestInCluster(t *testing.T) {
	for expr, want := range map[string]string{
		`max(ebbtide_policy_valid)`: `max(ebbtide_policy_valid{cluster=~"$cluster"})`,
		`sum by (namespace) (rate(ebbtide_decisions_total{namespace="$namespace"}[5m])) / 2`: `sum by (namespace) (rate(ebbtide_decisions_total{cluster=~"$cluster", namespace="$namespace"}[5m])) / 2`,
		`keda_scaled_job_errors_total`: `keda_scaled_job_errors_total{cluster=~"$cluster"}`,
	} {
		if got := inCluster(expr); got != want {
			t.Errorf("%s: %s, want %s", expr, got, want)
		}
	}
	for name, d := range All() {
		for _, q := range d.Queries(example) {
			parsed, err := parser.NewParser(parser.Options{}).ParseExpr(q.Expr)
			if err != nil {
				t.Fatal(err)
			}
			parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
				if selector, ok := node.(*parser.VectorSelector); ok && !strings.Contains(selector.String(), "cluster=~") {
					t.Errorf("%s, %s: %s of every cluster", name, q.Panel, selector)
				}
				return nil
			})
		}
	}
}

// The check finds what it is for.
func TestCheckExpr(t *testing.T) {
	metrics := known(t)
	for expr, want := range map[string]string{
		"sum(": "parse error", "ebbtide_nothing": `no metric "ebbtide_nothing"`, "rate(ebbtide_target_replicas[1m])": "is a gauge",
		"ebbtide_decisions_total": "is a counter", `ebbtide_target_replicas{job="x"}`: `no label "job"`,
		"sum by (node) (ebbtide_target_replicas)": `the label "node"`, "ebbtide_decision_duration_seconds": "no metric",
		"max by (policy) (ebbtide_target_replicas)": "",
	} {
		if _, err := checkExpr(expr, metrics); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", expr, err, want)
		}
	}
}

// Every panel says what it shows, has its place, and a unit where it has an axis; every constraint has a color.
func TestPanels(t *testing.T) {
	for name, d := range All() {
		taken := map[[2]int]string{}
		ids := map[int]bool{}
		for _, p := range d.Panels {
			if p.Type == rowType {
				if p.Title == "" || len(p.Panels) == 0 || ids[p.ID] || p.Panels[0].GridPos.Y != p.GridPos.Y+1 {
					t.Errorf("%s, row %d %q: no title, no panels, the number of another, or its panels are not below it", name, p.ID, p.Title)
				}
				ids[p.ID] = true
			}
		}
		for p := range each(d.Panels) {
			if p.Title == "" || !strings.HasSuffix(p.Description, ".") || len(p.Targets) == 0 || ids[p.ID] {
				t.Errorf("%s, panel %d %q: no title, no sentence that describes it, no query, or the number of another", name, p.ID, p.Title)
			}
			ids[p.ID] = true
			if p.Type == "timeseries" && p.FieldConfig.Defaults.Unit == "" && p.FieldConfig.Defaults.Decimals == nil {
				t.Errorf("%s, %s: no unit", name, p.Title)
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: %s lies on %q, or beyond the grid", name, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
	if len(bound) != len(sizing.Constraints) {
		t.Fatalf("%d constraints have a color, of %d", len(bound), len(sizing.Constraints))
	}
	for _, constraint := range sizing.Constraints {
		if !slices.ContainsFunc(bound[:], func(b struct {
			constraint sizing.Constraint
			color      string
		}) bool {
			return b.constraint == constraint
		}) {
			t.Errorf("%s has no color", constraint)
		}
	}
}
