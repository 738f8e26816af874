package drainpack

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/profile"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	podgroupv1 "sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"

	configv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
)

var groupResource = podgroupv1.SchemeGroupVersion.WithResource("podgroups")

// gangCluster is a whole scheduler with the shipped profile on nodes of eight CPUs, and PodGroups.
type gangCluster struct {
	t      *testing.T
	client *fake.Clientset
	groups dynamic.Interface
	plugin *DrainPack

	mu         sync.Mutex
	bound      map[string]string // pods' nodes
	conditions map[string]string // messages of those that are unschedulable
	changed    chan struct{}
}

func newGangCluster(t *testing.T, nodes int, served bool) *gangCluster {
	t.Helper()
	var objects []runtime.Object
	for i := range nodes {
		node := nodeWith(fmt.Sprint("n", i), "0", nil).Node()
		node.CreationTimestamp, node.Status.Allocatable = metav1.Unix(int64(i), 0), node.Status.Capacity
		node.Labels = map[string]string{v1.LabelHostname: node.Name, v1.LabelTopologyZone: string(rune('a' + i%2))}
		objects = append(objects, node)
	}
	c := &gangCluster{
		t: t, client: fake.NewClientset(objects...), bound: map[string]string{}, conditions: map[string]string{}, changed: make(chan struct{}, 1000),
		groups: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{groupResource: "PodGroupList"}),
	}
	if served {
		c.client.Resources = append(c.client.Resources, &metav1.APIResourceList{
			GroupVersion: podgroupv1.SchemeGroupVersion.String(), APIResources: []metav1.APIResource{{Name: "podgroups", Namespaced: true, Kind: "PodGroup"}},
		})
	}
	c.client.PrependReactor("create", "pods", c.bind)
	c.client.PrependReactor("patch", "pods", c.patch)
	factory := informers.NewSharedInformerFactory(c.client, 0)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: c.client.EventsV1()})
	t.Cleanup(broadcaster.Shutdown)
	newPlugin := func(ctx context.Context, args runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		parsed, err := parseArgs[configv1.DrainPackArgs](Name, args)
		if err != nil {
			return nil, err
		}
		d, err := newDrainPack(ctx, parsed, handle, time.Now)
		if err != nil {
			return nil, err
		}
		d.groups.watch(ctx, c.client.Discovery(), c.groups)
		c.plugin = d
		return d, d.watch(ctx)
	}
	sched, err := scheduler.New(t.Context(), c.client, factory, nil, profile.NewRecorderFactory(broadcaster), scheduler.WithProfiles(shippedProfile(t, "")),
		scheduler.WithFrameworkOutOfTreeRegistry(frameworkruntime.Registry{Name: newPlugin}),
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
	return c
}

func (c *gangCluster) bind(action clienttesting.Action) (bool, runtime.Object, error) {
	if action.GetSubresource() != "binding" {
		return false, nil, nil
	}
	binding := action.(clienttesting.CreateAction).GetObject().(*v1.Binding)
	object, err := c.client.Tracker().Get(v1.SchemeGroupVersion.WithResource("pods"), "scan", binding.Name)
	if err != nil {
		return true, nil, err
	}
	pod := object.(*v1.Pod).DeepCopy()
	pod.Spec.NodeName = binding.Target.Name
	err = c.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, "scan")
	c.note(func() { c.bound[binding.Name] = binding.Target.Name })
	return true, nil, err
}

func (c *gangCluster) patch(action clienttesting.Action) (bool, runtime.Object, error) {
	patch := action.(clienttesting.PatchAction)
	if text := string(patch.GetPatch()); action.GetSubresource() == "status" && strings.Contains(text, "Unschedulable") {
		c.note(func() { c.conditions[patch.GetName()] = text })
	}
	return false, nil, nil
}

func (c *gangCluster) note(change func()) {
	c.mu.Lock()
	change()
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// await waits until so many pods whose names begin with a prefix are bound, and returns how many are on each node.
func (c *gangCluster) await(prefix string, count int) map[string]int {
	c.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		nodes, found := map[string]int{}, 0
		c.mu.Lock()
		for pod, node := range c.bound {
			if strings.HasPrefix(pod, prefix) {
				nodes[node]++
				found++
			}
		}
		conditions := maps.Clone(c.conditions)
		c.mu.Unlock()
		if found == count {
			return nodes
		}
		select {
		case <-c.changed:
		case <-deadline:
			c.t.Fatalf("%d of %d pods of %s are bound: %v; unschedulable: %v", found, count, prefix, nodes, conditions)
		}
	}
}

