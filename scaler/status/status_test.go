package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/doctor"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// unread is a backlog that writing a status must not read.
type unread struct{}

func (unread) Open(*v1alpha1.ScalingPolicySpec, backlog.Values) backlog.Source { return unread{} }
func (unread) Observe(context.Context, time.Duration) (sizing.Observation, error) {
	return sizing.Observation{}, errors.New("not to be read")
}
func (unread) Close() error                          { return nil }
func (unread) Validated(types.NamespacedName, error) {}
func (unread) Forget(types.NamespacedName)           {}

// inPlace resolves values that are written in the policy.
type inPlace struct{}

func (inPlace) Resolve(_ context.Context, _ string, v *v1alpha1.ValueSource) (string, error) {
	return v.Value, nil
}

// testBundle is an API server with policies, the scaler's store of them, and leaders that write.
type testBundle struct {
	*Reconciler
	api    client.Client
	events *record.FakeRecorder
	now    time.Time
	writes int
}

var name = types.NamespacedName{Namespace: "scan", Name: "scans"}

func scansPolicy(name string, uid types.UID) *v1alpha1.ScalingPolicy {
	return &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: name, UID: uid, Generation: 1},
		Spec: v1alpha1.ScalingPolicySpec{
			Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{Value: "amqp://x"}, Queue: "q"}},
		},
	}
}

func newBundle(t *testing.T, policies ...*v1alpha1.ScalingPolicy) *testBundle {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	b := &testBundle{now: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC), events: record.NewFakeRecorder(1000)}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.ScalingPolicy{})
	store := policy.NewStore(unread{}, unread{}, slog.New(slog.DiscardHandler))
	for _, object := range policies {
		builder.WithObjects(object)
		store.Set(t.Context(), object, inPlace{})
	}
	b.api = builder.WithInterceptorFuncs(interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, options ...client.SubResourcePatchOption) error {
			b.writes++
			return c.SubResource(sub).Patch(ctx, o, p, options...)
		},
	}).Build()
	b.Reconciler = b.leader(store)
	return b
}

// leader is a replica that has decided nothing yet and begins to write.
func (b *testBundle) leader(store *policy.Store) *Reconciler {
	return New(Reconciler{
		Reader: b.api, Client: b.api, Policies: store, Ledger: decision.NewLedger(8), Events: b.events, Now: func() time.Time { return b.now },
	})
}

func (b *testBundle) decided(of types.NamespacedName, o sizing.Observation, failure error) {
	limits := calendar.Limits{Period: "default", MaxReplicas: 100}
	o.Time = b.now
	b.Ledger.Add(of, sizing.Decide(b.now, o, failure, limits, sizing.Parameters{MessagesPerReplica: 1, HoldFor: time.Minute}, 0))
}

// reconciled is the status after the leader has looked at the policy.
func (b *testBundle) reconciled(t *testing.T) v1alpha1.ScalingPolicyStatus {
	t.Helper()
	if _, err := b.Reconcile(t.Context(), reconcile.Request{NamespacedName: name}); err != nil {
		t.Fatal(err)
	}
	var object v1alpha1.ScalingPolicy
	if err := b.api.Get(t.Context(), name, &object); err != nil {
		t.Fatal(err)
	}
	return object.Status
}

