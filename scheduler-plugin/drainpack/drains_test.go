package drainpack

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	basemetrics "k8s.io/component-base/metrics/testutil"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/testing/defaults"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/profile"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	configv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/draining"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/streams"
	"github.com/ebbtide-dev/ebbtide/worker"
	stream "github.com/ebbtide-dev/ebbtide/worker/draining"
)

// readyNode has 8 CPUs.
func readyNode(name string, change func(*v1.Node)) *v1.Node {
	node := nodeWith(name, "0", nil).Node()
	node.Status.Allocatable = node.Status.Capacity
	node.CreationTimestamp = metav1.NewTime(time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC))
	node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}
	if change != nil {
		change(node)
	}
	return node
}

// boundPod ends some time, and is on a node since an instant.
func boundPod(name, node, cpu string, since time.Time) *v1.Pod {
	pod := toFinish(st.MakePod().Name(name).UID(name).Namespace("scan").Node(node).Priority(0).Req(map[v1.ResourceName]string{v1.ResourceCPU: cpu})).
		SchedulerName("ebbtide").Phase(v1.PodRunning).Obj()
	at := metav1.NewTime(since)
	pod.Status.StartTime = &at
	pod.Status.PodIPs = []v1.PodIP{{IP: "127.0.0.1"}}
	pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionTrue, LastTransitionTime: at}}
	return pod
}

// withoutRoom is pod p, of which some scheduler said that it finds none.
func withoutRoom(since time.Time) *v1.Pod {
	pod := st.MakePod().Name("p").UID("p").Namespace("scan").SchedulerName("another").Obj()
	pod.Status.Conditions = []v1.PodCondition{{
		Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: v1.PodReasonUnschedulable, LastTransitionTime: metav1.NewTime(since),
	}}
	return pod
}

func tainted(since string) func(*v1.Node) {
	return func(n *v1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: DrainingTaint, Value: since, Effect: v1.TaintEffectPreferNoSchedule})
	}
}

