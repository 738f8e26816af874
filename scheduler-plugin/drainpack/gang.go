package drainpack

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// A group of pods that a PodGroup describes goes through the scheduler like this:
//
//	PreEnqueue  holds its pods back until minMember of them exist: they have no condition yet, so no autoscaler makes a node for half a group
//	PreFilter   of the first looks for room for all that are needed, on a copy of the scheduler's snapshot, before any is placed. With
//	            room each is nominated for its node, so that others leave it free, and with too little all are unschedulable: nothing is held,
//	            and nobody waits for the group
//	Permit      holds them until all that are needed have a node
//	Unreserve   of one unreserves the others that wait
//
// Groups that core's scheduler places by cycles of their own (spec.schedulingGroup) are left to it.

var (
	_ fwk.PreEnqueuePlugin = &DrainPack{}
	_ fwk.PermitPlugin     = &DrainPack{}
)

// gangRetries is how often a group whose plan did not hold tries again at once.
const gangRetries = 3

// PreEnqueue implements fwk.PreEnqueuePlugin.
func (d *DrainPack) PreEnqueue(_ context.Context, pod *v1.Pod) *fwk.Status {
	if missing := d.groups.complete(pod); missing != "" {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, missing)
	}
	return nil
}

// gang is the group that a pod waits for; false for one that may go alone, as it has none, or all that are needed have their nodes.
func (d *DrainPack) gang(state fwk.CycleState, pod *v1.Pod) (podGroup, bool) {
	group, ok := d.groups.of(pod)
	if !ok || state != nil && state.IsPodGroupSchedulingCycle() {
		return podGroup{}, false
	}
	placed := d.groups.placed(&group)
	delete(placed, pod.UID)
	return group, group.ended+len(placed) < group.least
}

// placeGang is PreFilter for a pod of a gang: it goes where the plan for all of them says. Without a plan one is made.
func (d *DrainPack) placeGang(ctx context.Context, pod *v1.Pod, group podGroup) (node string, status *fwk.Status) {
	if missing := d.groups.complete(pod); missing != "" { // one was deleted, or the group has only just been heard of
		d.disband(pod, group)
		return "", fwk.NewStatus(fwk.UnschedulableAndUnresolvable, missing)
	}
	if node = group.planned[pod.UID]; node != "" {
		return node, nil
	}
	changes := d.groups.changesSoFar()
	if group.refused == "" || group.refusedAt != changes {
		planned, members, refused := d.plan(ctx, pod, group)
		d.groups.change(group.name, func(group *podGroup) {
			group.refused, group.refusedAt = refused, changes
			maps.Copy(group.planned, planned)
		})
		if refused == "" {
			d.nominate(ctx, pod, planned, members)
			return planned[pod.UID], nil
		}
		group.refused = refused
	}
	d.disband(pod, group)
	return "", fwk.NewStatus(fwk.UnschedulableAndUnresolvable, group.refused)
}

// nominate the other pods of a plan for their nodes, and let them come.
func (d *DrainPack) nominate(ctx context.Context, pod *v1.Pod, planned map[types.UID]string, members []*v1.Pod) {
	others := slices.DeleteFunc(slices.Clone(members), func(m *v1.Pod) bool { return m.UID == pod.UID || planned[m.UID] == "" })
	for _, other := range others {
		if info, err := framework.NewPodInfo(other); err == nil {
			d.handle.AddNominatedPod(klog.FromContext(ctx), info, &fwk.NominatingInfo{NominatingMode: fwk.ModeOverride, NominatedNodeName: planned[other.UID]})
		}
	}
	d.groups.wake(others)
}

