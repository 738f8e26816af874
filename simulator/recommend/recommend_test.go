package recommend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

func options(t *testing.T) Options {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Prague")
	if err != nil {
		t.Fatal(err)
	}
	list, err := ReadPriceList("aws")
	if err != nil {
		t.Fatal(err)
	}
	list.Shapes = slices.DeleteFunc(list.Shapes, func(s PriceShape) bool { return s.Family != "m6i" || s.CPU.Value() > 16 })
	for i := range list.Shapes {
		list.Shapes[i].Family = "" // each alone: few candidates, so that the test takes seconds
	}
	candidates, err := list.Candidates(false, DaemonSets)
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Zone: zone, Objective: Objective{Wait: 20 * time.Second, Quantile: 0.9}, MaxReplicas: 200, System: simulator.Defaults(), Candidates: candidates,
		Today: Configuration{
			Stack: Usual, Shapes: list.Find([]string{"m6i.4xlarge"}, false, DaemonSets), Poll: Duration(5 * time.Second), ConsolidateAfter: Duration(30 * time.Second),
			Workers: Workers{MaxMessages: 1, IdleTimeout: Duration(5 * time.Second)},
		},
		Keep: map[string]bool{leverPolling: true, leverConsolidation: true}, // fewer configurations, so that the test takes seconds
	}
}

// sundayToThursday is two weeks of people who are at work from nine to five, Sunday to Thursday, with a message every so often.
func sundayToThursday(zone *time.Location, every time.Duration) simulator.Trace {
	random := rand.New(rand.NewPCG(3, 3))
	trace := simulator.Trace{Origin: time.Date(2026, 3, 1, 9, 0, 0, 0, zone)} // a Sunday
	for at := time.Duration(0); at < 13*24*time.Hour; at += time.Duration(random.ExpFloat64() * float64(every)) {
		if now := trace.Origin.Add(at); now.Weekday() < time.Friday && now.Hour() >= 9 && now.Hour() < 17 {
			trace.Jobs = append(trace.Jobs, simulator.Job{
				Start: at, Run: time.Duration(random.ExpFloat64() * float64(2*time.Minute)), Class: "scan", Requests: simulator.DefaultRequests(),
			})
		}
	}
	return trace
}

