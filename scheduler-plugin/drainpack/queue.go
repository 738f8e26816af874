package drainpack

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1 "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"

	configv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
)

// QueueName of the plugin LongestFirst in a scheduler's configuration.
const QueueName = "DrainPackQueue"

// LongestFirst is a queue sort: the higher priority, then the pod that came first, where one that says it runs for long
// (annotation ebbtide.dev/expected-duration) or that asks for many CPUs is taken to have come earlier. The small ones then fill
// what the large ones leave, and the long ones start on nodes together. How much earlier does not depend on the time, so the
// order never changes while pods wait, and a pod ages by standing still.
type LongestFirst struct{ maxAdvance time.Duration }

var _ fwk.QueueSortPlugin = LongestFirst{}

// NewQueue makes the plugin; args are a DrainPackQueueArgs, or nil for the defaults.
func NewQueue(_ context.Context, args runtime.Object, _ fwk.Handle) (fwk.Plugin, error) {
	parsed, err := parseArgs[configv1.DrainPackQueueArgs](QueueName, args)
	return LongestFirst{parsed.MaxAdvance.Duration}, err
}

// Name implements fwk.Plugin.
func (LongestFirst) Name() string { return QueueName }

// Less implements fwk.QueueSortPlugin.
func (l LongestFirst) Less(a, b fwk.QueuedPodInfo) bool {
	podA, podB := a.GetPodInfo().GetPod(), b.GetPodInfo().GetPod()
	if p, q := corev1.PodPriority(podA), corev1.PodPriority(podB); p != q {
		return p > q
	}
	return l.came(a.GetTimestamp(), podA).Before(l.came(b.GetTimestamp(), podB))
}

// came is when a pod is taken to have come: half of the advance is for its run time, half for its CPUs.
func (l LongestFirst) came(at time.Time, pod *v1.Pod) time.Time {
	const middleRun, middleCPUs = 5 * time.Minute, 2000 // those that get half of a half; millicores
	runs, milliCPU := statedRunTime(pod), amountsOf(requests(pod))[0]
	share := float64(runs)/float64(runs+middleRun) + float64(milliCPU)/float64(milliCPU+middleCPUs)
	return at.Add(-time.Duration(share / 2 * float64(l.maxAdvance)))
}

// statedRunTime is a pod's own word for how long it will run, 0 for none. One that cannot be read is as if there were none:
// the scheduler is not where to refuse it.
func statedRunTime(pod *v1.Pod) time.Duration {
	stated, err := time.ParseDuration(pod.Annotations[durationAnnotation])
	if err != nil {
		return 0
	}
	return max(0, stated)
}
