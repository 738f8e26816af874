package simulator

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Distribution says how long something takes, which differs from time to time.
type Distribution interface {
	// Draw is a duration of at least Least.
	Draw(random *rand.Rand) time.Duration
	Least() time.Duration
	// String is what ParseDistribution reads.
	String() string
}

// Range is uniform from Min to Max; always Min where Max is not more.
type Range struct{ Min, Max time.Duration }

// Draw implements Distribution.
func (r Range) Draw(random *rand.Rand) time.Duration {
	if r.Max <= r.Min {
		return r.Min
	}
	return r.Min + time.Duration(random.Int64N(int64(r.Max-r.Min)+1))
}

// Least implements Distribution.
func (r Range) Least() time.Duration { return r.Min }

func (r Range) String() string {
	if r.Max <= r.Min {
		return r.Min.String()
	}
	return r.Min.String() + ".." + r.Max.String()
}

// LogNormal has a median above 0 and a 95th percentile above that: most are quick and some take very long, as when an image is pulled.
type LogNormal struct{ Median, P95 time.Duration }

// Draw implements Distribution.
func (l LogNormal) Draw(random *rand.Rand) time.Duration {
	const z95 = 1.6448536269514722 // the normal distribution's
	sigma := math.Log(l.P95.Seconds()/l.Median.Seconds()) / z95
	return seconds(min(l.Median.Seconds()*math.Exp(sigma*random.NormFloat64()), 100*l.P95.Seconds()))
}

// Least implements Distribution.
func (LogNormal) Least() time.Duration { return 0 }

func (l LogNormal) String() string { return "p50=" + l.Median.String() + ",p95=" + l.P95.String() }

// Observed are durations that were seen, each as likely as the others. There is at least one.
type Observed []time.Duration

// Draw implements Distribution.
func (o Observed) Draw(random *rand.Rand) time.Duration { return o[random.IntN(len(o))] }

// Least implements Distribution.
func (o Observed) Least() time.Duration { return slices.Min(o) }

func (o Observed) String() string {
	var text []string
	for _, d := range o {
		text = append(text, d.String())
	}
	return strings.Join(text, ",")
}

// ParseDistribution reads a duration (5s), a range (5s..20s), a lognormal's percentiles (p50=8s,p95=40s) or a list of what was
// observed (4s,5s,31s).
func ParseDistribution(text string) (Distribution, error) {
	wrong := errors.New("want a duration, 5s; a range, 5s..20s; a lognormal's percentiles, p50=8s,p95=40s; or what was observed, 4s,5s,31s")
	parse := func(text string) (time.Duration, bool) {
		d, err := time.ParseDuration(strings.TrimSpace(text))
		return d, err == nil && d >= 0
	}
	if low, high, ok := strings.Cut(text, ".."); ok {
		from, ok1 := parse(low)
		to, ok2 := parse(high)
		if !ok1 || !ok2 || to < from {
			return nil, wrong
		}
		return Range{from, to}, nil
	}
	parts := strings.Split(text, ",")
	if median, ok := strings.CutPrefix(parts[0], "p50="); ok && len(parts) == 2 {
		p95, ok := strings.CutPrefix(strings.TrimSpace(parts[1]), "p95=")
		m, ok1 := parse(median)
		p, ok2 := parse(p95)
		if !ok || !ok1 || !ok2 || m <= 0 || p <= m {
			return nil, fmt.Errorf("%w; with p95 above p50 and p50 above 0", wrong)
		}
		return LogNormal{m, p}, nil
	}
	var observed Observed
	for _, part := range parts {
		d, ok := parse(part)
		if !ok {
			return nil, wrong
		}
		observed = append(observed, d)
	}
	if len(observed) == 1 {
		return Range{observed[0], observed[0]}, nil
	}
	return observed, nil
}
