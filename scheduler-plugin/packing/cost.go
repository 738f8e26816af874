package packing

import (
	"math"
	"time"
)

// Points are the times at which Probabilities are known.
const Points = 42

// Probabilities are one for each of Times.
type Probabilities [Points]float64

// Times are half an octave apart: from some seconds to three months.
var Times, widths = func() (times, widths Probabilities) {
	last := 0.0
	for i := range times {
		end := 5 * math.Exp2(float64(i)/2)
		times[i], widths[i] = (last+end)/2, end-last
		last = end
	}
	return times, widths
}()

// Pod is what is known of how long the pod will run.
type Pod struct {
	Requests Amounts
	// Remaining is the median, or Never, or Unknown.
	Remaining time.Duration
	// Spread is the standard deviation of the logarithm of the run time in the prediction, and Stated how much of the prediction comes
	// from what the pod states itself, from 0 to 1.
	Spread, Stated float64
	// Lasting are the probabilities to run for longer than each of Times; nil to go by the median alone.
	Lasting *Probabilities
	// Followers is how many pods that run about as long or longer are expected to come before long: as many as came lately.
	Followers int
	// Grouped pods had better be together: Locality counts for them unless the costs are clearly apart.
	Grouped bool
}

const (
	// Vague is the spread from which costs are compared in whole steps of the run time: below it the smallest cost decides, above it the
	// oldest node of the first step. Where little is known first fit has a bounded competitive ratio and best fit has none (Li, Tang and Cai,
	// On dynamic bin packing for resource allocation in the cloud, SPAA 2014).
	Vague = 1
	step  = 0.1
	// slackWeight is what a second of slack costs beside a second of extension, with points and with distributions.
	slackWeight, expectedSlackWeight = 0.06, 0.03
	// shortPod: of pods shorter than this slack counts less, as what they leave is soon there again.
	shortPod = 600.0
	// preciseStated and preciseLearned are the spreads from which slack does not count at all, for predictions from statements and from
	// history.
	preciseStated, preciseLearned = 1.2, 0.6
	// mostlyStated is how much of a prediction must come from statements for extensions to be shared.
	mostlyStated = 0.5
	// mostFollowers is how many pods after it a pod's extension of a node is shared with at most.
	mostFollowers = 16
	// endless is what extending a node for ever costs, in seconds.
	endless = 1e9
)

// pricing prices nodes for one pod.
type pricing struct {
	*Pod
	remaining float64 // seconds
	slack     float64 // the price of a second of slack
	width     float64 // of a step of cost; 0 for costs that are compared as they are
}

func (p *Pod) pricing() pricing {
	c := pricing{Pod: p, remaining: p.Remaining.Seconds()}
	switch p.Remaining {
	case Unknown:
		return c
	case Never:
		c.remaining, c.width = endless, endless*step
		return c
	}
	weight := slackWeight
	if p.Lasting != nil {
		weight, c.remaining = expectedSlackWeight, 0
		for i, lasts := range p.Lasting {
			c.remaining += lasts * widths[i]
		}
	}
	precise := p.Stated*preciseStated + (1-p.Stated)*preciseLearned
	c.slack = weight * max(0, 1-p.Spread*p.Spread/precise/precise) * c.remaining / (c.remaining + shortPod)
	if p.Spread >= Vague || p.Grouped {
		c.width = step * c.remaining
	}
	return c
}

// vague is true when age and locality decide between nodes of about the same cost.
func (c *pricing) vague() bool { return c.Remaining == Unknown || c.width > 0 }

// key is a node's.
func (c *pricing) key(n *Node, weights []float64) Key {
	key := Key{Leaving: n.Leaving, Locality: n.Locality, Created: n.Created, Name: n.Name, Sharing: c.sharing(n.More)}
	switch {
	case c.Remaining == Unknown || n.Exit == Never:
		// The pod keeps no node, or the node never ends: its room costs nothing.
	case c.Remaining == Never:
		key.Extension = endless
	case c.Lasting != nil && n.Gone != nil:
		for i, lasts := range c.Lasting {
			gone := n.Gone[i]
			key.Extension += lasts * gone * widths[i]
			key.Slack += (1 - lasts) * (1 - gone) * widths[i]
		}
	default:
		exit := n.Exit.Seconds()
		key.Extension, key.Slack = max(0, c.remaining-exit), max(0, exit-c.remaining)
	}
	key.Cost = c.compared(key.Extension*rate(n.Price)/float64(key.Sharing) + c.slack*key.Slack)
	if c.vague() {
		key.FreeQuarters = quarters(freeShare(n.Allocatable, n.Free, weights))
	}
	return key
}

// sharing is among how many pods the extension of a node is shared on which so many more like the pod fit. Pods that run long often come
// together, and a node with room for all of them need be extended only once. That pays where run times are known exactly, from what pods state.
func (c *pricing) sharing(more int) int {
	if c.vague() || c.Lasting != nil || c.Stated < mostlyStated {
		return 1
	}
	return 1 + max(0, min(more, c.Followers, mostFollowers))
}

// rate is what a second of a node costs beside one of the cheapest.
func rate(price int) float64 { return math.Exp2(float64(price)) }

// compared is a cost as it is compared.
func (c *pricing) compared(cost float64) float64 {
	if c.width > 0 {
		return c.width * math.Floor(cost/c.width)
	}
	return cost
}
