package drainpack

import (
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// durationAnnotation is a pod's own word for how long it will run, as a Go duration.
const durationAnnotation = "ebbtide.dev/expected-duration"

// scaledJobLabel is put on jobs' pods by KEDA.
const scaledJobLabel = "scaledjob.keda.sh/name"

// describePod makes what package fleet needs to know of a pod.
func (d *DrainPack) describePod(pod *v1.Pod, wanted v1.ResourceList) fleet.Pod {
	p := fleet.Pod{
		ID: string(pod.UID), Requests: amountsOf(wanted), Group: pod.Labels[d.args.GroupLabel],
		Stated: statedRunTime(pod),
	}
	if g := pod.Spec.SchedulingGroup; p.Group == "" && g != nil && g.PodGroupName != nil {
		p.Group = *g.PodGroupName
	}
	if p.Group != "" {
		p.Group = pod.Namespace + "/" + p.Group
	}
	owner := metav1.GetControllerOf(pod)
	_, mirror := pod.Annotations[v1.MirrorPodAnnotationKey] // run by a kubelet itself
	p.Follower = mirror || owner != nil && (owner.Kind == "DaemonSet" || owner.Kind == "Node")
	class := pod.Labels[d.args.ClassLabel]
	if class == "" {
		class = pod.Labels[scaledJobLabel]
	}
	if class == "" && owner != nil {
		class = owner.Kind + "/" + owner.Name
	}
	p.Class = pod.Namespace + "/" + class
	if pod.Spec.ActiveDeadlineSeconds != nil {
		p.Limit = time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second
	}
	if pod.DeletionTimestamp != nil {
		p.Deadline = pod.DeletionTimestamp.Time
	}
	p.Endless = !p.Follower && p.Stated == 0 && !ends(pod, owner)
	return p
}

// ends is true for a pod that is there to finish: a Job's, or one that is not started again when it has.
func ends(pod *v1.Pod, owner *metav1.OwnerReference) bool {
	if owner != nil && owner.Kind == "Job" {
		return true
	}
	return pod.Spec.RestartPolicy == v1.RestartPolicyNever || pod.Spec.RestartPolicy == v1.RestartPolicyOnFailure ||
		pod.Spec.ActiveDeadlineSeconds != nil
}

// startedAt is since when a pod has been on its node.
func startedAt(pod *v1.Pod) time.Time {
	if pod.Status.StartTime != nil {
		return pod.Status.StartTime.Time
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Status == v1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return pod.CreationTimestamp.Time
}

// finishedAt is when the last container of a pod ended; false when none says so.
func finishedAt(pod *v1.Pod) (time.Time, bool) {
	var last time.Time
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Terminated != nil && c.State.Terminated.FinishedAt.After(last) {
			last = c.State.Terminated.FinishedAt.Time
		}
	}
	return last, !last.IsZero()
}

// requests of a pod, as the scheduler accounts for them.
func requests(pod *v1.Pod) v1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{UseStatusResources: true})
}

// amountsOf a list, in the index's order: CPU in millicores, bytes of memory and of ephemeral storage, and one pod.
func amountsOf(list v1.ResourceList) packing.Amounts {
	return packing.Amounts{list.Cpu().MilliValue(), list.Memory().Value(), list.StorageEphemeral().Value(), 1}
}

func allocatableOf(list v1.ResourceList) packing.Amounts {
	amounts := amountsOf(list)
	amounts[3] = list.Pods().Value()
	return amounts
}

// price is the class of what a node costs.
func (d *DrainPack) price(node *v1.Node) int {
	price := packing.SizePrice(allocatableOf(node.Status.Allocatable))
	for _, f := range d.args.PriceFactors {
		if labels.SelectorFromSet(f.Labels).Matches(labels.Set(node.Labels)) {
			price *= f.Factor
			break
		}
	}
	return packing.PriceClass(price)
}

// leavingTaints are put on a node that an autoscaler takes, or is about to take, away.
var leavingTaints = map[string]bool{
	"karpenter.sh/disrupted":                    true,
	"ToBeDeletedByClusterAutoscaler":            true,
	"DeletionCandidateOfClusterAutoscaler":      true,
	v1.TaintNodeUnschedulable:                   true,
	v1.TaintNodeNotReady:                        true,
	v1.TaintNodeUnreachable:                     true,
	"node.cloudprovider.kubernetes.io/shutdown": true,
	"node.kubernetes.io/out-of-service":         true,
}

// leaving is true for a node that is being taken away, or is not ready: nothing new should go there.
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
