package scenario

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	amqp "github.com/rabbitmq/amqp091-go"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/placement"
)

// Parts of the evening.
const (
	// workerCPU is a worker's request in millicores: a node of Karpenter's has room for four.
	workerCPU = 1800
	// Scans are short or long. Long ones keep their nodes after the others have ended. One scan of the trickle after the other is open: it has no
	// pace of its own, so that a slow machine sees the same.
	shortScan, longScan, trickleScan = 6.0, 35.0, 4.0
	// rounds are how many bursts come at most until what is waited for has happened: where long scans run is the broker's choice.
	rounds = 4
	// stuckAfter is how long nothing may change where something is waited for, tooLong how long it may take if something does.
	stuckAfter, tooLong = 2 * time.Minute, 4 * time.Minute

	// brokerAbsence is how long the broker is away, without the time that it takes to start.
	brokerAbsence = 5 * time.Second

	drainingTaint, karpenterTaint = "ebbtide.dev/draining", "karpenter.sh/disrupted"
)

// An evening with the three rules of docs/concepts/draining.md, on Karpenter's nodes: a burst ebbs and nodes begin to drain, a second burst ends
// that early, a large pod gets the room of idle workers, and then nodes drain one after the other and Karpenter removes them. At night, the leader
// dies while a node drains and while a pod is nominated, and then the broker while another node drains.
//
// Long scans and a trickle, which the broker spreads over all workers (--priority-by-age=false), keep nodes that would be empty otherwise.
func TestDraining(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c, _ := startWith(ctx, t, scans.Programs, func(ctx context.Context, o cluster.Options) (*cluster.Cluster, error) {
		o.Draining = true
		return cluster.Start(ctx, o)
	})
	e := newEvening(ctx, t, c)
	e.interruptedDrain()
	e.givenWay()
	e.ebb()
	e.night()
	e.checkScans()
	e.checkDrains()
	e.checkController()
	checkAlerts(t, checkPanels(t, c, e.begin, needsDraining))
	e.failures()
	e.night()
	e.checkScans()
	e.brokerDies()
	e.night()
	e.checkScans()
	e.checkDrains()
}

// evening is the scenario's state.
type evening struct {
	*testing.T
	ctx      context.Context
	c        *cluster.Cluster
	client   kubernetes.Interface
	observed *scans.Observer
	sender   *scans.Publisher
	settled  *scans.Settlements
	begin    time.Time
	sent     []string // ids
	// trickle says that the trickle flows; trickled are the ids of its scans that have no end yet.
	trickle  bool
	trickled []string
	larges   int // pods of large so far
	// down are components that were killed.
	down []string
	// brokerDied is when the broker died, the zero time if it did not. Workers of that time leave, and their scans, at most mayRepeat, are begun again.
	brokerDied time.Time
	mayRepeat  int
	// lastPending is when a pod without a node was last seen.
	lastPending time.Time

	mu     sync.Mutex
	drains []*drain
	// nominated says where pods were nominated to first, by name.
	nominated map[string]string
}

// drain is a taint on a node, from when it was seen until it was gone.
type drain struct {
	node string
	// since is what the taint says.
	since, seen, ended time.Time
	// pods on the node when it began.
	pods int
	// withNode says that the taint ended with its node. Karpenter had taken that away since taken, the zero time if it had not.
	withNode bool
	taken    time.Time
}

