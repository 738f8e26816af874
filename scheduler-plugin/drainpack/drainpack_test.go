package drainpack

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

// nodeWith has 8 CPUs and 32 GiB, some of which other pods hold.
func nodeWith(name, usedCPU string, change func(*v1.Node)) fwk.NodeInfo {
	node := st.MakeNode().Name(name).Capacity(map[v1.ResourceName]string{
		v1.ResourceCPU: "8", v1.ResourceMemory: "32Gi", v1.ResourcePods: "110", "example.com/gpu": "4",
	}).Obj()
	if change != nil {
		change(node)
	}
	var pods []*v1.Pod
	if usedCPU != "0" {
		pods = append(pods, st.MakePod().Name(name+"-pod").Req(map[v1.ResourceName]string{v1.ResourceCPU: usedCPU}).Obj())
	}
	info := framework.NewNodeInfo(pods...)
	info.SetNode(node)
	return info
}

func TestScore(t *testing.T) {
	cpu := func(n string) *v1.Pod {
		return st.MakePod().Name("p").Req(map[v1.ResourceName]string{v1.ResourceCPU: n}).Obj()
	}
	taint := func(key string, effect v1.TaintEffect) func(*v1.Node) {
		return func(n *v1.Node) { n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: key, Effect: effect}) }
	}
	cases := map[string]struct {
		pod   *v1.Pod
		nodes []fwk.NodeInfo
		want  []int64 // of the nodes in their order
	}{
		// Free CPU after placement: 7, 1, 4 of 8.
		"the fullest gets the most": {
			pod:   cpu("1"),
			nodes: []fwk.NodeInfo{nodeWith("a", "0", nil), nodeWith("b", "6", nil), nodeWith("c", "3", nil)},
			want:  []int64{98, 100, 99},
		},
		"a node that Karpenter takes away": {
			pod:   cpu("1"),
			nodes: []fwk.NodeInfo{nodeWith("a", "7", taint("karpenter.sh/disrupted", v1.TaintEffectNoSchedule)), nodeWith("b", "0", nil)},
			want:  []int64{99, 100},
		},
		"a candidate of cluster-autoscaler": {
			pod: cpu("1"),
			nodes: []fwk.NodeInfo{
				nodeWith("a", "7", taint("DeletionCandidateOfClusterAutoscaler", v1.TaintEffectPreferNoSchedule)), nodeWith("b", "0", nil),
			},
			want: []int64{99, 100},
		},
		"a cordoned node": {
			pod:   cpu("1"),
			nodes: []fwk.NodeInfo{nodeWith("a", "7", func(n *v1.Node) { n.Spec.Unschedulable = true }), nodeWith("b", "0", nil)},
			want:  []int64{99, 100},
		},
		"a node that is being deleted": {
			pod: cpu("1"),
			nodes: []fwk.NodeInfo{
				nodeWith("a", "7", func(n *v1.Node) { n.DeletionTimestamp = &metav1.Time{} }), nodeWith("b", "0", nil),
			},
			want: []int64{99, 100},
		},
		// CPU and the GPU count: a has (2/8 + 3/4)/2 = 0.5 free, b (5/8 + 3/4)/2.
		"extended resources": {
			pod:   st.MakePod().Name("p").Req(map[v1.ResourceName]string{v1.ResourceCPU: "1", "example.com/gpu": "1"}).Obj(),
			nodes: []fwk.NodeInfo{nodeWith("a", "5", nil), nodeWith("b", "2", nil)},
			want:  []int64{100, 99},
		},
		"no requests: by name": {
			pod:   st.MakePod().Name("p").Obj(),
			nodes: []fwk.NodeInfo{nodeWith("b", "7", nil), nodeWith("a", "0", nil)},
			want:  []int64{99, 100},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			plugin, err := New(t.Context(), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			pack, state := plugin.(*DrainPack), framework.NewCycleState()
			if status := pack.PreScore(t.Context(), state, tc.pod, tc.nodes); !status.IsSuccess() {
				t.Fatal(status)
			}
			for i, node := range tc.nodes {
				got, status := pack.Score(t.Context(), state, tc.pod, node)
				if !status.IsSuccess() {
					t.Fatal(status)
				}
				if got != tc.want[i] {
					t.Errorf("node %s: score %d, want %d", node.Node().Name, got, tc.want[i])
				}
			}
		})
	}
}

// Scores stay in the framework's range on a fleet larger than it.
func TestScoreOfManyNodes(t *testing.T) {
	var nodes []fwk.NodeInfo
	for i := range 300 {
		nodes = append(nodes, nodeWith(st.MakeNode().Name("").Obj().Name+string(rune('a'+i%26))+string(rune('a'+i/26)), "0", nil))
	}
	pack, state := &DrainPack{}, framework.NewCycleState()
	pod := st.MakePod().Name("p").Obj()
	if status := pack.PreScore(t.Context(), state, pod, nodes); !status.IsSuccess() {
		t.Fatal(status)
	}
	best := 0
	for _, node := range nodes {
		score, _ := pack.Score(t.Context(), state, pod, node)
		if score < fwk.MinScore || score > fwk.MaxScore {
			t.Errorf("score %d is out of range", score)
		}
		if score == fwk.MaxScore {
			best++
		}
	}
	if best != 1 {
		t.Errorf("%d best nodes, want one", best)
	}
}

func TestSignPod(t *testing.T) {
	small := st.MakePod().Name("a").Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"}).Obj()
	same := st.MakePod().Name("b").Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"}).Obj()
	large := st.MakePod().Name("c").Req(map[v1.ResourceName]string{v1.ResourceCPU: "2"}).Obj()
	sign := func(pod *v1.Pod) string {
		fragments, status := (&DrainPack{}).SignPod(t.Context(), pod)
		if !status.IsSuccess() || len(fragments) != 1 {
			t.Fatalf("%d fragments, %v", len(fragments), status)
		}
		quantity := fragments[0].Value.(v1.ResourceList)[v1.ResourceCPU]
		return quantity.String()
	}
	if sign(small) != sign(same) || sign(small) == sign(large) {
		t.Errorf("signatures %s, %s, %s: want the first two the same", sign(small), sign(same), sign(large))
	}
}