// What a look decides, from nodes and pods as the API has them.
func TestDecide(t *testing.T) {
	now := time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)
	before := now.Add(-10 * time.Minute)
	// A node with room for six more, and one with a pod that fits there.
	full := func() []*v1.Pod { return []*v1.Pod{boundPod("a1", "a", "1", before), boundPod("a2", "a", "1", before)} }
	annotated := func(key string) func(*v1.Node) {
		return func(n *v1.Node) { n.Annotations = map[string]string{key: "true"} }
	}
	for name, tc := range map[string]struct {
		b       func(*v1.Node)
		more    []*v1.Node
		pods    []*v1.Pod // besides one on b
		begin   []string
		end     map[string]draining.Reason
		waiting []*v1.Pod
	}{
		"a node whose pod fits elsewhere":       {begin: []string{"b"}},
		"it does not where another pool's room": {b: func(n *v1.Node) { n.Labels = map[string]string{"karpenter.sh/nodepool": "gpu"} }},
		"nor where other taints are": {b: func(n *v1.Node) {
			n.Spec.Taints = []v1.Taint{{Key: "gpu", Effect: v1.TaintEffectNoSchedule}}
		}},
		"opted out":               {b: annotated("ebbtide.dev/do-not-drain"), begin: []string{"a"}, pods: []*v1.Pod{}},
		"opted out for Karpenter": {b: annotated("karpenter.sh/do-not-disrupt"), begin: []string{"a"}, pods: []*v1.Pod{}},
		"taken away by Karpenter": {b: func(n *v1.Node) {
			n.Spec.Taints = []v1.Taint{{Key: "karpenter.sh/disrupted", Effect: v1.TaintEffectNoSchedule}}
		}},
		"taken away by cluster-autoscaler": {b: func(n *v1.Node) {
			n.Spec.Taints = []v1.Taint{{Key: "DeletionCandidateOfClusterAutoscaler", Effect: v1.TaintEffectPreferNoSchedule}}
		}},
		"the control plane": {b: func(n *v1.Node) { n.Labels = map[string]string{"node-role.kubernetes.io/control-plane": ""} }, begin: []string{"a"}, pods: []*v1.Pod{}},
		"a pod that never ends": {pods: append(full(), func() *v1.Pod {
			p := boundPod("b2", "b", "1", before)
			p.Spec.RestartPolicy = v1.RestartPolicyAlways
			return p
		}()), begin: []string{"a"}},
		"a pod waits":            {waiting: []*v1.Pod{withoutRoom(now.Add(-time.Minute))}},
		"it drained before that": {b: tainted("20260302T175900Z"), waiting: []*v1.Pod{withoutRoom(now.Add(-time.Second))}, end: map[string]draining.Reason{"b": draining.NeedsRoom}},
		"a pod waits that may not run there": {waiting: []*v1.Pod{func() *v1.Pod {
			p := withoutRoom(now.Add(-time.Minute))
			p.Spec.NodeSelector = map[string]string{"gpu": "true"}
			return p
		}()}, begin: []string{"b"}},
		"a pod waits that is larger than a node": {waiting: []*v1.Pod{func() *v1.Pod {
			p := boundPod("huge", "", "9", now)
			p.Status = withoutRoom(now.Add(-time.Minute)).Status
			return p
		}()}, begin: []string{"b"}},
		"a DaemonSet's pod waits": {waiting: []*v1.Pod{func() *v1.Pod {
			p := withoutRoom(now.Add(-time.Minute))
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Name: "d", Controller: new(bool)}}
			*p.OwnerReferences[0].Controller = true
			return p
		}()}, begin: []string{"b"}},
		"a pod that will wait for ever": {waiting: []*v1.Pod{withoutRoom(now.Add(-time.Hour))}, begin: []string{"b"}},
		"a node starts": {more: []*v1.Node{readyNode("c", func(n *v1.Node) {
			n.Status.Conditions[0].Status, n.CreationTimestamp = v1.ConditionFalse, metav1.NewTime(now.Add(-30*time.Second))
		})}},
		"a node has been broken for long": {more: []*v1.Node{readyNode("c", func(n *v1.Node) { n.Status.Conditions[0].Status = v1.ConditionFalse })}, begin: []string{"b"}},
		"it continues another's drain":    {b: tainted("20260302T175000Z")},
		"a drain that took too long":      {b: tainted("20260302T170000Z"), end: map[string]draining.Reason{"b": draining.TooLong}},
		"a time that can't be read":       {b: tainted("yesterday"), end: map[string]draining.Reason{"b": draining.TooLong}},
		"a time that is to come":          {b: tainted("29990101T000000Z"), end: map[string]draining.Reason{"b": draining.TooLong}},
		"a drained node that Karpenter takes away is left as it is": {b: func(n *v1.Node) {
			tainted("20260302T175000Z")(n)
			n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: "karpenter.sh/disrupted", Effect: v1.TaintEffectNoSchedule})
		}, waiting: []*v1.Pod{withoutRoom(now.Add(-time.Second))}},
		"a pod found no room elsewhere": {
			b: tainted("20260302T175900Z"), pods: append(full(), boundPod("b2", "b", "1", now.Add(-30*time.Second))), end: map[string]draining.Reason{"b": draining.NeedsRoom},
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := drainsForTest(t, now)
			pods := tc.pods
			if pods == nil {
				pods = full()
			}
			if len(pods) == 0 { // one on a that fits on b
				pods = []*v1.Pod{boundPod("a1", "a", "1", before)}
			}
			for _, pod := range slices.Concat(pods, tc.waiting, []*v1.Pod{boundPod("b1", "b", "1", before)}) {
				x.pack.setPod(pod)
				x.setPod(pod)
			}
			begin, end := x.decide(append([]*v1.Node{readyNode("a", nil), readyNode("b", tc.b)}, tc.more...))
			var began []string
			for _, node := range begin {
				began = append(began, node.Name)
			}
			ended := map[string]draining.Reason{}
			for _, s := range end {
				ended[s.node.Name] = s.why
			}
			if diff := cmp.Diff(tc.begin, began, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("begin (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.end, ended, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("end (-want +got):\n%s", diff)
			}
		})
	}
}