// awaitCondition waits until a pod's condition says that it is unschedulable, in these words.
func (c *gangCluster) awaitCondition(pod, want string) {
	c.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		got := c.conditions[pod]
		c.mu.Unlock()
		if strings.Contains(got, want) {
			return
		}
		select {
		case <-c.changed:
		case <-deadline:
			c.t.Fatalf("condition of %s: %q, want %q", pod, got, want)
		}
	}
}

func (c *gangCluster) unschedulable() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.conditions))
}

// group makes a PodGroup, and waits until it is known.
func (c *gangCluster) group(name string, minMember int64) {
	c.t.Helper()
	_, err := c.groups.Resource(groupResource).Namespace("scan").Create(c.t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": podgroupv1.SchemeGroupVersion.String(), "kind": "PodGroup", "metadata": map[string]any{"name": name, "namespace": "scan"},
		"spec": map[string]any{"minMember": minMember, "scheduleTimeoutSeconds": int64(5)},
	}}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	pod := st.MakePod().Namespace("scan").Label(podgroupv1.PodGroupLabel, name).Obj()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, ok := c.plugin.groups.of(pod); ok {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatal("the plugin does not know of the group ", name)
		}
	}
}

// pods makes pods, of a group if it has a name.
func (c *gangCluster) pods(prefix, group, cpu string, from, to int, change func(*st.PodWrapper)) {
	c.t.Helper()
	for i := from; i < to; i++ {
		name := fmt.Sprint(prefix, i)
		pod := toFinish(st.MakePod().Name(name).UID(name).Namespace("scan").SchedulerName("ebbtide").Req(map[v1.ResourceName]string{v1.ResourceCPU: cpu}))
		if group != "" {
			pod.Label(podgroupv1.PodGroupLabel, group)
		}
		if change != nil {
			change(pod)
		}
		if _, err := c.client.CoreV1().Pods("scan").Create(c.t.Context(), pod.Obj(), metav1.CreateOptions{}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// What is missing of a group holds it back, without a condition that an autoscaler would answer; then all of it starts, on one node.
func TestGangStartsTogether(t *testing.T) {
	c := newGangCluster(t, 3, true)
	c.group("scan-1", 3)
	c.pods("alone", "", "6", 0, 2, nil) // on the oldest node and the next, so that no two pods of the group fit there
	c.await("alone", 2)
	c.pods("engine", "scan-1", "2", 0, 2, nil)
	c.pods("later", "", "1", 0, 1, nil) // when it is bound, the two have been looked at
	c.await("later", 1)
	if c.await("engine", 0); len(c.unschedulable()) > 0 {
		t.Errorf("%v are said to be unschedulable, though their group is not complete", c.unschedulable())
	}
	c.pods("engine", "scan-1", "2", 2, 3, nil)
	if nodes := c.await("engine", 3); nodes["n2"] != 3 {
		t.Errorf("the group is on %v, want n2 alone, which has room for all of it", nodes)
	}
	if len(c.unschedulable()) > 0 {
		t.Errorf("false conditions of %v", c.unschedulable())
	}
}

// A group for which there is too little room holds nothing: others pass, and once there is room all of it starts.
func TestGangWithoutRoom(t *testing.T) {
	c := newGangCluster(t, 2, true)
	c.group("large", 5)
	c.pods("large", "large", "4", 0, 5, nil) // four would fit
	for i := range 5 {
		c.awaitCondition(fmt.Sprint("large", i), "pod group scan/large: 4 of 5 pods have room")
	}
	c.pods("small", "", "8", 0, 2, nil)
	c.await("small", 2)
	c.await("large", 0)
	for i := range 3 {
		node := nodeWith(fmt.Sprint("new", i), "0", nil).Node()
		node.Status.Allocatable = node.Status.Capacity
		if _, err := c.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.await("large", 5)
}

// Two groups of which there is room for one do not take half of the room each.
func TestGangsDoNotShareRoom(t *testing.T) {
	c := newGangCluster(t, 2, true)
	c.group("one", 4)
	c.group("two", 4)
	for i := range 4 { // by turns
		c.pods("one", "one", "4", i, i+1, nil)
		c.pods("two", "two", "4", i, i+1, nil)
	}
	deadline := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		ones, twos := 0, 0
		for pod := range c.bound {
			if strings.HasPrefix(pod, "one") {
				ones++
			} else {
				twos++
			}
		}
		c.mu.Unlock()
		if ones+twos == 4 {
			if ones != 0 && twos != 0 {
				t.Errorf("%d and %d pods of the groups have nodes, want one group's alone", ones, twos)
			}
			return
		}
		select {
		case <-c.changed:
		case <-deadline:
			t.Fatalf("%d and %d pods have nodes", ones, twos)
		}
	}
}

// Pods that must be apart from each other, a pod that is deleted while others wait for it, one more than is needed, and one that comes when others
// have ended.
func TestGangMembers(t *testing.T) {
	c := newGangCluster(t, 3, true)
	c.group("apart", 3)
	apart := func(p *st.PodWrapper) {
		p.Label("app", "x").PodAntiAffinityExists("app", v1.LabelHostname, st.PodAntiAffinityWithRequiredReq)
	}
	c.pods("apart", "apart", "1", 0, 3, apart)
	if nodes := c.await("apart", 3); len(nodes) != 3 {
		t.Errorf("pods that must be apart are on %v", nodes)
	}
	c.group("more", 2)
	c.pods("more", "more", "1", 0, 3, nil)
	c.await("more", 3)
	if err := c.client.CoreV1().Pods("scan").Delete(t.Context(), "more1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.pods("more", "more", "1", 3, 4, nil) // in the place of one that is gone
	c.await("more", 4)
	if len(c.unschedulable()) > 0 {
		t.Errorf("false conditions of %v", c.unschedulable())
	}
}

// Without the API, or without an object, the label says no more than that pods had better be together.
func TestLabelAlone(t *testing.T) {
	c := newGangCluster(t, 2, false)
	c.pods("engine", "scan-1", "5", 0, 2, nil)
	c.await("engine", 2)
}

// When the PodGroup of pods that wait for others is deleted they go alone.
func TestGangIsGivenUp(t *testing.T) {
	c := newGangCluster(t, 2, true)
	c.group("half", 3)
	c.pods("half", "half", "1", 0, 2, nil)
	c.pods("later", "", "1", 0, 1, nil)
	c.await("later", 1)
	c.await("half", 0)
	if err := c.groups.Resource(groupResource).Namespace("scan").Delete(t.Context(), "half", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.await("half", 2)
}

// Pods that have run count as being there, as long as they exist, so that one that failed may be tried again alone.
func TestGangCountsThoseThatRan(t *testing.T) {
	d := newForTest(t)
	d.groups.set(&podgroupv1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "g"}, Spec: podgroupv1.PodGroupSpec{MinMember: 2}})
	pod := func(uid string, phase v1.PodPhase) *v1.Pod {
		return st.MakePod().Namespace("scan").Name(uid).UID(uid).Label(podgroupv1.PodGroupLabel, "g").Phase(phase).Obj()
	}
	retry := pod("retry", v1.PodPending)
	if err := d.groups.pods.Add(retry); err != nil {
		t.Fatal(err)
	}
	d.groups.end(pod("waits", v1.PodPending)) // has not run
	if d.groups.complete(retry) == "" {
		t.Error("one pod of two is enough")
	}
	done, failed := pod("done", v1.PodSucceeded), pod("failed", v1.PodFailed)
	d.groups.end(done)
	d.groups.end(failed)
	if missing := d.groups.complete(retry); missing != "" {
		t.Errorf("%s, though two have run", missing)
	}
	if _, waits := d.gang(nil, retry); waits {
		t.Error("the pod waits for others, though two have run")
	}
	d.groups.forgetEnded(done)
	d.groups.forgetEnded(failed)
	if d.groups.complete(retry) == "" || len(d.groups.ended) > 0 {
		t.Errorf("pods that are gone count; ended: %v", d.groups.ended)
	}
}
