// Package doctable keeps tables in the documentation current: a test makes the table and fails while the document has
// another; with the flag -update it writes it.
package doctable

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

var update = flag.Bool("update", false, "write tables into the documentation")

// Check compares a table with what stands between <!-- name --> and <!-- /name --> in a file.
func Check(t *testing.T, file, name, table string) {
	t.Helper()
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	old, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table: %s%s", file, begin, end)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(old, table); diff != "" {
		t.Errorf("%s is not current: run the test with -update, and commit\n%s", file, diff)
	}
}

// Metrics compares the table with those that a gatherer has of which the names begin with a prefix. Each must have a series.
func Metrics(t *testing.T, file, name string, gatherer prometheus.Gatherer, prefix string) {
	t.Helper()
	families, err := gatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	table := "| name | type | labels | meaning |\n|---|---|---|---|\n"
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), prefix) {
			continue
		}
		var labels []string
		for _, pair := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+pair.GetName()+"`")
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n", family.GetName(), strings.ToLower(family.GetType().String()),
			strings.Join(labels, ", "), strings.TrimPrefix(family.GetHelp(), "[ALPHA] "))
	}
	Check(t, file, name, table)
}
