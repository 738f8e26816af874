package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/placement"
)

// The scheduler is killed again and again while pods come: every pod gets a node and runs to its end, what the scheduler then knows of
// nodes is what the API server knows, and the dashboards show what it made of run times.
func TestScheduler(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c, _ := startCluster(ctx, t, scans.Programs)
	begin := time.Now()
	const drill, lasting = "drill", 12
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var objects strings.Builder
	fmt.Fprintf(&objects, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", drill)
	for i := range 8 {
		fmt.Fprintf(&objects, `---
apiVersion: v1
kind: Node
metadata:
  name: drill-%d
  annotations: {kwok.x-k8s.io/node: fake, node.alpha.kubernetes.io/ttl: "0"}
  labels: {karpenter.sh/nodepool: %s, kubernetes.io/hostname: drill-%d, kubernetes.io/os: linux, kubernetes.io/arch: amd64}
status:
  allocatable: {cpu: "8", memory: 32Gi, pods: "110"}
  capacity: {cpu: "8", memory: 32Gi, pods: "110"}
`, i, drill, i)
	}
	must(c.StartPrometheus(ctx))
	must(c.ApplyYAML(ctx, []byte(objects.String())))
	client, err := kubernetes.NewForConfig(c.Admin())
	must(err)
	observed := scans.NewObserver(drill, scans.NodePoolLabel, drill)
	must(observed.Watch(ctx, client))

	load := scans.PodWaves(250)
	for i := range load {
		load[i].After /= 5 // within 48 s
		load[i].Runs = min(load[i].Runs, 30*time.Second)
		if i%20 == 0 && i/20 < lasting {
			load[i].Runs = time.Hour
		}
	}
	sent := make(chan error, 1)
	go func() { sent <- scans.PlayPods(ctx, client, drill, "ebbtide", load) }()
	// The crashes come at other moments every time; the seed says at which.
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 4 {
		time.Sleep(time.Duration(5+random.IntN(6)) * time.Second)
		must(c.Crash(cluster.Scheduler))
		time.Sleep(time.Duration(random.IntN(3)) * time.Second)
		must(c.Restart(ctx, cluster.Scheduler))
	}
	must(<-sent)
	var last scans.Snapshot
	for last.Ended < len(load)-lasting {
		last = observed.Snapshot()
		if name := c.Failed(); name != "" || ctx.Err() != nil {
			t.Fatalf("%s ended by itself, or it takes too long: %+v", name, last)
		}
		time.Sleep(200 * time.Millisecond)
	}
	if last.CutShort > 0 || last.Pending > 0 || last.Ended != len(load)-lasting {
		t.Errorf("%d pods ended, %d of them badly, %d pending, of %d", last.Ended, last.CutShort, last.Pending, len(load))
	}

	pods, err := client.CoreV1().Pods(drill).List(ctx, metav1.ListOptions{})
	must(err)
	want := map[string][2]int64{} // pods and millicores
	for _, pod := range pods.Items {
		if pod.Status.Phase == corev1.PodRunning {
			node := want[pod.Spec.NodeName]
			want[pod.Spec.NodeName] = [2]int64{node[0] + 1, node[1] + pod.Spec.Containers[0].Resources.Requests.Cpu().MilliValue()}
		}
	}
	var diff string
	for range 50 { // the scheduler may not have heard of the last end yet
		got := map[string][2]int64{}
		for _, v := range explained[fleet.View](ctx, t, c, "/nodes") {
			if v.Pods > 0 {
				got[v.Name] = [2]int64{int64(v.Pods), v.Used[0]}
			}
		}
		if diff = cmp.Diff(want, got); diff == "" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if diff != "" {
		t.Errorf("what is on the nodes (-API server +scheduler):\n%s", diff)
	}
	checkPanels(t, c, begin, needsPredictions)
	newest := explained[placement.Placement](ctx, t, c, "/placements?namespace="+drill+"&limit=1")
	if len(newest) != 1 || newest[0].Reason == "" || newest[0].Key == nil {
		t.Errorf("the last placement is explained by %+v", newest)
	}
}

// explained is a list that the scheduler answers with.
func explained[T any](ctx context.Context, t *testing.T, c *cluster.Cluster, path string) (list []T) {
	t.Helper()
	if err := json.Unmarshal(get(ctx, t, nil, c.ExplainURL()+path), &list); err != nil {
		t.Fatal(err)
	}
	return list
}
