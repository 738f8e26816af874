package calendar

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	ical "github.com/arran4/golang-ical"
	"github.com/teambition/rrule-go"
)

const (
	// lastHolidayYear is how far recurring holidays are worked out.
	lastHolidayYear = 2100
	// maxHolidays bounds what a file can make of a few bytes: a daily recurrence, say.
	maxHolidays = 50_000
)

// Holidays are dates with names.
type Holidays struct{ names map[date]string }

// on returns what a limit on a day is called if it is a holiday.
func (h *Holidays) on(day date) (string, bool) {
	if h == nil {
		return "", false
	}
	name, is := h.names[day]
	return name, is
}

// Is reports whether the local date of an instant is a holiday.
func (h *Holidays) Is(t time.Time) bool {
	_, is := h.on(dateOf(t))
	return is
}

// Len is the number of dates.
func (h *Holidays) Len() int { return len(h.names) }

// ParseHolidays reads an iCalendar file (RFC 5545). Every date in zone that an event touches is a holiday, recurrences
// (RRULE, RDATE, EXDATE) until the year 2100 included; cancelled events are left out. An event that can't be understood
// is an error that names it: a holiday must not vanish.
func ParseHolidays(ics string, zone *time.Location) (*Holidays, error) {
	file, err := ical.ParseCalendar(strings.NewReader(ics))
	if err != nil {
		return nil, fmt.Errorf("not an iCalendar file: %w", err)
	}
	events := file.Events()
	if len(events) == 0 {
		return nil, errors.New("the iCalendar file holds no event (VEVENT)")
	}
	h := &Holidays{names: map[date]string{}}
	for i, event := range events {
		summary := "holiday"
		if p := event.GetProperty(ical.ComponentPropertySummary); p != nil && p.Value != "" {
			summary = "holiday: " + p.Value
		}
		if err := h.add(event, summary, zone); err != nil {
			return nil, fmt.Errorf("event %d (%s): %w", i+1, summary, err)
		}
		if len(h.names) > maxHolidays {
			return nil, fmt.Errorf("event %d (%s): more than %d holidays", i+1, summary, maxHolidays)
		}
	}
	return h, nil
}

func (h *Holidays) add(event *ical.VEvent, name string, zone *time.Location) error {
	if p := event.GetProperty(ical.ComponentPropertyStatus); p != nil && p.Value == string(ical.ObjectStatusCancelled) {
		return nil
	}
	if p := event.GetProperty(ical.ComponentPropertyDtStart); p != nil && len(p.Value) == len("20261224") {
		zone = time.UTC // dates are dates in every zone, and have no clock changes
	}
	start, end, err := eventTimes(event, zone)
	if err != nil {
		return err
	}
	length := end.Sub(start)
	var set rrule.Set
	set.DTStart(start)
	recurs := false
	for _, property := range event.Properties {
		var err error
		switch ical.ComponentProperty(property.IANAToken) {
		case ical.ComponentPropertyRrule:
			recurs = true
			err = addRule(&set, property.Value, start)
		case ical.ComponentPropertyRdate:
			err = eachTime(property, zone, set.RDate)
		case ical.ComponentPropertyExdate:
			err = eachTime(property, zone, set.ExDate)
		}
		if err != nil {
			return err
		}
	}
	if !recurs { // DTSTART is the first occurrence, with or without others
		set.RDate(start)
	}
	until := time.Date(lastHolidayYear, 1, 1, 0, 0, 0, 0, zone)
	next := set.Iterator()
	for at, ok := next(); ok && at.Before(until) && len(h.names) <= maxHolidays; at, ok = next() {
		last := at.Add(length)
		for day := dateOf(at.In(zone)); wall(zone, day, 0, first).Before(last); day = day.add(1) {
			if _, named := h.names[day]; !named {
				h.names[day] = name
			}
		}
	}
	return nil
}

// eventTimes are an event's start and end. Without an end a date lasts a day, and a time counts for its date.
func eventTimes(event *ical.VEvent, zone *time.Location) (start, end time.Time, err error) {
	property := event.GetProperty(ical.ComponentPropertyDtStart)
	if property == nil {
		return start, end, errors.New("DTSTART is missing")
	}
	var wholeDay bool
	if start, wholeDay, err = parseTime(property.BaseProperty, property.Value, zone); err != nil {
		return start, end, fmt.Errorf("DTSTART: %w", err)
	}
	end = start.Add(time.Second)
	if wholeDay {
		end = start.AddDate(0, 0, 1)
	}
	if property := event.GetProperty(ical.ComponentPropertyDtEnd); property != nil {
		if end, _, err = parseTime(property.BaseProperty, property.Value, zone); err != nil {
			return start, end, fmt.Errorf("DTEND: %w", err)
		}
	} else if property := event.GetProperty(ical.ComponentPropertyDuration); property != nil {
		duration, err := parseDuration(property.Value)
		if err != nil {
			return start, end, err
		}
		end = start.Add(duration)
	}
	if !start.Before(end) {
		return start, end, errors.New("it ends before it starts")
	}
	return start, end, nil
}

var durationForm = regexp.MustCompile(`^P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$`)

func parseDuration(text string) (time.Duration, error) {
	match := durationForm.FindStringSubmatch(text)
	if match == nil {
		return 0, fmt.Errorf("DURATION %q: must look like P1D or PT8H", text)
	}
	var total time.Duration
	for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if n, err := strconv.Atoi(match[i+1]); err == nil {
			total += time.Duration(n) * unit
		}
	}
	return total, nil
}

func addRule(set *rrule.Set, text string, start time.Time) error {
	option, err := rrule.StrToROptionInLocation(text, start.Location())
	if err != nil {
		return fmt.Errorf("RRULE %q: %w", text, err)
	}
	if option.Freq > rrule.DAILY {
		return fmt.Errorf("RRULE %q: FREQ must be DAILY, WEEKLY, MONTHLY or YEARLY", text)
	}
	option.Dtstart = start
	rule, err := rrule.NewRRule(*option)
	if err != nil {
		return fmt.Errorf("RRULE %q: %w", text, err)
	}
	set.RRule(rule)
	return nil
}

func eachTime(property ical.IANAProperty, zone *time.Location, add func(time.Time)) error {
	for _, text := range strings.Split(property.Value, ",") {
		at, _, err := parseTime(property.BaseProperty, text, zone)
		if err != nil {
			return fmt.Errorf("%s: %w", property.IANAToken, err)
		}
		add(at)
	}
	return nil
}

// parseTime reads a date (20261224), a UTC time (20261224T080000Z) or a local time, which is in the property's TZID.
func parseTime(property ical.BaseProperty, text string, zone *time.Location) (at time.Time, wholeDay bool, err error) {
	if names := property.ICalParameters["TZID"]; len(names) == 1 {
		if zone, err = LoadZone(names[0]); err != nil {
			return at, false, fmt.Errorf("TZID %q %w", names[0], err)
		}
	}
	if at, err = time.ParseInLocation("20060102", text, zone); err == nil {
		return at, true, nil
	}
	if at, err = time.Parse("20060102T150405Z", text); err == nil {
		return at, false, nil
	}
	if at, err = time.ParseInLocation("20060102T150405", text, zone); err == nil {
		return at, false, nil
	}
	return at, false, fmt.Errorf("%q is neither a date (20261224) nor a time (20261224T080000Z)", text)
}
