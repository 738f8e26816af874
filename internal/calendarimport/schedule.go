package calendarimport

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// day counts days since 1970-01-01, and minute minutes since its midnight, both as clocks show them that never change.
type (
	day    = int64
	minute = int64
)

const (
	dayMinutes = 24 * 60
	// years are how long schedules are looked at: after 28 the weekdays of dates repeat.
	years = 28
	// leadIn is how long before that they begin, so that what is in force at the beginning is known.
	leadIn = 400
	// maxTicks bounds how often a schedule may fire in that time.
	maxTicks = 2_000_000
	// maxDates is how many dates are written as such. The rarest of others comes more often.
	maxDates = 3
	// maxDaysLater and maxPeriods are what a calendar holds.
	maxDaysLater, maxPeriods = 31, 64
)

func dayOf(t time.Time) day {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Unix() / (60 * dayMinutes)
}

func dateOf(d day) time.Time { return time.Unix(d*dayMinutes*60, 0).UTC() }

// shown is what a clock of a zone shows at an instant, as if it were in UTC.
func shown(t time.Time, zone *time.Location) time.Time {
	_, offset := t.In(zone).Zone()
	return t.Add(time.Duration(offset) * time.Second).UTC()
}

// horizon are the days that schedules are looked at, [first, last), and how many before them.
type horizon struct{ first, last day }

func horizonFrom(t time.Time) horizon {
	first := dayOf(t)
	return horizon{first, first + years*366}
}

// window is when an original asks for replicas, by a clock that never changes.
type window struct {
	from, to minute
	replicas int32
}

// times are the minutes of a day at which a schedule fires on those days on which it does.
func times(s *cron.SpecSchedule) []minute {
	var list []minute
	for h := range minute(24) {
		for m := range minute(60) {
			if s.Hour>>h&1 == 1 && s.Minute>>m&1 == 1 {
				list = append(list, h*60+m)
			}
		}
	}
	return list
}

// star is the bit by which a field of a schedule says that it was written as *.
const star = 1 << 63

// fires reports whether a schedule fires on a day, by the rule of crontab: where both are restricted, a day of the month or one of
// the week is enough.
func fires(s *cron.SpecSchedule, d day) bool {
	date := dateOf(d)
	if s.Month>>int(date.Month())&1 == 0 {
		return false
	}
	dom, dow := s.Dom>>date.Day()&1 == 1, s.Dow>>int(date.Weekday())&1 == 1
	if (s.Dom|s.Dow)&star != 0 {
		return dom && dow
	}
	return dom || dow
}

// sameDays reports whether two schedules fire on the same days.
func sameDays(a, b *cron.SpecSchedule) bool {
	return a.Dom == b.Dom && a.Month == b.Month && a.Dow == b.Dow
}

// ticks are the minutes at which a schedule fires, in order.
func (h horizon) ticks(s *cron.SpecSchedule) ([]minute, error) {
	at := times(s)
	var list []minute
	for d := h.first - leadIn; d < h.last+leadIn; d++ {
		if !fires(s, d) {
			continue
		}
		for _, m := range at {
			list = append(list, d*dayMinutes+m)
		}
		if len(list) > maxTicks {
			return nil, errors.New("it fires too often for periods of a calendar: write the hours by hand")
		}
	}
	if len(list) == 0 {
		return nil, errors.New("it never fires: write a date that exists")
	}
	return list, nil
}

// shape is what windows of a period have in common.
type shape struct {
	from     minute // after midnight of its day
	length   minute
	replicas int32
}

