package fleet

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lifetime"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func newFleet(nodes ...string) *Fleet {
	f := New(lifetime.New(lifetime.Options{}), Options{})
	for _, name := range nodes {
		f.SetNode(Node{Name: name, Created: start, Allocatable: packing.Amounts{16, 64, 0, 110}})
	}
	return f
}

// trusting makes stated run times count.
func trusting(f *Fleet) *Fleet {
	for i := range 100 {
		ran := time.Duration(1+i) * time.Second
		f.lifetimes.Finished(fmt.Sprint("taught", i), "taught", ran, ran, start, true)
	}
	return f
}

func stated(id string, cpu int64, runs time.Duration) Pod {
	return Pod{ID: id, Class: "scan", Stated: runs, Requests: packing.Amounts{cpu, 1, 0, 1}}
}

func anyNode(string) bool { return true }

// candidates are the first of any nodes.
func candidates(f *Fleet, p Pod, now time.Time, most int) []string {
	return f.Candidates(p, packing.Query{Now: now, Most: most, Tries: 1000, Accept: anyNode})
}

// exitOfA is how long the pods of node a are expected to keep it.
func exitOfA(f *Fleet, now time.Time) time.Duration {
	nodes := []packing.Node{{Name: "a"}}
	f.Describe(nodes, &packing.Pod{}, "", now)
	return nodes[0].Exit
}

func TestCandidates(t *testing.T) {
	f := trusting(newFleet("a", "b", "c", "d"))
	f.AddPod(stated("long", 2, time.Hour), "b", start)
	f.AddPod(stated("short", 12, time.Minute), "c", start)
	f.AddPod(Pod{ID: "daemon", Follower: true, Requests: packing.Amounts{1, 1, 0, 1}}, "d", start)
	f.lately = arrivals{} // they came a while ago
	check := func(name string, p Pod, at time.Duration, want string) {
		t.Helper()
		if got := strings.Join(candidates(f, p, start.Add(at), 4), " "); got != want {
			t.Errorf("%s: candidates %s, want %s", name, got, want)
		}
	}
	check("one that ends before the long one", stated("p", 1, 10*time.Minute), 0, "b c a d")
	check("one that ends before both", stated("p", 1, 30*time.Second), 0, "c b a d")
	check("one that does not fit on c", stated("p", 8, 30*time.Second), 0, "b a d")
	// The short one is five seconds late, and taken to need five more: 25 s of extension on c cost more than an hour of slack on b, at 0.06 of
	// 30 s / 630 s. When it is a minute late, it is taken to need another one.
	check("a pod just past its end", stated("p", 1, 30*time.Second), 65*time.Second, "b c a d")
	check("a pod long past its end", stated("p", 1, 30*time.Second), 2*time.Minute, "c b a d")

	f.SetNode(Node{Name: "b", Created: start, Allocatable: packing.Amounts{16, 64, 0, 110}, Leaving: true})
	check("a leaving node is no candidate", stated("p", 1, 10*time.Minute), 0, "c a d")
	f.AddPod(Pod{ID: "web", Endless: true, Requests: packing.Amounts{1, 1, 0, 1}}, "a", start)
	check("a node with an endless pod stays", stated("p", 1, 10*time.Minute), 0, "a c d")
	check("endless to endless", Pod{ID: "p", Endless: true, Requests: packing.Amounts{1, 1, 0, 1}}, 0, "a c d")

	f.AddPod(Pod{ID: "engine", Group: "scan-7", Stated: 2 * time.Hour, Requests: packing.Amounts{1, 1, 0, 1}}, "d", start)
	if got := candidates(f, Pod{ID: "p", Group: "scan-7", Stated: time.Hour, Requests: packing.Amounts{1, 1, 0, 1}}, start, 1); !slices.Equal(got, []string{"d"}) {
		t.Errorf("candidates %s, want the node of the group, d", got)
	}
}

// With nothing learned, statements count for nothing: the fullest in quarters, of the nodes that stay long enough for most pods.
func TestCandidatesWithoutTrust(t *testing.T) {
	f := newFleet("a", "b", "c")
	f.AddPod(stated("long", 2, time.Hour), "b", start)
	f.AddPod(stated("short", 12, time.Minute), "c", start)
	f.lately = arrivals{}
	if got := strings.Join(candidates(f, stated("p", 1, 30*time.Minute), start, 3), " "); got != "c b a" {
		t.Errorf("candidates %s, want c b a: fullest first", got)
	}
}

