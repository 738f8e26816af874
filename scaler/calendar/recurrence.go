package calendar

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rule is a recurrence rule (RFC 5545 section 3.3.10; RFC 7529 for SKIP; BYEASTER as python-dateutil has it). It is worked out
// over the dates and times that a clock shows, without a zone, so that no clock change can shift an occurrence; and by our own
// code, because what a library does between two occurrences can't be bounded.
type rule struct {
	frequency frequency
	interval  int
	count     int // -1: no count
	until     *moment
	weekStart time.Weekday
	skip      skip

	months, monthDays, yearDays, weeks, easter, hours, minutes, seconds, positions []int
	weekdays                                                                       []nthWeekdayOf
}

type frequency int

const (
	daily frequency = iota
	weekly
	monthly
	yearly
)

// skip says what happens to a day of the month that a month does not have.
type skip int

const (
	omit skip = iota
	backward
	forward
)

// nthWeekdayOf is a BYDAY: every such weekday (n is 0), or the nth of the month or year, from its end where n is negative.
type nthWeekdayOf struct {
	n       int
	weekday time.Weekday
}

var icalWeekdays = map[string]time.Weekday{
	"SU": time.Sunday, "MO": time.Monday, "TU": time.Tuesday, "WE": time.Wednesday, "TH": time.Thursday, "FR": time.Friday, "SA": time.Saturday,
}

// parseRule reads an RRULE or EXRULE. A part that is not known is an error: ignoring it would change what the rule means.
func parseRule(text string) (*rule, error) {
	r := &rule{interval: 1, count: -1, weekStart: time.Monday, frequency: -1}
	seen, rscale := map[string]bool{}, false
	for _, part := range strings.Split(strings.ToUpper(strings.TrimRight(text, ";")), ";") {
		name, value, ok := strings.Cut(part, "=")
		if !ok || value == "" {
			return nil, fmt.Errorf("%q is not NAME=VALUE", harmless(part))
		}
		if seen[name] {
			return nil, fmt.Errorf("%s twice", name)
		}
		seen[name] = true
		var err error
		switch name {
		case "FREQ":
			i := slices.Index([]string{"DAILY", "WEEKLY", "MONTHLY", "YEARLY"}, value)
			if i < 0 {
				return nil, fmt.Errorf("FREQ=%s: must be DAILY, WEEKLY, MONTHLY or YEARLY", harmless(value))
			}
			r.frequency = frequency(i)
		case "INTERVAL":
			r.interval, err = number(value, 1, 100_000)
		case "COUNT":
			r.count, err = number(value, 0, 1_000_000_000)
		case "UNTIL":
			var m moment
			if m, err = parseMoment(value); err == nil {
				r.until = &m
			}
		case "WKST":
			if r.weekStart, ok = icalWeekdays[value]; !ok {
				err = errors.New("must be MO, TU, WE, TH, FR, SA or SU")
			}
		case "BYMONTH":
			r.months, err = numbers(value, 1, 12, false)
		case "BYMONTHDAY":
			r.monthDays, err = numbers(value, 1, 31, true)
		case "BYYEARDAY":
			r.yearDays, err = numbers(value, 1, 366, true)
		case "BYWEEKNO":
			r.weeks, err = numbers(value, 1, 53, true)
		case "BYEASTER":
			r.easter, err = numbers(value, 0, 300, true)
		case "BYHOUR":
			r.hours, err = numbers(value, 0, 23, false)
		case "BYMINUTE":
			r.minutes, err = numbers(value, 0, 59, false)
		case "BYSECOND":
			r.seconds, err = numbers(value, 0, 59, false)
		case "BYSETPOS":
			r.positions, err = numbers(value, 1, 366, true)
		case "BYDAY":
			r.weekdays, err = parseByDay(value)
		case "RSCALE":
			if rscale = true; value != "GREGORIAN" {
				err = errors.New("only GREGORIAN is known")
			}
		case "SKIP":
			i := slices.Index([]string{"OMIT", "BACKWARD", "FORWARD"}, value)
			if r.skip = skip(i); i < 0 {
				err = errors.New("must be OMIT, BACKWARD or FORWARD")
			}
		default:
			err = errors.New("is not known")
		}
		if err != nil {
			return nil, fmt.Errorf("%s=%s %w", harmless(name), harmless(value), err)
		}
	}
	return r, r.check(seen, rscale)
}

