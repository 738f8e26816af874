package workload

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/ebbtide-dev/ebbtide/internal/doctable"
)

var began = time.Unix(1000, 0)

// newWatch has the ScaledJob scan/scans, whose trigger names the policy of that name, and counts pods that end from began on.
func newWatch(t *testing.T) *Watch {
	t.Helper()
	w := New(func() time.Time { return began }, slog.New(slog.DiscardHandler))
	w.scans.countFrom(began)
	w.unfinished = map[types.NamespacedName]map[types.UID]struct{}{}
	w.synced = func() bool { return true }
	w.setScaledJob(trimmed(t, trimScaledJob, triggered("scans", "scans")))
	return w
}

// trimmed is an object as the informer keeps it.
func trimmed[T any](t *testing.T, trim toolscache.TransformFunc, object T) T {
	t.Helper()
	slim, err := trim(object)
	if err != nil {
		t.Fatal(err)
	}
	return slim.(T)
}

// triggered is a ScaledJob with an external trigger for each policy, and one of another kind.
func triggered(name string, policies ...string) *unstructured.Unstructured {
	object := scaledJob()
	object.SetNamespace("scan")
	object.SetName(name)
	triggers := []any{map[string]any{"type": "cron", "metadata": map[string]any{"policy": "none-of-ours", "desiredReplicas": "1"}}, "?"}
	for _, policy := range policies {
		triggers = append(triggers, map[string]any{"type": "external", "metadata": map[string]any{"policy": policy, "scalerAddress": "scaler:9090"}})
	}
	object.Object["spec"] = map[string]any{"triggers": triggers, "jobTargetRef": map[string]any{"template": map[string]any{}}}
	return object
}

func TestUnfinished(t *testing.T) {
	w := newWatch(t)
	unfinished := func(policy string) string {
		n, known := w.Unfinished(types.NamespacedName{Namespace: "scan", Name: policy})
		return fmt.Sprint(n, known)
	}
	job := func(scaledJob, name string, conditions ...batchv1.JobCondition) *batchv1.Job {
		return trimmed(t, trimJob, &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "scan", Name: name, UID: types.UID(name), Labels: map[string]string{scaledJobLabel: scaledJob, "more": "labels"},
				Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"},
			},
			Spec:   batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeName: "n"}}},
			Status: batchv1.JobStatus{Conditions: conditions},
		})
	}
	for _, step := range []struct {
		name, want string
		do         func()
	}{
		{"a policy that a ScaledJob names, without Jobs", "0 true", func() {}},
		{"two Jobs", "2 true", func() { w.setJob(job("scans", "a")); w.setJob(job("scans", "b")) }},
		{"seen again", "2 true", func() { w.setJob(job("scans", "a")) }},
		{"one of another ScaledJob", "2 true", func() { w.setJob(job("others", "c")) }},
		{"suspended is not ended", "2 true", func() {
			w.setJob(job("scans", "a", batchv1.JobCondition{Type: batchv1.JobSuspended, Status: corev1.ConditionTrue}))
		}},
		{"one is done", "1 true", func() {
			w.setJob(job("scans", "a", batchv1.JobCondition{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}))
		}},
		{"one has failed", "0 true", func() {
			w.setJob(job("scans", "b", batchv1.JobCondition{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}))
		}},
		{"two ScaledJobs of one policy", "1 true", func() { w.setScaledJob(triggered("others", "more", "scans")) }},
		{"deleted", "0 true", func() { w.removeJob(job("others", "c")) }},
		{"its trigger names another policy", "0 true", func() { w.setScaledJob(triggered("scans", "else")) }},
		{"no ScaledJob names it", "0 false", func() {
			w.removeScaledJob(nameOf(toolscache.DeletedFinalStateUnknown{Obj: triggered("others")}))
		}},
	} {
		step.do()
		if got := unfinished("scans"); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
	w.synced = func() bool { return false }
	if got := unfinished("else"); got != "0 false" {
		t.Errorf("%s before all Jobs are known, want that it is not", got)
	}
	if slim := job("scans", "a"); slim.Spec.Template.Spec.NodeName != "" || len(slim.Annotations) > 0 || len(slim.Labels) != 1 {
		t.Errorf("kept of a Job: %+v", slim)
	}
}

// endedPod ran for ten seconds and left a termination message.
func endedPod(t *testing.T, scaledJob, message string, phase corev1.PodPhase, at time.Time) *corev1.Pod {
	t.Helper()
	return trimmed(t, trimPod, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "p", Labels: map[string]string{scaledJobLabel: scaledJob}},
		Status: corev1.PodStatus{
			Phase: phase, StartTime: &metav1.Time{Time: at.Add(-10 * time.Second)},
			ContainerStatuses: []corev1.ContainerStatus{{}, {State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				FinishedAt: metav1.NewTime(at), Message: message,
			}}}},
		},
	})
}

