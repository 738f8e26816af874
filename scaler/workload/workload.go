// Package workload watches what runs for policies: the ScaledJobs whose triggers name them, the Jobs of those that have not ended, and what
// workers left in the termination messages of pods that have. It keeps of each object only what it uses, and imports nothing of the scaler.
//
// Which ScaledJob belongs to which policy is known to every replica of the scaler. Jobs and pods are watched by the leader alone.
package workload

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// scaledJobLabel is KEDA's, of the Jobs that it creates for a ScaledJob and of their pods.
const scaledJobLabel = "scaledjob.keda.sh/name"

var (
	scaledJobKind = schema.GroupVersionKind{Group: "keda.sh", Version: "v1alpha1", Kind: "ScaledJob"}
	scaledJobs    = schema.GroupVersionResource{Group: "keda.sh", Version: "v1alpha1", Resource: "scaledjobs"}
)

// Watch follows what runs for policies. Make one with New. It is safe for concurrent use, and a prometheus.Collector.
type Watch struct {
	now   func() time.Time
	log   *slog.Logger
	scans scans

	mu sync.RWMutex
	// policies that each ScaledJob's triggers name, and the ScaledJobs of each policy.
	policies   map[types.NamespacedName][]types.NamespacedName
	scaledJobs map[types.NamespacedName]map[types.NamespacedName]struct{}
	// unfinished Jobs of each ScaledJob, whether a policy names it or not yet. Nil: Jobs are not watched.
	unfinished map[types.NamespacedName]map[types.UID]struct{}
	synced     func() bool // whether all Jobs are known
}

// New returns a watch that has seen nothing.
func New(now func() time.Time, log *slog.Logger) *Watch {
	return &Watch{
		now: now, log: log, policies: map[types.NamespacedName][]types.NamespacedName{},
		scaledJobs: map[types.NamespacedName]map[types.NamespacedName]struct{}{},
	}
}

// Objects say, for the cache that is given to Lead, which objects are watched and what is kept of them.
func Objects() map[client.Object]cache.ByObject {
	ofScaledJobs, err := labels.NewRequirement(scaledJobLabel, selection.Exists, nil)
	if err != nil {
		panic(err) // the label is well formed
	}
	of := labels.NewSelector().Add(*ofScaledJobs)
	ended := fields.ParseSelectorOrDie("status.phase!=Pending,status.phase!=Running,status.phase!=Unknown")
	return map[client.Object]cache.ByObject{
		&batchv1.Job{}: {Label: of, Transform: trimJob},
		&corev1.Pod{}:  {Label: of, Field: ended, Transform: trimPod},
	}
}

func scaledJob() *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(scaledJobKind)
	return object
}

// Follow learns which ScaledJobs belong to policies until ctx ends. Where KEDA is not installed there are none, until it is.
func (w *Watch) Follow(ctx context.Context, api dynamic.Interface) error {
	informer := dynamicinformer.NewFilteredDynamicInformer(api, scaledJobs, metav1.NamespaceAll, 0, toolscache.Indexers{}, nil).Informer()
	if err := informer.SetTransform(trimScaledJob); err != nil {
		return err
	}
	var said atomic.Bool
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *toolscache.Reflector, err error) {
		if !said.Swap(true) {
			w.log.Warn("unfinished Jobs are not known until KEDA's ScaledJobs can be watched; this is tried again and again", "error", err)
		}
	}); err != nil {
		return err
	}
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { w.setScaledJob(object) },
		UpdateFunc: func(_, object any) { w.setScaledJob(object) },
		DeleteFunc: func(object any) { w.removeScaledJob(nameOf(object)) },
	}); err != nil {
		return err
	}
	informer.RunWithContext(ctx)
	return nil
}

