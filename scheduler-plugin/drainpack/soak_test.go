package drainpack

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// soakPods is how many pods the soak has: fewer with the race detector, which makes it ten times as long.
func soakPods() int {
	if raceDetector {
		return 5_000
	}
	return 50_000
}

// 50,000 pods go through the plugin beside the scheduler's own cache, while nodes come, change and go and bindings fail: what the plugin
// knows never drifts from the scheduler's snapshot, a node that it offers has room there, and of what is gone nothing is kept.
func TestSoakBesideSnapshot(t *testing.T) {
	const kept, nodeNames = 100, 60
	pods := soakPods()
	ctx, logger, random := t.Context(), klog.Background(), rand.New(rand.NewPCG(1, 2))
	snapshot := cache.NewEmptySnapshot()
	pack := onSnapshot(t, snapshot)
	theirs, at := cache.New(ctx, nil, false), pack.now()
	pack.now = func() time.Time { return at }
	nodes, running := map[string]*v1.Node{}, []*v1.Pod(nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	removeNode := func(name string) {
		if old := nodes[name]; old != nil {
			must(theirs.RemoveNode(logger, old))
			pack.fleet.RemoveNode(name)
			delete(nodes, name)
		}
	}
	setNode := func(name string) {
		node := nodeWith(name, "0", func(n *v1.Node) { n.Spec.Unschedulable = random.IntN(8) == 0 }).Node()
		node.Status.Allocatable = node.Status.Capacity
		if old := nodes[name]; old != nil {
			theirs.UpdateNode(logger, old, node)
		} else {
			theirs.AddNode(logger, node)
		}
		pack.setNode(node)
		nodes[name] = node
	}
	end := func(i int) {
		pod := running[i]
		must(theirs.RemovePod(logger, pod))
		pack.forget(pod)
		pack.fleet.Finished(fleet.Ended{
			Pod: pack.newCycle(pod).pod, Ran: time.Duration(random.IntN(100)) * time.Second, At: at, Well: random.IntN(10) > 0,
		})
		running = slices.Delete(running, i, i+1)
	}
	check := func() {
		t.Helper()
		must(theirs.UpdateSnapshot(logger, snapshot))
		infos, err := snapshot.NodeInfos().List()
		must(err)
		real := map[string]fleet.NodeUse{}
		for _, info := range infos {
			used, n := info.GetRequested(), len(info.GetPods())
			real[info.Node().Name] = fleet.NodeUse{
				Used: packing.Amounts{used.GetMilliCPU(), used.GetMemory(), used.GetEphemeralStorage(), int64(n)}, Pods: n,
			}
		}
		if err := pack.fleet.Check(real); err != nil {
			t.Fatal(err)
		}
	}
	hasRoom := func(pod *v1.Pod, info fwk.NodeInfo) bool {
		return len(noderesources.Fits(pod, info, nil, noderesources.ResourceRequestsOptions{})) == 0
	}
	offered := 0
	for i := range pods {
		at = at.Add(time.Duration(random.IntN(2000)) * time.Millisecond)
		if name := fmt.Sprintf("n%02d", random.IntN(nodeNames)); random.IntN(20) == 0 {
			removeNode(name)
		} else if random.IntN(4) == 0 {
			setNode(name)
		}
		for len(running) > kept {
			end(random.IntN(len(running)))
		}
		pod := toFinish(st.MakePod().Name(fmt.Sprint("p", i)).UID(fmt.Sprint("p", i)).Namespace("scan").Label("app", "x").
			Annotation(durationAnnotation, fmt.Sprint(1+random.IntN(300), "s")).
			Req(map[v1.ResourceName]string{v1.ResourceCPU: fmt.Sprint(1 + random.IntN(3))})).Obj()
		must(theirs.UpdateSnapshot(logger, snapshot))
		infos, err := snapshot.NodeInfos().List()
		must(err)
		state, target := framework.NewCycleState(), ""
		if result, _ := pack.PreFilter(ctx, state, pod, infos); result != nil {
			offered++
			target = result.NodeNames.UnsortedList()[0]
			if info, err := snapshot.NodeInfos().Get(target); err != nil || !hasRoom(pod, info) {
				t.Fatalf("%s is offered to %s, but is not there or full: %v", target, pod.Name, err)
			}
		} else if n := slices.IndexFunc(infos, func(info fwk.NodeInfo) bool { return hasRoom(pod, info) }); n >= 0 {
			target = infos[n].Node().Name
		}
		if target == "" { // it waits, and somebody deletes it
			pack.forget(pod)
			continue
		}
		if status := pack.Reserve(ctx, state, pod, target); !status.IsSuccess() {
			t.Fatal(status)
		}
		assumed := pod.DeepCopy()
		assumed.Spec.NodeName = target
		must(theirs.AssumePod(logger, assumed))
		if random.IntN(20) == 0 { // its binding fails, and somebody deletes it
			pack.Unreserve(ctx, state, pod, target)
			must(theirs.ForgetPod(logger, assumed))
			pack.forget(pod)
			continue
		}
		must(theirs.AddPod(logger, assumed))
		pack.setPod(assumed)
		running = append(running, assumed)
		if i%1000 == 0 {
			check()
		}
	}
	check()
	if offered < pods/2 {
		t.Errorf("only %d of %d pods were offered a node", offered, pods)
	}
	for len(running) > 0 {
		end(0)
	}
	for name := range nodes {
		removeNode(name)
	}
	if n, p := pack.fleet.Size(); n != 0 || p != 0 || len(pack.offered.pods) != 0 || len(pack.placements.ring) > remembered {
		t.Errorf("left: %d nodes, %d pods, %d offers, %d placements", n, p, len(pack.offered.pods), len(pack.placements.ring))
	}
}
