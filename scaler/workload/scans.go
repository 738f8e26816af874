package workload

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/worker/summary"
)

const (
	// maxScanJobs bounds the ScaledJobs that are shown, to some 50 series each; past it, that of which no pod has ended for longest
	// is forgotten.
	maxScanJobs = 200
	// maxSummary is the longest termination message, in bytes, that is looked at.
	maxSummary = 1024
)

// scans adds up what workers left in their termination messages when their pods ended, by ScaledJob. It is safe for concurrent use.
type scans struct {
	mu sync.Mutex
	// since when ended pods count: those before have been counted by a process before this one. Zero: none do.
	since time.Time
	jobs  map[types.NamespacedName]*scanned
}

// scanned is what was scanned for a ScaledJob.
type scanned struct {
	lastSeen                         time.Time
	succeeded, retried, deadLettered uint64
	wait, scan                       timeHistogram
	// Pods by how they ended, and the seconds that they ran.
	pods       [podResults]uint64
	podSeconds [podResults]float64
}

// timeHistogram is summary.Histogram over many pods.
type timeHistogram struct {
	sum    float64
	counts [len(summary.Bounds) + 1]uint64
}

func (d *timeHistogram) add(h *summary.Histogram) {
	d.sum += h.Sum
	for i, count := range h.Counts {
		d.counts[i] += uint64(count)
	}
}

type podResult int

const (
	podWorked podResult = iota // it had messages
	podIdle                    // it ended well and had none
	podSilent                  // it ended well and says nothing
	podFailed
	podResults = iota
)

var podResultNames = [podResults]string{"worked", "idle", "silent", "failed"}

// countFrom begins to count the pods that end from an instant on.
func (s *scans) countFrom(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.jobs = since, map[types.NamespacedName]*scanned{}
}

// ended takes in a pod of a ScaledJob that has ended.
func (s *scans) ended(job types.NamespacedName, pod *corev1.Pod) {
	at := finishedAt(pod)
	if at.IsZero() || pod.Status.StartTime == nil {
		return
	}
	ran := at.Sub(pod.Status.StartTime.Time)
	said, result := summaryOf(pod), podSilent
	switch {
	case pod.Status.Phase == corev1.PodFailed:
		result = podFailed
	case said != nil && said.Messages > 0:
		result = podWorked
	case said != nil:
		result = podIdle
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() || at.Before(s.since) {
		return
	}
	j := s.jobs[job]
	if j == nil {
		s.makeRoom()
		j = &scanned{}
		s.jobs[job] = j
	}
	if at.After(j.lastSeen) {
		j.lastSeen = at
	}
	j.pods[result]++
	j.podSeconds[result] += max(0, ran.Seconds())
	if said != nil {
		j.succeeded += uint64(max(0, said.Succeeded))
		j.retried += uint64(max(0, said.Retried))
		j.deadLettered += uint64(max(0, said.DeadLettered))
		j.wait.add(&said.WaitSeconds)
		j.scan.add(&said.ScanSeconds)
	}
}

// finishedAt is when the last container of a pod ended; zero when it is not known.
func finishedAt(pod *corev1.Pod) (last time.Time) {
	for i := range pod.Status.ContainerStatuses {
		if ended := pod.Status.ContainerStatuses[i].State.Terminated; ended != nil && ended.FinishedAt.After(last) {
			last = ended.FinishedAt.Time
		}
	}
	return last
}

// makeRoom forgets the ScaledJob of which no pod has ended for longest when there are as many as may be.
func (s *scans) makeRoom() {
	if len(s.jobs) < maxScanJobs {
		return
	}
	delete(s.jobs, slices.MinFunc(slices.Collect(maps.Keys(s.jobs)), func(a, b types.NamespacedName) int {
		return s.jobs[a].lastSeen.Compare(s.jobs[b].lastSeen)
	}))
}

// summaryOf is what a pod's worker left; nil when it left nothing that can be read.
func summaryOf(pod *corev1.Pod) *summary.Summary {
	for i := range pod.Status.ContainerStatuses {
		ended := pod.Status.ContainerStatuses[i].State.Terminated
		if ended == nil || len(ended.Message) > maxSummary {
			continue
		}
		var said summary.Summary
		if json.Unmarshal([]byte(ended.Message), &said) == nil && said.Ended != "" {
			return &said
		}
	}
	return nil
}

func scansDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ebbtide_scans_"+name, help, append([]string{"namespace", "scaledjob"}, labels...), nil)
}

var (
	waitDesc = scansDesc("wait_seconds", "How long messages waited from their timestamp to their first delivery, of workers that left.")
	runDesc  = scansDesc("run_seconds", "How long commands ran on a message, of workers that left.")
	messages = scansDesc("messages_total", "Messages of workers that exited, by outcome: succeeded, retried, "+
		"dead-lettered.", "outcome")
	podsDesc = scansDesc("pods_total", "Pods that ended: they had messages (worked), had none (idle), ended well without a summary "+
		"(silent), or failed.", "result")
	podSeconds = scansDesc("pod_seconds_total", "Seconds that pods ran which ended.", "result")
)

// Describe implements prometheus.Collector.
func (s *scans) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{waitDesc, runDesc, messages, podsDesc, podSeconds} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (s *scans) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for job, j := range s.jobs {
		counter := func(desc *prometheus.Desc, value float64, label string) {
			out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, job.Namespace, job.Name, label)
		}
		for outcome, n := range map[string]uint64{"succeeded": j.succeeded, "retried": j.retried, "dead-lettered": j.deadLettered} {
			counter(messages, float64(n), outcome)
		}
		for result, name := range podResultNames {
			counter(podsDesc, float64(j.pods[result]), name)
			counter(podSeconds, j.podSeconds[result], name)
		}
		for desc, d := range map[*prometheus.Desc]*timeHistogram{waitDesc: &j.wait, runDesc: &j.scan} {
			upTo, total := make(map[float64]uint64, len(summary.Bounds)), uint64(0)
			for i, count := range d.counts {
				total += count
				if i < len(summary.Bounds) {
					upTo[summary.Bounds[i]] = total
				}
			}
			out <- prometheus.MustNewConstHistogram(desc, total, d.sum, upTo, job.Namespace, job.Name)
		}
	}
}
