package target

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func TestDecide(t *testing.T) {
	seen := func(ready, consumers int64) Observation {
		return Observation{Time: now, Ready: ready, Consumers: consumers}
	}
	seenAll := func(ready, consumers, unacknowledged int64) Observation {
		o := seen(ready, consumers)
		o.Unacknowledged, o.UnacknowledgedKnown = unacknowledged, true
		return o
	}
	stale := func(o Observation, age time.Duration) Observation {
		o.Time = now.Add(-age)
		return o
	}
	workday := calendar.Limits{Period: "workday", MinReplicas: 5, IdleReplicas: 3, MaxReplicas: 20}
	open := calendar.Limits{Period: "default", MaxReplicas: 100}
	refused := errors.New("connection refused")
	cases := map[string]struct {
		observation Observation
		failure     error
		limits      calendar.Limits
		perReplica  int64
		want        int32
		constraint  Constraint
		reason      string
	}{
		"nothing": {seen(0, 0), nil, open, 1, 0, Backlog, "0 ready and 0 in flight ask for 0"},
		// 7 wait and 3 consumers are busy: 10 jobs, of which 3 exist.
		"ready and consumers": {seen(7, 3), nil, open, 1, 10, Backlog, "7 ready and 3 in flight ask for 10"},
		// ceil(7/4) = 2
		"several messages a replica": {seen(7, 3), nil, open, 4, 5, Backlog, "7 ready and 3 in flight ask for 5"},
		"below the floor": {
			seenAll(0, 1, 1), nil, workday, 1, 5, Floor, "0 ready and 1 in flight ask for 4, below the floor of 5 of period workday",
		},
		// The one consumer may be idle already: the reserve of 3 is filled up, not added.
		"reserve without statistics": {
			seen(0, 1), nil, calendar.Limits{Period: "night", IdleReplicas: 3, MaxReplicas: 9}, 1, 3, Idle,
			"0 ready and 1 in flight ask for 1, and period night keeps 2 idle",
		},
		"reserve filled": {
			seen(0, 3), nil, calendar.Limits{Period: "night", IdleReplicas: 3, MaxReplicas: 9}, 1, 3, Backlog,
			"0 ready and 3 in flight ask for 3",
		},
		"idle reserve": {
			seen(4, 2), nil, workday, 1, 9, Idle, "4 ready and 2 in flight ask for 6, and period workday keeps 3 idle",
		},
		"cap": {
			seen(30, 2), nil, workday, 1, 20, Cap, "30 ready and 2 in flight ask for 35, capped at 20 by period workday",
		},
		// Nothing waits, so of 8 consumers the 2 with a message are busy: 2 + 3 idle.
		"idle consumers count once": {
			seenAll(0, 8, 2), nil, workday, 1, 5, Idle, "0 ready and 2 in flight ask for 2, and period workday keeps 3 idle",
		},
		// A message waits, so a lagging count of unacknowledged ones does not matter.
		"lagging statistics":                 {seenAll(1, 8, 2), nil, open, 1, 9, Backlog, "1 ready and 8 in flight ask for 9"},
		"more unacknowledged than consumers": {seenAll(0, 1, 5), nil, open, 1, 1, Backlog, "0 ready and 1 in flight ask for 1"},
		"hold": {
			stale(seen(7, 3), 40*time.Second), refused, open, 1, 10, Hold,
			"7 ready and 3 in flight ask for 10, as of 40s ago: the backlog can't be read (connection refused)",
		},
		"held long enough": {
			stale(seen(7, 3), 301*time.Second), refused, workday, 1, 5, Outage,
			"the backlog can't be read (connection refused); the limits of period workday ask for 5",
		},
		"never seen": {
			Observation{}, refused, workday, 1, 5, Outage,
			"the backlog can't be read (connection refused); the limits of period workday ask for 5",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Decide(now, tc.observation, tc.failure, tc.limits, Policy{tc.perReplica, 5 * time.Minute})
			if got.Target != tc.want || got.Constraint != tc.constraint {
				t.Errorf("target %d by %s, want %d by %s", got.Target, got.Constraint, tc.want, tc.constraint)
			}
			if diff := cmp.Diff(tc.reason, got.Reason); diff != "" {
				t.Errorf("reason (-want +got):\n%s", diff)
			}
		})
	}
}

// Replays random loads through KEDA's arithmetic for a ScaledJob (scaling strategy default, minReplicaCount 0): every
// message gets a job, and no job finds no message. Jobs take seconds to start; a worker takes one message, leaves the
// queue when it is done, and its Job counts as unfinished for a moment longer.
func TestJobsMatchMessages(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		const sending, horizon, poll = 600, 200_000, 2
		limits := calendar.Limits{MaxReplicas: int32(1 + random.IntN(60))}
		type job struct{ starts, leaves, finishes int }
		var jobs []job
		ready, sent, taken, idle := int64(0), 0, 0, 0
		for second := range horizon {
			if second < sending && random.IntN(4) == 0 {
				burst := 1 + random.IntN(1+random.IntN(40))
				ready += int64(burst)
				sent += burst
			}
			var consumers, unfinished int64
			for i := range jobs {
				j := &jobs[i]
				if j.starts == second {
					if ready == 0 {
						idle++
						j.leaves, j.finishes = second, second
					} else {
						ready--
						taken++
						j.leaves = second + 1 + random.IntN(30)
						j.finishes = j.leaves + 1 + random.IntN(2)
					}
				}
				if j.starts <= second && second < j.leaves {
					consumers++
				}
				if second < j.finishes {
					unfinished++
				}
			}
			if second > sending && ready == 0 && unfinished == 0 {
				break
			}
			if second%poll != 0 {
				continue
			}
			d := Decide(now, Observation{Time: now, Ready: ready, Consumers: consumers}, nil, limits, Policy{MessagesPerReplica: 1})
			if int64(d.Target) > int64(limits.MaxReplicas) {
				t.Fatalf("target %d above the cap %d", d.Target, limits.MaxReplicas)
			}
			for range kedaCreates(int64(d.Target), unfinished) {
				jobs = append(jobs, job{starts: second + 2 + random.IntN(60), leaves: horizon, finishes: horizon})
			}
		}
		if idle > 0 {
			t.Fatalf("seed %d: %d of %d jobs found no message", seed, idle, len(jobs))
		}
		if taken != sent {
			t.Fatalf("seed %d: %d of %d messages were taken", seed, taken, sent)
		}
	}
}

// kedaCreates is how many Jobs KEDA's strategy `default` creates for a metric value at target size 1, with
// minReplicaCount 0 and a maxReplicaCount out of reach.
func kedaCreates(value, unfinished int64) int64 { return max(0, value-unfinished) }
