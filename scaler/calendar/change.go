package calendar

import (
	"slices"
	"time"
)

// change is the next change after any instant of [from, at).
type change struct {
	from, at time.Time
	limits   Limits
	exists   bool // false: no change until at
}

// searchYears is how far NextChange looks. The rarest day that a calendar can name without a year, the fifth of a weekday in a
// February, comes at most forty years after the last.
const searchYears = 100

// changeSteps bounds the work of a calendar in which days differ and limits never change, as periods of a month each may make it.
const changeSteps = 200_000

// NextChange returns the first instant after t at which limits change, and the limits from then on; false when they do
// not change within a hundred years.
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

// findChange looks at day after day, but works out only those on which something may change: where as many days before it and
// after it as can reach into it have the same plan, and a day in such a row was seen to be without a change, it has none either.
func (c *Calendar) findChange(t time.Time) *change {
	now, today := c.Limits(t), c.dayOf(t)
	p := &planner{c: c}
	before, after := c.reach+1, 2
	row := row{} // of days that end two after the day that is looked at
	for d := today - day(before); d < today+day(after); d++ {
		row.add(p.kind(d))
	}
	var quiet *kind
	steps := 0
	end := today + searchYears*366
	for d := today; d < end; d++ {
		k := p.kind(d + day(after))
		row.add(k)
		same := row.length > before+after
		if same && quiet != nil && *quiet == k {
			continue
		}
		if steps += (c.reach + 3) * (len(c.periods) + 1); steps > changeSteps {
			return &change{from: t, at: c.startOf(d)} // and from there on it is looked for again
		}
		changes := false
		for _, span := range c.spansOf(p, d) {
			if span.Limits == now {
				continue
			}
			changes = true
			if span.From.After(t) {
				return &change{from: t, at: span.From, limits: span.Limits, exists: true}
			}
		}
		if same && !changes {
			quiet = &k
		}
	}
	return &change{from: t, at: c.startOf(end)}
}

// row is how many days in a row have the same plan.
type row struct {
	kind   kind
	length int
}

func (r *row) add(k kind) {
	if r.length > 0 && r.kind == k {
		r.length++
		return
	}
	r.kind, r.length = k, 1
}

// kind tells plans of days apart.
type kind struct {
	periods uint64 // which of them start
	special *special
	name    string // of the special day
}

func (p *planner) kind(d day) kind {
	s, name := p.c.specialOn(d)
	k := kind{special: s, name: name}
	if s != nil && !s.usual && !s.sameAs {
		return k
	}
	for i := range p.c.periods {
		if p.starts(i, d, s) {
			k.periods |= 1 << i
		}
	}
	return k
}

// Timeline returns the spans that make up [from, to).
func (c *Calendar) Timeline(from, to time.Time) []Span {
	var list []Span
	if !from.Before(to) {
		return nil
	}
	p := &planner{c: c}
	for d, end := c.dayOf(from), c.dayOf(to); d <= end; d++ {
		for _, span := range c.spansOf(p, d) {
			if span.From.Before(from) {
				span.From = from
			}
			if span.To.After(to) {
				span.To = to
			}
			if !span.From.Before(span.To) {
				continue
			}
			if n := len(list); n > 0 && list[n-1].Limits == span.Limits {
				list[n-1].To = span.To
				continue
			}
			list = append(list, span)
		}
	}
	return slices.Clip(list)
}

// Reading is what a wall-clock time of a zone means.
type Reading struct {
	Time time.Time
	// Note says how a time is interpreted that clocks skip or show twice; empty for all others.
	Note string
}

// ReadClock takes a wall-clock time, given by its fields in any zone, for an instant of a zone: as a period's start is.
func ReadClock(zone *time.Location, shows time.Time) Reading {
	shown := time.Date(shows.Year(), shows.Month(), shows.Day(), shows.Hour(), shows.Minute(), shows.Second(), 0, time.UTC).Unix()
	one, other := wallShown(zone, shown, first).In(zone), wallShown(zone, shown, last).In(zone)
	const clock = "15:04:05 MST (-07:00)"
	switch _, offset := one.Zone(); {
	case one.Unix()+int64(offset) != shown:
		return Reading{one, "clocks skip " + shows.Format("2006-01-02 15:04:05") + " there: taken for the instant at which they jump, to " +
			one.Format(clock)}
	case other.After(one):
		return Reading{one, "clocks show " + shows.Format("2006-01-02 15:04:05") + " twice there: taken for the first, " + one.Format(clock) +
			"; the second is " + other.Format(clock)}
	}
	return Reading{Time: one}
}
