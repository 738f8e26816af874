package sizing

import (
	"errors"
	"math"
	"strings"
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
		"several messages a replica": {seen(7, 3), nil, open, 4, 5, Backlog, "7 ready (4 a replica) and 3 in flight ask for 5"},
		"below the floor": {
			seenAll(0, 1, 1), nil, workday, 1, 5, Floor, "0 ready and 1 in flight ask for 1, 4 with 3 idle, below the floor of 5 of period workday",
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
			seen(30, 2), nil, workday, 1, 20, Cap, "30 ready and 2 in flight ask for 32, 35 with 3 idle, capped at 20 by period workday",
		},
		// Nothing waits, so of 8 consumers the 2 with a message are busy: 2 + 3 idle.
		"idle consumers count once": {
			seenAll(0, 8, 2), nil, workday, 1, 5, Idle, "0 ready and 2 in flight ask for 2, and period workday keeps 3 idle",
		},
		// A message waits, so a lagging count of unacknowledged ones does not matter.
		"lagging statistics":                 {seenAll(1, 8, 2), nil, open, 1, 9, Backlog, "1 ready and 8 in flight ask for 9"},
		"more unacknowledged than consumers": {seenAll(0, 1, 5), nil, open, 1, 1, Backlog, "0 ready and 1 in flight ask for 1"},
		// Of two queues with a single active consumer one has three standing by.
		"single active consumers": {
			Observation{Time: now, Ready: 100, Consumers: 4, Parallelism: 2}, nil, open, 1, 2, Backlog,
			"100 ready and 4 in flight, but queues with a single active consumer allow only 2 at once, ask for 2",
		},
		// The management API fails: consumers count as busy for as long as a backlog is held, and then for idle.
		"idle for all that is seen": {
			Observation{Time: now, Consumers: 10, ManagementFailure: "x", Quiet: 4 * time.Minute}, nil, open, 1, 10, Backlog, "0 ready and 10 in flight ask for 10",
		},
		"idle for all that is seen, long enough": {
			Observation{Time: now, Consumers: 10, ManagementFailure: "x", Quiet: 6 * time.Minute}, nil, calendar.Limits{Period: "night", MinReplicas: 2, MaxReplicas: 20}, 1, 2, Floor,
			"0 ready (10 consumers count as idle: nothing has waited for 6m0s, and the management API does not tell) and 0 in flight ask for 0, below the floor of 2 of period night",
		},
		"a floor above the cap": {
			seen(1, 0), nil, calendar.Limits{Period: "default", MinReplicas: 9, MaxReplicas: 5}, 1, 5, Cap,
			"1 ready and 0 in flight ask for 1, below the floor of 9, which is capped at 5 by period default",
		},
		"a queue that does not exist": {
			Observation{Time: now, Missing: []string{"scams"}}, nil, open, 1, 0, Backlog,
			`0 ready and 0 in flight ask for 0; queue "scams" does not exist and counts as empty`,
		},
		"queues that do not exist": {
			Observation{Time: now, Ready: 2, Missing: []string{"a", "b\nc", "d", "e"}}, nil, open, 1, 2, Backlog,
			`2 ready and 0 in flight ask for 2; queues "a", "b\nc", "d" and 1 more do not exist and count as empty`,
		},
		// What a user or a broker wrote forges no line, and no other series.
		"names with newlines": {
			seen(9, 0), nil, calendar.Limits{Period: "x\nTARGET 0\xff\u202e", MaxReplicas: 5}, 1, 5, Cap,
			`9 ready and 0 in flight ask for 9, capped at 5 by period x\nTARGET 0` + "\uFFFD" + `\u202e`,
		},
		"errors with newlines": {
			Observation{}, errors.New("no\r\nsuch thing"), open, 1, 0, Outage,
			`the backlog can't be read (no\r\nsuch thing); the limits of period default ask for 0`,
		},
		"more messages than can be": {
			seen(math.MaxInt64, 0), nil, open, 3, 100, Cap,
			"9223372036854775807 ready (3 a replica) and 0 in flight ask for 3074457345618258603, capped at 100 by period default",
		},
		// 30% of 40 are 12.
		"surplus": {
			seen(40, 10), nil, calendar.Limits{Period: "workday", MaxReplicas: 100, Surplus: calendar.Surplus{Percent: 30}}, 1, 62, Surplus,
			"40 ready and 10 in flight ask for 50, and period workday adds 12 while messages wait (30%)",
		},
		"surplus and idle reserve": {
			seen(4, 1), nil, calendar.Limits{Period: "workday", IdleReplicas: 3, MaxReplicas: 100, Surplus: calendar.Surplus{Replicas: 2}}, 1, 10, Surplus,
			"4 ready and 1 in flight ask for 5, and period workday keeps 3 idle and adds 2 while messages wait (2)",
		},
		// ceil(40 / 10) = 4 replicas are for what waits, and half of them 2.
		"surplus of several messages a replica": {
			seen(40, 0), nil, calendar.Limits{Period: "default", MaxReplicas: 100, Surplus: calendar.Surplus{Percent: 50}}, 10, 6, Surplus,
			"40 ready (10 a replica) and 0 in flight ask for 4, and period default adds 2 while messages wait (50%)",
		},
		"no surplus when nothing waits": {
			seenAll(0, 5, 3), nil, calendar.Limits{Period: "default", MaxReplicas: 100, Surplus: calendar.Surplus{Replicas: 2}}, 1, 3, Backlog,
			"0 ready and 3 in flight ask for 3",
		},
		"a surplus that rounds to none": {
			seen(3, 0), nil, calendar.Limits{Period: "default", MaxReplicas: 100, Surplus: calendar.Surplus{Percent: 30}}, 1, 3, Backlog, "3 ready and 0 in flight ask for 3",
		},
		"surplus above the cap": {
			seen(9, 0), nil, calendar.Limits{Period: "default", IdleReplicas: 1, MaxReplicas: 10, Surplus: calendar.Surplus{Replicas: 4}}, 1, 10, Cap,
			"9 ready and 0 in flight ask for 9, 14 with 1 idle and a surplus of 4, capped at 10 by period default",
		},
		"surplus below the floor": {
			seen(1, 0), nil, calendar.Limits{Period: "default", MinReplicas: 9, MaxReplicas: 10, Surplus: calendar.Surplus{Replicas: 2}}, 1, 9, Floor,
			"1 ready and 0 in flight ask for 1, 3 with a surplus of 2, below the floor of 9 of period default",
		},
		"no surplus for what can't be worked on": {
			Observation{Time: now, Ready: 9, Consumers: 1, Parallelism: 10}, nil,
			calendar.Limits{Period: "default", MaxReplicas: 100, Surplus: calendar.Surplus{Replicas: 4}}, 1, 10, Backlog, "9 ready and 1 in flight ask for 10",
		},
		// Of 9 unfinished messages 6 are in flight, so 3 wait.
		"surplus of a Kafka group": {
			Observation{Time: now, Ready: 9, Consumers: 6, ReadyHoldsInFlight: true}, nil,
			calendar.Limits{Period: "default", MaxReplicas: 100, Surplus: calendar.Surplus{Percent: 100}}, 1, 12, Surplus,
			"9 unfinished ask for 9, and period default adds 3 while messages wait (100%)",
		},
		"a Kafka group of which nothing waits": {
			Observation{Time: now, Ready: 6, Consumers: 6, ReadyHoldsInFlight: true}, nil,
			calendar.Limits{Period: "default", MaxReplicas: 100, Surplus: calendar.Surplus{Replicas: 2}}, 1, 6, Backlog, "6 unfinished ask for 6",
		},
		"a source that does not tell what waits": {
			Observation{Time: now, Ready: 6, ConsumersUnknown: true, ReadyHoldsInFlight: true}, nil,
			calendar.Limits{Period: "default", MaxReplicas: 100, Surplus: calendar.Surplus{Replicas: 2}}, 1, 6, Backlog, "6 unfinished ask for 6",
		},
		"a surplus is held with what was seen": {
			stale(seen(7, 3), 40*time.Second), refused, calendar.Limits{Period: "default", MaxReplicas: 100, Surplus: calendar.Surplus{Replicas: 2}}, 1, 12, Hold,
			"7 ready and 3 in flight ask for 10, and period default adds 2 while messages wait (2), as of 40s ago: the backlog can't be read (connection refused)",
		},
		"an outage has no surplus": {
			Observation{}, refused, calendar.Limits{Period: "default", MinReplicas: 1, MaxReplicas: 100, Surplus: calendar.Surplus{Replicas: 2}}, 1, 1, Outage,
			"the backlog can't be read (connection refused); the limits of period default ask for 1",
		},
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
			got := Decide(now, tc.observation, tc.failure, tc.limits, Parameters{MessagesPerReplica: tc.perReplica, HoldFor: 5 * time.Minute}, 0)
			if got.Target != tc.want || got.Constraint != tc.constraint {
				t.Errorf("target %d by %s, want %d by %s", got.Target, got.Constraint, tc.want, tc.constraint)
			}
			if diff := cmp.Diff(tc.reason, got.Reason); diff != "" {
				t.Errorf("reason (-want +got):\n%s", diff)
			}
		})
	}
}

