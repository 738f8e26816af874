package drainpack

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/component-base/metrics/legacyregistry"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/backend/queue"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	configv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
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
			pack, state := newForTest(t), framework.NewCycleState()
			state.Write(stateKey, pack.newCycle(tc.pod))
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
	pack, state := newForTest(t), framework.NewCycleState()
	pod := st.MakePod().Name("p").Obj()
	state.Write(stateKey, pack.newCycle(pod))
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
	pack := newForTest(t)
	sign := func(pod *st.PodWrapper) string {
		fragments, status := pack.SignPod(t.Context(), pod.Obj())
		if !status.IsSuccess() || len(fragments) != 1 {
			t.Fatalf("%d fragments, %v", len(fragments), status)
		}
		text, err := json.Marshal(fragments[0].Value)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	pod := func(name, cpu string) *st.PodWrapper {
		return st.MakePod().Name(name).UID(name).Namespace("scan").Req(map[v1.ResourceName]string{v1.ResourceCPU: cpu})
	}
	first := sign(pod("a", "1"))
	if again := sign(pod("b", "1")); again != first {
		t.Errorf("pods that are alike are signed %s and %s", first, again)
	}
	for name, other := range map[string]*st.PodWrapper{
		"requests": pod("c", "2"), "class": pod("c", "1").Label("ebbtide.dev/duration-class", "x"),
		"stated": pod("c", "1").Annotation("ebbtide.dev/expected-duration", "1m"),
		"group":  pod("c", "1").Label("scheduling.x-k8s.io/pod-group", "x"),
	} {
		if sign(other) == first {
			t.Errorf("pods with another %s are signed alike", name)
		}
	}
}

