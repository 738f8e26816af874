// Package drainpack is the kube-scheduler plugin that puts pods where package packing wants them. It calls no node
// unschedulable: for pods whose needs it can prove, it offers the first few nodes of an index instead of all; which nodes are
// feasible stays the business of the stock plugins.
package drainpack

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lifetime"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Name of the plugin in a scheduler's configuration.
const Name = "DrainPack"

// DrainPack offers nodes from an index and ranks feasible nodes by package packing's order.
type DrainPack struct {
	args    Args
	handle  fwk.Handle
	fleet   *fleet.Fleet
	now     func() time.Time
	offered offers
}

var (
	_ fwk.PreFilterPlugin = &DrainPack{}
	_ fwk.PreScorePlugin  = &DrainPack{}
	_ fwk.ScorePlugin     = &DrainPack{}
	_ fwk.ReservePlugin   = &DrainPack{}
	_ fwk.SignPlugin      = &DrainPack{}
)

// stateKey finds a pod's ranks in its cycle state.
const stateKey = "PreScore" + Name

// ranks are the places of nodes in the order, the best 0. They are not changed once made.
type ranks map[string]int64

// Clone implements fwk.StateData.
func (r ranks) Clone() fwk.StateData { return r }

// New makes the plugin; args are a DrainPackArgs, or nil for the defaults.
func New(ctx context.Context, args runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
	parsed, err := ParseArgs(args)
	if err != nil {
		return nil, err
	}
	d := newDrainPack(parsed, handle, time.Now)
	if err := d.watch(ctx); err != nil {
		return nil, fmt.Errorf("plugin %s: watch nodes and pods: %w", Name, err)
	}
	return d, nil
}

func newDrainPack(args Args, handle fwk.Handle, now func() time.Time) *DrainPack {
	registerMetrics()
	lifetimes := lifetime.New(lifetime.Options{
		Quantile: args.Quantile, HalfLife: args.HalfLife.Duration, MinCorrelation: args.MinCorrelation,
	})
	return &DrainPack{
		args: args, handle: handle, now: now,
		fleet:   fleet.New(lifetimes, fleet.Options{Unknown: args.UnknownRunTime.Duration}),
		offered: offers{pods: sets.New[types.UID]()},
	}
}

// Name implements fwk.Plugin.
func (*DrainPack) Name() string { return Name }

// signed is all of a pod that its ranks depend on.
type signed struct {
	Requests v1.ResourceList
	Pod      fleet.Pod
}

// SignPod implements fwk.SignPlugin: pods of one class with the same requests are ranked alike.
func (d *DrainPack) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	described := d.describePod(pod)
	described.ID = ""
	return []fwk.SignFragment{{Key: "ebbtide.dev/packing", Value: signed{requests(pod), described}}}, nil
}

// PreFilter implements fwk.PreFilterPlugin: a simple pod is offered a few nodes that are proven to fit. A pod that was offered
// some and comes again without a node sees all of them.
func (d *DrainPack) PreFilter(ctx context.Context, _ fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	switch {
	case d.offered.has(pod.UID):
		candidatesTotal.WithLabelValues("refused").Inc()
	case !d.simple(pod):
		candidatesTotal.WithLabelValues("complex").Inc()
	default:
		if names := d.candidates(ctx, pod, d.describePod(pod)); len(names) > 0 {
			d.offered.add(pod.UID)
			candidatesTotal.WithLabelValues("offered").Inc()
			return &fwk.PreFilterResult{NodeNames: names}, nil
		}
		candidatesTotal.WithLabelValues("none").Inc()
	}
	return nil, nil
}

// PreFilterExtensions implements fwk.PreFilterPlugin.
func (*DrainPack) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// PreScore implements fwk.PreScorePlugin: it orders all feasible nodes at once.
func (d *DrainPack) PreScore(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) *fwk.Status {
	wanted, described, now := requests(pod), d.describePod(pod), d.now()
	// The order of resources does not matter to the order of nodes, but it must be one.
	resources := make([]v1.ResourceName, 0, len(wanted))
	for name, quantity := range wanted {
		if !quantity.IsZero() {
			resources = append(resources, name)
		}
	}
	compared := make([]packing.Node, 0, len(nodes))
	for _, info := range nodes {
		n := describeNode(info, wanted, resources)
		n.Exit, n.Locality = d.fleet.Exit(n.Name, described.Group, now)
		compared = append(compared, n)
	}
	order := packing.Order(compared, d.fleet.Remaining(described), d.weights(resources))
	places := make(ranks, len(order))
	for place, key := range order {
		places[key.Name] = int64(place)
	}
	if logger := klog.FromContext(ctx).V(4); logger.Enabled() {
		logger.Info("Ordered nodes", "pod", klog.KObj(pod), "best", order[:min(3, len(order))])
	}
	state.Write(stateKey, places)
	return nil
}

// weights of resources by how scarce the fleet's are. One that the index does not know counts as the scarcest.
func (d *DrainPack) weights(resources []v1.ResourceName) []float64 {
	used, allocatable := d.fleet.Used()
	scarcity := packing.Scarcity(used[:], allocatable[:])
	weights := make([]float64, len(resources))
	for i, name := range resources {
		switch name {
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
	}
	return weights
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

// Reserve implements fwk.ReservePlugin: the pod is on the node from now on.
func (d *DrainPack) Reserve(_ context.Context, _ fwk.CycleState, pod *v1.Pod, nodeName string) *fwk.Status {
	described, now := d.describePod(pod), d.now()
	remaining := d.fleet.Remaining(described)
	exit, _ := d.fleet.Exit(nodeName, "", now)
	if extension := packing.Extension(remaining, exit); remaining != packing.Unknown && extension != packing.Never {
		extensionSeconds.Observe(extension.Seconds())
	}
	d.fleet.AddPod(described, nodeName, now)
	d.offered.remove(pod.UID)
	return nil
}

// Unreserve implements fwk.ReservePlugin. A pod that could not be bound sees all nodes next time.
func (d *DrainPack) Unreserve(_ context.Context, _ fwk.CycleState, pod *v1.Pod, _ string) {
	d.fleet.RemovePod(string(pod.UID))
	d.offered.add(pod.UID)
}

// describeNode makes what package packing needs to know of a node, but for its exit.
func describeNode(info fwk.NodeInfo, wanted v1.ResourceList, resources []v1.ResourceName) packing.Node {
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

// offers remembers the pods that were offered candidates and have no node yet. It is safe for concurrent use.
type offers struct {
	mu   sync.Mutex
	pods sets.Set[types.UID]
}

func (o *offers) add(uid types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pods.Insert(uid)
}

func (o *offers) remove(uid types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pods.Delete(uid)
}

func (o *offers) has(uid types.UID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pods.Has(uid)
}