// Candidates do not depend on the order in which a map of the group's nodes is walked, and are shown no more often than asked for.
func TestCandidatesOfAGroupAreTheSameEveryTime(t *testing.T) {
	f := trusting(newFleet())
	for i := range 40 {
		name := fmt.Sprintf("n%02d", i)
		f.SetNode(Node{Name: name, Created: start, Allocatable: packing.Amounts{16, 64, 0, 110}})
		p := stated(name, 1, time.Duration(1+i)*time.Hour)
		p.Group = "scan-7"
		f.AddPod(p, name, start)
	}
	pod := stated("p", 1, time.Minute)
	pod.Group = "scan-7"
	shown := func() (shown []string) {
		f.Candidates(pod, packing.Query{Now: start, Most: 4, Tries: 20, Accept: func(name string) bool { shown = append(shown, name); return true }})
		return shown
	}
	want := shown()
	for range 20 {
		if got := shown(); !slices.Equal(got, want) {
			t.Fatalf("shown %v, then %v", want, got)
		}
	}
}

func TestFinishedTeaches(t *testing.T) {
	f := newFleet("a")
	scan := Pod{ID: "p", Class: "scan"}
	for i := range 50 {
		scan.ID = fmt.Sprint("p", i)
		f.Finished(Ended{scan, 40 * time.Second, start, true})
	}
	f.Finished(Ended{Pod{Class: "web", Endless: true}, time.Hour, start, true})
	f.Finished(Ended{Pod{Class: "daemon", Follower: true}, time.Hour, start, true})
	if classes, _ := f.Learned(); classes != 1 {
		t.Errorf("learned of %d classes, want that of the scans alone", classes)
	}
	scan.ID = "p"
	f.AddPod(scan, "a", start)
	if exit := exitOfA(f, start); exit < 30*time.Second || exit > 45*time.Second {
		t.Errorf("the node exits in %s, but pods of the class run 40 s", exit)
	}
	if !f.RemovePod("p") || f.RemovePod("p") {
		t.Error("a pod was not there, or was there twice")
	}
}

// A restart forgets nothing that finished pods and running ones still tell, in whatever order they are listed: the fleet that saw all and the one
// that was made afterwards expect nearly the same.
func TestRestored(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	live, after := newFleet("a"), New(lifetime.New(lifetime.Options{}), Options{Restoring: true})
	after.SetNode(Node{Name: "a", Created: start, Allocatable: packing.Amounts{16, 64, 0, 110}})
	type event struct {
		at    time.Time
		start bool
		Ended
	}
	var all []event
	for i := range 1500 {
		at := start.Add(time.Duration(i) * time.Second)
		class, median := "a/job", 20.0
		if i%2 == 0 {
			class, median = "z/job", 900
		}
		if i >= 1000 { // what the last ones do is what counts
			median *= 3
		}
		ran := time.Duration(median * math.Exp(0.4*random.NormFloat64()) * float64(time.Second))
		e := Ended{Pod{ID: fmt.Sprintf("%s-%d", class, i), Class: class}, ran, at.Add(ran), true}
		all = append(all, event{at, true, e}, event{e.At, false, e})
	}
	slices.SortStableFunc(all, func(a, b event) int { return a.at.Compare(b.at) })
	now := start.Add(1500 * time.Second)
	var listed []Ended
	running := map[string]event{}
	for _, e := range all {
		switch {
		case e.at.After(now):
		case e.start:
			live.AddPod(e.Pod, "a", e.at)
			running[e.ID] = e
		default:
			live.RemovePod(e.ID)
			live.Finished(e.Ended)
			listed = append(listed, e.Ended)
			delete(running, e.ID)
		}
	}
	for _, e := range running {
		after.AddPod(e.Pod, "a", e.at)
	}
	slices.SortFunc(listed, func(a, b Ended) int { return strings.Compare(a.ID, b.ID) })
	after.Restored(listed, now)
	for _, class := range []string{"a/job", "z/job"} {
		want, got := live.Expect(Pod{Class: class}, now), after.Expect(Pod{Class: class}, now)
		if off := math.Abs(math.Log(want.Remaining.Seconds() / got.Remaining.Seconds())); off > math.Log(1.2) {
			t.Errorf("%s is expected to run %s, before the restart %s", class, got.Remaining, want.Remaining)
		}
	}
	wantExit, gotExit := exitOfA(live, now), exitOfA(after, now)
	if off := math.Abs(math.Log(wantExit.Seconds() / gotExit.Seconds())); off > math.Log(1.5) {
		t.Errorf("the node exits in %s, before the restart in %s", gotExit, wantExit)
	}
}