func TestDescribePod(t *testing.T) {
	pack := newForTest(t)
	of := func(kind, name string) *st.PodWrapper {
		controller := true
		pod := st.MakePod().Namespace("scan").Name("p").UID("u")
		if kind != "" {
			pod.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: &controller}}
		}
		return pod
	}
	one := packing.Amounts{0, 0, 0, 1}
	terminating := of("ReplicaSet", "web").Terminating()
	deleted := terminating.DeletionTimestamp.Time
	for name, tc := range map[string]struct {
		pod  *st.PodWrapper
		want fleet.Pod
	}{
		"a job's":            {of("Job", "scan-1"), fleet.Pod{ID: "u", Class: "scan/Job/scan-1", Requests: one}},
		"a ScaledJob's":      {of("Job", "scan-1").Label("scaledjob.keda.sh/name", "scans"), fleet.Pod{ID: "u", Class: "scan/scans", Requests: one}},
		"a class of its own": {of("Job", "scan-1").Label("ebbtide.dev/duration-class", "deep"), fleet.Pod{ID: "u", Class: "scan/deep", Requests: one}},
		"a Deployment's":     {of("ReplicaSet", "web"), fleet.Pod{ID: "u", Class: "scan/ReplicaSet/web", Endless: true, Requests: one}},
		"a Deployment's that says when it ends": {
			of("ReplicaSet", "web").Annotation("ebbtide.dev/expected-duration", "1h"),
			fleet.Pod{ID: "u", Class: "scan/ReplicaSet/web", Stated: time.Hour, Requests: one},
		},
		"nonsense stated": {
			of("Job", "j").Annotation("ebbtide.dev/expected-duration", "soon"), fleet.Pod{ID: "u", Class: "scan/Job/j", Requests: one},
		},
		"a DaemonSet's": {of("DaemonSet", "log"), fleet.Pod{ID: "u", Class: "scan/DaemonSet/log", Follower: true, Requests: one}},
		"a mirror pod":  {of("Node", "n").Annotation(v1.MirrorPodAnnotationKey, "x"), fleet.Pod{ID: "u", Class: "scan/Node/n", Follower: true, Requests: one}},
		"alone, and never started again": {
			toFinish(of("", "")), fleet.Pod{ID: "u", Class: "scan/", Requests: one},
		},
		"limited": {
			limited(of("Job", "j"), 90), fleet.Pod{ID: "u", Class: "scan/Job/j", Limit: 90 * time.Second, Requests: one},
		},
		"being deleted": {
			terminating, fleet.Pod{ID: "u", Class: "scan/ReplicaSet/web", Endless: true, Deadline: deleted, Requests: one},
		},
		"an engine of a scan": {
			of("Job", "j").Label("scheduling.x-k8s.io/pod-group", "scan-7"),
			fleet.Pod{ID: "u", Class: "scan/Job/j", Group: "scan/scan-7", Requests: one},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, pack.newCycle(tc.pod.Obj()).pod); diff != "" {
				t.Errorf("pod (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseArgs(t *testing.T) {
	parse := func(text string) (configv1.DrainPackArgs, error) {
		return parseArgs[configv1.DrainPackArgs](Name, &runtime.Unknown{Raw: []byte(text)})
	}
	args, err := parse(`{"apiVersion":"kubescheduler.config.k8s.io/v1","kind":"DrainPackArgs","candidates":8,"halfLife":"24h"}`)
	if err != nil || args.Candidates != 8 || args.HalfLife.Duration != 24*time.Hour || args.Quantile != 0.5 {
		t.Errorf("%+v, %v", args, err)
	}
	for text, want := range map[string]string{
		`{"candidates":101}`:                                  "candidates is 101, want 1 to 100",
		`{"quantile":1}`:                                      "quantile is 1",
		`{"halfLife":"1s"}`:                                   "halfLife is 1s",
		`{"unknownRunTime":"-1s"}`:                            "unknownRunTime is -1s",
		`{"horizon":"1s"}`:                                    "horizon is 1s, want 0, or at least 1m",
		`{"minCorrelation":2}`:                                "minCorrelation is 2",
		`{"weights":{"cpu":0}}`:                               "weights.cpu is 0, want more than 0",
		`{"priceFactors":[{"factor":1}]}`:                     "priceFactors[0].labels is empty, want at least one label",
		`{"priceFactors":[{"labels":{"a":"b"},"factor":-1}]}`: "priceFactors[0].factor is -1, want more than 0",
		`{"explainAddress":"0.0.0.0:10260"}`:                  "explainAddress is 0.0.0.0:10260, want a loopback address",
		`{"explainAddress":"127.0.0.1"}`:                      "explainAddress is 127.0.0.1, want a loopback address and a port",
		`{"candidate":1}`:                                     `unknown field "candidate"`,
		`{"halfLife":"tomorrow"}`:                             "tomorrow",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
	if _, err := parseArgs[configv1.DrainPackArgs](Name, &v1.Pod{}); err == nil {
		t.Error("a Pod was taken for arguments")
	}
}

// onCluster is the plugin on a framework that holds nodes with their pods, and it knows them.
func onCluster(t testing.TB, nodes []*v1.Node, pods []*v1.Pod) *DrainPack {
	t.Helper()
	pack := onSnapshot(t, cache.NewSnapshot(pods, nodes))
	for _, node := range nodes {
		pack.setNode(node)
	}
	for _, pod := range pods {
		pack.setPod(pod)
	}
	return pack
}

// onSnapshot is the plugin on a framework that sees a snapshot.
func onSnapshot(t testing.TB, snapshot *cache.Snapshot) *DrainPack {
	t.Helper()
	client := fake.NewClientset()
	factory := informers.NewSharedInformerFactory(client, 0)
	metrics.Register() // the queue counts
	queueing := queue.NewTestQueue(t.Context(), nil)
	handle, err := frameworkruntime.NewFramework(t.Context(), nil, nil, frameworkruntime.WithClientSet(client),
		frameworkruntime.WithInformerFactory(factory), frameworkruntime.WithSnapshotSharedLister(snapshot),
		frameworkruntime.WithPodNominator(queueing))
	if err != nil {
		t.Fatal(err)
	}
	args, err := parseArgs[configv1.DrainPackArgs](Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	pack, err := newDrainPack(t.Context(), args, handle, func() time.Time { return time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC) })
	if err != nil {
		t.Fatal(err)
	}
	return pack
}

func TestPreFilter(t *testing.T) {
	node := func(name string, change func(*v1.Node)) *v1.Node {
		n := nodeWith(name, "0", change).Node()
		n.Status.Allocatable = n.Status.Capacity
		return n
	}
	nodes := []*v1.Node{
		node("a", nil), node("b", func(n *v1.Node) { n.Labels = map[string]string{"disk": "ssd"} }),
		node("c", func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "scans", Effect: v1.TaintEffectNoSchedule}} }),
		node("d", func(n *v1.Node) { n.Spec.Unschedulable = true }),
	}
	full := st.MakePod().Name("full").UID("full").Node("a").Req(map[v1.ResourceName]string{v1.ResourceCPU: "6"}).Obj()
	scan := func() *st.PodWrapper {
		return toFinish(st.MakePod().Name("p").UID("p").Namespace("scan").Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"}))
	}
	all := []string(nil)
	for name, tc := range map[string]struct {
		pod  *st.PodWrapper
		want []string // the best first, of which only that is offered; nil: all nodes are
	}{
		"what fits, without taints and cordons": {scan(), []string{"a", "b"}},
		"a label":                               {scan().NodeSelector(map[string]string{"disk": "ssd"}), []string{"b"}},
		"a toleration":                          {scan().Toleration("scans"), []string{"a", "b", "c"}},
		"room":                                  {scan().Req(map[v1.ResourceName]string{v1.ResourceCPU: "4"}), []string{"b"}},
		"an extended resource":                  {scan().Req(map[v1.ResourceName]string{"example.com/gpu": "4"}), []string{"a", "b"}},
		"an extended resource that is nowhere":  {scan().Req(map[v1.ResourceName]string{"example.com/fpga": "1"}), all},
		"nowhere":                               {scan().Req(map[v1.ResourceName]string{v1.ResourceCPU: "9"}), all},
		"a nominated pod":                       {scan().NominatedNodeName("a"), all},
		"had better be spread":                  {scan().SpreadConstraint(1, "zone", v1.ScheduleAnyway, nil, nil, nil, nil, nil), all},
		"to be spread, and nobody counted":      {scan().SpreadConstraint(1, "zone", v1.DoNotSchedule, nil, nil, nil, nil, nil), all},
		"pod affinity":                          {scan().PodAffinityExists("app", "zone", st.PodAffinityWithRequiredReq), all},
		"a host port":                           {scan().HostPort(80), all},
		"a claim":                               {scan().PVC("data"), all},
		"a volume from an image":                {scan().Volume(v1.Volume{Name: "rules", VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: "rules:1"}}}), []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			pack := onCluster(t, nodes, []*v1.Pod{full})
			state := framework.NewCycleState()
			result, status := pack.PreFilter(t.Context(), state, tc.pod.Obj(), nil)
			if !status.IsSuccess() {
				t.Fatal(status)
			}
			c, err := cycleOf(state)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, key := range c.order {
				got = append(got, key.Name)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("candidates (-want +got):\n%s", diff)
			}
			if (result == nil) != (tc.want == nil) || result != nil && !result.NodeNames.Equal(sets.New(tc.want[0])) {
				t.Errorf("offered %v, want the best", result)
			}
		})
	}
	t.Run("a pod whose candidates failed sees all nodes", func(t *testing.T) {
		pack := onCluster(t, nodes, nil)
		offered := func() bool {
			result, _ := pack.PreFilter(t.Context(), framework.NewCycleState(), scan().Obj(), nil)
			return result != nil
		}
		if !offered() || offered() {
			t.Error("want candidates once, then all nodes")
		}
		state := framework.NewCycleState()
		state.Write(stateKey, pack.newCycle(scan().Obj()))
		if status := pack.Reserve(t.Context(), state, scan().Obj(), "a"); !status.IsSuccess() {
			t.Fatal(status)
		}
		if nodes, pods := pack.fleet.Size(); nodes != 4 || pods != 1 {
			t.Errorf("%d nodes and %d pods, want 4 and the one reserved", nodes, pods)
		}
		pack.Unreserve(t.Context(), nil, scan().Obj(), "a")
		if _, pods := pack.fleet.Size(); pods != 0 || offered() {
			t.Errorf("%d pods after Unreserve, want none; and all nodes for the pod", pods)
		}
		pack.forget(scan().Obj())
		if len(pack.offered.pods)+len(pack.reserved.pods) != 0 {
			t.Error("a pod that is gone is remembered")
		}
	})
	t.Run("a pod that refuses others", func(t *testing.T) {
		hermit := st.MakePod().Name("hermit").UID("hermit").Node("b").PodAntiAffinityExists("app", "zone", st.PodAntiAffinityWithRequiredReq).Obj()
		pack := onCluster(t, nodes, []*v1.Pod{hermit})
		if result, _ := pack.PreFilter(t.Context(), framework.NewCycleState(), scan().Label("app", "x").Obj(), nil); result != nil {
			t.Errorf("offered %v, though the hermit may refuse them", result.NodeNames)
		}
		if result, _ := pack.PreFilter(t.Context(), framework.NewCycleState(), scan().UID("q").Obj(), nil); result == nil {
			t.Error("a pod that the hermit does not mean was offered nothing")
		}
	})
}

