package lowerbound

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestNodeSeconds(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	pod := func(from, to int, requests ...int64) Interval { return Interval{at(from), at(to), requests} }
	cases := map[string]struct {
		pods     []Interval
		capacity []int64
		linger   time.Duration
		want     float64
	}{
		"nothing": {capacity: []int64{4}, want: 0},
		"one pod": {pods: []Interval{pod(0, 10, 1)}, capacity: []int64{4}, want: 10},
		"a node lives on after its last pod": {
			pods: []Interval{pod(0, 10, 1)}, capacity: []int64{4}, linger: 5 * time.Second, want: 15,
		},
		// 0-10: 3 of 2 cores each need 2 nodes of 4; 10-20: one of 2 cores needs 1.
		"rounds up to whole nodes": {
			pods: []Interval{pod(0, 10, 2), pod(0, 10, 2), pod(0, 20, 2)}, capacity: []int64{4}, want: 2*10 + 10,
		},
		// The second resource asks for 3 nodes where the first asks for 1.
		"the scarcest resource decides": {
			pods: []Interval{pod(0, 10, 1, 8), pod(0, 10, 1, 8), pod(0, 10, 1, 8)}, capacity: []int64{4, 8}, want: 30,
		},
		// Two nodes until 10, which linger until 15; one until 20, which lingers until 25.
		"lingering overlaps what follows": {
			pods: []Interval{pod(0, 10, 4), pod(0, 20, 4)}, capacity: []int64{4}, linger: 5 * time.Second, want: 15 + 25,
		},
		// The gap of 3 s is shorter than the 5 s that the node lives on anyway.
		"a short gap keeps the node": {
			pods: []Interval{pod(0, 10, 1), pod(13, 20, 1)}, capacity: []int64{4}, linger: 5 * time.Second, want: 25,
		},
		"ends before it starts": {pods: []Interval{pod(10, 0, 1)}, capacity: []int64{4}, linger: time.Second, want: 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := NodeSeconds(c.pods, c.capacity, c.linger); got != c.want {
				t.Errorf("%v node-seconds, want %v", got, c.want)
			}
		})
	}
}

// The formula, second by second, on random loads with whole-second instants.
func TestNodeSecondsAgainstFormula(t *testing.T) {
	const horizon, linger = 120, 7
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		capacity := []int64{4, 16}
		var pods []Interval
		for range random.IntN(30) {
			start := random.IntN(60)
			pods = append(pods, Interval{
				Start: time.Unix(int64(start), 0), End: time.Unix(int64(start+1+random.IntN(40)), 0),
				Requests: []int64{1 + random.Int64N(4), 1 + random.Int64N(16)},
			})
		}
		needs := make([]float64, horizon)
		for second := range needs {
			for d, size := range capacity {
				var load int64
				for _, pod := range pods {
					if now := time.Unix(int64(second), 0); !now.Before(pod.Start) && now.Before(pod.End) {
						load += pod.Requests[d]
					}
				}
				needs[second] = max(needs[second], math.Ceil(float64(load)/float64(size)))
			}
		}
		var want float64
		for second := range needs {
			highest := 0.0
			for s := max(0, second-linger); s <= second; s++ {
				highest = max(highest, needs[s])
			}
			want += highest
		}
		if got := NodeSeconds(pods, capacity, linger*time.Second); got != want {
			t.Fatalf("%v node-seconds, want %v for %v", got, want, pods)
		}
	}
}
