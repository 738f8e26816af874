package cluster_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/scaler/workload"
)

// checkWorkload follows a policy's ScaledJob and its Jobs as a real API server shows them.
func checkWorkload(t *testing.T, c *cluster.Cluster) {
	api, name := c.Client(), types.NamespacedName{Namespace: "default", Name: "worked"}
	labels := map[string]string{"scaledjob.keda.sh/name": "job-of-worked"}
	watch := workload.New(func() time.Time { return time.Now().Add(-time.Hour) }, slog.New(slog.DiscardHandler))
	followed, err := dynamic.NewForConfig(c.Admin())
	if err != nil {
		t.Fatal(err)
	}
	informers, err := cache.New(c.Admin(), cache.Options{Scheme: api.Scheme(), ByObject: workload.Objects()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var work errgroup.Group
	work.Go(func() error { return informers.Start(ctx) })
	work.Go(func() error { return watch.Follow(ctx, followed) })
	work.Go(func() error { return watch.Lead(ctx, informers) })
	t.Cleanup(func() {
		cancel()
		if err := work.Wait(); err != nil {
			t.Error(err)
		}
	})
	create := func(object client.Object) {
		t.Helper()
		if err := api.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = api.Delete(context.WithoutCancel(t.Context()), object) })
	}
	becomes := func(want string) {
		t.Helper()
		got := ""
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			unfinished, known := watch.Unfinished(name)
			if got = fmt.Sprint(unfinished, known); got == want {
				return
			}
		}
		t.Fatalf("unfinished Jobs: %s, want %s", got, want)
	}
	becomes("0 false")

	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "worker", Image: "x"}}},
	}
	job := func(name string) *batchv1.Job {
		return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels}, Spec: batchv1.JobSpec{Template: template}}
	}
	first, second := job("worked-1"), job("worked-2")
	create(first) // it is there before its ScaledJob is known
	create(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": map[string]any{"namespace": "default", "name": "job-of-worked"},
		"spec": map[string]any{
			"jobTargetRef": map[string]any{"template": map[string]any{"spec": map[string]any{
				"restartPolicy": "Never", "containers": []any{map[string]any{"name": "worker", "image": "x"}},
			}}},
			"triggers": []any{map[string]any{"type": "external", "metadata": map[string]any{"scalerAddress": "scaler:9090", "policy": name.Name}}},
		},
	}})
	becomes("1 true")
	create(second)
	becomes("2 true")
	now := metav1.Now()
	first.Status = batchv1.JobStatus{
		StartTime: &now, CompletionTime: &now, Succeeded: 1, Ready: ptr.To[int32](0), UncountedTerminatedPods: &batchv1.UncountedTerminatedPods{},
		Conditions: []batchv1.JobCondition{
			{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: now},
		},
	}
	if err := api.Status().Update(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	becomes("1 true")

	if err := api.Delete(t.Context(), second, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		t.Fatal(err)
	}
	becomes("0 true")
}