func TestWeights(t *testing.T) {
	pack := newForTest(t)
	pack.args.Weights = map[string]float64{"memory": 3, "example.com/gpu": 5}
	got := pack.weights([]resource{{"cpu", 1}, {"memory", 1}, {"example.com/gpu", 1}, {"example.com/fpga", 1}})
	if diff := cmp.Diff([]float64{0.01, 3, 5, 1}, got); diff != "" { // no CPU is in use
		t.Errorf("weights (-want +got):\n%s", diff)
	}
}

func TestPrice(t *testing.T) {
	pack := newForTest(t)
	pack.args.PriceFactors = []configv1.PriceFactor{
		{Labels: map[string]string{"capacity": "spot", "zone": "a"}, Factor: 0.25}, {Labels: map[string]string{"capacity": "spot"}, Factor: 0.5},
	}
	price := func(cpu, memory string, labels map[string]string) int {
		node := st.MakeNode().Name("n").Capacity(map[v1.ResourceName]string{v1.ResourceCPU: cpu, v1.ResourceMemory: memory}).Obj()
		node.Labels = labels
		return pack.price(node)
	}
	normal := price("16", "64Gi", nil)
	for name, tc := range map[string]struct {
		got, more int
	}{
		"twice the size":         {price("32", "128Gi", nil), 1},
		"more memory":            {price("16", "256Gi", nil), 1},
		"spot":                   {price("16", "64Gi", map[string]string{"capacity": "spot"}), -1},
		"the first that matches": {price("16", "64Gi", map[string]string{"capacity": "spot", "zone": "a"}), -2},
		"other labels":           {price("16", "64Gi", map[string]string{"capacity": "on-demand"}), 0},
	} {
		if tc.got != normal+tc.more {
			t.Errorf("%s: price class %d, want %d", name, tc.got, normal+tc.more)
		}
	}
}

