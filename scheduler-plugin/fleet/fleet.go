// Package fleet keeps what the order of package packing needs to know of all nodes and their pods, change by change, so that
// the best nodes for a pod are found without looking at every node. It is pure: it reads no clock and knows no Kubernetes
// types; the scheduler plugin and the simulator both use it.
package fleet

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lifetime"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Node is what the scheduler knows of a node.
type Node struct {
	Name        string
	Created     time.Time
	Allocatable packing.Amounts
	// Price is the class of what the node costs by the hour: see packing.PriceClass.
	Price int
	// Leaving nodes are not offered as candidates.
	Leaving bool
	// Draining since; the zero time when it does not. Such a node is not offered either.
	Draining time.Time
}

// Pod is a pod that is to be placed, or is on a node.
type Pod struct {
	// ID is unique over time, as a UID is.
	ID string
	// Class of run times; Stated is the run time that the pod states itself, 0 for none.
	Class  string
	Stated time.Duration
	// Limit of the run time, at which the pod is ended; 0 for none.
	Limit time.Duration
	// Deadline by which the pod is to be gone: one that is being deleted. The zero time for none.
	Deadline time.Time
	// Endless pods keep their node for ever: a Deployment's.
	Endless bool
	// Follower pods hold resources but keep no node: a DaemonSet's.
	Follower bool
	// Group of pods that had better be together; empty for none.
	Group    string
	Requests packing.Amounts
}

// Options of a Fleet.
type Options struct {
	// Quantile of the run times that can be expected of a pod by which it is placed where little is known of it, between 0 and 1; default
	// 0.5. A higher one takes fewer pods for short.
	Quantile float64
	// Horizon beyond which nothing is told apart: a pod that is expected to run so long when it starts counts as endless. 0: none.
	Horizon time.Duration
	// Restoring fleets follow no pods until they are told of those that ended before: see Restored.
	Restoring bool
}

// soonest is the least that a pod past its expected end is taken to need still, so that it is not asked after all the time.
const soonest = time.Second

// exitQuantile is the quantile of what pods may still run that their node is taken to stay for: less than the median, as a pod that is put on a
// node which is gone sooner than thought keeps it, and that costs more than one put on a node which stays longer. With exact run times
// it makes no difference; docs/design/packing.md has what it does with others.
const exitQuantile = 0.2

// byDistributions is the spread of what is expected of a pod, mostly from history, below which it is placed by distributions.
const byDistributions = 1.3

// freshFor is how long the probabilities of a node are used for while its pods do not change.
const freshFor = time.Minute

// Fleet is safe for concurrent use.
type Fleet struct {
	lifetimes *lifetime.Estimator
	options   Options

	mu    sync.Mutex
	index *packing.Index
	nodes map[string]*node
	pods  map[string]*placed
	// groups count the pods of each group on each node.
	groups map[string]map[string]int
	lately arrivals
	due    duePods
	total  totals
}

type totals struct{ used, allocatable packing.Amounts }

type node struct {
	Node
	registered bool // SetNode was called: pods may be heard of before their node
	used       packing.Amounts
	pods       map[string]*placed
	exit       time.Time // expected; zero when no pod keeps the node

	gone   *packing.Probabilities // nil when they have to be computed
	goneAt time.Time

	followers    int // of the pods, and what they use
	followerUsed packing.Amounts
	seen         seen
}

type placed struct {
	Pod
	node    string
	started time.Time
	expects *lifetime.Distribution // nil for endless pods and followers
	ends    time.Time              // expected
	renew   time.Time              // when to update the expected run time
	place   int                    // in due, -1 when not there
}

// New makes an empty fleet that learns run times into lifetimes.
func New(lifetimes *lifetime.Estimator, options Options) *Fleet {
	options.Quantile = cmp.Or(options.Quantile, 0.5)
	return &Fleet{
		lifetimes: lifetimes, options: options, index: packing.NewIndex(),
		nodes: map[string]*node{}, pods: map[string]*placed{}, groups: map[string]map[string]int{},
	}
}

