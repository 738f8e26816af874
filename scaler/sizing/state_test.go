package sizing

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

func TestSplit(t *testing.T) {
	m := func(name string, weight, wanted, running int64) Member {
		return Member{Name: name, Weight: weight, Wanted: wanted, Running: running}
	}
	cases := map[string]struct {
		limit   int64
		members []Member
		want    map[string]int64
	}{
		"enough for all":       {10, []Member{m("a", 1, 3, 0), m("b", 1, 4, 0)}, map[string]int64{"a": 3, "b": 4}},
		"half each":            {10, []Member{m("a", 1, 50, 0), m("b", 1, 50, 0)}, map[string]int64{"a": 5, "b": 5}},
		"by weight":            {9, []Member{m("a", 2, 50, 0), m("b", 1, 50, 0)}, map[string]int64{"a": 6, "b": 3}},
		"what one leaves":      {10, []Member{m("a", 1, 2, 0), m("b", 1, 50, 0), m("c", 1, 50, 0)}, map[string]int64{"a": 2, "b": 4, "c": 4}},
		"the remainder":        {10, []Member{m("b", 1, 50, 0), m("a", 1, 50, 0), m("c", 1, 50, 0)}, map[string]int64{"a": 4, "b": 3, "c": 3}},
		"running stays":        {10, []Member{m("a", 1, 50, 9), m("b", 1, 50, 0)}, map[string]int64{"a": 9, "b": 1}},
		"running past its own": {10, []Member{m("a", 1, 0, 7), m("b", 1, 50, 0)}, map[string]int64{"a": 7, "b": 3}},
		"more runs than fits":  {10, []Member{m("a", 1, 50, 12), m("b", 1, 50, 0)}, map[string]int64{"a": 12, "b": 0}},
		"nothing":              {0, []Member{m("a", 1, 5, 0)}, map[string]int64{"a": 0}},
		"as much as can be": {math.MaxInt32, []Member{m("a", 1, math.MaxInt32, 0), m("b", 2, math.MaxInt32, 0)},
			map[string]int64{"a": 715827882, "b": 1431655765}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for i := range tc.members {
				tc.members[i].Limit = tc.limit + int64(i) // the smallest counts
			}
			got, limit := Split(tc.members)
			if diff := cmp.Diff(tc.want, got); diff != "" || limit != tc.limit {
				t.Errorf("of %d (-want +got):\n%s", limit, diff)
			}
		})
	}
}

// A split wastes nothing, exceeds the cap only by what runs, and is fair: who wants more has, for its weight, at least
// as much as anyone who was given more than runs, but for one replica.
func TestSplitIsFair(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 2))
		limit := random.Int64N(60)
		var members []Member
		var wanted, running int64
		for i := range 1 + random.IntN(6) {
			m := Member{Name: string(rune('a' + i)), Weight: 1 + random.Int64N(5), Wanted: random.Int64N(40), Limit: limit}
			if random.IntN(2) == 0 {
				m.Running = random.Int64N(1 + m.Wanted)
			}
			wanted, running = wanted+m.Wanted, running+m.Running
			members = append(members, m)
		}
		share, _ := Split(members)
		var sum int64
		for _, a := range members {
			sum += share[a.Name]
			for _, b := range members {
				if share[a.Name] < a.Wanted && share[b.Name] > b.Running &&
					float64(share[a.Name]+1)/float64(a.Weight) < float64(share[b.Name]-1)/float64(b.Weight) {
					t.Fatalf("seed %d: %+v of %d: %v is not fair to %s against %s", seed, members, limit, share, a.Name, b.Name)
				}
			}
		}
		if want := max(running, min(limit, wanted)); sum != want {
			t.Fatalf("seed %d: %+v of %d: %v adds up to %d, want %d", seed, members, limit, share, sum, want)
		}
	}
}

// However large a cap is and however many share it, a split takes no time to speak of: it runs while others wait.
func TestSplitIsQuick(t *testing.T) {
	for _, limit := range []int64{10_000_000, math.MaxInt32} {
		members := make([]Member, 10_000)
		for i := range members {
			members[i] = Member{Name: fmt.Sprint(i), Weight: 1 + int64(i%7), Wanted: math.MaxInt32, Running: int64(i % 3), Limit: limit}
		}
		begin := time.Now()
		share, _ := Split(members)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("a cap of %d among %d took %s", limit, len(members), took)
		}
		var sum int64
		for _, n := range share {
			sum += n
		}
		if sum != limit {
			t.Errorf("the shares of %d add up to %d", limit, sum)
		}
	}
}

