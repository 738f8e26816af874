package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	schedulerv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/internal/stay"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lifetime"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lowerbound"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// System is an installation under trial: queues of messages, KEDA that starts jobs for them, a scheduler that puts their pods
// on nodes, and a node autoscaler.
type System struct {
	// Origin is the instant at which simulated time starts: calendars need it.
	Origin time.Time
	// Scaler says how many jobs there should be; KEDA asks it every PollEvery and starts jobs by Strategy, at most MaxJobs.
	Scaler    Scaler
	Strategy  keda.Strategy
	PollEvery time.Duration
	MaxJobs   int64
	// QueuePerClass gives every class of messages a queue and jobs of its own. Else there is one of each.
	QueuePerClass bool
	Worker        Worker
	// Pod is what a pod requests; zero: the most that any message of its queue does.
	Pod packing.Amounts
	// Statements is one of Predictions, how a pod states the run time of the message that it will find, if messages are taken in their order;
	// empty: not at all. Workers that take several messages state nothing, as nobody knows what they will find.
	Statements string
	// QueueAdvance is the maxAdvance of the queue sort DrainPackQueue; 0: pods are placed in the order in which they came.
	QueueAdvance time.Duration
	// Packer is one of Packers, and DrainPack are the arguments of the plugin.
	Packer    string
	DrainPack schedulerv1.DrainPackArgs
	Nodes     Nodes
	// Rules by which workers stay, give way and leave nodes that drain; nil: none.
	Rules  *Rules
	Faults Faults
	// Seed of all that is left to chance. What is drawn for a worker, a node or a message depends on the seed and its number alone, so two
	// systems with one seed draw the same for the same worker.
	Seed uint64
}

// Worker is how jobs go about their work.
type Worker struct {
	// Boot is from a pod's binding until it runs, Connect from there until it consumes, Leave from its last message until its job is
	// seen as finished.
	Boot, Connect, Leave Distribution
	// MaxMessages that a worker takes before it leaves; 0 for as long as there are any.
	MaxMessages int
	// MaxLifetime since its pod's binding after which a worker takes no further message; 0 for none.
	MaxLifetime time.Duration
	// IdleTimeout after which a worker without a message leaves.
	IdleTimeout time.Duration
	// OldestFirst hands messages to the oldest idle worker; else to the one that has been idle for longest.
	OldestFirst bool
}

// Nodes is how nodes are created and removed: as Karpenter does it, or else as cluster-autoscaler does.
type Nodes struct {
	Shapes []Shape
	// Limits of a NodePool: no node is made that would bring the sizes of all nodes above them. Resources of which they say 0 have none.
	Limits packing.Amounts
	// Boot is from the decision to make a node until it takes pods.
	Boot Distribution
	// Delay is from a node's last pod until it is removed; any pod restarts it.
	Delay Distribution
	// Consolidation is Karpenter's policy, one of Consolidations; empty: WhenEmpty, as for pods that must not be disrupted.
	Consolidation string
	// BatchIdle and BatchMax are Karpenter's: pods that wait are gathered until none has come for BatchIdle, for at most BatchMax.
	// Each node is of the cheapest shape that holds what is packed on it.
	BatchIdle, BatchMax time.Duration
	// ClusterAutoscaler, when it is there, takes Karpenter's place.
	ClusterAutoscaler *ClusterAutoscaler
	// Buffer of room without pods; nil: none.
	Buffer *Buffer
}

// ClusterAutoscaler looks every ScanEvery. Nodes for pods that wait are of one shape at a scan: the one of which least CPU stays free. At most
// RemoveAtOnce empty nodes go at a scan, and none within DelayAfterAdd of a node's making. Jobs' pods are not evicted.
type ClusterAutoscaler struct {
	ScanEvery, DelayAfterAdd time.Duration
	RemoveAtOnce             int
}

// DefaultClusterAutoscaler has the defaults of cluster-autoscaler's flags, and is to be used with its Delay of 10 minutes
// (--scan-interval, --scale-down-delay-after-add, --max-empty-bulk-delete, --scale-down-unneeded-time).
func DefaultClusterAutoscaler() *ClusterAutoscaler {
	return &ClusterAutoscaler{ScanEvery: 10 * time.Second, DelayAfterAdd: 10 * time.Minute, RemoveAtOnce: 10}
}