// plan finds nodes for a pod and the others of its group that have none yet: for as many as there is room for, or a reason when those are too
// few. It asks the profile's own filters, each pod beside those that were placed before it.
func (d *DrainPack) plan(ctx context.Context, pod *v1.Pod, group podGroup) (planned map[types.UID]string, waiting []*v1.Pod, refused string) {
	t, err := d.newTrial()
	if err != nil {
		return nil, nil, err.Error()
	}
	waiting = []*v1.Pod{pod}
	placed := d.groups.placed(&group)
	for _, node := range placed {
		t.near(node)
	}
	for _, member := range d.groups.members(group.name) {
		if member.UID != pod.UID && placed[member.UID] == "" {
			waiting = append(waiting, member)
		}
	}
	planned = map[types.UID]string{}
	for i, member := range waiting {
		node := t.place(ctx, member, waiting[i:])
		if node == "" && i == 0 {
			break // the pod that is to be placed must be among those that have room
		}
		if node != "" {
			planned[member.UID] = node
		}
	}
	if fits := group.ended + len(placed) + len(planned); fits < group.least {
		return nil, waiting, fmt.Sprintf("pod group %s: %d of %d pods have room", group.name, fits, group.least)
	}
	return planned, waiting, ""
}

// trial places pods on a copy of the scheduler's snapshot.
type trial struct {
	d     *DrainPack
	infos []fwk.NodeInfo
	// changed are copies of nodes with the pods that were placed; the group's nodes and zones come first.
	changed map[string]fwk.NodeInfo
	added   []addedPod
	nodes   sets.Set[string]
	zones   sets.Set[string]
}

type addedPod struct {
	info fwk.PodInfo
	node string
}

// preFilters is what a framework has besides what its interface promises.
type preFilters interface {
	RunPreFilterPlugins(ctx context.Context, state fwk.CycleState, pod *v1.Pod) (*fwk.PreFilterResult, *fwk.Status, sets.Set[string])
}

// trialKey marks the cycle of a trial.
const trialKey fwk.StateKey = Name + "/trial"

// trialState is what stands there.
type trialState struct{}

// Clone implements fwk.StateData.
func (t trialState) Clone() fwk.StateData { return t }

func (d *DrainPack) newTrial() (*trial, error) {
	infos, err := d.handle.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		return nil, err
	}
	return &trial{d: d, infos: infos, changed: map[string]fwk.NodeInfo{}, nodes: sets.New[string](), zones: sets.New[string]()}, nil
}

// near makes a node, and then its zone, be tried before others.
func (t *trial) near(name string) {
	if info, err := t.d.handle.SnapshotSharedLister().NodeInfos().Get(name); err == nil && info.Node() != nil {
		t.take(info.Node())
	}
}

func (t *trial) take(node *v1.Node) {
	t.nodes.Insert(node.Name)
	if zone := node.Labels[v1.LabelTopologyZone]; zone != "" {
		t.zones.Insert(zone)
	}
}

// place finds a node for the first of pods, which come after one another: one where the group is, or one that holds all of them, or one in its zone,
// or any. Empty when there is none.
func (t *trial) place(ctx context.Context, pod *v1.Pod, pods []*v1.Pod) string {
	state := framework.NewCycleState()
	state.Write(trialKey, trialState{})
	if runner, ok := t.d.handle.(preFilters); ok {
		result, status, _ := runner.RunPreFilterPlugins(ctx, state, pod)
		if !status.IsSuccess() {
			return ""
		}
		for _, added := range t.added {
			if !t.d.handle.RunPreFilterExtensionAddPod(ctx, state, pod, added.info, t.changed[added.node]).IsSuccess() {
				return ""
			}
		}
		return t.choose(ctx, state, pod, pods, result)
	}
	return t.choose(ctx, state, pod, pods, nil)
}

