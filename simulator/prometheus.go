package simulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// QueryRange is the part of Prometheus' API that histories need.
type QueryRange interface {
	QueryRange(ctx context.Context, query string, r prometheus.Range, options ...prometheus.Option) (model.Value, prometheus.Warnings, error)
}

// demandStep is how far apart samples are asked for unless somebody says otherwise.
const demandStep = time.Minute

// mostPoints of a series that Prometheus is asked for at once: it answers at most 11,000.
const mostPoints = 10_080

// Demand says what to ask a Prometheus for.
type Demand struct {
	// Depth is PromQL for the number of messages that wait or are worked on, summed over its series.
	Depth string
	// Runs is a histogram of how long messages were worked on, in seconds, with labels: ebbtide_scans_run_seconds{namespace="scan"}; empty: none.
	Runs string
	// Step is how far apart samples are; 0: a minute. Finer than the scrapes it says nothing more.
	Step time.Duration
}

// DemandFound says what FromPrometheus found.
type DemandFound struct {
	// Rises of the depth, and messages that came while as many ended, which the histogram tells.
	Rises, Hidden int
	// Runs that the histogram counted; 0: run times are guessed from falls of the depth.
	Runs int
}

// grace is how much earlier than the depth a counter may tell that a message ended: the depth is a sample of the broker's.
const grace = 5 * time.Second

// FromPrometheus makes a load of how many messages were worked on or waited. Every rise is that many messages that come. Without a histogram every fall
// is that many that end, the oldest first, so that run times include waits and are no finer than a step, and messages that come while as many end are
// not seen. With one, its count tells those, and its buckets how long messages of a day took; which of them took how long is left to chance.
// Gaps count as no change. Asked is called with every instant up to which is known.
func FromPrometheus(ctx context.Context, api QueryRange, d Demand, from, to time.Time, asked func(time.Time)) (Trace, DemandFound, error) {
	var found DemandFound
	step := cmp.Or(d.Step, demandStep)
	var ended map[model.Time]float64 // in the step that ends then
	var days []runTimes
	if d.Runs != "" {
		var err error
		if days, err = askRunTimes(ctx, api, d.Runs, from, to); err != nil {
			return Trace{}, found, err
		}
		for i := range days {
			found.Runs += int(math.Round(days[i].count))
		}
		if found.Runs > 0 {
			ended = map[model.Time]float64{}
			if err := eachSum(ctx, api, counting(d.Runs, step), from, to, step, func(at time.Time, sum float64) {
				ended[model.TimeFromUnixNano(at.UnixNano())] = sum
			}, func(time.Time) {}); err != nil {
				return Trace{}, found, err
			}
		}
	}
	var jobs []Job
	var running []int
	add := func(at time.Time, n int) {
		for range n {
			running = append(running, len(jobs))
			jobs = append(jobs, Job{Start: at.Sub(Epoch), Run: step, Class: "demand", Requests: DefaultRequests(), RequestsAssumed: true})
		}
	}
	before, hidden := 0, newHidden(int(max(1, (grace+step-1)/step)))
	err := eachSum(ctx, api, d.Depth, from, to, step, func(at time.Time, sum float64) {
		now := int(math.Round(sum))
		rose := max(0, now-before)
		if ended != nil {
			var missed int
			missed, rose = hidden.step(ended[model.TimeFromUnixNano(at.UnixNano())], max(0, before-now), rose)
			found.Hidden += missed
			add(at, missed)
		}
		found.Rises += rose
		add(at, rose)
		for before = now; ended == nil && len(running) > now; running = running[1:] {
			jobs[running[0]].Run = at.Sub(Epoch) - jobs[running[0]].Start
		}
	}, asked)
	switch {
	case err != nil:
		return Trace{}, found, err
	case len(jobs) == 0:
		return Trace{}, found, errors.New("the query has no samples above 0 in that time")
	case ended != nil:
		giveRunTimes(jobs, days, from)
	default:
		for _, i := range running {
			jobs[i].Run = max(step, to.Sub(Epoch)-jobs[i].Start)
		}
	}
	return newTrace(jobs), found, nil
}

