package drainpack

import (
	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// resource that a pod requests, in the units that the scheduler counts in: millicores of CPU, else whole ones.
type resource struct {
	name    v1.ResourceName
	request int64
}

// order of nodes for a pod: those that get a score, the best first. It may be one of thousands of nodes, so they share what they are described in.
func (d *DrainPack) order(c *cycle, infos []fwk.NodeInfo) []packing.Key {
	// Which resource comes first does not matter to the order of nodes, but it must be the same for all.
	resources := make([]resource, 0, len(c.requests))
	for name, quantity := range c.requests {
		switch {
		case quantity.IsZero():
		case name == v1.ResourceCPU:
			resources = append(resources, resource{name, quantity.MilliValue()})
		default:
			resources = append(resources, resource{name, quantity.Value()})
		}
	}
	width := len(resources)
	amounts, now := make([]int64, 2*width*len(infos)), d.now()
	nodes := make([]packing.Node, len(infos))
	for i, info := range infos {
		node := info.Node()
		allocatable, free := amounts[:width:width], amounts[width:2*width:2*width]
		amounts = amounts[2*width:]
		for j, r := range resources {
			allocatable[j] = amount(info.GetAllocatable(), r.name)
			free[j] = max(0, allocatable[j]-amount(info.GetRequested(), r.name)-r.request)
		}
		nodes[i] = packing.Node{
			Name: node.Name, Created: node.CreationTimestamp.Time, Leaving: leaving(node) || !drainingSince(node, now).IsZero(), Allocatable: allocatable, Free: free,
		}
	}
	expected := d.fleet.Expect(c.pod, now)
	d.fleet.Describe(nodes, &expected, c.pod.Group, now)
	return packing.Order(nodes, &expected, d.weights(resources), int(fwk.MaxScore))
}

// indexedResources are those that the index knows, in its order.
var indexedResources = [...]v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage}

// indexWeights are those of the resources that the index knows.
func (d *DrainPack) indexWeights() (weights [packing.Indexed]float64) {
	resources := make([]resource, len(indexedResources))
	for i, name := range indexedResources {
		resources[i].name = name
	}
	copy(weights[:], d.weights(resources))
	return weights
}

// weights of resources by how scarce the fleet's are. One that the index does not know counts as the scarcest.
func (d *DrainPack) weights(resources []resource) []float64 {
	used, allocatable := d.fleet.Used()
	scarcity := packing.Scarcity(used[:], allocatable[:])
	weights := make([]float64, len(resources))
	for i, r := range resources {
		switch r.name {
		case v1.ResourceCPU:
			weights[i] = scarcity[0]
		case v1.ResourceMemory:
			weights[i] = scarcity[1]
		case v1.ResourceEphemeralStorage:
			weights[i] = scarcity[2]
		default:
			weights[i] = 1
		}
		weights[i] = max(weights[i], 0.01)
		if given, ok := d.args.Weights[string(r.name)]; ok {
			weights[i] = given
		}
	}
	return weights
}

// amount of a resource that a node has or uses.
func amount(r fwk.Resource, name v1.ResourceName) int64 {
	switch name {
	case v1.ResourceCPU:
		return r.GetMilliCPU()
	case v1.ResourceMemory:
		return r.GetMemory()
	case v1.ResourceEphemeralStorage:
		return r.GetEphemeralStorage()
	default:
		return r.GetScalarResources()[name]
	}
}
