package packing

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func names(keys []Key) []string {
	var list []string
	for _, k := range keys {
		list = append(list, k.Name)
	}
	return list
}

func TestOrder(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 3, 2, 9, minute, 0, 0, time.UTC) }
	keepsNone := Pod{Remaining: Unknown}
	precisely := func(d time.Duration) Pod { return Pod{Remaining: d, Stated: 1} }
	vaguely := func(d time.Duration) Pod { return Pod{Remaining: d, Spread: 1.5} }
	cases := map[string]struct {
		nodes   []Node
		pod     Pod
		weights []float64
		want    []string
	}{
		// Quarters of 1000/8000, 4000/8000 and 7000/8000 are 0, 2 and 3.
		"a pod that keeps no node: the least free space": {
			pod: keepsNone,
			nodes: []Node{
				{Name: "empty", Allocatable: []int64{8000}, Free: []int64{7000}},
				{Name: "full", Exit: time.Hour, Allocatable: []int64{8000}, Free: []int64{1000}},
				{Name: "half", Allocatable: []int64{8000}, Free: []int64{4000}},
			},
			want: []string{"full", "half", "empty"},
		},
		// Shares of CPU and memory: (0 + 0.9)/2 = 0.45 and (0.2 + 0.2)/2 = 0.2, whose quarters are 1 and 0.
		"mean over resources": {
			pod: keepsNone,
			nodes: []Node{
				{Name: "cpu-full", Allocatable: []int64{8000, 100}, Free: []int64{0, 90}},
				{Name: "both", Allocatable: []int64{8000, 100}, Free: []int64{1600, 20}},
			},
			want: []string{"both", "cpu-full"},
		},
		"a leaving node last, however full": {
			pod: keepsNone,
			nodes: []Node{
				{Name: "leaving", Leaving: true, Allocatable: []int64{8000}, Free: []int64{0}},
				{Name: "empty", Allocatable: []int64{8000}, Free: []int64{7000}},
			},
			want: []string{"empty", "leaving"},
		},
		// 4/8 and 5/8 are of one quarter.
		"the oldest of about as much room": {
			pod: keepsNone,
			nodes: []Node{
				{Name: "a-young", Created: at(5), Allocatable: []int64{8}, Free: []int64{4}},
				{Name: "b-old", Created: at(1), Allocatable: []int64{8}, Free: []int64{5}},
			},
			want: []string{"b-old", "a-young"},
		},
		"by name at last": {pod: keepsNone, nodes: []Node{{Name: "b"}, {Name: "a"}}, want: []string{"a", "b"}},
		"a node that stays anyway before a fuller one that must live longer": {
			pod: precisely(time.Minute),
			nodes: []Node{
				{Name: "full", Exit: 50 * time.Second, Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "stays", Exit: time.Minute, Allocatable: []int64{8}, Free: []int64{6}},
			},
			want: []string{"stays", "full"},
		},
		// A second of slack costs 0.06 * 60/660 = 0.0055 s: 30 s of it 0.16 s, 300 s of it 1.64 s.
		"extension and slack are weighed": {
			pod: precisely(time.Minute),
			nodes: []Node{
				{Name: "one second short", Exit: 59 * time.Second}, {Name: "30 s more", Exit: 90 * time.Second},
				{Name: "300 s more", Exit: 6 * time.Minute}, {Name: "endless", Exit: Never}, {Name: "empty"},
			},
			want: []string{"endless", "30 s more", "one second short", "300 s more", "empty"},
		},
		// Steps are of 6 s; extensions of 0, 5 and 7 s are of steps 0, 0 and 1. Slack does not count.
		"where the run time is vague, the oldest of a step": {
			pod: vaguely(time.Minute),
			nodes: []Node{
				{Name: "5 s short", Exit: 55 * time.Second, Created: at(1)}, {Name: "stays", Exit: time.Hour, Created: at(2)},
				{Name: "7 s short", Exit: 53 * time.Second, Created: at(0)},
			},
			want: []string{"5 s short", "stays", "7 s short"},
		},
		"and before that the fullest by quarters": {
			pod: vaguely(time.Minute),
			nodes: []Node{
				{Name: "old", Exit: time.Hour, Created: at(1), Allocatable: []int64{8}, Free: []int64{4}},
				{Name: "young", Exit: time.Hour, Created: at(2), Allocatable: []int64{8}, Free: []int64{1}},
			},
			want: []string{"young", "old"},
		},
		// 30 minutes that the pod pays alone, or an hour that three others will share: 15 minutes each. Room for more than will come is worth nothing.
		"an extension that others are expected to share": {
			pod: Pod{Remaining: time.Hour, Stated: 1, Followers: 3},
			nodes: []Node{
				{Name: "full", Exit: 30 * time.Minute}, {Name: "a", More: 9, Created: at(2)}, {Name: "b", More: 3, Created: at(1)}, {Name: "c", More: 2},
			},
			want: []string{"b", "a", "c", "full"},
		},
		"nobody is expected to share it": {
			pod:   Pod{Remaining: time.Hour, Stated: 1},
			nodes: []Node{{Name: "full", Exit: 30 * time.Minute}, {Name: "empty", More: 9}},
			want:  []string{"full", "empty"},
		},
		"a pod without an end goes to what has none, else to the cheapest": {
			pod: Pod{Remaining: Never},
			nodes: []Node{
				{Name: "expensive", Exit: time.Hour, Price: 1, Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "cheap", Allocatable: []int64{8}, Free: []int64{7}},
				{Name: "endless", Exit: Never, Allocatable: []int64{8}, Free: []int64{7}},
			},
			want: []string{"endless", "cheap", "expensive"},
		},
		// Steps are of 6 s: 0, 0 and 10.
		"its group, but not on a node that must live much longer": {
			pod: Pod{Remaining: time.Minute, Stated: 1, Grouped: true},
			nodes: []Node{
				{Name: "fit", Exit: time.Minute}, {Name: "group", Exit: 90 * time.Second, Locality: 1}, {Name: "empty", Locality: 2},
			},
			want: []string{"group", "fit", "empty"},
		},
		// Alike, a is fuller: 2/8 + 0/8 against 0/8 + 6/8. CPU is scarce, and b leaves none of it idle.
		"what is scarce weighs more": {
			pod: keepsNone, weights: []float64{0.95, 0.05},
			nodes: []Node{
				{Name: "a", Created: at(0), Allocatable: []int64{8, 8}, Free: []int64{4, 0}},
				{Name: "b", Created: at(1), Allocatable: []int64{8, 8}, Free: []int64{0, 6}},
			},
			want: []string{"b", "a"},
		},
		// An extension of 9 s at the cheap node's price, of 5 s at twice that.
		"the price of an extension": {
			pod:   precisely(time.Minute),
			nodes: []Node{{Name: "expensive", Price: 1, Exit: 55 * time.Second}, {Name: "cheap", Exit: 51 * time.Second}},
			want:  []string{"cheap", "expensive"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, names(Order(tc.nodes, &tc.pod, tc.weights, 100))); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	}
}

