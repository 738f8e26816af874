// Package recommend finds a whole configuration for a load: node shapes, queues, requests, worker settings, polling, consolidation, and a
// calendar of floors. It searches by simulation on one part of the load, is judged on the other, beside what runs today and beside the
// strongest alternative, and fits what is learned from data again on everything.
package recommend

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

const (
	quarter  = 15 * time.Minute
	quarters = 7 * 96
	// leastRhythm is the correlation below which the profile says nothing of the weeks to come.
	leastRhythm = 0.3
	// most periods of a group of days.
	mostPeriods = 6
)

// floors learns calendars from a load, for each queue. It is safe for concurrent use.
type floors struct {
	trace   simulator.Trace
	later   simulator.Trace // the part that it is judged on
	zone    *time.Location
	holiday func(time.Time) bool
	most    int32

	mu       sync.Mutex
	profiles map[string]*queueProfile // by the queue's classes
}

// queueProfile is what was learned of a queue.
type queueProfile struct {
	profile *profile
	groups  []group
	// rhythm is the correlation between what the week's profile says and the demand of the part that it is judged on, from -1 to 1.
	rhythm float64
	// ends of the month that differ from other weeks; nil: they do not.
	ends *monthEnd
	// run is the mean run time.
	run time.Duration
}

// leastHistory is from the first message to the last for a calendar: a week to learn from and one to try it on, whose last days may be quiet.
const leastHistory = 11 * 24 * time.Hour

func newFloors(trace, later simulator.Trace, o *Options) *floors {
	return &floors{trace: trace, later: later, zone: o.Zone, holiday: o.Holiday, most: o.MaxReplicas, profiles: map[string]*queueProfile{}}
}

// of is what was learned of one of some queues.
func (f *floors) of(queues Queues, queue string) *queueProfile {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := queues.Name + "\x00" + queue
	if p := f.profiles[key]; p != nil {
		return p
	}
	within := func(t simulator.Trace) simulator.Trace {
		t.Jobs = slices.DeleteFunc(slices.Clone(t.Jobs), func(j simulator.Job) bool { return queues.Of[j.Class] != queue })
		return t
	}
	own := within(f.trace)
	samples := demand(own, f.zone)
	p := &queueProfile{profile: newProfile(samples, f.holiday)}
	for i := range own.Jobs {
		p.run += own.Jobs[i].Run / time.Duration(len(own.Jobs))
	}
	p.groups = p.profile.groups()
	if p.ends = monthEndsOf(samples, p.groups, f.holiday); p.ends != nil { // they say nothing of other weeks
		p.profile = newProfile(samples, func(at time.Time) bool { return p.ends.is(at) || f.holiday != nil && f.holiday(at) })
	}
	p.rhythm = p.profile.correlation(demand(within(f.later), f.zone), f.holiday)
	f.profiles[key] = p
	return p
}

// calendars for queues: floors at a quantile of demand, and a reserve of idle replicas while there is demand. A queue whose load has no rhythm
// has none.
func (f *floors) calendars(queues Queues, level float64, reserve int32) map[string]*v1alpha1.Calendar {
	if level == 0 && reserve == 0 {
		return nil
	}
	all := map[string]*v1alpha1.Calendar{}
	for _, queue := range queues.Names() {
		p := f.of(queues, queue)
		if p.rhythm < leastRhythm {
			continue
		}
		c := &v1alpha1.Calendar{TimeZone: f.zone.String()}
		c.Periods = append(periods(p.profile.floors(level, f.most), p.groups, ""), periods(p.profile.busy(reserve), p.groups, "reserve-")...)
		if ends := p.ends.periods(level, reserve, f.most); len(ends) > 0 {
			c.Periods = append(c.Periods, ends...)
			if len(p.groups) > 1 { // business days are those of the load
				c.Weekend = dayNamesOf(p.groups[1].days)
			}
		}
		if len(c.Periods) > 0 {
			all[queue] = c
		}
	}
	return all
}

// meanRun is how long the messages of a queue take in the mean; 0 for a queue that had none.
func (f *floors) meanRun(queues Queues, queue string) time.Duration { return f.of(queues, queue).run }

