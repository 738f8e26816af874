// Package calendar turns a weekly calendar into the limits in force at an instant.
//
// It is pure: no clock is read and nothing is done but arithmetic. Times of a calendar are wall-clock times in a named
// zone; instants are absolute. Invariants:
//
//   - periods are half-open, so at every instant each period is either in force or not, and back-to-back periods
//     neither overlap nor leave a gap;
//   - a wall-clock time that a clock change skips means the instant of the change; one that happens twice means the
//     first for a start and the second for an end, so that a change never loses or doubles a period;
//   - an exception beats a period beats the default; where periods overlap, floors and idle reserves take the maximum
//     and caps the minimum.
package calendar

import (
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the scaler's image holds no time-zone database

	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
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

// Calendar is an immutable, compiled calendar. Make one with New.
type Calendar struct {
	zone       *time.Location
	base       Limits
	periods    []period
	exceptions []exception
}

// period is one part of the week.
type period struct {
	name     string
	weekdays [7]bool // on which it starts
	from, to int     // minutes after the midnight that the day starts with; to > from, past 1440 on the next day
	lead     time.Duration
	limits   v1alpha1.Limits
}

// exception is a range of dates, both included, with limits that hold all day.
type exception struct {
	name     string
	from, to date
	yearly   bool
	limits   v1alpha1.Limits
}

// Limits returns the limits in force at t.
func (c *Calendar) Limits(t time.Time) Limits {
	today := dateOf(t.In(c.zone))
	for i := range c.exceptions {
		if e := &c.exceptions[i]; e.holds(today) {
			return c.base.with(e.name, e.limits)
		}
	}
	limits, some := c.base, false
	for i := range c.periods {
		p := &c.periods[i]
		if !p.inForce(t, today, c.zone) {
			continue
		}
		if !some {
			limits, some = c.base.with(p.name, p.limits), true
			continue
		}
		limits = limits.and(c.base.with(p.name, p.limits))
	}
	return limits
}

// searchDays is how far NextChange looks: two leap days can be eight years apart.
const searchDays = 8*366 + 2

// NextChange returns the first instant after t at which the limits, or the period they come from, differ from those at
// t, and the limits from then on. It returns false when nothing changes within eight years.
func (c *Calendar) NextChange(t time.Time) (time.Time, Limits, bool) {
	if len(c.periods) == 0 && len(c.exceptions) == 0 {
		return time.Time{}, Limits{}, false
	}
	now := c.Limits(t)
	day := dateOf(t.In(c.zone))
	var buffer []time.Time
	for range searchDays {
		buffer = c.boundaries(buffer[:0], day)
		for _, at := range buffer {
			if at.After(t) {
				if next := c.Limits(at); next != now {
					return at, next, true
				}
			}
		}
		day = day.add(1)
	}
	return time.Time{}, Limits{}, false
}

// Span is a time with constant limits: [From, To).
type Span struct {
	From, To time.Time
	Limits   Limits
}

// Timeline returns the spans that make up [from, to).
func (c *Calendar) Timeline(from, to time.Time) []Span {
	var spans []Span
	for at := from; at.Before(to); {
		span := Span{From: at, To: to, Limits: c.Limits(at)}
		if next, _, ok := c.NextChange(at); ok && next.Before(to) {
			span.To = next
		}
		spans = append(spans, span)
		at = span.To
	}
	return spans
}

// boundaries appends, in the order of time, the instants of a day at which limits may change: its start, and where
// periods begin and end that start on it, on the day before (overnight) or on the day after (lead time).
func (c *Calendar) boundaries(at []time.Time, day date) []time.Time {
	midnight, nextMidnight := wall(c.zone, day, 0, first), wall(c.zone, day.add(1), 0, first)
	at = append(at, midnight)
	for i := range c.periods {
		p := &c.periods[i]
		for offset := -1; offset <= 1; offset++ {
			d := day.add(offset)
			if !p.weekdays[d.weekday()] {
				continue
			}
			start, end := p.bounds(d, c.zone)
			for _, instant := range [2]time.Time{start, end} {
				if instant.After(midnight) && instant.Before(nextMidnight) {
					at = append(at, instant)
				}
			}
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// with returns the limits that hold when fields that are set replace the receiver's. No cap goes beyond the receiver's.
func (l Limits) with(name string, set v1alpha1.Limits) Limits {
	return Limits{
		Period:       name,
		MinReplicas:  ptr.Deref(set.MinReplicas, l.MinReplicas),
		IdleReplicas: ptr.Deref(set.IdleReplicas, l.IdleReplicas),
		MaxReplicas:  min(ptr.Deref(set.MaxReplicas, l.MaxReplicas), l.MaxReplicas),
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

// inForce reports whether the period covers t, which lies on the local date today. A period that covers it starts on
// the day before (overnight), on the day, or on the day after (lead time).
func (p *period) inForce(t time.Time, today date, zone *time.Location) bool {
	for offset := -1; offset <= 1; offset++ {
		if offset == 1 && p.lead == 0 {
			continue
		}
		day := today.add(offset)
		if !p.weekdays[day.weekday()] {
			continue
		}
		if start, end := p.bounds(day, zone); !t.Before(start) && t.Before(end) {
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
