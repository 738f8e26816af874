package simulator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// What the models of the stock scheduler take is what its own plugins, with their default arguments, score highest, on random small clusters
// of nodes of several sizes; and they score all nodes alike.
func TestStockIsTheStockScheduler(t *testing.T) {
	metrics.Register()
	plugin := func(name string) config.Plugin { return config.Plugin{Name: name, Weight: 1} }
	fit, balanced := plugin(names.NodeResourcesFit), plugin(names.NodeResourcesBalancedAllocation)
	for name, most := range map[string]bool{"spread": false, "most-allocated": true} {
		defaults, err := latest.Default()
		if err != nil {
			t.Fatal(err)
		}
		profile := defaults.Profiles[0]
		profile.Plugins = &config.Plugins{
			PreFilter: config.PluginSet{Enabled: []config.Plugin{fit}}, Filter: config.PluginSet{Enabled: []config.Plugin{fit}},
			Score: config.PluginSet{Enabled: []config.Plugin{fit, balanced}}, PreScore: config.PluginSet{Enabled: []config.Plugin{fit, balanced}},
			QueueSort: config.PluginSet{Enabled: []config.Plugin{plugin(names.PrioritySort)}},
			Bind:      config.PluginSet{Enabled: []config.Plugin{plugin(names.DefaultBinder)}},
		}
		if most {
			profile.Plugins.Score.Enabled, profile.Plugins.PreScore.Enabled = []config.Plugin{fit}, []config.Plugin{fit}
		}
		for i := range profile.PluginConfig {
			if args, ok := profile.PluginConfig[i].Args.(*config.NodeResourcesFitArgs); ok && most {
				args.ScoringStrategy.Type = config.MostAllocated
			}
		}
		random := rand.New(rand.NewPCG(5, 5))
		for round := range 300 {
			pods, nodes, models, job := randomCluster(random)
			client := fake.NewClientset()
			handle, err := frameworkruntime.NewFramework(t.Context(), plugins.NewInTreeRegistry(), &profile,
				frameworkruntime.WithSnapshotSharedLister(cache.NewSnapshot(pods, nodes)), frameworkruntime.WithClientSet(client),
				frameworkruntime.WithInformerFactory(informers.NewSharedInformerFactory(client, 0)))
			if err != nil {
				t.Fatal(err)
			}
			infos, err := handle.SnapshotSharedLister().NodeInfos().List()
			if err != nil {
				t.Fatal(err)
			}
			pod, state := podFor("new", "", job.Requests), framework.NewCycleState()
			if _, status, _ := handle.RunPreFilterPlugins(t.Context(), state, pod); !status.IsSuccess() {
				t.Fatal(status)
			}
			feasible := slices.DeleteFunc(slices.Clone(infos), func(info fwk.NodeInfo) bool {
				return !handle.RunFilterPlugins(t.Context(), state, pod, info).IsSuccess()
			})
			taken := newStock(uint64(round), most).Place(round, &job, 0, models)
			if len(feasible) == 0 {
				if taken != nil {
					t.Errorf("%s, round %d: %s is taken, and no node has room", name, round, taken.Name)
				}
				continue
			}
			if status := handle.RunPreScorePlugins(t.Context(), state, pod, feasible); !status.IsSuccess() {
				t.Fatal(status)
			}
			scores, status := handle.RunScorePlugins(t.Context(), state, pod, feasible)
			if !status.IsSuccess() {
				t.Fatal(status)
			}
			best := slices.MaxFunc(scores, func(a, b fwk.NodePluginScores) int { return int(a.TotalScore - b.TotalScore) })
			for _, score := range scores {
				at := slices.IndexFunc(models, func(n *Node) bool { return n.Name == score.Name })
				if got := newStock(0, most).score(&job, models[at]); got != score.TotalScore {
					t.Errorf("%s, round %d: %s scores %d, really %d", name, round, score.Name, got, score.TotalScore)
				}
				if taken == models[at] && score.TotalScore != best.TotalScore {
					t.Errorf("%s, round %d: %s is taken, which scores %d; %s scores %d", name, round, taken.Name, score.TotalScore, best.Name, best.TotalScore)
				}
			}
			if taken == nil || len(scores) != len(feasible) {
				t.Errorf("%s, round %d: nothing is taken, and %d nodes have room", name, round, len(feasible))
			}
		}
	}
}

// randomCluster is up to six nodes of different sizes with pods, some of which request nothing, and a pod that is to be placed.
func randomCluster(random *rand.Rand) (pods []*v1.Pod, nodes []*v1.Node, models []*Node, job Job) {
	requests := func() packing.Amounts {
		cpu := []int64{0, 100, 250, 500, 1000, 1500, 3000}[random.IntN(7)]
		memory := []int64{0, 64, 512, 1000, 2048, 4096, 9000}[random.IntN(7)]
		return packing.Amounts{cpu, memory << 20, 0, 1}
	}
	for i := range 1 + random.IntN(6) {
		cores := []int64{2, 4, 8, 16}[random.IntN(4)]
		shape := NewShape("", packing.Amounts{1000 * cores, cores * (2 + 2*random.Int64N(3)) << 30, 0, 110}, DefaultOverhead, 0)
		n := &Node{Name: fmt.Sprint("node-", i), Shape: shape, Free: shape.Capacity, Ready: true}
		models = append(models, n)
		nodes = append(nodes, &v1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: n.Name}, Status: v1.NodeStatus{Allocatable: resources(shape.Capacity), Capacity: resources(shape.Capacity)},
		})
		counted := nodesOf{packer: firstFit{}}
		for p := range random.IntN(12) {
			if r := requests(); n.Free.Fit(r) {
				counted.bind(p, &Job{Requests: r}, 0, n)
				pods = append(pods, podFor(fmt.Sprint(n.Name, "-", p), n.Name, r))
			}
		}
	}
	return pods, nodes, models, Job{Requests: requests()}
}

// nodesOf is the simulator's bookkeeping of nodes, whose name a variable hides above.
type nodesOf = nodes

func resources(a packing.Amounts) v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU: *resource.NewMilliQuantity(a[0], resource.DecimalSI), v1.ResourceMemory: *resource.NewQuantity(a[1], resource.BinarySI),
		v1.ResourcePods: *resource.NewQuantity(max(a[3], 1), resource.DecimalSI),
	}
}

// podFor is a pod that requests what is more than 0.
func podFor(name, node string, requests packing.Amounts) *v1.Pod {
	list := resources(requests)
	delete(list, v1.ResourcePods)
	for resource, quantity := range list {
		if quantity.IsZero() {
			delete(list, resource)
		}
	}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
		Spec:       v1.PodSpec{NodeName: node, Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: list}}}},
	}
}
