// Package lowerbound computes the fewest node-seconds that any packer could have used for a load, so that a packer's
// figure can be read as a ratio. It is pure and imports nothing of Ebbtide.
package lowerbound

import (
	"cmp"
	"slices"
	"time"
)

// Interval is a time during which a pod held resources: [Start, End).
type Interval struct {
	Start, End time.Time
	// Requests per resource, in the units and order of the capacity given to NodeSeconds.
	Requests []int64
}

// NodeSeconds is a lower bound, in node-seconds, for running the intervals on nodes of one capacity when a node lives
// at least linger after its last pod:
//
//	LB = integral over t of max over s in [t-linger, t] of ceil(max over d of load_d(s) / capacity_d)
//
// No placement does better: at s at least that many nodes hold pods, and each of them is still there linger later.
// Intervals that end before they start count as empty.
func NodeSeconds(intervals []Interval, capacity []int64, linger time.Duration) float64 {
	var total float64
	Each(intervals, capacity, linger, func(from, to time.Time, nodes int64) { total += float64(nodes) * to.Sub(from).Seconds() })
	return total
}

// Each calls visit with the times, in their order, and the number of nodes that NodeSeconds adds up. Times without any are left out.
func Each(intervals []Interval, capacity []int64, linger time.Duration, visit func(from, to time.Time, nodes int64)) {
	steps := loadSteps(intervals, capacity)
	// A step's height counts from its start until linger after its end: the highest of those that count is a maximum over a
	// window that slides. They wait in the order of time, which is that of falling height: one that is lower than a later one
	// never counts again.
	type plateau struct {
		nodes int64
		to    time.Time
	}
	var waiting []plateau
	var now time.Time
	until := func(at time.Time) {
		for len(waiting) > 0 && now.Before(at) {
			end := waiting[0].to
			if end.After(at) {
				end = at
			}
			if end.After(now) {
				visit(now, end, waiting[0].nodes)
				now = end
			}
			if !waiting[0].to.After(now) {
				waiting = waiting[1:]
			}
		}
		now = at
	}
	for i := range len(steps) - 1 {
		until(steps[i].at)
		if steps[i].nodes == 0 {
			continue
		}
		for len(waiting) > 0 && waiting[len(waiting)-1].nodes <= steps[i].nodes {
			waiting = waiting[:len(waiting)-1]
		}
		waiting = append(waiting, plateau{steps[i].nodes, steps[i+1].at.Add(linger)})
	}
	if len(waiting) > 0 {
		until(waiting[len(waiting)-1].to)
	}
}

// step is the number of nodes that the load needs from an instant on, until the next step.
type step struct {
	at    time.Time
	nodes int64
}

func loadSteps(intervals []Interval, capacity []int64) []step {
	type change struct {
		at    time.Time
		delta []int64
		sign  int64
	}
	changes := make([]change, 0, 2*len(intervals))
	for _, interval := range intervals {
		if interval.End.After(interval.Start) {
			changes = append(changes,
				change{interval.Start, interval.Requests, 1}, change{interval.End, interval.Requests, -1})
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.sign, b.sign))
	})
	load := make([]int64, len(capacity))
	var steps []step
	for i, c := range changes {
		for d := range load {
			load[d] += c.sign * c.delta[d]
		}
		if i+1 < len(changes) && changes[i+1].at.Equal(c.at) {
			continue
		}
		var nodes int64
		for d, amount := range load {
			nodes = max(nodes, (amount+capacity[d]-1)/capacity[d])
		}
		steps = append(steps, step{c.at, nodes})
	}
	return steps
}