// SetNode adds a node or changes it.
func (f *Fleet) SetNode(n Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.node(n.Name)
	if x.registered {
		f.total.allocatable = f.total.allocatable.Minus(x.Allocatable)
	} else {
		f.total.used = f.total.used.Plus(x.used)
	}
	x.Node, x.registered = n, true
	f.total.allocatable = f.total.allocatable.Plus(n.Allocatable)
	f.reindex(x)
}

// RemoveNode removes a node, and returns since when the last Census saw no pod that keeps it: the zero time when there was one. Its
// pods stay known until they are removed.
func (f *Fleet) RemoveNode(name string) (emptySince time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.nodes[name]
	if x == nil || !x.registered {
		return time.Time{}
	}
	emptySince, x.registered, x.seen = x.seen.empty, false, seen{}
	f.total.allocatable = f.total.allocatable.Minus(x.Allocatable)
	f.total.used = f.total.used.Minus(x.used)
	f.reindex(x)
	f.forgetUnused(x)
	return emptySince
}

// AddPod puts a pod on a node, from an instant on. A pod that is there already is updated; one that is elsewhere moves.
func (f *Fleet) AddPod(p Pod, nodeName string, started time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := &placed{Pod: p, node: nodeName, started: started, place: -1}
	old := f.pods[p.ID]
	if old != nil {
		if old.node == nodeName && old.Pod == p && old.started.Sub(started).Abs() < soonest {
			return
		}
		f.take(old)
		if old.Class == p.Class && old.Stated == p.Stated {
			q.expects = old.expects
			f.lifetimes.Moved(p.ID, started)
		}
	}
	x := f.node(nodeName)
	f.follow(q)
	f.expect(q, started)
	if old == nil && q.expects != nil {
		f.lately.add(started, q.expects.Median())
	}
	f.pods[p.ID], x.pods[p.ID], x.gone = q, q, nil
	x.used = x.used.Plus(p.Requests)
	if p.Follower {
		x.followers, x.followerUsed = x.followers+1, x.followerUsed.Plus(p.Requests)
	}
	if x.registered {
		f.total.used = f.total.used.Plus(p.Requests)
	}
	if p.Group != "" {
		if f.groups[p.Group] == nil {
			f.groups[p.Group] = map[string]int{}
		}
		f.groups[p.Group][nodeName]++
	}
	if q.ends.After(x.exit) {
		x.exit = q.ends
	}
	f.reindex(x)
}

// RemovePod takes a pod off its node and reports whether it was there.
func (f *Fleet) RemovePod(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[id]
	if p == nil {
		return false
	}
	f.take(p)
	f.lifetimes.Gone(id)
	return true
}

// Ended is a pod that ran for Ran and ended at an instant, well or not.
type Ended struct {
	Pod
	Ran  time.Duration
	At   time.Time
	Well bool
}

// Finished learns from a pod, and returns the median of what was expected of it: 0 when nothing was, as the pod is not one to learn from. It is
// no more on its node: see RemovePod.
func (f *Fleet) Finished(e Ended) (expected time.Duration) {
	if !e.mortal() {
		return 0
	}
	return f.lifetimes.Finished(e.ID, e.Class, e.Stated, max(0, e.Ran), e.At, e.Well).Median()
}