// conditions are the types, verdicts and reasons of a status.
func conditions(s v1alpha1.ScalingPolicyStatus) string {
	var all []string
	for _, kind := range []string{"Ready", "Accepted", "BacklogReachable", "CredentialsResolved"} {
		if c := meta.FindStatusCondition(s.Conditions, kind); c != nil {
			all = append(all, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
		}
	}
	return strings.Join(all, ", ")
}

// doctorFinds are the checks of ebbtide doctor that fail because of a policy's status, as it is written.
func (b *testBundle) doctorFinds(t *testing.T) string {
	t.Helper()
	var object v1alpha1.ScalingPolicy
	if err := b.api.Get(t.Context(), name, &object); err != nil {
		t.Fatal(err)
	}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ScalingPolicy"))
	text, err := yaml.Marshal(&object)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := doctor.Parse("policy.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range doctor.Examine(objects, doctor.Scope{Now: b.now}) {
		found = append(found, f.ID)
	}
	return strings.Join(found, " ")
}

func TestConditions(t *testing.T) {
	refused := errors.New("connection refused")
	missing := &backlog.UnresolvedError{Field: "spec.backlog.rabbitmq.uri", Err: errors.New("secretKeyRef: Secret mq not found")}
	for title, tc := range map[string]struct {
		decide func(*testBundle)
		want   string
		doctor string // the checks that fail
	}{
		"never asked for": {func(*testBundle) {}, "Ready=Unknown NotAsked, Accepted=True Accepted, BacklogReachable=Unknown NotAsked, CredentialsResolved=Unknown NotAsked", ""},
		"read": {func(b *testBundle) { b.decided(name, sizing.Observation{Ready: 3}, nil) },
			"Ready=True Ready, Accepted=True Accepted, BacklogReachable=True Reachable, CredentialsResolved=True Resolved", ""},
		"a queue that does not exist": {func(b *testBundle) { b.decided(name, sizing.Observation{Missing: []string{"scams"}}, nil) },
			"Ready=True QueueMissing, Accepted=True Accepted, BacklogReachable=True QueueMissing, CredentialsResolved=True Resolved", "EBB207"},
		"held": {func(b *testBundle) { b.decided(name, sizing.Observation{Ready: 3}, refused) },
			"Ready=False Held, Accepted=True Accepted, BacklogReachable=False Held, CredentialsResolved=True Resolved", "EBB203"},
		"a queue that does not exist, which is an error": {func(b *testBundle) {
			b.decided(name, sizing.Observation{}, fmt.Errorf("broker b:5672: %w", &backlog.MissingQueuesError{Names: []string{"scams"}}))
		},
			"Ready=False QueueMissing, Accepted=True Accepted, BacklogReachable=False QueueMissing, CredentialsResolved=True Resolved", "EBB207"},
		"the management API fails": {func(b *testBundle) {
			b.decided(name, sizing.Observation{Consumers: 3, ManagementFailure: "management API: wrong user or password"}, nil)
		}, "Ready=True ManagementUnreachable, Accepted=True Accepted, BacklogReachable=True ManagementUnreachable, CredentialsResolved=True Resolved", "EBB215"},
		"a queue does not exist, and the management API fails": {func(b *testBundle) {
			b.decided(name, sizing.Observation{Missing: []string{"scams"}, ManagementFailure: "management API: wrong user or password"}, nil)
		}, "Ready=True QueueMissing, Accepted=True Accepted, BacklogReachable=True QueueMissing, CredentialsResolved=True Resolved", "EBB207"},
		"a Secret that was read has vanished": {func(b *testBundle) {
			b.decided(name, sizing.Observation{Ready: 3, CredentialsFailure: "spec.backlog.rabbitmq.uri.secretKeyRef: Secret mq not found"}, nil)
		}, "Ready=False Unresolved, Accepted=True Accepted, BacklogReachable=True Reachable, CredentialsResolved=False Unresolved", "EBB206"},
		"no Secret": {func(b *testBundle) {
			b.Ledger.Add(name, sizing.Decide(b.now, sizing.Observation{}, missing, calendar.Limits{}, sizing.Parameters{MessagesPerReplica: 1}, 0))
		}, "Ready=False Unresolved, Accepted=True Accepted, BacklogReachable=False Unreachable, CredentialsResolved=False Unresolved", "EBB206"},
	} {
		t.Run(title, func(t *testing.T) {
			b := newBundle(t, scansPolicy("scans", "one"))
			tc.decide(b)
			s := b.reconciled(t)
			if diff := cmp.Diff(tc.want, conditions(s)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.doctor, b.doctorFinds(t)); diff != "" {
				t.Errorf("doctor (-want +got):\n%s", diff)
			}
			for _, c := range s.Conditions {
				if c.ObservedGeneration != 1 {
					t.Errorf("condition %s is of generation %d", c.Type, c.ObservedGeneration)
				}
			}
		})
	}
}

// holidaysOf is a policy with an iCalendar file of events.
func holidaysOf(strict bool, events ...string) *v1alpha1.ScalingPolicy {
	text := "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\n"
	for _, event := range events {
		text += "BEGIN:VEVENT\n" + event + "\nEND:VEVENT\n"
	}
	p := scansPolicy("scans", "one")
	p.Spec.Calendar = &v1alpha1.Calendar{
		Holidays: &v1alpha1.Holidays{ICS: v1alpha1.ValueSource{Value: text + "END:VCALENDAR\n"}, Strict: strict, Limits: &v1alpha1.Limits{}},
	}
	return p
}

// An event that is skipped, and a file that is over, are reported in the policy's conditions, and only there; doctor names them. (Now is 2026.)
func TestHolidaysRead(t *testing.T) {
	const christmas = "SUMMARY:Christmas\nDTSTART;VALUE=DATE:20201224\nRRULE:FREQ=YEARLY"
	const read = "Ready=True Ready, Accepted=True Accepted, BacklogReachable=True Reachable, CredentialsResolved=True Resolved"
	unclear := "SUMMARY:Bridge\nDTSTART:soon"
	for title, tc := range map[string]struct {
		policy  *v1alpha1.ScalingPolicy
		want    string // verdict and reason
		message []string
		others  string
		doctor  string
	}{
		"no file": {scansPolicy("scans", "one"), "", nil, read, ""},
		"all read": {
			holidaysOf(false, christmas), "True Read", []string{"spec.calendar.holidays: 81 dates, from 2020 to 2100"}, read, "",
		},
		"one skipped": {
			holidaysOf(false, christmas, unclear), "False HolidaysSkipped",
			[]string{"no holidays", "spec.calendar.holidays: event of line 9 (Bridge): line 11: DTSTART:"}, read, "EBB216",
		},
		"many skipped": {
			holidaysOf(false, christmas, unclear, unclear, unclear, unclear, unclear, unclear, unclear), "False HolidaysSkipped", []string{"; 2 more"}, read, "EBB216",
		},
		"cancelled is not skipped": {holidaysOf(false, christmas, "DTSTART;VALUE=DATE:20260501\nSTATUS:CANCELLED"), "True Read", nil, read, ""},
		"over":                     {holidaysOf(false, "DTSTART;VALUE=DATE:20251224"), "False HolidaysExpired", []string{"its last holiday is of 2025, and 2026 has none"}, read, "EBB208"},
		"over, and one skipped":    {holidaysOf(false, "DTSTART;VALUE=DATE:20251224", unclear), "False HolidaysSkipped", []string{"line 9: DTSTART", "its last holiday is of 2025"}, read, "EBB208 EBB216"},
		"only cancelled ones":      {holidaysOf(false, "DTSTART;VALUE=DATE:20260501\nSTATUS:CANCELLED"), "False HolidaysExpired", []string{"none of its events is a holiday"}, read, "EBB208"},
		"until this year":          {holidaysOf(false, "DTSTART;VALUE=DATE:20261224"), "True Read", nil, read, ""},
		"strict": {
			holidaysOf(true, christmas, unclear), "", nil,
			"Ready=False Invalid, Accepted=False Invalid, BacklogReachable=Unknown NotAsked, CredentialsResolved=Unknown NotAsked", "EBB204 EBB216",
		},
	} {
		t.Run(title, func(t *testing.T) {
			b := newBundle(t, tc.policy)
			b.decided(name, sizing.Observation{Ready: 3}, nil)
			s := b.reconciled(t)
			got, message := "", ""
			if c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionHolidaysRead); c != nil {
				got, message = fmt.Sprintf("%s %s", c.Status, c.Reason), c.Message
			}
			if got != tc.want {
				t.Errorf("%q, want %q: %s", got, tc.want, message)
			}
			for _, part := range tc.message {
				if !strings.Contains(message, part) {
					t.Errorf("%q lacks %q", message, part)
				}
			}
			if others := conditions(s); others != tc.others {
				t.Errorf("%s, want %s", others, tc.others)
			}
			if found := b.doctorFinds(t); found != tc.doctor {
				t.Errorf("doctor finds %q, want %q", found, tc.doctor)
			}
		})
	}
}