func newEvening(ctx context.Context, t *testing.T, c *cluster.Cluster) *evening {
	t.Helper()
	e := &evening{
		T: t, ctx: ctx, c: c, begin: time.Now(), nominated: map[string]string{},
		observed: scans.NewObserver(scans.Namespace, scans.NodePoolLabel, scans.NodePoolName),
	}
	var err error
	e.client, err = kubernetes.NewForConfig(c.Admin())
	e.must(err)
	e.must(c.StartPrometheus(ctx))
	e.must(scans.InstallWith(ctx, c, scans.ScanJob{
		Image: "ebbtide-worker", MaxReplicas: scans.MaxReplicas, CPU: fmt.Sprintf("%dm", workerCPU), Memory: "2Gi",
		WorkerArgs: []string{
			"--queue", scans.QueueScans, "--result-exchange", scans.ExchangeResults, "--dead-letter-exchange", scans.ExchangeDead,
			"--summary-file", "/dev/termination-log", "--max-messages", "0", "--idle-timeout", "5s", "--stay", "10s", "--priority-by-age=false",
			"--scheduler", c.SchedulerWorkers(),
		},
	}))
	e.settled, err = scans.Collect(e.connect())
	e.must(err)
	e.must(e.observed.Watch(ctx, e.client))
	e.watch()

	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- scans.RunPods(running, c, nil) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return e
}

// connect connects to the broker, and sends over that connection from now on.
func (e *evening) connect() *amqp.Connection {
	e.Helper()
	connection, err := amqp.Dial(e.c.Broker.AMQPURL("/"))
	e.must(err)
	e.Cleanup(func() { connection.Close() })
	e.sender, err = scans.NewPublisher(connection)
	e.must(err)
	return connection
}

// watch notes taints and nominations, however short they are.
func (e *evening) watch() {
	nodes := informers.NewSharedInformerFactoryWithOptions(e.client, 0, informers.WithTweakListOptions(
		func(o *metav1.ListOptions) { o.LabelSelector = scans.NodePoolLabel + "=" + scans.NodePoolName }))
	pods := informers.NewSharedInformerFactoryWithOptions(e.client, 0, informers.WithNamespace(scans.Namespace))
	noteNode := func(object any) { e.noteNode(object.(*corev1.Node), false) }
	notePod := func(object any) { e.notePod(object.(*corev1.Pod)) }
	_, err := nodes.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: noteNode, UpdateFunc: func(_, object any) { noteNode(object) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			e.noteNode(object.(*corev1.Node), true)
		},
	})
	e.must(err)
	_, err = pods.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: notePod, UpdateFunc: func(_, object any) { notePod(object) },
	})
	e.must(err)
	for _, f := range []informers.SharedInformerFactory{nodes, pods} {
		f.Start(e.ctx.Done())
		f.WaitForCacheSync(e.ctx.Done())
		e.Cleanup(f.Shutdown)
	}
}

func (e *evening) noteNode(node *corev1.Node, gone bool) {
	value, tainted, taken := "", false, false
	for _, taint := range node.Spec.Taints {
		switch taint.Key {
		case drainingTaint:
			value, tainted = taint.Value, true
		case karpenterTaint:
			taken = true
		}
	}
	pods := e.observed.Snapshot().PodsOnNode[node.Name]
	e.mu.Lock()
	defer e.mu.Unlock()
	current := e.open(node.Name)
	if current != nil && taken && current.taken.IsZero() {
		current.taken = time.Now()
	}
	switch {
	case current == nil && tainted && !gone:
		since, err := time.Parse("20060102T150405Z", value)
		if err != nil {
			e.Errorf("node %s drains since %q: %v", node.Name, value, err)
		}
		e.drains = append(e.drains, &drain{node: node.Name, since: since, seen: time.Now(), pods: pods})
		e.Logf("%5.1f s: node %s begins to drain, with %d pods", time.Since(e.begin).Seconds(), node.Name, pods)
	case current != nil && (gone || !tainted):
		current.ended, current.withNode = time.Now(), gone && tainted
		e.Logf("%5.1f s: node %s drained for %.1f s; removed: %t", time.Since(e.begin).Seconds(), node.Name, time.Since(current.seen).Seconds(), current.withNode)
	}
}

// open is the drain of a node that has not ended; nil if there is none. The lock must be held.
func (e *evening) open(node string) *drain {
	for _, d := range e.drains {
		if d.node == node && d.ended.IsZero() {
			return d
		}
	}
	return nil
}

