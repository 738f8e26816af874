package scans

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lowerbound"
)

// Observer records what happens to jobs, pods and nodes, at the time when it is seen.
type Observer struct {
	namespace, nodeLabel, nodeValue string

	mu    sync.Mutex
	jobs  map[types.UID]*jobRecord
	pods  map[types.UID]*PodRecord
	nodes map[types.UID]*nodeRecord
}

type jobRecord struct {
	name             string
	created          time.Time
	finished, failed bool
	finishedAt       time.Time
}

// PodRecord is a pod as it was observed; times are zero for what was not seen yet.
type PodRecord struct {
	Name, Node     string
	job            types.UID
	created        time.Time
	Bound, Running time.Time
	Ended          time.Time
	CutShort       bool  // it ended without success
	cpu, memory    int64 // millicores, bytes
	ExitCode       int32
	summary        *workerSummary
	terminationLog string
}

type nodeRecord struct {
	name, pool, instanceType string
	added, removed           time.Time
	cpu, memory              int64
}

// workerSummary is what a worker leaves in its termination message.
type workerSummary struct {
	Messages int    `json:"messages"`
	Ended    string `json:"ended"`
}

// Left is why the pod's worker left and how many messages it began, as it says itself; "" when it did not say.
func (p *PodRecord) Left() (why string, messages int) {
	if p.summary == nil {
		return "", 0
	}
	return p.summary.Ended, p.summary.Messages
}

// NewObserver watches the jobs and pods of a namespace, and the nodes with a label; an empty value stands for any.
func NewObserver(namespace, nodeLabel, nodeValue string) *Observer {
	return &Observer{
		namespace: namespace, nodeLabel: nodeLabel, nodeValue: nodeValue,
		jobs: map[types.UID]*jobRecord{}, pods: map[types.UID]*PodRecord{}, nodes: map[types.UID]*nodeRecord{},
	}
}

// Watch records until ctx ends; it returns when what exists already is recorded.
func (o *Observer) Watch(ctx context.Context, client kubernetes.Interface) error {
	scans := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(o.namespace))
	nodes := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(
		func(options *metav1.ListOptions) {
			if options.LabelSelector = o.nodeLabel; o.nodeValue != "" {
				options.LabelSelector += "=" + o.nodeValue
			}
		}))
	var synced []cache.InformerSynced
	for _, watched := range []struct {
		informer cache.SharedIndexInformer
		record   func(object any, gone bool)
	}{
		{scans.Batch().V1().Jobs().Informer(), o.recordJob},
		{scans.Core().V1().Pods().Informer(), o.recordPod},
		{nodes.Core().V1().Nodes().Informer(), o.recordNode},
	} {
		registration, err := watched.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { watched.record(object, false) },
			UpdateFunc: func(_, object any) { watched.record(object, false) },
			DeleteFunc: func(object any) {
				if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
					object = unknown.Obj
				}
				watched.record(object, true)
			},
		})
		if err != nil {
			return err
		}
		synced = append(synced, registration.HasSynced)
	}
	scans.Start(ctx.Done())
	nodes.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return context.Cause(ctx)
	}
	return nil
}

func (o *Observer) recordJob(object any, gone bool) {
	job := object.(*batchv1.Job)
	o.mu.Lock()
	defer o.mu.Unlock()
	record := o.jobs[job.UID]
	if record == nil {
		record = &jobRecord{name: job.Name, created: time.Now()}
		o.jobs[job.UID] = record
	}
	for _, condition := range job.Status.Conditions {
		if condition.Status == corev1.ConditionTrue {
			record.finished = record.finished || condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed
			record.failed = record.failed || condition.Type == batchv1.JobFailed
		}
	}
	record.finished = record.finished || gone
	if record.finished && record.finishedAt.IsZero() {
		record.finishedAt = time.Now()
	}
}

func (o *Observer) recordPod(object any, gone bool) {
	pod, now := object.(*corev1.Pod), time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	record := o.pods[pod.UID]
	if record == nil {
		record = &PodRecord{Name: pod.Name, created: now}
		if owner := metav1.GetControllerOf(pod); owner != nil {
			record.job = owner.UID
		}
		for _, container := range pod.Spec.Containers {
			record.cpu += container.Resources.Requests.Cpu().MilliValue()
			record.memory += container.Resources.Requests.Memory().Value()
		}
		o.pods[pod.UID] = record
	}
	if pod.Spec.NodeName != "" && record.Bound.IsZero() {
		record.Node, record.Bound = pod.Spec.NodeName, now
	}
	if record.Running.IsZero() && pod.Status.Phase == corev1.PodRunning {
		record.Running = now
	}
	if record.Ended.IsZero() && (gone || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed) {
		record.Ended, record.CutShort = now, pod.Status.Phase != corev1.PodSucceeded
	}
	for _, status := range pod.Status.ContainerStatuses {
		if terminated := status.State.Terminated; terminated != nil && record.summary == nil {
			record.ExitCode, record.terminationLog = terminated.ExitCode, terminated.Message
			var summary workerSummary
			if json.Unmarshal([]byte(terminated.Message), &summary) == nil {
				record.summary = &summary
			}
		}
	}
}

