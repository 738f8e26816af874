package decision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// source answers what the test puts into it.
type source struct {
	now      func() time.Time
	observed atomic.Int64
	ready    atomic.Int64
	working  atomic.Int64
	finished atomic.Int64
	failure  atomic.Pointer[error]
	// withoutStatistics is why the management API fails; nil: it is not used.
	withoutStatistics atomic.Pointer[string]
	held              chan struct{} // answers wait until it is closed; nil: they do not
}

func (s *source) Observe(ctx context.Context, _ time.Duration) (sizing.Observation, error) {
	s.observed.Add(1)
	if s.held != nil {
		select {
		case <-s.held:
		case <-ctx.Done():
			return sizing.Observation{}, context.Cause(ctx)
		}
	}
	if failure := s.failure.Load(); failure != nil {
		return sizing.Observation{}, *failure
	}
	o := sizing.Observation{
		Time: s.now(), Ready: s.ready.Load(), Consumers: s.working.Load(), Finished: map[string]int64{"q": s.finished.Load()},
	}
	if failure := s.withoutStatistics.Load(); failure != nil {
		o.ManagementFailure = *failure
	}
	return o, nil
}

func (s *source) fail(err error) { s.failure.Store(&err) }

func (*source) Close() error { return nil }

// deciderBundle is a decider of policies of the namespace scan, and replicas of it.
type deciderBundle struct {
	*Decider
	clock    atomic.Int64 // seconds
	next     *source      // what is opened next
	sources  map[string]*source
	store    *policy.Store
	ledger   *Ledger
	registry *prometheus.Registry
}

// Open implements policy.Opener.
func (b *deciderBundle) Open(*v1alpha1.ScalingPolicySpec, backlog.Values) backlog.Source {
	return b.next
}

func (b *deciderBundle) now() time.Time { return time.Unix(b.clock.Load(), 0) }

func newDeciderBundle(t *testing.T, change func(*Config)) *deciderBundle {
	t.Helper()
	b := &deciderBundle{ledger: NewLedger(10), registry: prometheus.NewRegistry(), sources: map[string]*source{}}
	b.clock.Store(1000)
	b.store = policy.NewStore(b, unread{t}, slog.New(slog.DiscardHandler))
	b.Decider = b.replica(change)
	return b
}

// replica is another decider of the same policies.
func (b *deciderBundle) replica(change func(*Config)) *Decider {
	config := Config{
		Policies: b.store, Recorder: NewRecorder(b.ledger, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)),
		MaxAge: time.Second, Timeout: time.Second, Now: b.now,
	}
	if change != nil {
		change(&config)
	}
	return NewDecider(config)
}

// set puts a version of a policy in force, with a source of its own if its queue is another one.
func (b *deciderBundle) set(t *testing.T, name, queue string, target v1alpha1.Target) *source {
	t.Helper()
	b.next = &source{now: b.now}
	management := v1alpha1.ValueSource{Value: "http://x"}
	b.store.Set(t.Context(), &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: name},
		Spec: v1alpha1.ScalingPolicySpec{
			Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{
				URI: v1alpha1.ValueSource{Value: "amqp://" + name}, ManagementURI: &management, Queue: queue,
			}},
			Target: target,
		},
	}, nil)
	p, invalid, _ := b.store.Get(types.NamespacedName{Namespace: "scan", Name: name})
	if invalid != nil {
		t.Fatal(invalid)
	}
	b.sources[name] = p.Source.(*source)
	return b.sources[name]
}

