package drainpack

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	configv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/internal/tlsfiles"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/draining"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lifetime"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/streams"
)

// DrainingTaint is on a node that drains. Its value says since when, so that the next leader continues from there, and no drain outlasts
// DrainingArgs.Longest.
const DrainingTaint = "ebbtide.dev/draining"

// keptAnnotation keeps a node from being drained.
const keptAnnotation, karpenterKeptAnnotation = "ebbtide.dev/do-not-drain", "karpenter.sh/do-not-disrupt"

// sinceFormat of the taint's value, as a label's value has no colon.
const sinceFormat = "20060102T150405Z"

const (
	// waitsFor is how long a pod that finds no room keeps nodes from draining: by then an autoscaler has made a node, or never will.
	waitsFor = 5 * time.Minute
	// startsWithin is how long a node that is not ready counts as one that starts.
	startsWithin = 10 * time.Minute
	// obeysWithin is how soon an idle worker leaves after it was told to; one that has not left by then has got a message.
	obeysWithin = 10 * time.Second
	// leadPoll is how often a scheduler that stands by looks whether it leads.
	leadPoll = time.Second
)

// drains carries out package draining in the scheduler that leads: it hears workers, tells them to leave, and taints nodes. All that has to
// outlast it is in taints.
type drains struct {
	pack     *DrainPack
	args     configv1.DrainingArgs
	server   *streams.Server
	security credentials.TransportCredentials
	writes   *rate.Limiter
	// times are those of messages, which say more than run times of workers that take many.
	times *lifetime.Estimator
	// placing is true once a pod was placed: who places pods leads. leading is true from then on, or since the election says so.
	placing, leading atomic.Bool
	wake             chan struct{} // somebody's state has changed

	mu     sync.Mutex
	pods   map[string]*occupant            // on nodes, by UID
	byNode map[string]map[string]*occupant // the same by node
	// lastWork on nodes.
	lastWork map[string]time.Time
	// waiting pods that found no room, by UID.
	waiting  map[string]waiter
	promises map[string]*promise
}

// occupant is a pod that keeps its node, or follows it.
type occupant struct {
	uid, namespace, name, node, class string
	requests                          packing.Amounts
	priority                          int32
	follower, deleting                bool
	addresses                         []string
	bound                             time.Time
	// attends says that it is a worker with a stream, which says state; since when it is busy with a message: the zero time when that is not known.
	attends bool
	state   streams.State
	busy    time.Time
	// messages it has begun.
	messages int
	// yields until then, for a reason; told since when, while it is idle.
	yields time.Time
	why    string
	told   time.Time
}

func newDrains(pack *DrainPack, args configv1.DrainingArgs) (*drains, error) {
	x := &drains{
		pack: pack, args: args, security: insecure.NewCredentials(), times: lifetime.New(lifetime.Options{}), wake: make(chan struct{}, 1),
		writes: rate.NewLimiter(rate.Limit(float64(args.TaintsPerHour)/3600), max(1, args.TaintsPerHour/10)),
		pods:   map[string]*occupant{}, byNode: map[string]map[string]*occupant{}, lastWork: map[string]time.Time{},
		waiting: map[string]waiter{}, promises: map[string]*promise{},
	}
	if files := (tlsfiles.Files{Cert: args.CertFile, Key: args.KeyFile, CA: args.ClientCAFile}); files.Set() {
		if err := files.Check(); err != nil {
			return nil, fmt.Errorf("draining: certFile, keyFile, clientCAFile: %w", err)
		}
		server, err := tlsfiles.NewServer(files)
		if err != nil {
			return nil, fmt.Errorf("draining: certFile, keyFile, clientCAFile: %w", err)
		}
		x.security = credentials.NewTLS(server.Config())
	}
	x.server = streams.New(streams.Options{
		Pod: x.find, AnyAddress: args.AnyAddress, MaxStreams: args.MaxWorkers, Observe: x.observe, Gone: x.gone, Now: pack.now,
	})
	return x, nil
}

// watch keeps up to pods and nodes.
func (x *drains) watch() error {
	shared := x.pack.handle.SharedInformerFactory().Core().V1()
	if _, err := shared.Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { x.setPod(object.(*v1.Pod)) },
		UpdateFunc: func(_, object any) { x.setPod(object.(*v1.Pod)) },
		DeleteFunc: func(object any) {
			if pod, ok := last(object).(*v1.Pod); ok {
				x.forget(string(pod.UID))
			}
		},
	}); err != nil {
		return err
	}
	_, err := shared.Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(object any) {
		if node, ok := last(object).(*v1.Node); ok {
			x.mu.Lock()
			defer x.mu.Unlock()
			delete(x.lastWork, node.Name)
			if x.leading.Load() && !drainingSince(node, x.pack.now()).IsZero() {
				drainsEnded.WithLabelValues(endFinished).Inc()
			}
		}
	}})
	return err
}