// From the API through the informers: pods that are bound count, those that finished teach.
func TestWatch(t *testing.T) {
	ended := metav1.NewTime(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
	began := metav1.NewTime(ended.Add(-40 * time.Second))
	finished := toFinish(st.MakePod().Name("old").UID("old").Namespace("scan").Label("scaledjob.keda.sh/name", "scans").Node("a")).
		Phase(v1.PodSucceeded).Obj()
	finished.Status.StartTime = &began
	finished.Status.ContainerStatuses = []v1.ContainerStatus{{State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{FinishedAt: ended}}}}
	node := nodeWith("a", "0", nil).Node()
	node.Status.Allocatable = node.Status.Capacity
	bound := toFinish(st.MakePod().Name("new").UID("new").Namespace("scan").Label("scaledjob.keda.sh/name", "scans").Node("a")).
		Req(map[v1.ResourceName]string{v1.ResourceCPU: "2"}).Obj()
	client := fake.NewClientset(finished, node, bound)
	factory := informers.NewSharedInformerFactory(client, 0)
	handle, err := frameworkruntime.NewFramework(t.Context(), nil, nil, frameworkruntime.WithClientSet(client), frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithSnapshotSharedLister(cache.NewEmptySnapshot()))
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := New(t.Context(), nil, handle)
	if err != nil {
		t.Fatal(err)
	}
	pack := plugin.(*DrainPack)
	factory.Start(t.Context().Done())
	eventually := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("not in time: ", what)
			}
		}
	}
	eventually("nodes are counted", func() bool {
		n, err := testutil.GatherAndCount(legacyregistry.DefaultGatherer, "ebbtide_drainpack_nodes")
		return err == nil && n == fleet.States
	})
	eventually("the class is learned", func() bool { classes, _ := pack.fleet.Learned(); return classes == 1 })
	holds := func(cpu int64) func() bool {
		return func() bool { used, all := pack.fleet.Used(); return used[0] == cpu && all[0] == 8000 }
	}
	eventually("the bound pod counts", holds(2000))
	if err := client.CoreV1().Pods("scan").Delete(t.Context(), "new", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually("the pod is gone", holds(0))
	if err := client.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually("the node is gone", func() bool { nodes, _ := pack.fleet.Size(); return nodes == 0 })
}

// toFinish makes a pod one that is not started again when it has ended.
func toFinish(pod *st.PodWrapper) *st.PodWrapper {
	pod.Spec.RestartPolicy = v1.RestartPolicyNever
	return pod
}

// limited ends a pod after some seconds.
func limited(pod *st.PodWrapper, seconds int64) *st.PodWrapper {
	pod.Spec.ActiveDeadlineSeconds = &seconds
	return pod
}

func newForTest(t testing.TB) *DrainPack { return onCluster(t, nil, nil) }