// Restored learns from the pods that ended before the fleet was made, in the order in which they did, and from then on follows those that
// still run, the oldest first: so that a restart forgets as little as can be.
func (f *Fleet) Restored(history []Ended, now time.Time) {
	slices.SortFunc(history, func(a, b Ended) int { return cmp.Or(a.At.Compare(b.At), strings.Compare(a.ID, b.ID)) })
	for _, e := range history {
		f.Finished(e)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.options.Restoring = false
	running := slices.SortedFunc(maps.Values(f.pods), func(a, b *placed) int {
		return cmp.Or(a.started.Compare(b.started), strings.Compare(a.ID, b.ID))
	})
	for _, p := range running {
		p.expects = nil
		f.follow(p)
		f.expect(p, now)
	}
	for _, x := range f.nodes {
		x.exit, x.gone = lastEnd(x), nil
		f.reindex(x)
	}
}

// mortal pods end some time, and are learned from.
func (p *Pod) mortal() bool { return !p.Endless && !p.Follower }

// follow says what is expected of a pod that started, if that is not known yet.
func (f *Fleet) follow(p *placed) {
	switch {
	case p.expects != nil || !p.mortal():
	case f.options.Restoring:
		p.expects = f.lifetimes.Expect(p.Class, p.Stated, p.started)
	default:
		p.expects = f.lifetimes.Start(p.ID, p.Class, p.Stated, p.started)
	}
}

// Expect is the run time of a pod that starts now, for the order of nodes: as a distribution, unless it is known exactly; or unless
// little is known of it and most of that from history, as the median alone is better then: see docs/design/packing.md.
func (f *Fleet) Expect(p Pod, now time.Time) packing.Pod {
	expected := packing.Pod{Requests: p.Requests, Remaining: packing.Unknown, Grouped: p.Group != ""}
	switch {
	case p.Follower:
		return expected
	case p.Endless:
		expected.Remaining = packing.Never
		return expected
	}
	d := f.lifetimes.Expect(p.Class, p.Stated, now)
	f.mu.Lock()
	expected.Followers = f.lately.followers(now, d.Median())
	f.mu.Unlock()
	expected.Remaining = max(time.Second, d.Remaining(0, f.options.Quantile))
	expected.Spread, expected.Stated = d.Spread(), d.Stated()
	if expected.Spread > 0 && (expected.Spread < byDistributions || expected.Stated >= 0.5) {
		expected.Lasting = &packing.Probabilities{}
		d.Lasting(0, packing.Times[:], expected.Lasting[:])
	}
	if p.Limit > 0 {
		expected.Remaining = min(expected.Remaining, p.Limit)
		cut(expected.Lasting, p.Limit)
	}
	if f.beyond(expected.Remaining) {
		return packing.Pod{Requests: p.Requests, Remaining: packing.Never, Grouped: expected.Grouped}
	}
	return expected
}

// cut leaves no chance to last for longer than rest.
func cut(lasting *packing.Probabilities, rest time.Duration) {
	if lasting == nil {
		return
	}
	for i, t := range packing.Times {
		if t > rest.Seconds() {
			lasting[i] = 0
		}
	}
}

// beyond the horizon.
func (f *Fleet) beyond(remaining time.Duration) bool {
	return f.options.Horizon > 0 && remaining >= f.options.Horizon
}

// Candidates are names of nodes for a pod, the best first, up to q.Most: of those that packing.Index finds and those with pods of its group.
// Leaving nodes are not among them. The query needs neither the pod's requests nor what is expected of it.
func (f *Fleet) Candidates(p Pod, q packing.Query) []string {
	q.Requests, q.Pod = p.Requests, f.Expect(p, q.Now)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(q.Now)
	found := f.index.Candidates(q)
	for i, name := range slices.Sorted(maps.Keys(f.groups[p.Group])) {
		x := f.nodes[name]
		if i == q.Tries {
			break
		}
		known := func(e packing.Entry) bool { return e.Name == name }
		if x.registered && x.open() && x.free().Fit(p.Requests) && !slices.ContainsFunc(found, known) && q.Accept(name) {
			e, _ := f.index.Get(name)
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return nil
	}
	var requested []int
	var weights []float64
	for r := range packing.Indexed - 1 {
		if p.Requests[r] > 0 {
			requested, weights = append(requested, r), append(weights, cmp.Or(q.Weights[r], 1))
		}
	}
	nodes, amounts := make([]packing.Node, len(found)), make([]int64, 0, 2*len(found)*len(requested))
	for i := range found {
		for _, of := range [...]packing.Amounts{found[i].Allocatable, found[i].Free.Minus(p.Requests)} {
			for _, r := range requested {
				amounts = append(amounts, of[r])
			}
		}
		at, width := len(amounts), len(requested)
		nodes[i] = packing.Node{
			Name: found[i].Name, Created: found[i].Created, Allocatable: amounts[at-2*width : at-width : at-width], Free: amounts[at-width : at : at],
		}
	}
	f.describe(nodes, &q.Pod, p.Group, q.Now)
	keys := packing.Order(nodes, &q.Pod, weights, q.Most)
	names := make([]string, len(keys))
	for i := range keys {
		names[i] = keys[i].Name
	}
	return names
}

// Describe fills in of nodes, by their names, what the fleet knows that a pod's order needs: how long their pods are expected to keep them,
// how many more pods like it fit, how many pods of its group are there, and what they cost beside the cheapest. Nodes that it does not know are left as they are.
func (f *Fleet) Describe(nodes []packing.Node, pod *packing.Pod, group string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(now)
	f.describe(nodes, pod, group, now)
}

func (f *Fleet) describe(nodes []packing.Node, pod *packing.Pod, group string, now time.Time) {
	together, cheapest := f.groups[group], f.index.Cheapest()
	for i := range nodes {
		x := f.nodes[nodes[i].Name]
		if x == nil {
			continue
		}
		nodes[i].Exit, nodes[i].Locality, nodes[i].Price = x.stays(now), together[x.Name], max(0, x.Price-cheapest)
		nodes[i].More = x.free().Minus(pod.Requests).Times(pod.Requests)
		if pod.Lasting != nil && nodes[i].Exit != packing.Never {
			nodes[i].Gone = f.goneOf(x, now)
		}
	}
}

// goneOf are the probabilities that all pods of a node are gone: those of its pods multiplied, as if they did not depend on each other.
func (f *Fleet) goneOf(x *node, now time.Time) *packing.Probabilities {
	if x.gone != nil && now.Sub(x.goneAt) < freshFor {
		return x.gone
	}
	x.gone, x.goneAt = &packing.Probabilities{}, now
	for i := range x.gone {
		x.gone[i] = 1
	}
	var lasting packing.Probabilities
	for _, p := range x.pods {
		if p.expects == nil {
			continue
		}
		p.expects.Lasting(max(0, now.Sub(p.started)), packing.Times[:], lasting[:])
		if p.Limit > 0 {
			cut(&lasting, overdue(p.started.Add(p.Limit), now).Sub(now))
		}
		if !p.Deadline.IsZero() {
			cut(&lasting, overdue(p.Deadline, now).Sub(now))
		}
		for i := range lasting {
			x.gone[i] *= 1 - lasting[i]
		}
	}
	return x.gone
}

// View is what is known of a node, for people.
type View struct {
	Name    string `json:"node"`
	Leaving bool   `json:"leaving"`
	// Draining since; null when it does not drain.
	Draining *time.Time `json:"draining"`
	Pods     int        `json:"pods"`
	// BusyWorkers and IdleWorkers are those that speak to the scheduler, EmptiesIn how many seconds the pods that work are expected to need, by what
	// is known of messages; null when one never ends. The fleet itself does not know them.
	BusyWorkers int      `json:"busyWorkers"`
	IdleWorkers int      `json:"idleWorkers"`
	EmptiesIn   *float64 `json:"emptiesInSeconds"`
	// Exit is when the last of its pods is expected to end; null when none keeps it, and when one never ends.
	Exit    *time.Time `json:"exit"`
	Endless bool       `json:"endless"`
	Price   int        `json:"priceClass"`
	// Used and Allocatable millicores of CPU, bytes of memory and of ephemeral storage, and pods.
	Used        packing.Amounts `json:"used"`
	Allocatable packing.Amounts `json:"allocatable"`
}

// Views are all nodes, by name.
func (f *Fleet) Views(now time.Time) []View {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(now)
	views := make([]View, 0, len(f.nodes))
	for _, x := range f.nodes {
		if !x.registered {
			continue
		}
		v := View{
			Name: x.Name, Leaving: x.Leaving, Pods: len(x.pods), Endless: x.exit.Equal(packing.Forever), Price: x.Price,
			Used: x.used, Allocatable: x.Allocatable,
		}
		if !v.Endless && !x.exit.IsZero() {
			exit := x.exit
			v.Exit = &exit
		}
		if !x.Draining.IsZero() {
			since := x.Draining
			v.Draining = &since
		}
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b View) int { return strings.Compare(a.Name, b.Name) })
	return views
}

// Learned is the number of classes of pods that were learned from, and how well their run times are expected: see
// lifetime.Estimator.
func (f *Fleet) Learned() (classes int, correlation float64) {
	return f.lifetimes.Classes(), f.lifetimes.Correlation()
}

// Used is the amounts in use and allocatable on all nodes together.
func (f *Fleet) Used() (used, allocatable packing.Amounts) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total.used, f.total.allocatable
}

