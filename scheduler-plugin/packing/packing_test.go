package packing

import (
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
	cases := map[string]struct {
		nodes     []Node
		remaining time.Duration
		weights   []float64
		want      []string
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
		"a node that stays anyway before a fuller one that must live longer": {
			remaining: time.Minute,
			nodes: []Node{
				{Name: "full", Exit: 59 * time.Second, Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "stays", Exit: time.Minute, Allocatable: []int64{8}, Free: []int64{6}},
			},
			want: []string{"stays", "full"},
		},
		// Extensions of 60, 31, 30 and 16 s; the last two are in one bucket, where the fuller one wins.
		"the least extension, by powers of two": {
			remaining: time.Minute,
			nodes: []Node{
				{Name: "empty", Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "31", Exit: 29 * time.Second, Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "16", Exit: 44 * time.Second, Allocatable: []int64{8}, Free: []int64{2}},
				{Name: "30", Exit: 30 * time.Second, Allocatable: []int64{8}, Free: []int64{1}},
			},
			want: []string{"30", "16", "31", "empty"},
		},
		// Each could be the pod's without an extension; the first never ends, the others 15, 16 and 61 s after the pod.
		"the least slack, by powers of four, before the fullest": {
			remaining: time.Minute,
			nodes: []Node{
				{Name: "61", Exit: 121 * time.Second, Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "16", Exit: 76 * time.Second, Allocatable: []int64{8}, Free: []int64{1}},
				{Name: "60", Exit: 120 * time.Second, Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "endless", Exit: Never, Allocatable: []int64{8}, Free: []int64{1}},
				{Name: "15", Exit: 75 * time.Second, Allocatable: []int64{8}, Free: []int64{2}},
			},
			want: []string{"endless", "15", "60", "16", "61"},
		},
		"nothing known: the fullest": {
			nodes: []Node{
				{Name: "endless", Exit: Never, Allocatable: []int64{8}, Free: []int64{3}},
				{Name: "long", Exit: time.Hour, Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "short", Exit: time.Second, Allocatable: []int64{8}, Free: []int64{1}},
			},
			want: []string{"long", "short", "endless"},
		},
		"a pod without an end goes to what has none": {
			remaining: Never,
			nodes: []Node{
				{Name: "busy", Exit: time.Hour, Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "endless", Exit: Never, Allocatable: []int64{8}, Free: []int64{7}},
			},
			want: []string{"endless", "busy"},
		},
		"its group before a better fit, but not before a node that stays": {
			remaining: time.Minute,
			nodes: []Node{
				{Name: "fit", Exit: time.Minute, Allocatable: []int64{8}, Free: []int64{0}},
				{Name: "group", Exit: time.Hour, Locality: 1, Allocatable: []int64{8}, Free: []int64{5}},
				{Name: "longer", Exit: 0, Locality: 2, Allocatable: []int64{8}, Free: []int64{0}},
			},
			want: []string{"group", "fit", "longer"},
		},
		// Alike, a is fuller: 4/8 + 0/8 against 0/8 + 5/8. CPU is scarce, and b leaves none of it idle.
		"what is scarce weighs more": {
			weights: []float64{0.9, 0.1},
			nodes: []Node{
				{Name: "a", Allocatable: []int64{8, 8}, Free: []int64{4, 0}},
				{Name: "b", Allocatable: []int64{8, 8}, Free: []int64{0, 5}},
			},
			want: []string{"b", "a"},
		},
		"a pod without requests": {
			nodes: []Node{{Name: "young", Created: at(5)}, {Name: "old", Created: at(1)}},
			want:  []string{"old", "young"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, names(Order(tc.nodes, tc.remaining, tc.weights, 100))); diff != "" {
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
				Exit: time.Duration(random.IntN(3)) * time.Minute, Locality: random.IntN(2),
				Allocatable: []int64{4, 8}, Free: []int64{random.Int64N(3), random.Int64N(3)},
			}
		}
		want := names(Order(nodes, time.Minute, nil, 100))
		shuffled := slices.Clone(nodes)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if diff := cmp.Diff(want, names(Order(shuffled, time.Minute, nil, 100))); diff != "" {
			t.Fatalf("order depends on the argument's (-want +got):\n%s", diff)
		}
	}
}

func TestExtension(t *testing.T) {
	for _, tc := range []struct {
		remaining, exit, want time.Duration
		bucket                int
	}{
		{time.Minute, time.Hour, 0, 0},
		{time.Hour, 30 * time.Minute, 30 * time.Minute, 8},
		{time.Nanosecond, 0, time.Nanosecond, 1},
		{15 * time.Second, 0, 15 * time.Second, 1},
		{15*time.Second + 1, 0, 15*time.Second + 1, 2},
		{Never, Never, 0, 0},
		{Never, time.Hour, Never, 31},
		{time.Hour, Never, 0, 0},
	} {
		got := Extension(tc.remaining, tc.exit)
		if bucket := ExtensionBucket(got); got != tc.want || bucket != tc.bucket {
			t.Errorf("%s on a node that stays %s: %s in bucket %d, want %s in %d", tc.remaining, tc.exit, got, bucket, tc.want, tc.bucket)
		}
	}
	for bucket := 1; bucketLimit(bucket) != Never; bucket++ {
		limit := bucketLimit(bucket)
		if ExtensionBucket(limit) != bucket || ExtensionBucket(limit+1) != bucket+1 {
			t.Errorf("bucket %d does not end at %s", bucket, limit)
		}
	}
}

func TestScarcity(t *testing.T) {
	got := Scarcity([]int64{50, 0, 3}, []int64{100, 100, 0})
	if diff := cmp.Diff([]float64{0.5, 0.01, 0}, got); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
}
