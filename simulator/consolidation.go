package simulator

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Consolidation policies of a NodePool.
const (
	WhenEmpty                = "WhenEmpty"
	WhenEmptyOrUnderutilized = "WhenEmptyOrUnderutilized"
	Balanced                 = "Balanced"
)

// Consolidations are the policies that Nodes.Consolidation may name.
func Consolidations() []string { return []string{WhenEmpty, WhenEmptyOrUnderutilized, Balanced} }

// Karpenter 1.14: how often it looks for a node to consolidate, how long it waits before it does so, and Balanced's k.
const (
	consolidateEvery    = 10 * time.Second
	consolidateValidate = 15 * time.Second
	balancedK           = 2
)

// consolidation is what Karpenter is about to consolidate.
type consolidation struct {
	node *Node // nil: nothing
	at   time.Duration
	uses int // of the node when it was chosen
}

func (n *Nodes) checkConsolidation() error {
	switch {
	case n.Consolidation != "" && !slices.Contains(Consolidations(), n.Consolidation):
		return fmt.Errorf("nodes.consolidation is %q, want one of %v", n.Consolidation, Consolidations())
	case n.Consolidation != "" && n.Consolidation != WhenEmpty && n.ClusterAutoscaler != nil:
		return fmt.Errorf("nodes.consolidation is %q, which is Karpenter's, and cluster-autoscaler is there", n.Consolidation)
	}
	return nil
}

// consolidates is true when nodes with pods are removed too.
func (n *Nodes) consolidates() bool {
	return n.Consolidation == WhenEmptyOrUnderutilized || n.Consolidation == Balanced
}

// consolidate is Karpenter's single-node consolidation of nodes whose pods may be evicted: one whose pods fit on others is removed, and its pods'
// messages are delivered again. Replacement by a smaller node, and several nodes at once, are left out.
func (r *run) consolidate() {
	if c := r.consolidation; c.node != nil {
		if r.now < c.at {
			return
		}
		r.consolidation = consolidation{}
		if n := c.node; !n.removed && n.uses == c.uses && n.Pods > 0 && r.elsewhere(n) {
			r.evicted += len(n.on)
			r.clear(n)
		}
		return
	}
	if len(r.unbound) > 0 || len(r.booting) > 0 {
		return
	}
	after := max(0, r.Nodes.Delay.Least()-consolidateValidate)
	price, disruption := 0.0, 0.0
	var candidates []*Node
	for _, n := range r.nodes.ready {
		price, disruption = price+n.Shape.worth(), disruption+disruptionCost(n)
		if n.Pods > 0 && r.now-n.changed >= after {
			candidates = append(candidates, n)
		}
	}
	slices.SortStableFunc(candidates, func(a, b *Node) int {
		return cmp.Compare(b.Shape.worth()/disruptionCost(b), a.Shape.worth()/disruptionCost(a))
	})
	for _, n := range candidates {
		if r.Nodes.Consolidation == Balanced && n.Shape.worth()/price*balancedK < disruptionCost(n)/disruption {
			continue
		}
		if r.elsewhere(n) {
			r.consolidation = consolidation{n, r.now + consolidateValidate, n.uses}
			return
		}
	}
}

// worth of a node: its price, or its CPUs where nothing has a price.
func (s *Shape) worth() float64 {
	if s.Price > 0 {
		return s.Price
	}
	return float64(s.size()[0])
}

// disruptionCost is one for the node and one for each pod.
func disruptionCost(n *Node) float64 { return 1 + float64(n.Pods) }

// elsewhere is true when all pods of a node fit on others that are not empty.
func (r *run) elsewhere(node *Node) bool {
	var free []*Node
	for _, n := range r.nodes.ready {
		if n != node && n.Pods > 0 {
			free = append(free, &Node{Free: n.Free})
		}
	}
	for _, w := range node.on {
		at := slices.IndexFunc(free, func(n *Node) bool { return n.Free.Fit(w.job.Requests) })
		if at < 0 {
			return false
		}
		free[at].Free = free[at].Free.Minus(w.job.Requests)
	}
	return true
}
