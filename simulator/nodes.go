package simulator

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Shape is a kind of node.
type Shape struct {
	Name string
	// Capacity for pods: what the kubelet and DaemonSets use is not in it.
	Capacity packing.Amounts
	// Size is what a NodePool's limits count; zero: the capacity.
	Size packing.Amounts
	// Price of an hour, in any currency; 0 when nobody asks.
	Price float64
}

// DefaultOverhead is what the kubelet reserves of a node and what its DaemonSets request: 340 millicores and 1.3 GiB.
var DefaultOverhead = packing.Amounts{340, 1331 << 20, 0, 0}

// NewShape is a shape of nodes of a size, of which overhead is not for pods.
func NewShape(name string, size, overhead packing.Amounts, price float64) Shape {
	return Shape{Name: name, Capacity: size.Minus(overhead), Size: size, Price: price}
}

// size as limits count it.
func (s *Shape) size() packing.Amounts {
	if s.Size == (packing.Amounts{}) {
		return s.Capacity
	}
	return s.Size
}

// Node is a node of a replay. Packers read it and change nothing.
type Node struct {
	Name    string
	Shape   Shape
	Created time.Duration
	Free    packing.Amounts
	Pods    int
	// Ready nodes take pods; others are still starting.
	Ready    bool
	removed  bool
	id       int             // nodes are numbered in the order of creation
	uses     int             // pods that it had
	empty    time.Duration   // since when, while it has no pods
	changed  time.Duration   // when a pod came or went last
	scored   packing.Amounts // what its pods count for in the stock scheduler's score
	draining time.Duration   // since when; -1 when it does not
	worked   time.Duration   // when a worker on it had work last
	on       []*worker       // in the order of binding; a Replay's jobs are not workers
}

// Buffer is room without pods, as a CapacityBuffer keeps it: so many pods with these requests always find room.
type Buffer struct {
	Pod packing.Amounts
	// Pods by the time.
	Pods func(now time.Time) int64
}

// slots is how many pods with some requests fit.
func slots(free, requests packing.Amounts) int64 {
	fit := int64(math.MaxInt64)
	for d, request := range requests {
		if request > 0 {
			fit = min(fit, max(0, free[d])/request)
		}
	}
	return fit
}

// buffered is for how many pods of the buffer there is room, or will be on nodes that start, without one of the nodes. Pods that wait take it.
func (r *run) buffered(without *Node) int64 {
	pod, room := r.Nodes.Buffer.Pod, -int64(len(r.unbound))
	for _, n := range r.nodes.ready {
		if n != without {
			room += slots(n.Free, pod)
		}
	}
	for _, n := range r.booting {
		if n != without {
			room += slots(n.Shape.Capacity, pod)
		}
	}
	return room
}

// keepBuffer makes nodes for what the buffer lacks: the cheapest that holds it, else the largest.
func (r *run) keepBuffer() {
	lack := r.Nodes.Buffer.Pods(r.Origin.Add(r.now)) - r.buffered(nil)
	for lack > 0 {
		shape := r.largest()
		for _, s := range r.Nodes.Shapes {
			if slots(s.Capacity, r.Nodes.Buffer.Pod) >= lack && s.Price < shape.Price {
				shape = s
			}
		}
		if !r.allowed(shape) {
			return
		}
		r.make([]Shape{shape})
		lack -= slots(shape.Capacity, r.Nodes.Buffer.Pod)
	}
}

// bufferNeeds is true for an empty node without which the buffer would lack room.
func (r *run) bufferNeeds(n *Node) bool {
	if r.Nodes.Buffer == nil {
		return false
	}
	pods := r.Nodes.Buffer.Pods(r.Origin.Add(r.now))
	return pods > 0 && r.buffered(n) < pods
}

// nodes are those that there are, and what they cost so far.
type nodes struct {
	packer Packer
	ready  []*Node // in the order of creation

	created, alive, peak, resets int
	price                        float64 // of an hour of those that there are
	hours                        float64 // of those that are gone: a Duration would end at 292 years
	cost                         float64
	last                         time.Duration // removal
}

// add makes a node that takes no pods before start.
func (n *nodes) add(shape Shape, now time.Duration) *Node {
	node := &Node{Name: fmt.Sprintf("node-%07d", n.created), id: n.created, Shape: shape, Created: now, Free: shape.Capacity, empty: now, draining: -1}
	n.created++
	n.alive++
	n.price += shape.Price
	n.peak = max(n.peak, n.alive)
	return node
}

// start makes a node take pods.
func (n *nodes) start(node *Node, now time.Duration) {
	node.Ready, node.empty = true, now
	at, _ := slices.BinarySearchFunc(n.ready, node.Name, func(n *Node, name string) int { return compareNames(n.Name, name) })
	n.ready = slices.Insert(n.ready, at, node)
	n.packer.Added(node)
}

func (n *nodes) bind(id int, job *Job, now time.Duration, node *Node) {
	node.Free = node.Free.Minus(job.Requests)
	node.scored = node.scored.Plus(scored(job.Requests))
	node.Pods++
	node.changed = now
	node.uses++
	n.packer.Bound(id, job, now, node)
}

// end takes a pod off its node.
func (n *nodes) end(id int, job *Job, ran, now time.Duration, node *Node) {
	node.Free = node.Free.Plus(job.Requests)
	node.scored = node.scored.Minus(scored(job.Requests))
	node.changed = now
	if node.Pods--; node.Pods == 0 {
		node.empty = now
	}
	n.packer.Ended(id, job, ran, now, node)
}

// remove takes a node away, one that has not started too.
func (n *nodes) remove(node *Node, now time.Duration) {
	node.removed = true
	n.alive--
	if n.price -= node.Shape.Price; n.alive == 0 {
		n.price = 0 // what adding and subtracting leaves
	}
	n.account(node, now)
	n.last = now
	if !node.Ready {
		return
	}
	at, _ := slices.BinarySearchFunc(n.ready, node.Name, func(n *Node, name string) int { return compareNames(n.Name, name) })
	n.ready = slices.Delete(n.ready, at, at+1)
	n.packer.Removed(node)
}

// account adds up what a node cost until now.
func (n *nodes) account(node *Node, now time.Duration) {
	lived := (now - node.Created).Hours()
	n.hours += lived
	n.cost += lived * node.Shape.Price
}

// compareNames puts names in the order of their numbers: longer ones are later.
func compareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