func (b *deciderBundle) targetOf(t *testing.T, d *Decider, name string) int64 {
	t.Helper()
	decided, err := d.Decide(t.Context(), types.NamespacedName{Namespace: "scan", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return int64(decided.Target)
}

// A call that its caller gives up says nothing of the broker: KEDA cancels its calls when a ScaledJob is edited.
func TestCanceledCall(t *testing.T) {
	b := newDeciderBundle(t, nil)
	s := b.set(t, "scans", "q", v1alpha1.Target{})
	s.held = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	var failure *Failure
	if _, err := b.Decide(ctx, scans); !errors.As(err, &failure) || failure.Kind != GivenUp {
		t.Errorf("error %v, want that the caller gave up", err)
	}
	close(s.held)
	if d, err := b.Decide(t.Context(), scans); err != nil || d.Constraint != sizing.Backlog {
		t.Errorf("the next decision is %+v, %v; want one by the backlog", d, err)
	}
}

// A caller with less patience than a broker takes says nothing of the broker either; but where nobody has more, a broker that hangs is found out.
func TestImpatientCaller(t *testing.T) {
	b := newDeciderBundle(t, func(c *Config) { c.Timeout = 100 * time.Millisecond })
	s := b.set(t, "scans", "q", v1alpha1.Target{})
	s.ready.Store(7)
	if got := b.targetOf(t, b.Decider, "scans"); got != 7 {
		t.Fatalf("target %d", got)
	}
	s.held = make(chan struct{})
	b.clock.Add(2)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	var failure *Failure
	if _, err := b.Decide(ctx, scans); !errors.As(err, &failure) || failure.Kind != GivenUp {
		t.Errorf("error %v, want that the caller gave up", err)
	}
	if last := b.ledger.Last(scans, 1)[0]; last.Failure != nil {
		t.Errorf("its impatience is recorded as a failure of the broker: %v", last.Failure)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if last := b.ledger.Last(scans, 1)[0]; last.Failure != nil {
			if last.Constraint != sizing.Hold || last.Target != 7 || !strings.Contains(last.Failure.Error(), "no answer within 100ms") {
				t.Errorf("%+v, want 7, held", last)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody finds out that the broker hangs")
		}
	}
}

// What a broker sent is kept in short.
func TestLongFailure(t *testing.T) {
	b := newDeciderBundle(t, nil)
	s := b.set(t, "scans", "q", v1alpha1.Target{})
	s.fail(errors.New("certificate is valid for " + strings.Repeat("a.example, ", 10_000)))
	d, err := b.Decide(t.Context(), scans)
	if err != nil || d.Failure == nil || len(d.Failure.Error()) > toldBytes+3 || len(d.Reason) > toldBytes+200 || !strings.Contains(d.Reason, "certificate is valid for a.example") {
		t.Errorf("%d bytes of failure, %d of reason, %v", len(fmt.Sprint(d.Failure)), len(d.Reason), err)
	}
	missing := &backlog.MissingQueuesError{Names: []string{strings.Repeat("q", 255), strings.Repeat("r", 255), strings.Repeat("s", 255)}}
	s.fail(missing)
	b.clock.Add(2)
	if d, _ := b.Decide(t.Context(), scans); !errors.Is(d.Failure, error(missing)) {
		t.Errorf("failure %v: conditions and metrics look for its kind", d.Failure)
	}
}

// Ten idle pods of a Deployment are not kept for ever because the management API can't say that they are idle.
func TestIdleWithoutStatistics(t *testing.T) {
	b := newDeciderBundle(t, nil)
	s := b.set(t, "scans", "q", v1alpha1.Target{})
	failure := "management API: wrong user or password"
	s.withoutStatistics.Store(&failure)
	s.working.Store(10)
	after := func(d time.Duration, want int64) {
		t.Helper()
		b.clock.Add(int64(d / time.Second))
		if got := b.targetOf(t, b.Decider, "scans"); got != want {
			t.Errorf("%s later: target %d, want %d", d, got, want)
		}
	}
	after(0, 10)
	after(4*time.Minute, 10)
	s.ready.Store(1) // so there was work a moment ago
	after(time.Minute, 11)
	s.ready.Store(0)
	after(time.Minute, 10)
	after(5*time.Minute, 10)
	after(time.Second, 0)
	s.ready.Store(3)
	after(time.Second, 13)
}

// What a poll of an old version sees, or fails to see, says nothing of the new version's backlog, and wipes nothing that is remembered of it.
func TestEditDuringPoll(t *testing.T) {
	for _, fails := range []bool{true, false} {
		t.Run(fmt.Sprint("fails: ", fails), func(t *testing.T) {
			b := newDeciderBundle(t, nil)
			stable := v1alpha1.Target{ScaleInStabilization: &metav1.Duration{Duration: 10 * time.Minute}}
			old := b.set(t, "scans", "old", stable)
			old.held = make(chan struct{})
			old.ready.Store(50)
			ended := make(chan sizing.Decision, 1)
			go func() {
				d, err := b.Decide(t.Context(), scans)
				if err != nil {
					t.Error(err)
				}
				ended <- d
			}()
			for old.observed.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			b.set(t, "scans", "new", stable).ready.Store(7)
			if got := b.targetOf(t, b.Decider, "scans"); got != 7 {
				t.Errorf("target %d of the new version, want 7", got)
			}
			if fails {
				old.fail(errors.New("a newer version of the policy is in force"))
			}
			close(old.held)
			if d := <-ended; d.Target != 7 || d.Constraint != sizing.Backlog {
				t.Errorf("the poll of the old version is answered %d by %s, want 7 by the new one's backlog", d.Target, d.Constraint)
			}
			b.sources["scans"].ready.Store(0)
			b.clock.Add(2)
			if d, err := b.Decide(t.Context(), scans); err != nil || d.Target != 7 || d.Constraint != sizing.ScaleIn {
				t.Errorf("%d by %s, %v; want the 7 of 2 s ago by scale-in", d.Target, d.Constraint, err)
			}
			for _, d := range b.ledger.Last(scans, 9) {
				if d.Failure != nil || d.Observation.Ready == 50 {
					t.Errorf("the ledger has %d by %s: %s", d.Target, d.Constraint, d.Reason)
				}
			}
		})
	}
}

// Before all policies are known one that is not known is no reason for an error that stays.
func TestNotLoaded(t *testing.T) {
	loaded := make(chan struct{})
	b := newDeciderBundle(t, func(c *Config) { c.Loaded = loaded })
	kind := func() FailureKind {
		var failure *Failure
		_, err := b.Decide(t.Context(), scans)
		if !errors.As(err, &failure) {
			t.Fatal(err)
		}
		return failure.Kind
	}
	if got := kind(); got != NotReady {
		t.Errorf("kind %d before policies are loaded, want that the caller asks again", got)
	}
	close(loaded)
	if got := kind(); got != NotFound {
		t.Errorf("kind %d once they are, want that there is none", got)
	}
	b.store.Announce(scans, true)
	if got := kind(); got != NotReady {
		t.Errorf("kind %d while a new policy is read, want that the caller asks again", got)
	}
}

// jobs is a workload that the test creates as KEDA does: some time after it was told how many there should be.
type jobs struct{ unfinished map[string]int64 }

func (jobs) OfJobs(types.NamespacedName) bool { return true }
func (j jobs) Unfinished(name types.NamespacedName) (int64, bool) {
	return j.unfinished[name.Name], true
}

func seats(weight, limit int32) v1alpha1.Target {
	return v1alpha1.Target{MaxReplicas: ptr.To[int32](50), MaxReplicasGroup: &v1alpha1.MaxReplicasGroup{Name: "seats", MaxReplicas: limit, Weight: weight}}
}

// A cap that policies share is split by weight, follows what each wants, waits for nobody's broker, and is never exceeded by what was answered:
// the Jobs of an answer boot before they consume.
func TestGroup(t *testing.T) {
	b := newDeciderBundle(t, nil)
	a, other := b.set(t, "a", "q", seats(1, 12)), b.set(t, "b", "q", seats(2, 12))
	// settled queries until background decisions about the others are in, and counts what Jobs there may be: all that were asked for in two minutes.
	answers := map[string][]int64{}
	settled := func(name string, want int64) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			b.clock.Add(10)
			got := b.targetOf(t, b.Decider, name)
			answers[name] = append(answers[name], got)
			if got == want {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("target of %s is %d, want %d", name, got, want)
			}
		}
	}
	a.ready.Store(40)
	other.held = make(chan struct{})
	if got := b.targetOf(t, b.Decider, "a"); got != 4 {
		t.Errorf("target %d before b was ever seen, want its third of 12: b may want all that it may have", got)
	}
	close(other.held)
	settled("a", 12) // b wants nothing
	other.ready.Store(40)
	b.clock.Add(2)
	if got := b.targetOf(t, b.Decider, "b"); got != 0 {
		t.Errorf("target of b is %d right after a was told 12: their Jobs boot", got)
	}
	settled("b", 8)
	settled("a", 4)
	other.ready.Store(3)
	settled("b", 3)
	settled("a", 9)
	other.fail(errors.New("no answer"))
	settled("a", 9) // b's last observation holds
}

// With Jobs watched a share passes on as soon as they have ended, and replicas, of which one works shares out for all, answer alike.
func TestGroupOfReplicas(t *testing.T) {
	published, watched := map[string]Published{}, jobs{map[string]int64{}}
	shared := func(c *Config) {
		c.Workload = watched
		c.Published = func(name types.NamespacedName) (Published, bool) {
			p, known := published[name.Name]
			return p, known
		}
	}
	b := newDeciderBundle(t, shared)
	standby := b.replica(shared)
	a, other := b.set(t, "a", "q", seats(1, 10)), b.set(t, "b", "q", seats(1, 10))
	ask := func(name string) int64 {
		t.Helper()
		one, two := b.targetOf(t, b.Decider, name), b.targetOf(t, standby, name)
		if one != two {
			t.Errorf("replicas answer %d and %d for %s", one, two, name)
		}
		return one
	}
	// tick is a second of the leader, and of KEDA, whose Jobs show five seconds later.
	var coming []func()
	tick := func() {
		t.Helper()
		b.clock.Add(1)
		b.shareOutAll(false, func(name types.NamespacedName) {
			p, _, _ := b.store.Get(name)
			share, known := b.ShareOf(p)
			if known {
				published[name.Name] = Published{Group: "seats", Share: share}
			}
		})
		var sum int64
		for _, name := range []string{"a", "b"} {
			target := ask(name)
			sum += max(target, watched.unfinished[name])
			coming = append(coming, func() { watched.unfinished[name] = max(target, watched.unfinished[name]) })
		}
		if sum > 10 {
			t.Fatalf("second %d: %d Jobs for a cap of 10 (%v, %v)", b.clock.Load(), sum, published, watched.unfinished)
		}
		if len(coming) > 10 {
			coming[0]()
			coming[1]()
			coming = coming[2:]
		}
	}
	ticks := func(n int) {
		t.Helper()
		for range n {
			tick()
		}
	}
	a.ready.Store(40)
	if got := ask("a"); got != 0 {
		t.Errorf("target %d before the leader has shared the cap out, want 0", got)
	}
	b.shareOutAll(true, func(types.NamespacedName) {})
	if p, _, _ := b.store.Get(types.NamespacedName{Namespace: "scan", Name: "a"}); p != nil {
		if share, _ := b.ShareOf(p); share != 5 {
			t.Errorf("a leader waits with a group that no leader before it shared out: %d, want half", share)
		}
	}
	ticks(40)
	if got := ask("a"); got != 10 {
		t.Errorf("target %d of a alone, want 10", got)
	}
	b.shareOutAll(true, func(name types.NamespacedName) {
		t.Errorf("a leader that was just elected changes the share of %s", name)
	})
	other.ready.Store(40)
	ticks(40)
	if a, b := ask("a"), ask("b"); a != 5 || b != 0 {
		t.Errorf("targets %d and %d while a's ten Jobs run, want 5 and 0", a, b)
	}
	coming = nil
	watched.unfinished["a"] = 3
	ticks(2)
	if got := ask("b"); got != 5 {
		t.Errorf("target %d of b once a's Jobs have ended, want its half", got)
	}
}

// The service time outlives the scaler: until a replica knows it, it takes the published one, and without one the target stays.
func TestServiceTimeAfterRestart(t *testing.T) {
	drain := v1alpha1.Target{DrainWithin: &metav1.Duration{Duration: 10 * time.Minute}, MaxReplicas: ptr.To[int32](1000)}
	published := Published{}
	b := newDeciderBundle(t, func(c *Config) {
		c.Published = func(types.NamespacedName) (Published, bool) { return published, true }
	})
	s := b.set(t, "scans", "q", drain)
	s.ready.Store(6000)
	for _, step := range []struct {
		name                  string
		published             Published
		consumers, want, next int64
		reason                string
	}{
		{"nothing is known", Published{}, 0, 1000, 0, "capped at 1000"},
		{"consumers are there", Published{}, 20, 20, 0, "held at 20 until the service time"},
		{"a target was published", Published{Target: 300}, 20, 300, 0, "held at 300 until the service time"},
		// 6000 * 30 s / 600 s = 300
		{"a service time was published", Published{Target: 300, ServiceTime: 30 * time.Second}, 20, 320, 0, "at 30s each"},
	} {
		b.Forget(scans) // as after a restart
		b.clock.Add(2)
		published = step.published
		s.working.Store(step.consumers)
		d, err := b.Decide(t.Context(), scans)
		if err != nil || int64(d.Target) != step.want || !strings.Contains(d.Reason, step.reason) {
			t.Errorf("%s: %d (%s), %v; want %d (%s)", step.name, d.Target, d.Reason, err, step.want, step.reason)
		}
	}
}
