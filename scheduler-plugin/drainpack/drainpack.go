// Package drainpack is the kube-scheduler plugin that puts pods where package packing wants them. It filters nothing:
// which nodes are feasible stays the business of the stock plugins.
package drainpack

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	resourcehelper "k8s.io/component-helpers/resource"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Name of the plugin in a scheduler's configuration.
const Name = "DrainPack"

// DrainPack ranks feasible nodes by package packing's order.
type DrainPack struct{}

var (
	_ fwk.PreScorePlugin = &DrainPack{}
	_ fwk.ScorePlugin    = &DrainPack{}
	_ fwk.SignPlugin     = &DrainPack{}
)

// stateKey finds a pod's ranks in its cycle state.
const stateKey = "PreScore" + Name

// ranks are the places of nodes in the order, the best 0. They are not changed once made.
type ranks map[string]int64

// Clone implements fwk.StateData.
func (r ranks) Clone() fwk.StateData { return r }

// New makes the plugin. It takes no arguments.
func New(_ context.Context, args runtime.Object, _ fwk.Handle) (fwk.Plugin, error) {
	if args != nil {
		return nil, fmt.Errorf("plugin %s takes no arguments, got %T", Name, args)
	}
	return &DrainPack{}, nil
}

// Name implements fwk.Plugin.
func (*DrainPack) Name() string { return Name }

// SignPod implements fwk.SignPlugin: pods with the same requests are ranked alike.
func (*DrainPack) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return []fwk.SignFragment{{Key: "ebbtide.dev/requests", Value: requests(pod)}}, nil
}

// PreScore implements fwk.PreScorePlugin: it orders all feasible nodes at once.
func (*DrainPack) PreScore(_ context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) *fwk.Status {
	wanted := requests(pod)
	// The order of resources does not matter to the order of nodes, but it must be one.
	resources := make([]v1.ResourceName, 0, len(wanted))
	for name, quantity := range wanted {
		if !quantity.IsZero() {
			resources = append(resources, name)
		}
	}
	ordered := make([]packing.Node, 0, len(nodes))
	for _, info := range nodes {
		ordered = append(ordered, describe(info, wanted, resources))
	}
	packing.Order(ordered)
	places := make(ranks, len(ordered))
	for place, node := range ordered {
		places[node.Name] = int64(place)
	}
	state.Write(stateKey, places)
	return nil
}

// Score implements fwk.ScorePlugin: the best node gets the most, each next one less; from the hundredth on, nothing.
func (*DrainPack) Score(_ context.Context, state fwk.CycleState, _ *v1.Pod, info fwk.NodeInfo) (int64, *fwk.Status) {
	data, err := state.Read(stateKey)
	if err != nil {
		return 0, fwk.AsStatus(fmt.Errorf("read the order of nodes: %w", err))
	}
	return max(fwk.MinScore, fwk.MaxScore-data.(ranks)[info.Node().Name]), nil
}

// ScoreExtensions implements fwk.ScorePlugin. Scores are final: they come from the whole order.
func (*DrainPack) ScoreExtensions() fwk.ScoreExtensions { return nil }

// requests of a pod, as the scheduler accounts for them.
func requests(pod *v1.Pod) v1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}

// describe makes what package packing needs to know of a node.
func describe(info fwk.NodeInfo, wanted v1.ResourceList, resources []v1.ResourceName) packing.Node {
	node := info.Node()
	described := packing.Node{Name: node.Name, Created: node.CreationTimestamp.Time, Leaving: leaving(node)}
	for _, name := range resources {
		allocatable, used := amount(info.GetAllocatable(), name), amount(info.GetRequested(), name)
		quantity := wanted[name]
		request := quantity.Value()
		if name == v1.ResourceCPU {
			request = quantity.MilliValue()
		}
		described.Allocatable = append(described.Allocatable, allocatable)
		described.Free = append(described.Free, max(0, allocatable-used-request))
	}
	return described
}

// amount of a resource, CPU in millicores.
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

// leavingTaints are put on a node that an autoscaler takes, or is about to take, away.
var leavingTaints = map[string]bool{
	"karpenter.sh/disrupted":                    true,
	"ToBeDeletedByClusterAutoscaler":            true,
	"DeletionCandidateOfClusterAutoscaler":      true,
	v1.TaintNodeUnschedulable:                   true,
	"node.cloudprovider.kubernetes.io/shutdown": true,
	"node.kubernetes.io/out-of-service":         true,
}

func leaving(node *v1.Node) bool {
	if node.Spec.Unschedulable || node.DeletionTimestamp != nil {
		return true
	}
	for i := range node.Spec.Taints {
		if leavingTaints[node.Spec.Taints[i].Key] {
			return true
		}
	}
	return false
}
