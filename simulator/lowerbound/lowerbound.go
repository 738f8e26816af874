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
	steps := loadSteps(intervals, capacity)
	var total time.Duration
	// A step's height counts from its start until linger after its end.
	type plateau struct {
		nodes    int64
		from, to time.Time
	}
	var plateaus []plateau
	for i, step := range steps {
		if step.nodes == 0 || i+1 == len(steps) {
			continue
		}
		plateaus = append(plateaus, plateau{step.nodes, step.at, steps[i+1].at.Add(linger)})
	}
	// The integral of their maximum is, summed over the levels n, the time during which some plateau reaches n.
	slices.SortFunc(plateaus, func(a, b plateau) int { return a.from.Compare(b.from) })
	var highest int64
	for _, p := range plateaus {
		highest = max(highest, p.nodes)
	}
	for level := int64(1); level <= highest; level++ {
		var covered time.Time
		for _, p := range plateaus {
			if p.nodes < level {
				continue
			}
			from := p.from
			if from.Before(covered) {
				from = covered
			}
			if p.to.After(from) {
				total += p.to.Sub(from)
				covered = p.to
			}
		}
	}
	return total.Seconds()
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
