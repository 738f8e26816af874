// Package simulator replays a load on a fleet of nodes that grows and shrinks with it, in simulated time. The packer under trial
// is the scheduler plugin's own code; its peers are models of their published rules. The same load, options and seed give
// the same result.
package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lowerbound"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Epoch is the instant at which simulated time starts.
var Epoch = time.Unix(0, 0).UTC()

// Job is one pod of a load.
type Job struct {
	// Start is when it is created, since the Epoch; Run how long it runs once it is on a node. Both at least 0.
	Start, Run time.Duration
	Class      string
	// Stated is the run time that it states itself, right or wrong; 0 for none.
	Stated   time.Duration
	Requests packing.Amounts
	// RequestsAssumed is true where the history states no CPU or no memory, and DefaultRequests took its place.
	RequestsAssumed bool
	// Used is how much CPU it used in the mean and how much memory at most, as far as the history says; OutOfMemory that it was ended for
	// memory. A simulation does not look at either.
	Used        packing.Amounts
	OutOfMemory bool
}

// Options of a replay.
type Options struct {
	// Capacity of every node.
	Capacity packing.Amounts
	// Delay is how long a node stays after its last pod: the autoscaler's. A pod bound meanwhile restarts it.
	Delay time.Duration
	// Gather holds jobs back until the end of windows of this length, and places those of a window at once, the longest first: as the packer
	// expects, or as they state themselves. 0: every job starts when it comes.
	Gather time.Duration
}

// Packer chooses nodes. All methods are called in the order of simulated time.
type Packer interface {
	// Place is the node for a job, one of nodes on which it fits; nil for a new node. Nodes are in the order of creation.
	Place(id int, job *Job, now time.Duration, nodes []*Node) *Node
	// Bound and Ended say that a job is on a node, or was and ran for some time.
	Bound(id int, job *Job, now time.Duration, node *Node)
	Ended(id int, job *Job, ran, now time.Duration, node *Node)
	// Added and Removed say that a node is there, or was.
	Added(node *Node)
	Removed(node *Node)
}

// Result of a replay.
type Result struct {
	NodeHours float64
	// RatioToBound is node-hours over those of lowerbound.NodeSeconds.
	RatioToBound float64
	PeakNodes    int
	// DrainSeconds is from the last arrival to the last node's removal.
	DrainSeconds float64
	// TimerResetsPerNodeHour counts pods that were put on a node that was empty and would have been removed.
	TimerResetsPerNodeHour float64
}

// Replay runs all jobs with a packer. Every job starts at once: on the node chosen, or on a new one. A job larger than a node
// is an error.
func Replay(jobs []Job, packer Packer, options Options) (Result, error) {
	if options.Delay < 0 || options.Gather < 0 {
		return Result{}, fmt.Errorf("delay is %s and gather %s, want both at least 0", options.Delay, options.Gather)
	}
	for i := range jobs {
		if !options.Capacity.Fit(jobs[i].Requests) {
			return Result{}, fmt.Errorf("job %d requests %v, a node has %v", i, jobs[i].Requests, options.Capacity)
		}
		if jobs[i].Start < 0 || jobs[i].Run < 0 {
			return Result{}, fmt.Errorf("job %d starts at %s and runs %s, want both at least 0", i, jobs[i].Start, jobs[i].Run)
		}
	}
	if len(jobs) == 0 {
		return Result{}, errors.New("no jobs to replay")
	}
	if options.Gather > 0 {
		jobs = slices.Clone(jobs) // they are held back
	}
	r := replay{jobs: jobs, options: options, nodes: nodes{packer: packer}}
	r.run()
	return r.result(), nil
}

type replay struct {
	jobs    []Job
	options Options
	nodes   nodes
	events  queue[event]
}

// event is a job's end, or the end of a node's delay.
type event struct {
	at   time.Duration
	job  int // -1 for a node's
	node *Node
}

// Before is by time; at one instant ends come before removals, so that a node is removed in its turn.
func (e event) Before(other event) bool {
	return cmp.Or(cmp.Compare(e.at, other.at), cmp.Compare(other.job, e.job)) < 0
}

func (r *replay) run() {
	order := make([]int, len(r.jobs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.jobs[a].Start, r.jobs[b].Start) })
	for len(order) > 0 {
		count := 1
		if gather := r.options.Gather; gather > 0 {
			count = r.hold(order, gather)
		}
		r.until(r.jobs[order[0]].Start)
		if count > 1 {
			r.longestFirst(order[:count])
		}
		for _, id := range order[:count] {
			r.place(id)
		}
		order = order[count:]
	}
	r.until(math.MaxInt64)
}

// hold lets the jobs of the first one's window start at its end, and returns how many there are.
func (r *replay) hold(order []int, gather time.Duration) (count int) {
	end := (r.jobs[order[0]].Start/gather + 1) * gather
	for count < len(order) && r.jobs[order[count]].Start < end {
		r.jobs[order[count]].Start = end
		count++
	}
	return count
}

// longestFirst sorts jobs that start now.
func (r *replay) longestFirst(ids []int) {
	runs := make(map[int]time.Duration, len(ids))
	for _, id := range ids {
		job := &r.jobs[id]
		if runs[id] = job.Stated; r.expecter() != nil {
			runs[id] = r.expecter().expects(job, job.Start)
		}
	}
	slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(runs[b], runs[a]) })
}

func (r *replay) expecter() expecter {
	e, _ := r.nodes.packer.(expecter)
	return e
}

// until handles all events up to an instant.
func (r *replay) until(now time.Duration) {
	for len(r.events) > 0 && r.events[0].at <= now {
		e := r.events.pop()
		if e.job < 0 {
			if e.node.Pods == 0 && e.node.empty+r.options.Delay == e.at {
				r.nodes.remove(e.node, e.at)
			}
			continue
		}
		job := &r.jobs[e.job]
		r.nodes.end(e.job, job, job.Run, e.at, e.node)
		if e.node.Pods == 0 {
			r.events.push(event{e.at + r.options.Delay, -1, e.node})
		}
	}
}

func (r *replay) place(id int) {
	job := &r.jobs[id]
	node := r.nodes.packer.Place(id, job, job.Start, r.nodes.ready)
	if node == nil {
		node = r.nodes.add(Shape{Capacity: r.options.Capacity}, job.Start)
		r.nodes.start(node, job.Start)
	} else if node.Pods == 0 {
		r.nodes.resets++
	}
	r.nodes.bind(id, job, job.Start, node)
	r.events.push(event{job.Start + job.Run, id, node})
}

func (r *replay) result() Result {
	intervals := make([]lowerbound.Interval, len(r.jobs))
	var lastArrival time.Duration
	for i, job := range r.jobs {
		intervals[i] = lowerbound.Interval{
			Start: Epoch.Add(job.Start), End: Epoch.Add(job.Start + job.Run), Requests: job.Requests[:],
		}
		lastArrival = max(lastArrival, job.Start)
	}
	bound := lowerbound.NodeSeconds(intervals, bounding(r.options.Capacity), r.options.Delay)
	hours := r.nodes.hours
	return Result{
		NodeHours: hours, RatioToBound: hours * 3600 / bound, PeakNodes: r.nodes.peak,
		DrainSeconds: (r.nodes.last - lastArrival).Seconds(), TimerResetsPerNodeHour: float64(r.nodes.resets) / hours,
	}
}

// bounding is a capacity for package lowerbound: a resource that nodes lack is requested by no job, so it bounds nothing.
func bounding(capacity packing.Amounts) []int64 {
	for d := range capacity {
		capacity[d] = max(1, capacity[d])
	}
	return capacity[:]
}