// Quiet begins again when a message waits, when it is told again how many consumers work, and when the clock is put back; a policy without a
// management API is never quiet.
func TestQuiet(t *testing.T) {
	failing := Observation{Consumers: 10, ManagementFailure: "x"}
	waiting, told, without, empty := failing, failing, failing, failing
	waiting.Ready, told.UnacknowledgedKnown, told.ManagementFailure, without.ManagementFailure, empty.Consumers = 1, true, "", "", 0
	var q Quiet
	for i, step := range []struct {
		o    Observation
		at   time.Duration
		want time.Duration
	}{
		{failing, 0, 0}, {failing, time.Minute, time.Minute}, {failing, 9 * time.Minute, 9 * time.Minute},
		{waiting, 10 * time.Minute, 0}, {failing, 11 * time.Minute, 0}, {failing, 12 * time.Minute, time.Minute},
		{told, 13 * time.Minute, 0}, {failing, 14 * time.Minute, 0}, {failing, 15 * time.Minute, time.Minute},
		{failing, 3 * time.Minute, 0}, {failing, 5 * time.Minute, 2 * time.Minute},
		{empty, 6 * time.Minute, 0}, {without, 7 * time.Minute, 0}, {without, 70 * time.Minute, 0},
	} {
		step.o.Time = now.Add(step.at)
		if got := q.Observe(step.o).Quiet; got != step.want {
			t.Errorf("step %d: quiet for %s, want %s", i, got, step.want)
		}
	}
}

