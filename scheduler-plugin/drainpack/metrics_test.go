package drainpack

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics/legacyregistry"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/ebbtide-dev/ebbtide/internal/doctable"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
)

// finishedPod ended at an instant, with a termination message.
func finishedPod(scaledJob, message string, phase v1.PodPhase, at time.Time) *v1.Pod {
	pod := st.MakePod().Name("p").Namespace("scan").Label(scaledJobLabel, scaledJob).Phase(phase).Obj()
	pod.Status.ContainerStatuses = []v1.ContainerStatus{{}, {State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
		FinishedAt: metav1.NewTime(at), Message: message,
	}}}}
	return pod
}

// The reference names every series of the plugin and no other.
func TestMetricsDocument(t *testing.T) {
	registerMetrics()
	began := time.Unix(100, 0)
	registry, ended := prometheus.NewRegistry(), newScans(began)
	ended.ended(finishedPod("scans", "", v1.PodSucceeded, began), time.Second, began)
	registry.MustRegister(newMeter(), ended)
	// Other tests start the plugin, which registers a meter and scans of its own.
	gatherer := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := registry.Gather()
		if err != nil {
			return nil, err
		}
		of := func(name string) func(*dto.MetricFamily) bool {
			return func(f *dto.MetricFamily) bool { return f.GetName() == name }
		}
		registered, err := legacyregistry.DefaultGatherer.Gather()
		for _, family := range registered {
			if !slices.ContainsFunc(families, of(family.GetName())) {
				families = append(families, family)
			}
		}
		slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
		return families, err
	})
	doctable.Metrics(t, "../../docs/reference/metrics.md", "scheduler metrics", gatherer, "ebbtide_")
}

func TestScans(t *testing.T) {
	began := time.Unix(1000, 0)
	s := newScans(began)
	end := func(scaledJob, message string, phase v1.PodPhase, after time.Duration) {
		t.Helper()
		trimmed, err := trim(finishedPod(scaledJob, message, phase, began.Add(after))) // as the informer does
		if err != nil {
			t.Fatal(err)
		}
		s.ended(trimmed.(*v1.Pod), 10*time.Second, began.Add(after))
	}
	end("scans", `{"messages":2,"succeeded":1,"deadLettered":1,"ended":"idle","waitSeconds":{"sum":21,"le":{"1":1,"20":1}},`+
		`"scanSeconds":{"sum":8,"le":{"5":2}}}`+"\n", v1.PodSucceeded, time.Second)
	end("scans", `{"messages":1,"retried":1,"ended":"error","waitSeconds":{"sum":99999,"le":{"+Inf":1}}}`, v1.PodFailed, 2*time.Second)
	end("scans", `{"messages":0,"ended":"idle"}`, v1.PodSucceeded, 3*time.Second)
	end("scans", `done`, v1.PodSucceeded, 4*time.Second)
	end("scans", `{"messages":1,"ended":"messages","why":"`+strings.Repeat("x", maxSummary)+`"}`, v1.PodSucceeded, 5*time.Second)
	end("scans", `{"messages":1,"ended":"messages","waitSeconds":{"sum":-1}}`, v1.PodSucceeded, 6*time.Second)
	end("scans", `{"messages":1,"succeeded":1,"ended":"messages"}`, v1.PodSucceeded, -time.Second) // counted by the process before
	end("", `{"messages":1,"succeeded":1,"ended":"messages"}`, v1.PodSucceeded, time.Second)
	want := `
# HELP ebbtide_scans_messages_total Messages of workers that left, by what became of them: succeeded, retried, dead-lettered.
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
	if err := testutil.CollectAndCompare(s, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}

	// However many ScaledJobs there are, and whatever labels people put on pods: series are bounded.
	for i := range 2 * maxScanJobs {
		end(fmt.Sprint("job-", i), "", v1.PodSucceeded, time.Duration(10+i)*time.Second)
	}
	if n := testutil.CollectAndCount(s, "ebbtide_scans_pods_total"); n != maxScanJobs*podResults || s.jobs[scaledJob{"scan", "scans"}] != nil {
		t.Errorf("%d series of pods, want those of the last %d ScaledJobs", n, maxScanJobs)
	}
}

// Two nodes for a minute, of which one would have been enough for half of it; the second one stays for 15 s after that at least.
func TestMeter(t *testing.T) {
	m, at := newMeter(), time.Unix(1000, 0)
	need := func(after time.Duration, nodes int, needed int64) {
		m.observe(at.Add(after), fleet.Census{Nodes: [fleet.States]int{fleet.Endless: nodes}, Needed: needed})
	}
	need(0, 2, 2)
	need(30*time.Second, 2, 1)
	need(time.Minute, 0, 0)
	need(time.Hour, 0, 0)
	if m.nodeSeconds != 2*60 {
		t.Errorf("%v node-seconds, want 120", m.nodeSeconds)
	}
	if want := 2.0*(30+15) + 1*(60+15-45); m.boundSeconds != want {
		t.Errorf("at least %v node-seconds, want %v", m.boundSeconds, want)
	}
}

func BenchmarkScanEnded(b *testing.B) {
	at := time.Unix(1000, 0)
	s := newScans(at)
	pod := finishedPod("scans", `{"messages":1,"succeeded":1,"retried":0,"deadLettered":0,"ended":"messages",`+
		`"waitSeconds":{"sum":21.114,"le":{"30":1}},"scanSeconds":{"sum":8.01,"le":{"10":1}}}`, v1.PodSucceeded, at)
	for b.Loop() {
		s.ended(pod, time.Second, at)
	}
}