// Faults are what goes wrong.
type Faults struct {
	// Crashes is the share of scans whose worker dies, from 0 to 1; the message is delivered again.
	Crashes float64
	// NodeLossPerHour of a node's life: spot capacity that is taken away, say.
	NodeLossPerHour float64
}

// Defaults of an ordinary installation: KEDA polls every 30 s, pods take 5 to 20 s to run and 1 to 4 s more to consume, Karpenter's batching, nodes that
// take 35 to 60 s, and 45 s until an empty one is removed (consolidateAfter 30s and 15 s of validation).
func Defaults() System {
	return System{
		PollEvery: 30 * time.Second, MaxJobs: math.MaxInt32,
		Worker: Worker{
			Boot: Range{5 * time.Second, 20 * time.Second}, Connect: Range{time.Second, 4 * time.Second}, Leave: Range{time.Second, 2 * time.Second}, MaxMessages: 1,
			IdleTimeout: 20 * time.Second,
		},
		Packer: "drainpack",
		Nodes: Nodes{
			Shapes: []Shape{NewShape("16x", packing.Amounts{16000, 64 << 30, 0, 110}, DefaultOverhead, 0.768)},
			Boot:   Range{35 * time.Second, 60 * time.Second}, BatchIdle: time.Second, BatchMax: 10 * time.Second, Delay: Range{45 * time.Second, 45 * time.Second},
		},
	}
}

// settleFor is how long after the last message a run continues at least, so that what is drained late counts; starved is when
// messages that still wait are given up.
const (
	settleFor   = time.Hour
	bufferEvery = 10 * time.Second // how often a buffer is looked after
	starved     = 7 * 24 * time.Hour
)

// Run simulates messages on a system. It returns an error for a system or messages that make no sense, naming the field.
func (s System) Run(messages []Job) (Outcome, error) {
	if err := s.check(messages); err != nil {
		return Outcome{}, err
	}
	packer, err := NewPacker(s.Packer, PackerOptions{Seed: s.Seed, Args: s.DrainPack})
	if err != nil {
		return Outcome{}, err
	}
	if s.Strategy == nil {
		if s.Strategy, err = keda.NewStrategy(""); err != nil {
			return Outcome{}, err
		}
	}
	if s.Statements == "" {
		messages = slices.Clone(messages)
	} else if messages, err = State(messages, s.Statements, rand.New(rand.NewPCG(s.Seed, 1))); err != nil {
		return Outcome{}, err
	}
	slices.SortStableFunc(messages, func(a, b Job) int { return int(a.Start - b.Start) })
	r := &run{
		System: s, messages: messages, chance: newChance(s.Seed), nodes: nodes{packer: packer}, deliveries: make([]int, len(messages)),
		series: newSeries(messages[len(messages)-1].Start + settleFor), byName: map[string]*worker{},
		rules: rules{times: lifetime.New(lifetime.Options{})}, waits: slices.Repeat([]time.Duration{-1}, len(messages)),
	}
	r.makeQueues()
	r.play()
	return r.outcome(), nil
}