func TestDecideDrain(t *testing.T) {
	open := calendar.Limits{Period: "default", MaxReplicas: 100}
	cases := map[string]struct {
		ready       int64
		parameters  Parameters
		observed    time.Duration
		want        int32
		constraint  Constraint
		reasonHolds string
	}{
		// 60 * 30 s / 600 s = 3, and 2 are busy.
		"fewer are enough":     {60, Parameters{DrainWithin: 10 * time.Minute, ServiceTime: 30 * time.Second}, 0, 5, Drain, "60 ready, at 30s each to be drained within 10m0s by 3, and 2 in flight ask for 5"},
		"observed":             {60, Parameters{DrainWithin: 10 * time.Minute}, 20 * time.Second, 4, Drain, "at 20s each"},
		"given comes first":    {60, Parameters{DrainWithin: 10 * time.Minute, ServiceTime: 30 * time.Second}, 20 * time.Second, 5, Drain, "at 30s each"},
		"rounded up":           {1, Parameters{DrainWithin: time.Hour, ServiceTime: time.Second}, 0, 3, Backlog, "ask for 3"},
		"not observed yet":     {60, Parameters{DrainWithin: 10 * time.Minute}, 0, 62, Backlog, "ask for 62"},
		"more than a job each": {4, Parameters{DrainWithin: time.Second, ServiceTime: time.Minute}, 0, 6, Backlog, "ask for 6"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.parameters.MessagesPerReplica = 1
			got := Decide(now, Observation{Time: now, Ready: tc.ready, Consumers: 2}, nil, open, tc.parameters, tc.observed)
			if got.Target != tc.want || got.Constraint != tc.constraint || !strings.Contains(got.Reason, tc.reasonHolds) {
				t.Errorf("%d by %s: %s; want %d by %s: %s", got.Target, got.Constraint, got.Reason, tc.want, tc.constraint, tc.reasonHolds)
			}
		})
	}
}