// run serves workers and drains nodes from when this scheduler leads until ctx ends.
func (x *drains) run(ctx context.Context) {
	if !x.lead(ctx) {
		return
	}
	x.leading.Store(true)
	go x.serve(ctx)
	tick := time.NewTicker(x.args.Every.Duration)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			x.look(ctx)
		case <-x.wake:
			x.tell()
			// Changes within this time are sent together, as workers start and end often.
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// lead waits until this scheduler leads, which it does for as long as it runs then: the election says so, or a pod came to be placed. It
// reports whether ctx still runs.
func (x *drains) lead(ctx context.Context) bool {
	for !x.placing.Load() && !elected() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(leadPoll):
		}
	}
	return true
}

// elected is what the election says of this process, in the only place where a plugin can see it.
func elected() bool {
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		return false
	}
	for _, family := range families {
		if family.GetName() == "leader_election_master_status" {
			for _, m := range family.GetMetric() {
				if m.GetGauge().GetValue() == 1 {
					return true
				}
			}
		}
	}
	return false
}

// serve listens, and tries again when it can't.
func (x *drains) serve(ctx context.Context) {
	logger := klog.FromContext(ctx)
	for ctx.Err() == nil {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", x.args.ListenAddress)
		if err == nil {
			logger.Info("Workers may connect", "address", listener.Addr().String())
			err = x.server.Serve(ctx, listener, x.security)
		}
		if ctx.Err() == nil {
			logger.Error(err, "Workers can't connect: trying again", "address", x.args.ListenAddress)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
		}
	}
}

func (x *drains) poke() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// find implements streams.Options.Pod.
func (x *drains) find(uid string) (streams.Pod, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.pods[uid]
	if p == nil {
		return streams.Pod{}, false
	}
	return streams.Pod{Name: p.name, Addresses: p.addresses}, true
}

// observe implements streams.Options.Observe.
func (x *drains) observe(uid string, state streams.State, at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.pods[uid]
	if p == nil {
		return
	}
	id := fmt.Sprint(uid, "/", p.messages)
	if p.attends && p.state == streams.Busy {
		x.lastWork[p.node] = at
		if !p.busy.IsZero() {
			x.times.Finished(id, p.class, 0, at.Sub(p.busy), at, true)
		}
	}
	// What a worker was at when its stream opened may have begun long before.
	p.busy = time.Time{}
	if p.attends && state == streams.Busy {
		p.busy = at
		p.messages++
	}
	p.attends, p.state = true, state
	if state != streams.Idle {
		p.told = time.Time{}
	}
	x.poke()
}

// gone implements streams.Options.Gone.
func (x *drains) gone(uid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p := x.pods[uid]; p != nil && p.state != streams.Leaving {
		p.attends, p.state, p.busy, p.told = false, streams.Busy, time.Time{}, time.Time{}
		x.poke()
	}
}

func (x *drains) setPod(pod *v1.Pod) {
	uid := string(pod.UID)
	if pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
		x.forget(uid)
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if pod.Spec.NodeName == "" {
		if since := unschedulableSince(pod); !since.IsZero() {
			x.wait(pod, since)
		}
		return
	}
	delete(x.waiting, uid)
	p := x.pods[uid]
	if p == nil {
		described := x.pack.describePod(pod, requests(pod))
		p = &occupant{
			uid: uid, namespace: pod.Namespace, name: pod.Name, node: pod.Spec.NodeName, class: described.Class, requests: described.Requests,
			priority: corev1.PodPriority(pod), follower: described.Follower,
		}
		x.pods[uid] = p
		if x.byNode[p.node] == nil {
			x.byNode[p.node] = map[string]*occupant{}
		}
		x.byNode[p.node][uid] = p
		x.poke()
	}
	p.requests, p.deleting, p.bound = amountsOf(requests(pod)), endsSoon(pod), boundAt(pod)
	p.addresses = p.addresses[:0:0]
	for _, ip := range pod.Status.PodIPs {
		p.addresses = append(p.addresses, ip.IP)
	}
}

// waiter is a pod that found no room at that time for the first time.
type waiter struct {
	pod   *v1.Pod
	since time.Time
}