// Size is the number of nodes and of pods on them.
func (f *Fleet) Size() (nodes, pods int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.nodes {
		if n.registered {
			nodes++
		}
	}
	return nodes, len(f.pods)
}

// NodeUse is what a node is thought to hold.
type NodeUse struct {
	Used packing.Amounts
	Pods int
}

// Check compares the fleet with what nodes really hold and says where it differs, and where it contradicts itself: for tests
// and for a look at a running scheduler. Nil when all agrees.
func (f *Fleet) Check(real map[string]NodeUse) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var wrong []error
	var total totals
	indexed := 0
	for name, x := range f.nodes {
		var sum, following packing.Amounts
		for _, p := range x.pods {
			sum = sum.Plus(p.Requests)
			if p.Follower {
				following = following.Plus(p.Requests)
			}
		}
		exit := lastEnd(x)
		if sum != x.used || !exit.Equal(x.exit) || following != x.followerUsed {
			wrong = append(wrong, fmt.Errorf("node %s: used %v, %v by followers, exit %s; its pods say %v, %v, %s",
				name, x.used, x.followerUsed, x.exit, sum, following, exit))
		}
		if !x.registered {
			continue
		}
		total.used, total.allocatable = total.used.Plus(x.used), total.allocatable.Plus(x.Allocatable)
		if want, ok := real[name]; !ok || want.Used != x.used || want.Pods != len(x.pods) {
			wrong = append(wrong, fmt.Errorf("node %s: %d pods hold %v, really %d hold %v", name, len(x.pods), x.used, want.Pods, want.Used))
		}
		if x.Leaving {
			continue
		}
		indexed++
		if e, ok := f.index.Get(name); !ok || e.Free != x.free() || e.Price != x.Price || !e.Exit.Equal(x.exit) {
			wrong = append(wrong, fmt.Errorf("node %s: indexed as %+v", name, e))
		}
	}
	for name := range real {
		if x := f.nodes[name]; x == nil || !x.registered {
			wrong = append(wrong, fmt.Errorf("node %s is not known", name))
		}
	}
	if indexed != f.index.Len() || total != f.total {
		wrong = append(wrong, fmt.Errorf("%d nodes indexed of %d, total %v, want %v", f.index.Len(), indexed, f.total, total))
	}
	return errors.Join(wrong...)
}

