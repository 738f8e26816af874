package drainpack

import (
	"context"
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodedeclaredfeatures"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/podtopologyspread"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

// Where others may rank the candidates too, all are offered and the scheduler scores them.
func TestOffersAll(t *testing.T) {
	node := func(name string, change func(*v1.Node)) *v1.Node {
		n := nodeWith(name, "0", change).Node()
		n.Status.Allocatable = n.Status.Capacity
		return n
	}
	soft := func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "old", Effect: v1.TaintEffectPreferNoSchedule}} }
	scan := func() *st.PodWrapper { return toFinish(st.MakePod().Name("p").UID("p").Namespace("scan")) }
	friendly := st.MakePod().Name("f").UID("f").Node("a").PodAffinityExists("app", "zone", st.PodAffinityWithPreferredReq).Obj()
	plain := []*v1.Node{node("a", nil), node("b", nil)}
	for name, tc := range map[string]struct {
		pod      *st.PodWrapper
		nodes    []*v1.Node
		running  []*v1.Pod
		stranger bool
		want     int
	}{
		"nobody else has a say":          {pod: scan(), nodes: plain, want: 1},
		"the pod prefers some nodes":     {pod: prefers(scan()), nodes: plain, want: 2},
		"a node that had better be left": {pod: scan(), nodes: []*v1.Node{node("a", soft), node("b", nil)}, want: 2},
		"a pod that prefers its company": {pod: scan().Label("app", "x"), nodes: plain, running: []*v1.Pod{friendly}, want: 2},
		"a pod that prefers others":      {pod: scan(), nodes: plain, running: []*v1.Pod{friendly}, want: 1},
		"a plugin that is not known":     {pod: scan(), nodes: plain, stranger: true, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			pack := onCluster(t, tc.nodes, tc.running)
			if tc.stranger {
				pack.soleRanker = func() bool { return false }
			}
			result, status := pack.PreFilter(t.Context(), framework.NewCycleState(), tc.pod.Obj(), nil)
			if !status.IsSuccess() || len(result.NodeNames) != tc.want {
				t.Errorf("offered %v, %v, want %d nodes", result, status, tc.want)
			}
		})
	}
}

// prefers some nodes.
func prefers(pod *st.PodWrapper) *st.PodWrapper {
	term := v1.NodeSelectorTerm{MatchExpressions: []v1.NodeSelectorRequirement{{Key: "disk", Operator: v1.NodeSelectorOpExists}}}
	pod.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []v1.PreferredSchedulingTerm{{Weight: 1, Preference: term}},
	}}
	return pod
}

func TestOnlyNeutralPlugins(t *testing.T) {
	registry := frameworkruntime.Registry{}
	for _, name := range []string{"TaintToleration", "NodeResourcesFit", "Stranger"} {
		registry[name] = func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return named{name: name}, nil }
	}
	for name, tc := range map[string]struct {
		filter, score []string
		want          bool
	}{
		"stock ones":           {[]string{"TaintToleration", "NodeResourcesFit"}, []string{"TaintToleration"}, true},
		"another filter":       {[]string{"Stranger"}, nil, false},
		"another score":        {nil, []string{"Stranger"}, false},
		"the stock free space": {[]string{"NodeResourcesFit"}, []string{"NodeResourcesFit"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			profile := config.KubeSchedulerProfile{SchedulerName: "ebbtide", Plugins: &config.Plugins{}}
			for _, plugin := range tc.filter {
				profile.Plugins.Filter.Enabled = append(profile.Plugins.Filter.Enabled, config.Plugin{Name: plugin})
			}
			for _, plugin := range tc.score {
				profile.Plugins.Score.Enabled = append(profile.Plugins.Score.Enabled, config.Plugin{Name: plugin, Weight: 1})
			}
			profile.Plugins.QueueSort.Enabled = []config.Plugin{{Name: "TaintToleration"}}
			profile.Plugins.Bind.Enabled = []config.Plugin{{Name: "TaintToleration"}}
			handle, err := frameworkruntime.NewFramework(t.Context(), registry, &profile)
			if err != nil {
				t.Fatal(err)
			}
			if got := onlyNeutralPlugins(handle); got != tc.want {
				t.Errorf("%t, want %t", got, tc.want)
			}
		})
	}
}

// named does nothing at every extension point that a test needs.
type named struct {
	fwk.QueueSortPlugin
	fwk.BindPlugin
	fwk.FilterPlugin
	fwk.ScorePlugin
	name string
}

func (n named) Name() string { return n.name }

