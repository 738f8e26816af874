// Package calendar turns a calendar of periods, exceptions and holidays into the limits in force at an instant.
//
// It is pure: no clock is read and nothing is done but arithmetic. Times of a calendar are wall-clock times in a named
// zone; instants are absolute. Invariants:
//
//   - periods are half-open, so at every instant each period is either in force or not;
//   - a wall-clock time that a clock change skips means the instant of the change; one that happens twice means the
//     first for a start and the second for an end, so that a change never loses or doubles a period. A period that
//     starts where another ends starts at that end, so that back-to-back periods neither overlap nor leave a gap;
//   - a period belongs, whole, to the day on which it starts: its lead time and its hours after midnight too. On a
//     special day (an exception, or else a holiday) the periods that start on it are replaced;
//   - what a period leaves out is the default's, what it states replaces it; where periods overlap, floors, idle
//     reserves and surpluses take the maximum and caps the minimum;
//   - whatever an author writes, compiling it and every question take bounded work.
//
// Limits do not change but at a few instants of a day. Those of the day asked for last are kept, so that asking again
// costs some nanoseconds.
package calendar

import (
	"cmp"
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
	// Surplus is how many more there are while messages wait.
	Surplus Surplus
}

// DefaultPeriod is the name of the limits that hold outside every period.
const DefaultPeriod = "default"

// Calendar is a compiled calendar, safe for concurrent use. Make one with New.
type Calendar struct {
	zone       *time.Location
	weekend    [7]bool
	ceiling    int32 // no cap goes beyond it
	base       Limits
	periods    []period
	exceptions []exception
	holidays   []holidayRule
	reach      int  // on how many days after its own a period may still be in force
	leads      bool // one starts before its own day
	business   bool // business days matter

	today  atomic.Pointer[spans]  // of the day that Limits was asked for last
	change atomic.Pointer[change] // that NextChange found last
}

// period is one part of the week, month or year.
type period struct {
	days days // on which it starts
	hours
	limits Limits
}

// hours of a day, in minutes after the midnight that it starts with; to > from, past 1440 on a later day.
type hours struct {
	from, to int
	lead     time.Duration
}

// exception is a range of dates with a plan of its own.
type exception struct {
	dateRange
	special
}

// holidayRule is a plan for the holidays of a file.
type holidayRule struct {
	days *Holidays
	special
}

// special is what holds on a day in place of its periods.
type special struct {
	name    string // of an exception; a holiday has that of its day
	allDay  *Limits
	usual   bool // the day's own periods hold
	sameAs  bool // a weekday's do
	weekday time.Weekday
	hours   []period
}

// rank says which of several things in force at an instant counts: the highest.
type rank int

const (
	rankDay    rank = iota + 1 // a special day's limits, all day
	rankPeriod                 // periods
	rankHours                  // a special day's hours
)

// entry is in force at given hours of the day that it starts on.
type entry struct {
	hours
	rank   rank
	limits Limits
}

// Limits returns the limits in force at t.
func (c *Calendar) Limits(t time.Time) Limits {
	if known := c.today.Load(); known != nil {
		if limits, ok := known.at(t); ok {
			return limits
		}
	}
	today := c.spansOf(&planner{c: c}, c.dayOf(t))
	c.today.Store(&today)
	limits, _ := today.at(t)
	return limits
}

// dayOf is the day that an instant belongs to: it starts at its last midnight.
func (c *Calendar) dayOf(t time.Time) day {
	d := dayIn(t.In(c.zone))
	for t.Before(c.startOf(d)) {
		d--
	}
	for !t.Before(c.startOf(d + 1)) {
		d++
	}
	return d
}

func (c *Calendar) startOf(d day) time.Time { return wall(c.zone, d, 0, last) }

// Holidays are those of each of the calendar's files.
func (c *Calendar) Holidays() []*Holidays {
	var files []*Holidays
	for _, h := range c.holidays {
		files = append(files, h.days)
	}
	return files
}