// periods are what make up windows. A window of the years that are looked at begins on one of their days.
func (h horizon) periods(windows []window) ([]v1alpha1.Period, error) {
	starts := map[shape][]bool{}
	var order []shape
	for _, w := range windows {
		d := floorDiv(w.from, dayMinutes)
		if d < h.first || d >= h.last {
			continue
		}
		s := shape{w.from - d*dayMinutes, w.to - w.from, w.replicas}
		if starts[s] == nil {
			starts[s] = make([]bool, h.last-h.first)
			if order = append(order, s); len(order) > maxPeriods {
				return nil, fmt.Errorf("it would take more than %d periods, which is all that a calendar holds: write the hours by hand", maxPeriods)
			}
		}
		starts[s][d-h.first] = true
	}
	// By the hour, and the longer first.
	slices.SortStableFunc(order, func(a, b shape) int {
		if a.from != b.from {
			return int(a.from - b.from)
		}
		return int(b.length - a.length)
	})
	var list []v1alpha1.Period
	for _, s := range order {
		p, err := h.period(s, starts[s])
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func (h horizon) period(s shape, starts []bool) (v1alpha1.Period, error) {
	days, months, ok := h.fit(starts)
	if !ok {
		first := dateOf(h.first + int64(slices.Index(starts, true)))
		return v1alpha1.Period{}, fmt.Errorf("the days on which %s for %s begins, %s for one, are neither weekdays nor days of the month, of some months: "+
			"write them by hand (see docs/how-to/write-a-calendar.md#days)", clock(s.from), hours(s.length), first.Format(time.DateOnly))
	}
	to, later := s.from+s.length, int64(0)
	if later = to / dayMinutes; to%dayMinutes == 0 {
		later-- // 24:00 is of the day before
	}
	to -= later * dayMinutes
	if later > maxDaysLater {
		return v1alpha1.Period{}, fmt.Errorf("from %s it stays on for %s, and a period lasts %d days at most: write it by hand as a period of days with "+
			"months, or as an exception", clock(s.from), hours(s.length), maxDaysLater)
	}
	p := v1alpha1.Period{Days: days, Months: months, To: clock(to), Limits: v1alpha1.Limits{MinReplicas: &s.replicas}}
	if s.from > 0 || to < dayMinutes || later > 0 {
		p.From = clock(s.from)
	}
	switch one, is := weekday(days); {
	case later == 0 && to == dayMinutes && s.from == 0:
		p.To = ""
	case later == 0, later == 1 && to <= s.from:
	case is && (later < 7 || later == 7 && to <= s.from):
		p.To = time.Weekday((int64(one) + later) % 7).String()[:3] + " " + p.To
	default:
		p.To += fmt.Sprintf(" +%d", later)
	}
	return p, nil
}

// fit finds words for days: weekdays and days of the month, of some months.
func (h horizon) fit(starts []bool) (days, months []string, ok bool) {
	for i, is := range starts {
		if is {
			days = append(days, dateOf(h.first+int64(i)).Format(time.DateOnly))
		}
	}
	if len(days) <= maxDates {
		return days, nil, true
	}
	days = nil
	var month [13]bool
	for i, is := range starts {
		if is {
			month[dateOf(h.first+int64(i)).Month()] = true
		}
	}
	dow, dom := uint64(1<<7-1), uint64(1<<32-2)
	for i, is := range starts {
		if date := dateOf(h.first + int64(i)); !is && month[date.Month()] {
			dow &^= 1 << date.Weekday()
			dom &^= 1 << date.Day()
		}
	}
	if dow == 1<<7-1 {
		dom = 0
	}
	for i, is := range starts { // a day that no month of these has is none of them
		date := dateOf(h.first + int64(i))
		if is && dow>>date.Weekday()&1 == 0 && dom>>date.Day()&1 == 0 {
			return nil, nil, false
		}
	}
	dom = h.existing(dom, month)
	if dow != 1<<7-1 {
		// From Monday on, or from a day before it if that is in a row with it.
		first := 1
		for dow>>first&1 == 1 && dow>>((first+6)%7)&1 == 1 {
			first = (first + 6) % 7
		}
		days = append(days, ranges(dow>>first|dow<<(7-first), 0, 7, func(from, to int) string {
			name := func(n int) string { return time.Weekday((n + first) % 7).String()[:3] }
			if to > from {
				return name(from) + "-" + name(to)
			}
			return name(from)
		})...)
		days = append(days, ranges(dom, 1, 32, func(from, to int) string {
			if to > from {
				return fmt.Sprintf("day %d-%d", from, to)
			}
			return fmt.Sprintf("day %d", from)
		})...)
	}
	mask := uint64(0)
	for m := time.January; m <= time.December; m++ {
		if month[m] {
			mask |= 1 << m
		}
	}
	if bits.OnesCount64(mask) < 12 {
		months = ranges(mask, 1, 13, func(from, to int) string {
			name := func(n int) string { return time.Month(n).String()[:3] }
			if to > from {
				return name(from) + "-" + name(to)
			}
			return name(from)
		})
	}
	return days, months, true
}

// existing are those days of the month that one of the months has.
func (h horizon) existing(dom uint64, month [13]bool) uint64 {
	most := 0
	for m := time.January; m <= time.December; m++ {
		if month[m] {
			most = max(most, time.Date(2024, m+1, 0, 0, 0, 0, 0, time.UTC).Day())
		}
	}
	return dom & (1<<(most+1) - 1)
}

// ranges are the runs of bits that are set, of [begin, end).
func ranges(mask uint64, begin, end int, write func(from, to int) string) []string {
	var list []string
	for from := begin; from < end; from++ {
		if mask>>from&1 == 0 {
			continue
		}
		to := from
		for to+1 < end && mask>>(to+1)&1 == 1 {
			to++
		}
		if to == from+1 { // two are no range
			list, to = append(list, write(from, from)), from
		} else {
			list = append(list, write(from, to))
		}
		from = to
	}
	return list
}

// weekday is the only day of some, if that is a weekday.
func weekday(days []string) (time.Weekday, bool) {
	if len(days) != 1 {
		return 0, false
	}
	for d := time.Sunday; d <= time.Saturday; d++ {
		if days[0] == d.String()[:3] {
			return d, true
		}
	}
	return 0, false
}

func clock(m minute) string { return fmt.Sprintf("%02d:%02d", m/60, m%60) }

// hours are a length in words: 12h, 30m, 2h30m.
func hours(m minute) string {
	switch h := m / 60; {
	case m%60 == 0:
		return fmt.Sprintf("%dh", h)
	case h == 0:
		return fmt.Sprintf("%dm", m)
	default:
		return fmt.Sprintf("%dh%dm", h, m%60)
	}
}

func floorDiv(a, b int64) int64 {
	if a%b < 0 {
		return a/b - 1
	}
	return a / b
}

// merge joins windows of the same replicas that overlap, in order, and drops those without a minute. Those that only touch stay apart, as their author wrote them.
func merge(windows []window) []window {
	slices.SortStableFunc(windows, func(a, b window) int { return int(a.from - b.from) })
	var list []window
	for _, w := range windows {
		if w.from >= w.to {
			continue
		}
		if n := len(list); n > 0 && list[n-1].replicas == w.replicas && w.from < list[n-1].to {
			list[n-1].to = max(list[n-1].to, w.to)
			continue
		}
		list = append(list, w)
	}
	return list
}
