package sizing

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// What a surplus promises, on random backlogs: never above the cap, none where nothing waits, never more than stated, and no second one when
// its workers come: a message that a worker takes lowers the target or leaves it.
func TestSurplusKeepsItsPromises(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	added := 0
	for round := range 20_000 {
		o := Observation{Time: now, Ready: random.Int64N(200), Consumers: random.Int64N(100), ReadyHoldsInFlight: random.IntN(4) == 0}
		if random.IntN(4) == 0 {
			o.Ready = 0
		}
		if random.IntN(2) == 0 && !o.ReadyHoldsInFlight {
			o.Unacknowledged, o.UnacknowledgedKnown = random.Int64N(100), true
		}
		if random.IntN(4) == 0 {
			o.Parallelism = 1 + random.Int64N(150)
		}
		p := Parameters{MessagesPerReplica: 1 + random.Int64N(3)*random.Int64N(5)}
		if random.IntN(4) == 0 {
			p.DrainWithin, p.ServiceTime = 10*time.Minute, time.Duration(1+random.IntN(600))*time.Second
		}
		without := calendar.Limits{Period: "p", MinReplicas: random.Int32N(20), IdleReplicas: random.Int32N(5), MaxReplicas: 20 + random.Int32N(200)}
		limits := without
		limits.Surplus = calendar.Surplus{Replicas: random.Int32N(20)}
		if random.IntN(2) == 0 {
			limits.Surplus = calendar.Surplus{Percent: random.Int32N(300)}
		}
		d, plain := Decide(now, o, nil, limits, p, 0), Decide(now, o, nil, without, p, 0)
		fail := func(why string) {
			t.Helper()
			t.Fatalf("round %d: %s\n%+v\n%+v\n%+v", round, why, o, d, plain)
		}
		more := int64(d.Target) - int64(plain.Target)
		waits := o.Ready
		if o.ReadyHoldsInFlight {
			waits = max(0, o.Ready-o.Consumers)
		}
		switch {
		case d.Target > limits.MaxReplicas:
			fail("above the cap")
		case more < 0 || more > d.Surplus || d.Surplus > limits.Surplus.Of(waits):
			fail("more than stated")
		case waits == 0 && !cmp.Equal(d, plain, cmpopts.IgnoreUnexported(Decision{}), cmpopts.IgnoreFields(Decision{}, "Limits")):
			fail("a surplus where nothing waits")
		case d.Constraint == Surplus && more == 0 && d.Target != limits.MinReplicas, more > 0 && d.Constraint != Surplus && d.Constraint != Cap:
			fail("the constraint says something else")
		case !cmp.Equal(d, Decide(now, o, nil, limits, p, 0), cmpopts.IgnoreUnexported(Decision{})):
			fail("the same question has another answer")
		}
		if d.Surplus > 0 {
			added++
		}
		if o.Ready == 0 || o.ReadyHoldsInFlight || p.MessagesPerReplica > 1 || p.DrainWithin > 0 {
			continue
		}
		next := o
		next.Ready, next.Consumers = o.Ready-1, o.Consumers+1
		if taken := Decide(now, next, nil, limits, p, 0); taken.Target > d.Target {
			t.Fatalf("round %d: a worker that took a message raised the target from %d to %d\n%+v", round, d.Target, taken.Target, o)
		}
	}
	if added < 5_000 {
		t.Errorf("only %d of the backlogs had a surplus: they test too little", added)
	}
}

// Through KEDA's arithmetic a surplus starts no job twice: unfinished jobs never exceed the messages that were there at once and their surplus,
// and the jobs that find no message are no more than the surpluses of the bursts.
func TestSurplusStartsNoJobTwice(t *testing.T) {
	for seed := range uint64(40) {
		l := load{
			seed: seed, messages: 120, burst: 120, bootMin: 5, bootMax: 30, workMin: 5, workMean: 20, poll: 2, maxReplicas: 1000,
			leavingMin: 1, leavingMax: 3,
		}
		m := func(s calendar.Surplus) metric {
			return func(q *queue) int64 {
				limits := q.limits
				limits.Surplus = s
				return int64(Decide(now, Observation{Time: now, Ready: q.ready, Consumers: q.consumers}, nil, limits, Parameters{MessagesPerReplica: 1}, 0).Target)
			}
		}
		plain, more := replay(l, m(calendar.Surplus{}), "default"), replay(l, m(calendar.Surplus{Percent: 30}), "default")
		if plain.jobs != l.messages || plain.empty != 0 {
			t.Fatalf("seed %d: %d jobs without a surplus", seed, plain.jobs)
		}
		if more.taken != l.messages || more.jobs > l.messages*130/100 || more.empty != more.jobs-l.messages {
			t.Errorf("seed %d: %d jobs for %d messages, %d found none", seed, more.jobs, l.messages, more.empty)
		}
	}
}
