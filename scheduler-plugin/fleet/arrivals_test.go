package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Of a pod of an hour those are followers that started in the last three minutes and run for 45 minutes or more.
func TestFollowers(t *testing.T) {
	f := trusting(newFleet("a", "b"))
	add := func(id string, runs, ago time.Duration) { f.AddPod(stated(id, 1, runs), "a", start.Add(-ago)) }
	add("earlier", time.Hour, 4*time.Minute)
	add("just lately enough", time.Hour, 3*time.Minute)
	add("shorter", 44*time.Minute, time.Minute)
	add("just long enough", 45*time.Minute, time.Minute)
	add("longer", 8*time.Hour, 0)
	add("longer", 8*time.Hour, time.Second) // its start is known better now: not another one
	f.AddPod(Pod{ID: "daemon", Follower: true, Requests: packing.Amounts{1, 1, 0, 1}}, "a", start)
	f.AddPod(Pod{ID: "web", Endless: true, Requests: packing.Amounts{1, 1, 0, 1}}, "a", start)
	if got := f.Expect(stated("p", 1, time.Hour), start).Followers; got != 3 {
		t.Errorf("%d followers, want 3", got)
	}
	for i := range 10 * rememberedArrivals {
		f.AddPod(Pod{ID: fmt.Sprint(i), Class: "scan", Stated: time.Hour}, "b", start)
	}
	if got := f.Expect(stated("p", 1, time.Hour), start).Followers; got != rememberedArrivals {
		t.Errorf("%d followers after many pods, want %d", got, rememberedArrivals)
	}
}

// Pods of a batch gather on the node with room for them, and not one on each of those that stay the longest.
func TestBatchGathers(t *testing.T) {
	f := trusting(newFleet("a", "b", "c", "d"))
	for i, name := range []string{"a", "b", "c"} { // full but for one pod
		f.AddPod(stated(name, 15, time.Duration(20+i)*time.Minute), name, start.Add(-10*time.Minute))
	}
	on := map[string]int{}
	for i := range 6 {
		p := stated(fmt.Sprint("batch", i), 1, 2*time.Hour)
		node := candidates(f, p, start, 1)[0]
		on[node]++
		f.AddPod(p, node, start)
	}
	// The first knows of no others, and extends the node that stays for longest.
	if on["c"] != 1 || on["d"] != 5 {
		t.Errorf("pods of the batch on %v, want 1 on c and 5 on d", on)
	}
}
