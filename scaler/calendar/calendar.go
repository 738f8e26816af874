// Package calendar turns a calendar of periods, exceptions and holidays into the limits in force at an instant.
//
// It is pure: no clock is read and nothing is done but arithmetic. Times of a calendar are wall-clock times in a named
// zone; instants are absolute. Invariants:
//
//   - periods are half-open, so at every instant each period is either in force or not, and back-to-back periods
//     neither overlap nor leave a gap;
//   - a wall-clock time that a clock change skips means the instant of the change; one that happens twice means the
//     first for a start and the second for an end, so that a change never loses or doubles a period;
//   - an exception beats a holiday beats a period beats the default; where periods overlap, floors and idle reserves
//     take the maximum and caps the minimum.
//
// Limits do not change but at a few instants of a day. Those of the day asked for last are kept, so that asking again
// costs some nanoseconds.
package calendar

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
	_ "time/tzdata" // the scaler's image holds no time-zone database

	"k8s.io/utils/ptr"
)

// Limits bound a target at an instant.
type Limits struct {
	// Period that is in force; several are joined by "+"; "default" when none is.
	Period string
	// MinReplicas is the floor, IdleReplicas the reserve beyond busy replicas, MaxReplicas the cap.
	MinReplicas, IdleReplicas, MaxReplicas int32
}

// DefaultPeriod is the name of the limits that hold outside every period.
const DefaultPeriod = "default"

// Calendar is a compiled calendar, safe for concurrent use. Make one with New.
type Calendar struct {
	zone       *time.Location
	ceiling    int32 // no cap goes beyond it
	base       Limits
	periods    []period
	exceptions []exception
	holidays   *Holidays // nil: none
	onHoliday  Bounds

	today  atomic.Pointer[spans]  // of the day that Limits was asked for last
	change atomic.Pointer[change] // that NextChange found last
}

// period is one part of the week or month.
type period struct {
	name     string
	days     days // on which it starts
	from, to int  // minutes after the midnight that the day starts with; to > from, past 1440 on the next day
	lead     time.Duration
	limits   Bounds
}

// exception is a range of dates, both included, with limits that hold all day.
type exception struct {
	name     string
	from, to date
	yearly   bool
	limits   Bounds
}

// Limits returns the limits in force at t.
func (c *Calendar) Limits(t time.Time) Limits {
	if known := c.today.Load(); known != nil {
		if limits, ok := known.at(t); ok {
			return limits
		}
	}
	day := dateOf(t.In(c.zone))
	today := c.spansOf(day)
	limits, ok := today.at(t)
	if !ok { // clocks were put back over midnight: the date showed twice
		today = c.spansOf(day.add(1))
		if limits, ok = today.at(t); !ok {
			return c.compute(t)
		}
	}
	c.today.Store(today)
	return limits
}

// compute works the limits at t out.
func (c *Calendar) compute(t time.Time) Limits {
	today := dateOf(t.In(c.zone))
	for i := range c.exceptions {
		if e := &c.exceptions[i]; e.holds(today) {
			return c.limits(e.name, e.limits)
		}
	}
	if name, is := c.holidays.on(today); is {
		return c.limits(name, c.onHoliday)
	}
	limits, some := c.base, false
	for i := range c.periods {
		p := &c.periods[i]
		if !c.inForce(p, t, today) {
			continue
		}
		if !some {
			limits, some = c.limits(p.name, p.limits), true
			continue
		}
		limits = limits.and(c.limits(p.name, p.limits))
	}
	return limits
}

// Span is a time with constant limits: [From, To).
type Span struct {
	From, To time.Time
	Limits   Limits
}

// spans are those of a day, one after the other.
type spans []Span

func (s spans) at(t time.Time) (Limits, bool) {
	for i := range s {
		if t.Before(s[i].To) {
			return s[i].Limits, !t.Before(s[i].From)
		}
	}
	return Limits{}, false
}

// spansOf returns the spans between a day's first midnight and the next day's.
func (c *Calendar) spansOf(day date) *spans {
	instants := c.boundaries(day)
	var list spans
	for i := range len(instants) - 1 {
		from, to := instants[i], instants[i+1]
		if !from.Before(to) {
			continue
		}
		limits := c.compute(from)
		if n := len(list); n > 0 && list[n-1].Limits == limits {
			list[n-1].To = to
			continue
		}
		list = append(list, Span{From: from, To: to, Limits: limits})
	}
	return &list
}