// HasSurplus reports whether there is ever a surplus.
func (c *Calendar) HasSurplus() bool {
	has := func(l Limits) bool { return l.Surplus != (Surplus{}) }
	hasHours := func(list []period) bool {
		return slices.ContainsFunc(list, func(p period) bool { return has(p.limits) })
	}
	hasSpecial := func(s *special) bool { return s.allDay != nil && has(*s.allDay) || hasHours(s.hours) }
	return has(c.base) || hasHours(c.periods) ||
		slices.ContainsFunc(c.exceptions, func(e exception) bool { return hasSpecial(&e.special) }) ||
		slices.ContainsFunc(c.holidays, func(h holidayRule) bool { return hasSpecial(&h.special) })
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

// interval is an entry's, in instants.
type interval struct {
	from, to time.Time
	rank     rank
	limits   Limits
}

// spansOf returns the spans of a day; none of one that clocks skip.
func (c *Calendar) spansOf(p *planner, d day) spans {
	begin, end := c.startOf(d), c.startOf(d+1)
	if !begin.Before(end) {
		return nil
	}
	var active []interval
	at := []time.Time{begin, end}
	after := day(1) // where midnight comes twice, hours may start at the first
	if c.leads {
		after = 2 // a day may have been skipped
	}
	for on := d - day(c.reach) - 1; on <= d+after; on++ {
		for _, e := range p.plan(on) {
			i := c.interval(p, on, e)
			if !i.from.Before(end) || !begin.Before(i.to) || !i.from.Before(i.to) {
				continue
			}
			active = append(active, i)
			for _, edge := range [2]time.Time{i.from, i.to} {
				if edge.After(begin) && edge.Before(end) {
					at = append(at, edge)
				}
			}
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	var list spans
	for i := range len(at) - 1 {
		from, to := at[i], at[i+1]
		if !from.Before(to) {
			continue
		}
		limits := c.merge(active, from)
		if n := len(list); n > 0 && list[n-1].Limits == limits {
			list[n-1].To = to
			continue
		}
		list = append(list, Span{From: from, To: to, Limits: limits})
	}
	return list
}

// merge makes limits of what is in force at an instant.
func (c *Calendar) merge(active []interval, t time.Time) Limits {
	limits, highest := c.base, rank(0)
	var names []string
	for i := range active {
		a := &active[i]
		if t.Before(a.from) || !t.Before(a.to) || a.rank < highest {
			continue
		}
		if a.rank > highest {
			highest, limits, names = a.rank, a.limits, []string{a.limits.Period}
			continue
		}
		if !slices.Contains(names, a.limits.Period) {
			names = append(names, a.limits.Period)
		}
		limits.MinReplicas = max(limits.MinReplicas, a.limits.MinReplicas)
		limits.IdleReplicas = max(limits.IdleReplicas, a.limits.IdleReplicas)
		limits.MaxReplicas = min(limits.MaxReplicas, a.limits.MaxReplicas)
		limits.Surplus = limits.Surplus.merge(a.limits.Surplus)
	}
	if len(names) > 1 { // in the order of the calendar, whichever day they started on
		slices.SortFunc(names, func(a, b string) int { return cmp.Compare(c.indexOf(a), c.indexOf(b)) })
		limits.Period = strings.Join(names, "+")
	}
	return limits
}

func (c *Calendar) indexOf(name string) int {
	return slices.IndexFunc(c.periods, func(p period) bool { return p.limits.Period == name })
}

// interval is when an entry of a day is in force.
func (c *Calendar) interval(p *planner, d day, e entry) interval {
	if e.rank == rankDay {
		return interval{c.startOf(d), c.startOf(d + 1), e.rank, e.limits}
	}
	start := wall(c.zone, d, e.from, first)
	if again := wall(c.zone, d, e.from, last); again.After(start) && p.endsAt(d, e.from) {
		start = again
	}
	return interval{start.Add(-e.lead), wall(c.zone, d, e.to, last), e.rank, e.limits}
}

// planner works plans of days out, and keeps what it needs of a month for the next day.
type planner struct {
	c      *Calendar
	months map[month]*monthPlan
}

// monthPlan has the days of a month on which each period starts, and those on which it starts whatever their weekday.
type monthPlan struct{ starts, monthly []monthMask }

// plan is what starts on a day.
func (p *planner) plan(d day) []entry {
	s, name := p.c.specialOn(d)
	var list []entry
	if s != nil && !s.usual && !s.sameAs {
		all := p.c.base
		if s.allDay != nil {
			all = *s.allDay
		}
		all.Period = name
		list = append(list, entry{hours{0, minutesOfDay, 0}, rankDay, all})
	} else {
		for i := range p.c.periods {
			if period := &p.c.periods[i]; p.starts(i, d, s) {
				list = append(list, entry{period.hours, rankPeriod, period.limits})
			}
		}
	}
	if s != nil {
		for i := range s.hours {
			limits := s.hours[i].limits
			limits.Period = name
			list = append(list, entry{s.hours[i].hours, rankHours, limits})
		}
	}
	return list
}

// starts reports whether a period starts on a day, or would if that were another weekday.
func (p *planner) starts(i int, d day, s *special) bool {
	year, m, n := d.civil()
	plan := p.monthPlan(month{year, m})
	if s == nil || !s.sameAs {
		return plan.starts[i].has(n)
	}
	days := &p.c.periods[i].days
	return plan.monthly[i].has(n) || days.weekdays[s.weekday] && days.months[m] && days.inWeek(d)
}

func (p *planner) monthPlan(m month) *monthPlan {
	if known := p.months[m]; known != nil {
		return known
	}
	if p.months == nil || len(p.months) > 4 {
		p.months = map[month]*monthPlan{}
	}
	plan := &monthPlan{starts: make([]monthMask, len(p.c.periods)), monthly: make([]monthMask, len(p.c.periods))}
	business := monthMask(0)
	if p.c.business {
		business = p.c.businessDays(m)
	}
	for i := range p.c.periods {
		plan.starts[i], plan.monthly[i] = p.c.periods[i].days.inMonth(m, business)
	}
	p.months[m] = plan
	return plan
}

// endsAt reports whether something that is no special day's limits ends so many minutes after a day's midnight.
func (p *planner) endsAt(d day, minutes int) bool {
	for back := range p.c.reach + 1 {
		for _, e := range p.plan(d - day(back)) {
			if e.rank != rankDay && e.to == minutes+back*minutesOfDay {
				return true
			}
		}
	}
	return false
}

// specialOn is what replaces a day's periods, and what it is called; nil if nothing does.
func (c *Calendar) specialOn(d day) (*special, string) {
	for i := range c.exceptions {
		if e := &c.exceptions[i]; e.has(d) {
			return &e.special, e.name
		}
	}
	for i := range c.holidays {
		if name, is := c.holidays[i].days.on(d); is {
			return &c.holidays[i].special, name
		}
	}
	return nil, ""
}

// businessDays are those of a month: weekdays that are neither of the weekend nor holidays. A day that is the same as a weekday
// is a business day if that is one.
func (c *Calendar) businessDays(m month) monthMask {
	var mask monthMask
	for n := range m.length() {
		d := m.first() + day(n)
		is := !c.weekend[d.weekday()] && !c.isHoliday(d)
		if s, _ := c.specialOn(d); s != nil && s.sameAs {
			is = !c.weekend[s.weekday]
		}
		if is {
			mask |= 1 << (n + 1)
		}
	}
	return mask
}

func (c *Calendar) isHoliday(d day) bool {
	return slices.ContainsFunc(c.holidays, func(r holidayRule) bool {
		_, is := r.days.on(d)
		return is
	})
}

// limits are those of bounds: what they leave out is the default's, and what they state replaces it. Only the ceiling
// holds for all.
func (c *Calendar) limits(name string, b Bounds) Limits {
	surplus := c.base.Surplus
	if b.Surplus != "" {
		surplus, _ = ParseSurplus(b.Surplus) // an error is among those of checkLimits
	}
	return Limits{
		Period:       name,
		MinReplicas:  ptr.Deref(b.MinReplicas, c.base.MinReplicas),
		IdleReplicas: ptr.Deref(b.IdleReplicas, c.base.IdleReplicas),
		MaxReplicas:  min(ptr.Deref(b.MaxReplicas, c.base.MaxReplicas), c.ceiling),
		Surplus:      surplus,
	}
}