// Pods that are to be gone by some time keep their node no longer than that; those that overstay are not about to end.
func TestLimits(t *testing.T) {
	f := trusting(newFleet("a"))
	for name, tc := range map[string]struct {
		pod  Pod
		at   time.Duration
		want time.Duration
	}{
		"deleted, within its grace period": {Pod{Stated: time.Hour, Deadline: start.Add(time.Minute)}, 20 * time.Second, 40 * time.Second},
		"deleted, would have ended before": {Pod{Stated: time.Minute, Deadline: start.Add(time.Hour)}, 0, time.Minute},
		"deleted, endless":                 {Pod{Endless: true, Deadline: start.Add(time.Minute)}, 0, time.Minute},
		"deleted, long overdue":            {Pod{Stated: time.Hour, Deadline: start.Add(time.Minute)}, 6 * time.Minute, 5 * time.Minute},
		"limited":                          {Pod{Stated: time.Hour, Limit: 10 * time.Minute}, time.Minute, 9 * time.Minute},
		"limited, unknown":                 {Pod{Limit: 10 * time.Second}, 0, 10 * time.Second},
		"past its limit":                   {Pod{Stated: time.Hour, Limit: 10 * time.Minute}, 12 * time.Minute, 2 * time.Minute},
	} {
		tc.pod.ID = name
		f.AddPod(tc.pod, "a", start)
		if got := exitOfA(f, start.Add(tc.at)); got != tc.want {
			t.Errorf("%s: the node exits in %s, want %s", name, got, tc.want)
		}
		f.RemovePod(name)
	}
	if got := f.Expect(Pod{Stated: time.Hour, Limit: time.Minute}, start).Remaining; got != time.Minute {
		t.Errorf("a pod limited to a minute is taken to run %s", got)
	}
}

// Where statements are off, a node is trusted to stay for less than its pod states, and for longer the longer the pod has run on.
func TestNoisyStatements(t *testing.T) {
	f, random := newFleet("a"), rand.New(rand.NewPCG(1, 1))
	for i := range 500 {
		ran := math.Exp(5 + 1.5*random.NormFloat64())
		said := ran * math.Exp(0.7*random.NormFloat64())
		f.Finished(Ended{
			Pod{ID: fmt.Sprint(i), Class: "scan", Stated: time.Duration(said * float64(time.Second))}, time.Duration(ran * float64(time.Second)), start, true,
		})
	}
	p := stated("p", 1, 4*time.Minute)
	f.AddPod(p, "a", start)
	if placed, exit := f.Expect(p, start).Remaining, exitOfA(f, start); exit >= placed || placed >= 4*time.Minute || exit < time.Minute {
		t.Errorf("a pod that says 4m is taken to run %s and to keep its node for %s, want less of both, and the node's the least", placed, exit)
	}
	for last, age := time.Duration(0), time.Minute; age < time.Hour; age *= 2 {
		ends := age + exitOfA(f, start.Add(age))
		if ends <= age || ends < last {
			t.Errorf("after %s the pod is expected to run for %s in all, after half of that for %s", age, ends, last)
		}
		last = ends
	}
}