// eachSum calls f with the sum of a query's series at each step that has one.
func eachSum(ctx context.Context, api QueryRange, query string, from, to time.Time, step time.Duration, f func(time.Time, float64), asked func(time.Time)) error {
	perQuery := mostPoints * step
	for begin := from; begin.Before(to); begin = begin.Add(perQuery) {
		end := begin.Add(perQuery - step)
		if end.After(to) {
			end = to
		}
		matrix, err := askRange(ctx, api, query, prometheus.Range{Start: begin, End: end, Step: step})
		if err != nil {
			return err
		}
		sums := map[model.Time]float64{}
		for _, series := range matrix {
			for _, s := range series.Values {
				if v := float64(s.Value); !math.IsNaN(v) && v > 0 {
					sums[s.Timestamp] += v
				} else {
					sums[s.Timestamp] += 0
				}
			}
		}
		for at := begin; !at.After(end); at = at.Add(step) {
			if sum, ok := sums[model.TimeFromUnixNano(at.UnixNano())]; ok {
				f(at, sum)
			}
		}
		asked(end)
	}
	return nil
}

func askRange(ctx context.Context, api QueryRange, query string, r prometheus.Range) (model.Matrix, error) {
	value, _, err := api.QueryRange(ctx, query, r)
	if err != nil {
		return nil, fmt.Errorf("query %q from %s: %w", query, r.Start.Format(time.RFC3339), err)
	}
	matrix, ok := value.(model.Matrix)
	if !ok {
		return nil, fmt.Errorf("query %q gives a %s, want a range of samples", query, value.Type())
	}
	return matrix, nil
}

// hiddenArrivals are messages that came while as many ended, so that the depth does not tell: a counter counts more ends than the depth falls by.
type hiddenArrivals struct {
	credit float64   // counted ends that no fall has shown
	last   []float64 // of the last steps: what a fall shows within them was no hidden arrival
	fell   []float64 // of the last steps, beyond the ends that were counted
}

func newHidden(steps int) *hiddenArrivals {
	return &hiddenArrivals{last: make([]float64, 0, steps), fell: make([]float64, 0, steps)}
}

// step is how many hidden messages are known to have come, and how many of those by which the depth rose, after a step in which a counter rose by what
// ended and the depth fell or rose. The broker's count of messages in flight may be seconds old, so that the depth falls when the last waiting
// message is taken and rises again: a rise after falls for which no ends were counted is no arrival. If their ends are counted later, the falls were
// real, and the messages are hidden ones.
func (h *hiddenArrivals) step(ended float64, fell, rose int) (hidden, arrived int) {
	unexplained := 0.0
	for _, f := range h.fell {
		unexplained += f
	}
	again := min(rose, int(max(0, unexplained)+0.01))
	h.credit += ended - float64(fell-again)
	h.last, h.fell = shift(h.last, h.credit), shift(h.fell, float64(fell-again)-ended)
	if arrived = rose - again; len(h.last) < cap(h.last) {
		return 0, arrived
	}
	if hidden = int(slices.Min(h.last) + 0.01); hidden <= 0 {
		return 0, arrived
	}
	h.credit -= float64(hidden)
	for i := range h.last {
		h.last[i] -= float64(hidden)
	}
	return hidden, arrived
}

// shift appends a value, and drops the first where there is no room.
func shift(values []float64, v float64) []float64 {
	if len(values) == cap(values) {
		values = append(values[:0], values[1:]...)
	}
	return append(values, v)
}

// runTimes are those of a window of time.
type runTimes struct {
	bounds     []float64 // upper ones in seconds, the last infinite
	cumulated  []float64 // how many were no longer
	count, sum float64
}

// runWindow is the length of time that has separate run times.
const runWindow = 24 * time.Hour

// part is a part of a histogram: its buckets, sum or count, with the labels of the whole.
func part(histogram, suffix string) string {
	name, labels, selects := strings.Cut(histogram, "{")
	if selects {
		labels = "{" + labels
	}
	return strings.TrimSpace(name) + suffix + labels
}

// counting is a query for how many runs ended in the step before each instant. A counter that appears says nothing of before; increase would
// extrapolate to parts of messages.
func counting(histogram string, step time.Duration) string {
	count := part(histogram, "_count")
	return fmt.Sprintf("sum(%s - (%s offset %dms) >= 0)", count, count, step.Milliseconds())
}