func (s System) check(messages []Job) error {
	switch {
	case len(messages) == 0:
		return errors.New("no messages to simulate")
	case s.Scaler == nil:
		return errors.New("scaler: there is none")
	case s.PollEvery <= 0:
		return fmt.Errorf("pollEvery is %s, want more than 0", s.PollEvery)
	case len(s.Nodes.Shapes) == 0:
		return errors.New("nodes.shapes: there is none")
	case s.Worker.Boot == nil || s.Worker.Connect == nil || s.Worker.Leave == nil:
		return errors.New("worker: boot, connect and leave are needed")
	case s.Nodes.Buffer != nil && (s.Nodes.Buffer.Pods == nil || s.Nodes.Buffer.Pod == packing.Amounts{} || slots((&run{System: s}).largest().Capacity, s.Nodes.Buffer.Pod) == 0):
		return errors.New("nodes.buffer: want pods, and one that fits on a node")
	case s.Nodes.Boot == nil || s.Nodes.Delay == nil:
		return errors.New("nodes: boot and delay are needed")
	case s.Nodes.ClusterAutoscaler != nil && (s.Nodes.ClusterAutoscaler.ScanEvery <= 0 || s.Nodes.ClusterAutoscaler.RemoveAtOnce < 1):
		return errors.New("nodes.clusterAutoscaler: want scanEvery above 0 and removeAtOnce of at least 1")
	case s.QueueAdvance < 0:
		return fmt.Errorf("queueAdvance is %s, want at least 0", s.QueueAdvance)
	case s.Worker.IdleTimeout <= 0:
		return fmt.Errorf("worker.idleTimeout is %s, want more than 0", s.Worker.IdleTimeout)
	case !(s.Faults.Crashes >= 0 && s.Faults.Crashes < 1):
		return fmt.Errorf("faults.crashes is %v, want from 0 to less than 1", s.Faults.Crashes)
	}
	if err := s.Nodes.checkConsolidation(); err != nil {
		return err
	}
	within := func(shape Shape) bool { return (&run{System: s}).allowed(shape) }
	if !slices.ContainsFunc(s.Nodes.Shapes, within) {
		return fmt.Errorf("nodes.limits are %v, and no node is so small", s.Nodes.Limits)
	}
	for i := range messages {
		fits := func(shape Shape) bool { return shape.Capacity.Fit(messages[i].Requests) && shape.Capacity.Fit(s.Pod) }
		if !slices.ContainsFunc(s.Nodes.Shapes, fits) {
			return fmt.Errorf("message %d requests %v, and no node is so large", i, messages[i].Requests)
		}
	}
	return nil
}

// run is a System at work.
type run struct {
	System
	messages []Job
	chance   chance
	rules    rules
	byName   map[string]*worker // those that are idle or busy, with Rules
	nodes    nodes
	queues   []*messageQueue
	of       []int // queue of each message
	happen   queue[happening]
	order    int
	now      time.Duration

	workers   map[int]*worker // unfinished ones
	nextID    int
	unbound   []*worker
	booting   []*Node
	batchFrom time.Duration // when the batch began; -1 for none
	lastWait  time.Duration // when the last pod began to wait
	lastAdd   time.Duration // when the last node was made
	lastScan  time.Duration // at which cluster-autoscaler removed nodes, and how many
	removed   int

	deliveries           []int // of each message
	settled              int
	waits                []time.Duration // of each message; -1 while it has not begun
	empty, crashed, lost int
	consolidation        consolidation
	evicted              int
	busySeconds          float64
	podSeconds           float64
	capacity             packing.Amounts // of all nodes, as limits count it
	intervals            []lowerbound.Interval
	backlog, busy        int64
	gauges               [gauges]float64
	series               *series
}

// messageQueue and the jobs of its own.
type messageQueue struct {
	job     Job // what its pods are
	waiting []int
	idle    queue[idleWorker]
	// Workers that consume, and those that are busy; unfinished jobs, and those without a running pod.
	consumers, busy, unfinished, pending int64
	coming                               int64 // workers that will consume, and have not yet
	statistic                            int64 // ready and unacknowledged, as of the last tick of 5 s
}

type worker struct {
	id      int
	queue   *messageQueue
	job     Job           // what its pod is
	came    time.Duration // when its pod came, or came in the order of the queue
	node    *Node
	bound   time.Duration
	message int // the last one
	handled int
	epoch   int // what was foreseen before is void
	// Its pod runs; it waits for a message, works on one, took one ever; it is gone.
	running, consumed, idle, working, took, leaving, told, gone bool

	name       string        // its number, with Rules
	begun      time.Duration // its last scan
	idleSince  time.Duration
	promised   time.Duration // until when it is promised room
	expected   time.Duration // how much longer it works, as of expectedAt, on the message expectedOf
	expectedAt time.Duration
	expectedOf int
}

// idleWorker waits for a message.
type idleWorker struct {
	key    time.Duration
	worker *worker
	epoch  int
}

func (i idleWorker) Before(other idleWorker) bool {
	return i.key < other.key || i.key == other.key && i.worker.id < other.worker.id
}

// happening is something that happens at an instant. Those of one instant come by their kind, then in the order in which they
// were foreseen.
type happening struct {
	at     time.Duration
	kind   kind
	order  int
	worker *worker
	epoch  int
	node   *Node
}

type kind int

