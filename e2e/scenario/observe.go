package scenario

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

// observer records what happens to jobs, pods and nodes, by the clock of the moment it is seen.
type observer struct {
	namespace, nodeLabel, nodeValue string

	mu    sync.Mutex
	jobs  map[types.UID]*jobRecord
	pods  map[types.UID]*podRecord
	nodes map[types.UID]*nodeRecord
}

type jobRecord struct {
	name             string
	created          time.Time
	finished, failed bool
	finishedAt       time.Time
}

type podRecord struct {
	name, node     string
	job            types.UID
	created        time.Time
	bound, running time.Time
	ended          time.Time
	cutShort       bool  // it ended without success
	cpu, memory    int64 // millicores, bytes
	exitCode       int32
	summary        *workerSummary
	terminationLog string
}

type nodeRecord struct {
	name           string
	added, removed time.Time
	cpu, memory    int64
}

// workerSummary is what a worker leaves in its termination message.
type workerSummary struct {
	Messages int `json:"messages"`
}

// newObserver watches the jobs and pods of a namespace, and the nodes with a label.
func newObserver(namespace, nodeLabel, nodeValue string) *observer {
	return &observer{
		namespace: namespace, nodeLabel: nodeLabel, nodeValue: nodeValue,
		jobs: map[types.UID]*jobRecord{}, pods: map[types.UID]*podRecord{}, nodes: map[types.UID]*nodeRecord{},
	}
}

// watch records until ctx ends; it returns when what exists already is recorded.
func (o *observer) watch(ctx context.Context, client kubernetes.Interface) error {
	scans := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(o.namespace))
	nodes := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(
		func(options *metav1.ListOptions) { options.LabelSelector = o.nodeLabel + "=" + o.nodeValue }))
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

func (o *observer) recordJob(object any, gone bool) {
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

func (o *observer) recordPod(object any, gone bool) {
	pod, now := object.(*corev1.Pod), time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	record := o.pods[pod.UID]
	if record == nil {
		record = &podRecord{name: pod.Name, created: now}
		if owner := metav1.GetControllerOf(pod); owner != nil {
			record.job = owner.UID
		}
		for _, container := range pod.Spec.Containers {
			record.cpu += container.Resources.Requests.Cpu().MilliValue()
			record.memory += container.Resources.Requests.Memory().Value()
		}
		o.pods[pod.UID] = record
	}
	if pod.Spec.NodeName != "" && record.bound.IsZero() {
		record.node, record.bound = pod.Spec.NodeName, now
	}
	if record.running.IsZero() && pod.Status.Phase == corev1.PodRunning {
		record.running = now
	}
	if record.ended.IsZero() && (gone || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed) {
		record.ended, record.cutShort = now, pod.Status.Phase != corev1.PodSucceeded
	}
	for _, status := range pod.Status.ContainerStatuses {
		if terminated := status.State.Terminated; terminated != nil && record.summary == nil {
			record.exitCode, record.terminationLog = terminated.ExitCode, terminated.Message
			var summary workerSummary
			if json.Unmarshal([]byte(terminated.Message), &summary) == nil {
				record.summary = &summary
			}
		}
	}
}

func (o *observer) recordNode(object any, gone bool) {
	node, now := object.(*corev1.Node), time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	record := o.nodes[node.UID]
	if record == nil {
		record = &nodeRecord{name: node.Name, added: now}
		o.nodes[node.UID] = record
	}
	record.cpu, record.memory = node.Status.Allocatable.Cpu().MilliValue(), node.Status.Allocatable.Memory().Value()
	if gone && record.removed.IsZero() {
		record.removed = now
	}
}

// snapshot is what exists at a moment.
type snapshot struct {
	jobs, unfinishedJobs, failedJobs int
	// podsOnNode counts the pods that run on each node; a node without pods counts zero.
	podsOnNode map[string]int
	// Pods that wait for a node, that ended, and that ended without success.
	pending, ended, cutShort int
}

func (o *observer) snapshot() snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := snapshot{jobs: len(o.jobs), podsOnNode: map[string]int{}}
	for _, job := range o.jobs {
		if !job.finished {
			s.unfinishedJobs++
		}
		if job.failed {
			s.failedJobs++
		}
	}
	for _, node := range o.nodes {
		if node.removed.IsZero() {
			s.podsOnNode[node.name] = 0
		}
	}
	for _, pod := range o.pods {
		switch {
		case !pod.ended.IsZero():
			s.ended++
			if pod.cutShort {
				s.cutShort++
			}
		case pod.node == "":
			s.pending++
		default:
			s.podsOnNode[pod.node]++
		}
	}
	return s
}