// stays is how long a node's pods are expected to keep it.
func (x *node) stays(now time.Time) time.Duration {
	if x.exit.Equal(packing.Forever) {
		return packing.Never
	}
	return max(0, x.exit.Sub(now))
}

func (x *node) free() packing.Amounts { return x.Allocatable.Minus(x.used) }

// node is a node's record, a new one when nothing was heard of it.
func (f *Fleet) node(name string) *node {
	x := f.nodes[name]
	if x == nil {
		x = &node{Node: Node{Name: name}, pods: map[string]*placed{}}
		f.nodes[name] = x
	}
	return x
}

// take takes a pod off its node.
func (f *Fleet) take(p *placed) {
	x := f.nodes[p.node]
	if p.place >= 0 {
		heap.Remove(&f.due, p.place)
	}
	delete(f.pods, p.ID)
	delete(x.pods, p.ID)
	x.gone = nil
	x.used = x.used.Minus(p.Requests)
	if p.Follower {
		x.followers, x.followerUsed = x.followers-1, x.followerUsed.Minus(p.Requests)
	}
	if x.registered {
		f.total.used = f.total.used.Minus(p.Requests)
	}
	if p.Group != "" {
		group := f.groups[p.Group]
		if group[p.node]--; group[p.node] == 0 {
			delete(group, p.node)
		}
		if len(group) == 0 {
			delete(f.groups, p.Group)
		}
	}
	if p.ends.Equal(x.exit) {
		x.exit = lastEnd(x)
	}
	f.reindex(x)
	f.forgetUnused(x)
}