func drainsForTest(t *testing.T, now time.Time) *drains {
	t.Helper()
	pack := newForTest(t)
	pack.now = func() time.Time { return now }
	args := configv1.DrainPackArgs{Draining: &configv1.DrainingArgs{}}
	args.SetDefaults()
	x, err := newDrains(pack, *args.Draining)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// How workers count, and what is learned of their messages.
func TestStatesOfWorkers(t *testing.T) {
	now := time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)
	x := drainsForTest(t, now)
	x.setPod(boundPod("w", "a", "1", now.Add(-time.Hour)))
	state := func(at time.Time) draining.State { return x.stateOf(x.pods["w"], at) }
	check := func(what string, got, want draining.State) {
		t.Helper()
		if got != want {
			t.Errorf("%s: state %d, want %d", what, got, want)
		}
	}
	check("without a stream", state(now), draining.Busy)
	x.observe("w", streams.Busy, now)
	check("busy", state(now), draining.Busy)
	x.observe("w", streams.Idle, now.Add(40*time.Second))
	check("idle", state(now), draining.Idle)
	if got := x.lastWork["a"]; !got.Equal(now.Add(40 * time.Second)) {
		t.Errorf("the last work ended at %s", got)
	}
	x.pods["w"].told = now
	check("told to leave", state(now.Add(time.Second)), draining.Leaving)
	check("told, and not obeying", state(now.Add(time.Minute)), draining.Busy)
	x.observe("w", streams.Busy, now.Add(41*time.Second))
	check("it got a message before", state(now.Add(42*time.Second)), draining.Busy)
	x.observe("w", streams.Idle, now.Add(71*time.Second))
	if got := x.times.Classes(); got != 1 {
		t.Errorf("run times of %d classes of messages are known, want 1", got)
	}
	x.pods["w"].yields = now.Add(50 * time.Second)
	check("who is about to be told to leave is not counted on again", state(now), draining.Leaving)
	x.pods["w"].yields = time.Time{}
	deleted := boundPod("w", "a", "1", now.Add(-time.Hour))
	at, grace := metav1.NewTime(now), int64(3600)
	deleted.DeletionTimestamp, deleted.DeletionGracePeriodSeconds = &at, &grace
	x.setPod(deleted)
	check("deleted, with an hour to end in", state(now), draining.Idle)
	*deleted.DeletionGracePeriodSeconds = 30
	x.setPod(deleted)
	check("deleted", state(now), draining.Leaving)
	x.observe("w", streams.Busy, now.Add(72*time.Second))
	check("deleted while it works", state(now), draining.Busy)
	x.setPod(boundPod("w", "a", "1", now.Add(-time.Hour)))
	x.gone("w")
	check("its stream has ended", state(now), draining.Busy)
	x.observe("w", streams.Leaving, now)
	x.gone("w")
	check("it said that it leaves", state(now), draining.Leaving)
	x.forget("w")
	if len(x.pods)+len(x.byNode) != 0 {
		t.Errorf("something is left of it: %v %v", x.pods, x.byNode)
	}
}

// loop is a scheduler with draining on a cluster in memory, and the workers on it.
type loop struct {
	client *fake.Clientset
	pack   *DrainPack
	bound  chan string
	killed chan string
}

