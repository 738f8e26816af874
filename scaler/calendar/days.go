package calendar

import (
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// days are those on which a period starts.
type days struct {
	weekdays [7]bool
	monthly  []monthDays
	dates    []dateRange
	months   [13]bool // of which they are; by time.Month
	// Every nth week from Monday to Sunday; 0 or 1 means all.
	every int
	week  day // a Monday from which they are counted
}

// monthDays are days of every month that has them, from the first to the last given one. They are counted from 1, or, where
// negative, from the month's end: -1 is the last.
type monthDays struct {
	kind     monthDayKind
	from, to int
	weekday  time.Weekday // of kind nthWeekday
}

type monthDayKind int

const (
	nthDay monthDayKind = iota
	nthWeekday
	nthBusinessDay
)

// dateRange are dates of one year, or of every year.
type dateRange struct {
	from, to day
	yearly   bool
}

func (r *dateRange) has(d day) bool {
	if !r.yearly {
		return r.from <= d && d <= r.to
	}
	// Without a year, months and days are compared; a range may wrap over New Year.
	at, from, to := monthDay(d), monthDay(r.from), monthDay(r.to)
	if from <= to {
		return from <= at && at <= to
	}
	return at >= from || at <= to
}

// inMonth returns the dates in a month.
func (r *dateRange) inMonth(m month, first day, length int) monthMask {
	if !r.yearly {
		return between(int(r.from-first)+1, int(r.to-first)+1, length)
	}
	base := int(m.month) * 100
	from, to := monthDay(r.from)-base, monthDay(r.to)-base
	if from <= to {
		return between(from, to, length)
	}
	return between(from, length, length) | between(1, to, length)
}

// between has the days from one to another, as far as a month has them.
func between(from, to, length int) monthMask {
	from, to = max(from, 1), min(to, length)
	if from > to {
		return 0
	}
	return monthMask(1<<(to+1) - 1<<from)
}

// monthDay orders the days of any year.
func monthDay(d day) int {
	_, m, n := d.civil()
	return int(m)*100 + n
}

// monthMask has bit n set for the nth day of a month.
type monthMask uint32

func (m monthMask) has(n int) bool { return m>>n&1 == 1 }

// inMonth returns the days of a month on which a period starts, and those on which it starts whatever their weekday. Business is
// which of them are business days.
func (d *days) inMonth(m month, business monthMask) (all, monthly monthMask) {
	if !d.months[m.month] {
		return 0, 0
	}
	first, length := m.first(), m.length()
	for _, r := range d.monthly {
		monthly |= r.inMonth(first, length, business)
	}
	for i := range d.dates {
		monthly |= d.dates[i].inMonth(m, first, length)
	}
	all = monthly
	for n, weekday := 1, first.weekday(); n <= length; n, weekday = n+1, (weekday+1)%7 {
		if d.weekdays[weekday] {
			all |= 1 << n
		}
		if d.every > 1 && !d.inWeek(first+day(n-1)) {
			all &^= 1 << n
		}
	}
	return all, monthly & all
}

// inWeek reports whether a day's week is one of every nth.
func (d *days) inWeek(on day) bool {
	monday := on - day((on.weekday()+6)%7)
	return d.every <= 1 || int(monday-d.week)/7%d.every == 0
}

func (r *monthDays) inMonth(first day, length int, business monthMask) monthMask {
	var mask monthMask
	switch r.kind {
	case nthWeekday:
		n := 1 + int(r.weekday-first.weekday()+7)%7 + 7*(r.from-1)
		if r.from < 0 {
			n = length - int((first+day(length-1)).weekday()-r.weekday+7)%7 + 7*(r.from+1)
		}
		if 1 <= n && n <= length {
			mask |= 1 << n
		}
	case nthBusinessDay:
		i, count := 0, bits.OnesCount32(uint32(business))
		for n := 1; n <= length; n++ {
			if business.has(n) {
				if i++; r.has(i, count) {
					mask |= 1 << n
				}
			}
		}
	default:
		from, to := r.from, r.to
		if from < 0 {
			from, to = from+length+1, to+length+1
		}
		mask = between(from, to, length)
	}
	return mask
}

// has reports whether the ith of count days is one of them.
func (r *monthDays) has(i, count int) bool {
	if r.from < 0 {
		i -= count + 1
	}
	return r.from <= i && i <= r.to
}

const (
	// maxDays, maxPeriods and the like bound a calendar, so that it compiles fast whatever its author writes.
	maxDays = 32
	// maxBack is how far before a month's last day its days are counted.
	maxBack = 30
)

var (
	ordinals  = map[string]int{"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": -1}
	dayNumber = regexp.MustCompile(`^(day|business day)(?: (\d{1,2})(?: ?- ?(\d{1,2}))?)?$`)
	ordinal   = regexp.MustCompile(`^(\w+) (business day|[a-z]+)(?: ?- ?(\d{1,2}))?$`)
)

// parseDays reads the days of a period. None means every day.
func parseDays(p *Period) (days, error) {
	var d days
	if len(p.Days) > maxDays {
		return d, fmt.Errorf("must be at most %d", maxDays)
	}
	for i := range d.weekdays {
		d.weekdays[i] = len(p.Days) == 0
	}
	for _, text := range p.Days {
		if err := d.parse(strings.ToLower(strings.Join(strings.Fields(text), " ")), text); err != nil {
			return d, err
		}
	}
	return d, nil
}

func (d *days) parse(text, written string) error {
	unknown := fmt.Errorf("%q must be a day (Mon, Tue, Wed, Thu, Fri, Sat, Sun), a range of days (Mon-Fri), days of the month "+
		"(day 15, day 1-5), first, second, third, fourth, fifth or last followed by a day (first Mon), by day (last day) or by "+
		"business day (last business day), a number of days before the last (last day -2), business day for all of them, "+
		"or a date (2026-12-24, 12-24, 2026-12-24 to 2026-12-31)", written)
	if text != "" && text[0] >= '0' && text[0] <= '9' {
		from, to, _ := strings.Cut(text, " to ")
		r, err := parseRange(from, to)
		if err != nil {
			return fmt.Errorf("%q %w", written, err)
		}
		d.dates = append(d.dates, r)
		return nil
	}
	if m := dayNumber.FindStringSubmatch(text); m != nil {
		r := monthDays{from: 1, to: 31}
		if m[1] == "business day" {
			r.kind = nthBusinessDay
		} else if m[2] == "" {
			return unknown
		}
		if m[2] != "" {
			r.from, _ = strconv.Atoi(m[2])
			if r.to = r.from; m[3] != "" {
				r.to, _ = strconv.Atoi(m[3])
			}
		}
		if r.from < 1 || r.to > 31 || r.to < r.from {
			return fmt.Errorf("%q: a month has days 1 to 31", written)
		}
		d.monthly = append(d.monthly, r)
		return nil
	}
	from, to, isRange := strings.Cut(text, "-")
	start, okStart := weekdayOf(strings.TrimSpace(from))
	if !isRange {
		to = from
	}
	if end, okEnd := weekdayOf(strings.TrimSpace(to)); okStart && okEnd {
		for day := start; ; day = (day + 1) % 7 {
			d.weekdays[day] = true
			if day == end {
				return nil
			}
		}
	}
	m := ordinal.FindStringSubmatch(text)
	if m == nil {
		return unknown
	}
	nth, known := ordinals[m[1]]
	if !known || m[3] != "" && nth > 0 {
		return unknown
	}
	r := monthDays{from: nth, to: nth}
	switch weekday, isWeekday := weekdayOf(m[2]); {
	case isWeekday && m[3] == "":
		r.kind, r.weekday = nthWeekday, weekday
	case m[2] == "day":
	case m[2] == "business day":
		r.kind = nthBusinessDay
	default:
		return unknown
	}
	if m[3] != "" {
		back, _ := strconv.Atoi(m[3])
		if back > maxBack {
			return fmt.Errorf("%q: a month has at most %d days before its last", written, maxBack)
		}
		r.from -= back
		r.to = r.from
	}
	d.monthly = append(d.monthly, r)
	return nil
}

// parseMonths reads names of months, in full or of three letters, and ranges of them. None means all.
func (d *days) parseMonths(texts []string) error {
	if len(texts) == 0 {
		for m := range d.months {
			d.months[m] = true
		}
		return nil
	}
	if len(texts) > 12 {
		return errors.New("must be at most 12")
	}
	for _, text := range texts {
		from, to, isRange := strings.Cut(strings.ToLower(strings.TrimSpace(text)), "-")
		if !isRange {
			to = from
		}
		begin, okBegin := monthOf(from)
		end, okEnd := monthOf(to)
		if !okBegin || !okEnd {
			return fmt.Errorf("%q must be a month (Jan) or a range of months (Nov-Feb)", text)
		}
		for m := begin; ; m = m%12 + 1 {
			d.months[m] = true
			if m == end {
				break
			}
		}
	}
	return nil
}

func (d *days) parseWeeks(w *Weeks) error {
	if w == nil {
		return nil
	}
	if w.Every < 1 || w.Every > 52 {
		return fmt.Errorf("every: must be from 1 to 52, not %d", w.Every)
	}
	from, err := parseDay(w.From)
	if err != nil {
		return fmt.Errorf("from: %q %w", w.From, err)
	}
	d.every, d.week = w.Every, from-day((from.weekday()+6)%7)
	return nil
}

func monthOf(text string) (time.Month, bool) {
	for m := time.January; m <= time.December; m++ {
		if name := strings.ToLower(m.String()); text == name || text == name[:3] {
			return m, true
		}
	}
	return 0, false
}

// weekdayOf reads mon or monday.
func weekdayOf(text string) (time.Weekday, bool) {
	for day := time.Sunday; day <= time.Saturday; day++ {
		if name := strings.ToLower(day.String()); text == name || text == name[:3] {
			return day, true
		}
	}
	return 0, false
}

// single is the only weekday that days name, if they are one.
func (d *days) single() (time.Weekday, bool) {
	i := slices.Index(d.weekdays[:], true)
	if i < 0 || len(d.monthly)+len(d.dates) > 0 || slices.Contains(d.weekdays[i+1:], true) {
		return 0, false
	}
	return time.Weekday(i), true
}

var errDate = errors.New("must be a date: 2026-12-24, or 12-24 for every year")

// parseRange reads two dates that both have a year, or neither. No second one means one day.
func parseRange(from, to string) (dateRange, error) {
	var r dateRange
	var err error
	if r.from, r.yearly, err = parseDate(from, true); err != nil {
		return r, err
	}
	if r.to = r.from; to == "" || to == from {
		return r, nil
	}
	var yearly bool
	if r.to, yearly, err = parseDate(to, false); err != nil {
		return r, err
	}
	if yearly != r.yearly {
		return r, errors.New("from and to must both have a year, or neither")
	}
	if !yearly && r.to < r.from {
		return r, fmt.Errorf("must not be before from, %s", from)
	}
	return r, nil
}

// parseDate reads a date with or without a year. Without one the year is a leap year, so that 02-29 is legal. February 29th of a
// year without one is March 1st for a start, and February 28th for an end.
func parseDate(text string, start bool) (d day, yearly bool, err error) {
	full := text
	if len(text) == len("12-24") {
		full, yearly = "2000-"+text, true
	}
	if t, err := time.Parse(time.DateOnly, full); err == nil {
		return dayIn(t), yearly, nil
	}
	if year, ok := strings.CutSuffix(text, "-02-29"); ok {
		if t, err := time.Parse(time.DateOnly, year+"-03-01"); err == nil {
			if start {
				return dayIn(t), false, nil
			}
			return dayIn(t) - 1, false, nil
		}
	}
	return 0, false, errDate
}

func parseDay(text string) (day, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return 0, errors.New("must be a date such as 2026-12-24")
	}
	return dayIn(t), nil
}
