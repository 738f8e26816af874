// Package packing orders the nodes that a pod fits on, best first, so that few nodes fill up and the others drain.
//
// It is pure and knows no Kubernetes types: amounts of a resource are whole numbers of its smallest unit, and a vector
// of them has one element for each resource that the pod requests, in the same order everywhere. The order is total and
// depends on nothing but its arguments: the same nodes always come in the same order, so no tie is left to chance.
package packing

import (
	"cmp"
	"slices"
	"time"
)

// Node is a node on which the pod fits.
type Node struct {
	// Name is unique.
	Name string
	// Created is when the node joined.
	Created time.Time
	// Leaving is true for a node that is being taken away: nothing should be put there that keeps it.
	Leaving bool
	// Allocatable amounts, and those that would be free once the pod is placed: both at least 0.
	Allocatable, Free []int64
}

// Order sorts nodes, the best for the pod first:
//
//  1. nodes that stay before nodes that are leaving;
//  2. best fit: the least free space after placement, as the mean over the requested resources of the free share;
//  3. the oldest, so that young nodes are the ones to drain;
//  4. by name.
func Order(nodes []Node) {
	keys := make(map[string]float64, len(nodes))
	for i := range nodes {
		keys[nodes[i].Name] = freeShare(&nodes[i])
	}
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(
			compareBool(a.Leaving, b.Leaving),
			cmp.Compare(keys[a.Name], keys[b.Name]),
			a.Created.Compare(b.Created),
			cmp.Compare(a.Name, b.Name),
		)
	})
}

// freeShare is the mean share of the requested resources that stays free, from 0 to 1.
func freeShare(n *Node) float64 {
	sum, counted := 0.0, 0
	for d, allocatable := range n.Allocatable {
		if allocatable > 0 {
			sum += float64(n.Free[d]) / float64(allocatable)
			counted++
		}
	}
	if counted == 0 {
		return 0
	}
	return sum / float64(counted)
}

// compareBool puts false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}