// Beyond the horizon nothing is told apart from what never ends.
func TestHorizon(t *testing.T) {
	f := trusting(New(lifetime.New(lifetime.Options{}), Options{Horizon: time.Hour}))
	f.SetNode(Node{Name: "a", Created: start, Allocatable: packing.Amounts{16, 64, 0, 110}})
	for runs, want := range map[time.Duration]time.Duration{59 * time.Minute: 59 * time.Minute, time.Hour: packing.Never, 99 * time.Hour: packing.Never} {
		p := stated("p", 1, runs)
		if got := f.Expect(p, start).Remaining; got != want {
			t.Errorf("a pod that says %s runs %s, want %s", runs, got, want)
		}
		f.AddPod(p, "a", start)
		if got := exitOfA(f, start); got != want {
			t.Errorf("the node of a pod that says %s exits in %s, want %s", runs, got, want)
		}
		f.RemovePod("p")
	}
}

// An expensive node is kept from living longer before a cheap one is.
func TestPrice(t *testing.T) {
	f := trusting(newFleet())
	add := func(name string, price int, exit time.Duration) {
		f.SetNode(Node{Name: name, Created: start, Allocatable: packing.Amounts{16, 64, 0, 110}, Price: price})
		if exit > 0 {
			f.AddPod(stated(name, 1, exit), name, start)
		}
	}
	add("dear", 5, 9*time.Minute)
	add("cheap", 0, 8*time.Minute)
	add("empty", 0, 0)
	// Ten minutes are one more for the expensive node, at 32 times the price; two for the cheap one, and ten for the empty one.
	for remaining, want := range map[time.Duration]string{
		10 * time.Minute: "cheap empty dear", 7 * time.Minute: "cheap dear empty",
	} {
		if got := strings.Join(candidates(f, stated("p", 1, remaining), start, 3), " "); got != want {
			t.Errorf("candidates for %s are %s, want %s", remaining, got, want)
		}
	}
}

func TestViews(t *testing.T) {
	f := trusting(newFleet("b", "a", "c"))
	f.AddPod(stated("p", 2, time.Minute), "a", start)
	f.AddPod(Pod{ID: "web", Endless: true}, "b", start)
	var got []string
	for _, v := range f.Views(start) {
		exit := "none"
		if v.Exit != nil {
			exit = v.Exit.Sub(start).String()
		}
		got = append(got, fmt.Sprint(v.Name, " ", v.Pods, " ", v.Used[0], " ", v.Endless, " ", exit))
	}
	if want := "a 1 2 false 1m0s; b 1 0 true none; c 0 0 false none"; strings.Join(got, "; ") != want {
		t.Errorf("views %s, want %s", strings.Join(got, "; "), want)
	}
}

// Pods come, move, are updated and go, in 50,000 steps and in any order with their nodes: the fleet agrees with a plain model and with
// itself, and keeps nothing of what is gone. Package drainpack has the same beside the scheduler's snapshot.
func TestSoak(t *testing.T) {
	f := trusting(newFleet())
	random := rand.New(rand.NewPCG(1, 2))
	type where struct {
		Pod
		node string
	}
	pods, nodes := map[string]where{}, map[string]bool{}
	now := start
	model := func() map[string]NodeUse {
		use := map[string]NodeUse{}
		for name := range nodes {
			use[name] = NodeUse{}
		}
		for _, p := range pods {
			if u, ok := use[p.node]; ok {
				use[p.node] = NodeUse{u.Used.Plus(p.Requests), u.Pods + 1}
			}
		}
		return use
	}
	some := func() string { // any pod
		for id := range pods {
			return id
		}
		return "none"
	}
	for i := range 50_000 {
		now = now.Add(time.Duration(random.IntN(2000)) * time.Millisecond)
		node := fmt.Sprintf("n%03d", random.IntN(60))
		switch random.IntN(20) {
		case 0:
			f.SetNode(Node{
				Name: node, Created: now, Allocatable: packing.Amounts{16 + random.Int64N(2)*16, 64, 0, 110}, Leaving: random.IntN(5) == 0,
				Price: random.IntN(3),
			})
			nodes[node] = true
		case 1:
			f.RemoveNode(node)
			delete(nodes, node)
		case 2:
			id := some()
			f.RemovePod(id)
			delete(pods, id)
		case 3: // heard of again, perhaps somewhere else
			if p, ok := pods[some()]; ok {
				p.node = node
				f.AddPod(p.Pod, node, now)
				pods[p.ID] = p
			}
		default:
			p := stated(fmt.Sprint("p", i), 1+random.Int64N(3), time.Duration(random.ExpFloat64()*60)*time.Second)
			p.Endless, p.Follower = random.IntN(200) == 0, random.IntN(50) == 0
			if random.IntN(4) == 0 {
				p.Group = fmt.Sprint("g", random.IntN(30))
			}
			f.AddPod(p, node, now)
			pods[p.ID] = where{p, node}
			for len(pods) > 300 {
				id := some()
				f.RemovePod(id)
				f.Finished(Ended{pods[id].Pod, time.Duration(random.IntN(100)) * time.Second, now, random.IntN(10) > 0})
				delete(pods, id)
			}
			for _, name := range candidates(f, p, now, 4) {
				if !nodes[name] {
					t.Fatalf("candidate %s is no node", name)
				}
			}
		}
		if i%500 == 0 {
			if err := f.Check(model()); err != nil {
				t.Fatalf("after %d steps: %v", i, err)
			}
		}
	}
	for id := range pods {
		f.RemovePod(id)
	}
	for name := range nodes {
		f.RemoveNode(name)
	}
	if len(f.nodes)+len(f.pods)+len(f.groups)+len(f.due)+f.index.Len() != 0 || f.total != (totals{}) {
		t.Errorf("left: %d nodes, %d pods, %d groups, %d due, %d indexed, %v", len(f.nodes), len(f.pods), len(f.groups), len(f.due), f.index.Len(), f.total)
	}
}

