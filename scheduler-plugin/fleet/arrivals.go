package fleet

import "time"

const (
	// rememberedArrivals is how many of the pods that started last are looked at.
	rememberedArrivals = 256
	// lately is the share of a pod's run time during which others must have started for as many to be expected soon.
	lately = 0.05
	// alike is the share of a pod's run time from which others are as long.
	alike = 0.75
)

// arrivals are the pods that started last, by their starts and expected run times: long ones often come together.
type arrivals struct {
	ring  [rememberedArrivals]arrival
	count int // of all so far
}

type arrival struct {
	at   time.Time
	runs time.Duration
}

func (a *arrivals) add(at time.Time, runs time.Duration) {
	a.ring[a.count%rememberedArrivals] = arrival{at, runs}
	a.count++
}

// followers is how many pods started lately that run for about as long as one that starts now, or longer.
func (a *arrivals) followers(now time.Time, runs time.Duration) (count int) {
	since, least := now.Add(-time.Duration(lately*float64(runs))), time.Duration(alike*float64(runs))
	for i := range min(a.count, rememberedArrivals) {
		if other := a.ring[i]; other.runs >= least && !other.at.Before(since) {
			count++
		}
	}
	return count
}
