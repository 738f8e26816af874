package calendar

import (
	"time"
)

// day is a date of no zone, as days since 1970-01-01.
type day int32

const daySeconds = 24 * 60 * 60

// dayOf is a day of the proleptic Gregorian calendar; a day past a month's end is one of the next.
func dayOf(year int, month time.Month, dayOfMonth int) day {
	// Years begin in March here, so that the leap day is their last; 400 of them have 146,097 days.
	m := (int(month) + 9) % 12
	if month < time.March {
		year--
	}
	era := floorDiv(year, 400)
	inEra := year - era*400
	return day(era*146_097 + inEra*365 + inEra/4 - inEra/100 + (153*m+2)/5 + dayOfMonth - 1 - 719_468)
}

func floorDiv(a, b int) int {
	if a%b < 0 {
		return a/b - 1
	}
	return a / b
}

// dayIn is the date that clocks in t's zone show.
func dayIn(t time.Time) day { return dayOf(t.Date()) }

// dayShown is the date of what a clock shows, in seconds of a zone without clock changes.
func dayShown(seconds int64) day {
	return day(floorDiv(int(seconds), daySeconds))
}

func (d day) shown() int64 { return int64(d) * daySeconds }

func (d day) utc() time.Time { return time.Unix(d.shown(), 0).UTC() }

func (d day) civil() (year int, month time.Month, dayOfMonth int) {
	days := int(d) + 719_468 // since March 1st of the year 0
	era := floorDiv(days, 146_097)
	inEra := days - era*146_097
	y := (inEra - inEra/1_460 + inEra/36_524 - inEra/146_096) / 365
	inYear := inEra - (365*y + y/4 - y/100)
	m := (5*inYear + 2) / 153
	year, month, dayOfMonth = era*400+y, time.Month(m+3), inYear-(153*m+2)/5+1
	if m >= 10 {
		year, month = year+1, month-12
	}
	return year, month, dayOfMonth
}

func (d day) weekday() time.Weekday { return time.Weekday(((int(d)+4)%7 + 7) % 7) }

// String is in the form of ISO 8601.
func (d day) String() string { return d.utc().Format(time.DateOnly) }

// month is a year and a month of it.
type month struct {
	year  int
	month time.Month
}

func (m month) first() day { return dayOf(m.year, m.month, 1) }

func (m month) length() int { return int(m.add(1).first() - m.first()) }

func (m month) add(months int) month {
	n := m.year*12 + int(m.month) - 1 + months
	year := floorDiv(n, 12)
	return month{year, time.Month(n - year*12 + 1)}
}

// occurrence says which instant is meant by a wall-clock time that happens twice.
type occurrence bool

const (
	first occurrence = false
	last  occurrence = true
)

// wall returns the instant at which clocks in zone show the given minutes after midnight of a day; 1440 and more is on a later
// day. See wallShown.
func wall(zone *time.Location, d day, minutes int, which occurrence) time.Time {
	return wallShown(zone, d.shown()+int64(minutes)*60, which)
}

// wallShown returns the instant at which clocks in zone show a time, given as seconds of a zone without clock changes. A time
// that clocks skip means the instant at which they jump. Package time leaves open which of two instants time.Date returns for
// such times, so both neighbouring offsets are tried.
func wallShown(zone *time.Location, shown int64, which occurrence) time.Time {
	of := time.Unix(shown, 0).UTC()
	guess := time.Date(of.Year(), of.Month(), of.Day(), of.Hour(), of.Minute(), of.Second(), 0, zone)
	start, end := guess.ZoneBounds()

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
