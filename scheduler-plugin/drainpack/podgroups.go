package drainpack

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/lru"
	podgroupv1 "sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"
)

// defaultGroupTimeout is how long a pod of a group waits for the others, each of which has a node to go to by then, when the group does not say.
const defaultGroupTimeout = time.Minute

// byGroup is the index of the scheduler's pods by their group.
const byGroup = "ebbtide.dev/group"

// podGroups are the PodGroup objects of sigs.k8s.io/scheduler-plugins, and the state of each: its pods start together or not at all.
// It is safe for concurrent use.
type podGroups struct {
	label, scheduler string
	// pods are the scheduler's own, by group.
	pods cache.Indexer
	// activate brings pods that wait for others, or for room, back to the scheduler's queue.
	activate func(klog.Logger, map[string]*v1.Pod)

	mu     sync.Mutex
	groups map[string]*podGroup
	// client is there once the API server has PodGroups; unknown are groups that it did not have when it was asked last.
	client  dynamic.NamespaceableResourceInterface
	unknown *lru.Cache
	// ended are the pods of each group that have run, well or not, and are still there: the scheduler's informer does not know them.
	ended map[string]sets.Set[types.UID]
	// changes counts what may have made room since a group was refused.
	changes uint64
}

// podGroup is one that a PodGroup object describes.
type podGroup struct {
	// name is namespace/name.
	name    string
	least   int
	timeout time.Duration
	// incomplete: a pod was held back because others were missing.
	incomplete bool
	// planned are the nodes that pods are to go to, by UID, and reserved those that have one.
	planned, reserved map[types.UID]string
	// refused says why there was no room, as of so many changes; empty when there was.
	refused   string
	refusedAt uint64
	// failures of plans since one held.
	failures int
	// ended is how many of its pods have run.
	ended int
}

func newPodGroups(label, scheduler string, pods cache.SharedIndexInformer, activate func(klog.Logger, map[string]*v1.Pod)) (*podGroups, error) {
	if _, ok := pods.GetIndexer().GetIndexers()[byGroup+label]; !ok { // two profiles share one informer
		if err := pods.AddIndexers(cache.Indexers{byGroup + label: func(object any) ([]string, error) {
			pod, ok := object.(*v1.Pod)
			if !ok || pod.Labels[label] == "" {
				return nil, nil
			}
			return []string{pod.Namespace + "/" + pod.Labels[label]}, nil
		}}); err != nil {
			return nil, err
		}
	}
	return &podGroups{label: label, scheduler: scheduler, pods: pods.GetIndexer(), activate: activate, groups: map[string]*podGroup{}, unknown: lru.New(rememberedUnknown), ended: map[string]sets.Set[types.UID]{}}, nil
}

// of is the group of a pod; false when no PodGroup describes it.
func (g *podGroups) of(pod *v1.Pod) (podGroup, bool) {
	name := pod.Labels[g.label]
	if name == "" {
		return podGroup{}, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	found := g.groups[pod.Namespace+"/"+name]
	if found == nil {
		return podGroup{}, false
	}
	group := *found
	group.ended = g.ended[group.name].Len()
	group.planned, group.reserved = maps.Clone(group.planned), maps.Clone(group.reserved)
	return group, true
}

// A group that the API server does not have is asked after again after unknownFor; so many are remembered.
const (
	unknownFor        = 10 * time.Second
	rememberedUnknown = 1000
)

// lookUp asks the API server for the group of a pod that is not known: it may have been made a moment before the pod, and be on its way yet.
func (g *podGroups) lookUp(ctx context.Context, pod *v1.Pod, now time.Time) {
	name := pod.Labels[g.label]
	if name == "" {
		return
	}
	key := pod.Namespace + "/" + name
	g.mu.Lock()
	client, known := g.client, g.groups[key] != nil
	g.mu.Unlock()
	if asked, ok := g.unknown.Get(key); client == nil || known || ok && now.Sub(asked.(time.Time)) < unknownFor {
		return
	}
	g.unknown.Add(key, now)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if object, err := client.Namespace(pod.Namespace).Get(ctx, name, metav1.GetOptions{}); err == nil {
		g.setObject(object)
	}
}

// members are the pods of a group that this scheduler has placed or may place, by age.
func (g *podGroups) members(name string) (members []*v1.Pod) {
	objects, err := g.pods.ByIndex(byGroup+g.label, name)
	if err != nil {
		return nil
	}
	for _, object := range objects {
		pod := object.(*v1.Pod)
		if pod.Spec.SchedulerName == g.scheduler && pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 && !hasEnded(pod) {
			members = append(members, pod)
		}
	}
	slices.SortFunc(members, func(a, b *v1.Pod) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return members
}

// placed are the pods of a group that have a node, or are about to be bound to one.
func (g *podGroups) placed(group *podGroup) map[types.UID]string {
	placed := maps.Clone(group.reserved)
	for _, member := range g.members(group.name) {
		if member.Spec.NodeName != "" {
			placed[member.UID] = member.Spec.NodeName
		}
	}
	return placed
}

// complete says what is missing of a group whose pods are not all there; empty when they are.
func (g *podGroups) complete(pod *v1.Pod) (missing string) {
	group, ok := g.of(pod)
	if !ok {
		return ""
	}
	there := group.ended + len(g.members(group.name))
	if there >= group.least {
		return ""
	}
	g.change(group.name, func(group *podGroup) { group.incomplete = true })
	// The last one may have come meanwhile, and found nobody to wake.
	if there = group.ended + len(g.members(group.name)); there >= group.least {
		return ""
	}
	return fmt.Sprintf("pod group %s has %d of %d pods", group.name, there, group.least)
}

// change a group, if it is there still.
func (g *podGroups) change(name string, to func(*podGroup)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if group := g.groups[name]; group != nil {
		to(group)
	}
}

// came is called for every pod that has no node yet: it may be the last of its group.
func (g *podGroups) came(pod *v1.Pod) {
	group, ok := g.of(pod)
	if !ok || !group.incomplete {
		return
	}
	if members := g.members(group.name); group.ended+len(members) >= group.least {
		g.change(group.name, func(group *podGroup) { group.incomplete = false })
		g.wake(members)
	}
}

// wake those of pods that have no node.
func (g *podGroups) wake(pods []*v1.Pod) {
	waiting := map[string]*v1.Pod{}
	for _, pod := range pods {
		if pod.Spec.NodeName == "" {
			waiting[klog.KObj(pod).String()] = pod
		}
	}
	if len(waiting) > 0 {
		g.activate(klog.Background(), waiting)
	}
}

// end is for a pod that has run.
func (g *podGroups) end(pod *v1.Pod) {
	if pod.Labels[g.label] == "" || !hasEnded(pod) {
		return
	}
	name := pod.Namespace + "/" + pod.Labels[g.label]
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended[name] == nil {
		g.ended[name] = sets.New[types.UID]()
	}
	g.ended[name].Insert(pod.UID)
}

// forgetEnded is for a pod that had run, and does not exist any more.
func (g *podGroups) forgetEnded(pod *v1.Pod) {
	name := pod.Namespace + "/" + pod.Labels[g.label]
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended[name].Delete(pod.UID); g.ended[name].Len() == 0 {
		delete(g.ended, name)
	}
}

func hasEnded(pod *v1.Pod) bool {
	return pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
}

// reserve a node for a pod.
func (g *podGroups) reserve(pod *v1.Pod, node string) {
	g.change(pod.Namespace+"/"+pod.Labels[g.label], func(group *podGroup) {
		group.reserved[pod.UID] = node
		delete(group.planned, pod.UID)
	})
}

// settle is called for a pod that is bound, deleted or no longer reserved.
func (g *podGroups) settle(pod *v1.Pod) {
	if pod.Labels[g.label] != "" {
		g.change(pod.Namespace+"/"+pod.Labels[g.label], func(group *podGroup) { delete(group.reserved, pod.UID) })
	}
}

// changed is called when nodes or pods change, and may have made room.
func (g *podGroups) changed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changes++
}

func (g *podGroups) changesSoFar() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changes
}

