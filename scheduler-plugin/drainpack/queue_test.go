package drainpack

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

func TestLongestFirst(t *testing.T) {
	plugin, err := NewQueue(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	sorter := plugin.(fwk.QueueSortPlugin)
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	pod := func(name, cpu, runs string, priority int32, after time.Duration) fwk.QueuedPodInfo {
		info, err := framework.NewPodInfo(st.MakePod().Name(name).Priority(priority).Annotation(durationAnnotation, runs).
			Req(map[v1.ResourceName]string{v1.ResourceCPU: cpu}).Obj())
		if err != nil {
			t.Fatal(err)
		}
		return &framework.QueuedPodInfo{PodInfo: info, Timestamp: noon.Add(after)}
	}
	queue := []fwk.QueuedPodInfo{
		pod("long-but-late", "16", "10h", 0, 31*time.Second),
		pod("nonsense", "100m", "soon", 0, time.Millisecond),
		pod("small", "100m", "1s", 0, 0),
		pod("long", "100m", "1h", 0, 5*time.Second),
		pod("large", "8", "1s", 0, 5*time.Second),
		pod("urgent", "100m", "1s", 1, time.Minute),
	}
	slices.SortFunc(queue, func(a, b fwk.QueuedPodInfo) int {
		if sorter.Less(a, b) {
			return -1
		}
		return 1
	})
	var names []string
	for _, q := range queue {
		names = append(names, q.GetPodInfo().GetPod().Name)
	}
	if got := strings.Join(names, " "); got != "urgent long large small nonsense long-but-late" {
		t.Errorf("the order is %s", got)
	}
	_, err = NewQueue(t.Context(), &runtime.Unknown{Raw: []byte(`{"maxAdvance":"2h"}`)}, nil)
	if err == nil || !strings.Contains(err.Error(), "DrainPackQueue: maxAdvance is 2h0m0s, want 1s to 1h") {
		t.Errorf("error %v", err)
	}
}
