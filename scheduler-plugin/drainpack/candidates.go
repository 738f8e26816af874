package drainpack

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodedeclaredfeatures"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/podtopologyspread"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// tries is how many nodes of the index are looked at for one pod. A pod that so few nodes accept sees all of them.
const tries = 100

// simple is true for a pod of which resources, labels, taints, nominated pods and required spread alone decide where it fits, so that a
// node can be proven to fit before the stock plugins look at it. All other pods see all nodes.
func (d *DrainPack) simple(pod *v1.Pod) bool {
	interested := func(e fwk.Extender) bool { return e.IsInterested(pod) }
	if pod.Status.NominatedNodeName != "" || len(pod.Spec.ResourceClaims) > 0 || slices.ContainsFunc(d.handle.Extenders(), interested) || !d.provable() {
		return false
	}
	preferred := func(c v1.TopologySpreadConstraint) bool { return c.WhenUnsatisfiable != v1.DoNotSchedule }
	if slices.ContainsFunc(pod.Spec.TopologySpreadConstraints, preferred) {
		return false
	}
	if a := pod.Spec.Affinity; a != nil && (a.PodAffinity != nil || a.PodAntiAffinity != nil) {
		return false
	}
	hostPort := func(p v1.ContainerPort) bool { return p.HostPort != 0 }
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if slices.ContainsFunc(containers[i].Ports, hostPort) {
				return false
			}
		}
	}
	if slices.ContainsFunc(pod.Spec.Volumes, tiesToNodes) {
		return false
	}
	return !d.refusedByAntiAffinity(pod)
}

// refusedByAntiAffinity is true for a pod that others, which are there already, want to keep away from. That their terms may mean other
// namespaces is left aside.
func (d *DrainPack) refusedByAntiAffinity(pod *v1.Pod) bool {
	refusing, err := d.handle.SnapshotSharedLister().NodeInfos().HavePodsWithRequiredAntiAffinityList()
	if err != nil {
		return true
	}
	for _, info := range refusing {
		for _, other := range info.GetPodsWithRequiredAntiAffinity() {
			for _, term := range other.GetRequiredAntiAffinityTerms() {
				if term.Selector.Matches(labels.Set(pod.Labels)) {
					return true
				}
			}
		}
	}
	return false
}

// tiesToNodes is true for a volume that can tie a pod to some nodes.
func tiesToNodes(v v1.Volume) bool {
	s := v.VolumeSource
	return s.ConfigMap == nil && s.Secret == nil && s.EmptyDir == nil && s.DownwardAPI == nil && s.Projected == nil && s.HostPath == nil &&
		s.Image == nil
}

// candidates are the nodes that a simple pod is offered, the best first, each proven to fit on the scheduler's snapshot. None when
// there is no such node among the first ones of the index.
func (d *DrainPack) candidates(ctx context.Context, state fwk.CycleState, pod *v1.Pod, described fleet.Pod) []fwk.NodeInfo {
	affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
	logger := klog.FromContext(ctx)
	get := d.handle.SnapshotSharedLister().NodeInfos().Get
	// While a group of pods is placed, only the nodes of one of its placements may be chosen.
	if placed, ok := d.handle.SnapshotSharedLister().(interface {
		GetNodeInPlacement(name string) (fwk.NodeInfo, error)
	}); ok {
		get = placed.GetNodeInPlacement
	}
	proofs := d.proofsOf(state, pod)
	found := d.fleet.Candidates(described, packing.Query{
		Now: d.now(), Most: d.args.Candidates, Tries: tries, Weights: d.indexWeights(),
		Accept: func(name string) bool {
			info, err := get(name)
			if err != nil || info.Node() == nil || len(d.handle.NominatedPodsForNode(name)) > 0 || !fits(logger, pod, info, affinity) {
				return false
			}
			refuses := func(filter fwk.FilterPlugin) bool { return !filter.Filter(ctx, state, pod, info).IsSuccess() }
			return !slices.ContainsFunc(proofs, refuses)
		},
	})
	infos := make([]fwk.NodeInfo, len(found))
	for i, name := range found {
		infos[i], _ = get(name) // it was there just now, and a snapshot does not change in a cycle
	}
	return infos
}

// proof is a stock filter that refuses nodes by what its PreFilter, of the profile's own plugin, counted for the pod: nothing when it has
// nothing to refuse.
type proof struct {
	name    string
	counted fwk.StateKey
	filter  fwk.FilterPlugin
}

func newProofs(ctx context.Context, handle fwk.Handle) ([]proof, error) {
	features := feature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate)
	spread, err := podtopologyspread.New(ctx, &config.PodTopologySpreadArgs{DefaultingType: config.ListDefaulting}, handle, features)
	if err != nil {
		return nil, err
	}
	declared, err := nodedeclaredfeatures.New(ctx, nil, handle, features)
	if err != nil {
		return nil, err
	}
	var proofs []proof
	for _, plugin := range []fwk.Plugin{spread, declared} {
		proofs = append(proofs, proof{plugin.Name(), fwk.StateKey("PreFilter" + plugin.Name()), plugin.(fwk.FilterPlugin)})
	}
	return proofs, nil
}