func (o *Observer) recordNode(object any, gone bool) {
	node, now := object.(*corev1.Node), time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	record := o.nodes[node.UID]
	if record == nil {
		record = &nodeRecord{name: node.Name, pool: node.Labels[NodePoolLabel], instanceType: node.Labels[corev1.LabelInstanceTypeStable], added: now}
		o.nodes[node.UID] = record
	}
	record.cpu, record.memory = node.Status.Allocatable.Cpu().MilliValue(), node.Status.Allocatable.Memory().Value()
	if gone && record.removed.IsZero() {
		record.removed = now
	}
}

// Snapshot is what exists at a moment.
type Snapshot struct {
	Jobs, UnfinishedJobs, failedJobs int
	// podsOnNode counts the pods that run on each node; a node without pods counts zero.
	PodsOnNode map[string]int
	// Pods that wait for a node, that ended, and that ended without success.
	Pending, Ended, CutShort int
}

// Snapshot returns what exists now.
func (o *Observer) Snapshot() Snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := Snapshot{Jobs: len(o.jobs), PodsOnNode: map[string]int{}}
	for _, job := range o.jobs {
		if !job.finished {
			s.UnfinishedJobs++
		}
		if job.failed {
			s.failedJobs++
		}
	}
	for _, node := range o.nodes {
		if node.removed.IsZero() {
			s.PodsOnNode[node.name] = 0
		}
	}
	for _, pod := range o.pods {
		switch {
		case !pod.Ended.IsZero():
			s.Ended++
			if pod.CutShort {
				s.CutShort++
			}
		case pod.Node == "":
			s.Pending++
		default:
			s.PodsOnNode[pod.Node]++
		}
	}
	return s
}

// Running are the pods that run now.
func (o *Observer) Running() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, pod := range o.pods {
		if !pod.Running.IsZero() && pod.Ended.IsZero() {
			n++
		}
	}
	return n
}

// IdlePods are pods whose worker ended well without a message.
func (o *Observer) IdlePods() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, pod := range o.pods {
		if pod.summary != nil && pod.summary.Messages == 0 && pod.ExitCode == 0 {
			n++
		}
	}
	return n
}

// BindingWaits are the times from pods' creation to their nodes.
func (o *Observer) BindingWaits() []time.Duration {
	return o.Between(func(p *PodRecord) (time.Time, time.Time) { return p.created, p.Bound })
}

// Between are the times from one moment of a pod to another, of pods that had both.
func (o *Observer) Between(moments func(*PodRecord) (from, to time.Time)) []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	var times []time.Duration
	for _, pod := range o.pods {
		if from, to := moments(pod); !from.IsZero() && !to.IsZero() {
			times = append(times, to.Sub(from))
		}
	}
	return times
}

// PodCreations are the times from jobs' creation to their pods'.
func (o *Observer) PodCreations() []time.Duration {
	return o.Between(func(p *PodRecord) (time.Time, time.Time) {
		if job := o.jobs[p.job]; job != nil {
			return job.created, p.created
		}
		return time.Time{}, p.created
	})
}

// NodesOver are the nodes that there were, in the mean of steps of time.
func (o *Observer) NodesOver(from time.Time, step time.Duration, steps int) []float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	means := make([]float64, steps)
	for i := range means {
		begin, end := from.Add(time.Duration(i)*step), from.Add(time.Duration(i+1)*step)
		for _, node := range o.nodes {
			added, removed := node.added, node.removed
			if added.Before(begin) {
				added = begin
			}
			if removed.IsZero() || removed.After(end) {
				removed = end
			}
			means[i] += max(0, removed.Sub(added).Seconds()) / step.Seconds()
		}
	}
	return means
}

// NodeLife is how long a node was there.
type NodeLife struct {
	Pool, InstanceType string
	Added, Removed     time.Time
}

// NodeLives are those of the nodes that were seen; Removed is zero for one that is still there.
func (o *Observer) NodeLives() []NodeLife {
	o.mu.Lock()
	defer o.mu.Unlock()
	lives := make([]NodeLife, 0, len(o.nodes))
	for _, node := range o.nodes {
		lives = append(lives, NodeLife{node.pool, node.instanceType, node.added, node.removed})
	}
	return lives
}

// JobEnds are the times from pods' ends until their jobs are seen as finished.
func (o *Observer) JobEnds() []time.Duration {
	return o.Between(func(p *PodRecord) (time.Time, time.Time) {
		if job := o.jobs[p.job]; job != nil {
			return p.Ended, job.finishedAt
		}
		return p.Ended, time.Time{}
	})
}

