package simulator

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// queueHistory answers as a Prometheus does that scraped a queue and a histogram of what ended.
type queueHistory struct {
	jobs  []Job
	waits time.Duration // of each job
	late  time.Duration // by which the depth is
}

// bounds of the histogram.
var bounds = []float64{1, 2, 5, 10, 20, 60, 120, 300, math.Inf(1)}

func (r queueHistory) depth(at time.Duration) (n float64) {
	for i := range r.jobs {
		if j := &r.jobs[i]; j.Start <= at-r.late && at-r.late < j.Start+r.waits+j.Run {
			n++
		}
	}
	return n
}

func (r queueHistory) ended(from, to time.Duration, upTo float64) (n, sum float64) {
	for i := range r.jobs {
		j := &r.jobs[i]
		if end := j.Start + r.waits + j.Run; end > from && end <= to && j.Run.Seconds() <= upTo {
			n, sum = n+1, sum+j.Run.Seconds()
		}
	}
	return n, sum
}

func (r queueHistory) QueryRange(_ context.Context, query string, over prometheus.Range, _ ...prometheus.Option) (model.Value, prometheus.Warnings, error) {
	values := func(metric model.Metric, value func(at time.Duration) float64) *model.SampleStream {
		s := &model.SampleStream{Metric: metric}
		for at := over.Start; !at.After(over.End); at = at.Add(over.Step) {
			s.Values = append(s.Values, model.SamplePair{Timestamp: model.TimeFromUnixNano(at.UnixNano()), Value: model.SampleValue(value(at.Sub(Epoch)))})
		}
		return s
	}
	within := func(upTo float64, sum bool) func(time.Duration) float64 {
		return func(at time.Duration) float64 {
			n, s := r.ended(at-over.Step, at, upTo)
			if sum {
				return s
			}
			return n
		}
	}
	switch {
	case query == "depth":
		return model.Matrix{values(nil, r.depth)}, nil, nil
	case strings.Contains(query, "_bucket"):
		var m model.Matrix
		for _, b := range bounds {
			m = append(m, values(model.Metric{"le": model.LabelValue(model.SampleValue(b).String())}, within(b, false)))
		}
		return m, nil, nil
	case strings.Contains(query, "_sum"):
		return model.Matrix{values(nil, within(math.Inf(1), true))}, nil, nil
	}
	return model.Matrix{values(nil, within(math.Inf(1), false))}, nil, nil
}

// Messages that come while as many end do not change the depth. The histogram tells how many there were and how long they ran, where the depth alone
// makes fewer messages of them that run for longer. A depth that is read late, or ends that are counted late, make no messages.
func TestFromPrometheus(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	from := Epoch.Add(time.Hour)
	var jobs []Job
	var total time.Duration
	for at := time.Hour; at < 4*time.Hour; at += time.Duration(random.ExpFloat64() * float64(4*time.Second)) {
		run := seconds(min(200, 25*math.Exp(0.9*random.NormFloat64())))
		jobs, total = append(jobs, Job{Start: at, Run: run}), total+run
	}
	for name, tc := range map[string]struct {
		late, step time.Duration
	}{"every second": {0, time.Second}, "a late depth": {3 * time.Second, time.Second}, "every minute": {0, time.Minute}} {
		api := queueHistory{jobs, 10 * time.Second, tc.late}
		got, found, err := FromPrometheus(t.Context(), api, Demand{Depth: "depth", Runs: `runs{a="b"}`, Step: tc.step}, from, from.Add(4*time.Hour), func(time.Time) {})
		if err != nil {
			t.Fatal(err)
		}
		var ran time.Duration
		longest := time.Duration(0)
		for _, j := range got.Jobs {
			ran, longest = ran+j.Run, max(longest, j.Run)
		}
		near := func(what string, got, want, by float64) {
			if math.Abs(got/want-1) > by {
				t.Errorf("%s: %s: %.0f, want about %.0f", name, what, got, want)
			}
		}
		near("messages", float64(len(got.Jobs)), float64(len(jobs)), 0.01)
		near("seconds in all", ran.Seconds(), total.Seconds(), 0.01)
		near("the longest", longest.Seconds(), 200, 0.5)
		if found.Runs != len(jobs) || found.Rises+found.Hidden != len(got.Jobs) || found.Hidden == 0 {
			t.Errorf("%s: found %+v of %d", name, found, len(jobs))
		}
		// By the quarter of an hour as many came as did.
		for at := time.Hour; at < 4*time.Hour; at += 15 * time.Minute {
			count := func(t Trace) (n float64) {
				for _, j := range t.Jobs {
					if start := t.Origin.Add(j.Start).Sub(Epoch); start >= at && start < at+15*time.Minute {
						n++
					}
				}
				return n
			}
			near("messages from "+at.String(), count(got), count(Trace{Origin: Epoch, Jobs: jobs}), 0.1)
		}
		alone, _, err := FromPrometheus(t.Context(), api, Demand{Depth: "depth", Step: tc.step}, from, from.Add(4*time.Hour), func(time.Time) {})
		if err != nil || len(alone.Jobs) >= len(jobs)*99/100 {
			t.Errorf("%s: the depth alone shows %d messages of %d, error %v", name, len(alone.Jobs), len(jobs), err)
		}
	}
	if got := part(`runs {a="b"}`, "_sum"); got != `runs_sum{a="b"}` {
		t.Errorf("the sum is asked for by %q", got)
	}
}

// The last waiting message of a burst is taken, and for some seconds the broker's count of messages in flight is older than that: the depth dips. The
// dip makes no messages, and does not hide those that come in it.
func TestDip(t *testing.T) {
	for name, tc := range map[string]struct {
		depth, ended []float64 // by second
		want         int
	}{
		"a dip":                     {[]float64{0, 30, 30, 10, 12, 30, 30, 30, 30, 30, 30, 20, 0, 0, 0, 0, 0, 0}, []float64{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 20, 0, 0, 0, 0, 0}, 30},
		"five that come in a dip":   {[]float64{0, 30, 30, 10, 15, 35, 35, 35, 35, 35, 35, 20, 0, 0, 0, 0, 0, 0}, []float64{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 20, 0, 0, 0, 0, 0}, 35},
		"ends that count late":      {[]float64{0, 30, 20, 25, 25, 25, 25, 25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []float64{0, 0, 0, 0, 10, 0, 0, 0, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0}, 35},
		"ends that are not counted": {[]float64{0, 30, 0, 0, 0, 0, 0, 0, 20, 20, 0, 0, 0, 0, 0, 0, 0, 0}, []float64{0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 50},
	} {
		h, before, got := newHidden(5), 0.0, 0
		for i, depth := range tc.depth {
			hidden, arrived := h.step(tc.ended[i], int(max(0, before-depth)), int(max(0, depth-before)))
			got, before = got+hidden+arrived, depth
		}
		if got != tc.want {
			t.Errorf("%s: %d messages, want %d", name, got, tc.want)
		}
	}
}