func (e *evening) notePod(pod *corev1.Pod) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if node := pod.Status.NominatedNodeName; node != "" && e.nominated[pod.Name] == "" {
		e.nominated[pod.Name] = node
	}
}

// nominatedTo is the node that a pod was nominated to, if it ever was.
func (e *evening) nominatedTo(pod string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.nominated[pod]
}

// drainsSoFar are copies.
func (e *evening) drainsSoFar() []drain {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []drain
	for _, d := range e.drains {
		all = append(all, *d)
	}
	return all
}

func (e *evening) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// await waits until a state is as it should be, for as long as what is seen of it changes, within reason.
func (e *evening) await(what string, state func() (seen string, ok bool)) {
	e.Helper()
	begin := time.Now()
	last, changed := "", time.Now()
	for {
		seen, ok := state()
		if ok {
			e.Logf("%5.1f s: %s, after %.1f s", time.Since(e.begin).Seconds(), what, time.Since(begin).Seconds())
			return
		}
		if seen != last {
			last, changed = seen, time.Now()
		}
		if name := e.c.Failed(); name != "" && !slices.Contains(e.down, name) {
			e.Fatalf("%s ended by itself: see %s", name, filepath.Join(e.c.Dir, "logs", name+".log"))
		}
		if e.ctx.Err() != nil || time.Since(changed) > stuckAfter || time.Since(begin) > tooLong {
			e.Fatalf("waited %s for this, the last %s without a change: %s: %s", time.Since(begin), time.Since(changed), what, seen)
		}
		if e.observed.Snapshot().Pending > 0 {
			e.lastPending = time.Now()
		}
		e.flow()
		time.Sleep(50 * time.Millisecond)
	}
}

// flow lets the trickle flow.
func (e *evening) flow() {
	ends := e.settled.Ends()
	e.trickled = slices.DeleteFunc(e.trickled, func(id string) bool { return len(ends[id]) > 0 })
	if e.trickle && len(e.trickled) == 0 {
		e.trickled = e.publish(trickleScan)
	}
}

// ebbed reports whether only the trickle is left, and no node drains.
func (e *evening) ebbed() bool {
	ends := e.settled.Ends()
	return e.observed.Snapshot().Pending == 0 &&
		!slices.ContainsFunc(e.sent, func(id string) bool { return len(ends[id]) == 0 && !slices.Contains(e.trickled, id) }) &&
		!slices.ContainsFunc(e.drainsSoFar(), func(d drain) bool { return d.ended.IsZero() })
}

// publish sends scans that take so many seconds each.
func (e *evening) publish(seconds ...float64) (ids []string) {
	for _, s := range seconds {
		id := fmt.Sprintf("evening-%03d", len(e.sent))
		e.must(e.sender.Publish(e.ctx, scans.Scan{ID: id, Seconds: s}))
		e.settled.Published()
		e.sent, ids = append(e.sent, id), append(ids, id)
	}
	return ids
}

// burst is so many scans, of which every fourth takes long.
func burst(scans int) (seconds []float64) {
	for i := range scans {
		seconds = append(seconds, map[bool]float64{true: longScan, false: shortScan}[i%4 == 3])
	}
	return seconds
}

// nodes of the NodePool, as the scheduler knows them.
func (e *evening) nodes() (views []fleet.View) {
	e.Helper()
	for _, v := range explained[fleet.View](e.ctx, e.T, e.c, "/nodes") {
		if v.Allocatable[0] > 0 {
			views = append(views, v)
		}
	}
	return views
}

// described are nodes in a few words: of each the pods, the busy and the idle workers.
func described(views []fleet.View) string {
	var words []string
	for _, v := range views {
		word := fmt.Sprintf("%d:%d+%d", v.Pods, v.BusyWorkers, v.IdleWorkers)
		if v.Draining != nil {
			word += " drains"
		}
		if v.Leaving {
			word += " leaves"
		}
		words = append(words, word)
	}
	return fmt.Sprintf("nodes (pods:busy+idle) are [%s]", strings.Join(words, ", "))
}