func newLoop(t *testing.T, args configv1.DrainingArgs, objects ...runtime.Object) *loop {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	args.ListenAddress = listener.Addr().String()
	listener.Close()
	l := &loop{client: fake.NewClientset(objects...), bound: make(chan string, 10), killed: make(chan string, 10)}
	l.client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "binding" {
			return false, nil, nil
		}
		l.bound <- action.(clienttesting.CreateAction).GetObject().(*v1.Binding).Target.Name
		return true, nil, nil
	})
	l.client.PrependReactor("delete", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		l.killed <- action.(clienttesting.DeleteAction).GetName()
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(l.client, 0)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: l.client.EventsV1()})
	broadcaster.StartRecordingToSink(t.Context().Done())
	t.Cleanup(broadcaster.Shutdown)
	enabled := func(names ...string) (set config.PluginSet) {
		for _, name := range names {
			set.Enabled = append(set.Enabled, config.Plugin{Name: name, Weight: 1})
		}
		return set
	}
	sched, err := scheduler.New(t.Context(), l.client, factory, nil, profile.NewRecorderFactory(broadcaster),
		scheduler.WithProfiles(config.KubeSchedulerProfile{SchedulerName: "ebbtide", PluginConfig: defaults.PluginConfigsV1, Plugins: &config.Plugins{
			QueueSort: enabled("PrioritySort"), Bind: enabled("DefaultBinder"), Filter: enabled("NodeResourcesFit", "NodeAffinity", "TaintToleration"),
			PreFilter: enabled("NodeResourcesFit", "NodeAffinity", Name), PostFilter: enabled(Name, "DefaultPreemption"), PreScore: enabled(Name),
			Score: enabled(Name), Reserve: enabled(Name), PostBind: enabled(Name),
		}}),
		scheduler.WithFrameworkOutOfTreeRegistry(frameworkruntime.Registry{Name: func(ctx context.Context, _ runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
			given := configv1.DrainPackArgs{Draining: &args}
			given.SetDefaults()
			pack, err := newWith(ctx, given, handle)
			l.pack = pack
			return pack, err
		}}),
		scheduler.WithPodInitialBackoffSeconds(1), scheduler.WithPodMaxBackoffSeconds(1))
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	if err := sched.WaitForHandlersSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.pack.drains.placing.Store(true) // there is no election
	go sched.Run(t.Context())
	return l
}

// worker opens a stream for a pod, and says that it is idle.
func (l *loop) worker(t *testing.T, pod string) *stream.Stream {
	t.Helper()
	s, err := stream.Open(stream.Config{
		Address: l.pack.drains.args.ListenAddress, PodName: pod, PodUID: pod, RetryAfter: 10 * time.Millisecond, RetryAtMost: 100 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Say(worker.Idle)
	l.eventually(t, "the worker "+pod+" is heard", func() bool {
		l.pack.drains.mu.Lock()
		defer l.pack.drains.mu.Unlock()
		p := l.pack.drains.pods[pod]
		return p != nil && p.attends && p.state == streams.Idle
	})
	return s
}

func (*loop) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: ", what)
		}
	}
}

func hears(t *testing.T, s *stream.Stream, what string, want func(worker.Word) bool) worker.Word {
	t.Helper()
	over := time.After(time.Minute)
	for {
		word, changed := s.Word()
		if want(word) {
			return word
		}
		select {
		case <-changed:
		case <-over:
			t.Fatalf("the worker does not hear %s; last %+v", what, word)
		}
	}
}

func toLeave(w worker.Word) bool { return w.Heard && w.Leave }

func (l *loop) create(t *testing.T, pod *v1.Pod) {
	t.Helper()
	if _, err := l.client.CoreV1().Pods("scan").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func waitsForRoom(priority int32, cpu string) *v1.Pod {
	return toFinish(st.MakePod().Name("p").UID("p").Namespace("scan").Priority(priority).Req(map[v1.ResourceName]string{v1.ResourceCPU: cpu})).
		SchedulerName("ebbtide").Obj()
}

func receives(t *testing.T, what string, from chan string) string {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(time.Minute):
		t.Fatal("not in time: ", what)
		return ""
	}
}

