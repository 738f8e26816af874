package drainpack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/draining"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/streams"
)

// promise of room that idle workers make for a pod. A pod gets one: room that did not come in time may never come.
type promise struct {
	node   string
	until  time.Time
	gave   []string // names of the workers
	broken bool
}

// giveWay lets idle workers leave for a pod that found no room, where all filters agree that it fits then. The pod is nominated to the node,
// so that nothing else is placed there before and node autoscalers make no node for it. While the promise holds nothing is preempted; when it
// is broken the pod is tried at once, as if there were no workers.
func (x *drains) giveWay(ctx context.Context, state fwk.CycleState, pod *v1.Pod, statuses fwk.NodeToStatusReader) (*fwk.PostFilterResult, *fwk.Status) {
	none := fwk.NewStatus(fwk.Unschedulable)
	if pod.Spec.SchedulingGroup != nil {
		return nil, none // one of many that are placed together, or not at all
	}
	now := x.pack.now()
	switch p := x.promised(pod, now); {
	case p.node == "":
	case now.Before(p.until):
		return nominate(p.node), nil
	default:
		return withdrawn(pod), none
	}
	want := draining.Pod{ID: string(pod.UID), Requests: amountsOf(requests(pod)), Priority: corev1.PodPriority(pod)}
	for _, n := range x.mayYield(now) {
		if statuses.Get(n.Name).Code() == fwk.UnschedulableAndUnresolvable {
			continue
		}
		info, err := x.pack.handle.SnapshotSharedLister().NodeInfos().Get(n.Name)
		if err != nil {
			continue
		}
		for _, nominated := range x.pack.handle.NominatedPodsForNode(n.Name) {
			if other := nominated.GetPod(); other.UID != pod.UID && corev1.PodPriority(other) >= want.Priority {
				n.Free = n.Free.Minus(amountsOf(requests(other)))
			}
		}
		yields := draining.GiveWay([]draining.Pod{want}, []draining.Node{n})
		// Filters take their time, and workers are heard meanwhile.
		if len(yields) == 0 || !x.fits(ctx, state, pod, info, n, yields[0].Leave) || !x.promise(pod, n.Name, yields[0].Leave, now) {
			continue
		}
		x.remind(klog.FromContext(ctx), pod, n.Name, reminders)
		return nominate(n.Name), nil
	}
	return withdrawn(pod), none
}

// reminders are how often a pod is tried at most until its nomination is removed.
const reminders = 10

// remind has a pod tried again when its promise has ended, and once more while its nomination is still there: the scheduler may not have seen it
// yet when it was to withdraw it.
func (x *drains) remind(logger klog.Logger, pod *v1.Pod, node string, times int) {
	time.AfterFunc(x.args.Promise.Duration, func() {
		now, err := x.pack.handle.SharedInformerFactory().Core().V1().Pods().Lister().Pods(pod.Namespace).Get(pod.Name)
		first := times == reminders
		if err != nil || now.UID != pod.UID || now.Spec.NodeName != "" || !first && now.Status.NominatedNodeName != node || times == 0 {
			return
		}
		x.pack.handle.Activate(logger, map[string]*v1.Pod{klog.KObj(now).String(): now})
		x.remind(logger, pod, node, times-1)
	})
}

// promised is what a pod was promised; nothing, if its node is "". A pod that comes again after the time has found that it was broken.
func (x *drains) promised(pod *v1.Pod, now time.Time) promise {
	x.mu.Lock()
	defer x.mu.Unlock()
	uid := string(pod.UID)
	since := unschedulableSince(pod) // one that waits for long has been forgotten
	if since.IsZero() {
		since = now
	}
	x.wait(pod, since)
	p := x.promises[uid]
	if p == nil {
		return promise{}
	}
	if !now.Before(p.until) && !p.broken {
		p.broken = true
		promisesTotal.WithLabelValues("broken").Inc()
	}
	return *p
}