const (
	scanEnds kind = iota
	scanCrashes
	jobFinishes
	workerConsumes
	workerGivesUp
	workerYields
	nodeStarts
	nodeIsLost
	batchCloses
	nodeGoes
	podRuns
)

func (h happening) Before(other happening) bool {
	if h.at != other.at {
		return h.at < other.at
	}
	if h.kind != other.kind {
		return h.kind < other.kind
	}
	return h.order < other.order
}

func (r *run) foresee(in time.Duration, k kind, w *worker, n *Node) {
	h := happening{at: r.now + in, kind: k, order: r.order, worker: w, node: n}
	switch {
	case w != nil:
		h.epoch = w.epoch
	case n != nil:
		h.epoch = n.uses
	}
	r.order++
	r.happen.push(h)
}

func (r *run) makeQueues() {
	r.workers, r.batchFrom = map[int]*worker{}, -1
	index := map[string]int{}
	for i := range r.messages {
		m, class := &r.messages[i], ""
		if r.QueuePerClass {
			class = m.Class
		}
		at, ok := index[class]
		if !ok {
			at = len(r.queues)
			index[class] = at
			r.queues = append(r.queues, &messageQueue{job: Job{Class: class, Requests: r.Pod}})
		}
		r.of = append(r.of, at)
		if r.Pod == (packing.Amounts{}) {
			for d := range m.Requests {
				r.queues[at].job.Requests[d] = max(r.queues[at].job.Requests[d], m.Requests[d])
			}
		}
	}
}

// play handles arrivals, polls and events, in the order of time.
func (r *run) play() {
	next, last := 0, r.messages[len(r.messages)-1].Start
	poll, tick := time.Duration(0), time.Second // statistics are rarely as new as a poll
	look := time.Duration(math.MaxInt64)
	if r.Rules != nil && r.Rules.Every > 0 {
		look = r.Rules.Every
	}
	buffer := time.Duration(math.MaxInt64)
	if r.Nodes.Buffer != nil {
		buffer = 0
	}
	consolidate := time.Duration(math.MaxInt64)
	if r.Nodes.consolidates() {
		consolidate = consolidateEvery
	}
	for {
		at := min(poll, tick, look, consolidate, buffer)
		if len(r.happen) > 0 {
			at = min(at, r.happen[0].at)
		}
		if next < len(r.messages) {
			at = min(at, r.messages[next].Start)
		}
		if at > last+settleFor && r.settled == len(r.messages) || at > last+starved {
			r.advance(last + settleFor)
			return
		}
		r.advance(at)
		switch {
		case len(r.happen) > 0 && r.happen[0].at == at:
			r.handle(r.happen.pop())
		case next < len(r.messages) && r.messages[next].Start == at:
			r.arrive(next)
			next++
		case look == at:
			r.look()
			look += r.Rules.Every
		case consolidate == at:
			r.consolidate()
			consolidate += consolidateEvery
		case buffer == at:
			r.keepBuffer()
			buffer += bufferEvery
		case tick == at:
			for _, q := range r.queues {
				q.statistic = int64(len(q.waiting)) + q.busy
			}
			tick += 5 * time.Second
		default:
			r.poll()
			poll += r.PollEvery
		}
	}
}

// advance moves the clock and adds up what was between.
func (r *run) advance(at time.Duration) {
	if at > r.now {
		r.gauges[gaugeBacklog], r.gauges[gaugePods], r.gauges[gaugeBusy] = float64(r.backlog), float64(len(r.workers)), float64(r.busy)
		r.gauges[gaugeNodes], r.gauges[gaugePrice] = float64(r.nodes.alive), r.nodes.price
		r.series.add(r.now, at, &r.gauges)
		r.busySeconds += float64(r.busy) * (at - r.now).Seconds()
		r.podSeconds += float64(len(r.workers)) * (at - r.now).Seconds()
		r.now = at
	}
}

func (r *run) arrive(message int) {
	r.series.arrive(r.now)
	r.deliver(r.queues[r.of[message]], message, false)
}