func (t *trial) choose(ctx context.Context, state fwk.CycleState, pod *v1.Pod, pods []*v1.Pod, result *fwk.PreFilterResult) string {
	var together packing.Amounts
	for _, p := range pods {
		together = together.Plus(amountsOf(requests(p)))
	}
	for _, where := range []func(fwk.NodeInfo) bool{
		func(info fwk.NodeInfo) bool { return t.nodes.Has(info.Node().Name) },
		func(info fwk.NodeInfo) bool { return len(pods) > 1 && t.inZone(info) && freeOf(info).Fit(together) },
		t.inZone,
		func(fwk.NodeInfo) bool { return true },
	} {
		var feasible []fwk.NodeInfo
		for _, info := range t.infos {
			node := info.Node()
			if node == nil || leaving(node) || !result.AllNodes() && !result.NodeNames.Has(node.Name) {
				continue
			}
			if changed := t.changed[node.Name]; changed != nil {
				info = changed
			}
			if where(info) && t.d.handle.RunFilterPluginsWithNominatedPods(ctx, state, pod, info).IsSuccess() {
				if feasible = append(feasible, info); len(feasible) == tries {
					break
				}
			}
		}
		if len(feasible) > 0 {
			return t.add(pod, feasible)
		}
	}
	return ""
}

// inZone is true where the group is, and everywhere while it is nowhere.
func (t *trial) inZone(info fwk.NodeInfo) bool {
	return t.zones.Len() == 0 || t.zones.Has(info.Node().Labels[v1.LabelTopologyZone])
}

// freeOf a node, in the index's order.
func freeOf(info fwk.NodeInfo) packing.Amounts {
	allocatable, used := info.GetAllocatable(), info.GetRequested()
	return packing.Amounts{
		allocatable.GetMilliCPU() - used.GetMilliCPU(), allocatable.GetMemory() - used.GetMemory(),
		allocatable.GetEphemeralStorage() - used.GetEphemeralStorage(), int64(allocatable.GetAllowedPodNumber() - len(info.GetPods())),
	}
}

// add a pod to the best of the nodes that have room for it.
func (t *trial) add(pod *v1.Pod, feasible []fwk.NodeInfo) string {
	name := t.d.order(t.d.newCycle(pod), feasible)[0].Name
	at := slices.IndexFunc(feasible, func(info fwk.NodeInfo) bool { return info.Node().Name == name })
	placed := pod.DeepCopy()
	placed.Spec.NodeName = name
	podInfo, err := framework.NewPodInfo(placed)
	if err != nil {
		return ""
	}
	info := t.changed[name]
	if info == nil {
		info = feasible[at].Snapshot()
		t.changed[name] = info
	}
	info.AddPodInfo(podInfo)
	t.added = append(t.added, addedPod{podInfo, name})
	t.take(info.Node())
	return name
}

// Permit implements fwk.PermitPlugin: a pod of a gang waits until all that are needed have a node.
func (d *DrainPack) Permit(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ string) (*fwk.Status, time.Duration) {
	group, ok := d.gang(state, pod)
	if !ok {
		return nil, 0
	}
	placed := group.ended + len(d.groups.placed(&group))
	if placed < group.least {
		return fwk.NewStatus(fwk.Wait, fmt.Sprintf("pod group %s: %d of %d pods have a node", group.name, placed, group.least)), group.timeout
	}
	d.groups.change(group.name, func(group *podGroup) { group.failures = 0 })
	for uid := range group.reserved {
		if waiting := d.handle.GetWaitingPod(uid); waiting != nil {
			waiting.Allow(Name)
		}
	}
	return nil, 0
}

// disband drops the plan of a pod's group and unreserves those of its pods that wait for others.
func (d *DrainPack) disband(pod *v1.Pod, group podGroup) {
	var planned, reserved map[types.UID]string
	d.groups.change(group.name, func(group *podGroup) {
		planned, reserved = group.planned, maps.Clone(group.reserved)
		group.planned = map[types.UID]string{}
		group.failures++
	})
	for _, member := range d.groups.members(group.name) {
		if _, ok := planned[member.UID]; ok && member.UID != pod.UID {
			d.handle.DeleteNominatedPodIfExists(member)
		}
	}
	for uid := range reserved {
		if waiting := d.handle.GetWaitingPod(uid); waiting != nil && uid != pod.UID {
			waiting.Reject(Name, fmt.Sprintf("pod group %s: %s found no node", group.name, pod.Name))
		}
	}
}