// NodeStarts are the times from nodes' creation to their first pods, where that pod was waiting when the node was created. A pod that came later says
// nothing of the node's start: the node may have been empty for a while.
func (o *Observer) NodeStarts() []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := map[string]*PodRecord{}
	for _, pod := range o.pods {
		if at, ok := first[pod.Node]; !pod.Bound.IsZero() && (!ok || pod.Bound.Before(at.Bound)) {
			first[pod.Node] = pod
		}
	}
	var times []time.Duration
	for _, node := range o.nodes {
		if pod := first[node.name]; pod != nil && pod.created.Before(node.added) {
			times = append(times, pod.Bound.Sub(node.added))
		}
	}
	return times
}

// NodeRequests are the times from when the first pod waited for a node until that node was created.
func (o *Observer) NodeRequests() []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	waiting := map[string]time.Time{}
	for _, pod := range o.pods {
		node := o.nodeNamed(pod.Node)
		if node == nil || !pod.created.Before(node.added) {
			continue
		}
		if since, ok := waiting[pod.Node]; !ok || pod.created.Before(since) {
			waiting[pod.Node] = pod.created
		}
	}
	var times []time.Duration
	for name, since := range waiting {
		times = append(times, o.nodeNamed(name).added.Sub(since))
	}
	return times
}

// nodeNamed is the node with a name; nil if there is none. The lock must be held.
func (o *Observer) nodeNamed(name string) *nodeRecord {
	for _, node := range o.nodes {
		if node.name == name {
			return node
		}
	}
	return nil
}

// Lingering are the times from the last pods' ends to their nodes' removal.
func (o *Observer) Lingering() []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	last := map[string]time.Time{}
	for _, pod := range o.pods {
		if pod.Ended.After(last[pod.Node]) {
			last[pod.Node] = pod.Ended
		}
	}
	var times []time.Duration
	for _, node := range o.nodes {
		if at, ok := last[node.name]; ok && !node.removed.IsZero() {
			times = append(times, node.removed.Sub(at))
		}
	}
	return times
}

// NodeFigures are the node part of a summary.
type NodeFigures struct {
	Peak                 int
	Seconds, LowerBound  float64
	Drain                time.Duration
	Remaining, withNodes int
}

// linger is how long a node lives at least after its last pod: Karpenter's consolidateAfter and its 15 s of validation.
const linger = 20 * time.Second

// NodeFigures works out the node part of a summary.
func (o *Observer) NodeFigures() NodeFigures {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := NodeFigures{withNodes: len(o.nodes)}
	var capacity []int64
	var lastRemoved time.Time
	now := time.Now()
	for _, node := range o.nodes {
		end := node.removed
		if end.After(lastRemoved) {
			lastRemoved = end
		}
		if end.IsZero() {
			end = now
			f.Remaining++
		}
		f.Seconds += end.Sub(node.added).Seconds()
		// The largest node bounds the number of nodes from below.
		if capacity == nil || node.cpu > capacity[0] {
			capacity = []int64{node.cpu, node.memory}
		}
		together := 0
		for _, other := range o.nodes {
			if !other.added.After(node.added) && (other.removed.IsZero() || other.removed.After(node.added)) {
				together++
			}
		}
		f.Peak = max(f.Peak, together)
	}
	var intervals []lowerbound.Interval
	var lastEnded time.Time
	for _, pod := range o.pods {
		if pod.Bound.IsZero() {
			continue
		}
		end := pod.Ended
		if end.After(lastEnded) {
			lastEnded = end
		}
		if end.IsZero() {
			end = now
		}
		intervals = append(intervals, lowerbound.Interval{Start: pod.Bound, End: end, Requests: []int64{pod.cpu, pod.memory}})
	}
	if capacity != nil {
		f.LowerBound = lowerbound.NodeSeconds(intervals, capacity, linger)
		f.Drain = lastRemoved.Sub(lastEnded)
	}
	return f
}

// PodSeconds add up what pods ran, from binding to end.
func (o *Observer) PodSeconds() float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	total := 0.0
	for _, pod := range o.pods {
		if !pod.Bound.IsZero() && !pod.Ended.IsZero() {
			total += pod.Ended.Sub(pod.Bound).Seconds()
		}
	}
	return total
}

// PodStart are the moments at which a pod's start was seen at the API server.
type PodStart struct{ Job, Pod, Bound time.Time }

// StartOf returns the moments of a pod's start.
func (o *Observer) StartOf(pod corev1.Pod) PodStart {
	o.mu.Lock()
	defer o.mu.Unlock()
	record := o.pods[pod.UID]
	if record == nil {
		return PodStart{}
	}
	start := PodStart{Pod: record.created, Bound: record.Bound}
	if job := o.jobs[record.job]; job != nil {
		start.Job = job.created
	}
	return start
}

// Pods are all pods that were seen, as they are known now.
func (o *Observer) Pods() []PodRecord {
	o.mu.Lock()
	defer o.mu.Unlock()
	pods := make([]PodRecord, 0, len(o.pods))
	for _, pod := range o.pods {
		pods = append(pods, *pod)
	}
	return pods
}