// Lead watches Jobs and ended pods until ctx ends.
func (w *Watch) Lead(ctx context.Context, informers cache.Informers) error {
	w.scans.countFrom(w.now())
	jobs, err := informers.GetInformer(ctx, &batchv1.Job{}, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.unfinished = map[types.NamespacedName]map[types.UID]struct{}{}
	w.mu.Unlock()
	registration, err := jobs.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { w.setJob(object.(*batchv1.Job)) },
		UpdateFunc: func(_, object any) { w.setJob(object.(*batchv1.Job)) },
		DeleteFunc: func(object any) {
			if job, ok := last(object).(*batchv1.Job); ok {
				w.removeJob(job)
			}
		},
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.synced = registration.HasSynced
	w.mu.Unlock()
	pods, err := informers.GetInformer(ctx, &corev1.Pod{}, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	if _, err := pods.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { w.ended(object.(*corev1.Pod)) },
	}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// OfJobs reports whether a ScaledJob's trigger names a policy.
func (w *Watch) OfJobs(policy types.NamespacedName) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return len(w.scaledJobs[policy]) > 0
}

// Unfinished returns how many Jobs of a policy's ScaledJobs have not ended. Known is false for a policy that no ScaledJob names, and while not
// all Jobs are known.
func (w *Watch) Unfinished(policy types.NamespacedName) (unfinished int64, known bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.synced == nil || !w.synced() || len(w.scaledJobs[policy]) == 0 {
		return 0, false
	}
	for job := range w.scaledJobs[policy] {
		unfinished += int64(len(w.unfinished[job]))
	}
	return unfinished, true
}

func (w *Watch) setScaledJob(object any) {
	scaled, ok := object.(*unstructured.Unstructured)
	if !ok {
		return
	}
	name := types.NamespacedName{Namespace: scaled.GetNamespace(), Name: scaled.GetName()}
	var policies []types.NamespacedName
	for _, policy := range policiesOf(scaled) {
		policies = append(policies, types.NamespacedName{Namespace: name.Namespace, Name: policy})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget(name)
	if len(policies) == 0 {
		return
	}
	w.policies[name] = policies
	for _, policy := range policies {
		if w.scaledJobs[policy] == nil {
			w.scaledJobs[policy] = map[types.NamespacedName]struct{}{}
		}
		w.scaledJobs[policy][name] = struct{}{}
	}
}

func (w *Watch) removeScaledJob(name types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget(name)
}

// forget drops what a ScaledJob names. The watch is locked.
func (w *Watch) forget(name types.NamespacedName) {
	for _, policy := range w.policies[name] {
		if delete(w.scaledJobs[policy], name); len(w.scaledJobs[policy]) == 0 {
			delete(w.scaledJobs, policy)
		}
	}
	delete(w.policies, name)
}

func (w *Watch) setJob(job *batchv1.Job) {
	if finished(job) {
		w.removeJob(job)
		return
	}
	of := types.NamespacedName{Namespace: job.Namespace, Name: job.Labels[scaledJobLabel]}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unfinished[of] == nil {
		w.unfinished[of] = map[types.UID]struct{}{}
	}
	w.unfinished[of][job.UID] = struct{}{}
}

func (w *Watch) removeJob(job *batchv1.Job) {
	of := types.NamespacedName{Namespace: job.Namespace, Name: job.Labels[scaledJobLabel]}
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.unfinished[of], job.UID); len(w.unfinished[of]) == 0 {
		delete(w.unfinished, of)
	}
}

func (w *Watch) ended(pod *corev1.Pod) {
	of := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Labels[scaledJobLabel]}
	w.mu.RLock()
	named := len(w.policies[of]) > 0
	w.mu.RUnlock()
	if named {
		w.scans.ended(of, pod)
	}
}

const (
	// maxPolicies of a ScaledJob are looked at; each is a series, whether or not there is such a policy.
	maxPolicies = 32
	// maxPolicyName is the longest name that an object can have.
	maxPolicyName = 253
)