// deliver hands a message to an idle worker, or lets it wait: at the front when it was delivered before.
func (r *run) deliver(q *messageQueue, message int, again bool) {
	for len(q.idle) > 0 {
		i := q.idle.pop()
		if i.worker.idle && i.worker.epoch == i.epoch {
			r.begin(i.worker, message)
			return
		}
	}
	r.backlog++
	if again {
		q.waiting = slices.Insert(q.waiting, 0, message)
	} else {
		q.waiting = append(q.waiting, message)
	}
}

// begin starts a scan.
func (r *run) begin(w *worker, message int) {
	w.message, w.working, w.idle, w.took, w.begun = message, true, false, true, r.now
	w.epoch++
	w.queue.busy++
	r.busy++
	random := r.chance.of(drawCrash, message, r.deliveries[message])
	if r.deliveries[message]++; r.deliveries[message] == 1 {
		r.waits[message] = r.now - r.messages[message].Start
	}
	run := r.messages[message].Run
	if r.Faults.Crashes > 0 && random.Float64() < r.Faults.Crashes {
		r.foresee(time.Duration(random.Float64()*float64(run)), scanCrashes, w, nil)
		return
	}
	r.foresee(run, scanEnds, w, nil)
}

// take gives a worker the next message, or lets it wait for one.
func (r *run) take(w *worker) {
	q := w.queue
	if len(q.waiting) > 0 {
		message := q.waiting[0]
		q.waiting = q.waiting[1:]
		r.backlog--
		r.begin(w, message)
		return
	}
	w.idle, w.idleSince = true, r.now
	w.epoch++
	key := r.now
	if r.Worker.OldestFirst {
		key = w.bound
	}
	q.idle.push(idleWorker{key, w, w.epoch})
	if r.Rules != nil && r.Rules.Stay != (stay.Rule{}) {
		r.foresee(r.idleFor(w), workerGivesUp, w, nil)
		return
	}
	r.foresee(r.Worker.IdleTimeout, workerGivesUp, w, nil)
}

func (r *run) handle(h happening) {
	if h.worker != nil && (h.worker.gone || h.worker.epoch != h.epoch) {
		return
	}
	switch h.kind {
	case podRuns:
		h.worker.running = true
		h.worker.queue.pending--
		r.foresee(r.Worker.Connect.Draw(r.chance.of(drawConnect, h.worker.id, 0)), workerConsumes, h.worker, nil)
	case workerConsumes:
		h.worker.queue.consumers++
		h.worker.queue.coming--
		h.worker.consumed = true
		h.worker.epoch++
		r.take(h.worker)
	case scanEnds:
		w := h.worker
		r.stopWorking(w)
		r.settled++
		if r.Rules != nil {
			r.rules.times.Finished(strconv.Itoa(w.message), r.messages[w.message].Class, 0, r.now-w.begun, Epoch.Add(r.now), true)
		}
		told := w.node.draining >= 0 && r.now-w.node.draining >= r.answer()
		if w.handled++; told || w.handled == r.Worker.MaxMessages || r.Worker.MaxLifetime > 0 && r.now-w.bound >= r.Worker.MaxLifetime {
			r.leave(w)
		} else {
			r.take(w)
		}
	case workerGivesUp:
		if r.Rules != nil && r.Rules.Stay != (stay.Rule{}) {
			if left := r.idleFor(h.worker); left > 0 {
				r.foresee(left, workerGivesUp, h.worker, nil)
				return
			}
		}
		r.leave(h.worker)
	case workerYields:
		r.leave(h.worker)
	case jobFinishes:
		r.finish(h.worker)
	case scanCrashes:
		r.crashed++
		r.die(h.worker)
	case nodeStarts:
		if h.node.removed {
			return
		}
		r.booting = slices.DeleteFunc(r.booting, func(n *Node) bool { return n == h.node })
		r.nodes.start(h.node, r.now)
		r.rules.stale = true
		r.emptied(h.node)
		r.schedule()
	case nodeGoes:
		if !h.node.removed && h.node.Pods == 0 && h.node.uses == h.epoch {
			r.spent(h.node)
		}
	case nodeIsLost:
		r.lose(h.node)
	case batchCloses:
		r.closeBatch()
	}
}

func (r *run) stopWorking(w *worker) {
	w.working = false
	w.node.worked = r.now
	w.epoch++
	w.queue.busy--
	r.busy--
}

