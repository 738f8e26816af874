package drainpack

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1 "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/lru"

	configv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// QueueName of the plugin LongestFirst in a scheduler's configuration.
const QueueName = "DrainPackQueue"

// LongestFirst is a queue sort: the higher priority, then the pod that came first, where one that is expected to run for long, or that asks for
// many CPUs, counts as having come earlier. The small ones then fill what the large ones leave, and the long ones start on nodes together. What is
// expected is what the plugin DrainPack of the same scheduler learned, or else what the pod states itself. How much earlier a pod counts as
// having come is decided when it is first looked at, so the order does not change while pods wait, and a pod ages by standing still.
type LongestFirst struct {
	maxAdvance time.Duration
	// learner is the scheduler's plugin DrainPack, nil while there is none.
	learner func() *DrainPack
	// advances of the pods that were looked at last, by UID.
	advances *lru.Cache
}

// rememberedAdvances is how many pods may wait before the order of those that were looked at longest ago is decided again.
const rememberedAdvances = 20_000

var _ fwk.QueueSortPlugin = &LongestFirst{}

// learners are the plugins DrainPack by their scheduler's informers: a queue sort is made by the scheduler apart from them, before or after.
var learners sync.Map

// NewQueue makes the plugin; args are a DrainPackQueueArgs, or nil for the defaults.
func NewQueue(_ context.Context, args runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
	parsed, err := parseArgs[configv1.DrainPackQueueArgs](QueueName, args)
	if err != nil {
		return nil, err
	}
	return newLongestFirst(parsed, func() *DrainPack {
		learner, _ := learners.Load(handle.SharedInformerFactory())
		d, _ := learner.(*DrainPack)
		return d
	}), nil
}

func newLongestFirst(args configv1.DrainPackQueueArgs, learner func() *DrainPack) *LongestFirst {
	return &LongestFirst{args.MaxAdvance.Duration, learner, lru.New(rememberedAdvances)}
}

// Name implements fwk.Plugin.
func (*LongestFirst) Name() string { return QueueName }

// Less implements fwk.QueueSortPlugin.
func (l *LongestFirst) Less(a, b fwk.QueuedPodInfo) bool {
	podA, podB := a.GetPodInfo().GetPod(), b.GetPodInfo().GetPod()
	if p, q := corev1.PodPriority(podA), corev1.PodPriority(podB); p != q {
		return p > q
	}
	return a.GetTimestamp().Add(-l.advance(podA)).Before(b.GetTimestamp().Add(-l.advance(podB)))
}

// advance is how much is subtracted from the time at which a pod came.
func (l *LongestFirst) advance(pod *v1.Pod) time.Duration {
	if known, ok := l.advances.Get(pod.UID); ok {
		return known.(time.Duration)
	}
	wanted, runs := requests(pod), statedRunTime(pod)
	if d := l.learner(); d != nil {
		runs = max(0, d.fleet.Expect(d.describePod(pod, wanted), d.now()).Remaining) // a follower keeps no node
	}
	advance := packing.Advance(runs, amountsOf(wanted)[0], l.maxAdvance)
	l.advances.Add(pod.UID, advance)
	return advance
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