// Pods of one app in three zones, one of which may not get more: what is offered passes the stock plugin's filter, and the fullest zone
// is not offered.
func TestSpread(t *testing.T) {
	var nodes []*v1.Node
	var running []*v1.Pod
	for i := range 9 {
		n := nodeWith(fmt.Sprintf("n%d", i), "0", nil).Node()
		n.Status.Allocatable, n.Labels = n.Status.Capacity, map[string]string{"zone": string(rune('a' + i%3))}
		nodes = append(nodes, n)
	}
	app := func(name string) *st.PodWrapper {
		return toFinish(st.MakePod().Name(name).UID(name).Namespace("scan").Label("app", "x").Req(map[v1.ResourceName]string{v1.ResourceCPU: "1"}))
	}
	for i := range 4 { // two in zone a, one in zones b and c each
		running = append(running, app(fmt.Sprint("r", i)).Node(fmt.Sprintf("n%d", i)).Obj())
	}
	pack := onCluster(t, nodes, running)
	stock, err := podtopologyspread.New(t.Context(), &config.PodTopologySpreadArgs{DefaultingType: config.ListDefaulting}, pack.handle, feature.Features{})
	if err != nil {
		t.Fatal(err)
	}
	infos, err := pack.handle.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		t.Fatal(err)
	}
	pod := app("p").SpreadConstraint(1, "zone", v1.DoNotSchedule, st.MakeLabelSelector().Exists("app").Obj(), nil, nil, nil, nil).Obj()
	state := framework.NewCycleState()
	if _, status := stock.(fwk.PreFilterPlugin).PreFilter(t.Context(), state, pod, infos); !status.IsSuccess() {
		t.Fatal(status)
	}
	offered := sets.New[string]()
	for _, info := range pack.candidates(t.Context(), state, pod, pack.newCycle(pod).pod) {
		offered.Insert(info.Node().Name)
		if status := stock.(fwk.FilterPlugin).Filter(t.Context(), state, pod, info); !status.IsSuccess() {
			t.Errorf("%s is offered, but refused: %s", info.Node().Name, status.Message())
		}
	}
	if len(offered) != 4 || !offered.HasAll("n1", "n2") || offered.HasAny("n0", "n3", "n6") {
		t.Errorf("offered %v, want four, n1 and n2 among them, and none of zone a", sets.List(offered))
	}
}

// Nodes that lack a feature that the pod needs are not offered: NodeDeclaredFeatures refuses them.
func TestDeclaredFeatures(t *testing.T) {
	featuregatetesting.SetFeatureGatesDuringTest(t, utilfeature.DefaultFeatureGate, featuregatetesting.FeatureOverrides{features.NodeDeclaredFeatures: true})
	nodes := twoNodes()
	nodes[1].Status.DeclaredFeatures = []string{"UserNamespacesHostNetworkSupport"}
	d := onCluster(t, nodes, nil)
	pod, own := scanPod("p"), false
	pod.Spec.HostNetwork, pod.Spec.HostUsers = true, &own
	counts, err := nodedeclaredfeatures.New(t.Context(), nil, d.handle, feature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate))
	if err != nil {
		t.Fatal(err)
	}
	state := framework.NewCycleState()
	if _, status := counts.(fwk.PreFilterPlugin).PreFilter(t.Context(), state, pod, nil); !status.IsSuccess() {
		t.Fatal(status)
	}
	if result, _ := d.PreFilter(t.Context(), state, pod, nil); result == nil || !result.NodeNames.Equal(sets.New("b")) {
		t.Errorf("offered %v, want b alone, which has the feature", result)
	}
}

// An extender that has nothing to do with a pod does not hide the index from it.
func TestExtenders(t *testing.T) {
	for interested, want := range map[bool]string{false: offerCandidates, true: offerComplex} {
		d := onCluster(t, twoNodes(), nil)
		d.handle = extended{d.handle, []fwk.Extender{extender{interested: interested}}}
		state := framework.NewCycleState()
		d.PreFilter(t.Context(), state, scanPod("p"), nil)
		if c, err := cycleOf(state); err != nil || c.offer != want {
			t.Errorf("interested %t: offer %s, %v, want %s", interested, c.offer, err, want)
		}
	}
}

type extended struct {
	fwk.Handle
	extenders []fwk.Extender
}

func (e extended) Extenders() []fwk.Extender { return e.extenders }

type extender struct {
	fwk.Extender
	interested bool
}

func (e extender) IsInterested(*v1.Pod) bool { return e.interested }

// Where a filter counts only after this plugin was asked, nothing can be proven with it.
func TestCountedTooLate(t *testing.T) {
	for name, tc := range map[string]struct {
		order []string
		want  bool
	}{
		"before":          {[]string{"PodTopologySpread", "NodeDeclaredFeatures", Name}, true},
		"not at all":      {[]string{"NodeAffinity", Name}, true},
		"one comes after": {[]string{"NodeDeclaredFeatures", Name, "PodTopologySpread"}, false},
	} {
		plugins := &config.Plugins{}
		for _, plugin := range tc.order {
			plugins.PreFilter.Enabled = append(plugins.PreFilter.Enabled, config.Plugin{Name: plugin})
		}
		d := newForTest(t)
		if got := countedBefore(profiled{d.handle, plugins}, d.proofs); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}

type profiled struct {
	fwk.Handle
	plugins *config.Plugins
}

func (p profiled) ListPlugins() *config.Plugins { return p.plugins }
