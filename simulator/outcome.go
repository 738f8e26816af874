package simulator

import (
	"math"
	"slices"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lowerbound"
)

// Outcome is what came of a run. Hours count until an hour after the last arrival, or until the last message is done if that is later.
type Outcome struct {
	Messages int `json:"messages"`
	// Unserved messages were not done a week after the last arrival.
	Unserved int `json:"unserved"`
	// Jobs that KEDA started, and those that found no message.
	Jobs      int `json:"jobs"`
	EmptyJobs int `json:"emptyJobs"`
	// Crashes of workers, and nodes that were lost.
	Crashes   int `json:"crashes"`
	LostNodes int `json:"lostNodes"`
	// Evicted pods of nodes that were consolidated.
	Evicted int `json:"evicted,omitzero"`
	// Wait from a message's arrival to the start of its scan.
	Wait Waits `json:"waitSeconds"`
	// PodHours of jobs, and those of them without a scan at work.
	PodHours     float64 `json:"podHours"`
	IdlePodHours float64 `json:"idlePodHours"`
	NodeHours    float64 `json:"nodeHours"`
	// RatioToBound is node-hours over the least that any packer could have done with the same pods, and nodes of the largest
	// shape that start at once.
	RatioToBound float64 `json:"ratioToBound"`
	PeakNodes    int     `json:"peakNodes"`
	Cost         float64 `json:"cost"`
	// TimerResetsPerNodeHour counts pods that were put on an empty node that would have been removed.
	TimerResetsPerNodeHour float64 `json:"timerResetsPerNodeHour"`
	// Drains of a run with Rules.
	Drains Drains `json:"drains,omitzero"`
	// Series of the run, in steps of StepSeconds.
	Series Series `json:"series,omitzero"`
	// Waited is how long each message waited, in the order of their arrival; -1 for one whose scan never began.
	Waited []time.Duration `json:"-"`
}

// Waits in seconds.
type Waits struct {
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Mean float64 `json:"mean"`
	Max  float64 `json:"max"`
}

// Series are means over steps.
type Series struct {
	Start       time.Time `json:"start"`
	StepSeconds float64   `json:"stepSeconds"`
	Arrivals    []int     `json:"arrivals"`
	Backlog     []float64 `json:"backlog"`
	Target      []float64 `json:"target"`
	Pods        []float64 `json:"pods"`
	Busy        []float64 `json:"busy"`
	Nodes       []float64 `json:"nodes"`
	// Bound is the fewest nodes that any packer could have had: see Outcome.RatioToBound.
	Bound []float64 `json:"bound"`
	// Price of an hour of the nodes.
	Price []float64 `json:"price"`
	// Constraints are the shares of queues whose target each of them decided.
	Constraints map[sizing.Constraint][]float64 `json:"constraints"`
	// WaitQuantiles are the waits that 0%, 1%, ... 100% of the messages do not exceed, in seconds.
	WaitQuantiles []float64 `json:"waitQuantiles"`
}

func (r *run) outcome() Outcome {
	for _, w := range r.workers {
		if w.node != nil {
			r.intervals = append(r.intervals, lowerbound.Interval{
				Start: Epoch.Add(w.bound), End: Epoch.Add(r.now), Requests: w.job.Requests[:],
			})
		}
	}
	for _, n := range slices.Concat(r.nodes.ready, r.booting) {
		r.nodes.account(n, r.now)
	}
	bound := 0.0
	lowerbound.Each(r.intervals, bounding(r.largest().Capacity), r.Nodes.Delay.Least(), func(from, to time.Time, nodes int64) {
		bound += float64(nodes) * to.Sub(from).Seconds()
		r.series.add(from.Sub(Epoch), to.Sub(Epoch), &[gauges]float64{gaugeBound: float64(nodes)})
	})
	hours := r.nodes.hours
	waits, quantiles := summarize(slices.DeleteFunc(slices.Clone(r.waits), func(wait time.Duration) bool { return wait < 0 }))
	series := r.series.means(r.Origin)
	series.WaitQuantiles = quantiles
	return Outcome{
		Messages: len(r.messages), Unserved: len(r.messages) - r.settled, Jobs: r.nextID, EmptyJobs: r.empty, Crashes: r.crashed,
		LostNodes: r.lost, Evicted: r.evicted, Wait: waits, PodHours: r.podSeconds / 3600, IdlePodHours: (r.podSeconds - r.busySeconds) / 3600,
		NodeHours: hours, RatioToBound: ratio(hours*3600, bound), PeakNodes: r.nodes.peak, Cost: r.nodes.cost, Drains: r.rules.count, Waited: r.waits,
		TimerResetsPerNodeHour: ratio(float64(r.nodes.resets), hours), Series: series,
	}
}