// askRunTimes asks for the run times of each window.
func askRunTimes(ctx context.Context, api QueryRange, histogram string, from, to time.Time) ([]runTimes, error) {
	window := min(runWindow, to.Sub(from))
	days := make([]runTimes, int((to.Sub(from)+window-1)/window))
	r := prometheus.Range{Start: from.Add(window), End: from.Add(window * time.Duration(len(days))), Step: window}
	by := fmt.Sprintf("[%dms]", window.Milliseconds())
	for _, of := range []struct {
		query string
		set   func(*runTimes, model.Metric, float64)
	}{
		{"sum by (le) (increase(" + part(histogram, "_bucket") + by + "))", func(d *runTimes, m model.Metric, v float64) {
			var bound float64
			if _, err := fmt.Sscanf(strings.ReplaceAll(string(m["le"]), "+Inf", "Inf"), "%g", &bound); err == nil {
				d.bounds, d.cumulated = append(d.bounds, bound), append(d.cumulated, v)
			}
		}},
		{"sum(increase(" + part(histogram, "_count") + by + "))", func(d *runTimes, _ model.Metric, v float64) { d.count = v }},
		{"sum(increase(" + part(histogram, "_sum") + by + "))", func(d *runTimes, _ model.Metric, v float64) { d.sum = v }},
	} {
		matrix, err := askRange(ctx, api, of.query, r)
		if err != nil {
			return nil, err
		}
		for _, series := range matrix {
			for _, s := range series.Values {
				i := int(s.Timestamp.Time().Sub(from)/window) - 1
				if v := float64(s.Value); i >= 0 && i < len(days) && !math.IsNaN(v) {
					of.set(&days[i], series.Metric, v)
				}
			}
		}
	}
	for i := range days {
		days[i].sort()
	}
	return days, nil
}

// sort orders the buckets by their bounds.
func (r *runTimes) sort() {
	order := make([]int, len(r.bounds))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(r.bounds[a], r.bounds[b]) })
	bounds, cumulated := make([]float64, len(order)), make([]float64, len(order))
	for i, from := range order {
		bounds[i], cumulated[i] = r.bounds[from], r.cumulated[from]
	}
	r.bounds, r.cumulated = bounds, cumulated
}

// quantile in seconds: between two bounds run times are assumed to be spread evenly in their logarithms.
func (r *runTimes) quantile(q float64) float64 {
	if len(r.bounds) == 0 {
		return 0
	}
	at, below := q*r.cumulated[len(r.cumulated)-1], 0.0
	for i, bound := range r.bounds {
		if r.cumulated[i] < at && i < len(r.bounds)-1 {
			below = r.cumulated[i]
			continue
		}
		var low float64
		if i > 0 {
			low = r.bounds[i-1]
		} else {
			low = bound / 4
		}
		if math.IsInf(bound, 1) {
			bound = low * 4
		}
		share := 0.5
		if r.cumulated[i] > below {
			share = (at - below) / (r.cumulated[i] - below)
		}
		return low * math.Pow(bound/low, min(1, max(0, share)))
	}
	return 0
}

// leastRuns of a window for separate run times.
const leastRuns = 20

// giveRunTimes gives the jobs of each window run times as its histogram has them, in an order that is left to chance, with its mean.
func giveRunTimes(jobs []Job, days []runTimes, from time.Time) {
	var most *runTimes // where a window says too little, the one that says most
	for i := range days {
		if most == nil || days[i].count > most.count {
			most = &days[i]
		}
	}
	window := time.Duration(math.MaxInt64)
	if len(days) > 1 {
		window = runWindow
	}
	day := func(j *Job) int { return min(len(days)-1, int((j.Start-from.Sub(Epoch))/window)) }
	for begin := 0; begin < len(jobs); {
		end := begin
		for end < len(jobs) && day(&jobs[end]) == day(&jobs[begin]) {
			end++
		}
		of := &days[day(&jobs[begin])]
		if of.count < leastRuns {
			of = most
		}
		n := end - begin
		var sum float64
		drawn := make([]float64, n)
		for i := range drawn {
			drawn[i] = of.quantile((float64(i) + 0.5) / float64(n))
			sum += drawn[i]
		}
		scale := 1.0
		if of.count > 0 && sum > 0 {
			scale = of.sum / of.count / (sum / float64(n))
		}
		for i, from := range rand.New(rand.NewPCG(1, uint64(begin))).Perm(n) {
			jobs[begin+i].Run = max(time.Millisecond, seconds(drawn[from]*scale))
		}
		begin = end
	}
}