// rhythm is the best that any of some queues has.
func (f *floors) rhythm(queues Queues) float64 {
	best := math.Inf(-1)
	for _, queue := range queues.Names() {
		best = max(best, f.of(queues, queue).rhythm)
	}
	return best
}

// sample is a quarter of an hour, and the most messages that were worked on at once in it when none had to wait.
type sample struct {
	at     time.Time
	demand float64
}

// demand of all quarters of an hour of a load.
func demand(trace simulator.Trace, zone *time.Location) []sample {
	type edge struct {
		at    time.Duration
		delta int
	}
	if len(trace.Jobs) == 0 {
		return nil
	}
	edges := make([]edge, 0, 2*len(trace.Jobs))
	for _, j := range trace.Jobs {
		edges = append(edges, edge{j.Start, 1}, edge{j.Start + j.Run, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return int(a.at - b.at) })
	begin := trace.Origin.Truncate(quarter)
	end := trace.Origin.Add(trace.Jobs[len(trace.Jobs)-1].Start)
	samples := make([]sample, 0, int(end.Sub(begin)/quarter)+1)
	running, next := 0, 0
	for at := begin; at.Before(end); at = at.Add(quarter) {
		highest := running
		for ; next < len(edges) && trace.Origin.Add(edges[next].at).Before(at.Add(quarter)); next++ {
			running += edges[next].delta
			highest = max(highest, running)
		}
		samples = append(samples, sample{at.In(zone), float64(highest)})
	}
	return samples
}

// profile is the demand of each quarter of an hour of the week.
type profile [quarters][]float64

func slot(t time.Time) int {
	return (int(t.Weekday())+6)%7*96 + t.Hour()*4 + t.Minute()/15
}

func newProfile(samples []sample, holiday func(time.Time) bool) *profile {
	var p profile
	for _, s := range samples {
		if holiday == nil || !holiday(s.at) {
			p[slot(s.at)] = append(p[slot(s.at)], s.demand)
		}
	}
	return &p
}

// around is the demand of a slot and of those beside it: few weeks say little of one quarter alone. It does not reach into another day.
func (p *profile) around(i int) []float64 {
	var all []float64
	for j := max(i-2, i/96*96); j <= min(i+2, i/96*96+95); j++ {
		all = append(all, p[j]...)
	}
	slices.Sort(all)
	return all
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(1, len(values)))
}

// correlation between the profile's means and those of other samples, by the hour: in a quarter of one chance decides most.
func (p *profile) correlation(samples []sample, holiday func(time.Time) bool) float64 {
	var n, x, y, xx, yy, xy float64
	for hour := range slices.Chunk(samples, 4) {
		var expected, real float64
		for _, s := range hour {
			expected += mean(p.around(slot(s.at)))
			real += s.demand
		}
		if holiday != nil && holiday(hour[0].at) {
			continue
		}
		// The square root tells ten from none better than a hundred from ninety.
		a, b := math.Sqrt(expected), math.Sqrt(real)
		n, x, y, xx, yy, xy = n+1, x+a, y+b, xx+a*a, yy+b*b, xy+a*b
	}
	variance := (xx/n - x/n*x/n) * (yy/n - y/n*y/n)
	if n == 0 || variance < 1e-12 {
		return 0
	}
	return (xy/n - x/n*y/n) / math.Sqrt(variance)
}

// floors of every quarter of an hour of the week.
func (p *profile) floors(q float64, most int32) (floors [quarters]int32) {
	if q == 0 {
		return floors
	}
	for i := range floors {
		floors[i] = min(most, int32(quantile(p.around(i), q)))
	}
	return floors
}

// busy is so many replicas in the quarters of an hour of the week in which there is a quarter at least of the demand of the busiest.
func (p *profile) busy(replicas int32) (busy [quarters]int32) {
	if replicas == 0 {
		return busy
	}
	var means [quarters]float64
	for i := range means {
		means[i] = mean(p.around(i))
	}
	highest := slices.Max(means[:])
	for i := range busy {
		if highest > 0 && means[i] >= highest/4 {
			busy[i] = replicas
		}
	}
	return busy
}
