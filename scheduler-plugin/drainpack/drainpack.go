// Package drainpack is the kube-scheduler plugin that puts pods where package packing wants them. It calls no node
// unschedulable: for pods whose needs it can prove, it offers the first few nodes of an index instead of all; which nodes are
// feasible stays the business of the stock plugins.
package drainpack

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/dynamic"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	configv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lifetime"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Name of the plugin in a scheduler's configuration.
const Name = "DrainPack"

// DrainPack offers nodes from an index and ranks feasible nodes by package packing's order.
type DrainPack struct {
	args       configv1.DrainPackArgs
	handle     fwk.Handle
	fleet      *fleet.Fleet
	now        func() time.Time
	offered    *offeredPods
	reserved   podSet
	placements placements
	drains     *drains // nil: nothing is drained, nobody gives way
	groups     *podGroups
	// proofs are the stock filters that refuse nodes for what they counted for the pod before.
	proofs []proof
	// provable is true when they counted before this plugin is asked.
	provable func() bool
	// soleRanker is true when the profile has no plugin but those that are known to leave a simple pod's candidates to this one.
	soleRanker func() bool
}

var (
	_ fwk.PreFilterPlugin   = &DrainPack{}
	_ fwk.PostFilterPlugin  = &DrainPack{}
	_ fwk.EnqueueExtensions = &DrainPack{}
	_ fwk.PreScorePlugin    = &DrainPack{}
	_ fwk.ScorePlugin       = &DrainPack{}
	_ fwk.ReservePlugin     = &DrainPack{}
	_ fwk.PostBindPlugin    = &DrainPack{}
	_ fwk.SignPlugin        = &DrainPack{}
)

// New makes the plugin; args are a DrainPackArgs, or nil for the defaults.
func New(ctx context.Context, args runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
	parsed, err := parseArgs[configv1.DrainPackArgs](Name, args)
	if err != nil {
		return nil, err
	}
	return newWith(ctx, parsed, handle)
}

func newWith(ctx context.Context, parsed configv1.DrainPackArgs, handle fwk.Handle) (*DrainPack, error) {
	d, err := newDrainPack(ctx, parsed, handle, time.Now)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", Name, err)
	}
	if config := handle.KubeConfig(); config != nil {
		client, err := dynamic.NewForConfig(config)
		if err != nil {
			return nil, fmt.Errorf("plugin %s: %w", Name, err)
		}
		d.groups.watch(ctx, handle.ClientSet().Discovery(), client)
	}
	if err := d.watch(ctx); err != nil {
		return nil, fmt.Errorf("plugin %s: watch nodes and pods: %w", Name, err)
	}
	if args := d.args.Draining; args != nil {
		registerDrainMetrics()
		if d.drains, err = newDrains(d, *args); err != nil {
			return nil, fmt.Errorf("plugin %s: %w", Name, err)
		}
		if err := d.drains.watch(); err != nil {
			return nil, fmt.Errorf("plugin %s: watch nodes and pods: %w", Name, err)
		}
		go d.drains.run(ctx)
	}
	learners.Store(handle.SharedInformerFactory(), d)
	d.report(ctx)
	if err := d.serve(ctx); err != nil {
		return nil, fmt.Errorf("plugin %s: explainAddress: %w", Name, err)
	}
	return d, nil
}

func newDrainPack(ctx context.Context, args configv1.DrainPackArgs, handle fwk.Handle, now func() time.Time) (*DrainPack, error) {
	registerMetrics()
	proofs, err := newProofs(ctx, handle)
	if err != nil {
		return nil, err
	}
	lifetimes := lifetime.New(lifetime.Options{
		HalfLife: args.HalfLife.Duration, MinCorrelation: args.MinCorrelation, Unknown: args.UnknownRunTime.Duration,
	})
	groups, err := newPodGroups(args.GroupLabel, handle.ProfileName(), handle.SharedInformerFactory().Core().V1().Pods().Informer(), handle.Activate)
	if err != nil {
		return nil, err
	}
	return &DrainPack{
		args: args, handle: handle, now: now, groups: groups,
		fleet:   fleet.New(lifetimes, fleet.Options{Quantile: args.Quantile, Horizon: args.Horizon.Duration, Restoring: true}),
		offered: newOfferedPods(),
		proofs:  proofs, provable: sync.OnceValue(func() bool { return countedBefore(handle, proofs) }),
		soleRanker: sync.OnceValue(func() bool { return onlyNeutralPlugins(handle) }),
	}, nil
}

// Name implements fwk.Plugin.
func (*DrainPack) Name() string { return Name }