// setObject is set for what the API server says.
func (g *podGroups) setObject(object any) {
	var group podgroupv1.PodGroup
	if content, ok := object.(*unstructured.Unstructured); ok && runtime.DefaultUnstructuredConverter.FromUnstructured(content.Object, &group) == nil {
		g.set(&group)
	}
}

// set a group as its object says, and let its pods try again.
func (g *podGroups) set(object *podgroupv1.PodGroup) {
	name := object.Namespace + "/" + object.Name
	least, timeout := max(1, int(object.Spec.MinMember)), defaultGroupTimeout
	if s := object.Spec.ScheduleTimeoutSeconds; s != nil && *s > 0 {
		timeout = time.Duration(*s) * time.Second
	}
	g.mu.Lock()
	group := g.groups[name]
	if group == nil {
		group = &podGroup{name: name, planned: map[types.UID]string{}, reserved: map[types.UID]string{}}
		g.groups[name] = group
	}
	same := group.least == least && group.timeout == timeout
	group.least, group.timeout, group.refused, group.incomplete = least, timeout, "", false
	g.mu.Unlock()
	if !same {
		g.wake(g.members(name))
	}
}

// remove a group: its pods are ordinary ones from now on.
func (g *podGroups) remove(name string) {
	g.mu.Lock()
	delete(g.groups, name)
	g.mu.Unlock()
	g.wake(g.members(name))
}

// podGroupRetry is how often the API server is asked whether it has PodGroups by now.
const podGroupRetry = 30 * time.Second

// watch follows PodGroups from the time at which the API server has them. Where it has them already, those that exist are known when watch returns.
func (g *podGroups) watch(ctx context.Context, apis discovery.DiscoveryInterface, client dynamic.Interface) {
	resource := podgroupv1.SchemeGroupVersion.WithResource("podgroups")
	served := func() bool {
		found, err := apis.ServerResourcesForGroupVersion(podgroupv1.SchemeGroupVersion.String())
		if err != nil {
			return false
		}
		for i := range found.APIResources {
			if found.APIResources[i].Name == resource.Resource {
				return true
			}
		}
		return false
	}
	follow := func() {
		factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
		registration, err := factory.ForResource(resource).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: g.setObject, UpdateFunc: func(_, object any) { g.setObject(object) },
			DeleteFunc: func(object any) {
				if group, ok := last(object).(*unstructured.Unstructured); ok {
					g.remove(group.GetNamespace() + "/" + group.GetName())
				}
			},
		})
		if err != nil {
			klog.FromContext(ctx).Error(err, "PodGroups are not followed")
			return
		}
		factory.Start(ctx.Done())
		soon, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		cache.WaitForCacheSync(soon.Done(), registration.HasSynced)
		g.mu.Lock()
		g.client = client.Resource(resource)
		g.mu.Unlock()
	}
	if served() {
		follow()
		return
	}
	go func() {
		tick := time.NewTicker(podGroupRetry)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if served() {
					follow()
					return
				}
			}
		}
	}()
}