// drainingNode: a burst ebbs to a trickle, and a node with a busy worker drains.
func (e *evening) drainingNode() drain {
	e.Helper()
	for range rounds {
		e.publish(burst(20)...)
		e.await("the burst has nodes", func() (string, bool) {
			views := e.nodes()
			return described(views), len(views) >= 3 && e.observed.Running() >= 12
		})
		e.trickle = true
		var found *drain
		e.await("a node with a busy worker drains, or all has ebbed", func() (string, bool) {
			views := e.nodes()
			for _, v := range views {
				for _, d := range e.drainsSoFar() {
					if d.node == v.Name && d.ended.IsZero() && !v.Leaving && v.BusyWorkers > 0 {
						found = &d
					}
				}
			}
			return described(views), found != nil || e.ebbed()
		})
		e.trickle = false
		if found != nil {
			return *found
		}
	}
	e.Fatal("no node with a busy worker drained")
	return drain{}
}

// endOf waits for a drain's end.
func (e *evening) endOf(d drain) drain {
	e.Helper()
	e.await("the drain of that node has ended", func() (string, bool) {
		for _, now := range e.drainsSoFar() {
			if now.node == d.node && now.seen.Equal(d.seen) {
				d = now
			}
		}
		return described(e.nodes()), !d.ended.IsZero()
	})
	return d
}

// interruptedDrain: a second burst comes while a node drains, and ends that drain: the node takes pods again.
func (e *evening) interruptedDrain() {
	for range rounds {
		d := e.drainingNode()
		e.publish(burst(30)...)
		if d = e.endOf(d); !d.withNode {
			return
		}
		// Karpenter removed the node before the burst's pods came.
	}
	e.Fatal("no drain of a node with a busy worker was interrupted")
}

// large creates a pod that needs the room of all idle workers of a node. Where others have as much, pods of somebody else take it before. It returns
// the NodeClaims that there were before.
func (e *evening) large() (name string, before []string) {
	e.Helper()
	name = fmt.Sprintf("large-%d", e.larges)
	e.larges++
	cpu, filled := int64(0), map[string]int64{}
	e.await("a node has idle workers to give way", func() (string, bool) {
		if e.settled.Open() == 0 {
			e.publish(burst(20)...) // the moment was missed
		}
		views := e.nodes()
		var most fleet.View
		for _, v := range views {
			if v.Leaving || v.Draining != nil {
				return described(views), false
			}
			if v.IdleWorkers > most.IdleWorkers {
				most = v
			}
		}
		cpu = most.Allocatable[0] - most.Used[0] + workerCPU*int64(most.IdleWorkers) - 100
		clear(filled)
		for _, v := range views {
			if free := v.Allocatable[0] - v.Used[0]; free >= cpu {
				filled[v.Name] = free
			}
		}
		before = e.claims()
		// Karpenter must be done with earlier pods: it looks at those of some three seconds together.
		done := time.Since(e.lastPending) > 4*time.Second && len(before) == len(views)
		return described(views), done && most.IdleWorkers >= 2
	})
	var fillers []string
	for node, free := range filled {
		filler := fmt.Sprintf("%s-filler-%d", name, len(fillers))
		fillers = append(fillers, filler)
		e.must(e.c.ApplyYAML(e.ctx, []byte(otherPod(filler, free, "nodeName: "+node))))
	}
	e.await("what is free elsewhere is taken", func() (string, bool) {
		seen := 0
		for _, p := range e.observed.Pods() {
			if slices.Contains(fillers, p.Name) {
				seen++
			}
		}
		return fmt.Sprintf("%d of %d pods for it are seen", seen, len(fillers)), seen == len(fillers)
	})
	e.Logf("%s needs %dm", name, cpu)
	e.must(e.c.ApplyYAML(e.ctx, []byte(otherPod(name, cpu, fmt.Sprintf("nodeSelector: {%s: %s}", scans.NodePoolLabel, scans.NodePoolName)))))
	return name, before
}