// leave is a worker's end: it consumes no more, and its job is seen as finished a moment later.
func (r *run) leave(w *worker) {
	if !w.took {
		r.empty++
	}
	w.idle, w.leaving, w.told = false, true, false
	w.epoch++
	w.queue.consumers--
	r.foresee(r.Worker.Leave.Draw(r.chance.of(drawLeave, w.id, 0)), jobFinishes, w, nil)
}

// finish ends a job and its pod.
func (r *run) finish(w *worker) {
	w.gone = true
	delete(r.workers, w.id)
	delete(r.byName, w.name)
	w.queue.unfinished--
	if w.node == nil || w.node.removed {
		return
	}
	r.unbind(w)
	r.schedule()
}

func (r *run) unbind(w *worker) {
	r.intervals = append(r.intervals, lowerbound.Interval{
		Start: Epoch.Add(w.bound), End: Epoch.Add(r.now), Requests: w.job.Requests[:],
	})
	w.node.on = slices.DeleteFunc(w.node.on, func(x *worker) bool { return x == w })
	r.nodes.end(w.id, &w.job, r.now-w.bound, r.now, w.node)
	if w.node.Pods == 0 {
		r.emptied(w.node)
	}
}

// emptied foresees the end of a node without pods, unless it is used again before.
func (r *run) emptied(node *Node) {
	r.foresee(r.untilScan(r.Nodes.Delay.Draw(r.chance.of(drawDelay, node.id, node.uses))), nodeGoes, nil, node)
}

// untilScan is how long it is until something that is due in a while is seen.
func (r *run) untilScan(due time.Duration) time.Duration {
	if r.Nodes.ClusterAutoscaler == nil {
		return due
	}
	every := r.Nodes.ClusterAutoscaler.ScanEvery
	return (r.now+due+every-1)/every*every - r.now
}

// spent removes an empty node, unless a buffer needs it or cluster-autoscaler has to put it off.
func (r *run) spent(node *Node) {
	if r.bufferNeeds(node) {
		r.foresee(bufferEvery, nodeGoes, nil, node)
		return
	}
	if ca := r.Nodes.ClusterAutoscaler; ca != nil {
		if r.lastScan != r.now {
			r.lastScan, r.removed = r.now, 0
		}
		switch calm := r.lastAdd + ca.DelayAfterAdd; {
		case r.nodes.created > 0 && calm > r.now:
			r.foresee(r.untilScan(calm-r.now), nodeGoes, nil, node)
			return
		case r.removed == ca.RemoveAtOnce:
			r.foresee(ca.ScanEvery, nodeGoes, nil, node)
			return
		}
		r.removed++
	}
	r.remove(node)
}

// remove takes a node away; pods that wait for its share of the limits are looked at again.
func (r *run) remove(node *Node) {
	r.capacity = r.capacity.Minus(node.Shape.size())
	r.rules.stale = true
	if node.draining >= 0 {
		r.rules.count.Finished++
		r.forgetDrain(node)
	}
	r.nodes.remove(node, r.now)
	if r.Nodes.Limits != (packing.Amounts{}) {
		r.schedule()
	}
}

// die ends a worker at once; its message is delivered again.
func (r *run) die(w *worker) {
	q, message, working := w.queue, w.message, w.working
	if working {
		r.stopWorking(w)
	}
	switch {
	case working || w.idle || w.told:
		q.consumers--
	case !w.running:
		q.pending--
	}
	if !w.consumed {
		q.coming--
	}
	w.idle = false
	r.finish(w)
	if working {
		r.deliver(q, message, true)
	}
}

// lose takes a node away with all that runs on it.
func (r *run) lose(node *Node) {
	if node.removed {
		return
	}
	r.lost++
	r.clear(node)
}

// clear removes a node and ends all workers on it.
func (r *run) clear(node *Node) {
	on := slices.Clone(node.on)
	for _, w := range on {
		r.unbind(w)
	}
	if !node.Ready {
		r.booting = slices.DeleteFunc(r.booting, func(n *Node) bool { return n == node })
	}
	r.remove(node)
	for _, w := range on {
		r.die(w)
	}
}

