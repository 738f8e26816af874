package simulator

import (
	"slices"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/stay"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/draining"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lifetime"
)

// Rules are those of package draining, each of which may be left out, and how quickly a cluster carries them out.
type Rules struct {
	// Stay in place of Worker.IdleTimeout; the zero value: that timeout.
	Stay stay.Rule
	// GiveWay makes idle workers leave for pods without room. No node is made for such a pod for as long as Promise, as it is nominated.
	GiveWay bool
	Promise time.Duration
	// Drain nodes, looking every Every; 0: never.
	Drain draining.Options
	Every time.Duration
	// Answer is how long it takes until a worker that is told to leave does.
	Answer time.Duration
}

// ThreeRules are all of them as the product has them by default.
func ThreeRules() *Rules {
	return &Rules{
		Stay: stay.Default(), GiveWay: true, Promise: 3 * time.Second, Drain: draining.Defaults(), Every: 5 * time.Second,
		Answer: 500 * time.Millisecond,
	}
}

// Drains are counts of a run with rules.
type Drains struct {
	// Begun drains; those that ended with the node; those that were cancelled.
	Begun    int `json:"begun"`
	Finished int `json:"finished"`
	Stopped  int `json:"stopped"`
	// Yields are pods that were given way to, and Left idle workers that left for one or for a drain.
	Yields int `json:"yields"`
	Left   int `json:"left"`
}

// rules at work.
type rules struct {
	count    Drains
	draining []*Node // in the order in which their drains began
	open     []*Node // ready nodes that do not drain
	stale    bool    // open has to be recomputed
	times    *lifetime.Estimator
	nodes    []draining.Node // of the last look
	pods     []draining.Pod
}

// opened are the nodes on which pods are placed first.
func (r *run) opened() []*Node {
	if len(r.rules.draining) == 0 {
		return r.nodes.ready
	}
	if r.rules.stale {
		r.rules.open = append(r.rules.open[:0], r.nodes.ready...)
		r.rules.open = slices.DeleteFunc(r.rules.open, func(n *Node) bool { return n.draining >= 0 })
		r.rules.stale = false
	}
	return r.rules.open
}

// place is the packer's choice among the nodes that do not drain; else one that drains, which does not any more: the last that began.
func (r *run) place(w *worker) *Node {
	if n := r.nodes.packer.Place(w.id, &w.job, r.now, r.opened()); n != nil {
		return n
	}
	for _, n := range slices.Backward(r.rules.draining) {
		if n.Free.Fit(w.job.Requests) {
			r.stopDraining(n)
			return n
		}
	}
	return nil
}

// drainer is a packer that keeps track of nodes and so is told which ones drain.
type drainer interface {
	set(node *Node, draining bool)
}

func (r *run) drain(n *Node) {
	n.draining = r.now
	r.rules.draining = append(r.rules.draining, n)
	r.rules.stale = true
	r.rules.count.Begun++
	if p, ok := r.nodes.packer.(drainer); ok {
		p.set(n, true)
	}
}

// stopDraining cancels a drain.
func (r *run) stopDraining(n *Node) {
	r.forgetDrain(n)
	r.rules.count.Stopped++
	if p, ok := r.nodes.packer.(drainer); ok {
		p.set(n, false)
	}
}

func (r *run) forgetDrain(n *Node) {
	n.draining = -1
	r.rules.draining = slices.DeleteFunc(r.rules.draining, func(other *Node) bool { return other == n })
	r.rules.stale = true
}

// look is the drain controller's.
func (r *run) look() {
	if len(r.rules.draining) == 0 && (len(r.unbound) > 0 || len(r.booting) > 0 || len(r.nodes.ready) < 2) {
		return // nothing begins, and nothing is to end
	}
	f := draining.Fleet{Nodes: r.described(), Waiting: len(r.unbound), Starting: len(r.booting)}
	plan := draining.Look(f, r.Rules.Drain, Epoch.Add(r.now))
	for _, stop := range plan.Stop {
		r.stopDraining(r.named(stop.Node))
	}
	for _, name := range plan.Drain {
		r.drain(r.named(name))
	}
	r.sendAway(plan.Leave)
}

