package decision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Config of a Decider.
type Config struct {
	Policies *policy.Store
	Recorder *Recorder
	// Loaded is closed once all policies are known, and with it which do not exist. Nil: they are known.
	Loaded <-chan struct{}
	// MaxAge is how old a sample of a backlog may be that a decision is taken by, or the failure to take one.
	MaxAge time.Duration
	// Timeout bounds a decision.
	Timeout time.Duration
	Now     func() time.Time
	// Workload tells what runs for policies. Nil: nobody watches it, and the consumers of backlogs stand in for it.
	Workload Workload
	// Published returns what the leader of the replicas has published of a policy, and false where there is nothing yet. Nil: there is one
	// replica, which publishes nothing and works shares of caps out by itself.
	Published func(policy types.NamespacedName) (published Published, known bool)
}

// Workload tells what runs for policies.
type Workload interface {
	// OfJobs reports whether a policy's workload are Jobs, which nobody ends, and not pods that a lower target ends.
	OfJobs(policy types.NamespacedName) bool
	// Unfinished returns how many Jobs of a policy have not ended, those that boot included. Known is false while it can't tell.
	Unfinished(policy types.NamespacedName) (unfinished int64, known bool)
}

// Published is what one replica, the leader, has worked out of a policy, for all replicas and for those that come after them.
type Published struct {
	// Group whose cap the policy shares, empty for none, and its share.
	Group string
	Share int64
	// ServiceTime of a message as it was observed, 0 when it is not known.
	ServiceTime time.Duration
	// Target of the last decision.
	Target int64
}

// Decider takes decisions, and keeps of each policy what the next one needs. It is safe for concurrent use; a policy that is slow, broken or
// hostile delays no other.
type Decider struct {
	config Config

	mu     sync.Mutex
	states map[types.NamespacedName]*state
	groups map[groupName]*group
}

// state is what is kept of a policy from decision to decision.
type state struct {
	finishing atomic.Bool // a decision is being taken that its caller did not wait for

	mu sync.Mutex
	memory
}

// memory is what is forgotten when a policy gets another backlog.
type memory struct {
	policy      *policy.Policy     // that the rest is of
	observation sizing.Observation // the last good one
	decision    sizing.Decision
	serviceTime sizing.ServiceTime
	peaks       sizing.Peaks
	quiet       sizing.Quiet
}

// NewDecider returns a decider.
func NewDecider(config Config) *Decider {
	return &Decider{config: config, states: map[types.NamespacedName]*state{}, groups: map[groupName]*group{}}
}

// Failure is why no decision could be taken.
type Failure struct {
	Kind FailureKind
	Text string
}

// FailureKind is what a caller can do about a Failure.
type FailureKind int

// The kinds.
const (
	// NotFound is the failure of a policy that does not exist.
	NotFound FailureKind = iota
	// NotValid is that of a policy of which no version was ever valid.
	NotValid
	// NotReady passes: ask again.
	NotReady
	// GivenUp is that of a caller who did not wait.
	GivenUp
)

// Error implements error.
func (f *Failure) Error() string { return f.Text }

// Forget drops what is kept of a deleted policy.
func (d *Decider) Forget(name types.NamespacedName) {
	d.mu.Lock()
	delete(d.states, name)
	d.mu.Unlock()
	d.leaveGroups(name)
}

func (d *Decider) state(name types.NamespacedName) *state {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := d.states[name]
	if st == nil {
		st = &state{}
		d.states[name] = st
	}
	return st
}

// inForce returns the version of a policy that is in force. Its error is a *Failure.
func (d *Decider) inForce(name types.NamespacedName) (*policy.Policy, error) {
	p, invalid, known := d.config.Policies.Get(name)
	switch {
	case !known && (!d.loaded() || d.config.Policies.Announced(name)):
		return nil, &Failure{NotReady, fmt.Sprintf("ScalingPolicy %s is not known yet: policies are being loaded", name)}
	case !known:
		return nil, &Failure{NotFound, fmt.Sprintf("ScalingPolicy %s does not exist: create it, or correct `policy` in the trigger's metadata", name)}
	case p == nil:
		return nil, &Failure{NotValid, invalid.Error()}
	}
	return p, nil
}

func (d *Decider) loaded() bool {
	if d.config.Loaded == nil {
		return true
	}
	select {
	case <-d.config.Loaded:
		return true
	default:
		return false
	}
}

// Decide takes a decision for a policy, or returns the last one while the sample and the limits that it was taken by are current. Its errors
// are *Failure.
func (d *Decider) Decide(ctx context.Context, name types.NamespacedName) (sizing.Decision, error) {
	return d.DecideBy(ctx, name, d.config.MaxAge)
}

// edits is how often one decision starts over because the policy got another backlog meanwhile.
const edits = 3

