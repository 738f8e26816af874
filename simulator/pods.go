package simulator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// podMetrics are the queries by which FromPods asks for what kube-state-metrics and cAdvisor recorded of pods; %s is a selector of labels.
var podMetrics = []struct {
	query string
	set   func(*podRecord, float64)
}{
	{`max by (pod, namespace) (kube_pod_created{%s})`, func(p *podRecord, v float64) { p.created = v }},
	{`max by (pod, namespace) (kube_pod_start_time{%s})`, func(p *podRecord, v float64) { p.started = v }},
	{`max by (pod, namespace) (kube_pod_container_state_started{%s})`, func(p *podRecord, v float64) { p.started = v }},
	{`max by (pod, namespace) (kube_pod_completion_time{%s})`, func(p *podRecord, v float64) { p.completed = v }},
	{`sum by (pod, namespace) (kube_pod_container_resource_requests{resource="cpu",%s})`, func(p *podRecord, v float64) { p.cpu = v }},
	{`sum by (pod, namespace) (kube_pod_container_resource_requests{resource="memory",%s})`, func(p *podRecord, v float64) { p.memory = v }},
	{`sum by (pod, namespace) (container_cpu_usage_seconds_total{container!="",%s})`, func(p *podRecord, v float64) { p.cpuSeconds = max(p.cpuSeconds, v) }},
	{`sum by (pod, namespace) (container_memory_working_set_bytes{container!="",%s})`, func(p *podRecord, v float64) { p.workingSet = max(p.workingSet, v) }},
	{`max by (pod, namespace) (kube_pod_container_status_last_terminated_reason{reason="OOMKilled",%s} or kube_pod_container_status_terminated_reason{reason="OOMKilled",%s})`,
		func(p *podRecord, v float64) { p.outOfMemory = p.outOfMemory || v > 0 }},
}

// podRecord is what was recorded of a pod, in seconds, cores and bytes.
type podRecord struct {
	class                       string
	created, started, completed float64
	last                        float64 // when it was seen last
	cpu, memory                 float64
	cpuSeconds, workingSet      float64
	outOfMemory                 bool
}

// PodsFound says what FromPods found and what it had to assume.
type PodsFound struct {
	Pods int
	// Without a start or an end of their own; without requests; with usage.
	WithoutTimes, WithoutRequests, WithUsage int
}

// generated is the end of the names of Jobs that KEDA makes of a ScaledJob, and of their pods.
var generated = regexp.MustCompile(`(-[a-z0-9]{5}){1,2}$`)

// FromPods makes a load of the pods of Jobs as kube-state-metrics and cAdvisor recorded them: when they were created and how long they ran, what they
// requested and used, and whether they ran out of memory. Each pod counts as one message of a class that is its ScaledJob. The selector holds
// labels that all of the metrics have, namespace="scan" for example. Pods that lived for less than a minute between two samples are missed.
// Asked is called with every instant up to which is known.
func FromPods(ctx context.Context, api QueryRange, selector string, from, to time.Time, asked func(time.Time)) (Trace, PodsFound, error) {
	const perQuery = 24 * time.Hour
	var found PodsFound
	pods := map[string]*podRecord{}
	for begin := from; begin.Before(to); begin = begin.Add(perQuery) {
		end := begin.Add(perQuery - demandStep)
		if end.After(to) {
			end = to
		}
		for _, metric := range podMetrics {
			query := strings.ReplaceAll(metric.query, "%s", selector)
			value, _, err := api.QueryRange(ctx, query, prometheus.Range{Start: begin, End: end, Step: demandStep})
			if err != nil {
				return Trace{}, found, fmt.Errorf("query %q from %s: %w", query, begin.Format(time.RFC3339), err)
			}
			matrix, ok := value.(model.Matrix)
			if !ok {
				return Trace{}, found, fmt.Errorf("query %q gives a %s, want a range of samples", query, value.Type())
			}
			for _, series := range matrix {
				name := string(series.Metric["namespace"]) + "/" + string(series.Metric["pod"])
				p := pods[name]
				if p == nil {
					p = &podRecord{class: generated.ReplaceAllString(string(series.Metric["pod"]), "")}
					pods[name] = p
				}
				for _, s := range series.Values {
					if v := float64(s.Value); !math.IsNaN(v) && !math.IsInf(v, 0) {
						metric.set(p, v)
						p.last = max(p.last, float64(s.Timestamp)/1000)
					}
				}
			}
		}
		asked(end)
	}
	var jobs []Job
	for _, p := range pods {
		if p.created == 0 && p.started == 0 {
			continue // usage alone: a pod of another kind
		}
		found.Pods++
		if p.started == 0 || p.completed == 0 {
			found.WithoutTimes++
		}
		if p.created == 0 {
			p.created = p.started
		}
		p.started, p.completed = max(p.started, p.created), max(p.completed, 0)
		if p.completed == 0 {
			p.completed = p.last
		}
		ran := max(1, p.completed-p.started)
		job := Job{Start: seconds(p.created), Run: seconds(ran), Class: p.class, Requests: DefaultRequests(), OutOfMemory: p.outOfMemory}
		if p.cpu == 0 && p.memory == 0 {
			found.WithoutRequests++
			job.RequestsAssumed = true
		} else {
			job.Requests = packing.Amounts{int64(math.Ceil(1000 * p.cpu)), int64(p.memory), 0, 1}
		}
		if p.cpuSeconds > 0 || p.workingSet > 0 {
			found.WithUsage++
			job.Used = packing.Amounts{int64(math.Ceil(1000 * p.cpuSeconds / ran)), int64(p.workingSet), 0, 0}
		}
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 {
		return Trace{}, found, errors.New("no pods were recorded in that time: is kube-state-metrics scraped, and are there pods with these labels?")
	}
	slices.SortFunc(jobs, func(a, b Job) int { // maps have no order
		if a.Start != b.Start {
			return int(a.Start - b.Start)
		}
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	return newTrace(jobs), found, nil
}