func promises(t *testing.T, result string) float64 {
	t.Helper()
	n, err := basemetrics.GetCounterMetricValue(promisesTotal.WithLabelValues(result))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The whole scheduler: a pod without room gets that of a worker without a message, by name, and nothing is preempted.
func TestGiveWay(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	l := newLoop(t, configv1.DrainingArgs{Promise: metav1.Duration{Duration: 30 * time.Second}, Every: metav1.Duration{Duration: time.Minute}},
		readyNode("a", nil), boundPod("busy", "a", "2", long), boundPod("idle", "a", "6", long))
	kept := promises(t, "kept")
	s := l.worker(t, "idle")
	hears(t, s, "that its node works", func(w worker.Word) bool { return w.NodeWorks && !w.Leave })
	l.create(t, waitsForRoom(0, "5"))
	if w := hears(t, s, "to leave", toLeave); w.Reason != "pod scan/p needs the room" {
		t.Errorf("reason %q", w.Reason)
	}
	l.eventually(t, "the pod is nominated", func() bool {
		pod, err := l.client.CoreV1().Pods("scan").Get(t.Context(), "p", metav1.GetOptions{})
		return err == nil && pod.Status.NominatedNodeName == "a"
	})
	s.Say(worker.Leaving)
	s.Close()
	if err := l.client.Tracker().Delete(v1.SchemeGroupVersion.WithResource("pods"), "scan", "idle"); err != nil { // it has ended
		t.Fatal(err)
	}
	if node := receives(t, "the pod is bound", l.bound); node != "a" {
		t.Errorf("bound to %s", node)
	}
	l.eventually(t, "the placement is explained", func() bool { return len(l.pack.placements.list("scan", "p", 1)) == 1 })
	if got := l.pack.placements.list("scan", "p", 1)[0]; !slices.Equal(got.GaveWay, []string{"idle"}) || !strings.Contains(got.Reason, "idle workers gave way: idle") {
		t.Errorf("explained as %q, %v", got.Reason, got.GaveWay)
	}
	if got := promises(t, "kept") - kept; got != 1 {
		t.Errorf("%v promises were kept", got)
	}
	if len(l.killed) > 0 {
		t.Errorf("%s was preempted", <-l.killed)
	}
}

// A worker that does not leave breaks the promise, and then the scheduler does what it did without it: preempt, for a pod of higher priority.
func TestBrokenPromise(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	l := newLoop(t, configv1.DrainingArgs{Promise: metav1.Duration{Duration: 500 * time.Millisecond}, Every: metav1.Duration{Duration: time.Minute}},
		readyNode("a", nil), boundPod("deaf", "a", "8", long))
	broken := promises(t, "broken")
	s := l.worker(t, "deaf")
	l.create(t, waitsForRoom(100, "5"))
	hears(t, s, "to leave", toLeave)
	if killed := receives(t, "the worker is preempted", l.killed); killed != "deaf" {
		t.Errorf("%s was preempted", killed)
	}
	if got := promises(t, "broken") - broken; got != 1 {
		t.Errorf("%v promises were broken before", got)
	}
}

// A promise that is broken leaves no nomination behind, though the pod may not preempt: node autoscalers must see that it has no room. Nor does
// one that an earlier leader made.
func TestBrokenPromiseWithoutPreemption(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	for name, before := range map[string]bool{"this leader's": false, "an earlier leader's": true} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, configv1.DrainingArgs{Promise: metav1.Duration{Duration: 500 * time.Millisecond}, Every: metav1.Duration{Duration: time.Minute}},
				readyNode("a", nil), boundPod("deaf", "a", "8", long))
			pod := waitsForRoom(100, "5")
			never := v1.PreemptNever
			pod.Spec.PreemptionPolicy = &never
			if before {
				pod.Status.NominatedNodeName = "a"
			} else {
				hears(t, l.worker(t, "deaf"), "that its node works", func(w worker.Word) bool { return w.Heard })
			}
			changes, err := l.client.CoreV1().Pods("scan").Watch(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer changes.Stop()
			l.create(t, pod)
			nominated := before
			for over := time.After(time.Minute); ; {
				select {
				case change := <-changes.ResultChan():
					changed, ok := change.Object.(*v1.Pod)
					if !ok || changed.Name != "p" {
						continue
					}
					nominated = nominated || changed.Status.NominatedNodeName == "a"
					if nominated && changed.Status.NominatedNodeName == "" && len(changed.Status.Conditions) > 0 {
						return
					}
				case <-over:
					t.Fatalf("the nomination is not withdrawn; there was one: %t", nominated)
				}
			}
		})
	}
}