// DecideBy is Decide by a sample that is no older than maxAge.
func (d *Decider) DecideBy(ctx context.Context, name types.NamespacedName, maxAge time.Duration) (sizing.Decision, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, d.config.Timeout, fmt.Errorf("no answer within %s", d.config.Timeout))
	defer cancel()
	for range edits {
		p, err := d.inForce(name)
		if err != nil {
			return sizing.Decision{}, err
		}
		begin := d.config.Now()
		observation, failure := p.Source.Observe(bounded, maxAge)
		if failure != nil && ctx.Err() != nil { // the broker may be well
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				d.finish(name, maxAge)
			}
			return sizing.Decision{}, &Failure{GivenUp, "the caller did not wait until the backlog was read"}
		}
		if decided, ok, err := d.decideBy(ctx, p, observation, failure, begin, maxAge); ok || err != nil {
			return decided, err
		}
	}
	return sizing.Decision{}, &Failure{NotReady, fmt.Sprintf("ScalingPolicy %s was edited again and again while its backlog was read", name)}
}

// finish takes, in the background, a decision that its caller did not wait for: if nobody ever waits for as long as a broker that hangs, its failure is
// seen all the same.
func (d *Decider) finish(name types.NamespacedName, maxAge time.Duration) {
	st := d.state(name)
	if !st.finishing.CompareAndSwap(false, true) {
		return
	}
	d.config.Recorder.Guard("call", func() {
		defer st.finishing.Store(false)
		var failure *Failure
		if _, err := d.DecideBy(context.Background(), name, maxAge); errors.As(err, &failure) && failure.Kind == NotFound {
			d.Forget(name)
		}
	})
}

// toldBytes bounds the text of a failure, which may hold what a broker sent. It is kept with each decision, and told in several places.
const toldBytes = 600

// told is a failure as it is kept.
func told(failure error) error {
	text := failure.Error()
	var missing *backlog.MissingQueuesError
	var unresolved *backlog.UnresolvedError
	if len(text) <= toldBytes || errors.As(failure, &missing) || errors.As(failure, &unresolved) {
		return failure
	}
	return errors.New(strings.ToValidUTF8(text[:toldBytes], "") + "...")
}

// decideBy takes a decision by an observation of the policy's backlog, or by the failure to make one. It is not ok when the policy reads another
// backlog by now: what was seen or failed there says nothing of it.
func (d *Decider) decideBy(
	ctx context.Context, observed *policy.Policy, observation sizing.Observation, failure error, begin time.Time, maxAge time.Duration,
) (decided sizing.Decision, ok bool, err error) {
	name := observed.Name
	st := d.state(name)
	st.mu.Lock()
	defer st.mu.Unlock()
	p, err := d.inForce(name)
	if err != nil {
		d.Forget(name) // it was deleted meanwhile: leave nothing behind
		return decided, false, err
	}
	if p.Source != observed.Source {
		return decided, false, nil
	}
	now := d.config.Now()
	limits := p.Calendar.Limits(now)
	if last := &st.decision; st.policy == p && last.Limits == limits {
		sameSample := failure == nil && last.Failure == nil && last.Observation.Time.Equal(observation.Time)
		sameFailure := failure != nil && last.Failure != nil && now.Sub(last.Time).Abs() < maxAge
		if sameSample || sameFailure {
			return *last, true, nil
		}
	}
	if st.policy == nil || st.policy.Source != p.Source {
		st.memory = memory{}
	}
	st.policy = p
	if failure != nil {
		observation, failure = st.observation, told(failure)
	} else {
		observation = st.quiet.Observe(observation)
		st.observation = observation
		st.serviceTime.Observe(observation)
	}
	var published Published
	if p.Group != nil || observesServiceTime(p) {
		published = d.published(name)
	}
	decided = size(st, p, now, failure, limits, published)
	if p.Group != nil {
		decided = d.withinGroup(decided, p, published)
	}
	decided.Observation.Finished = nil // it is of use for the service time only
	st.decision = decided
	d.config.Recorder.Record(ctx, name, decided, begin)
	if _, _, still := d.config.Policies.Get(name); !still {
		d.config.Recorder.Forget(name)
		d.Forget(name)
	}
	return decided, true, nil
}

func (d *Decider) published(name types.NamespacedName) Published {
	if d.config.Published == nil {
		return Published{}
	}
	published, _ := d.config.Published(name)
	return published
}

// size works out the target of a policy by itself, from what is remembered of it.
func size(st *state, p *policy.Policy, now time.Time, failure error, limits calendar.Limits, published Published) sizing.Decision {
	mean := cmp.Or(published.ServiceTime, st.serviceTime.Mean())
	decided := sizing.Decide(now, st.observation, failure, limits, p.Target, mean)
	if observesServiceTime(p) && mean == 0 {
		previous := int64(st.decision.Target)
		if st.decision.Time.IsZero() {
			previous = published.Target
		}
		decided = decided.UntilServiceTimeKnown(max(previous, st.observation.Consumers))
	}
	if window := p.Target.ScaleInStabilization; window > 0 {
		decided = st.peaks.Stabilize(decided, window)
	}
	return decided
}

func observesServiceTime(p *policy.Policy) bool {
	return p.Target.DrainWithin > 0 && p.Target.ServiceTime == 0
}

// ServiceTime returns what a policy's messages take as this replica has observed it, 0 when it is not known.
func (d *Decider) ServiceTime(name types.NamespacedName) time.Duration {
	d.mu.Lock()
	st := d.states[name]
	d.mu.Unlock()
	if st == nil {
		return 0
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.serviceTime.Mean()
}
