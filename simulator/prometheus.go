package simulator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// QueryRange is the part of Prometheus' API that FromPrometheus needs.
type QueryRange interface {
	QueryRange(ctx context.Context, query string, r prometheus.Range, options ...prometheus.Option) (model.Value, prometheus.Warnings, error)
}

// demandStep is how far apart samples of demand are asked for.
const demandStep = time.Minute

// FromPrometheus makes a load of how many messages were worked on or waited: every rise of the query's value, summed over its series, is
// that many messages that come, every fall as many that end, the oldest first. Run times are no finer than a minute. Gaps count as no
// change. Asked is called with every instant up to which is known.
func FromPrometheus(ctx context.Context, api QueryRange, query string, from, to time.Time, asked func(time.Time)) (Trace, error) {
	const perQuery = 7 * 24 * time.Hour // Prometheus answers at most 11,000 points of a series
	var jobs []Job
	var running []int
	for begin := from; begin.Before(to); begin = begin.Add(perQuery) {
		end := begin.Add(perQuery - demandStep)
		if end.After(to) {
			end = to
		}
		value, _, err := api.QueryRange(ctx, query, prometheus.Range{Start: begin, End: end, Step: demandStep})
		if err != nil {
			return Trace{}, fmt.Errorf("query %q from %s: %w", query, begin.Format(time.RFC3339), err)
		}
		matrix, ok := value.(model.Matrix)
		if !ok {
			return Trace{}, fmt.Errorf("query %q gives a %s, want a range of samples", query, value.Type())
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
		for at := begin; !at.After(end); at = at.Add(demandStep) {
			sum, ok := sums[model.TimeFromUnixNano(at.UnixNano())]
			if !ok {
				continue
			}
			since := at.Sub(Epoch)
			for len(running) > int(math.Round(sum)) {
				jobs[running[0]].Run = since - jobs[running[0]].Start
				running = running[1:]
			}
			for len(running) < int(math.Round(sum)) {
				running = append(running, len(jobs))
				jobs = append(jobs, Job{Start: since, Run: demandStep, Class: "demand", Requests: requests(defaultMilliCPU, defaultMiB)})
			}
		}
		asked(end)
	}
	if len(jobs) == 0 {
		return Trace{}, errors.New("the query has no samples above 0 in that time")
	}
	for _, i := range running {
		jobs[i].Run = max(demandStep, to.Sub(Epoch)-jobs[i].Start)
	}
	return newTrace(jobs), nil
}
