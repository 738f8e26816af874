package decision

import (
	"encoding/json"
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
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/doctable"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

var scans = types.NamespacedName{Namespace: "scan", Name: "scans"}

func TestLedgerKeepsTheNewest(t *testing.T) {
	ledger := NewLedger(3)
	for i := range 5 {
		previous, ok := ledger.Add(scans, sizing.Decision{Target: int32(i)})
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
	recorder.Record(t.Context(), scans, sizing.Decision{Constraint: sizing.Backlog}, time.Unix(99, 0))
	recorder.Validated(scans, nil)
	registry.MustRegister(&CalendarMetrics{Policies: workdays(t, "Europe/Prague"), Now: time.Now})
	doctable.Metrics(t, "../../docs/reference/metrics.md", "metrics", registry, "ebbtide_")
}

// workdays is a store of a policy with two periods, and of one that is not valid.
func workdays(t *testing.T, zone string) *policy.Store {
	store := policy.NewStore(unread{t}, unread{t}, slog.New(slog.DiscardHandler))
	store.Set(t.Context(), &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "scans"},
		Spec: v1alpha1.ScalingPolicySpec{
			Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{Value: "amqp://x"}, Queue: "q"}},
			Calendar: &v1alpha1.Calendar{TimeZone: zone, Periods: []v1alpha1.Period{
				{Name: "workday", Days: []string{"Mon-Fri"}, From: "07:00", To: "19:00", Limits: v1alpha1.Limits{MinReplicas: ptr.To[int32](5)}},
			}},
		},
	}, nil)
	store.Set(t.Context(), &v1alpha1.ScalingPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "broken"}}, nil)
	return store
}

// A calendar is shown as of the scrape, and no more once its policy is gone. On Sunday 2026-03-29 clocks in Prague go forward.
func TestCalendars(t *testing.T) {
	store := workdays(t, "Europe/Prague")
	now := time.Date(2026, 3, 27, 17, 59, 0, 0, time.UTC) // Friday, 18:59 there
	registry := prometheus.NewRegistry()
	registry.MustRegister(&CalendarMetrics{Policies: store, Now: func() time.Time { return now }})
	shows := func(period string, change time.Time, next string, offset int) {
		t.Helper()
		want := fmt.Sprintf(`
# HELP ebbtide_calendar_next_change_timestamp_seconds When limits change next, and to which period; no series when they do not within eight years.
# TYPE ebbtide_calendar_next_change_timestamp_seconds gauge
ebbtide_calendar_next_change_timestamp_seconds{namespace="scan",period=%q,policy="scans"} %d
# HELP ebbtide_calendar_period 1 for the period in force; several are joined by +.
# TYPE ebbtide_calendar_period gauge
ebbtide_calendar_period{namespace="scan",period=%q,policy="scans"} 1
# HELP ebbtide_calendar_utc_offset_seconds How far the clock of the policy's time zone is ahead of UTC, as of now.
# TYPE ebbtide_calendar_utc_offset_seconds gauge
ebbtide_calendar_utc_offset_seconds{namespace="scan",policy="scans"} %d
`, next, change.Unix(), period, offset)
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
			t.Error(now, err)
		}
	}
	end := time.Date(2026, 3, 27, 18, 0, 0, 0, time.UTC)
	shows("workday", end, "default", 3600)
	monday := time.Date(2026, 3, 30, 5, 0, 0, 0, time.UTC)
	now = end
	shows("default", monday, "workday", 3600)
	now = monday.Add(-time.Hour)
	shows("default", monday, "workday", 7200)
	store.Delete(scans)
	if n, err := testutil.GatherAndCount(registry); n != 0 || err != nil {
		t.Errorf("%d series of a deleted policy are left (%v)", n, err)
	}
}

// A decision that changes something is a line of the log that says all of it; one that repeats the last is one at debug level.
func TestLog(t *testing.T) {
	var out strings.Builder
	recorder := NewRecorder(NewLedger(3), prometheus.NewRegistry(), slog.New(slog.NewJSONHandler(&out, nil)))
	limits := calendar.Limits{Period: "day", MaxReplicas: 5}
	record := func(ready int64) {
		at := time.Unix(100, 0).UTC()
		o := sizing.Observation{Time: at, Ready: ready, Consumers: 2, Source: "rabbitmq broker:5672"}
		recorder.Record(t.Context(), scans, sizing.Decide(at, o, nil, limits, sizing.Parameters{MessagesPerReplica: 1}, 0), at)
	}
	record(7)
	record(7)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 1 {
		t.Fatalf("%d lines, want one: %s", len(lines), out.String())
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "time")
	want := map[string]any{
		"level": "INFO", "msg": "decided", "policy": "scan/scans", "target": 5.0, "constraint": "cap", "ready": 7.0, "inFlight": 2.0,
		"reason": "7 ready and 2 in flight ask for 9, capped at 5 by period day", "source": "rabbitmq broker:5672",
		"observedAt": "1970-01-01T00:01:40Z", "period": "day",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	record(1)
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines after the target changed, want 2", n)
	}
}