// described are the nodes as package draining sees them; good until the next call.
func (r *run) described() []draining.Node {
	r.rules.nodes, r.rules.pods = r.rules.nodes[:0], r.rules.pods[:0]
	for _, n := range r.nodes.ready {
		from := len(r.rules.pods)
		for _, w := range n.on {
			p := draining.Pod{ID: w.name, Requests: w.job.Requests}
			switch {
			case w.idle:
				p.State = draining.Idle
			case w.leaving:
				p.State = draining.Leaving
			default:
				p.Remaining = r.remaining(w)
			}
			r.rules.pods = append(r.rules.pods, p)
		}
		d := draining.Node{Name: n.Name, Created: Epoch.Add(n.Created), Free: n.Free, Pods: r.rules.pods[from:len(r.rules.pods):len(r.rules.pods)]}
		if n.draining >= 0 {
			d.Draining = Epoch.Add(n.draining)
		}
		r.rules.nodes = append(r.rules.nodes, d)
	}
	return r.rules.nodes
}

// remaining is how much longer a busy worker is expected to be on its message, as the median of what was learned of its class. Where nothing
// was, all are alike.
func (r *run) remaining(w *worker) time.Duration {
	class, age := w.queue.job.Class, time.Duration(0)
	if w.working {
		class, age = r.messages[w.message].Class, r.now-w.begun
	}
	if w.expectedAt > 0 && r.now < w.expectedAt+max(5*time.Second, age/8) && w.expectedOf == w.message {
		return max(0, w.expected-(r.now-w.expectedAt))
	}
	expected := r.rules.times.Expect(class, 0, Epoch.Add(r.now)).Remaining(age, 0.5)
	w.expected, w.expectedAt, w.expectedOf = expected, r.now, w.message
	return expected
}

// named is a node that takes pods.
func (r *run) named(name string) *Node {
	at, _ := slices.BinarySearchFunc(r.nodes.ready, name, func(n *Node, name string) int { return compareNames(n.Name, name) })
	return r.nodes.ready[at]
}

// giveWay makes idle workers leave where that makes room for pods that wait.
func (r *run) giveWay() {
	var waiting []draining.Pod
	for _, w := range r.unbound {
		waiting = append(waiting, draining.Pod{ID: w.name, Requests: w.job.Requests})
	}
	yields := draining.GiveWay(waiting, r.described())
	next := 0
	for _, y := range yields { // they come in the order of the pods
		for r.unbound[next].name != y.Pod {
			next++
		}
		if w := r.unbound[next]; w.promised == 0 { // once: room that did not come by then may never come
			w.promised = r.now + r.Rules.Promise
		}
		if r.sendAway(y.Leave); len(y.Leave) > 0 {
			r.rules.count.Yields++
		}
	}
}

// sendAway tells idle workers to leave. They take no more messages.
func (r *run) sendAway(names []string) {
	for _, name := range names {
		w := r.byName[name]
		w.idle, w.leaving, w.told = false, true, true
		w.epoch++
		r.foresee(r.Rules.Answer, workerYields, w, nil)
		r.rules.count.Left++
	}
}

// idleFor is how long an idle worker waits until it looks whether to leave: 0 to leave now.
func (r *run) idleFor(w *worker) time.Duration {
	rule := r.Rules.Stay
	works := slices.ContainsFunc(w.node.on, func(x *worker) bool { return x.working || !x.idle && !x.leaving })
	var lastWork time.Time
	if w.node.worked > 0 {
		lastWork = Epoch.Add(w.node.worked)
	}
	left := max(0, rule.Until(Epoch.Add(w.idleSince), lastWork, works).Sub(Epoch.Add(r.now)))
	if works {
		left = min(left, rule.AfterWork) // the others may end before
	}
	return left
}

// toMake are the pods for which nodes are to be made now, and whether others, which were promised room, are to be looked at later.
func (r *run) toMake() (now []*worker, later bool) {
	for _, w := range r.unbound {
		if w.promised <= r.now {
			now = append(now, w)
		}
	}
	return now, len(now) < len(r.unbound)
}