// boundaries returns, in the order of time, the instants of a day at which limits may change: its start, where periods
// begin and end that start on it, on the day before (overnight) or on the day after (lead time), where clocks change,
// and last the next day's start.
func (c *Calendar) boundaries(day date) []time.Time {
	midnight, nextMidnight := wall(c.zone, day, 0, first), wall(c.zone, day.add(1), 0, first)
	at := []time.Time{midnight, nextMidnight}
	add := func(instant time.Time) {
		if instant.After(midnight) && instant.Before(nextMidnight) {
			at = append(at, instant)
		}
	}
	// Where clocks are put back over midnight, a date ends twice.
	add(wall(c.zone, day, 0, last))
	if _, jump := midnight.In(c.zone).ZoneBounds(); !jump.IsZero() {
		add(jump)
	}
	for i := range c.periods {
		p := &c.periods[i]
		for offset := -1; offset <= 1; offset++ {
			if d := day.add(offset); p.days.include(d, c.holidays) {
				start, end := p.bounds(d, c.zone)
				add(start)
				add(end)
			}
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// change is the next change after any instant of [from, at).
type change struct {
	from, at time.Time
	limits   Limits
	exists   bool // false: no change until at
}

// NextChange returns the first instant after t at which limits change, and the limits from then on; false when they do
// not change within eight years.
func (c *Calendar) NextChange(t time.Time) (time.Time, Limits, bool) {
	known := c.change.Load()
	if known == nil || t.Before(known.from) || !t.Before(known.at) {
		known = c.findChange(t)
		c.change.Store(known)
	}
	if !known.exists {
		return time.Time{}, Limits{}, false
	}
	return known.at, known.limits, true
}

// findChange looks at every day of a cycle of the periods, and then only at those that exceptions and holidays touch:
// what did not change in a whole cycle can't change without them.
func (c *Calendar) findChange(t time.Time) *change {
	now, day := c.Limits(t), dateOf(t.In(c.zone))
	found := func(d date) *change {
		day := *c.spansOf(d)
		if len(day) == 0 { // clocks skipped it
			day = *c.spansOf(d.add(1))
		}
		for _, span := range day {
			if span.From.After(t) && span.Limits != now {
				return &change{from: t, at: span.From, limits: span.Limits, exists: true}
			}
		}
		return nil
	}
	horizon := day.add(searchDays)
	if len(c.periods) > 0 {
		for i := range c.cycleDays() {
			if next := found(day.add(i)); next != nil {
				return next
			}
		}
	}
	for _, d := range c.specialDays(day, horizon) {
		if next := found(d); next != nil {
			return next
		}
	}
	return &change{from: t, at: wall(c.zone, horizon, 0, first)}
}

// searchDays is how far NextChange looks: two leap days can be eight years apart.
const searchDays = 8*366 + 2

// cycleDays is how long it takes until periods have been in force in every way that they can be: a week and a day, and
// with days of the month the three months until a fifth weekday comes, and a day.
func (c *Calendar) cycleDays() int {
	for i := range c.periods {
		if len(c.periods[i].days.monthly) > 0 {
			return 94
		}
	}
	return 8
}

// specialDays returns, in order and from a day before the first given one, the days on which an exception or a holiday
// starts or has just ended.
func (c *Calendar) specialDays(from, to date) []date {
	var list []date
	add := func(begin, end date) {
		for _, d := range [2]date{begin, end.add(1)} {
			if !d.before(from) && d.before(to) {
				list = append(list, d)
			}
		}
	}
	for i := range c.exceptions {
		e := &c.exceptions[i]
		if !e.yearly {
			add(e.from, e.to)
			continue
		}
		for year := from.year - 1; year <= to.year; year++ {
			add(e.from.in(year), e.to.in(year))
		}
	}
	if c.holidays != nil {
		for d := range c.holidays.names {
			add(d, d)
		}
	}
	slices.SortFunc(list, date.compare)
	return list
}

// Timeline returns the spans that make up [from, to).
func (c *Calendar) Timeline(from, to time.Time) []Span {
	var list []Span
	for at := from; at.Before(to); {
		span := Span{From: at, To: to, Limits: c.Limits(at)}
		if next, _, ok := c.NextChange(at); ok && next.Before(to) {
			span.To = next
		}
		list = append(list, span)
		at = span.To
	}
	return list
}

// limits are those of bounds: what they leave out is the default's, and what they state replaces it. Only the ceiling
// holds for all.
func (c *Calendar) limits(name string, b Bounds) Limits {
	return Limits{
		Period:       name,
		MinReplicas:  ptr.Deref(b.MinReplicas, c.base.MinReplicas),
		IdleReplicas: ptr.Deref(b.IdleReplicas, c.base.IdleReplicas),
		MaxReplicas:  min(ptr.Deref(b.MaxReplicas, c.base.MaxReplicas), c.ceiling),
	}
}

// and returns the limits of two periods that overlap.
func (l Limits) and(other Limits) Limits {
	return Limits{
		Period:       strings.Join([]string{l.Period, other.Period}, "+"),
		MinReplicas:  max(l.MinReplicas, other.MinReplicas),
		IdleReplicas: max(l.IdleReplicas, other.IdleReplicas),
		MaxReplicas:  min(l.MaxReplicas, other.MaxReplicas),
	}
}

// inForce reports whether a period covers t, which lies on the local date today. A period that covers it starts on the
// day before (overnight), on the day, or on the day after (lead time).
func (c *Calendar) inForce(p *period, t time.Time, today date) bool {
	for offset := -1; offset <= 1; offset++ {
		if offset == 1 && p.lead == 0 {
			continue
		}
		day := today.add(offset)
		if !p.days.include(day, c.holidays) {
			continue
		}
		if start, end := p.bounds(day, c.zone); !t.Before(start) && t.Before(end) {
			return true
		}
	}
	return false
}

// bounds are the instants between which the period that starts on a day is in force.
func (p *period) bounds(day date, zone *time.Location) (start, end time.Time) {
	return wall(zone, day, p.from, first).Add(-p.lead), wall(zone, day, p.to, last)
}

func (e *exception) holds(day date) bool {
	if !e.yearly {
		return !day.before(e.from) && !e.to.before(day)
	}
	// Without a year, months and days are compared; a range may wrap over New Year.
	d, from, to := day.monthDay(), e.from.monthDay(), e.to.monthDay()
	if from <= to {
		return from <= d && d <= to
	}
	return d >= from || d <= to
}