// A Kafka group's lag holds what is worked on, and no more consumers than partitions can work.
func TestDecideLag(t *testing.T) {
	limits := calendar.Limits{Period: "default", IdleReplicas: 1, MaxReplicas: 100}
	o := Observation{Time: now, Ready: 40, ReadyHoldsInFlight: true, Consumers: 6, Parallelism: 12}
	got := Decide(now, o, nil, limits, Parameters{MessagesPerReplica: 1}, 0)
	if got.Target != 13 || got.InFlight != 6 || got.Reason != "40 unfinished, on 12 partitions, ask for 12, and period default keeps 1 idle" {
		t.Errorf("%d, %d in flight: %s", got.Target, got.InFlight, got.Reason)
	}
	o.Ready = 5
	if got := Decide(now, o, nil, limits, Parameters{MessagesPerReplica: 1}, 0); got.Target != 6 || got.InFlight != 5 {
		t.Errorf("%d, %d in flight: %s", got.Target, got.InFlight, got.Reason)
	}
}

// While the service time is not known a target does not jump to one replica for each message.
func TestUntilServiceTimeKnown(t *testing.T) {
	limits := calendar.Limits{Period: "default", MinReplicas: 2, MaxReplicas: 100}
	for name, tc := range map[string]struct {
		ready, previous int64
		want            int32
		constraint      Constraint
	}{
		"held":                     {6000, 12, 12, Drain},
		"less is enough":           {5, 12, 5, Backlog},
		"the floor":                {6000, 1, 2, Drain},
		"nothing to hold":          {6000, 0, 100, Cap},
		"no more than was allowed": {6000, 300, 100, Cap},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(now, Observation{Time: now, Ready: tc.ready}, nil, limits, Parameters{MessagesPerReplica: 1, DrainWithin: time.Minute}, 0)
			if d = d.UntilServiceTimeKnown(tc.previous); d.Target != tc.want || d.Constraint != tc.constraint {
				t.Errorf("%d by %s (%s), want %d by %s", d.Target, d.Constraint, d.Reason, tc.want, tc.constraint)
			}
		})
	}
}

// Numbers beyond all measure, as a hostile broker may answer them, are many, not none.
func TestDecideBeyondMeasure(t *testing.T) {
	for name, o := range map[string]Observation{
		"both":      {Ready: math.MaxInt64, Consumers: math.MaxInt64},
		"consumers": {Ready: 1, Consumers: math.MaxInt64},
		"ready":     {Ready: math.MaxInt64},
	} {
		d := Decide(now, o, nil, calendar.Limits{Period: "p", IdleReplicas: math.MaxInt32, MaxReplicas: 50}, Parameters{MessagesPerReplica: 1}, 0)
		if d.Target != 50 || d.Constraint != Cap {
			t.Errorf("%s: target %d by %s: %s", name, d.Target, d.Constraint, d.Reason)
		}
	}
}