func (e *evening) pod(name string) *corev1.Pod {
	e.Helper()
	pod, err := e.client.CoreV1().Pods(scans.Namespace).Get(e.ctx, name, metav1.GetOptions{})
	e.must(err)
	return pod
}

// givenWay: idle workers leave for a large pod, and it runs on their node. No node is made for it.
func (e *evening) givenWay() {
	for range rounds {
		name, before := e.large()
		created := time.Now()
		e.await("the large pod has a node", func() (string, bool) {
			return fmt.Sprintf("nominated to %q; %s", e.nominatedTo(name), described(e.nodes())), e.pod(name).Spec.NodeName != ""
		})
		took := time.Since(created)
		if e.nominatedTo(name) == "" {
			e.Logf("%s found room before workers were asked for it", name)
			e.publish(burst(20)...)
			continue
		}
		e.Logf("%s had a node after %.1f s", name, took.Seconds())
		e.checkLarge(e.pod(name), e.nominatedTo(name), before, took)
		return
	}
	e.Fatal("no large pod was nominated to a node with idle workers")
}

func (e *evening) checkLarge(pod *corev1.Pod, nominated string, before []string, took time.Duration) {
	e.Helper()
	if pod.Spec.NodeName != nominated {
		e.Errorf("%s is on %s, and was nominated to %s", pod.Name, pod.Spec.NodeName, nominated)
	}
	if took > cluster.RoomWithin {
		e.Errorf("%s had a node after %s, want less than %s", pod.Name, took, cluster.RoomWithin)
	}
	node, err := e.client.CoreV1().Nodes().Get(e.ctx, pod.Spec.NodeName, metav1.GetOptions{})
	e.must(err)
	if !node.CreationTimestamp.Time.Before(pod.CreationTimestamp.Time) {
		e.Errorf("%s is on %s, which was made at %s, after the pod (%s)", pod.Name, node.Name, node.CreationTimestamp, pod.CreationTimestamp)
	}
	if after := e.claims(); slices.ContainsFunc(after, func(claim string) bool { return !slices.Contains(before, claim) }) {
		e.Errorf("Karpenter made a node for %s: NodeClaims %v, before it %v", pod.Name, after, before)
	}
	var gave []string
	for _, p := range explained[placement.Placement](e.ctx, e.T, e.c, "/placements?limit=1000&namespace="+scans.Namespace) {
		if p.Pod == pod.Name {
			gave = p.GaveWay
		}
	}
	if len(gave) < 2 {
		e.Errorf("%v gave way to %s, want at least two workers", gave, pod.Name)
	}
	e.await("the large pod has run, and those who gave way say so", func() (string, bool) {
		seen, done := []string{}, true
		for _, p := range e.observed.Pods() {
			switch {
			case slices.Contains(gave, p.Name):
				why, _ := p.Left()
				seen, done = append(seen, fmt.Sprintf("%s left: %q", p.Name, why)), done && why == "yielded"
			case p.Name == pod.Name:
				seen, done = append(seen, fmt.Sprintf("%s ran: %t", p.Name, !p.Running.IsZero())), done && !p.Ended.IsZero() && !p.CutShort
			}
		}
		return strings.Join(seen, ", "), done && len(seen) == len(gave)+1
	})
	e.await("events say who gave way", func() (string, bool) {
		given := e.events("GivenWay", pod.Name)
		return fmt.Sprint(given), len(given) == 1 && strings.Contains(given[0].Note, pod.Spec.NodeName)
	})
	if made := e.events("Nominated", pod.Name); len(made) > 0 {
		e.Errorf("Karpenter saw to %s: %s", pod.Name, made[0].Note)
	}
}

// claims are the names of Karpenter's NodeClaims.
func (e *evening) claims() (names []string) {
	e.Helper()
	var list unstructured.UnstructuredList
	list.SetAPIVersion("karpenter.sh/v1")
	list.SetKind("NodeClaimList")
	e.must(e.c.Client().List(e.ctx, &list))
	for _, claim := range list.Items {
		names = append(names, claim.GetName())
	}
	return names
}