// Whoever wants more when, whoever is asked first, and however long replicas take to be created and to end: there are never more than the
// cap, and in the end each has its fair share.
func TestSharedCapIsNeverExceeded(t *testing.T) {
	const settle, boot = 10 * time.Second, 8 * time.Second // from an answer to a replica that is seen
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 4))
		limit := 1 + random.Int64N(20)
		type job struct{ seen, ends int } // seconds
		type policy struct {
			jobs   []job
			wanted int64
		}
		policies := make([]policy, 2+random.IntN(4))
		shares := make([]int64, len(policies))
		var shared SharedCap
		members := func(second int) []Member {
			list := make([]Member, len(policies))
			for i := range policies {
				p := &policies[i]
				running := int64(0)
				for _, j := range p.jobs {
					if j.seen <= second {
						running++
					}
				}
				list[i] = Member{Name: string(rune('a' + i)), Weight: 1 + int64(i%3), Wanted: p.wanted, Running: running, Share: shares[i], Limit: limit}
			}
			return list
		}
		for second := range 600 {
			at := now.Add(time.Duration(second) * time.Second)
			var sum int64
			for i := range policies {
				p := &policies[i]
				p.jobs = slices.DeleteFunc(p.jobs, func(j job) bool { return j.ends <= second })
				if second < 400 && random.IntN(10) == 0 {
					p.wanted = random.Int64N(2 * limit)
				} else if second >= 400 {
					p.wanted = 2 * limit
				}
			}
			next, _ := shared.Share(at, settle, members(second))
			for i := range policies {
				shares[i] = next[string(rune('a'+i))]
				p := &policies[i]
				if random.IntN(3) > 0 { // it is not asked for at this second
					continue
				}
				target := min(p.wanted, shares[i])
				for range target - int64(len(p.jobs)) {
					seen := second + random.IntN(int(boot/time.Second))
					p.jobs = append(p.jobs, job{seen, seen + 1 + random.IntN(40)})
				}
			}
			for i := range policies {
				sum += int64(len(policies[i].jobs))
			}
			if sum > limit {
				t.Fatalf("seed %d, second %d: %d replicas for a cap of %d", seed, second, sum, limit)
			}
		}
		var sum int64
		for _, share := range shares {
			sum += share
		}
		if sum != limit {
			t.Errorf("seed %d: when all want more, shares %v do not use the cap of %d", seed, shares, limit)
		}
	}
}

func TestWithin(t *testing.T) {
	d := Decide(now, Observation{Time: now, Ready: 9}, nil, calendar.Limits{Period: "default", MaxReplicas: 50}, Parameters{MessagesPerReplica: 1}, 0)
	if same := d.Within("seats", 9, 20); same.Target != 9 || same.Constraint != Backlog {
		t.Errorf("%d by %s", same.Target, same.Constraint)
	}
	got := d.Within("seats", 4, 20)
	want := "9 ready and 0 in flight ask for 9; capped at 4, its share of the 20 of group seats"
	if got.Target != 4 || got.Constraint != Cap || got.Reason != want {
		t.Errorf("%d by %s: %s", got.Target, got.Constraint, got.Reason)
	}
}

func TestStabilize(t *testing.T) {
	var peaks Peaks
	at := func(second int, ready int64, limit int32) Decision {
		time := now.Add(time.Duration(second) * time.Second)
		d := Decide(time, Observation{Time: time, Ready: ready}, nil, calendar.Limits{Period: "p", MaxReplicas: limit}, Parameters{MessagesPerReplica: 1}, 0)
		return peaks.Stabilize(d, time.Sub(time.Add(-60e9)))
	}
	for _, step := range []struct {
		second     int
		ready      int64
		limit      int32
		want       int32
		constraint Constraint
	}{
		{0, 4, 50, 4, Backlog}, {10, 9, 50, 9, Backlog}, {20, 2, 50, 9, ScaleIn}, {40, 6, 50, 9, ScaleIn},
		{50, 0, 7, 7, ScaleIn}, // a lower cap counts at once
		{70, 0, 50, 9, ScaleIn}, {71, 0, 50, 6, ScaleIn}, {101, 0, 50, 0, Backlog}, {102, 3, 50, 3, Backlog},
	} {
		if d := at(step.second, step.ready, step.limit); d.Target != step.want || d.Constraint != step.constraint {
			t.Errorf("second %d: %d by %s (%s), want %d by %s", step.second, d.Target, d.Constraint, d.Reason, step.want, step.constraint)
		}
	}
	d := at(103, 0, 50)
	if !strings.HasSuffix(d.Reason, "; held at 3, the highest of the last 1m0s") {
		t.Errorf("reason %q", d.Reason)
	}
}

