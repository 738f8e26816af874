// Package packing orders the nodes that a pod fits on, best first, so that few nodes fill up and the others drain.
//
// It is pure, knows no Kubernetes types and reads no clock. Amounts of a resource are whole numbers of its smallest unit,
// and a vector of them has one element for each resource, in the same order everywhere. The order is total and depends on
// nothing but its arguments: the same nodes always come in the same order, so no tie is left to chance.
package packing

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// Never is the remaining time of what has no end: a pod of a Deployment, and the node that it keeps alive.
const Never = time.Duration(math.MaxInt64)

// Unknown is the remaining time of a pod that keeps no node: all nodes cost it alike.
const Unknown time.Duration = 0

// Node is a node on which the pod fits.
type Node struct {
	// Name is unique.
	Name string
	// Created is when the node joined.
	Created time.Time
	// Leaving is true for a node that is being taken away: nothing should be put there that keeps it.
	Leaving bool
	// Price is how many classes above the cheapest nodes this one costs by the hour, at least 0: see PriceClass.
	Price int
	// Exit is how long the node's pods will keep it, from 0 (no pods that count) to Never.
	Exit time.Duration
	// Gone are the probabilities that all pods are gone after each of Times. Only needed for pods with Lasting.
	Gone *Probabilities
	// More is how many pods like it would still fit once it is placed.
	More int
	// Locality is how much of what the pod needs is there already: pods of its group, its source. 0 for nothing.
	Locality int
	// Allocatable amounts, and those that would be free once the pod is placed: both at least 0.
	Allocatable, Free []int64
}

// Key is a node's place in the order for one pod; the smaller the better.
type Key struct {
	Leaving bool `json:"leaving"`
	// Cost is what is compared: the pod's share of the extension at the node's price, and a little for the slack where the pod's run time is known
	// precisely; in whole steps of a tenth of the run time where it is not.
	Cost float64 `json:"costSeconds"`
	// Extension is how much longer the node is expected to live because of the pod, and Slack how much longer than the pod it stays.
	Extension float64 `json:"extensionSeconds"`
	Slack     float64 `json:"slackSeconds"`
	// Sharing is how many pods are expected to share the extension, this one included.
	Sharing  int `json:"sharing"`
	Locality int `json:"locality"`
	// FreeQuarters is the weighted mean share of the pod's resources that stays free, in whole quarters; 0 where the run time is known
	// precisely.
	FreeQuarters int       `json:"freeQuarters"`
	Created      time.Time `json:"created"`
	Name         string    `json:"node"`
}

// dearest is the highest class of price.
const dearest = 30

// PriceClass is the class of a price: a node of the next class costs twice as much. Prices may be of any unit of which the cheapest
// node costs at least 1; cheaper ones, and those past 2^30, count as that.
func PriceClass(price float64) int {
	if !(price > 1) {
		return 0
	}
	return int(min(dearest, math.Round(math.Log2(price))))
}

// SizePrice is what a node of a capacity costs where nobody says, in a unit in which small nodes at a discount still differ: what a CPU costs
// buys 8 GiB of memory or so in the big clouds.
func SizePrice(capacity Amounts) float64 {
	const units, gibibytesPerCPU = 16, 8
	return units * (float64(capacity[0])/1000 + float64(capacity[1])/(1<<30)/gibibytesPerCPU)
}

// Compare is negative when k comes before other:
//
//  1. nodes that stay before nodes that are leaving;
//  2. the least cost: of how much longer the node must live for the pod and those that may follow it there, and of room that outlasts it;
//  3. the most locality;
//  4. the least free space after placement, in quarters;
//  5. the oldest, so that young nodes are the ones to drain;
//  6. by name.
func (k *Key) Compare(other *Key) int {
	order, _ := k.Decide(other)
	return order
}

// Decide is Compare, and the name of what tells the keys apart: leaving, extension, sharing, slack, locality, room, age or name.
func (k *Key) Decide(other *Key) (order int, by string) {
	if order = compareBool(k.Leaving, other.Leaving); order != 0 {
		return order, "leaving"
	}
	if order = cmp.Compare(k.Cost, other.Cost); order != 0 {
		if cmp.Compare(k.Extension, other.Extension) == order {
			return order, "extension"
		}
		if k.Extension > 0 && other.Extension > 0 && cmp.Compare(other.Sharing, k.Sharing) == order {
			return order, "sharing"
		}
		return order, "slack"
	}
	if order = cmp.Compare(other.Locality, k.Locality); order != 0 {
		return order, "locality"
	}
	if order = cmp.Compare(k.FreeQuarters, other.FreeQuarters); order != 0 {
		return order, "room"
	}
	if order = k.Created.Compare(other.Created); order != 0 {
		return order, "age"
	}
	return strings.Compare(k.Name, other.Name), "name"
}

// Order is the nodes' keys for a pod, the best first, up to most of them. Weights say how scarce each resource is, all at least 0; nil
// means alike. Of many nodes only the best so far are kept in order: most are compared with the worst of them alone.
func Order(nodes []Node, pod *Pod, weights []float64, most int) []Key {
	most = min(most, len(nodes))
	if most <= 0 {
		return nil
	}
	prices := pod.pricing()
	keys, order := make([]Key, most), make([]*Key, 0, most)
	var key Key // one for all, as each would go to the heap
	for i := range nodes {
		key = prices.key(&nodes[i], weights)
		var slot *Key
		if last := len(order) - 1; len(order) < most {
			slot = &keys[len(order)]
		} else if slot = order[last]; key.Compare(slot) < 0 {
			order = order[:last]
		} else {
			continue
		}
		at, _ := slices.BinarySearchFunc(order, &key, (*Key).Compare)
		*slot = key
		order = slices.Insert(order, at, slot)
	}
	best := make([]Key, most)
	for i, key := range order {
		best[i] = *key
	}
	return best
}

// Extension is how much longer a node with the given exit must live for a pod with the given remaining time.
func Extension(remaining, exit time.Duration) time.Duration {
	switch {
	case exit == Never || remaining <= exit:
		return 0
	case remaining == Never:
		return Never
	default:
		return remaining - max(0, exit)
	}
}

// Scarcity weighs resources by how much of the fleet's total is in use, so that what runs out first counts most. A
// resource that the fleet does not have weighs 0. All unused: all alike.
func Scarcity(used, allocatable []int64) []float64 {
	weights := make([]float64, len(used))
	for d := range used {
		if allocatable[d] > 0 {
			// Never 0, so that a resource nobody uses yet still counts when nothing else tells nodes apart.
			weights[d] = max(0.01, float64(used[d])/float64(allocatable[d]))
		}
	}
	return weights
}

// freeShare is the weighted mean share of the resources that stays free, from 0 to 1.
func freeShare(allocatable, free []int64, weights []float64) float64 {
	sum, total := 0.0, 0.0
	for d, allocatable := range allocatable {
		if allocatable > 0 {
			weight := 1.0
			if weights != nil {
				weight = weights[d]
			}
			sum += weight * float64(free[d]) / float64(allocatable)
			total += weight
		}
	}
	if total == 0 {
		return 0
	}
	return sum / total
}

// quarters of a share.
func quarters(share float64) int { return int(4 * share) }

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