func TestMetricsFollowAndForget(t *testing.T) {
	registry := prometheus.NewRegistry()
	recorder := NewRecorder(NewLedger(3), registry, slog.New(slog.NewTextHandler(io.Discard, nil)))
	recorder.Record(t.Context(), scans, sizing.Decide(time.Unix(100, 0), sizing.Observation{Time: time.Unix(100, 0), Ready: 7, Consumers: 2},
		nil, calendar.Limits{Period: "day", MaxReplicas: 5}, sizing.Parameters{MessagesPerReplica: 1}, 0), time.Unix(99, 0))
	want := `
# HELP ebbtide_target_constraint 1 for the constraint that decided the target: backlog, drain, floor, idle, surplus, cap, scale-in, hold, outage; 0 for the others.
# TYPE ebbtide_target_constraint gauge
ebbtide_target_constraint{constraint="backlog",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="cap",namespace="scan",policy="scans"} 1
ebbtide_target_constraint{constraint="drain",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="floor",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="hold",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="idle",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="outage",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="scale-in",namespace="scan",policy="scans"} 0
ebbtide_target_constraint{constraint="surplus",namespace="scan",policy="scans"} 0
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
	if n, err := testutil.GatherAndCount(registry); n != 4 || err != nil { // the histogram of all decisions, and panics by where
		t.Errorf("%d series of a deleted policy are left (%v)", n, err)
	}
}

// What is not seen though the backlog is read, and which queues do not exist, can be alerted on.
func TestMetricsOfFailures(t *testing.T) {
	seen := sizing.Observation{Time: time.Unix(100, 0)}
	management, credentials, missing := seen, seen, seen
	management.ManagementFailure, credentials.CredentialsFailure, missing.Missing = "x", "x", []string{"a", "b"}
	for name, tc := range map[string]struct {
		o       sizing.Observation
		failure error
		want    map[string]float64
	}{
		"none":                        {seen, nil, map[string]float64{"backlog_reachable": 1, "backlog_management_reachable": 1, "credentials_resolved": 1, "backlog_missing_queues": 0}},
		"management":                  {management, nil, map[string]float64{"backlog_reachable": 1, "backlog_management_reachable": 0, "credentials_resolved": 1}},
		"credentials, not again":      {credentials, nil, map[string]float64{"backlog_reachable": 1, "credentials_resolved": 0}},
		"credentials, never":          {sizing.Observation{}, &backlog.UnresolvedError{Field: "uri", Err: errors.New("no Secret")}, map[string]float64{"backlog_reachable": 0, "credentials_resolved": 0}},
		"queues that count as empty":  {missing, nil, map[string]float64{"backlog_reachable": 1, "backlog_missing_queues": 2}},
		"queues that are an error":    {seen, &backlog.MissingQueuesError{Names: []string{"a", "b", "c"}}, map[string]float64{"backlog_reachable": 0, "backlog_missing_queues": 3}},
		"a broker that can't be read": {seen, errors.New("refused"), map[string]float64{"backlog_reachable": 0, "backlog_missing_queues": 0, "credentials_resolved": 1}},
	} {
		d := sizing.Decide(time.Unix(100, 0), tc.o, tc.failure, calendar.Limits{Period: "day", MaxReplicas: 5}, sizing.Parameters{MessagesPerReplica: 1, HoldFor: time.Minute}, 0)
		for _, s := range series {
			metric := strings.Split(strings.Split(s.desc.String(), `"ebbtide_`)[1], `"`)[0]
			if want, is := tc.want[metric]; is && s.value(&d) != want {
				t.Errorf("%s: ebbtide_%s is %v, want %v", name, metric, s.value(&d), want)
			}
		}
	}
}

// One name that is not UTF-8 takes nobody's metrics away.
func TestMetricsOfAnyName(t *testing.T) {
	registry := prometheus.NewRegistry()
	recorder := NewRecorder(NewLedger(3), registry, slog.New(slog.DiscardHandler))
	bad := types.NamespacedName{Namespace: "scan", Name: "caf\xe9"}
	for _, name := range []types.NamespacedName{scans, bad} {
		recorder.Record(t.Context(), name, sizing.Decision{Constraint: sizing.Backlog, Target: 1}, time.Unix(99, 0))
		recorder.Validated(name, nil)
	}
	if n, err := testutil.GatherAndCount(registry, "ebbtide_target_replicas", "ebbtide_policy_valid"); n != 4 || err != nil {
		t.Errorf("%d series (%v), want two of each policy", n, err)
	}
	calendar := &CalendarMetrics{Policies: policy.NewStore(unread{t}, unread{t}, slog.New(slog.DiscardHandler)), Now: time.Now}
	calendar.Policies.Set(t.Context(), &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "scans"},
		Spec: v1alpha1.ScalingPolicySpec{
			Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{Value: "amqp://x"}, Queue: "q"}},
			Calendar: &v1alpha1.Calendar{TimeZone: "UTC", Periods: []v1alpha1.Period{
				{Name: "f\xeate", Limits: v1alpha1.Limits{MinReplicas: ptr.To[int32](5)}},
			}},
		},
	}, nil)
	if _, err := testutil.CollectAndFormat(calendar, expfmt.TypeTextPlain); err != nil {
		t.Error(err)
	}
}
