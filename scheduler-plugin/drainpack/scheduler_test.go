package drainpack

import (
	"context"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/testing/defaults"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/profile"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

func metaTime(t time.Time) metav1.Time { return metav1.NewTime(t) }

// picky is a filter of which DrainPack knows nothing: it takes one node only.
type picky struct{ node string }

func (picky) Name() string { return "Picky" }

func (p picky) Filter(_ context.Context, _ fwk.CycleState, _ *v1.Pod, info fwk.NodeInfo) *fwk.Status {
	if info.Node().Name == p.node {
		return nil
	}
	return fwk.NewStatus(fwk.Unschedulable, "not the one")
}

// The whole scheduler: a pod whose candidates another plugin refuses finds its node at once, and nothing is preempted for it.
func TestRefusedCandidates(t *testing.T) {
	var objects []runtime.Object
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "last"} {
		node := nodeWith(name, "0", nil).Node()
		node.Status.Allocatable = node.Status.Capacity
		objects = append(objects, node)
		if name != "last" { // "last" is the worst of all: empty
			objects = append(objects, toFinish(st.MakePod().Name(name).UID(name).Namespace("scan").Node(name).Priority(0).
				Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"})).SchedulerName("ebbtide").Obj())
		}
	}
	client := fake.NewClientset(objects...)
	bound := make(chan string, 10)
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "binding" {
			return false, nil, nil
		}
		bound <- action.(clienttesting.CreateAction).GetObject().(*v1.Binding).Target.Name
		return true, nil, nil
	})
	client.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		t.Error("a pod was preempted")
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	defer broadcaster.Shutdown()
	enabled := func(names ...string) (set config.PluginSet) {
		for _, name := range names {
			set.Enabled = append(set.Enabled, config.Plugin{Name: name})
		}
		return set
	}
	sched, err := scheduler.New(t.Context(), client, factory, nil, profile.NewRecorderFactory(broadcaster),
		scheduler.WithProfiles(config.KubeSchedulerProfile{SchedulerName: "ebbtide", PluginConfig: defaults.PluginConfigsV1, Plugins: &config.Plugins{
			QueueSort: enabled("PrioritySort"), Bind: enabled("DefaultBinder"), Filter: enabled("NodeResourcesFit", "Picky"),
			PreFilter: enabled("NodeResourcesFit", Name), PostFilter: enabled(Name, "DefaultPreemption"), PreScore: enabled(Name),
			Score: config.PluginSet{Enabled: []config.Plugin{{Name: Name, Weight: 1}}}, Reserve: enabled(Name),
		}}),
		scheduler.WithFrameworkOutOfTreeRegistry(frameworkruntime.Registry{
			Name:    New,
			"Picky": func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return picky{"last"}, nil },
		}),
		scheduler.WithPodInitialBackoffSeconds(1), scheduler.WithPodMaxBackoffSeconds(1))
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	if err := sched.WaitForHandlersSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	go sched.Run(t.Context())
	pod := toFinish(st.MakePod().Name("p").UID("p").Namespace("scan").Priority(100).Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"})).
		SchedulerName("ebbtide").Obj()
	if _, err := client.CoreV1().Pods("scan").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case node := <-bound:
		if node != "last" {
			t.Errorf("bound to %s", node)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the pod waits, though a node has room")
	}
}
