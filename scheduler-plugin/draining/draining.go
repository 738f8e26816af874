// Package draining decides which nodes should empty, which workers leave for that, and which make room for a pod that finds none.
//
// Placement alone empties no node whose workers take one message after the other. But workers pull: who takes the next message, who waits for
// one and who leaves is ours to choose. Three rules together give the waits of workers that stand by at about the cost of a pod for each
// message:
//
//   - Stay: a worker without a message waits for one as long as its node works anyway.
//   - Give way: a pod without room gets the room of workers that have nothing to do.
//   - Drain: nodes whose pods would fit on the others get no more work, so that they empty and can be removed.
//
// The package is pure: it reads no clock, knows no Kubernetes types, and changes nothing. The scheduler's controller carries out what it
// says, and the simulator runs the same code. What it promises:
//
//   - Nothing is ended. A worker that works is never told to leave, and a pod that is no worker never is.
//   - A drain takes no room that is needed: none begins while a pod waits or a node starts, all end when a pod finds no room.
//   - Everything is bounded: a drain by Options.Longest, what begins at a look by Options.AtOnce, who gives way by what the pod lacks.
//   - It keeps no state but the fleet's: the nodes themselves say since when they drain, so the next leader continues from there.
package draining

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// State of a pod.
type State int

const (
	// Busy pods are left alone: a worker with a message, one that starts, and every pod that is no worker.
	Busy State = iota
	// Idle workers have no message and may be told to leave.
	Idle
	// Leaving pods end by themselves soon: they were told to, or are done.
	Leaving
)

// Pod is a pod that is on a node, or that waits for one.
type Pod struct {
	// ID is unique.
	ID       string
	Requests packing.Amounts
	Priority int32
	State    State
	// Remaining is how much longer it is expected to work: on its message, when it is a worker. packing.Never when it has no end. Counts
	// for busy pods only.
	Remaining time.Duration
}

// Node is a node that takes pods.
type Node struct {
	// Name is unique.
	Name    string
	Created time.Time
	// Free amounts, and the Pods that hold the others. DaemonSets' are not among them: they keep no node.
	Free packing.Amounts
	Pods []Pod
	// Draining since; the zero time when it does not.
	Draining time.Time
	// Kept nodes never drain, because their owner said so. Their room counts.
	Kept bool
	// Closed nodes are taken away by others, or take no pods: none begins to drain, and they are no room. A drain that ran before continues, so
	// that nothing is written on a node that is about to be removed.
	Closed bool
}

// Fleet is what is to be decided on.
type Fleet struct {
	Nodes []Node
	// Waiting pods have found no room; Starting nodes do not take pods yet.
	Waiting, Starting int
}

// Options of drains. The zero value is not useful: see Defaults.
type Options struct {
	// Spare is how many more pods of the largest kind must fit on the others beside those of the nodes that drain. More of them halve
	// the drains that are cancelled, fewer empty nodes sooner.
	Spare int
	// Longest that a node may drain at a stretch; at least a look's period.
	Longest time.Duration
	// AtOnce is how many drains may begin at one look; 0 or less: none. It bounds what is written to the API server.
	AtOnce int
}

// Defaults are the options that were found best; see docs/design/figures.md.
func Defaults() Options { return Options{Spare: 2, Longest: time.Hour, AtOnce: 100} }

// Reason why a drain ends before its node is empty.
type Reason string

// Reasons.
const (
	NeedsRoom Reason = "a pod finds no room"
	NoRoom    Reason = "its pods no longer fit elsewhere"
	TooLong   Reason = "it took too long"
	NotOurs   Reason = "its owner keeps it"
)

// Stop is a drain that ends before its node is empty.
type Stop struct {
	Node string
	Why  Reason
}

// Plan is what a look says is to be done.
type Plan struct {
	// Drain these nodes from now on, and end the drains of those.
	Drain []string
	Stop  []Stop
	// Leave are the IDs of idle workers on nodes that drain. Busy ones leave after their message.
	Leave []string
}

// misses is how many nodes that do not fit elsewhere a look tries before it stops looking: the next ones hold more.
const misses = 3

