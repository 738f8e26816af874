package lifetime

import (
	"math"
	"time"
)

// Distribution is how long a pod is expected to run, seen from its start. It never changes, and is safe for concurrent use.
type Distribution struct {
	survival [bins + 1]float32 // the probability to reach a bin's lower bound
	point    float64           // seconds; more than 0 when the run time is taken as known
	median   float64
	spread   float64
	stated   float64
}

// outlived is the probability of a run time below which what is known of run times says nothing about a pod that has reached it.
const outlived = 1e-3

// newDistribution takes the probability to reach each bin, and how much of it comes from what the pod states.
func newDistribution(survival *[bins + 1]float64, stated float64) *Distribution {
	d := &Distribution{stated: stated}
	mean, square := 0.0, 0.0
	for i := range bins {
		d.survival[i] = float32(survival[i])
		weight := survival[i] - survival[i+1]
		mean += weight * middles[i]
		square += weight * middles[i] * middles[i]
	}
	d.spread = math.Sqrt(max(0, square-mean*mean))
	d.median = d.Remaining(0, 0.5).Seconds()
	return d
}

// known is the distribution of a run time that is known.
func known(seconds float64) *Distribution {
	return &Distribution{point: seconds, median: seconds, stated: 1}
}

// Median run time.
func (d *Distribution) Median() time.Duration { return duration(d.median) }

// Spread is the standard deviation of the logarithm of the run time: 0 when it is known exactly, 1.2 when one of them is as likely to be
// twice the median as to be near it.
func (d *Distribution) Spread() float64 { return d.spread }

// Stated is how much of the distribution comes from what the pod states itself, from 0 to 1.
func (d *Distribution) Stated() float64 { return d.stated }

// reach is the probability to run for at least so many seconds.
func (d *Distribution) reach(seconds float64) float64 {
	if seconds <= 0 {
		return 1
	}
	i := binOf(seconds)
	if i == bins-1 {
		return float64(d.survival[i]) * max(0, 2-seconds/bounds[i])
	}
	part := (seconds - bounds[i]) / (bounds[i+1] - bounds[i])
	return float64(d.survival[i])*(1-part) + float64(d.survival[i+1])*part
}

// Lasting writes, for each of some times in seconds, the probability that a pod that has run for age will run for longer than that. One
// that has outlived what was expected of it is expected to run as long again: P(rest > t) = age / (age + t), the posterior for a lifetime of
// unknown scale that is seen at a random age (Gott, Nature 363, 1993).
func (d *Distribution) Lasting(age time.Duration, times, probability []float64) {
	seconds := age.Seconds()
	overdue := seconds
	switch {
	case d.point > 0 && seconds < d.point:
		for i, t := range times {
			probability[i] = 0
			if seconds+t < d.point {
				probability[i] = 1
			}
		}
		return
	case d.point > 0:
		overdue = max(1, seconds-d.point)
	default:
		if reached := d.reach(seconds); reached >= outlived {
			for i, t := range times {
				probability[i] = d.reach(seconds+t) / reached
			}
			return
		}
	}
	for i, t := range times {
		probability[i] = overdue / (overdue + t)
	}
}

// Remaining is how long a pod that has run for age will still run, as the q-quantile (0 < q < 1) of that.
func (d *Distribution) Remaining(age time.Duration, q float64) time.Duration {
	seconds := age.Seconds()
	if d.point > 0 {
		if seconds < d.point {
			return duration(d.point - seconds)
		}
		return duration(max(1, seconds-d.point))
	}
	reached := d.reach(seconds)
	if reached < outlived {
		return duration(max(1, seconds*q/(1-q)))
	}
	want := float32(reached * (1 - q))
	for i := binOf(seconds); i < bins; i++ {
		if high, low := d.survival[i], d.survival[i+1]; low <= want {
			part := float32(0.5)
			if high > low {
				part = (high - want) / (high - low)
			}
			return duration(max(0.01, bounds[i]+float64(part)*(bounds[i+1]-bounds[i])-seconds))
		}
	}
	return age
}

// longest duration that is told from longer ones: some 30 years.
const longest = 1e9

func duration(seconds float64) time.Duration {
	return time.Duration(min(longest, seconds) * float64(time.Second))
}
