package draining

import (
	"slices"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Yield is room that is made for a pod: the workers with those IDs are told to leave, and the pod is nominated to the node. Where nobody has
// to leave, those who leave already make the room.
type Yield struct {
	Pod, Node string
	Leave     []string
}

// GiveWay finds room for pods that wait, in their order: on the first node on which idle workers of no higher priority, by leaving, make it,
// together with what is free and what leaving pods free soon. As few leave as possible, the smallest that suffice alone else the first ones.
// A pod for which all idle workers of a node are not enough is not in the result: others have to make room for it. Who drains does not matter:
// idle workers of such nodes leave anyway.
func GiveWay(waiting []Pod, nodes []Node) []Yield {
	type place struct {
		node *Node
		free packing.Amounts
		idle []Pod
	}
	places := make([]place, 0, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		if n.Closed {
			continue
		}
		p := place{node: n, free: n.Free}
		for _, pod := range n.Pods {
			switch pod.State {
			case Leaving:
				p.free = p.free.Plus(pod.Requests)
			case Idle:
				p.idle = append(p.idle, pod)
			case Busy:
			}
		}
		places = append(places, p)
	}
	var yields []Yield
	for _, pod := range waiting {
		for i := range places {
			p := &places[i]
			leave, ok := enough(pod, p.free, p.idle)
			if !ok {
				continue
			}
			yield := Yield{Pod: pod.ID, Node: p.node.Name}
			for _, l := range leave {
				p.free = p.free.Plus(l.Requests)
				yield.Leave = append(yield.Leave, l.ID)
				p.idle = slices.DeleteFunc(p.idle, func(other Pod) bool { return other.ID == l.ID })
			}
			p.free = p.free.Minus(pod.Requests)
			yields = append(yields, yield)
			break
		}
	}
	return yields
}

// enough are the idle workers that must leave for a pod to fit: none, the one that suffices with the least CPU, or the first ones together.
func enough(pod Pod, free packing.Amounts, idle []Pod) (leave []Pod, ok bool) {
	if free.Fit(pod.Requests) {
		return nil, true
	}
	var one *Pod
	for i := range idle {
		w := &idle[i]
		if w.Priority > pod.Priority {
			continue
		}
		if free.Plus(w.Requests).Fit(pod.Requests) && (one == nil || w.Requests[0] < one.Requests[0]) {
			one = w
		}
	}
	if one != nil {
		return []Pod{*one}, true
	}
	for _, w := range idle {
		if w.Priority > pod.Priority {
			continue
		}
		free = free.Plus(w.Requests)
		if leave = append(leave, w); free.Fit(pod.Requests) {
			return leave, true
		}
	}
	return nil, false
}