// poll is KEDA's.
func (r *run) poll() {
	r.gauges[gaugeTarget] = 0
	clear(r.gauges[gaugeConstraints:])
	for _, q := range r.queues {
		replicas, by := r.Scaler.Target(r.Origin.Add(r.now), Seen{
			Class: q.job.Class, Ready: int64(len(q.waiting)), Consumers: q.consumers, Unacknowledged: q.busy, Statistic: q.statistic,
		})
		r.gauges[gaugeTarget] += float64(replicas)
		r.gauges[gaugeConstraints+slices.Index(sizing.Constraints[:], by)] += 1 / float64(len(r.queues))
		create := r.Strategy.Create(replicas, keda.Jobs{Unfinished: q.unfinished, Pending: q.pending, Max: r.MaxJobs})
		for range create {
			w := &worker{id: r.nextID, queue: q, job: q.job}
			if q.coming < int64(len(q.waiting)) && r.Worker.MaxMessages == 1 {
				w.job.Stated = r.messages[q.waiting[q.coming]].Stated
			}
			r.nextID++
			q.coming++
			if r.Rules != nil {
				w.name = strconv.Itoa(w.id)
				r.byName[w.name] = w
			}
			r.workers[w.id] = w
			q.unfinished++
			q.pending++
			w.came = r.now - packing.Advance(r.expects(&w.job), w.job.Requests[0], r.QueueAdvance)
			r.unbound = append(r.unbound, w)
			r.lastWait = r.now
		}
	}
	if r.QueueAdvance > 0 {
		slices.SortStableFunc(r.unbound, func(a, b *worker) int { return cmp.Compare(a.came, b.came) })
	}
	r.schedule()
}

// expecter is a packer that learns run times.
type expecter interface {
	expects(job *Job, now time.Duration) time.Duration
}

// expects is how long a pod is expected to run: as its packer learned, or as it says itself.
func (r *run) expects(job *Job) time.Duration {
	if packer, ok := r.nodes.packer.(expecter); ok {
		return packer.expects(job, r.now)
	}
	return job.Stated
}

// schedule puts pods that wait on nodes; when some are left, nodes are made for them once the batch closes.
func (r *run) schedule() {
	if len(r.unbound) == 0 {
		return
	}
	left := r.unbound[:0]
	var refused []packing.Amounts // requests for which there is no room
	for _, w := range r.unbound {
		job := &w.job
		if !slices.Contains(refused, job.Requests) {
			if node := r.place(w); node != nil {
				r.bind(w, node)
				continue
			}
			refused = append(refused, job.Requests)
		}
		left = append(left, w)
	}
	clear(r.unbound[len(left):])
	r.unbound = left
	if len(left) > 0 && r.Rules != nil && r.Rules.GiveWay {
		r.giveWay()
	}
	if len(left) > 0 && r.batchFrom < 0 {
		r.batchFrom = r.now
		r.foresee(r.untilScan(r.Nodes.BatchIdle), batchCloses, nil, nil)
	}
}

func (r *run) bind(w *worker, node *Node) {
	if node.Pods == 0 && node.empty < r.now {
		r.nodes.resets++
	}
	w.node, w.bound = node, r.now
	node.on = append(node.on, w)
	r.nodes.bind(w.id, &w.job, r.now, node)
	r.foresee(r.Worker.Boot.Draw(r.chance.of(drawBoot, w.id, 0)), podRuns, w, nil)
}

// closeBatch makes nodes for the pods that wait and have no place on one that is starting.
func (r *run) closeBatch() {
	if ca := r.Nodes.ClusterAutoscaler; ca != nil {
		r.batchFrom = -1
		r.make(r.leastWaste())
		return
	}
	if quiet := r.lastWait + r.Nodes.BatchIdle; quiet > r.now && r.now-r.batchFrom < r.Nodes.BatchMax {
		r.foresee(min(quiet, r.batchFrom+r.Nodes.BatchMax)-r.now, batchCloses, nil, nil)
		return
	}
	r.batchFrom = -1
	now, later := r.toMake()
	all := r.unbound
	r.unbound = now
	r.make(r.cheapest())
	if r.unbound = all; later {
		r.batchFrom = r.now
		r.foresee(r.Rules.Promise, batchCloses, nil, nil)
	}
}

// answer is how long a worker takes to do what it is told.
func (r *run) answer() time.Duration {
	if r.Rules == nil {
		return 0
	}
	return r.Rules.Answer
}

