package drainpack

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// tries is how many nodes of the index are looked at for one pod. A pod that so few nodes accept sees all of them.
const tries = 100

// simple is true for a pod of which resources, labels, taints and nominated pods alone decide where it fits, so that a node
// can be proven to fit before the stock plugins look at it. All other pods see all nodes.
func (d *DrainPack) simple(pod *v1.Pod) bool {
	if pod.Status.NominatedNodeName != "" || len(pod.Spec.ResourceClaims) > 0 || len(pod.Spec.TopologySpreadConstraints) > 0 ||
		len(d.handle.Extenders()) > 0 {
		return false
	}
	if a := pod.Spec.Affinity; a != nil && (a.PodAffinity != nil || a.PodAntiAffinity != nil) {
		return false
	}
	hostPort := func(p v1.ContainerPort) bool { return p.HostPort != 0 }
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if slices.ContainsFunc(containers[i].Ports, hostPort) {
				return false
			}
		}
	}
	if slices.ContainsFunc(pod.Spec.Volumes, mayBind) {
		return false
	}
	return !d.mayBeRefused(pod)
}

// mayBeRefused is true for a pod that others, which are there already, want to keep away from. That their terms may mean other
// namespaces is left aside.
func (d *DrainPack) mayBeRefused(pod *v1.Pod) bool {
	refusing, err := d.handle.SnapshotSharedLister().NodeInfos().HavePodsWithRequiredAntiAffinityList()
	if err != nil {
		return true
	}
	for _, info := range refusing {
		for _, other := range info.GetPodsWithRequiredAntiAffinity() {
			for _, term := range other.GetRequiredAntiAffinityTerms() {
				if term.Selector.Matches(labels.Set(pod.Labels)) {
					return true
				}
			}
		}
	}
	return false
}

// mayBind is true for a volume that can tie a pod to some nodes.
func mayBind(v v1.Volume) bool {
	s := v.VolumeSource
	return s.ConfigMap == nil && s.Secret == nil && s.EmptyDir == nil && s.DownwardAPI == nil && s.Projected == nil && s.HostPath == nil
}

// candidates are the nodes that a simple pod is offered, each proven to fit on the scheduler's snapshot. None when there is
// no such node among the first ones of the index.
func (d *DrainPack) candidates(ctx context.Context, pod *v1.Pod, described fleet.Pod) sets.Set[string] {
	affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
	snapshot := d.handle.SnapshotSharedLister().NodeInfos()
	logger := klog.FromContext(ctx)
	return sets.New(d.fleet.Candidates(described, packing.Query{
		Now: d.now(), Most: d.args.Candidates, Tries: tries,
		Accept: func(name string) bool {
			info, err := snapshot.Get(name)
			return err == nil && info.Node() != nil && len(d.handle.NominatedPodsForNode(name)) == 0 && fits(logger, pod, info, affinity)
		},
	})...)
}

// fits is what the stock plugins check of a simple pod: NodeUnschedulable, NodeAffinity, TaintToleration, NodeResourcesFit.
func fits(logger klog.Logger, pod *v1.Pod, info fwk.NodeInfo, affinity nodeaffinity.RequiredNodeAffinity) bool {
	node := info.Node()
	if node.Spec.Unschedulable {
		return false
	}
	if matches, err := affinity.Match(node); err != nil || !matches {
		return false
	}
	bars := func(t *v1.Taint) bool {
		return t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute
	}
	if _, barred := corev1.FindMatchingUntoleratedTaint(logger, node.Spec.Taints, pod.Spec.Tolerations, bars, false); barred {
		return false
	}
	return len(noderesources.Fits(pod, info, nil, noderesources.ResourceRequestsOptions{EnablePodLevelResources: true})) == 0
}