// running are the pods that run now.
func (o *observer) running() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, pod := range o.pods {
		if !pod.running.IsZero() && pod.ended.IsZero() {
			n++
		}
	}
	return n
}

// idlePods are pods whose worker ended well without a message.
func (o *observer) idlePods() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, pod := range o.pods {
		if pod.summary != nil && pod.summary.Messages == 0 && pod.exitCode == 0 {
			n++
		}
	}
	return n
}

// bindingWaits are the times from pods' creation to their nodes.
func (o *observer) bindingWaits() []time.Duration {
	return o.between(func(p *podRecord) (time.Time, time.Time) { return p.created, p.bound })
}

// between are the times from one moment of a pod to another, of pods that had both.
func (o *observer) between(moments func(*podRecord) (from, to time.Time)) []time.Duration {
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

// nodesOver are the nodes that there were, in the mean of steps of time.
func (o *observer) nodesOver(from time.Time, step time.Duration, steps int) []float64 {
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

// jobEnds are the times from pods' ends until their jobs are seen as finished.
func (o *observer) jobEnds() []time.Duration {
	return o.between(func(p *podRecord) (time.Time, time.Time) {
		if job := o.jobs[p.job]; job != nil {
			return p.ended, job.finishedAt
		}
		return p.ended, time.Time{}
	})
}

// firstBindings are the times from nodes' creation to their first pods.
func (o *observer) firstBindings() []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := map[string]time.Time{}
	for _, pod := range o.pods {
		if at, ok := first[pod.node]; !pod.bound.IsZero() && (!ok || pod.bound.Before(at)) {
			first[pod.node] = pod.bound
		}
	}
	var times []time.Duration
	for _, node := range o.nodes {
		if at, ok := first[node.name]; ok {
			times = append(times, at.Sub(node.added))
		}
	}
	return times
}

// lingering are the times from the last pods' ends to their nodes' removal.
func (o *observer) lingering() []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	last := map[string]time.Time{}
	for _, pod := range o.pods {
		if pod.ended.After(last[pod.node]) {
			last[pod.node] = pod.ended
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

// nodeFigures are the node part of a summary.
type nodeFigures struct {
	peak                 int
	seconds, lowerBound  float64
	drain                time.Duration
	remaining, withNodes int
}

// linger is how long a node lives at least after its last pod: Karpenter's consolidateAfter and its 15 s of validation.
const linger = 20 * time.Second

func (o *observer) nodeFigures() nodeFigures {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := nodeFigures{withNodes: len(o.nodes)}
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
			f.remaining++
		}
		f.seconds += end.Sub(node.added).Seconds()
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
		f.peak = max(f.peak, together)
	}
	var intervals []lowerbound.Interval
	var lastEnded time.Time
	for _, pod := range o.pods {
		if pod.bound.IsZero() {
			continue
		}
		end := pod.ended
		if end.After(lastEnded) {
			lastEnded = end
		}
		if end.IsZero() {
			end = now
		}
		intervals = append(intervals, lowerbound.Interval{Start: pod.bound, End: end, Requests: []int64{pod.cpu, pod.memory}})
	}
	if capacity != nil {
		f.lowerBound = lowerbound.NodeSeconds(intervals, capacity, linger)
		f.drain = lastRemoved.Sub(lastEnded)
	}
	return f
}
