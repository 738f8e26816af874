// Package recommend learns a calendar of floors from a load: how many replicas should be warm in each quarter of an hour of the week, so
// that most messages need not wait for a pod to start. It learns on one part of the load and is tried on the other.
package recommend

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// Options of Learn.
type Options struct {
	Zone *time.Location
	// Wait is the objective: 95% of messages are to wait no longer.
	Wait time.Duration
	// MaxReplicas of the calendar.
	MaxReplicas int32
	// Holiday is true for a day that is not to be learned from; nil: none is.
	Holiday func(time.Time) bool
	// System that policies are tried on; its scaler and origin are set here.
	System simulator.System
}

// Result of Learn.
type Result struct {
	Calendar *v1alpha1.Calendar
	// Quantile of the demand of each quarter of an hour that the floors are.
	Quantile float64
	// Floors in replicas and why: one for each period of the calendar.
	Floors []Floor
	// Met is true when the objective was met on the part that was learned from.
	Met bool
	// Weeks that were learned from, and tried on. The second begins at Cut.
	LearnedWeeks, TriedWeeks float64
	Cut                      time.Time
	// Rhythm is the correlation between what the week's profile says and the demand of the part that it was tried on, from -1 to 1.
	Rhythm float64
	// Backtest of the part that was not learned from.
	Backtest []Trial
	// BeatsStatic is true when the calendar's p95 wait and pod-hours are both less than those of the static floor of the same price: the
	// lowest that cost as many pod-hours on the part that was learned from.
	BeatsStatic bool
}

// Floor is a period, and the demand in it.
type Floor struct {
	Period string
	// Median and Highest demand of its quarters of an hour, over Quarters of them.
	Median, Highest float64
	Quarters        int
}

// Trial is a way to scale, and what came of it.
type Trial struct {
	Name string `json:"name"`
	simulator.Outcome
}

// Reasons to recommend nothing.
var (
	errShort    = errors.New("the history is too short: a calendar of the week is learned from at least a week and tried on another")
	errNoRhythm = errors.New("the load has no rhythm")
)

const (
	quarter  = 15 * time.Minute
	quarters = 7 * 96
	// leastRhythm is the correlation below which the profile says nothing of the weeks to come.
	leastRhythm = 0.3
	// most periods of a group of days.
	mostPeriods = 6
)

// quantiles of demand that are tried as floors.
var quantiles = []float64{0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95}

// Learn learns a calendar from the first half of a load, in whole days, and tries it on the rest. It is an error, with the reason, when
// the history is too short or has no rhythm.
func Learn(trace simulator.Trace, o Options) (Result, error) {
	days := trace.Jobs[len(trace.Jobs)-1].Start.Hours() / 24
	if days < 13.5 {
		return Result{}, fmt.Errorf("%w; this one has %.1f days", errShort, days)
	}
	origin := trace.Origin.In(o.Zone)
	cut := time.Date(origin.Year(), origin.Month(), origin.Day()+max(7, int(math.Round(days/2))), 0, 0, 0, 0, o.Zone)
	learned, tried := trace.Until(cut), trace.After(cut)
	r := Result{Cut: cut, LearnedWeeks: cut.Sub(origin).Hours() / 168, TriedWeeks: tried.Jobs[len(tried.Jobs)-1].Start.Hours() / 168}
	profile := newProfile(demand(learned, o.Zone), o.Holiday)
	if r.Rhythm = profile.correlation(demand(tried, o.Zone), o.Holiday); r.Rhythm < leastRhythm {
		return r, fmt.Errorf("%w: what the first %.1f weeks say of an hour of the week correlates by %.2f with the rest, and %.1f is wanted; "+
			"a calendar would cost pod-hours and help nobody", errNoRhythm, r.LearnedWeeks, r.Rhythm, leastRhythm)
	}
	groups := profile.groups()
	chosen, err := choose(learned, o, func(q float64) *v1alpha1.Calendar { return calendarOf(profile.floors(q, o.MaxReplicas), groups, o) }, quantiles)
	if err != nil {
		return r, err
	}
	r.Calendar, r.Quantile, r.Met = chosen.calendar, chosen.level, chosen.met
	r.Floors = describe(r.Calendar, profile, groups)
	static, err := samePrice(learned, o, chosen.podHours)
	if err != nil {
		return r, err
	}
	for _, t := range []struct {
		name     string
		calendar *v1alpha1.Calendar
	}{
		{"recommended", r.Calendar}, {fmt.Sprintf("static floor of %d", static), staticFloor(static, o)},
		{"no floor", &v1alpha1.Calendar{TimeZone: o.Zone.String()}},
	} {
		out, err := try(tried, o, t.calendar)
		if err != nil {
			return r, err
		}
		r.Backtest = append(r.Backtest, Trial{t.name, out})
	}
	ours, others := r.Backtest[0], r.Backtest[1]
	r.BeatsStatic = ours.Wait.P95 < others.Wait.P95 && ours.PodHours < others.PodHours
	return r, nil
}

// choice is a calendar for a level of floors.
type choice struct {
	calendar *v1alpha1.Calendar
	level    float64
	met      bool
	podHours float64
}

func staticFloor(floor int32, o Options) *v1alpha1.Calendar {
	return &v1alpha1.Calendar{TimeZone: o.Zone.String(), Default: v1alpha1.Limits{MinReplicas: ptr.To(floor)}}
}

// samePrice is the lowest static floor that costs as many pod-hours, or more.
func samePrice(trace simulator.Trace, o Options, podHours float64) (int32, error) {
	low, high := int32(1), o.MaxReplicas
	for low < high {
		middle := (low + high) / 2
		out, err := try(trace, o, staticFloor(middle, o))
		if err != nil {
			return 0, err
		}
		if out.PodHours >= podHours {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low, nil
}

// choose tries levels on a load: of those that meet the objective it is the one of fewest pod-hours, else that of the shortest wait.
func choose(trace simulator.Trace, o Options, make func(float64) *v1alpha1.Calendar, levels []float64) (choice, error) {
	var best choice
	var bestOut simulator.Outcome
	for i, level := range levels {
		c := choice{calendar: make(level), level: level}
		out, err := try(trace, o, c.calendar)
		if err != nil {
			return best, err
		}
		c.met = out.Wait.P95 <= o.Wait.Seconds()
		better := c.met && !best.met || c.met == best.met &&
			(c.met && out.PodHours < bestOut.PodHours || !c.met && out.Wait.P95 < bestOut.Wait.P95)
		if c.podHours = out.PodHours; i == 0 || better {
			best, bestOut = c, out
		}
		if c.met && level > 0 && best.level != level {
			break // higher floors cost more
		}
	}
	return best, nil
}

// try plays a load on a calendar.
func try(trace simulator.Trace, o Options, c *v1alpha1.Calendar) (simulator.Outcome, error) {
	limits, errs := policy.CompileCalendar(c, nil, o.MaxReplicas, nil)
	if len(errs) > 0 {
		return simulator.Outcome{}, errs.ToAggregate()
	}
	s := o.System
	s.Origin, s.Scaler = trace.Origin, simulator.Ebbtide(limits, sizing.Parameters{MessagesPerReplica: 1})
	return s.Run(trace.Jobs)
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

// correlation between the profile's means and those of other samples, by the hour: in a quarter of one luck has most of the say.
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