// A week that begins on Sunday: the stated wait is met on the week that was not seen, for less than today, with a calendar for that week, whose
// workers are not idle most of the time; and it is the same answer for the same seed.
func TestRecommend(t *testing.T) {
	o := options(t)
	trace := sundayToThursday(o.Zone, 90*time.Second)
	r, err := Recommend(t.Context(), trace, o)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Met || r.Recommended.CostMonth > 0.8*r.Today.CostMonth || r.Recommended.Wait > r.Today.Wait || r.Recommended.IdleShare > 0.6 {
		t.Errorf("met %v; cost %.0f of %.0f, wait %.1f of %.1f s, idle %.2f: %+v", r.Met, r.Recommended.CostMonth, r.Today.CostMonth, r.Recommended.Wait, r.Today.Wait, r.Recommended.IdleShare, r.Decisions)
	}
	if len(r.Calendars) != 1 {
		t.Fatalf("calendars %v", r.Calendars)
	}
	limits, errs := policy.CompileCalendar(r.Calendars["all"], nil, o.MaxReplicas, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	warm := func(day, hour int) int32 {
		l := limits.Limits(time.Date(2026, 3, day, hour, 0, 0, 0, o.Zone))
		return max(l.MinReplicas, l.IdleReplicas)
	}
	if sunday, friday, night := warm(8, 10), warm(6, 10), warm(8, 3); sunday == 0 || friday >= sunday || night >= sunday {
		t.Errorf("%d warm on Sunday at ten, %d on Friday at ten, %d in the night", sunday, friday, night)
	}
	for _, d := range r.Decisions {
		if d.Lever == "shapes" && (d.Today != "m6i.4xlarge" || d.CostWithout <= r.Recommended.CostMonth || !strings.Contains(d.Change, "next is")) {
			t.Errorf("%+v", d)
		}
	}
	if len(r.Decisions) != len(levers)+1 {
		t.Errorf("%d decisions", len(r.Decisions))
	}
}

// In bursts that no calendar announces, a surplus makes messages wait for less at no more cost, and the decision says what it is worth. It is in the
// calendar of the policy, and no peer has one.
func TestSurplus(t *testing.T) {
	o := options(t)
	o.Objective = Objective{Wait: 55 * time.Second, Quantile: 0.95}
	for _, name := range Levers() {
		o.Keep[name] = name != leverWorkers
	}
	random := rand.New(rand.NewPCG(7, 7))
	trace := simulator.Trace{Origin: time.Date(2026, 3, 2, 9, 0, 0, 0, o.Zone)}
	for burst := range 60 {
		for range 20 {
			at := time.Duration(burst)*time.Hour + time.Duration(random.Float64()*float64(4*time.Minute))
			trace.Jobs = append(trace.Jobs, simulator.Job{Start: at, Run: time.Duration(random.ExpFloat64() * float64(time.Minute)), Class: "scan", Requests: simulator.DefaultRequests()})
		}
	}
	trace = trace.Sorted()
	without, err := Recommend(t.Context(), trace, o)
	if err != nil {
		t.Fatal(err)
	}
	if without.Recommended.Configuration.Surplus != "" || without.CalendarOf("all") != nil {
		t.Errorf("a surplus that was to stay as it is: %+v", without.Recommended.Configuration)
	}
	o.Keep[leverSurplus] = false
	r, err := Recommend(t.Context(), trace, o)
	if err != nil {
		t.Fatal(err)
	}
	c := &r.Recommended.Configuration
	if c.Surplus == "" || r.Recommended.CostMonth > r.Today.CostMonth || r.Recommended.Outcome.Wait.Mean > 0.8*without.Recommended.Outcome.Wait.Mean {
		t.Errorf("surplus %q: cost %.1f, mean wait %.1f s, without the lever %.1f and %.1f s", c.Surplus, r.Recommended.CostMonth, r.Recommended.Outcome.Wait.Mean,
			without.Recommended.CostMonth, without.Recommended.Outcome.Wait.Mean)
	}
	if calendar := r.CalendarOf("all"); calendar == nil || calendar.Default.Surplus.String() != c.Surplus {
		t.Errorf("calendar %+v, want one with a surplus of %s", calendar, c.Surplus)
	}
	i := slices.IndexFunc(r.Decisions, func(d Decision) bool { return d.Lever == leverSurplus })
	if d := r.Decisions[i]; d.Today != "none" || d.Recommended != c.Surplus || d.WaitWithout <= r.Recommended.Wait || !strings.Contains(d.Change, "next is") {
		t.Errorf("%+v", d)
	}
	s := &search{o: &o}
	peers := s.peers(&world{learn: newFloors(trace, trace, &o)}, c)
	if slices.ContainsFunc(peers, func(p Configuration) bool { return p.Surplus != "" }) {
		t.Errorf("KEDA has a surplus: %+v", peers)
	}
}

// A surplus holds in all limits but those that have their own; where one of today is to go, it says so.
func TestCalendarOf(t *testing.T) {
	learned := &v1alpha1.Calendar{TimeZone: "Europe/Prague", Periods: []v1alpha1.Period{{Name: "day", From: "08:00", To: "18:00", Limits: v1alpha1.Limits{MinReplicas: new(int32(2))}}}}
	for name, tc := range map[string]struct {
		today, surplus string
		calendar       *v1alpha1.Calendar
		want           string // JSON
	}{
		"neither":             {"", "", nil, `null`},
		"a calendar":          {"", "", learned, `{"timeZone":"Europe/Prague","default":{},"periods":[{"name":"day","from":"08:00","to":"18:00","limits":{"minReplicas":2}}]}`},
		"a percentage":        {"", "30%", nil, `{"default":{"surplus":"30%"}}`},
		"a number, with both": {"10%", "1", learned, `{"timeZone":"Europe/Prague","default":{"surplus":1},"periods":[{"name":"day","from":"08:00","to":"18:00","limits":{"minReplicas":2}}]}`},
		"none any more":       {"10%", "", nil, `{"default":{"surplus":0}}`},
	} {
		r := &Recommendation{Calendars: map[string]*v1alpha1.Calendar{"all": tc.calendar}}
		r.Today.Configuration.Surplus, r.Recommended.Configuration.Surplus = tc.today, tc.surplus
		if got, err := json.Marshal(r.CalendarOf("all")); err != nil || string(got) != tc.want {
			t.Errorf("%s: %s, error %v, want %s", name, got, err, tc.want)
		}
	}
	if learned.Default.Surplus != nil {
		t.Error("what was learned was changed")
	}
}

// The peer is also tried with nodes that are removed at once, with one message a pod and with workers that keep consuming.
func TestPeers(t *testing.T) {
	o := options(t)
	s := &search{o: &o}
	peers := s.peers(&world{learn: newFloors(simulator.Trace{}, simulator.Trace{}, &o)}, &Configuration{Stack: Ours, ConsolidateAfter: Duration(time.Minute)})
	for _, messages := range []int{0, 1} {
		for _, after := range []Duration{0, Duration(30 * time.Second), Duration(time.Minute)} {
			if !slices.ContainsFunc(peers, func(p Configuration) bool { return p.ConsolidateAfter == after && p.Workers.MaxMessages == messages }) {
				t.Errorf("no peer with maxMessages %d and consolidateAfter %s: %+v", messages, after, peers)
			}
		}
	}
}

// What is not worth it is not recommended, and the report says why.
func TestRecommendNothing(t *testing.T) {
	o := options(t)
	o.Candidates = o.Candidates[:2]
	few := sundayToThursday(o.Zone, 5*time.Minute)
	few.Jobs = few.Jobs[:150]
	if _, err := Recommend(t.Context(), few, o); !errors.Is(err, ErrNothing) || !strings.Contains(err.Error(), "messages in its first half") {
		t.Errorf("few messages: error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Recommend(ctx, sundayToThursday(o.Zone, 5*time.Minute), o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	// Today is what would be recommended, and may not be changed but in its polling.
	trace := sundayToThursday(o.Zone, 5*time.Minute)
	o.Today.Shapes, o.Today.Stack, o.Today.Workers, o.Today.Poll = o.Candidates[0], Ours, withRules, Duration(5*time.Second)
	o.Keep = map[string]bool{}
	for _, name := range Levers() {
		o.Keep[name] = true
	}
	r, err := Recommend(t.Context(), trace, o)
	if !errors.Is(err, ErrNothing) || r.Today.CostMonth == 0 {
		t.Errorf("nothing may be changed: error %v, today costs %v", err, r.Today.CostMonth)
	}
}

// White noise has no rhythm, and gets no calendar whatever the objective.
func TestNoCalendarOnNoise(t *testing.T) {
	o := options(t)
	o.Candidates, o.Objective.Wait = o.Candidates[:2], 5*time.Second
	random := rand.New(rand.NewPCG(1, 1))
	noise := simulator.Trace{Origin: time.Date(2026, 3, 2, 0, 0, 0, 0, o.Zone)}
	for at := time.Duration(0); at < 14*24*time.Hour; at += time.Duration(random.ExpFloat64() * float64(12*time.Minute)) {
		noise.Jobs = append(noise.Jobs, simulator.Job{Start: at, Run: 2 * time.Minute, Requests: simulator.DefaultRequests()})
	}
	r, err := Recommend(t.Context(), noise, o)
	if err != nil && !errors.Is(err, ErrNothing) {
		t.Fatal(err)
	}
	if len(r.Calendars) > 0 || r.Recommended.Configuration.Calendar.String() != "none" || !strings.Contains(strings.Join(r.Notes, " "), "none is recommended") {
		t.Errorf("calendar %s, notes %q", r.Recommended.Configuration.Calendar, r.Notes)
	}
}

// Queues of neighbours in size: two cut where the pods are apart, and none of the core-hours of small pods is wasted on large requests.
func TestPartitions(t *testing.T) {
	cores := func(n int64) packing.Amounts { return packing.Amounts{1000 * n, n << 30, 0, 1} }
	requests := map[string]packing.Amounts{"a": cores(1), "b": cores(2), "c": cores(8), "d": cores(9), "e": cores(1)}
	hours := map[string]float64{"a": 100, "b": 1, "c": 10, "d": 10, "e": 100}
	var got []string
	for _, q := range partitions([]string{"a", "b", "c", "d", "e"}, requests, hours) {
		got = append(got, fmt.Sprint(q.Name, " ", q.Of))
	}
	want := []string{
		"one queue map[a:all b:all c:all d:all e:all]",
		"2 queues by size map[a:size-1 b:size-2 c:size-2 d:size-2 e:size-1]", // 200 x 1 + 21 x 9 = 389; with b among the small 201 x 2 + 20 x 9 = 582
	}
	if len(got) < 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%q, want %q first", got, want)
	}
	if last := got[len(got)-1]; !strings.HasPrefix(last, "a queue for each class") {
		t.Errorf("%q", last)
	}
}

// CPU by a quantile, memory by the maximum with a margin; a pod that ran out of memory needed more than it had.
func TestUsed(t *testing.T) {
	jobs := make([]simulator.Job, 0, 12)
	for i := range 10 { // 100m to 1000m; 100 to 1000 MiB
		jobs = append(jobs, simulator.Job{Class: "a", Requests: simulator.DefaultRequests(), Used: packing.Amounts{int64(100 * (i + 1)), int64(100*(i+1)) << 20}})
	}
	jobs = append(jobs, simulator.Job{Class: "b", Requests: simulator.DefaultRequests(), OutOfMemory: true}, simulator.Job{Class: "c", Requests: simulator.DefaultRequests()})
	r, known := used(jobs, stated(jobs))
	want := map[string]packing.Amounts{
		"a": {1000, 1152 << 20, 0, 1}, // 1150 MiB, in steps of 16
		"b": {1000, 2944 << 20, 0, 1}, // 2560 MiB and 15%
		"c": {1000, 2048 << 20, 0, 1},
	}
	if !known || !maps.Equal(r.Of, want) {
		t.Errorf("%v, want %v", r.Of, want)
	}
	if _, known := used(jobs[11:], stated(jobs)); known {
		t.Error("something is known of jobs of which nothing is")
	}
}

// The objective is of all messages and of classes by themselves; a message that was never served counts as the longest wait.
func TestObjective(t *testing.T) {
	jobs := []simulator.Job{{Class: "a"}, {Class: "a"}, {Class: "b"}, {Class: "b"}}
	waited := []time.Duration{time.Second, 2 * time.Second, 30 * time.Second, 40 * time.Second}
	o := Objective{Wait: 60 * time.Second, Quantile: 0.5, Classes: map[string]time.Duration{"b": 15 * time.Second}}
	if wait, excess := o.waits(jobs, waited); wait != 2 || excess != 2 {
		t.Errorf("wait %v, %v times the objective; want 2 s, and 2 for class b", wait, excess)
	}
	o.Quantile = 0.99
	if wait, _ := o.waits(jobs, []time.Duration{1, 2, -1, 3}); wait != never {
		t.Errorf("wait %v, want that of a message that never began", wait)
	}
}

// What clouds publish for their kubelets, worked out by hand.
func TestAllocatable(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct{ size, want packing.Amounts }{
		// 60 + 10 + 10 + 4 x 2.5 = 90m; 32 GiB less 7.5%, 255 + 58 x 11 and 100 MiB
		"eks": {packing.Amounts{8000, 32768 * mib, 0, 58}, packing.Amounts{7910, 32768*mib*925/1000 - (255+638+100)*mib, 0, 58}},
		// 25% of 4, 20% of 4, 10% of 8 and 6% of 16 GiB, and 100 MiB
		"gke": {packing.Amounts{8000, 32768 * mib, 0, 110}, packing.Amounts{7910, 29023 * mib, 0, 110}},
		// 180m; 20 MB x 110 + 50 MB, and 100 MiB
		"aks": {packing.Amounts{8000, 32768 * mib, 0, 110}, packing.Amounts{7820, 32768*mib - 2250e6 - 100*mib, 0, 110}},
		"":    {packing.Amounts{8000, 32768 * mib, 0, 110}, packing.Amounts{8000, 32768 * mib, 0, 110}},
	} {
		got := kubelets[name](tc.size)
		if d := got[1] - tc.want[1]; got[0] != tc.want[0] || d < -mib || d > mib || got[3] != tc.want[3] {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestPriceLists(t *testing.T) {
	for _, name := range Shipped() {
		list, err := ReadPriceList(name)
		if err != nil {
			t.Fatal(err)
		}
		if list.Date == "" || list.Currency == "" {
			t.Errorf("%s has no date or currency", name)
		}
		for _, spot := range []bool{false, true} {
			sets, err := list.Candidates(spot, DaemonSets)
			if err != nil || len(sets) < 10 {
				t.Errorf("%s: %d candidates, error %v", name, len(sets), err)
			}
		}
	}
	for text, want := range map[string]string{
		"shapes: []": "shapes is empty", "shapes: [{name: a, cpu: 1, memory: 1Gi}]": "at least one above 0", "kubelet: x\nshapes: [{name: a}]": "kubelet is",
		"shapes: [{name: a, cpu: 1, memory: 1Gi, price: 1}, {name: a, cpu: 1, memory: 1Gi, price: 1}]": "a name that no other shape has", "shape: []": "unknown field",
		"shapes: [{name: a, memory: 1Gi, price: 1}]": "cpu and memory above 0",
	} {
		path := filepath.Join(t.TempDir(), "list.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPriceList(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

// A holiday says nothing of its day of the week.
func TestHolidaysAreLeftOut(t *testing.T) {
	day := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	samples := []sample{{day, 0}, {day.AddDate(0, 0, 7), 8}, {day.AddDate(0, 0, 14), 8}}
	p := newProfile(samples, func(at time.Time) bool { return at.Equal(day) })
	if got := p.floors(0.25, 100)[slot(day)]; got != 8 {
		t.Errorf("floor %d, want 8", got)
	}
}

// Neighbours become one where that costs least, and no quarter of an hour gets less than it had.
func TestSegments(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		var day [96]int32
		for i := range day {
			day[i] = int32(random.IntN(6))
		}
		all := segments(day)
		next := 0
		for _, s := range all {
			if s.from != next || s.to <= s.from {
				t.Fatalf("segments %v", all)
			}
			for i := s.from; i < s.to; i++ {
				if day[i] > s.floor {
					t.Fatalf("quarter %d has a floor of %d, was %d", i, s.floor, day[i])
				}
			}
			next = s.to
		}
		if next != 96 || len(all) > 2*mostPeriods+1 {
			t.Fatalf("segments %v", all)
		}
	}
}

func TestDemand(t *testing.T) {
	origin := time.Date(2026, 3, 2, 9, 10, 0, 0, time.UTC)
	trace := simulator.Trace{Origin: origin, Jobs: []simulator.Job{
		{Start: 0, Run: 10 * time.Minute}, {Start: time.Minute, Run: time.Minute}, {Start: 40 * time.Minute, Run: time.Minute},
	}}
	want := []float64{2, 1, 0, 1}
	got := demand(trace, time.UTC)
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for i, s := range got {
		if s.demand != want[i] || !s.at.Equal(origin.Truncate(quarter).Add(time.Duration(i)*quarter)) {
			t.Errorf("quarter %d: %v, want %v", i, s, want[i])
		}
	}
}

// The days on which people work are found, whichever those are.
func TestGroups(t *testing.T) {
	for name, tc := range map[string]struct {
		busy map[time.Weekday]float64
		want string
	}{
		"Monday to Friday":       {map[time.Weekday]float64{1: 10, 2: 12, 3: 9, 4: 11, 5: 8, 6: 0.5, 0: 0.2}, "[weekday [Mon-Fri]] [weekend [Sat-Sun]]"},
		"Sunday to Thursday":     {map[time.Weekday]float64{0: 10, 1: 12, 2: 9, 3: 11, 4: 8, 5: 0, 6: 1}, "[weekday [Sun-Thu]] [weekend [Fri-Sat]]"},
		"Tuesday and Friday off": {map[time.Weekday]float64{1: 9, 3: 9, 4: 9, 6: 9, 0: 9}, "[weekday [Wed-Thu Sat-Mon]] [weekend [Tue Fri]]"},
		"one day only":           {map[time.Weekday]float64{3: 9}, "[weekday [Wed]] [weekend [Thu-Tue]]"},
		"all alike":              {map[time.Weekday]float64{0: 10, 1: 12, 2: 9, 3: 11, 4: 8, 5: 9, 6: 10}, "[day []]"},
		"nothing":                {nil, "[day []]"},
	} {
		var samples []sample
		for at := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC); at.Before(time.Date(2026, 3, 16, 0, 0, 0, 0, time.UTC)); at = at.Add(quarter) {
			samples = append(samples, sample{at, tc.busy[at.Weekday()]})
		}
		var got []string
		for _, g := range newProfile(samples, nil).groups() {
			got = append(got, fmt.Sprint([]any{g.name, g.names()}))
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %s, want %s", name, strings.Join(got, " "), tc.want)
		}
	}
}
