package dashboards

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Query is one of a panel's, or of an annotation, as it goes to Prometheus.
type Query struct {
	Dashboard, Panel string
	Target
}

// Queries of all panels and annotations, with values in place of variables: of the dashboard's own, and of Grafana's __rate_interval,
// __range and __range_s. All clusters are chosen by default. What has no value stays as it is.
func (d *Dashboard) Queries(values map[string]string) []Query {
	with := map[string]string{"cluster": ".*"}
	maps.Copy(with, values)
	replace := Replacer(with)
	var list []Query
	add := func(panel string, t Target) {
		t.Expr = replace.Replace(t.Expr)
		list = append(list, Query{d.Title, panel, t})
	}
	for p := range each(d.Panels) {
		for _, t := range p.Targets {
			add(p.Title, t)
		}
	}
	for _, a := range d.Annotations.List {
		add("annotation "+a.Name, Target{Expr: a.Expr, Legend: a.TitleFormat, Range: true})
	}
	return list
}

// Replacer puts values in place of variables.
func Replacer(values map[string]string) *strings.Replacer {
	longestFirst := func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) }
	var pairs []string
	for _, name := range slices.SortedFunc(maps.Keys(values), longestFirst) {
		pairs = append(pairs, "$"+name, values[name])
	}
	return strings.NewReplacer(pairs...)
}