// policiesOf are the names of policies in the triggers of a ScaledJob.
func policiesOf(scaled *unstructured.Unstructured) []string {
	triggers, _, _ := unstructured.NestedSlice(scaled.Object, "spec", "triggers")
	var names []string
	for _, trigger := range triggers {
		fields, ok := trigger.(map[string]any)
		if !ok {
			continue
		}
		kind, _, _ := unstructured.NestedString(fields, "type")
		name, _, _ := unstructured.NestedString(fields, "metadata", "policy")
		if (kind == "external" || kind == "external-push") && name != "" && len(name) <= maxPolicyName && !slices.Contains(names, name) {
			names = append(names, name)
		}
		if len(names) == maxPolicies {
			break
		}
	}
	return names
}

// trimScaledJob leaves of a ScaledJob which policies its triggers name.
func trimScaledJob(object any) (any, error) {
	scaled, ok := object.(*unstructured.Unstructured)
	if !ok {
		return object, nil
	}
	slim := scaledJob()
	slim.SetNamespace(scaled.GetNamespace())
	slim.SetName(scaled.GetName())
	slim.SetUID(scaled.GetUID())
	slim.SetResourceVersion(scaled.GetResourceVersion())
	var triggers []any
	for _, name := range policiesOf(scaled) {
		triggers = append(triggers, map[string]any{"type": "external", "metadata": map[string]any{"policy": name}})
	}
	if len(triggers) > 0 {
		slim.Object["spec"] = map[string]any{"triggers": triggers}
	}
	return slim, nil
}

// trimJob leaves of a Job whose it is and whether it has ended.
func trimJob(object any) (any, error) {
	job, ok := object.(*batchv1.Job)
	if !ok {
		return object, nil
	}
	slim := &batchv1.Job{ObjectMeta: trimMeta(&job.ObjectMeta)}
	if finished(job) {
		slim.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	}
	return slim, nil
}

// trimPod leaves of an ended pod what scans need: there may be very many.
func trimPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	slim := &corev1.Pod{ObjectMeta: trimMeta(&pod.ObjectMeta), Status: corev1.PodStatus{Phase: pod.Status.Phase, StartTime: pod.Status.StartTime}}
	for i := range pod.Status.ContainerStatuses {
		if ended := pod.Status.ContainerStatuses[i].State.Terminated; ended != nil {
			kept := &corev1.ContainerStateTerminated{FinishedAt: ended.FinishedAt}
			if len(ended.Message) <= maxSummary {
				kept.Message = ended.Message
			}
			slim.Status.ContainerStatuses = append(slim.Status.ContainerStatuses, corev1.ContainerStatus{State: corev1.ContainerState{Terminated: kept}})
		}
	}
	return slim, nil
}

func trimMeta(meta *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
		Labels: map[string]string{scaledJobLabel: meta.Labels[scaledJobLabel]},
	}
}

// finished reports whether a Job has ended, as KEDA does.
func finished(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue
	})
}

// last is the object of a delete event, which may have been missed.
func last(object any) any {
	if missed, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		return missed.Obj
	}
	return object
}

func nameOf(object any) types.NamespacedName {
	if named, ok := last(object).(metav1.Object); ok {
		return types.NamespacedName{Namespace: named.GetNamespace(), Name: named.GetName()}
	}
	return types.NamespacedName{}
}

var unfinishedDesc = prometheus.NewDesc("ebbtide_workload_unfinished_jobs",
	"Jobs of the policy's ScaledJobs that have not ended, those that boot included; of the leader only.", []string{"namespace", "policy"}, nil)

// Describe implements prometheus.Collector.
func (w *Watch) Describe(descs chan<- *prometheus.Desc) {
	descs <- unfinishedDesc
	w.scans.Describe(descs)
}

// Collect implements prometheus.Collector.
func (w *Watch) Collect(out chan<- prometheus.Metric) {
	w.mu.RLock()
	policies := slices.Collect(maps.Keys(w.scaledJobs))
	w.mu.RUnlock()
	for _, policy := range policies {
		if n, known := w.Unfinished(policy); known {
			out <- prometheus.MustNewConstMetric(unfinishedDesc, prometheus.GaugeValue, float64(n), policy.Namespace, policy.Name)
		}
	}
	w.scans.Collect(out)
}