// wait notes that a pod found no room. A DaemonSet's does not count: it waits for room on its own node. The lock must be held.
func (x *drains) wait(pod *v1.Pod, since time.Time) {
	uid := string(pod.UID)
	if _, known := x.waiting[uid]; known || x.pack.describePod(pod, nil).Follower {
		return
	}
	x.waiting[uid] = waiter{pod, since}
}

func (x *drains) forget(uid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.waiting, uid)
	delete(x.promises, uid)
	p := x.pods[uid]
	if p == nil {
		return
	}
	if !p.follower && p.state == streams.Busy {
		x.lastWork[p.node] = x.pack.now()
	}
	delete(x.pods, uid)
	if delete(x.byNode[p.node], uid); len(x.byNode[p.node]) == 0 {
		delete(x.byNode, p.node)
	}
	if p.attends {
		x.server.End(uid)
	}
	x.poke()
}

func (x *drains) nodes() corelisters.NodeLister {
	return x.pack.handle.SharedInformerFactory().Core().V1().Nodes().Lister()
}

// unschedulableSince is when a scheduler, any, first said of a pod that it finds no room; the zero time if none does.
func unschedulableSince(pod *v1.Pod) time.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse && c.Reason == v1.PodReasonUnschedulable {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

func boundAt(pod *v1.Pod) time.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Status == v1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// endsSoon reports whether a pod is deleted, and may not take long to end.
func endsSoon(pod *v1.Pod) bool {
	grace := pod.DeletionGracePeriodSeconds
	return pod.DeletionTimestamp != nil && (grace == nil || time.Duration(*grace)*time.Second <= v1.DefaultTerminationGracePeriodSeconds*time.Second)
}

// drainingSince is when a node began to drain by its taint; the zero time when it has none. A time that can't be read, or is still to come
// now, is long ago: such a drain ends.
func drainingSince(node *v1.Node, now time.Time) time.Time {
	for i := range node.Spec.Taints {
		if t := &node.Spec.Taints[i]; t.Key == DrainingTaint {
			since, err := time.Parse(sinceFormat, t.Value)
			if err != nil || since.Sub(now) > time.Minute {
				return time.Unix(0, 0)
			}
			return since
		}
	}
	return time.Time{}
}

// stateOf is a pod's, to package draining.
func (x *drains) stateOf(p *occupant, now time.Time) draining.State {
	switch {
	case p.state == streams.Leaving || p.deleting && (!p.attends || p.state != streams.Busy):
		return draining.Leaving
	case !p.attends || p.state != streams.Idle || p.follower:
		return draining.Busy
	case p.told.IsZero() && now.Before(p.yields):
		return draining.Leaving // it is told in a moment
	case p.told.IsZero():
		return draining.Idle
	case now.Sub(p.told) < obeysWithin:
		return draining.Leaving
	default:
		return draining.Busy // it does not listen
	}
}

// remaining of a busy pod.
func (x *drains) remaining(p *occupant, now time.Time) time.Duration {
	if !p.attends {
		return x.pack.fleet.Remaining(p.uid, now)
	}
	age := time.Duration(0)
	if !p.busy.IsZero() {
		age = max(0, now.Sub(p.busy))
	}
	return x.times.Expect(p.class, 0, now).Remaining(age, 0.5)
}

// describe makes what package draining needs to know of a node.
func (x *drains) describe(node *v1.Node, now time.Time) draining.Node {
	n := draining.Node{
		Name: node.Name, Created: node.CreationTimestamp.Time, Free: allocatableOf(node.Status.Allocatable), Draining: drainingSince(node, now),
		Closed: leaving(node) || !ready(node),
		Kept: node.Annotations[keptAnnotation] == "true" || node.Annotations[karpenterKeptAnnotation] == "true" || controlPlane(node) ||
			!labels.SelectorFromSet(x.args.NodeSelector).Matches(labels.Set(node.Labels)),
	}
	for _, uid := range slices.Sorted(maps.Keys(x.byNode[node.Name])) {
		p := x.byNode[node.Name][uid]
		n.Free = n.Free.Minus(p.requests)
		if p.follower {
			continue
		}
		described := draining.Pod{ID: uid, Requests: p.requests, Priority: p.priority, State: x.stateOf(p, now)}
		if described.State == draining.Busy {
			described.Remaining = x.remaining(p, now)
		}
		n.Pods = append(n.Pods, described)
	}
	return n
}

func ready(node *v1.Node) bool {
	for i := range node.Status.Conditions {
		if c := &node.Status.Conditions[i]; c.Type == v1.NodeReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func controlPlane(node *v1.Node) bool {
	_, labelled := node.Labels["node-role.kubernetes.io/control-plane"]
	return labelled
}

// poolLabels tell nodes apart that take different pods.
var poolLabels = []string{
	"karpenter.sh/nodepool", "eks.amazonaws.com/nodegroup", "cloud.google.com/gke-nodepool", "kubernetes.azure.com/agentpool",
	"kubernetes.io/os", "kubernetes.io/arch",
}

// poolOf is a name for the nodes among which pods may move: those of one pool, with the same taints.
func poolOf(node *v1.Node) string {
	var parts []string
	for _, label := range poolLabels {
		parts = append(parts, node.Labels[label])
	}
	var taints []string
	for i := range node.Spec.Taints {
		if t := &node.Spec.Taints[i]; t.Effect != v1.TaintEffectPreferNoSchedule {
			taints = append(taints, t.ToString())
		}
	}
	slices.Sort(taints)
	return strings.Join(append(parts, taints...), "|")
}

// stop is a drain that is to end, with its node.
type stop struct {
	node *v1.Node
	why  draining.Reason
}

// look decides on drains and carries out what was decided.
func (x *drains) look(ctx context.Context) {
	logger := klog.FromContext(ctx)
	nodes, err := x.nodes().List(labels.Everything())
	if err != nil {
		logger.Error(err, "Nodes can't be listed")
		return
	}
	begin, end := x.decide(nodes)
	for _, s := range end {
		if x.taint(ctx, s.node, false) {
			drainsEnded.WithLabelValues(endOf(s.why)).Inc()
			x.event(s.node, "DrainStopped", "The node takes pods again: %s", s.why)
			logger.V(2).Info("Drain stops", "node", s.node.Name, "reason", s.why)
		}
	}
	for _, node := range begin {
		if x.writes.AllowN(x.pack.now(), 1) && x.taint(ctx, node, true) {
			drainsBegun.Inc()
			x.event(node, "DrainBegun", "The node's pods fit on other nodes: it gets no more pods, and its workers leave after their message")
			logger.V(2).Info("Drain begins", "node", node.Name)
		}
	}
	x.tell()
}

// decide says which nodes begin to drain and which end.
func (x *drains) decide(nodes []*v1.Node) (begin []*v1.Node, end []stop) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.pack.now()
	byName, pools := map[string]*v1.Node{}, map[string]*draining.Fleet{}
	starting, oldest, drains := 0, time.Duration(0), 0
	for _, node := range nodes {
		if !ready(node) && node.DeletionTimestamp == nil && now.Sub(node.CreationTimestamp.Time) < startsWithin {
			starting++
		}
	}
	waiting := x.waits(now)
	for _, node := range nodes {
		byName[node.Name] = node
		name := poolOf(node)
		pool := pools[name]
		if pool == nil {
			pool = &draining.Fleet{Starting: starting}
			pools[name] = pool
		}
		if pool.Waiting == 0 && anyMayRun(waiting, node) {
			pool.Waiting = len(waiting)
		}
		n := x.describe(node, now)
		if !n.Draining.IsZero() {
			drains++
			lasts := now.Sub(n.Draining)
			oldest = max(oldest, min(lasts, 2*x.args.Longest.Duration))
			if lasts < x.args.Longest.Duration && !n.Closed && x.got(n) {
				end = append(end, stop{node, draining.NeedsRoom})
				n.Draining, n.Kept = time.Time{}, true // for this look
				pool.Starting++                        // nothing begins where room is short
			}
		}
		pool.Nodes = append(pool.Nodes, n)
	}
	// The pods of a node that is gone end after it.
	maps.DeleteFunc(x.lastWork, func(node string, _ time.Time) bool { return byName[node] == nil })
	drainingNow.Set(float64(drains))
	drainingLongest.Set(oldest.Seconds())
	connected.Set(float64(x.server.Streams()))
	allowed := int(x.writes.TokensAt(now))
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		plan := draining.Look(*pools[name], draining.Options{Spare: x.args.Spare, Longest: x.args.Longest.Duration, AtOnce: allowed}, now)
		allowed -= len(plan.Drain)
		for _, s := range plan.Stop {
			end = append(end, stop{byName[s.Node], s.Why})
		}
		for _, name := range plan.Drain {
			begin = append(begin, byName[name])
		}
	}
	return begin, end
}

// waits are the pods that found no room lately. Others are forgotten.
func (x *drains) waits(now time.Time) (pods []*v1.Pod) {
	for uid, w := range x.waiting {
		switch waited := now.Sub(w.since); {
		case waited < waitsFor:
			pods = append(pods, w.pod)
		case waited > 2*waitsFor:
			delete(x.waiting, uid)
		}
	}
	for uid, p := range x.promises {
		if now.Sub(p.until) > 2*waitsFor {
			delete(x.promises, uid)
		}
	}
	return pods
}

// compared is how many waiting pods are compared with nodes. If there are more, one of them is assumed to need the room.
const compared = 100

// anyMayRun reports whether one of some pods may run on a node, were it empty: room there may be what the pod lacks.
func anyMayRun(pods []*v1.Pod, node *v1.Node) bool {
	return len(pods) > compared || slices.ContainsFunc(pods, func(pod *v1.Pod) bool {
		if !allocatableOf(node.Status.Allocatable).Fit(amountsOf(requests(pod))) {
			return false
		}
		_, untolerated := corev1.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations, func(t *v1.Taint) bool {
			return t.Effect != v1.TaintEffectPreferNoSchedule
		}, false)
		selected, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node)
		return !untolerated && (selected || err != nil)
	})
}

