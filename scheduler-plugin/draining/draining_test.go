package draining

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

var now = time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)

func cpus(n int64) packing.Amounts { return packing.Amounts{1000 * n, n << 30, 0, 1} }

// node of 16 CPUs with busy pods of one CPU, each of which works for so many seconds.
func node(name string, age time.Duration, seconds ...int) Node {
	n := Node{Name: name, Created: now.Add(-age), Free: packing.Amounts{16_000, 64 << 30, 0, 110}}
	for i, s := range seconds {
		n.Pods = append(n.Pods, Pod{ID: fmt.Sprint(name, "/", i), Requests: cpus(1), Remaining: time.Duration(s) * time.Second})
		n.Free = n.Free.Minus(cpus(1))
	}
	return n
}

func changed(n Node, change func(*Node)) Node {
	change(&n)
	return n
}

func draining(ago time.Duration) func(*Node) { return func(n *Node) { n.Draining = now.Add(-ago) } }

func TestLook(t *testing.T) {
	idle := func(n *Node) { n.Pods[0].State, n.Pods[0].Remaining = Idle, 0 }
	twelve := []int{60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60} // 4 CPUs stay free
	for name, tc := range map[string]struct {
		fleet   Fleet
		options Options
		want    Plan
	}{
		// Two pods and two more fit into four CPUs.
		"what fits elsewhere drains": {
			fleet: Fleet{Nodes: []Node{node("a", time.Hour, twelve...), node("b", time.Minute, 30, 30)}},
			want:  Plan{Drain: []string{"b"}},
		},
		"with the two more it does not fit": {
			fleet: Fleet{Nodes: []Node{node("a", time.Hour, twelve...), node("b", time.Minute, 30, 30, 30)}},
		},
		"the one that ends first": {
			fleet: Fleet{Nodes: []Node{node("a", time.Hour, twelve...), node("b", time.Minute, 300), node("c", time.Hour, 20, 20), node("d", time.Hour, 600, 600, 600)}},
			want:  Plan{Drain: []string{"c", "a"}}, // what a holds fits on b and d, and then nothing of b on d
		},
		"the fewest pods, then the youngest, where nothing else tells": {
			fleet:   Fleet{Nodes: []Node{node("a", time.Hour, 60, 60), node("b", time.Hour, 60), node("c", time.Minute, 60), node("d", time.Hour, 60, 60)}},
			options: Options{Spare: 2, Longest: time.Hour, AtOnce: 2},
			want:    Plan{Drain: []string{"c", "b"}},
		},
		"an empty node is no room, and drains itself": {
			fleet: Fleet{Nodes: []Node{node("a", time.Hour, 60, 60), node("b", time.Hour)}},
			want:  Plan{Drain: []string{"b"}},
		},
		"idle workers of nodes that drain leave, others stay": {
			fleet: Fleet{Nodes: []Node{changed(node("a", time.Hour, twelve...), idle), changed(node("b", time.Minute, 30, 30), idle)}},
			want:  Plan{Drain: []string{"b"}, Leave: []string{"b/0"}},
		},
		"none begins while a node starts": {
			fleet: Fleet{Nodes: []Node{node("a", time.Hour, twelve...), node("b", time.Minute, 30)}, Starting: 1},
		},
		"all end when a pod waits": {
			fleet: Fleet{Nodes: []Node{node("a", time.Hour, twelve...), changed(node("b", time.Minute, 30), draining(time.Minute))}, Waiting: 1},
			want:  Plan{Stop: []Stop{{"b", NeedsRoom}}},
		},
		"the last to begin ends when there is no room for all": {
			fleet: Fleet{Nodes: []Node{
				node("a", time.Hour, twelve...), changed(node("b", time.Hour, 30, 30, 30), draining(time.Minute)),
				changed(node("c", time.Hour, 30, 30), draining(time.Second)),
			}},
			want: Plan{Stop: []Stop{{"c", NoRoom}}},
		},
		"too long": {
			fleet: Fleet{Nodes: []Node{node("a", time.Hour, twelve...), changed(node("b", 2*time.Hour, 30), draining(time.Hour))}},
			want:  Plan{Stop: []Stop{{"b", TooLong}}},
		},
		"opted out, taken away and endless nodes are left alone": {
			fleet: Fleet{Nodes: []Node{
				node("a", time.Hour, twelve...), changed(node("b", time.Minute, 30), func(n *Node) { n.Kept = true }),
				changed(node("c", time.Minute, 30), func(n *Node) { n.Closed = true }),
				changed(node("d", time.Minute, 30), func(n *Node) { n.Pods[0].Remaining = packing.Never }),
				changed(changed(node("e", time.Minute, 30), draining(time.Minute)), func(n *Node) { n.Closed = true }),
			}},
			want: Plan{Drain: []string{"a"}},
		},
		"a drain is not taken back on a node that is being taken away, for whatever reason, until it has lasted too long": {
			fleet: Fleet{Waiting: 1, Nodes: []Node{
				changed(changed(node("a", time.Minute), draining(time.Minute)), func(n *Node) { n.Closed = true }),
				changed(changed(node("b", time.Minute), draining(time.Minute)), func(n *Node) { n.Closed, n.Kept = true, true }),
				changed(changed(node("c", time.Minute), draining(time.Hour)), func(n *Node) { n.Closed = true }),
			}},
			want: Plan{Stop: []Stop{{"c", TooLong}}},
		},
		"its owner keeps it": {
			fleet: Fleet{Nodes: []Node{node("a", time.Hour, twelve...), changed(changed(node("b", time.Minute, 30), draining(time.Minute)), func(n *Node) { n.Kept = true })}},
			want:  Plan{Stop: []Stop{{"b", NotOurs}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.options == (Options{}) {
				tc.options = Defaults()
			}
			if diff := cmp.Diff(tc.want, Look(tc.fleet, tc.options, now), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// randomFleet has nodes of 16 CPUs in all states.
func randomFleet(random *rand.Rand) Fleet {
	var f Fleet
	for i := range random.IntN(9) {
		n := Node{Name: fmt.Sprint("n", i), Created: now.Add(-time.Duration(random.IntN(7200)) * time.Second), Free: packing.Amounts{16_000, 64 << 30, 0, 110}}
		for p := range random.IntN(14) {
			pod := Pod{ID: fmt.Sprint(n.Name, "/", p), Requests: cpus(1 + random.Int64N(4)), Priority: int32(random.IntN(2)), State: State(random.IntN(3))}
			if pod.State == Busy {
				pod.Remaining = time.Duration(random.IntN(600)) * time.Second
				if random.IntN(30) == 0 {
					pod.Remaining = packing.Never
				}
			}
			if n.Free.Fit(pod.Requests) {
				n.Pods, n.Free = append(n.Pods, pod), n.Free.Minus(pod.Requests)
			}
		}
		if random.IntN(4) == 0 {
			n.Draining = now.Add(-time.Duration(random.IntN(90)) * time.Minute)
		}
		n.Kept, n.Closed = random.IntN(8) == 0, random.IntN(8) == 0
		f.Nodes = append(f.Nodes, n)
	}
	if random.IntN(4) == 0 {
		f.Waiting = random.IntN(3)
	}
	if random.IntN(4) == 0 {
		f.Starting = random.IntN(3)
	}
	return f
}

// What the package promises, on random fleets.
func TestLookKeepsItsPromises(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	drains, stops, leaves := 0, 0, 0
	for round := range 6_000 {
		f, o := randomFleet(random), Options{Spare: random.IntN(4), Longest: time.Hour, AtOnce: random.IntN(4)}
		plan := Look(f, o, now)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("round %d: %s\n%+v\n%+v", round, fmt.Sprintf(format, args...), f, plan)
		}
		by := map[string]*Node{}
		pods := map[string]Pod{}
		for i := range f.Nodes {
			by[f.Nodes[i].Name] = &f.Nodes[i]
			for _, p := range f.Nodes[i].Pods {
				pods[p.ID] = p
			}
		}
		drains, stops, leaves = drains+len(plan.Drain), stops+len(plan.Stop), leaves+len(plan.Leave)
		if len(plan.Drain) > o.AtOnce || len(plan.Drain) > 0 && f.Waiting+f.Starting > 0 {
			fail("too many begin")
		}
		on := map[string]bool{}
		for name, n := range by {
			on[name] = !n.Draining.IsZero()
		}
		for _, s := range plan.Stop {
			if !on[s.Node] {
				fail("%s ends, and did not drain", s.Node)
			}
			on[s.Node] = false
		}
		for _, name := range plan.Drain {
			n := by[name]
			endless := slices.ContainsFunc(n.Pods, func(p Pod) bool { return p.State == Busy && p.Remaining == packing.Never })
			if on[name] || n.Kept || n.Closed || endless || !n.Draining.IsZero() {
				fail("%s must not begin", name)
			}
			on[name] = true
		}
		var rooms, needs []packing.Amounts
		for name, n := range by {
			switch {
			case on[name] && (!n.Closed && (n.Kept || f.Waiting > 0) || !n.Draining.IsZero() && now.Sub(n.Draining) >= o.Longest):
				fail("%s must end", name)
			case on[name] && n.Closed: // its pods are somebody else's to move
			case on[name]:
				for _, p := range n.Pods {
					needs = append(needs, p.Requests)
				}
			case !n.Closed && len(n.Pods) > 0:
				rooms = append(rooms, n.Free)
			}
		}
		if len(needs) > 0 && !fitSomehow(needs, rooms) {
			fail("what drains does not fit elsewhere")
		}
		for _, id := range plan.Leave {
			if pods[id].State != Idle {
				fail("%s is not idle and is told to leave", id)
			}
		}
		if again := Look(f, o, now); !cmp.Equal(plan, again) {
			fail("the same fleet gives another plan")
		}
	}
	if drains < 200 || stops < 1000 || leaves < 1000 {
		t.Errorf("only %d drains, %d ends and %d leaves: the fleets test too little", drains, stops, leaves)
	}
}

// fitSomehow is true when CPUs are enough in all: a necessary condition, by other arithmetic than the package's.
func fitSomehow(needs, rooms []packing.Amounts) bool {
	need, room, largestNeed, largestRoom := int64(0), int64(0), int64(0), int64(0)
	for _, n := range needs {
		need, largestNeed = need+n[0], max(largestNeed, n[0])
	}
	for _, r := range rooms {
		room, largestRoom = room+r[0], max(largestRoom, r[0])
	}
	return need <= room && largestNeed <= largestRoom
}

func TestGiveWay(t *testing.T) {
	worker := func(id string, cpu int64, state State) Pod { return Pod{ID: id, Requests: cpus(cpu), State: state} }
	full := func(name string, pods ...Pod) Node {
		n := node(name, time.Hour)
		n.Free[0] = 0
		n.Pods = pods
		return n
	}
	important := worker("w", 1, Idle)
	important.Priority = 10
	for name, tc := range map[string]struct {
		waiting []Pod
		nodes   []Node
		want    []Yield
	}{
		"one that suffices": {
			[]Pod{worker("p", 2, Busy)}, []Node{full("a", worker("busy", 2, Busy), worker("small", 1, Idle), worker("large", 3, Idle), worker("right", 2, Idle))},
			[]Yield{{"p", "a", []string{"right"}}},
		},
		"several together": {
			[]Pod{worker("p", 2, Busy)}, []Node{full("a", worker("x", 1, Idle)), full("b", worker("y", 1, Idle), worker("z", 1, Idle))},
			[]Yield{{"p", "b", []string{"y", "z"}}},
		},
		"who leaves already makes the room":       {[]Pod{worker("p", 1, Busy)}, []Node{full("a", worker("x", 1, Leaving), worker("y", 1, Idle))}, []Yield{{"p", "a", nil}}},
		"room is given once":                      {[]Pod{worker("p", 1, Busy), worker("q", 1, Busy)}, []Node{full("a", worker("x", 1, Idle))}, []Yield{{"p", "a", []string{"x"}}}},
		"nobody else's pods, nor busy workers":    {[]Pod{worker("p", 1, Busy)}, []Node{full("a", worker("x", 4, Busy))}, nil},
		"not those that are more important":       {[]Pod{worker("p", 1, Busy)}, []Node{full("a", important)}, nil},
		"not on a node that others take away":     {[]Pod{worker("p", 1, Busy)}, []Node{changed(full("a", worker("x", 1, Idle)), func(n *Node) { n.Closed = true })}, nil},
		"the second where the first finds nobody": {[]Pod{worker("p", 9, Busy), worker("q", 1, Busy)}, []Node{full("a", worker("x", 1, Idle))}, []Yield{{"q", "a", []string{"x"}}}},
	} {
		if diff := cmp.Diff(tc.want, GiveWay(tc.waiting, tc.nodes), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Room that is promised is there once those who are told have left, nobody is told twice, and nobody in vain.
func TestGiveWayKeepsItsPromises(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	made := 0
	for round := range 6_000 {
		f := randomFleet(random)
		var waiting []Pod
		for i := range random.IntN(6) {
			waiting = append(waiting, Pod{ID: fmt.Sprint("p", i), Requests: cpus(1 + random.Int64N(6)), Priority: int32(random.IntN(2))})
		}
		yields := GiveWay(waiting, f.Nodes)
		made += len(yields)
		told := map[string]bool{}
		free := map[string]packing.Amounts{}
		pods := map[string]Pod{}
		for _, n := range f.Nodes {
			free[n.Name] = n.Free
			for _, p := range n.Pods {
				pods[p.ID] = p
				if p.State == Leaving {
					free[n.Name] = free[n.Name].Plus(p.Requests)
				}
			}
		}
		for _, y := range yields {
			pod := waiting[slices.IndexFunc(waiting, func(p Pod) bool { return p.ID == y.Pod })]
			if len(y.Leave) > 0 && free[y.Node].Fit(pod.Requests) {
				t.Fatalf("round %d: %v leave in vain\n%+v", round, y, f)
			}
			for _, id := range y.Leave {
				if told[id] || pods[id].State != Idle || pods[id].Priority > pod.Priority {
					t.Fatalf("round %d: %s is told to leave for %+v\n%+v", round, id, pod, f)
				}
				told[id] = true
				free[y.Node] = free[y.Node].Plus(pods[id].Requests)
			}
			if !free[y.Node].Fit(pod.Requests) {
				t.Fatalf("round %d: %+v makes no room\n%+v", round, y, f)
			}
			free[y.Node] = free[y.Node].Minus(pod.Requests)
		}
	}
	if made < 1000 {
		t.Errorf("only %d yields: the fleets test too little", made)
	}
}