// cycle is what is known of a pod while it is being placed.
type cycle struct {
	pod      fleet.Pod
	requests v1.ResourceList
	offer    string
	// feasible nodes, the order of those that get a score, the best first, and the scores, if any get one.
	feasible int
	order    []packing.Key
	scores   map[string]int64
	// placed says why the pod is where it is, once it is reserved.
	placed *placed
}

// Clone implements fwk.StateData. Nothing of a cycle is changed by those who may have cloned it.
func (c *cycle) Clone() fwk.StateData { return c }

const stateKey fwk.StateKey = Name

func (d *DrainPack) newCycle(pod *v1.Pod) *cycle {
	wanted := requests(pod)
	return &cycle{pod: d.describePod(pod, wanted), requests: wanted}
}

func cycleOf(state fwk.CycleState) (*cycle, error) {
	data, err := state.Read(stateKey)
	if err != nil {
		return nil, fmt.Errorf("plugin %s must be enabled at preFilter too: %w", Name, err)
	}
	return data.(*cycle), nil
}

// signed is all of a pod that its ranks depend on.
type signed struct {
	Requests v1.ResourceList
	Pod      fleet.Pod
}

// SignPod implements fwk.SignPlugin: pods of one class with the same requests are ranked alike, unless they wait for each other.
func (d *DrainPack) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if _, ok := d.gang(nil, pod); ok {
		return nil, fwk.NewStatus(fwk.Unschedulable, "pods of a PodGroup go where the plan for their group says")
	}
	c := d.newCycle(pod)
	c.pod.ID = ""
	return []fwk.SignFragment{{Key: "ebbtide.dev/packing", Value: signed{c.requests, c.pod}}}, nil
}

// What a pod was offered, in candidatesTotal and to whom asks for an explanation.
const (
	offerCandidates = "offered" // some nodes of the index
	offerNone       = "none"    // all nodes, as none of the index is proven to fit
	offerComplex    = "complex" // all nodes, as the pod is not simple
	offerRefused    = "refused" // all nodes, as candidates were refused before
)

var offerNames = []string{offerCandidates, offerNone, offerComplex, offerRefused}

// PreFilter implements fwk.PreFilterPlugin: a simple pod is offered a few nodes that are proven to fit, or the best of them only,
// when nobody else has a say: what is not offered need not be filtered and scored. A pod that was offered some and comes again without
// a node sees all of them.
func (d *DrainPack) PreFilter(ctx context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	if d.drains != nil {
		d.drains.placing.Store(true)
	}
	c := d.newCycle(pod)
	state.Write(stateKey, c)
	if _, err := state.Read(trialKey); err == nil {
		return nil, nil
	}
	d.groups.lookUp(ctx, pod, d.now())
	if group, ok := d.gang(state, pod); ok {
		node, status := d.placeGang(ctx, pod, group)
		if status != nil {
			return nil, status
		}
		c.offer = offerCandidates
		candidatesTotal.WithLabelValues(c.offer).Inc()
		return &fwk.PreFilterResult{NodeNames: sets.New(node)}, nil
	}
	var names sets.Set[string]
	switch {
	case d.offered.has(pod.UID):
		c.offer = offerRefused
	case !d.simple(pod):
		c.offer = offerComplex
	default:
		c.offer = offerNone
		if infos := d.candidates(ctx, state, pod, c.pod); len(infos) > 0 {
			c.offer, names = offerCandidates, sets.New[string]()
			d.offered.add(pod.UID)
			if d.ranksAlone(pod, infos) {
				c.feasible, c.order = len(infos), d.order(c, infos)
				infos = infos[:0]
				names.Insert(c.order[0].Name)
			}
			for _, info := range infos {
				names.Insert(info.Node().Name)
			}
		}
	}
	candidatesTotal.WithLabelValues(c.offer).Inc()
	if len(names) == 0 {
		return nil, nil
	}
	return &fwk.PreFilterResult{NodeNames: names}, nil
}

// PreFilterExtensions implements fwk.PreFilterPlugin.
func (*DrainPack) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// PostFilter implements fwk.PostFilterPlugin: a pod whose candidates were all refused, by a plugin that this one knows nothing
// of, comes again at once and sees all nodes, and nothing is preempted for it before. For one that has seen all, idle workers may make
// room. That holds when it stands before DefaultPreemption.
func (d *DrainPack) PostFilter(ctx context.Context, state fwk.CycleState, pod *v1.Pod, statuses fwk.NodeToStatusReader) (*fwk.PostFilterResult, *fwk.Status) {
	c, err := cycleOf(state)
	group, gang := d.gang(state, pod)
	switch {
	case err != nil:
		return nil, fwk.NewStatus(fwk.Unschedulable)
	case c.offer != offerCandidates && gang: // room for one pod of a group does not help
		return nil, fwk.NewStatus(fwk.Unschedulable)
	case c.offer != offerCandidates && d.drains != nil:
		return d.drains.giveWay(ctx, state, pod, statuses)
	case c.offer != offerCandidates:
		return nil, fwk.NewStatus(fwk.Unschedulable)
	}
	if gang {
		if d.disband(pod, group); group.failures >= gangRetries {
			return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "pod group "+group.name+": a node of its plan was refused")
		}
	}
	d.handle.Activate(klog.FromContext(ctx), map[string]*v1.Pod{klog.KObj(pod).String(): pod})
	return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "the nodes that "+Name+" offered were refused: all are tried next")
}

