package calendar

import (
	"cmp"
	"time"
)

// date is a day of the calendar, of no zone.
type date struct {
	year  int
	month time.Month
	day   int
}

func dateOf(t time.Time) date {
	year, month, day := t.Date()
	return date{year, month, day}
}

func (d date) midnightUTC() time.Time { return time.Date(d.year, d.month, d.day, 0, 0, 0, 0, time.UTC) }

func (d date) add(days int) date { return dateOf(d.midnightUTC().AddDate(0, 0, days)) }

func (d date) weekday() time.Weekday { return d.midnightUTC().Weekday() }

func (d date) compare(other date) int {
	return cmp.Or(cmp.Compare(d.year, other.year), cmp.Compare(d.month, other.month), cmp.Compare(d.day, other.day))
}

func (d date) before(other date) bool { return d.compare(other) < 0 }

// in is the same day of another year; February 29th of a year without one is March 1st.
func (d date) in(year int) date { return date{year, d.month, d.day}.add(0) }

// monthDay orders the days of any year.
func (d date) monthDay() int { return int(d.month)*100 + d.day }

// occurrence says which instant is meant by a wall-clock time that happens twice.
type occurrence bool

const (
	first occurrence = false
	last  occurrence = true
)

// wall returns the instant at which clocks in zone show the given minutes after midnight of a day; 1440 and more is the
// next day. A time that clocks skip means the instant at which they jump. Package time leaves open which of two
// instants time.Date returns for such times, so both neighbouring offsets are tried.
func wall(zone *time.Location, day date, minutes int, which occurrence) time.Time {
	guess := time.Date(day.year, day.month, day.day, 0, minutes, 0, 0, zone)
	start, end := guess.ZoneBounds()
	shown := day.midnightUTC().Unix() + int64(minutes)*60

	_, current := guess.Zone()
	before, after := current, current
	if !start.IsZero() {
		_, before = start.Add(-time.Second).Zone()
	}
	if !end.IsZero() {
		_, after = end.Zone()
	}
	found := time.Time{}
	// In the order of time: an earlier offset's instant comes first where a time happens twice.
	for _, offset := range [3]int{before, current, after} {
		instant := time.Unix(shown-int64(offset), 0).In(zone)
		if _, actual := instant.Zone(); actual != offset {
			continue // clocks show something else at that instant
		}
		if found.IsZero() || bool(which) && instant.After(found) || !bool(which) && instant.Before(found) {
			found = instant
		}
	}
	if !found.IsZero() {
		return found
	}
	// Skipped. The jump is the transition before which clocks show less, and after which more, than this.
	if !start.IsZero() && start.Unix()+int64(before) <= shown && shown < start.Unix()+int64(current) {
		return start
	}
	return end
}