// Mean is the mean of outcomes, each of the same messages with another seed; its series are those of the first. Counts are rounded.
func Mean(outcomes []Outcome) Outcome {
	mean := outcomes[0]
	for _, count := range []func(*Outcome) *int{
		func(o *Outcome) *int { return &o.Unserved }, func(o *Outcome) *int { return &o.Jobs },
		func(o *Outcome) *int { return &o.EmptyJobs }, func(o *Outcome) *int { return &o.Crashes },
		func(o *Outcome) *int { return &o.LostNodes }, func(o *Outcome) *int { return &o.PeakNodes },
		func(o *Outcome) *int { return &o.Drains.Begun }, func(o *Outcome) *int { return &o.Drains.Finished },
		func(o *Outcome) *int { return &o.Drains.Stopped }, func(o *Outcome) *int { return &o.Drains.Yields },
		func(o *Outcome) *int { return &o.Drains.Left },
	} {
		*count(&mean) = int(math.Round(meanOf(outcomes, func(o *Outcome) float64 { return float64(*count(o)) })))
	}
	for _, amount := range []func(*Outcome) *float64{
		func(o *Outcome) *float64 { return &o.Wait.P50 }, func(o *Outcome) *float64 { return &o.Wait.P95 },
		func(o *Outcome) *float64 { return &o.Wait.P99 }, func(o *Outcome) *float64 { return &o.Wait.Mean },
		func(o *Outcome) *float64 { return &o.Wait.Max }, func(o *Outcome) *float64 { return &o.PodHours },
		func(o *Outcome) *float64 { return &o.IdlePodHours }, func(o *Outcome) *float64 { return &o.NodeHours },
		func(o *Outcome) *float64 { return &o.RatioToBound }, func(o *Outcome) *float64 { return &o.Cost },
		func(o *Outcome) *float64 { return &o.TimerResetsPerNodeHour },
	} {
		*amount(&mean) = meanOf(outcomes, func(o *Outcome) float64 { return *amount(o) })
	}
	return mean
}

func meanOf(outcomes []Outcome, of func(*Outcome) float64) float64 {
	sum := 0.0
	for i := range outcomes {
		sum += of(&outcomes[i])
	}
	return sum / float64(len(outcomes))
}

// ratio is 0 where there is nothing to compare with.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func summarize(waits []time.Duration) (summary Waits, quantiles []float64) {
	if len(waits) == 0 {
		return summary, nil
	}
	slices.Sort(waits)
	at := func(p float64) float64 { return waits[max(0, int(math.Ceil(p*float64(len(waits))))-1)].Seconds() }
	sum := 0.0
	for _, w := range waits {
		sum += w.Seconds()
	}
	for p := range 101 {
		quantiles = append(quantiles, at(float64(p)/100))
	}
	return Waits{P50: at(0.5), P95: at(0.95), P99: at(0.99), Mean: sum / float64(len(waits)), Max: at(1)}, quantiles
}

// gauges that a series follows.
const (
	gaugeBacklog = iota
	gaugeTarget
	gaugePods
	gaugeBusy
	gaugeNodes
	gaugeBound
	gaugePrice
	gaugeConstraints // of them, in the order of sizing.Constraints
	gauges           = gaugeConstraints + len(sizing.Constraints)
)

// series adds gauges up over steps of time.
type series struct {
	step     time.Duration
	last     time.Duration // how long the last step is
	arrivals []int
	sums     [][gauges]float64 // gauge times seconds
}

// newSeries makes some four hundred steps of a short run, and steps of a quarter of an hour of a long one.
func newSeries(length time.Duration) *series {
	step := min(15*time.Minute, max(time.Second, (length/400).Round(time.Second)))
	count := int((length-1)/step) + 1
	return &series{step: step, last: length - time.Duration(count-1)*step, arrivals: make([]int, count), sums: make([][gauges]float64, count)}
}

func (s *series) arrive(at time.Duration) { s.arrivals[s.index(at)]++ }

func (s *series) index(at time.Duration) int { return min(int(at/s.step), len(s.sums)-1) }

func (s *series) add(from, to time.Duration, values *[gauges]float64) {
	for from < to {
		i := s.index(from)
		end := min(to, time.Duration(i+1)*s.step)
		if i == len(s.sums)-1 {
			// What comes after the last step is not shown.
			if end = to; from >= time.Duration(i)*s.step+s.last {
				return
			}
			end = min(end, time.Duration(i)*s.step+s.last)
		}
		for g, v := range values {
			s.sums[i][g] += v * (end - from).Seconds()
		}
		from = end
	}
}

func (s *series) means(origin time.Time) Series {
	out := Series{
		Start: origin, StepSeconds: s.step.Seconds(), Arrivals: s.arrivals, Constraints: map[sizing.Constraint][]float64{},
	}
	for i := range s.sums {
		step := s.step
		if i == len(s.sums)-1 {
			step = s.last
		}
		for g, list := range []*[]float64{&out.Backlog, &out.Target, &out.Pods, &out.Busy, &out.Nodes, &out.Bound, &out.Price} {
			*list = append(*list, s.sums[i][g]/step.Seconds())
		}
		for c, name := range sizing.Constraints {
			out.Constraints[name] = append(out.Constraints[name], s.sums[i][gaugeConstraints+c]/step.Seconds())
		}
	}
	return out
}