// events of a reason about an object, or about all if its name is "".
func (e *evening) events(reason, name string) (found []eventsv1.Event) {
	e.Helper()
	list, err := e.client.EventsV1().Events("").List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for _, event := range list.Items {
		if event.Reason == reason && (name == "" || event.Regarding.Name == name) {
			found = append(found, event)
		}
	}
	return found
}

// ebb: while the trickle flows, nodes that have workers drain until they are empty, and Karpenter removes them.
func (e *evening) ebb() {
	e.trickle = true
	removed, begin := 0, time.Now()
	for range rounds {
		e.await("two nodes with workers have drained and are removed, or all has ebbed", func() (string, bool) {
			removed = 0
			for _, d := range e.drainsSoFar() {
				if d.withNode && d.pods > 0 && d.ended.After(begin) {
					removed++
				}
			}
			return fmt.Sprintf("%d removed; %s", removed, described(e.nodes())), removed >= 2 || e.ebbed()
		})
		if removed >= 2 {
			return
		}
		e.publish(burst(20)...)
	}
	e.Fatalf("%d nodes that had workers have drained and are removed, want 2", removed)
}

// night: the trickle ends. Every scan ends, workers leave and the last nodes are removed.
func (e *evening) night() {
	e.trickle = false
	e.await("nothing is left", func() (string, bool) {
		s := e.observed.Snapshot()
		return fmt.Sprintf("%d scans open, %d jobs unfinished, pods on nodes %v", e.settled.Open(), s.UnfinishedJobs, scans.PerNode(s)),
			e.settled.Open() == 0 && s.UnfinishedJobs == 0 && len(s.PodsOnNode) == 0
	})
}

// failures: the leader dies where a drain or a promise is open. Nothing is lost, nothing stays.
func (e *evening) failures() {
	d := e.drainingNode()
	e.trickle = true
	e.down = []string{cluster.Scheduler, cluster.Karpenter}
	e.must(e.c.Crash(e.down...))
	done := e.settled.Done()
	e.await("scans end without a leader", func() (string, bool) {
		return fmt.Sprintf("%d more", e.settled.Done()-done), e.settled.Done() >= done+3
	})
	e.must(e.c.Restart(e.ctx, e.down...))
	e.down = nil
	e.trickle = false
	e.publish(burst(30)...) // who places pods leads
	if d = e.endOf(d); d.ended.Sub(d.since) > cluster.DrainLongest {
		e.Errorf("node %s drained for %s", d.node, d.ended.Sub(d.since))
	}

	for range rounds {
		name, _ := e.large()
		// Workers leave within a tenth of a second, so the leader must die at once.
		for e.nominatedTo(name) == "" && e.pod(name).Spec.NodeName == "" {
			e.must(e.ctx.Err())
		}
		e.must(e.c.Crash(cluster.Scheduler))
		placed := e.pod(name).Spec.NodeName != ""
		e.must(e.c.Restart(e.ctx, cluster.Scheduler))
		e.await("the large pod has run", func() (string, bool) {
			pod := e.pod(name)
			return fmt.Sprintf("phase %s, node %q, nominated to %q", pod.Status.Phase, pod.Spec.NodeName, pod.Status.NominatedNodeName),
				pod.Status.Phase == corev1.PodSucceeded
		})
		if !placed {
			e.Logf("%s was nominated to %s when the leader died, and ran on %s", name, e.nominatedTo(name), e.pod(name).Spec.NodeName)
			return
		}
		e.publish(burst(20)...) // it had a node before the leader died
	}
	e.Fatal("the leader never died between a pod's nomination and its placement")
}