// open nodes are offered to pods.
func (x *node) open() bool { return !x.Leaving && x.Draining.IsZero() }

// Remaining is how much longer a pod on a node is expected to run: packing.Never for one that has no end, and for one that is not known.
func (f *Fleet) Remaining(id string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[id]
	if p == nil || p.ends.Equal(packing.Forever) {
		return packing.Never
	}
	return max(0, p.ends.Sub(now))
}

func lastEnd(x *node) time.Time {
	var last time.Time
	for _, p := range x.pods {
		if p.ends.After(last) {
			last = p.ends
		}
	}
	return last
}

func (f *Fleet) forgetUnused(x *node) {
	if !x.registered && len(x.pods) == 0 {
		delete(f.nodes, x.Name)
	}
}

// endOf is when a pod is expected to end, seen from an instant.
func (f *Fleet) endOf(p *placed, now time.Time) time.Time {
	if p.Follower {
		return time.Time{}
	}
	end := packing.Forever
	if !p.Endless {
		remaining := p.expects.Remaining(max(0, now.Sub(p.started)), exitQuantile)
		end = earliest(end, now.Add(max(soonest, remaining)))
		if p.Limit > 0 {
			end = earliest(end, overdue(p.started.Add(p.Limit), now))
		}
		if f.beyond(end.Sub(p.started)) {
			end = packing.Forever
		}
	}
	if !p.Deadline.IsZero() {
		end = earliest(end, overdue(p.Deadline, now))
	}
	return end
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// overdue is when a pod ends that was to end at an instant: once that is past, as much later again.
func overdue(at, now time.Time) time.Time {
	if at.After(now) {
		return at
	}
	return now.Add(max(soonest, now.Sub(at)))
}

// reindex brings the index up to a change of a node.
func (f *Fleet) reindex(x *node) {
	if x.registered && x.open() {
		f.index.Set(packing.Entry{
			Name: x.Name, Created: x.Created, Exit: x.exit, Price: x.Price, Allocatable: x.Allocatable, Free: x.free(),
		})
	} else {
		f.index.Remove(x.Name)
	}
}

// expect says when a pod will end, seen from an instant, and when to ask again: half of the way there, as one that has run for a while is
// one that may run for longer.
func (f *Fleet) expect(p *placed, now time.Time) {
	p.ends = f.endOf(p, now)
	switch {
	case p.ends.IsZero() || p.ends.Equal(packing.Forever):
		if p.place >= 0 {
			heap.Remove(&f.due, p.place)
		}
	default:
		p.renew = now.Add(max(soonest, p.ends.Sub(now)/2))
		if p.place >= 0 {
			heap.Fix(&f.due, p.place)
		} else {
			heap.Push(&f.due, p)
		}
	}
}

// refresh updates the expected run times of the pods that are due, by what is known by then.
func (f *Fleet) refresh(now time.Time) {
	for len(f.due) > 0 && !f.due[0].renew.After(now) {
		p := f.due[0]
		x, was := f.nodes[p.node], p.ends
		if p.mortal() {
			p.expects, x.gone = f.lifetimes.Expect(p.Class, p.Stated, now), nil
		}
		f.expect(p, now)
		exit := x.exit
		switch {
		case p.ends.After(exit):
			exit = p.ends
		case was.Equal(exit):
			exit = lastEnd(x)
		}
		if !exit.Equal(x.exit) {
			x.exit = exit
			f.reindex(x)
		}
	}
}

// duePods is a heap of pods by when to update their expected run time.
type duePods []*placed

func (d duePods) Len() int           { return len(d) }
func (d duePods) Less(i, j int) bool { return d[i].renew.Before(d[j].renew) }
func (d duePods) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push implements heap.Interface.
func (d *duePods) Push(x any) {
	p := x.(*placed)
	p.place = len(*d)
	*d = append(*d, p)
}

// Pop implements heap.Interface.
func (d *duePods) Pop() any {
	last := len(*d) - 1
	p := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	p.place = -1
	return p
}