// promise notes that workers leave a node for a pod, unless one of them has got a message by now.
func (x *drains) promise(pod *v1.Pod, node string, leave []string, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, uid := range leave {
		if w := x.pods[uid]; w != nil && x.stateOf(w, now) == draining.Busy {
			return false
		}
	}
	p := &promise{node: node, until: now.Add(x.args.Promise.Duration)}
	for _, uid := range leave {
		if w := x.pods[uid]; w != nil {
			// They are sent away for longer than the promise holds, so that who just got a message leaves after it.
			w.yields, w.why = p.until.Add(obeysWithin), fmt.Sprintf("pod %s/%s needs the room", pod.Namespace, pod.Name)
			p.gave = append(p.gave, w.name)
		}
	}
	x.promises[string(pod.UID)] = p
	nominationsTotal.Inc()
	klog.Background().V(2).Info("Workers give way", "pod", klog.KObj(pod), "node", node, "workers", p.gave)
	x.pack.handle.EventRecorder().Eventf(pod, nil, v1.EventTypeNormal, "GivenWay", "Scheduling", "On node %s room is made by %s",
		node, orLeaving(p.gave))
	x.poke()
	return true
}

// withdrawn removes a nomination that this leader made, or an earlier one, if the pod may not preempt. For other pods preemption, which comes
// next, does it, unless the nomination is its own. Autoscalers would make no node for a pod that stays nominated.
func withdrawn(pod *v1.Pod) *fwk.PostFilterResult {
	if pod.Spec.PreemptionPolicy == nil || *pod.Spec.PreemptionPolicy != v1.PreemptNever {
		return nil
	}
	return nominate("")
}

func nominate(node string) *fwk.PostFilterResult {
	return &fwk.PostFilterResult{NominatingInfo: &fwk.NominatingInfo{NominatedNodeName: node, NominatingMode: fwk.ModeOverride}}
}

// orLeaving names workers that leave for a pod, or says that others leave anyway.
func orLeaving(names []string) string {
	if len(names) == 0 {
		return "pods that leave already"
	}
	return strings.Join(names, ", ") + ", which had no message"
}

// mayYield are the nodes with workers that are idle or leave: those that do not drain first, then the oldest.
func (x *drains) mayYield(now time.Time) []draining.Node {
	lister := x.nodes()
	x.mu.Lock()
	defer x.mu.Unlock()
	var found []draining.Node
	for name, pods := range x.byNode {
		yields := false
		for _, p := range pods {
			yields = yields || p.attends && p.state != streams.Busy
		}
		if !yields {
			continue
		}
		if node, err := lister.Get(name); err == nil {
			found = append(found, x.describe(node, now))
		}
	}
	slices.SortFunc(found, func(a, b draining.Node) int {
		if drains := !a.Draining.IsZero(); drains != !b.Draining.IsZero() {
			if drains {
				return 1
			}
			return -1
		}
		if order := a.Created.Compare(b.Created); order != 0 {
			return order
		}
		return strings.Compare(a.Name, b.Name)
	})
	return found
}

// fits asks all filters whether a pod would fit on a node without those who leave.
func (x *drains) fits(ctx context.Context, state fwk.CycleState, pod *v1.Pod, info fwk.NodeInfo, n draining.Node, leave []string) bool {
	logger := klog.FromContext(ctx)
	away := map[string]bool{}
	for _, uid := range leave {
		away[uid] = true
	}
	for i := range n.Pods {
		if n.Pods[i].State == draining.Leaving {
			away[n.Pods[i].ID] = true
		}
	}
	without, then := info.Snapshot(), state.Clone()
	for _, other := range info.GetPods() {
		if !away[string(other.GetPod().UID)] {
			continue
		}
		if err := without.RemovePod(logger, other.GetPod()); err != nil {
			return false
		}
		if !x.pack.handle.RunPreFilterExtensionRemovePod(ctx, then, pod, other, without).IsSuccess() {
			return false
		}
	}
	return x.pack.handle.RunFilterPluginsWithNominatedPods(ctx, then, pod, without).IsSuccess()
}

// placed says that a pod has a node, and returns the names of the workers that gave way to it there.
func (x *drains) placed(uid, node string) (gave []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.waiting, uid)
	p := x.promises[uid]
	if p == nil {
		return nil
	}
	delete(x.promises, uid)
	switch {
	case p.broken:
		return nil
	case p.node != node: // it found room elsewhere
		promisesTotal.WithLabelValues("elsewhere").Inc()
		return nil
	}
	promisesTotal.WithLabelValues("kept").Inc()
	return p.gave
}