// brokerDies while a node with a busy worker drains. All workers leave, and other ones take their messages. The node drains no longer than it may.
func (e *evening) brokerDies() {
	d := e.drainingNode()
	e.must(e.settled.Pause())
	e.mayRepeat, e.brokerDied = e.observed.Running(), time.Now()
	e.c.Broker.Crash()
	time.Sleep(brokerAbsence) // the failure's length, which is what is tried
	e.must(e.c.Broker.Restart(e.ctx))
	e.must(e.settled.Resume(e.connect()))
	if d = e.endOf(d); d.ended.Sub(d.since) > cluster.DrainLongest {
		e.Errorf("node %s drained for %s", d.node, d.ended.Sub(d.since))
	}
	e.publish(burst(20)...)
}

// checkScans: every scan has one result and was begun once, and no pod that ran was cut short, except for those that ran when the broker died.
func (e *evening) checkScans() {
	ends, redelivered, begun, repeated := e.settled.Ends(), 0, 0, 0
	for _, id := range e.sent {
		got := ends[id]
		if len(got) == 0 || slices.ContainsFunc(got, func(end scans.End) bool { return end.Dead }) {
			e.Errorf("%s ended as %+v, want a result", id, got)
		} else if got[0].Deliveries > 0 {
			redelivered++
		}
		if len(got) > 1 {
			repeated++
		}
	}
	if repeated > e.mayRepeat {
		e.Errorf("%d scans have several results, want at most %d", repeated, e.mayRepeat)
	}
	if len(ends) != len(e.sent) {
		e.Errorf("%d scans ended, %d were sent", len(ends), len(e.sent))
	}
	for _, p := range e.observed.Pods() {
		_, messages := p.Left()
		begun += messages
	}
	if begun < len(e.sent) || begun > len(e.sent)+e.mayRepeat {
		e.Errorf("workers began %d scans, %d were sent and at most %d may be begun again", begun, len(e.sent), e.mayRepeat)
	}
	for _, p := range e.observed.Pods() {
		// One that was deleted before it ran cuts no scan short: on a busy machine the taint manager has not always heard that a new node lost the
		// taint karpenter.sh/unregistered.
		lostBroker := p.Running.Before(e.brokerDied) && p.Ended.Sub(e.brokerDied).Abs() < 15*time.Second
		if p.CutShort && !p.Running.IsZero() && !lostBroker {
			e.Errorf("pod %s on node %q ended after %s without success, with exit code %d; it ran for %s", p.Name, p.Node,
				p.Ended.Sub(e.begin), p.ExitCode, p.Ended.Sub(p.Running))
		}
	}
	s := e.observed.Snapshot()
	// A broker may deliver to a consumer that it has cancelled. Such a message is delivered again before anybody began it.
	e.Logf("%d messages were delivered again", redelivered)
	waits := e.settled.Waits()
	e.Logf("%d scans by %d jobs; waits p50 %.1f s, p95 %.1f s", len(e.sent), s.Jobs, scans.Percentile(waits, 50), scans.Percentile(waits, 95))
}

// checkDrains: what was seen of taints.
func (e *evening) checkDrains() {
	const late = 15 * time.Second // a look, a write, and a watch on a machine that is busy
	for _, d := range e.drainsSoFar() {
		switch {
		case d.ended.IsZero():
			e.Errorf("node %s is gone, and its taint was never seen to end", d.node)
		case d.ended.Sub(d.since) > cluster.DrainLongest+late:
			e.Errorf("node %s drained from %s to %s, want at most %s", d.node, d.since, d.ended, cluster.DrainLongest)
		case d.withNode && d.taken.IsZero():
			e.Errorf("node %s drained, and somebody other than Karpenter removed it", d.node)
		}
		if d.seen.Sub(d.since).Abs() > late {
			e.Errorf("the taint of node %s says %s, and was seen at %s", d.node, d.since, d.seen)
		}
		if !d.withNode {
			continue
		}
		for _, p := range e.observed.Pods() {
			if p.Node != d.node {
				continue
			}
			// Seconds of both are whole, and Karpenter may decide at the time at which the pod comes.
			if p.Bound.After(d.seen.Add(2*time.Second)) && p.Bound.Add(10*time.Second).Before(d.taken) {
				e.Errorf("pod %s came to node %s, which had drained for %s, and its drain did not end", p.Name, d.node, p.Bound.Sub(d.seen))
			}
			if p.Ended.After(d.ended) {
				e.Errorf("pod %s ended after its node %s", p.Name, d.node)
			}
		}
	}
	yielded := 0
	for _, p := range e.observed.Pods() {
		if why, _ := p.Left(); why == "yielded" && slices.ContainsFunc(e.drainsSoFar(), func(d drain) bool {
			return d.node == p.Node && d.withNode && p.Ended.After(d.seen) && p.Bound.Before(d.seen)
		}) {
			yielded++
		}
	}
	if yielded == 0 {
		e.Error("no worker left because its node drained")
	}
	e.Logf("%d workers left because their nodes drained", yielded)
}