// The cost by distributions is what chance makes of extension and slack: against many draws of pods and of nodes.
func TestCostByDistributions(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	draw := func(median, sigma float64) float64 { return median * math.Exp(sigma*random.NormFloat64()) }
	beyond := func(median, sigma float64) *Probabilities {
		var p Probabilities
		for i, t := range Times {
			p[i] = math.Erfc(math.Log(t/median)/sigma/math.Sqrt2) / 2
		}
		return &p
	}
	for _, exit := range []float64{30, 300, 3000} {
		gone := beyond(exit, 0.5)
		for i := range gone {
			gone[i] = 1 - gone[i]
		}
		pod := Pod{Remaining: 5 * time.Minute, Spread: 0.8, Stated: 1, Lasting: beyond(300, 0.8)}
		key := Order([]Node{{Name: "n", Exit: time.Minute, Gone: gone}}, &pod, nil, 1)[0]
		const draws = 200_000
		extension, slack := 0.0, 0.0
		for range draws {
			ends, leaves := draw(300, 0.8), draw(exit, 0.5)
			extension += max(0, ends-leaves) / draws
			slack += max(0, leaves-ends) / draws
		}
		if math.Abs(key.Extension-extension) > 5+0.05*extension || math.Abs(key.Slack-slack) > 5+0.05*slack {
			t.Errorf("a node that exits after %g s: extension %.0f s and slack %.0f s, really %.0f s and %.0f s", exit, key.Extension, key.Slack, extension, slack)
		}
	}
}

