package simulator

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// recorded answers queries for metrics by the values of pods, as of one instant.
type recorded struct {
	at     time.Time
	values map[string]map[string]float64 // by metric and pod
	asked  []string
}

func (r *recorded) QueryRange(_ context.Context, query string, span prometheus.Range, _ ...prometheus.Option) (model.Value, prometheus.Warnings, error) {
	r.asked = append(r.asked, query)
	matrix := model.Matrix{}
	if r.at.Before(span.Start) || r.at.After(span.End) {
		return matrix, nil, nil
	}
	for metric, pods := range r.values {
		if !strings.Contains(query, "("+metric+"{") {
			continue
		}
		for pod, value := range pods {
			matrix = append(matrix, &model.SampleStream{
				Metric: model.Metric{"namespace": "scan", "pod": model.LabelValue(pod)},
				Values: []model.SamplePair{{Timestamp: model.TimeFromUnixNano(r.at.UnixNano()), Value: model.SampleValue(value)}},
			})
		}
	}
	return matrix, nil, nil
}

// Pods become messages of their ScaledJob's class, with what they requested and used; what is not known is counted.
func TestFromPods(t *testing.T) {
	from := time.Unix(1_000_000, 0)
	r := &recorded{at: from.Add(5 * time.Minute), values: map[string]map[string]float64{
		"kube_pod_created":                                 {"scans-x7k2p-abcde": 1_000_000, "other-app-q9w8e-zzzzz": 1_000_060},
		"kube_pod_container_state_started":                 {"scans-x7k2p-abcde": 1_000_030},
		"kube_pod_completion_time":                         {"scans-x7k2p-abcde": 1_000_130},
		`kube_pod_container_resource_requests`:             {"scans-x7k2p-abcde": 2},
		"container_cpu_usage_seconds_total":                {"scans-x7k2p-abcde": 50, "coredns-aaaaa": 1e6},
		"container_memory_working_set_bytes":               {"scans-x7k2p-abcde": 300 << 20},
		"kube_pod_container_status_last_terminated_reason": {"other-app-q9w8e-zzzzz": 1},
	}}
	trace, found, err := FromPods(t.Context(), r, `namespace="scan"`, from, from.Add(10*time.Minute), func(time.Time) {})
	if err != nil {
		t.Fatal(err)
	}
	want := []Job{
		// 50 core-seconds in 100 s; the fake gives 2 for both requests
		{Run: 100 * time.Second, Class: "scans", Requests: packing.Amounts{2000, 2, 0, 1}, Used: packing.Amounts{500, 300 << 20, 0, 0}},
		// seen last at 300 s, created at 60
		{Start: time.Minute, Run: 240 * time.Second, Class: "other-app", Requests: DefaultRequests(), RequestsAssumed: true, OutOfMemory: true},
	}
	if diff := cmp.Diff(want, trace.Jobs); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
	if (found != PodsFound{Pods: 2, WithoutTimes: 1, WithoutRequests: 1, WithUsage: 1}) {
		t.Errorf("%+v", found)
	}
	for _, query := range r.asked {
		if !strings.Contains(query, `namespace="scan"`) {
			t.Errorf("%s asks for other namespaces", query)
		}
	}
	if _, _, err := FromPods(t.Context(), &recorded{}, "", from, from.Add(time.Minute), func(time.Time) {}); err == nil || !strings.Contains(err.Error(), "kube-state-metrics") {
		t.Errorf("nothing recorded: error %v", err)
	}
}
