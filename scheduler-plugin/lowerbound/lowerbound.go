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
	window := Window{Linger: linger}
	for _, s := range steps {
		window.Step(s.at, s.nodes, visit)
	}
	if len(steps) > 0 {
		window.Step(steps[len(steps)-1].at.Add(linger), 0, visit)
	}
}

// Window is the same for a load that is learned of step by step. Make one with its Linger set.
type Window struct {
	// Linger is how long a node lives at least after its last pod.
	Linger time.Duration

	// A step's height counts from its start until Linger after its end: the highest of those that count is a maximum over a
	// window that slides. They wait in the order of time, which is that of falling height: one that is lower than a later one
	// never counts again. The last is the current one, and has no end yet.
	waiting []plateau
	now     time.Time
}

type plateau struct {
	nodes int64
	to    time.Time
}

// Step tells that the load needs a number of nodes from an instant on, no earlier than that of the step before. Visit is called with
// the times up to then, in their order, and the number of nodes that there must have been at least. Times without any are left out.
func (w *Window) Step(at time.Time, nodes int64, visit func(from, to time.Time, nodes int64)) {
	if last := len(w.waiting) - 1; last >= 0 {
		w.waiting[last].to = at.Add(w.Linger)
	}
	for len(w.waiting) > 0 && w.now.Before(at) {
		first, end := w.waiting[0], at
		if first.to.Before(at) {
			end = first.to
		}
		if end.After(w.now) {
			if first.nodes > 0 {
				visit(w.now, end, first.nodes)
			}
			w.now = end
		}
		if !first.to.After(w.now) {
			w.waiting = w.waiting[1:]
		}
	}
	w.now = at
	for len(w.waiting) > 0 && w.waiting[len(w.waiting)-1].nodes <= nodes {
		w.waiting = w.waiting[:len(w.waiting)-1]
	}
	w.waiting = append(w.waiting, plateau{nodes: nodes})
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