// A pod that nothing will ever hold keeps nodes from draining for a while, not again and again.
func TestWaitingIsForgotten(t *testing.T) {
	now := time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)
	x := drainsForTest(t, now)
	pod := withoutRoom(now.Add(-time.Hour))
	for _, at := range []time.Time{now, now.Add(time.Minute)} {
		x.promised(pod, at)
		if pods := x.waits(at); len(pods) > 0 {
			t.Errorf("%d pods wait, want none: the only one has waited for an hour", len(pods))
		}
	}
}

// A worker that gets a message while filters decide is not counted on.
func TestPromiseOfBusyWorker(t *testing.T) {
	now := time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)
	x := drainsForTest(t, now)
	x.setPod(boundPod("w", "a", "1", now.Add(-time.Hour)))
	x.observe("w", streams.Busy, now)
	if x.promise(waitsForRoom(0, "1"), "a", []string{"w"}, now) || len(x.promises) > 0 || !x.pods["w"].yields.IsZero() {
		t.Errorf("it is promised away: %+v, %+v", x.promises, x.pods["w"])
	}
}

// Nobody gives way where that would not help, or to a pod of lower priority.
func TestNobodyGivesWay(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	important := boundPod("idle", "a", "6", long)
	important.Spec.Priority = new(int32)
	*important.Spec.Priority = 100
	elsewhere := waitsForRoom(0, "5")
	elsewhere.Spec.NodeSelector = map[string]string{"disk": "fast"}
	for name, tc := range map[string]struct{ idle, pod *v1.Pod }{
		"too large":            {boundPod("idle", "a", "6", long), waitsForRoom(0, "7")},
		"of lower priority":    {important, waitsForRoom(0, "5")},
		"it may not run there": {boundPod("idle", "a", "6", long), elsewhere},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, configv1.DrainingArgs{Every: metav1.Duration{Duration: time.Minute}}, readyNode("a", nil), boundPod("busy", "a", "2", long), tc.idle)
			s := l.worker(t, "idle")
			l.create(t, tc.pod)
			l.eventually(t, "the pod is found to have no room", func() bool {
				pod, err := l.client.CoreV1().Pods("scan").Get(t.Context(), "p", metav1.GetOptions{})
				return err == nil && len(pod.Status.Conditions) > 0
			})
			pod, err := l.client.CoreV1().Pods("scan").Get(t.Context(), "p", metav1.GetOptions{})
			if err != nil || pod.Status.NominatedNodeName != "" {
				t.Errorf("nominated to %q, %v", pod.Status.NominatedNodeName, err)
			}
			if w, _ := s.Word(); w.Leave {
				t.Errorf("a worker was told to leave: %s", w.Reason)
			}
		})
	}
}

func taintOf(t *testing.T, l *loop, name string) string {
	t.Helper()
	node, err := l.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == DrainingTaint && taint.Effect == v1.TaintEffectPreferNoSchedule {
			return taint.Value
		}
	}
	return ""
}

