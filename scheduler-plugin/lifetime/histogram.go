package lifetime

import (
	"math"
	"time"
)

// Buckets of a Histogram: run times from 1 s up, each bound a sixth of an octave (12%) above the one before it. The first
// bucket holds all that is shorter, the last all that is longer than some 12 days.
const (
	perOctave = 6
	buckets   = 20*perOctave + 2
)

// Histogram counts run times in buckets of a fixed relative width, about 1 KiB however many they are. Old ones fade by
// half in each HalfLife. The zero value is empty and never fades.
type Histogram struct {
	// HalfLife after which a run time counts half; 0 for never.
	HalfLife time.Duration

	counts  [buckets]float64
	longest time.Duration // never fades: nothing was seen beyond it
	updated time.Time     // that the counts are worth
}

// Add counts a run time that ended at an instant. Negative ones count as 0.
func (h *Histogram) Add(seconds time.Duration, at time.Time) {
	h.fade(at)
	h.counts[bucketOf(seconds)] += h.weight(at)
	h.longest = max(h.longest, seconds)
}

// Merge adds what another histogram of the same half-life counted.
func (h *Histogram) Merge(other *Histogram) {
	h.fade(other.updated)
	worth := h.weight(other.updated)
	for i, count := range other.counts {
		h.counts[i] += count * worth
	}
	h.longest = max(h.longest, other.longest)
}

// Weight is the sum of the faded counts.
func (h *Histogram) Weight() float64 {
	sum := 0.0
	for _, count := range h.counts {
		sum += count
	}
	return sum
}

// Remaining is how long one that has run for age will still run, as the q-quantile (0 < q < 1) of the run times longer than
// that: within 12% of the exact one of the run times counted. Of one older than everything seen nothing is known but that
// it is old, and it is taken to run as long again: it is never about to end. False when nothing was counted.
func (h *Histogram) Remaining(age time.Duration, q float64) (time.Duration, bool) {
	if h.longest == 0 && h.counts[0] == 0 {
		return 0, false
	}
	if age >= h.longest {
		return max(age, time.Second), true
	}
	first := bucketOf(age)
	total := 0.0
	// The part of the first bucket that is beyond age.
	share := 1.0
	if low, high := lowerBound(first), lowerBound(first+1); age > low && high > low {
		share = max(0, float64(high-age)/float64(high-low))
	}
	for i := first; i < buckets; i++ {
		total += h.weigh(i, first, share)
	}
	if total == 0 {
		return h.longest - age, true // what was that long has faded
	}
	reach := q * total
	for i := first; i < buckets; i++ {
		count := h.weigh(i, first, share)
		if reach > count {
			reach -= count
			continue
		}
		low, high := max(age, lowerBound(i)), min(h.longest, lowerBound(i+1))
		at := low + time.Duration(reach/count*float64(max(0, high-low)))
		return max(0, at-age), true
	}
	return h.longest - age, true
}

// weigh is a bucket's count, or the share of the first one's.
func (h *Histogram) weigh(i, first int, share float64) float64 {
	if i == first {
		return h.counts[i] * share
	}
	return h.counts[i]
}

// fade takes the counts to a later instant.
func (h *Histogram) fade(at time.Time) {
	if !at.After(h.updated) {
		return
	}
	if h.HalfLife > 0 && !h.updated.IsZero() {
		factor := math.Exp2(-at.Sub(h.updated).Seconds() / h.HalfLife.Seconds())
		for i := range h.counts {
			h.counts[i] *= factor
		}
	}
	h.updated = at
}

// weight of something that happened at an instant not later than updated.
func (h *Histogram) weight(at time.Time) float64 {
	if h.HalfLife == 0 || h.updated.IsZero() || !at.Before(h.updated) {
		return 1
	}
	return math.Exp2(-h.updated.Sub(at).Seconds() / h.HalfLife.Seconds())
}

func bucketOf(d time.Duration) int {
	if d < time.Second {
		return 0
	}
	return min(buckets-1, 1+int(perOctave*math.Log2(d.Seconds())))
}

// lowerBound of a bucket.
func lowerBound(i int) time.Duration {
	switch {
	case i == 0:
		return 0
	case i >= buckets:
		return time.Duration(math.MaxInt64)
	default:
		return time.Duration(math.Exp2(float64(i-1)/perOctave) * float64(time.Second))
	}
}
