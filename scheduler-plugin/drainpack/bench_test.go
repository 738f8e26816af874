package drainpack

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

// BenchmarkPod is all that the plugin does for a pod among 5,000 nodes, a tenth of which hold pods, from PreFilter to Reserve and the
// informer's word that it is bound: for one that is offered a node of the index, and for one that sees all nodes, of which the
// scheduler finds and scores 500.
func BenchmarkPod(b *testing.B) {
	const fleetSize, scored = 5000, 500
	var nodes []*v1.Node
	var running []*v1.Pod
	for i := range fleetSize {
		node := nodeWith(fmt.Sprintf("node-%04d", i), "0", nil).Node()
		node.Status.Allocatable = node.Status.Capacity
		nodes = append(nodes, node)
		for j := range i % 10 / 9 * (1 + i%7) {
			name := fmt.Sprint(node.Name, "-", j)
			running = append(running, toFinish(st.MakePod().Name(name).UID(name).Node(node.Name).Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"})).Obj())
		}
	}
	scan := toFinish(st.MakePod().Name("p").UID("p").Namespace("scan").Label("scaledjob.keda.sh/name", "scans").
		Req(map[v1.ResourceName]string{v1.ResourceCPU: "500m", v1.ResourceMemory: "1Gi"}))
	for name, pod := range map[string]*v1.Pod{
		"offered": scan.Obj().DeepCopy(), "all-nodes": scan.SpreadConstraint(1, "zone", v1.ScheduleAnyway, nil, nil, nil, nil, nil).Obj(),
	} {
		b.Run(name, func(b *testing.B) {
			pack := onCluster(b, nodes, running)
			infos, err := pack.handle.SnapshotSharedLister().NodeInfos().List()
			if err != nil {
				b.Fatal(err)
			}
			feasible, best := infos[:scored], ""
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				pod.UID = types.UID(fmt.Sprint(i))
				state := framework.NewCycleState()
				result, _ := pack.PreFilter(b.Context(), state, pod, infos)
				if result != nil {
					best = result.NodeNames.UnsortedList()[0]
				} else {
					best = scoreAll(b, pack, state, pod, feasible)
				}
				if status := pack.Reserve(b.Context(), state, pod, best); !status.IsSuccess() {
					b.Fatal(status)
				}
				bound := *pod
				bound.Spec.NodeName = best
				pack.setPod(&bound)
				pack.forget(&bound)
			}
		})
	}
}

// scoreAll is the best of nodes.
func scoreAll(t testing.TB, pack *DrainPack, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) (best string) {
	t.Helper()
	if status := pack.PreScore(t.Context(), state, pod, nodes); !status.IsSuccess() {
		t.Fatal(status)
	}
	highest := int64(-1)
	for _, info := range nodes {
		if score, _ := pack.Score(t.Context(), state, pod, info); score > highest {
			best, highest = info.Node().Name, score
		}
	}
	return best
}