// A node drains: it is tainted, its worker is sent away, and it takes pods again when one finds no room.
func TestDrain(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	l := newLoop(t, configv1.DrainingArgs{Every: metav1.Duration{Duration: time.Second}},
		readyNode("a", func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "others", Effect: v1.TaintEffectPreferNoSchedule}} }),
		readyNode("b", func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "others", Effect: v1.TaintEffectPreferNoSchedule}} }),
		boundPod("a1", "a", "1", long), boundPod("a2", "a", "1", long), boundPod("b1", "b", "1", long))
	s := l.worker(t, "b1")
	if w := hears(t, s, "to leave", toLeave); w.Reason != "node b drains: its pods fit on others" {
		t.Errorf("reason %q", w.Reason)
	}
	since, err := time.Parse(sinceFormat, taintOf(t, l, "b"))
	if err != nil || time.Since(since) > time.Minute {
		t.Errorf("the taint says %s, %v", since, err)
	}
	if got := taintOf(t, l, "a"); got != "" {
		t.Errorf("node a drains since %s", got)
	}
	l.eventually(t, "the plugin knows", func() bool {
		for _, view := range l.pack.fleet.Views(time.Now()) {
			if view.Name == "b" && view.Draining != nil {
				return true
			}
		}
		return false
	})
	l.create(t, withoutRoom(time.Now()))
	l.eventually(t, "the drain ends", func() bool { return taintOf(t, l, "b") == "" })
	hears(t, s, "to stay", func(w worker.Word) bool { return w.Heard && !w.Leave })
	node, err := l.client.CoreV1().Nodes().Get(t.Context(), "b", metav1.GetOptions{})
	if err != nil || len(node.Spec.Taints) != 1 || node.Spec.Taints[0].Key != "others" {
		t.Errorf("another's taint is gone: %v, %v", node.Spec.Taints, err)
	}
	l.eventually(t, "both are events", func() bool {
		list, err := l.client.EventsV1().Events("").List(t.Context(), metav1.ListOptions{})
		seen := map[string]bool{}
		for i := range list.Items {
			seen[list.Items[i].Reason] = true
		}
		return err == nil && seen["DrainBegun"] && seen["DrainStopped"]
	})
}

// The budget of taints bounds what begins, whatever the fleet looks like.
func TestTaintsPerHour(t *testing.T) {
	now := time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)
	pack := newForTest(t)
	pack.now = func() time.Time { return now }
	args := configv1.DrainPackArgs{Draining: &configv1.DrainingArgs{TaintsPerHour: 30}}
	args.SetDefaults()
	x, err := newDrains(pack, *args.Draining)
	if err != nil {
		t.Fatal(err)
	}
	nodes := []*v1.Node{readyNode("a", nil)}
	x.setPod(boundPod("a1", "a", "1", now.Add(-time.Hour)))
	for i := range 20 { // empty ones
		nodes = append(nodes, readyNode(fmt.Sprint("n", i), nil))
	}
	if begin, _ := x.decide(nodes); len(begin) != 3 {
		t.Errorf("%d drains begin, want the burst of 3", len(begin))
	}
}

// Arguments are read strictly, have defaults, and say what is wrong.
func TestDrainingArgs(t *testing.T) {
	for text, want := range map[string]string{
		"draining: {}":                       "",
		"draining: {promise: 2s, spare: 3}":  "",
		"draining: {promise: 1h}":            "draining.promise",
		"draining: {longest: 1s}":            "draining.longest",
		"draining: {certFile: tls.crt}":      "draining.certFile",
		"draining: {listenAddress: nowhere}": "draining.listenAddress",
		"draining: {maxWorkers: -1}":         "draining.maxWorkers",
		"draining: {evict: true}":            "evict",
	} {
		args, err := parseArgs[configv1.DrainPackArgs](Name, &runtime.Unknown{Raw: []byte(text)})
		switch {
		case want == "" && (err != nil || args.Draining.ListenAddress != ":10261" || args.Draining.TaintsPerHour != 600):
			t.Errorf("%s: %+v, %v", text, args.Draining, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want one about %s", text, err, want)
		}
	}
}
