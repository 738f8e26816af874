package decision

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/internal/doctable"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

var scans = types.NamespacedName{Namespace: "scan", Name: "scans"}

func TestLedgerKeepsTheNewest(t *testing.T) {
	ledger := NewLedger(3)
	for i := range 5 {
		previous, ok := ledger.Add(scans, target.Decision{Target: int32(i)})
		if ok != (i > 0) || ok && previous.Target != int32(i-1) {
			t.Errorf("before %d came %d (%v)", i, previous.Target, ok)
		}
	}
	var targets []int32
	for _, d := range ledger.Last(scans, 10) {
		targets = append(targets, d.Target)
	}
	if diff := cmp.Diff([]int32{4, 3, 2}, targets); diff != "" {
		t.Errorf("newest first (-want +got):\n%s", diff)
	}
	if got := len(ledger.Last(scans, 1)); got != 1 {
		t.Errorf("%d decisions, want 1", got)
	}
}

// The reference names every series and no other.
func TestMetricsDocument(t *testing.T) {
	registry := prometheus.NewRegistry()
	recorder := NewRecorder(NewLedger(3), registry, slog.New(slog.DiscardHandler))
	recorder.Record(t.Context(), scans, target.Decision{Constraint: target.Backlog}, time.Unix(99, 0))
	recorder.Validated(scans, nil)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	table := "| name | type | meaning |\n|---|---|---|\n"
	for _, family := range families {
		table += fmt.Sprintf("| `%s` | %s | %s |\n", family.GetName(), strings.ToLower(family.GetType().String()), family.GetHelp())
	}
	doctable.Check(t, "../../docs/reference/metrics.md", "metrics", table)
}

func TestMetricsFollowAndForget(t *testing.T) {
	registry := prometheus.NewRegistry()
	recorder := NewRecorder(NewLedger(3), registry, slog.New(slog.NewTextHandler(io.Discard, nil)))
	recorder.Record(t.Context(), scans, target.Decide(time.Unix(100, 0), target.Observation{Time: time.Unix(100, 0), Ready: 7, Consumers: 2},
		nil, calendar.Limits{Period: "day", MaxReplicas: 5}, target.Policy{MessagesPerReplica: 1}, 0), time.Unix(99, 0))
	want := `
# HELP ebbtide_target_constraint 1 for the constraint that decided the target: backlog, drain, floor, idle, cap, scale-in, hold, outage; 0 for the others.
# TYPE ebbtide_target_constraint gauge
ebbtide_target_constraint{constraint="backlog",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="cap",namespace="scan",policy="scans"} 1
ebbtide_target_constraint{constraint="drain",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="floor",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="hold",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="idle",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="outage",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="scale-in",namespace="scan",policy="scans"} 0
# HELP ebbtide_target_replicas Unfinished jobs, or pods, that should exist.
# TYPE ebbtide_target_replicas gauge
ebbtide_target_replicas{namespace="scan",policy="scans"} 5
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "ebbtide_target_constraint", "ebbtide_target_replicas"); err != nil {
		t.Error(err)
	}
	for verdict, value := range map[error]string{nil: "1", errors.New("bad"): "0"} {
		recorder.Validated(scans, verdict)
		want := "# HELP ebbtide_policy_valid 1 while the newest version of the policy is in force, 0 while it is not valid and an earlier " +
			"one is, or none.\n# TYPE ebbtide_policy_valid gauge\nebbtide_policy_valid{namespace=\"scan\",policy=\"scans\"} " + value + "\n"
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "ebbtide_policy_valid"); err != nil {
			t.Error(err)
		}
	}
	recorder.Forget(scans)
	if n, err := testutil.GatherAndCount(registry); n != 1 || err != nil { // the histogram of all decisions
		t.Errorf("%d series of a deleted policy are left (%v)", n, err)
	}
}
