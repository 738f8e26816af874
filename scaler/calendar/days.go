package calendar

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// days are those on which a period starts: weekdays, and days of the month.
type days struct {
	weekdays [7]bool
	monthly  []monthDay
}

// monthDay is one day of every month that has it.
type monthDay struct {
	kind    monthDayKind
	nth     int          // 1 to 31; 0 means the last
	weekday time.Weekday // of kind nthWeekday
}

type monthDayKind int

const (
	nthDay monthDayKind = iota
	nthWeekday
	nthBusinessDay
)

// include reports whether a period starts on a day.
func (d *days) include(day date, holidays *Holidays) bool {
	if d.weekdays[day.weekday()] {
		return true
	}
	for _, m := range d.monthly {
		if m.is(day, holidays) {
			return true
		}
	}
	return false
}

func (m monthDay) is(day date, holidays *Holidays) bool {
	counts := func(d date) bool {
		switch m.kind {
		case nthWeekday:
			return d.weekday() == m.weekday
		case nthBusinessDay:
			return isBusinessDay(d, holidays)
		default:
			return true
		}
	}
	if !counts(day) {
		return false
	}
	// Nothing that counts may follow a last day; nth-1 must come before an nth.
	step, wanted, seen := -1, m.nth-1, 0
	if m.nth == 0 {
		step, wanted = 1, 0
	}
	for d := day.add(step); d.month == day.month; d = d.add(step) {
		if counts(d) {
			if seen++; seen > wanted {
				return false
			}
		}
	}
	return seen == wanted
}

func isBusinessDay(d date, holidays *Holidays) bool {
	if weekday := d.weekday(); weekday == time.Saturday || weekday == time.Sunday {
		return false
	}
	_, holiday := holidays.on(d)
	return !holiday
}

var ordinals = map[string]int{"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": 0}

// parseDays reads the days of a period. None means every day.
func parseDays(texts []string) (days, error) {
	if len(texts) == 0 {
		return days{weekdays: [7]bool{true, true, true, true, true, true, true}}, nil
	}
	var d days
	for _, text := range texts {
		if err := d.parse(text); err != nil {
			return d, err
		}
	}
	return d, nil
}

func (d *days) parse(text string) error {
	unknown := fmt.Errorf("%q must be a day (Mon, Tue, Wed, Thu, Fri, Sat, Sun), a range of days (Mon-Fri), a day of the month "+
		"(day 15), or first, second, third, fourth, fifth or last followed by a day (first Mon), by day (last day) or by "+
		"business day (last business day)", text)
	word, rest, several := strings.Cut(text, " ")
	if !several {
		from, to, isRange := strings.Cut(text, "-")
		if !isRange {
			to = from
		}
		start, okStart := weekdayOf(from)
		end, okEnd := weekdayOf(to)
		if !okStart || !okEnd {
			return unknown
		}
		for day := start; ; day = (day + 1) % 7 {
			d.weekdays[day] = true
			if day == end {
				return nil
			}
		}
	}
	if word == "day" {
		n, err := strconv.Atoi(rest)
		if err != nil || n < 1 || n > 31 {
			return fmt.Errorf("%q: a month has days 1 to 31", text)
		}
		d.monthly = append(d.monthly, monthDay{kind: nthDay, nth: n})
		return nil
	}
	nth, ok := ordinals[word]
	if !ok {
		return unknown
	}
	m := monthDay{nth: nth}
	switch weekday, isWeekday := weekdayOf(rest); {
	case isWeekday:
		m.kind, m.weekday = nthWeekday, weekday
	case rest == "day":
		m.kind = nthDay
	case rest == "business day":
		m.kind = nthBusinessDay
	default:
		return unknown
	}
	d.monthly = append(d.monthly, m)
	return nil
}

// weekdayOf reads Mon or Monday.
func weekdayOf(text string) (time.Weekday, bool) {
	for day := time.Sunday; day <= time.Saturday; day++ {
		if name := day.String(); text == name || text == name[:3] {
			return day, true
		}
	}
	return 0, false
}