// checkController: the controller's events and metrics are those of the taints and nominations that were seen.
func (e *evening) checkController() {
	begun, stopped := map[string]bool{}, map[string]bool{}
	wantMetrics := map[string]float64{"ebbtide_draining_nodes": 0}
	for _, d := range e.drainsSoFar() {
		begun[d.node] = true
		wantMetrics["ebbtide_draining_begun_total"]++
		if d.withNode {
			wantMetrics[`ebbtide_draining_ended_total{reason="finished"}`]++
		} else {
			stopped[d.node] = true
			wantMetrics[`sum(ebbtide_draining_ended_total{reason!="finished"})`]++
		}
	}
	e.mu.Lock()
	wantMetrics["ebbtide_draining_nominations_total"] = float64(len(e.nominated))
	wantMetrics["sum(ebbtide_draining_promises_total)"] = float64(len(e.nominated))
	e.mu.Unlock()
	regarded := func(reason string) map[string]bool {
		names := map[string]bool{}
		for _, event := range e.events(reason, "") {
			names[event.Regarding.Name] = true
		}
		return names
	}
	e.await("events agree with taints", func() (string, bool) {
		gotBegun, gotStopped := regarded("DrainBegun"), regarded("DrainStopped")
		return fmt.Sprintf("drains began on %v, want %v; and stopped on %v, want %v", gotBegun, begun, gotStopped, stopped),
			maps.Equal(gotBegun, begun) && maps.Equal(gotStopped, stopped)
	})
	client, err := api.NewClient(api.Config{Address: e.c.PrometheusURL()})
	e.must(err)
	prometheus := promv1.NewAPI(client)
	query := func(expr string) float64 {
		value, _, err := prometheus.Query(e.ctx, expr, time.Now())
		e.must(err)
		if vector, ok := value.(model.Vector); ok && len(vector) == 1 {
			return float64(vector[0].Value)
		}
		return -1
	}
	e.await("metrics agree with taints and nominations", func() (string, bool) {
		var wrong []string
		for expr, want := range wantMetrics {
			if got := query(expr); got != want {
				wrong = append(wrong, fmt.Sprintf("%s is %v, want %v", expr, got, want))
			}
		}
		slices.Sort(wrong)
		return strings.Join(wrong, "; "), len(wrong) == 0
	})
	for expr, least := range map[string]float64{
		`ebbtide_draining_promises_total{result="kept"}`:        1,
		`ebbtide_draining_workers_sent_away_total{for="yield"}`: 2,
	} {
		if got := query(expr); got < least {
			e.Errorf("%s is %v, want at least %v", expr, got, least)
		}
	}
}

// otherPod is a pod that is no worker, with a line that says where it is to run. It runs for a while.
func otherPod(name string, milliCPU int64, where string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, annotations: {e2e.ebbtide.dev/run-for: 5s}}
spec:
  schedulerName: ebbtide
  restartPolicy: Never
  %s
  tolerations: [{key: ebbtide.dev/scan, operator: Exists}]
  automountServiceAccountToken: false
  containers: [{name: main, image: main, resources: {requests: {cpu: %dm, memory: 100Mi}}}]
`, name, scans.Namespace, where, milliCPU)
}
