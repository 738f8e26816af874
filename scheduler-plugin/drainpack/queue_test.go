package drainpack

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	configv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
)

func TestLongestFirst(t *testing.T) {
	plugin, err := NewQueue(t.Context(), nil, newForTest(t).handle) // a scheduler without DrainPack
	if err != nil {
		t.Fatal(err)
	}
	sorter := plugin.(fwk.QueueSortPlugin)
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	pod := func(name, cpu, runs string, priority int32, after time.Duration) fwk.QueuedPodInfo {
		info, err := framework.NewPodInfo(st.MakePod().Name(name).UID(name).Priority(priority).Annotation(durationAnnotation, runs).
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

// What was learned of run times orders pods that state none, and what is learned while a pod waits does not move it.
func TestLearnedLongestFirst(t *testing.T) {
	d := newForTest(t)
	learn := func(class string, runs time.Duration) {
		for i := range 100 {
			d.fleet.Finished(fleet.Ended{Pod: fleet.Pod{ID: fmt.Sprint(class, runs, i), Class: "scan/" + class}, Ran: runs, At: d.now(), Well: true})
		}
	}
	learn("quick", time.Second)
	learn("deep", time.Hour)
	args := configv1.DrainPackQueueArgs{}
	args.SetDefaults()
	sorter := newLongestFirst(args, func() *DrainPack { return d })
	pod := func(name, class string, after time.Duration) fwk.QueuedPodInfo {
		info, err := framework.NewPodInfo(toFinish(st.MakePod().Name(name).UID(name).Namespace("scan").Label(scaledJobLabel, class)).Obj())
		if err != nil {
			t.Fatal(err)
		}
		return &framework.QueuedPodInfo{PodInfo: info, Timestamp: d.now().Add(after)}
	}
	quick, deep, late := pod("q", "quick", 0), pod("d", "deep", 10*time.Second), pod("l", "deep", 31*time.Second)
	if !sorter.Less(deep, quick) || sorter.Less(quick, deep) {
		t.Error("a pod of a class that runs for an hour does not go before one that came 10 s earlier and runs for a second")
	}
	if sorter.Less(late, quick) {
		t.Error("a pod that came 31 s later goes before")
	}
	learn("deep", time.Millisecond)
	learn("quick", 10*time.Hour)
	if !sorter.Less(deep, quick) {
		t.Error("the order of pods that wait has changed")
	}
}