// Workers that take a known time on average, sampled every few seconds with a lagging count, are measured within a tenth.
func TestServiceTime(t *testing.T) {
	for _, mean := range []float64{4, 30, 200} {
		random := rand.New(rand.NewPCG(uint64(mean), 3))
		var observed ServiceTime
		var ends []float64 // of the workers at work
		finished, counted := int64(0), int64(0)
		for second := range 4 * 3600 {
			for len(ends) < 20 && random.Float64() < 0.3 {
				ends = append(ends, float64(second)+random.ExpFloat64()*mean)
			}
			for i := 0; i < len(ends); {
				if ends[i] <= float64(second) {
					ends = append(ends[:i], ends[i+1:]...)
					finished++
					continue
				}
				i++
			}
			if second%13 == 0 {
				counted = finished
			}
			if second%5 == 0 {
				observed.Observe(Observation{
					Time: now.Add(time.Duration(second) * time.Second), Consumers: int64(len(ends)), Finished: known(second%10 == 0, counted),
				})
			}
		}
		// Work ends on whole seconds here, half a second late on average.
		if got := observed.Mean().Seconds(); math.Abs(got-mean-0.5) > mean/10 {
			t.Errorf("mean %.1f s, want about %v", got, mean+0.5)
		}
	}
	var little ServiceTime
	for i := range 9 {
		little.Observe(Observation{Time: now.Add(time.Duration(i) * time.Minute), Consumers: 1, Finished: known(true, int64(i))})
	}
	if got := little.Mean(); got != 0 {
		t.Errorf("mean %s from 8 messages, want none yet", got)
	}
	for i := 9; i < 30; i++ {
		little.Observe(Observation{Time: now.Add(time.Duration(i) * time.Minute), Consumers: 1, Finished: known(true, int64(i))})
	}
	if got := little.Mean(); got != time.Minute {
		t.Errorf("mean %s, want 1m", got)
	}
	before := little.Mean()
	little.Observe(Observation{Time: now.Add(time.Hour), Consumers: 1, Finished: known(true, 0)}) // the broker counts from 0
	if little.Mean() != before {
		t.Errorf("a count that starts anew changed the mean from %s to %s", before, little.Mean())
	}
}

// known is a count of a source of one part, or none.
func known(is bool, finished int64) map[string]int64 {
	if !is {
		return nil
	}
	return map[string]int64{"q": finished}
}

// What is no finished work is not taken for it: progress counts by part of the source, and a jump that does not repeat is left out.
func TestServiceTimeJumps(t *testing.T) {
	for name, tc := range map[string]struct {
		jump func(second int) map[string]int64 // what is counted beside the work, by part
		busy int64
		want time.Duration
	}{
		"a partition first committed at a high offset": {func(second int) map[string]int64 {
			if second < 600 {
				return nil
			}
			return map[string]int64{"p6": 5_000_000}
		}, 20, 30 * time.Second},
		"an offset moved forward by hand": {func(second int) map[string]int64 {
			if second < 600 {
				return map[string]int64{"p6": 0}
			}
			return map[string]int64{"p6": 5_000_000}
		}, 20, 30 * time.Second},
		"moved right after the start": {func(second int) map[string]int64 {
			if second < 10 {
				return map[string]int64{"p6": 0}
			}
			return map[string]int64{"p6": 5_000_000}
		}, 20, 30 * time.Second},
		"a queue that counts anew": {func(second int) map[string]int64 {
			if second < 600 {
				return map[string]int64{"p6": 5_000_000}
			}
			return map[string]int64{"p6": 0}
		}, 20, 30 * time.Second},
		"statistics that come late": {func(second int) map[string]int64 {
			if second < 1000 {
				return nil
			}
			return map[string]int64{"late": 12_345}
		}, 20, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var s ServiceTime
			for second := 0; second <= 3600; second += 5 {
				finished := map[string]int64{"p1": int64(second) * tc.busy / 30}
				for part, count := range tc.jump(second) {
					finished[part] = count
				}
				s.Observe(Observation{
					Time: now.Add(time.Duration(second) * time.Second), Ready: 6000, Consumers: tc.busy, Finished: finished, ReadyHoldsInFlight: true,
				})
				if mean := s.Mean(); second > 300 && (mean < tc.want*8/10 || mean > tc.want*12/10) {
					t.Fatalf("after %d s: mean %s, want about %s", second, mean, tc.want)
				}
			}
		})
	}
}

// Work that really takes another time from now on is followed, and a night without work forgets nothing.
func TestServiceTimeFollows(t *testing.T) {
	var s ServiceTime
	s.StartFrom(time.Minute)
	if s.Mean() != time.Minute {
		t.Errorf("mean %s, want the one it started from", s.Mean())
	}
	at, finished := now, 0.0
	work := func(length, each time.Duration) {
		for range int(length / (5 * time.Second)) {
			at = at.Add(5 * time.Second)
			consumers := int64(0)
			if each > 0 {
				consumers, finished = 20, finished+20*5/each.Seconds()
			}
			s.Observe(Observation{Time: at, Ready: consumers, Consumers: consumers, Finished: map[string]int64{"q": int64(finished)}})
		}
	}
	about := func(when string, want time.Duration) {
		t.Helper()
		if got := s.Mean(); got < want*9/10 || got > want*11/10 {
			t.Errorf("%s: mean %s, want about %s", when, got, want)
		}
	}
	work(time.Hour, 30*time.Second)
	about("an hour of work", 30*time.Second)
	work(12*time.Hour, 0)
	about("a night without", 30*time.Second)
	work(6*time.Hour, time.Second)
	about("hours of work that is thirty times shorter", time.Second)
}