// countedBefore is true when the profile asks the proofs' plugins before this one.
func countedBefore(handle fwk.Handle, proofs []proof) bool {
	profile, ok := handle.(interface{ ListPlugins() *config.Plugins })
	if !ok {
		return true
	}
	enabled := profile.ListPlugins().PreFilter.Enabled
	place := func(name string) int {
		return slices.IndexFunc(enabled, func(p config.Plugin) bool { return p.Name == name })
	}
	return !slices.ContainsFunc(proofs, func(p proof) bool { return place(p.name) > place(Name) })
}

// proofsOf are the filters that have something to refuse for a pod.
func (d *DrainPack) proofsOf(state fwk.CycleState, pod *v1.Pod) (filters []fwk.FilterPlugin) {
	for _, p := range d.proofs {
		_, err := state.Read(p.counted)
		// A pod that says itself how it is to be spread must have been counted: else every node is refused.
		if err == nil || p.name == names.PodTopologySpread && len(pod.Spec.TopologySpreadConstraints) > 0 {
			filters = append(filters, p.filter)
		}
	}
	return filters
}

// ranksAlone is true when the order of this plugin alone ranks a simple pod's candidates: no plugin that it does not know has a say, and
// those that it knows have nothing to prefer.
func (d *DrainPack) ranksAlone(pod *v1.Pod, candidates []fwk.NodeInfo) bool {
	if !d.soleRanker() {
		return false
	}
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		return false
	}
	if d.ranksByAffinity(pod) {
		return false
	}
	soft := func(t v1.Taint) bool { return t.Effect == v1.TaintEffectPreferNoSchedule }
	return !slices.ContainsFunc(candidates, func(info fwk.NodeInfo) bool { return slices.ContainsFunc(info.Node().Spec.Taints, soft) })
}

// ranksByAffinity is true for a pod that InterPodAffinity ranks nodes for, as pods that are there already prefer such a pod to be near,
// or not. That their terms may mean other namespaces is left aside; a pod's own terms are not asked, as a simple pod has none.
func (d *DrainPack) ranksByAffinity(pod *v1.Pod) bool {
	attracting, err := d.handle.SnapshotSharedLister().NodeInfos().HavePodsWithAffinityList()
	if err != nil {
		return true
	}
	own := labels.Set(pod.Labels)
	matches := func(term fwk.AffinityTerm) bool { return term.Selector.Matches(own) }
	weighted := func(term fwk.WeightedAffinityTerm) bool { return matches(term.AffinityTerm) }
	for _, info := range attracting {
		for _, other := range info.GetPodsWithAffinity() {
			if slices.ContainsFunc(other.GetRequiredAffinityTerms(), matches) || slices.ContainsFunc(other.GetPreferredAffinityTerms(), weighted) ||
				slices.ContainsFunc(other.GetPreferredAntiAffinityTerms(), weighted) {
				return true
			}
		}
	}
	return false
}

// neutralPlugins neither refuse nor rank nodes that are proven to fit a simple pod, for other reasons than ranksAlone asks after. That
// PodTopologySpread likes to spread the pods of a Service or ReplicaSet by default is not followed: this plugin is there to pack them.
var neutralPlugins = sets.New(Name, names.NodeUnschedulable, names.NodeName, names.TaintToleration, names.NodeAffinity, names.NodePorts,
	names.NodeResourcesFit, names.VolumeRestrictions, names.NodeVolumeLimits, names.VolumeBinding, names.VolumeZone, names.PodTopologySpread,
	names.InterPodAffinity, names.DynamicResources, names.NodeDeclaredFeatures)

// onlyNeutralPlugins is true for a profile in which only neutral plugins filter and score, and NodeResourcesFit does not score.
func onlyNeutralPlugins(handle fwk.Handle) bool {
	profile, ok := handle.(interface{ ListPlugins() *config.Plugins })
	if !ok {
		return false
	}
	plugins := profile.ListPlugins()
	stranger := func(p config.Plugin) bool { return !neutralPlugins.Has(p.Name) }
	ranks := func(p config.Plugin) bool { return stranger(p) || p.Name == names.NodeResourcesFit }
	return !slices.ContainsFunc(plugins.Filter.Enabled, stranger) && !slices.ContainsFunc(plugins.Score.Enabled, ranks)
}

// fits is what the stock plugins check of a simple pod: NodeUnschedulable, NodeAffinity, TaintToleration, NodeResourcesFit.
func fits(logger klog.Logger, pod *v1.Pod, info fwk.NodeInfo, affinity nodeaffinity.RequiredNodeAffinity) bool {
	node := info.Node()
	if node.Spec.Unschedulable {
		return false
	}
	if matches, err := affinity.Match(node); err != nil || !matches {
		return false
	}
	bars := func(t *v1.Taint) bool {
		return t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute
	}
	if _, barred := corev1.FindMatchingUntoleratedTaint(logger, node.Spec.Taints, pod.Spec.Tolerations, bars, false); barred {
		return false
	}
	return len(noderesources.Fits(pod, info, nil, noderesources.ResourceRequestsOptions{EnablePodLevelResources: true})) == 0
}
