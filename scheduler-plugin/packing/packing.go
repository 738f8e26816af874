// Package packing orders the nodes that a pod fits on, best first, so that few nodes fill up and the others drain.
//
// It is pure, knows no Kubernetes types and reads no clock. Amounts of a resource are whole numbers of its smallest unit,
// and a vector of them has one element for each resource, in the same order everywhere. The order is total and depends on
// nothing but its arguments: the same nodes always come in the same order, so no tie is left to chance.
package packing

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// Never is the remaining time of what has no end: a pod of a Deployment, and the node that it keeps alive.
const Never = time.Duration(math.MaxInt64)

// finestExtension is the width of the first bucket of extensions; each next one is twice as wide.
const finestExtension = 15 * time.Second

// Node is a node on which the pod fits.
type Node struct {
	// Name is unique.
	Name string
	// Created is when the node joined.
	Created time.Time
	// Leaving is true for a node that is being taken away: nothing should be put there that keeps it.
	Leaving bool
	// Price is the class of what the node costs by the hour, at least 0: see PriceClass.
	Price int
	// Exit is how long the node's pods will keep it, from 0 (no pods that count) to Never.
	Exit time.Duration
	// Locality is how much of what the pod needs is there already: pods of its group, its source. 0 for nothing.
	Locality int
	// Allocatable amounts, and those that would be free once the pod is placed: both at least 0.
	Allocatable, Free []int64
}

// Key is a node's place in the order for one pod; the smaller the better.
type Key struct {
	Leaving bool `json:"leaving"`
	// Extension is the bucket of the time that the node must live longer because of the pod, and the node's price on top
	// when it must: see ExtensionBucket and PriceClass.
	Extension int `json:"extensionBucket"`
	Locality  int `json:"locality"`
	// Slack is the bucket of the time that the node stays when the pod has ended: see SlackBucket.
	Slack int `json:"slackBucket"`
	// FreeShare is the weighted mean of the shares of the pod's resources that stay free, from 0 to 1.
	FreeShare float64   `json:"freeShare"`
	Created   time.Time `json:"created"`
	Name      string    `json:"node"`
}

// Unknown is the remaining time of a pod of which nothing is known that can be trusted: every node extends and stays alike,
// and the order is best fit.
const Unknown time.Duration = 0

// NewKey makes the key of a node for a pod that will run for remaining. Weights say how scarce each resource is, all at
// least 0; nil means alike.
func NewKey(n *Node, remaining time.Duration, weights []float64) Key {
	key := Key{
		Leaving: n.Leaving, Extension: ExtensionBucket(Extension(remaining, n.Exit)), Locality: n.Locality,
		Slack: SlackBucket(remaining, n.Exit), FreeShare: freeShare(n, weights), Created: n.Created, Name: n.Name,
	}
	if key.Extension > 0 {
		key.Extension += n.Price
	}
	return key
}

// dearest is the highest class of price.
const dearest = 30

// PriceClass is the class of a price: a node of the next class costs about twice as much. Buckets of extension are powers of
// two as well, so the sum of both is the bucket of what an extension costs. Prices may be of any unit of which the cheapest
// node costs at least 1; cheaper ones, and those past 2^30, are taken for that.
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
//  2. the least extension: nodes that must stay alive anyway, then those for which living longer costs least;
//  3. the most locality;
//  4. the least slack: nodes that never end, whose space costs nothing, then those that end soonest after the pod, which
//     leaves the room on longer ones to longer pods;
//  5. best fit: the least free space after placement;
//  6. the oldest, so that young nodes are the ones to drain;
//  7. by name.
func (k *Key) Compare(other *Key) int {
	order, _ := k.Decide(other)
	return order
}

// Decide is Compare, and the name of what tells the keys apart: leaving, extension, locality, slack, best fit, age or name.
func (k *Key) Decide(other *Key) (order int, by string) {
	if order = compareBool(k.Leaving, other.Leaving); order != 0 {
		return order, "leaving"
	}
	if order = cmp.Compare(k.Extension, other.Extension); order != 0 {
		return order, "extension"
	}
	if order = cmp.Compare(other.Locality, k.Locality); order != 0 {
		return order, "locality"
	}
	if order = cmp.Compare(k.Slack, other.Slack); order != 0 {
		return order, "slack"
	}
	if order = cmp.Compare(k.FreeShare, other.FreeShare); order != 0 {
		return order, "best fit"
	}
	if order = k.Created.Compare(other.Created); order != 0 {
		return order, "age"
	}
	return strings.Compare(k.Name, other.Name), "name"
}

// Order is the nodes' keys for a pod that will run for remaining, the best first, up to most of them. Weights are as in NewKey. Of many
// nodes only the best so far are kept in order: most are compared with the worst of them alone.
func Order(nodes []Node, remaining time.Duration, weights []float64, most int) []Key {
	most = min(most, len(nodes))
	if most <= 0 {
		return nil
	}
	keys, order := make([]Key, most), make([]*Key, 0, most)
	var key Key // one for all, as each would go to the heap
	for i := range nodes {
		key = NewKey(&nodes[i], remaining, weights)
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

// ExtensionBucket is 0 for no extension, 1 for up to 15 s, 2 for up to 30 s, and so on by powers of two.
func ExtensionBucket(extension time.Duration) int {
	if extension <= 0 {
		return 0
	}
	return 1 + bits.Len64(uint64((extension-1)/finestExtension))
}

// SlackBucket is 0 for a node that stays up to 15 s longer than the pod, 1 for up to a minute, and so on by powers of four.
// It is -1 for a node that never ends, and 0 for one that must live longer for the pod and for a pod of which nothing is
// known.
func SlackBucket(remaining, exit time.Duration) int {
	switch {
	case remaining == Unknown:
		return 0
	case exit == Never:
		return -1
	case exit <= remaining:
		return 0
	default:
		return ExtensionBucket(exit-remaining) / 2
	}
}

// slackLimit is the longest slack in a bucket.
func slackLimit(bucket int) time.Duration { return bucketLimit(2*bucket + 1) }

// bucketLimit is the longest extension in a bucket.
func bucketLimit(bucket int) time.Duration {
	if bucket == 0 {
		return 0
	}
	if shift := bucket - 1; shift < bits.LeadingZeros64(uint64(finestExtension)) {
		return finestExtension << shift
	}
	return Never
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
func freeShare(n *Node, weights []float64) float64 {
	sum, total := 0.0, 0.0
	for d, allocatable := range n.Allocatable {
		if allocatable > 0 {
			weight := 1.0
			if weights != nil {
				weight = weights[d]
			}
			sum += weight * float64(n.Free[d]) / float64(allocatable)
			total += weight
		}
	}
	if total == 0 {
		return 0
	}
	return sum / total
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
