package main

import (
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// Finished Jobs of KEDA's are the load; those of others, and those that still run, are not.
func TestFinishedJobs(t *testing.T) {
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	job := func(name, scaledJob string, created, ran time.Duration, condition batchv1.JobConditionType) *batchv1.Job {
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "scan", CreationTimestamp: metav1.NewTime(at.Add(created))}}
		if scaledJob != "" {
			j.Labels = map[string]string{scaledJobLabel: scaledJob}
		}
		start := metav1.NewTime(at.Add(created + time.Second))
		j.Status.StartTime = &start
		if condition != "" {
			j.Status.Conditions = []batchv1.JobCondition{{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Add(ran))}}
		}
		j.Spec.Template.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			"cpu": resource.MustParse("500m"), "memory": resource.MustParse("1Gi"),
		}}}}
		return j
	}
	client := fake.NewClientset(
		job("b", "scans", time.Minute, 20*time.Second, batchv1.JobFailed), job("a", "scans", 0, 10*time.Second, batchv1.JobComplete),
		job("runs", "scans", 0, 0, ""), job("other", "", 0, time.Second, batchv1.JobComplete),
	)
	trace, note, err := finishedJobs(t.Context(), client, "scan")
	if err != nil {
		t.Fatal(err)
	}
	requests := packing.Amounts{500, 1 << 30, 0, 1}
	want := simulator.Trace{Origin: at, Jobs: []simulator.Job{
		{Run: 10 * time.Second, Class: "scans", Requests: requests},
		{Start: time.Minute, Run: 20 * time.Second, Class: "scans", Requests: requests},
	}}
	if diff := gocmp.Diff(want, trace); diff != "" || !strings.Contains(note, "2 finished Jobs") {
		t.Errorf("%q (-want +got):\n%s", note, diff)
	}
	if _, _, err := finishedJobs(t.Context(), client, "empty"); err == nil || !strings.Contains(err.Error(), "no finished Jobs") {
		t.Errorf("error %v", err)
	}
}
