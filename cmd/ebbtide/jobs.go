package main

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// scaledJobLabel is on the Jobs that KEDA creates.
const scaledJobLabel = "scaledjob.keda.sh/name"

// finishedJobs makes a load of KEDA's finished Jobs that the cluster still keeps: each is a message of its ScaledJob's class. It says how many there
// are.
func finishedJobs(ctx context.Context, client kubernetes.Interface, namespace string) (simulator.Trace, string, error) {
	var trace simulator.Trace
	trace.Origin = simulator.Epoch
	options := metav1.ListOptions{LabelSelector: scaledJobLabel, Limit: 500}
	for {
		page, err := client.BatchV1().Jobs(namespace).List(ctx, options)
		if err != nil {
			return trace, "", fmt.Errorf("--cluster: %w", err)
		}
		for i := range page.Items {
			if job, ok := finishedJob(&page.Items[i]); ok {
				trace.Jobs = append(trace.Jobs, job)
			}
		}
		if options.Continue = page.Continue; options.Continue == "" {
			break
		}
	}
	if len(trace.Jobs) == 0 {
		return trace, "", fmt.Errorf("--cluster: namespace %q has no finished Jobs of KEDA's (label %s)", namespace, scaledJobLabel)
	}
	note := fmt.Sprintf("The cluster keeps %d finished Jobs: older ones are gone (successfulJobsHistoryLimit). Each counts as one message that arrived when its Job "+
		"was created, and run times include the start of the pod.", len(trace.Jobs))
	return trace.Sorted(), note, nil
}

// finishedJob is a message of a Job; false for one that runs or has no times.
func finishedJob(job *batchv1.Job) (simulator.Job, bool) {
	var end time.Time
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			end = c.LastTransitionTime.Time
		}
	}
	if job.Status.CompletionTime != nil {
		end = job.Status.CompletionTime.Time
	}
	begin := job.CreationTimestamp.Time
	if job.Status.StartTime != nil {
		begin = job.Status.StartTime.Time
	}
	if end.IsZero() || begin.IsZero() {
		return simulator.Job{}, false
	}
	var requests packing.Amounts
	for _, c := range job.Spec.Template.Spec.Containers {
		requests[0] += c.Resources.Requests.Cpu().MilliValue()
		requests[1] += c.Resources.Requests.Memory().Value()
	}
	requests[3] = 1
	assumed := requests[0] == 0 && requests[1] == 0
	if assumed {
		requests = simulator.DefaultRequests()
	}
	return simulator.Job{
		Start: job.CreationTimestamp.Sub(simulator.Epoch), Run: max(time.Second, end.Sub(begin)), Class: job.Labels[scaledJobLabel], Requests: requests,
		RequestsAssumed: assumed,
	}, true
}