// check finds parts that the standard forbids together, as they have no meaning.
func (r *rule) check(seen map[string]bool, rscale bool) error {
	nth := slices.ContainsFunc(r.weekdays, func(w nthWeekdayOf) bool { return w.n != 0 })
	switch {
	case r.frequency < 0:
		return errors.New("FREQ is missing")
	case r.skip != omit && !rscale:
		return errors.New("SKIP needs RSCALE=GREGORIAN")
	case r.weeks != nil && r.frequency != yearly:
		return errors.New("BYWEEKNO needs FREQ=YEARLY")
	case r.easter != nil && r.frequency != yearly:
		return errors.New("BYEASTER needs FREQ=YEARLY")
	case r.yearDays != nil && r.frequency != yearly:
		return errors.New("BYYEARDAY needs FREQ=YEARLY")
	case r.monthDays != nil && r.frequency == weekly:
		return errors.New("BYMONTHDAY can't be with FREQ=WEEKLY")
	case nth && (r.frequency < monthly || r.weeks != nil):
		return errors.New("a number in BYDAY needs FREQ=MONTHLY or YEARLY, without BYWEEKNO")
	case r.positions != nil && len(seen) < 3:
		return errors.New("BYSETPOS needs another BY part")
	}
	return nil
}

func number(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most || text[0] == '+' {
		return 0, fmt.Errorf("must be a number from %d to %d", least, most)
	}
	return n, nil
}