// got reports whether a node that drains got a pod since: it found no room elsewhere.
func (x *drains) got(n draining.Node) bool {
	for _, p := range x.byNode[n.Name] {
		if !p.follower && p.bound.After(n.Draining.Add(time.Second)) { // both are whole seconds
			return true
		}
	}
	return false
}

// taint puts the taint on a node or takes it off, and reports whether that was done. What else changed on the node meanwhile is not undone: then it
// is not done, and the next look decides again.
func (x *drains) taint(ctx context.Context, node *v1.Node, on bool) bool {
	taints := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t v1.Taint) bool { return t.Key == DrainingTaint })
	if on {
		taints = append(taints, v1.Taint{Key: DrainingTaint, Value: x.pack.now().UTC().Format(sinceFormat), Effect: v1.TaintEffectPreferNoSchedule})
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion}, "spec": map[string]any{"taints": taints},
	})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, x.args.Every.Duration)
		defer cancel()
		_, err = x.pack.handle.ClientSet().CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "ebbtide-scheduler"})
	}
	if err != nil && !errors.IsConflict(err) && !errors.IsNotFound(err) {
		taintErrors.Inc()
		klog.FromContext(ctx).Error(err, "A node's taints can't be changed", "node", node.Name)
	}
	return err == nil
}

