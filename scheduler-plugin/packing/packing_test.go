package packing

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func names(nodes []Node) []string {
	var list []string
	for _, n := range nodes {
		list = append(list, n.Name)
	}
	return list
}

func TestOrder(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 3, 2, 9, minute, 0, 0, time.UTC) }
	cases := map[string]struct {
		nodes []Node
		want  []string
	}{
		"least free space first": {
			nodes: []Node{
				{Name: "empty", Allocatable: []int64{8000}, Free: []int64{7000}},
				{Name: "full", Allocatable: []int64{8000}, Free: []int64{0}},
				{Name: "half", Allocatable: []int64{8000}, Free: []int64{4000}},
			},
			want: []string{"full", "half", "empty"},
		},
		// Shares of CPU and memory: (0 + 0.9)/2 = 0.45 and (0.5 + 0.2)/2 = 0.35.
		"mean over resources": {
			nodes: []Node{
				{Name: "cpu-full", Allocatable: []int64{8000, 100}, Free: []int64{0, 90}},
				{Name: "both", Allocatable: []int64{8000, 100}, Free: []int64{4000, 20}},
			},
			want: []string{"both", "cpu-full"},
		},
		// 1000/2000 = 0.5 is less than 7000/8000, though both have 1000 used.
		"share, not amount": {
			nodes: []Node{
				{Name: "large", Allocatable: []int64{8000}, Free: []int64{7000}},
				{Name: "small", Allocatable: []int64{2000}, Free: []int64{1000}},
			},
			want: []string{"small", "large"},
		},
		"a leaving node last, however full": {
			nodes: []Node{
				{Name: "leaving", Leaving: true, Allocatable: []int64{8000}, Free: []int64{0}},
				{Name: "empty", Allocatable: []int64{8000}, Free: []int64{7000}},
			},
			want: []string{"empty", "leaving"},
		},
		"the oldest of equals": {
			nodes: []Node{
				{Name: "a-young", Created: at(5), Allocatable: []int64{8}, Free: []int64{4}},
				{Name: "b-old", Created: at(1), Allocatable: []int64{8}, Free: []int64{4}},
			},
			want: []string{"b-old", "a-young"},
		},
		"by name at last": {
			nodes: []Node{
				{Name: "b", Allocatable: []int64{8}, Free: []int64{4}}, {Name: "a", Allocatable: []int64{8}, Free: []int64{4}},
			},
			want: []string{"a", "b"},
		},
		"a pod without requests": {
			nodes: []Node{{Name: "young", Created: at(5)}, {Name: "old", Created: at(1)}},
			want:  []string{"old", "young"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			Order(tc.nodes)
			if diff := cmp.Diff(tc.want, names(tc.nodes)); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	}
}

// The order of the result does not depend on the order of the argument.
func TestOrderIsTotal(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		nodes := make([]Node, 1+random.IntN(30))
		for i := range nodes {
			nodes[i] = Node{
				Name: string(rune('A' + i)), Created: time.Unix(int64(random.IntN(3)), 0), Leaving: random.IntN(4) == 0,
				Allocatable: []int64{4, 8}, Free: []int64{random.Int64N(3), random.Int64N(3)},
			}
		}
		Order(nodes)
		want := names(nodes)
		shuffled := slices.Clone(nodes)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		Order(shuffled)
		if diff := cmp.Diff(want, names(shuffled)); diff != "" {
			t.Fatalf("order depends on the argument's (-want +got):\n%s", diff)
		}
	}
}