// A fleet that is wrong is found out.
func TestCheck(t *testing.T) {
	f := newFleet("a")
	f.AddPod(stated("p", 1, time.Minute), "a", start)
	right := map[string]NodeUse{"a": {packing.Amounts{1, 1, 0, 1}, 1}}
	if err := f.Check(right); err != nil {
		t.Error(err)
	}
	for name, real := range map[string]map[string]NodeUse{
		"another use":  {"a": {packing.Amounts{2, 1, 0, 1}, 1}},
		"another node": {"a": right["a"], "b": {}},
		"no node":      {},
	} {
		if f.Check(real) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestConcurrency(t *testing.T) {
	f := newFleet("a", "b")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				id := fmt.Sprint(i, j)
				f.AddPod(stated(id, 1, time.Minute), []string{"a", "b"}[j%2], start)
				candidates(f, stated("x", 1, time.Minute), start.Add(time.Duration(j)*time.Second), 2)
				f.RemovePod(id)
				f.Finished(Ended{stated(id, 1, time.Minute), time.Minute, start, true})
			}
		})
	}
	all.Wait()
	if err := f.Check(map[string]NodeUse{"a": {}, "b": {}}); err != nil {
		t.Error(err)
	}
}

// A pod's candidates among 5,000 nodes of which many have room, with a pod bound each time, by distributions and by points.
func BenchmarkCandidates(b *testing.B) {
	for name, says := range map[string]bool{"stated": true, "learned": false} {
		b.Run(name, func(b *testing.B) {
			f, random := newFleet(), rand.New(rand.NewPCG(1, 1))
			pod := func(id string) Pod {
				ran := math.Exp(6 + 1.5*random.NormFloat64())
				p := Pod{ID: id, Class: fmt.Sprint("scan-", random.IntN(20)), Requests: packing.Amounts{1 + random.Int64N(4), 1, 0, 1}}
				if says {
					p.Stated = time.Duration(ran * math.Exp(0.7*random.NormFloat64()) * float64(time.Second))
				}
				f.Finished(Ended{p, time.Duration(ran * float64(time.Second)), start, true})
				return p
			}
			for i := range 5000 {
				name := fmt.Sprintf("n%04d", i)
				f.SetNode(Node{Name: name, Created: start.Add(time.Duration(i) * time.Second), Allocatable: packing.Amounts{16, 64, 0, 110}})
				for j := range 1 + random.IntN(6) {
					f.AddPod(pod(fmt.Sprint(name, j)), name, start)
				}
			}
			i := 0
			for b.Loop() {
				i++
				b.StopTimer()
				p, now := pod(fmt.Sprint("p", i)), start.Add(time.Duration(i)*10*time.Millisecond)
				b.StartTimer()
				if got := candidates(f, p, now, 4); len(got) > 0 {
					f.AddPod(p, got[0], now)
				}
			}
		})
	}
}