// The order of the result does not depend on the order of the argument, nor on how many are wanted.
func TestOrderIsTotal(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 200 {
		nodes := make([]Node, 1+random.IntN(30))
		for i := range nodes {
			nodes[i] = Node{
				Name: string(rune('A' + i)), Created: time.Unix(int64(random.IntN(3)), 0), Leaving: random.IntN(4) == 0,
				Exit: time.Duration(random.IntN(3)) * time.Minute, Locality: random.IntN(2),
				Allocatable: []int64{4, 8}, Free: []int64{random.Int64N(3), random.Int64N(3)},
			}
		}
		pod := Pod{Remaining: time.Minute, Spread: float64(i % 2)}
		want := names(Order(nodes, &pod, nil, 100))
		shuffled := slices.Clone(nodes)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		most := 1 + random.IntN(len(nodes))
		if diff := cmp.Diff(want[:most], names(Order(shuffled, &pod, nil, most))); diff != "" {
			t.Fatalf("order depends on the argument's (-want +got):\n%s", diff)
		}
	}
}

func TestDecide(t *testing.T) {
	base := Key{Cost: 1, Extension: 1, Sharing: 2, Locality: 1, Created: time.Unix(1, 0), Name: "b"}
	for by, change := range map[string]func(*Key){
		"leaving": func(k *Key) { k.Leaving = true }, "extension": func(k *Key) { k.Cost, k.Extension = 2, 2 },
		"sharing": func(k *Key) { k.Cost, k.Sharing = 2, 1 },
		"slack":   func(k *Key) { k.Cost, k.Slack = 2, 20 }, "locality": func(k *Key) { k.Locality = 0 },
		"room": func(k *Key) { k.FreeQuarters = 1 }, "age": func(k *Key) { k.Created = time.Unix(2, 0) }, "name": func(k *Key) { k.Name = "c" },
	} {
		other := base
		change(&other)
		if order, got := base.Decide(&other); order >= 0 || got != by {
			t.Errorf("%s: %d by %s", by, order, got)
		}
		if order, got := other.Decide(&base); order <= 0 || got != by {
			t.Errorf("%s, the other way: %d by %s", by, order, got)
		}
	}
}

func TestExtension(t *testing.T) {
	for _, tc := range []struct{ remaining, exit, want time.Duration }{
		{time.Minute, time.Hour, 0}, {time.Hour, 30 * time.Minute, 30 * time.Minute}, {time.Nanosecond, 0, time.Nanosecond},
		{Never, Never, 0}, {Never, time.Hour, Never}, {time.Hour, Never, 0},
	} {
		if got := Extension(tc.remaining, tc.exit); got != tc.want {
			t.Errorf("%s on a node that stays %s: %s, want %s", tc.remaining, tc.exit, got, tc.want)
		}
	}
}

func TestScarcity(t *testing.T) {
	got := Scarcity([]int64{50, 0, 3}, []int64{100, 100, 0})
	if diff := cmp.Diff([]float64{0.5, 0.01, 0}, got); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
}
