package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

func TestCensus(t *testing.T) {
	f := trusting(newFleet("web", "long", "short", "daemons", "new"))
	daemon := func(id string) Pod {
		return Pod{ID: id, Follower: true, Requests: packing.Amounts{2, 1, 0, 1}}
	}
	f.AddPod(Pod{ID: "web", Endless: true, Requests: packing.Amounts{1, 1, 0, 1}}, "web", start)
	f.AddPod(stated("l1", 10, 2*time.Hour), "long", start)
	f.AddPod(stated("l2", 2, time.Minute), "long", start)
	f.AddPod(daemon("d1"), "long", start)
	f.AddPod(stated("s", 4, 3*time.Minute), "short", start)
	f.AddPod(daemon("d2"), "daemons", start)
	f.AddPod(stated("of a node that is not known", 16, time.Hour), "gone", start)
	// 17 of 16 CPUs are needed by pods that keep nodes: two nodes, of which neither holds a DaemonSet's.
	want := Census{
		Nodes:       [States]int{Empty: 2, Drains5m: 1, DrainsLater: 1, Endless: 1},
		NodesByPods: [len(PodBuckets)]int{2, 2, 1},
		Pods:        6, Followers: 2,
		Used: packing.Amounts{21, 6, 0, 6}, Allocatable: packing.Amounts{80, 320, 0, 550}, Needed: 2,
	}
	check := func(name string, at time.Duration) {
		t.Helper()
		if diff := cmp.Diff(want, f.Census(start.Add(at))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	check("at first", 0)

	// A node counts as empty once its last pod has ended; one that had none yet, or only a DaemonSet's, does not wait to go.
	f.RemovePod("s")
	want.Nodes, want.NodesByPods = [States]int{Empty: 3, DrainsLater: 1, Endless: 1}, [len(PodBuckets)]int{3, 1, 1}
	want.Pods, want.Used, want.Needed = 5, packing.Amounts{17, 5, 0, 5}, 1
	check("when one has drained", 10*time.Second)
	want.EmptyLongest = 20 * time.Second
	check("later", 30*time.Second)

	f.SetNode(Node{Name: "long", Created: start, Allocatable: packing.Amounts{16, 64, 0, 110}, Leaving: true})
	want.Nodes, want.EmptyLongest = [States]int{Leaving: 1, Empty: 3, Endless: 1}, 30*time.Second
	check("when one is taken away with its pods", 40*time.Second)
	want.EmptyLongest, want.LeavingLongest = 50*time.Second, 20*time.Second
	check("and they go on", time.Minute)

	if since := f.RemoveNode("short"); !since.Equal(start.Add(10 * time.Second)) {
		t.Errorf("short was empty since %s", since)
	}
	for _, name := range []string{"long", "new", "never heard of"} {
		if since := f.RemoveNode(name); !since.IsZero() {
			t.Errorf("%s was empty since %s", name, since)
		}
	}
	f.SetNode(Node{Name: "short", Allocatable: packing.Amounts{16, 64, 0, 110}})
	want = Census{
		Nodes: [States]int{Empty: 2, Endless: 1}, NodesByPods: [len(PodBuckets)]int{2, 1}, Pods: 2, Followers: 1,
		Used: packing.Amounts{3, 2, 0, 2}, Allocatable: packing.Amounts{48, 192, 0, 330}, Needed: 1,
	}
	check("another one of the same name is new", time.Minute)
}

func BenchmarkCensus(b *testing.B) {
	f := trusting(newFleet())
	for i := range 5000 {
		name := fmt.Sprint("node-", i)
		f.SetNode(Node{Name: name, Created: start, Allocatable: packing.Amounts{16, 64, 0, 110}})
		for j := range 4 {
			f.AddPod(stated(fmt.Sprint(name, j), 1, time.Duration(1+i%7200)*time.Second), name, start)
		}
	}
	for b.Loop() {
		f.Census(start)
	}
}