// numbers reads a list, sorted and each once; counted from the end where negative.
func numbers(text string, least, most int, negative bool) ([]int, error) {
	var list []int
	for _, part := range strings.Split(text, ",") {
		n, err := strconv.Atoi(part)
		size := n
		if negative {
			size = max(n, -n)
		}
		if err != nil || size < least || size > most {
			return nil, fmt.Errorf("must be numbers from %d to %d", least, most)
		}
		list = append(list, n)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func parseByDay(text string) ([]nthWeekdayOf, error) {
	wrong := errors.New("must be days such as MO, 1MO or -1FR, separated by commas alone")
	var list []nthWeekdayOf
	for _, part := range strings.Split(text, ",") {
		if len(part) < 2 {
			return nil, wrong
		}
		weekday, ok := icalWeekdays[part[len(part)-2:]]
		var w nthWeekdayOf
		if w.weekday = weekday; len(part) > 2 {
			n, err := strconv.Atoi(part[:len(part)-2])
			if w.n = n; err != nil || n == 0 || n < -53 || n > 53 {
				return nil, wrong
			}
		}
		if !ok {
			return nil, wrong
		}
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b nthWeekdayOf) int { return cmp.Or(cmp.Compare(a.weekday, b.weekday), cmp.Compare(a.n, b.n)) })
	return slices.Compact(list), nil
}

// budget is how many steps are left for a file: a user chooses what is in it, not how long it takes.
type budget struct {
	steps int
	taken int // since others had the processor
}

// stepsInARow take less than a millisecond.
const stepsInARow = 4096

var errBudget = errors.New("it recurs too often: the file makes more occurrences than are worked out")

func (b *budget) spend(steps int) bool {
	if b.steps < steps {
		b.steps = -1
		return false
	}
	b.steps -= steps
	if b.taken += steps; b.taken >= stepsInARow {
		b.taken = 0
		runtime.Gosched() // a program that answers others meanwhile keeps none of them waiting
	}
	return true
}

// recurrence is a rule from a start on.
type recurrence struct {
	*rule
	start     int64 // what clocks show at the first occurrence
	wholeDays bool
	// past reports whether an occurrence is after the rule's end.
	past func(shown int64) bool
	// plus counts the start as an occurrence although the rule does not make it.
	plus bool
}

// lastYear is how far recurring holidays are worked out.
const lastYear = 2100

// each calls yield for every occurrence, in order, as long as it returns true.
func (r *recurrence) each(b *budget, yield func(shown int64) bool) error {
	start := dayShown(r.start)
	year, startMonth, _ := start.civil()
	if !r.wholeDays && !b.spend(max(1, len(r.hours))*max(1, len(r.minutes))*max(1, len(r.seconds))) {
		return errBudget
	}
	times := r.times()
	left := r.count
	if r.plus && left > 0 {
		left--
	}
	if left == 0 {
		return nil
	}
	end := dayOf(lastYear+1, 1, 1)
	candidates := r.candidates(start)
	for n := 0; ; n += r.interval {
		if !b.spend(1) {
			return errBudget
		}
		var begin, stop day // the unit of the frequency: [begin, stop)
		switch r.frequency {
		case yearly:
			begin, stop = dayOf(year+n, 1, 1), dayOf(year+n+1, 1, 1)
		case monthly:
			m := month{year, startMonth}.add(n)
			begin, stop = m.first(), m.add(1).first()
		case weekly:
			week := start - day((start.weekday()-r.weekStart+7)%7)
			begin = week + day(7*n)
			stop = begin + 7
		default:
			begin = start + day(n)
			stop = begin + 1
		}
		if begin >= end {
			return nil
		}
		days, steps := candidates.in(begin, stop)
		if !b.spend(steps + len(days)*len(times)) {
			return errBudget
		}
		count := len(days) * len(times)
		pick := func(i int) (more bool) {
			shown := days[i/len(times)].shown() + int64(times[i%len(times)])
			switch {
			case shown < r.start:
				return true
			case r.past(shown), shown >= end.shown():
				return false
			case !yield(shown):
				return false
			}
			if left > 0 {
				left--
			}
			return left != 0
		}
		if r.positions == nil {
			for i := range count {
				if !pick(i) {
					return nil
				}
			}
			continue
		}
		var chosen []int
		for _, p := range r.positions {
			i := p - 1
			if p < 0 {
				i = count + p
			}
			if i >= 0 && i < count {
				chosen = append(chosen, i)
			}
		}
		slices.Sort(chosen)
		for _, i := range slices.Compact(chosen) {
			if !pick(i) {
				return nil
			}
		}
	}
}

// times are those of a day, in seconds after midnight.
func (r *recurrence) times() []int {
	if r.wholeDays {
		return []int{0} // the standard wants BYHOUR and the like ignored
	}
	of := int(r.start - dayShown(r.start).shown())
	hours, minutes, seconds := r.hours, r.minutes, r.seconds
	if hours == nil {
		hours = []int{of / 3600}
	}
	if minutes == nil {
		minutes = []int{of / 60 % 60}
	}
	if seconds == nil {
		seconds = []int{of % 60}
	}
	times := make([]int, 0, len(hours)*len(minutes)*len(seconds))
	for _, h := range hours {
		for _, m := range minutes {
			for _, s := range seconds {
				times = append(times, h*3600+m*60+s)
			}
		}
	}
	return times
}

// candidates are the days that a rule names; what it leaves open is as on its start.
type candidates struct {
	*rule
	months, monthDays uint32 // as bits; 0 means all
	lastMonthDay      int    // the largest of monthDays
	fromEnd           uint32 // those that are counted from the month's end
	weekdays          []nthWeekdayOf
	list              []day
}

func (r *recurrence) candidates(start day) *candidates {
	_, startMonth, startDay := start.civil()
	months, monthDays, weekdays := r.months, r.monthDays, r.weekdays
	if r.yearDays == nil && monthDays == nil && weekdays == nil && r.easter == nil {
		switch {
		case r.frequency == weekly, r.weeks != nil:
			weekdays = []nthWeekdayOf{{0, start.weekday()}}
		case r.frequency == monthly:
			monthDays = []int{startDay}
		case r.frequency == yearly:
			if monthDays = []int{startDay}; months == nil {
				months = []int{int(startMonth)}
			}
		}
	}
	c := &candidates{rule: r.rule, weekdays: weekdays}
	for _, m := range months {
		c.months |= 1 << m
	}
	for _, n := range monthDays {
		if n > 0 {
			c.monthDays |= 1 << n
			c.lastMonthDay = n
		} else {
			c.fromEnd |= 1 << -n
		}
	}
	return c
}

// in returns the days of [begin, stop), until the next call, and what finding them took.
func (c *candidates) in(begin, stop day) (list []day, steps int) {
	c.list = c.list[:0]
	for d := begin; d < stop; {
		year, m, n := d.civil()
		at := month{year, m}
		length := at.length()
		steps++
		if c.months != 0 && c.months>>m&1 == 0 && c.skip != forward { // on to the next month
			d += day(length - n + 1)
			continue
		}
		for ; n <= length && d < stop; n, d = n+1, d+1 {
			if c.fromEnd == 0 && c.skip == omit && c.monthDays != 0 && c.monthDays>>n&1 == 0 {
				continue // most rules name a few days
			}
			steps++
			if c.matches(d, at, n, length) {
				c.list = append(c.list, d)
			}
		}
	}
	return c.list, steps
}

// matches reports whether a day, the nth of a month of a length, is a candidate.
func (c *candidates) matches(d day, m month, n, length int) bool {
	if !c.inMonth(m, n, length) {
		return false
	}
	if c.yearDays != nil {
		newYear := dayOf(m.year, 1, 1)
		days := int(dayOf(m.year+1, 1, 1) - newYear)
		if i := int(d - newYear); !slices.Contains(c.yearDays, i+1) && !slices.Contains(c.yearDays, i-days) {
			return false
		}
	}
	if c.weeks != nil {
		week, weeks := c.weekOf(d)
		if !slices.Contains(c.weeks, week) && !slices.Contains(c.weeks, week-weeks-1) {
			return false
		}
	}
	if c.easter != nil && !slices.Contains(c.easter, int(d-easter(m.year))) {
		return false
	}
	if c.weekdays == nil {
		return true
	}
	// The nth of the month, or of the year where no months are named.
	fromStart, fromEnd := (n-1)/7+1, -((length-n)/7 + 1)
	if c.frequency == yearly && c.months == 0 {
		fromStart, fromEnd = int(d-dayOf(m.year, 1, 1))/7+1, -(int(dayOf(m.year+1, 1, 1)-1-d)/7 + 1)
	}
	weekday := d.weekday()
	for _, w := range c.weekdays {
		if w.weekday == weekday && (w.n == 0 || w.n == fromStart || w.n == fromEnd) {
			return true
		}
	}
	return false
}

// inMonth reports whether the nth day of a month is one of the days of the months.
func (c *candidates) inMonth(m month, n, length int) bool {
	if c.months == 0 || c.months>>m.month&1 == 1 {
		if c.monthDays|c.fromEnd == 0 || c.monthDays>>n&1 == 1 || c.fromEnd>>(length-n+1)&1 == 1 ||
			c.skip == backward && n == length && c.lastMonthDay > length {
			return true
		}
	}
	if c.skip != forward || n != 1 {
		return false
	}
	before := m.add(-1)
	return (c.months == 0 || c.months>>before.month&1 == 1) && c.lastMonthDay > before.length()
}

// weekOf is the number of a day's week, in the year that has most of its days, and how many weeks that year has.
func (r *rule) weekOf(d day) (week, weeks int) {
	begin := d - day((d.weekday()-r.weekStart+7)%7)
	year, _, _ := (begin + 3).civil()
	firstOf := func(year int) day { // the week with January 4th
		d := dayOf(year, 1, 4)
		return d - day((d.weekday()-r.weekStart+7)%7)
	}
	start := firstOf(year)
	return int(begin-start)/7 + 1, int(firstOf(year+1)-start) / 7
}

// easter is Easter Sunday of the Gregorian calendar, by the anonymous algorithm (Nature, 20 April 1876).
func easter(year int) day {
	a, b, c := year%19, year/100, year%100
	d, e, f := b/4, b%4, (b+8)/25
	g := (b - f + 1) / 3
	h := (19*a + b - d - g + 15) % 30
	i, k := c/4, c%4
	l := (32 + 2*e + 2*i - h - k) % 7
	m := (a + 11*h + 22*l) / 451
	n := h + l - 7*m + 114
	return dayOf(year, time.Month(n/31), n%31+1)
}