// cheapest are nodes for the pods that wait: what is packed into one of the largest shape gets the cheapest that holds it.
func (r *run) cheapest() []Shape {
	shapes, used := r.firstFit(r.largest())
	for i, used := range used {
		for _, s := range r.Nodes.Shapes {
			if s.Capacity.Fit(used) && (s.Price < shapes[i].Price || s.Price == shapes[i].Price && s.Capacity[0] < shapes[i].Capacity[0]) {
				shapes[i] = s
			}
		}
	}
	return shapes
}

// largest shape that there is.
func (r *run) largest() Shape {
	return slices.MaxFunc(r.Nodes.Shapes, func(a, b Shape) int { return int(a.Capacity[0] - b.Capacity[0]) })
}

// leastWaste are nodes of the one shape that holds the pods that wait and of which the smallest share of CPU stays free.
func (r *run) leastWaste() []Shape {
	var best []Shape
	least := math.Inf(1)
	for _, s := range r.Nodes.Shapes {
		if slices.ContainsFunc(r.unbound, func(w *worker) bool { return !s.Capacity.Fit(w.job.Requests) }) {
			continue
		}
		shapes, used := r.firstFit(s)
		free := 0.0
		for _, u := range used {
			free += 1 - float64(u[0])/float64(s.Capacity[0])
		}
		if free /= float64(max(1, len(used))); free < least {
			best, least = shapes, free
		}
	}
	if best == nil && len(r.unbound) > 0 { // no shape holds all of them: the largest holds most
		best, _ = r.firstFit(r.largest())
	}
	return best
}

// firstFit packs the pods that wait and have no place on a node that is starting into nodes of a shape, and says what is used of each.
func (r *run) firstFit(shape Shape) (shapes []Shape, used []packing.Amounts) {
	type bin struct{ free, used packing.Amounts }
	var bins []bin
	for _, n := range r.booting {
		bins = append(bins, bin{free: n.Shape.Capacity})
	}
	first, last := 0, packing.Amounts{} // bins before the first have no room for what was placed last
	for _, w := range r.unbound {
		requests := w.job.Requests
		if requests != last {
			first, last = 0, requests
		}
		for first < len(bins) && !bins[first].free.Fit(requests) {
			first++
		}
		if first == len(bins) {
			bins = append(bins, bin{free: shape.Capacity})
		}
		b := &bins[first]
		b.free, b.used = b.free.Minus(requests), b.used.Plus(requests)
	}
	for _, b := range bins[len(r.booting):] {
		shapes, used = append(shapes, shape), append(used, b.used)
	}
	return shapes, used
}

// make makes nodes, as far as the limits allow.
func (r *run) make(shapes []Shape) {
	for _, shape := range shapes {
		if !r.allowed(shape) {
			smaller, ok := r.largestAllowed()
			if !ok {
				return
			}
			shape = smaller
		}
		node := r.nodes.add(shape, r.now)
		r.capacity = r.capacity.Plus(shape.size())
		r.lastAdd = r.now
		r.booting = append(r.booting, node)
		r.foresee(r.Nodes.Boot.Draw(r.chance.of(drawNode, node.id, 0)), nodeStarts, nil, node)
		if r.Faults.NodeLossPerHour > 0 {
			r.foresee(seconds(3600*r.chance.of(drawLoss, node.id, 0).ExpFloat64()/r.Faults.NodeLossPerHour), nodeIsLost, nil, node)
		}
	}
}

// largestAllowed is the largest shape that the limits have room for and that holds a pod that waits.
func (r *run) largestAllowed() (largest Shape, found bool) {
	for _, s := range r.Nodes.Shapes {
		holds := func(w *worker) bool { return s.Capacity.Fit(w.job.Requests) }
		if r.allowed(s) && (!found || s.Capacity[0] > largest.Capacity[0]) && slices.ContainsFunc(r.unbound, holds) {
			largest, found = s, true
		}
	}
	return largest, found
}

// allowed is true when the limits have room for a node of a shape.
func (r *run) allowed(shape Shape) bool {
	total := r.capacity.Plus(shape.size())
	for d, limit := range r.Nodes.Limits {
		if limit > 0 && total[d] > limit {
			return false
		}
	}
	return true
}