// Look decides on drains. What it returns depends on its arguments alone; nodes come in the order in which they were chosen.
func Look(f Fleet, o Options, now time.Time) Plan {
	var plan Plan
	var draining []*Node
	for i := range f.Nodes {
		n := &f.Nodes[i]
		switch {
		case n.Draining.IsZero():
		case n.Closed && now.Sub(n.Draining) < o.Longest:
			// Whoever removes it finishes, or keeps it.
		case n.Kept:
			plan.Stop = append(plan.Stop, Stop{n.Name, NotOurs})
		case f.Waiting > 0 && !n.Closed:
			plan.Stop = append(plan.Stop, Stop{n.Name, NeedsRoom})
		case now.Sub(n.Draining) >= o.Longest:
			plan.Stop = append(plan.Stop, Stop{n.Name, TooLong})
		default:
			draining = append(draining, n)
		}
	}
	// The drains that began last are the first to end: the others are further on.
	slices.SortFunc(draining, func(a, b *Node) int {
		return cmp.Or(a.Draining.Compare(b.Draining), strings.Compare(a.Name, b.Name))
	})
	for len(draining) > 0 && !f.fit(draining, 0) {
		last := draining[len(draining)-1]
		plan.Stop = append(plan.Stop, Stop{last.Name, NoRoom})
		draining = draining[:len(draining)-1]
	}
	if f.Waiting == 0 && f.Starting == 0 && len(plan.Stop) == 0 {
		missed := 0
		for _, n := range f.candidates() {
			if len(plan.Drain) >= o.AtOnce || missed == misses {
				break
			}
			if more := append(slices.Clip(draining), n); f.fit(more, o.Spare) {
				draining = more
				plan.Drain = append(plan.Drain, n.Name)
			} else {
				missed++
			}
		}
	}
	for _, n := range draining {
		for _, p := range n.Pods {
			if p.State == Idle {
				plan.Leave = append(plan.Leave, p.ID)
			}
		}
	}
	return plan
}

// candidates are the nodes that may begin to drain: those whose last pod is expected to end first, then those of the fewest pods, then the
// youngest. Empty ones come first.
func (f *Fleet) candidates() []*Node {
	type candidate struct {
		node *Node
		ends time.Duration
	}
	var found []candidate
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if !n.Draining.IsZero() || n.Kept || n.Closed {
			continue
		}
		c := candidate{node: n}
		for _, p := range n.Pods {
			if p.State == Busy {
				c.ends = max(c.ends, p.Remaining)
			}
		}
		if c.ends < packing.Never {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.ends, b.ends), cmp.Compare(len(a.node.Pods), len(b.node.Pods)), b.node.Created.Compare(a.node.Created),
			strings.Compare(a.node.Name, b.node.Name))
	})
	nodes := make([]*Node, len(found))
	for i, c := range found {
		nodes[i] = c.node
	}
	return nodes
}

// fit reports whether the pods of some nodes, and so many more of the largest kind, would fit on the others that have pods: an empty node may
// be gone any moment. Idle workers elsewhere are no room, as a message may come for them. The largest are placed first, each on the first
// node with room.
func (f *Fleet) fit(away []*Node, spare int) bool {
	var rooms, needs []packing.Amounts
	var largest packing.Amounts
	for i := range f.Nodes {
		n := &f.Nodes[i]
		leaves := slices.Contains(away, n)
		if !leaves && !n.Closed && len(n.Pods) > 0 {
			rooms = append(rooms, n.Free)
		}
		for _, p := range n.Pods {
			if leaves {
				needs = append(needs, p.Requests)
			}
			if p.Remaining < packing.Never && largest[0] < p.Requests[0] {
				largest = p.Requests
			}
		}
	}
	for range spare {
		needs = append(needs, largest)
	}
	slices.SortFunc(needs, func(a, b packing.Amounts) int { return slices.Compare(b[:], a[:]) })
	first := 0 // rooms before it have no room for a pod like the last one
	for i, need := range needs {
		if i > 0 && need != needs[i-1] {
			first = 0
		}
		for first < len(rooms) && !rooms[first].Fit(need) {
			first++
		}
		if first == len(rooms) {
			return false
		}
		rooms[first] = rooms[first].Minus(need)
	}
	return true
}