// The year ends, and with it the file; a newer version without holidays takes the condition away.
func TestHolidaysExpire(t *testing.T) {
	b := newBundle(t, holidaysOf(false, "DTSTART;VALUE=DATE:20261224"))
	b.decided(name, sizing.Observation{}, nil)
	verdict := func() string {
		c := meta.FindStatusCondition(b.reconciled(t).Conditions, v1alpha1.ConditionHolidaysRead)
		if c == nil {
			return ""
		}
		return c.Reason
	}
	if got := verdict(); got != v1alpha1.ReasonHolidaysRead {
		t.Errorf("in 2026: %s", got)
	}
	b.now = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := verdict(); got != v1alpha1.ReasonHolidaysExpired {
		t.Errorf("in 2027: %s", got)
	}
	var object v1alpha1.ScalingPolicy
	if err := b.api.Get(t.Context(), name, &object); err != nil {
		t.Fatal(err)
	}
	object.Generation, object.Spec.Calendar = 2, nil
	if err := b.api.Update(t.Context(), &object); err != nil {
		t.Fatal(err)
	}
	b.Policies.Set(t.Context(), &object, inPlace{})
	if got := verdict(); got != "" {
		t.Errorf("without holidays: %s", got)
	}
}

// A change of leader is no news of the backlog: what was seen stands until the new leader is asked.
func TestNextLeader(t *testing.T) {
	b := newBundle(t, scansPolicy("scans", "one"))
	b.decided(name, sizing.Observation{Ready: 3}, nil)
	before := b.reconciled(t)
	for len(b.events.Events) > 0 {
		<-b.events.Events
	}
	b.Reconciler = b.leader(b.Policies)
	if diff := cmp.Diff(before, b.reconciled(t)); diff != "" {
		t.Errorf("the next leader changes (-before +after):\n%s", diff)
	}
	if len(b.events.Events) > 0 {
		t.Errorf("it tells anew: %s", <-b.events.Events)
	}
}

