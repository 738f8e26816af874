package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scaler/status"
)

// noSource opens backlogs that nobody reads.
type noSource struct{}

func (noSource) Open(*v1alpha1.ScalingPolicySpec, backlog.Values) backlog.Source { return noSource{} }
func (noSource) Observe(context.Context, time.Duration) (sizing.Observation, error) {
	return sizing.Observation{}, errors.New("not to be read")
}
func (noSource) Close() error { return nil }

// nobody is told what happens to policies.
type nobody struct{}

func (nobody) Validated(types.NamespacedName, error) {}
func (nobody) Forget(types.NamespacedName)           {}

func TestIntegrationStatus(t *testing.T) {
	c := startControlPlane(t)
	api := c.Client()
	name := types.NamespacedName{Namespace: "default", Name: "scans"}
	object := &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name},
		Spec: v1alpha1.ScalingPolicySpec{
			Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{Value: "amqp://x"}, Queue: "q"}},
			Calendar: &v1alpha1.Calendar{Periods: []v1alpha1.Period{
				{Name: "workday", Days: []string{"Mon-Fri"}, From: "07:00", To: "19:00", Limits: v1alpha1.Limits{MinReplicas: ptr.To[int32](5)}},
			}},
		},
	}
	if err := api.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	store, ledger := policy.NewStore(noSource{}, nobody{}, log), decision.NewLedger(4)
	store.Set(t.Context(), object, nil)
	monday := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	events := record.NewFakeRecorder(10)
	now := monday
	writer := status.New(status.Reconciler{
		Reader: api, Client: api, Policies: store, Ledger: ledger, Now: func() time.Time { return now }, Events: events,
	})
	event := func(want string) {
		t.Helper()
		select {
		case got := <-events.Events:
			if !strings.Contains(got, want) {
				t.Errorf("event %q, want one with %q", got, want)
			}
		default:
			t.Errorf("no event, want one with %q", want)
		}
	}
	written := func() v1alpha1.ScalingPolicyStatus {
		t.Helper()
		now = now.Add(status.FiguresEvery)
		if _, err := writer.Reconcile(t.Context(), reconcile.Request{NamespacedName: name}); err != nil {
			t.Fatal(err)
		}
		var read v1alpha1.ScalingPolicy
		if err := api.Get(t.Context(), name, &read); err != nil {
			t.Fatal(err)
		}
		return read.Status
	}
	check := func(s v1alpha1.ScalingPolicyStatus, kind string, want metav1.ConditionStatus, message string) {
		t.Helper()
		got := meta.FindStatusCondition(s.Conditions, kind)
		if got == nil || got.Status != want || !strings.Contains(got.Message, message) {
			t.Errorf("condition %s is %+v, want %s with %q", kind, got, want, message)
		}
	}

	s := written()
	if s.Current == nil || s.Current.Period != "workday" || s.Current.MinReplicas != 5 || s.Current.MaxReplicas != 100 {
		t.Errorf("current limits %+v, want workday's floor of 5 and the default cap", s.Current)
	}
	if want := monday.Add(7 * time.Hour); s.NextChange == nil || !s.NextChange.Time.Time.Equal(want) || s.NextChange.Period != "default" {
		t.Errorf("next change %+v, want %s", s.NextChange, want)
	}
	check(s, v1alpha1.ConditionBacklogReachable, metav1.ConditionUnknown, "no trigger has asked")

	limits := calendar.Limits{Period: "workday", MinReplicas: 5, MaxReplicas: 100}
	ledger.Add(name, sizing.Decide(monday, sizing.Observation{Time: monday, Ready: 7, Consumers: 2}, nil, limits, sizing.Parameters{MessagesPerReplica: 1}, 0))
	s = written()
	if d := s.LastDecision; d == nil || d.Target != 9 || d.Ready != 7 || d.InFlight != 2 || d.Constraint != "backlog" {
		t.Errorf("last decision %+v, want a target of 9", d)
	}
	check(s, v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	event("Normal BoundByBacklog target 9: 7 ready and 2 in flight ask for 9")

	ledger.Add(name, sizing.Decide(monday, sizing.Observation{Time: monday, Ready: 7}, errors.New("connection refused"), limits,
		sizing.Parameters{MessagesPerReplica: 1, HoldFor: time.Minute}, 0))
	s = written()
	check(s, v1alpha1.ConditionBacklogReachable, metav1.ConditionFalse, "connection refused")
	event("Warning BacklogHeld target 7: ")

	broken := &v1alpha1.ScalingPolicy{}
	if err := api.Get(t.Context(), name, broken); err != nil {
		t.Fatal(err)
	}
	broken.Spec.Calendar.TimeZone = "Prague"
	if err := api.Update(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	store.Set(t.Context(), broken, nil)
	s = written()
	check(s, v1alpha1.ConditionAccepted, metav1.ConditionFalse, "generation 1 stays in force")
	check(s, v1alpha1.ConditionReady, metav1.ConditionFalse, "spec.calendar.timeZone")
	event("Warning Invalid ScalingPolicy default/scans: spec.calendar.timeZone")
	if s.ObservedGeneration != 2 {
		t.Errorf("observed generation %d, want that of the version that was looked at", s.ObservedGeneration)
	}

	t.Run("replicas", func(t *testing.T) { checkReplicas(t, c) })
	t.Run("workload", func(t *testing.T) { checkWorkload(t, c) })
}