func TestScans(t *testing.T) {
	w := newWatch(t)
	end := func(scaledJob, message string, phase corev1.PodPhase, after time.Duration) {
		t.Helper()
		w.ended(endedPod(t, scaledJob, message, phase, began.Add(after)))
	}
	end("scans", `{"messages":2,"succeeded":1,"deadLettered":1,"ended":"idle","waitSeconds":{"sum":21,"le":{"1":1,"20":1}},`+
		`"scanSeconds":{"sum":8,"le":{"5":2}}}`+"\n", corev1.PodSucceeded, time.Second)
	end("scans", `{"messages":1,"retried":1,"ended":"error","waitSeconds":{"sum":99999,"le":{"+Inf":1}}}`, corev1.PodFailed, 2*time.Second)
	end("scans", `{"messages":0,"ended":"idle"}`, corev1.PodSucceeded, 3*time.Second)
	end("scans", `done`, corev1.PodSucceeded, 4*time.Second)
	end("scans", `{"messages":1,"ended":"messages","why":"`+strings.Repeat("x", maxSummary)+`"}`, corev1.PodSucceeded, 5*time.Second)
	end("scans", `{"messages":1,"ended":"messages","waitSeconds":{"sum":-1}}`, corev1.PodSucceeded, 6*time.Second)
	end("scans", `{"messages":1,"succeeded":1,"ended":"messages"}`, corev1.PodSucceeded, -time.Second) // counted by the leader before
	end("no-policy-of-ours", `{"messages":1,"succeeded":1,"ended":"messages"}`, corev1.PodSucceeded, time.Second)
	want := `
# HELP ebbtide_scans_messages_total Messages of workers that exited, by outcome: succeeded, retried, dead-lettered.
# TYPE ebbtide_scans_messages_total counter
ebbtide_scans_messages_total{namespace="scan",outcome="dead-lettered",scaledjob="scans"} 1
ebbtide_scans_messages_total{namespace="scan",outcome="retried",scaledjob="scans"} 1
ebbtide_scans_messages_total{namespace="scan",outcome="succeeded",scaledjob="scans"} 1
# HELP ebbtide_scans_pod_seconds_total Seconds that pods ran which ended.
# TYPE ebbtide_scans_pod_seconds_total counter
ebbtide_scans_pod_seconds_total{namespace="scan",result="failed",scaledjob="scans"} 10
ebbtide_scans_pod_seconds_total{namespace="scan",result="idle",scaledjob="scans"} 10
ebbtide_scans_pod_seconds_total{namespace="scan",result="silent",scaledjob="scans"} 30
ebbtide_scans_pod_seconds_total{namespace="scan",result="worked",scaledjob="scans"} 10
# HELP ebbtide_scans_wait_seconds How long messages waited from their timestamp to their first delivery, of workers that left.
# TYPE ebbtide_scans_wait_seconds histogram
`
	upTo := 0
	for _, bucket := range []struct {
		bound string
		count int
	}{
		{"1", 1}, {"2.5", 0}, {"5", 0}, {"10", 0}, {"20", 1}, {"30", 0}, {"60", 0}, {"120", 0}, {"300", 0}, {"600", 0}, {"1200", 0},
		{"1800", 0}, {"3600", 0}, {"7200", 0}, {"14400", 0}, {"+Inf", 1},
	} {
		upTo += bucket.count
		want += fmt.Sprintf("ebbtide_scans_wait_seconds_bucket{namespace=\"scan\",scaledjob=\"scans\",le=%q} %d\n", bucket.bound, upTo)
	}
	want += `ebbtide_scans_wait_seconds_sum{namespace="scan",scaledjob="scans"} 100020
ebbtide_scans_wait_seconds_count{namespace="scan",scaledjob="scans"} 3
`
	names := []string{"ebbtide_scans_messages_total", "ebbtide_scans_pod_seconds_total", "ebbtide_scans_wait_seconds"}
	if err := testutil.CollectAndCompare(w, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}

	// However many ScaledJobs there are: series are bounded.
	for i := range 2 * maxScanJobs {
		name := fmt.Sprint("job-", i)
		w.setScaledJob(triggered(name, name))
		end(name, "", corev1.PodSucceeded, time.Duration(10+i)*time.Second)
	}
	if n := testutil.CollectAndCount(w, "ebbtide_scans_pods_total"); n != maxScanJobs*podResults {
		t.Errorf("%d series of pods, want those of the last %d ScaledJobs", n, maxScanJobs)
	}
}

// A replica that does not lead counts nothing, so that sums over replicas are right.
func TestStandbyCountsNothing(t *testing.T) {
	w := New(time.Now, slog.New(slog.DiscardHandler))
	w.setScaledJob(triggered("scans", "scans"))
	w.ended(endedPod(t, "scans", "", corev1.PodSucceeded, began))
	if n := testutil.CollectAndCount(w); n != 0 {
		t.Errorf("%d series, want none", n)
	}
}

// The reference names every series and no other.
func TestMetricsDocument(t *testing.T) {
	w := newWatch(t)
	w.ended(endedPod(t, "scans", "", corev1.PodSucceeded, began))
	registry := prometheus.NewRegistry()
	registry.MustRegister(w)
	doctable.Metrics(t, "../../docs/reference/metrics.md", "workload metrics", registry, "ebbtide_")
}

// A ScaledJob whose author names policies without end, or one whose name is as long as an object, costs few short series.
func TestNamesOfPoliciesAreBounded(t *testing.T) {
	names := []string{strings.Repeat("x", 1<<20)}
	for i := range 1000 {
		names = append(names, fmt.Sprint("policy-", i))
	}
	w := newWatch(t)
	w.setScaledJob(trimmed(t, trimScaledJob, triggered("hostile", names...)))
	if n := testutil.CollectAndCount(w, "ebbtide_workload_unfinished_jobs"); n != maxPolicies+1 {
		t.Errorf("%d series, want those of %d policies and one of another ScaledJob's", n, maxPolicies)
	}
	if _, known := w.Unfinished(types.NamespacedName{Namespace: "scan", Name: names[0]}); known {
		t.Error("a name that no policy can have is known")
	}
}