func (x *drains) event(node *v1.Node, reason, format string, args ...any) {
	x.pack.handle.EventRecorder().Eventf(node, nil, v1.EventTypeNormal, reason, "Draining", format, args...)
}

// tell says to every worker what counts for it now.
func (x *drains) tell() {
	lister := x.nodes()
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.pack.now()
	for name, pods := range x.byNode {
		busy, attending := 0, 0
		for _, p := range pods {
			if p.attends {
				attending++
			}
			if !p.follower && x.stateOf(p, now) == draining.Busy {
				busy++
			}
		}
		if attending == 0 {
			continue
		}
		drains := false
		if node, err := lister.Get(name); err == nil {
			since := drainingSince(node, now)
			drains = !since.IsZero() && now.Sub(since) < x.args.Longest.Duration
		}
		for _, p := range pods {
			if !p.attends {
				continue
			}
			word := streams.Word{NodeWorks: busy > 0, LastWork: x.lastWork[name]}
			switch {
			case now.Before(p.yields):
				word.Leave, word.Reason = true, p.why
			case drains:
				word.Leave, word.Reason = true, "node "+name+" drains: its pods fit on others"
			}
			if word.Leave && p.state == streams.Idle && p.told.IsZero() {
				p.told = now
				sentAway.WithLabelValues(map[bool]string{true: "yield", false: "drain"}[now.Before(p.yields)]).Inc()
			}
			if !word.Leave {
				p.told = time.Time{}
			}
			if word.NodeWorks {
				word.LastWork = time.Time{} // it does not count then
			}
			x.server.Tell(p.uid, word)
		}
	}
}

// complete says of nodes what workers say.
func (x *drains) complete(views []fleet.View) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.pack.now()
	for i := range views {
		v, last := &views[i], time.Duration(0)
		for _, p := range x.byNode[v.Name] {
			busy := !p.follower && x.stateOf(p, now) == draining.Busy
			switch {
			case busy && p.attends:
				v.BusyWorkers++
			case p.attends && p.state == streams.Idle:
				v.IdleWorkers++
			}
			if busy {
				last = max(last, x.remaining(p, now))
			}
		}
		if last < packing.Never {
			seconds := last.Seconds()
			v.EmptiesIn = &seconds
		}
	}
}
