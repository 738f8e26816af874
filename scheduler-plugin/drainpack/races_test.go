package drainpack

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

func twoNodes() (nodes []*v1.Node) {
	for _, name := range []string{"a", "b"} {
		node := nodeWith(name, "0", nil).Node()
		node.Status.Allocatable = node.Status.Capacity
		nodes = append(nodes, node)
	}
	return nodes
}

func scanPod(uid string) *v1.Pod {
	return toFinish(st.MakePod().Name(uid).UID(uid).Namespace("scan").Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"})).Obj()
}

// reserve takes a pod from PreFilter to Reserve on a.
func reserve(t *testing.T, d *DrainPack, pod *v1.Pod) fwk.CycleState {
	t.Helper()
	state := framework.NewCycleState()
	if _, status := d.PreFilter(t.Context(), state, pod, nil); !status.IsSuccess() {
		t.Fatal(status)
	}
	if status := d.Reserve(t.Context(), state, pod, "a"); !status.IsSuccess() {
		t.Fatal(status)
	}
	return state
}

// Whenever a pod is deleted, while it is offered nodes, bound or unreserved, nothing of it is kept.
func TestDeletedOnTheWay(t *testing.T) {
	for name, play := range map[string]func(d *DrainPack, pod *v1.Pod){
		"while it is bound": func(d *DrainPack, pod *v1.Pod) {
			state := reserve(t, d, pod)
			d.forget(pod)
			d.Unreserve(t.Context(), state, pod, "a")
		},
		"after it was taken back": func(d *DrainPack, pod *v1.Pod) {
			state := reserve(t, d, pod)
			d.Unreserve(t.Context(), state, pod, "a")
			d.forget(pod)
		},
		"before it is offered nodes": func(d *DrainPack, pod *v1.Pod) {
			d.forget(pod)
			d.PreFilter(t.Context(), framework.NewCycleState(), pod, nil)
		},
		"before it is reserved": func(d *DrainPack, pod *v1.Pod) {
			state := framework.NewCycleState()
			d.PreFilter(t.Context(), state, pod, nil)
			d.forget(pod)
			d.Reserve(t.Context(), state, pod, "a")
			d.Unreserve(t.Context(), state, pod, "a")
		},
		"when it was bound": func(d *DrainPack, pod *v1.Pod) {
			reserve(t, d, pod)
			bound := pod.DeepCopy()
			bound.Spec.NodeName = "a"
			d.setPod(bound)
			d.forget(bound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := onCluster(t, twoNodes(), nil)
			for i := range 3 {
				play(d, scanPod(fmt.Sprint("p", i)))
			}
			if _, pods := d.fleet.Size(); pods+len(d.offered.pods)+len(d.reserved.pods) != 0 {
				t.Errorf("%d pods, %d offers and %d reservations are kept", pods, len(d.offered.pods), len(d.reserved.pods))
			}
		})
	}
}

// A binding whose answer was lost has happened all the same: the pod is on its node.
func TestBoundThoughBindingFailed(t *testing.T) {
	d, pod := onCluster(t, twoNodes(), nil), scanPod("p")
	state := reserve(t, d, pod)
	bound := pod.DeepCopy()
	bound.Spec.NodeName = "a"
	d.setPod(bound)
	d.Unreserve(t.Context(), state, pod, "a")
	if used, _ := d.fleet.Used(); used[0] != 1000 {
		t.Errorf("%d millicores are in use, want the pod's 1000", used[0])
	}
	if d.offered.has(pod.UID) {
		t.Error("the pod is thought to wait for a node")
	}
}

// A group's pods are reserved, unreserved and reserved again before they are bound; or never bound.
func TestPlacementsCountOnceBound(t *testing.T) {
	d, pod := onCluster(t, twoNodes(), nil), scanPod("p")
	state := reserve(t, d, pod)
	d.Unreserve(t.Context(), state, pod, "a")
	if got := d.placements.list("", "", 10); len(got) != 0 {
		t.Errorf("%d placements of a pod that was not bound", len(got))
	}
	if status := d.Reserve(t.Context(), state, pod, "b"); !status.IsSuccess() {
		t.Fatal(status)
	}
	d.PostBind(t.Context(), state, pod, "b")
	if got := d.placements.list("", "", 10); len(got) != 1 || got[0].Node != "b" {
		t.Errorf("placements %+v, want one, on b", got)
	}
}

// While a group is placed, only the nodes of the placement under trial are offered.
func TestOffersWithinThePlacement(t *testing.T) {
	nodes := append(twoNodes(), nodeWith("c", "0", nil).Node())
	nodes[2].Status.Allocatable = nodes[2].Status.Capacity
	snapshot := cache.NewSnapshot(nil, nodes)
	d := onSnapshot(t, snapshot)
	for _, node := range nodes {
		d.setNode(node)
	}
	var infos []fwk.NodeInfo
	for _, name := range []string{"b", "c"} {
		info, err := snapshot.NodeInfos().Get(name)
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, info)
	}
	if err := snapshot.AssumePlacement(&fwk.Placement{Name: "rack", Nodes: infos}); err != nil {
		t.Fatal(err)
	}
	result, _ := d.PreFilter(t.Context(), framework.NewCycleState(), scanPod("p"), nil)
	if result == nil || !result.NodeNames.Has("b") || len(result.NodeNames) != 1 {
		t.Errorf("offered %v, want b: a is the oldest, but not of the placement", result)
	}
}