// A version that is not compiled yet has no condition, and one that is not valid was looked at: who waits for its verdict gets it.
func TestGenerations(t *testing.T) {
	b := newBundle(t, scansPolicy("scans", "one"))
	b.decided(name, sizing.Observation{Ready: 3}, nil)
	b.reconciled(t)
	var object v1alpha1.ScalingPolicy
	if err := b.api.Get(t.Context(), name, &object); err != nil {
		t.Fatal(err)
	}
	object.Generation, object.Spec.Backlog.RabbitMQ.Queue = 2, ""
	if err := b.api.Update(t.Context(), &object); err != nil {
		t.Fatal(err)
	}
	if s := b.reconciled(t); s.ObservedGeneration != 1 || !meta.IsStatusConditionTrue(s.Conditions, "Accepted") {
		t.Errorf("before it is compiled: generation %d, %s", s.ObservedGeneration, conditions(s))
	}
	b.Policies.Set(t.Context(), &object, inPlace{})
	s := b.reconciled(t)
	if want := "Ready=False Invalid, Accepted=False Invalid, BacklogReachable=True Reachable, CredentialsResolved=True Resolved"; s.ObservedGeneration != 2 || conditions(s) != want {
		t.Errorf("generation %d, %s; want 2, %s", s.ObservedGeneration, conditions(s), want)
	}
	if found := b.doctorFinds(t); found != "EBB204" {
		t.Errorf("doctor finds %q", found)
	}
	if c := meta.FindStatusCondition(s.Conditions, "Ready"); !strings.Contains(c.Message, "spec.backlog.rabbitmq") || !strings.Contains(c.Message, "generation 1 stays in force") {
		t.Errorf("Ready says %q, want the field, and what is in force", c.Message)
	}

	// One that was deleted and created again is another one, whatever its generation.
	if err := b.api.Delete(t.Context(), &object); err != nil {
		t.Fatal(err)
	}
	if err := b.api.Create(t.Context(), scansPolicy("scans", "two")); err != nil {
		t.Fatal(err)
	}
	if s := b.reconciled(t); len(s.Conditions) > 0 {
		t.Errorf("a policy that was created anew has the conditions of the one before: %s", conditions(s))
	}
}

// Ten thousand policies that are polled all the time cost the API server what it does not notice; what matters is written of all.
func TestWritesAreFew(t *testing.T) {
	const policies = 300
	var objects []*v1alpha1.ScalingPolicy
	for i := range policies {
		objects = append(objects, scansPolicy(fmt.Sprint("scans-", i), types.UID(fmt.Sprint(i))))
	}
	b := newBundle(t, objects...)
	b.writes, b.Reconciler.writes = 0, newLimiter(1e9)
	round := func(ready int64, failure error) int {
		t.Helper()
		before := b.writes
		for i := range policies {
			of := types.NamespacedName{Namespace: "scan", Name: fmt.Sprint("scans-", i)}
			b.decided(of, sizing.Observation{Ready: ready}, failure)
			if _, err := b.Reconcile(t.Context(), reconcile.Request{NamespacedName: of}); err != nil {
				t.Fatal(err)
			}
		}
		b.now = b.now.Add(time.Second)
		return b.writes - before
	}
	if got := round(5, nil); got != policies {
		t.Errorf("%d writes of the first decisions, want one each", got)
	}
	for range 60 {
		if got := round(5, nil); got > 0 {
			t.Fatalf("%d writes of decisions that repeat the last", got)
		}
	}
	writes := 0
	for i := range 20 {
		writes += round(int64(10+i), nil)
	}
	if most := policies * 20 / int(FiguresEvery/time.Second); writes > most {
		t.Errorf("%d writes of figures in 20 s, want at most %d", writes, most)
	}
	b.Reconciler.writes = newLimiter(1e-9)
	b.Reconciler.writes.AllowN(time.Now(), writesAtOnce) // other policies have used up what may be written
	if got := round(50, nil); got > 0 {
		t.Errorf("%d writes of figures while there are too many writes", got)
	}
	b.Reconciler.writes = newLimiter(1e9)
	if got := round(50, errors.New("connection refused")); got != policies {
		t.Errorf("%d writes of a broker's end, want one each", got)
	}
}