// EventsToRegister implements fwk.EnqueueExtensions: should a pod whose candidates were refused still wait, whatever may make
// room for it brings it back.
func (d *DrainPack) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	hint := func(_ klog.Logger, pod *v1.Pod, _, _ any) (fwk.QueueingHint, error) {
		if d.offered.has(pod.UID) {
			return fwk.Queue, nil
		}
		if _, ok := d.gang(nil, pod); ok {
			return fwk.Queue, nil
		}
		return fwk.QueueSkip, nil
	}
	room := fwk.Add | fwk.UpdateNodeAllocatable | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: room}, QueueingHintFn: hint},
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Delete}, QueueingHintFn: hint},
	}, nil
}

// PreScore implements fwk.PreScorePlugin: it orders all feasible nodes at once.
func (d *DrainPack) PreScore(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) *fwk.Status {
	c, err := cycleOf(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	c.feasible, c.order = len(nodes), d.order(c, nodes)
	c.scores = make(map[string]int64, len(c.order))
	for place := range c.order {
		c.scores[c.order[place].Name] = fwk.MaxScore - int64(place)
	}
	if logger := klog.FromContext(ctx).V(4); logger.Enabled() {
		logger.Info("Ordered nodes", "pod", klog.KObj(pod), "best", c.order[:min(3, len(c.order))])
	}
	return nil
}

// Score implements fwk.ScorePlugin: the best node gets the most, each next one less; from the hundred and first on, nothing.
func (*DrainPack) Score(_ context.Context, state fwk.CycleState, _ *v1.Pod, info fwk.NodeInfo) (int64, *fwk.Status) {
	c, err := cycleOf(state)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	return c.scores[info.Node().Name], nil
}

// ScoreExtensions implements fwk.ScorePlugin. Scores are final: they come from the whole order.
func (*DrainPack) ScoreExtensions() fwk.ScoreExtensions { return nil }

// Reserve implements fwk.ReservePlugin: the pod is on the node from now on.
func (d *DrainPack) Reserve(_ context.Context, state fwk.CycleState, pod *v1.Pod, nodeName string) *fwk.Status {
	c, err := cycleOf(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if len(c.order) == 0 { // no other node was feasible, so none was scored
		if info, err := d.handle.SnapshotSharedLister().NodeInfos().Get(nodeName); err == nil {
			c.feasible, c.order = 1, d.order(c, []fwk.NodeInfo{info})
		}
	}
	now := d.now()
	c.placed = d.explain(c, pod, nodeName, now)
	if d.drains != nil {
		if gave := d.drains.placed(string(pod.UID), nodeName); len(gave) > 0 {
			c.placed.GaveWay = gave
			c.placed.Reason += "; idle workers gave way: " + strings.Join(gave, ", ")
		}
	}
	d.reserved.add(pod.UID)
	d.groups.reserve(pod, nodeName)
	d.fleet.AddPod(c.pod, nodeName, now)
	d.offered.remove(pod.UID)
	return nil
}

// Unreserve implements fwk.ReservePlugin. A pod that could not be bound sees all nodes next time. One that is known to be bound, or gone, by
// now is left as it is: a binding that is reported to have failed may have happened.
func (d *DrainPack) Unreserve(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ string) {
	d.groups.settle(pod)
	d.groups.changed()
	group, gang := d.gang(state, pod)
	if gang {
		d.disband(pod, group)
	}
	if d.reserved.remove(pod.UID) {
		d.fleet.RemovePod(string(pod.UID))
		// A group's pod whose reservation is cancelled has not failed: it was a trial of core's, or another pod of the group found no node.
		if !gang && (state == nil || !state.IsPodGroupSchedulingCycle()) {
			d.offered.add(pod.UID)
		}
	}
}

// PostBind implements fwk.PostBindPlugin: a placement counts once the pod is bound. A pod may be reserved and unreserved more than once
// before.
func (d *DrainPack) PostBind(_ context.Context, state fwk.CycleState, _ *v1.Pod, _ string) {
	if c, err := cycleOf(state); err == nil && c.placed != nil {
		d.record(c.placed)
	}
}
