package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// zones skip or double midnight, are odd minutes from UTC, skipped a day, or are those of many users.
var zones = []string{
	"UTC", "Europe/Prague", "America/New_York", "Asia/Kolkata", "Australia/Sydney", // common
	"America/Sao_Paulo", "America/Asuncion", "America/Havana", "America/Santiago", "Asia/Beirut", "Asia/Tehran", "Asia/Amman", "Africa/Cairo",
	"Atlantic/Azores", "America/Scoresbysund", // midnight skipped or doubled
	"America/St_Johns", "Asia/Kathmandu", "Pacific/Chatham", "Australia/Lord_Howe", // odd minutes
	"Pacific/Apia", "Pacific/Kiritimati", "Pacific/Kwajalein", "Antarctica/Troll", // far away
}

// years in which events start.
const firstYear, lastYear = 1991, 2034

const daySeconds = 24 * 60 * 60

// random makes one file. Times are those that clocks show, held in UTC.
type random struct {
	*rand.Rand
	own   string // zone of the calendar
	zone  string // of the event; empty: it has none
	form  string // of its times
	start time.Time
	to    time.Time // last date that is compared
}

const dateForm, floatingForm, utcForm = "20060102", "20060102T150405", "20060102T150405Z"

// generate makes a case of a seed, always the same.
func generate(seed uint64) testCase {
	r := &random{Rand: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // cases, no secrets
	r.own = pick(r, zones)
	r.form = floatingForm
	switch n := r.IntN(20); {
	case n < 7:
		r.form = dateForm
	case n < 9:
		r.form = utcForm
	case n < 12: // floating
	case n < 16:
		r.zone = r.own
	default:
		r.zone = pick(r, zones)
	}
	r.start = r.someStart()
	c := testCase{Zone: r.own, From: r.start.AddDate(0, 0, -60).Format(time.DateOnly)}
	event := []string{"UID:1", "SUMMARY:Case", r.property("DTSTART", r.start)}
	event = append(event, r.end(r.start)...)
	r.to = r.start.AddDate(2, 0, 0)
	if r.chance(80) {
		event = append(event, r.rules()...)
	}
	c.To = r.to.Format(time.DateOnly)
	event = append(event, r.additions()...)
	// What is left out and changed is mostly what takes place.
	c.ICS = r.file(c, event)
	taking := []time.Time{r.start}
	if dates, err := read(c); err == nil {
		for _, date := range dates {
			if t, err := time.Parse(time.DateOnly, date); err == nil {
				taking = append(taking, t.Add(r.start.Sub(r.start.Truncate(daySeconds*time.Second))))
			}
		}
	}
	events := [][]string{append(event, r.exclusions(taking)...)}
	if r.chance(30) {
		events = append(events, r.change(taking))
	}
	if r.chance(20) { // the order of a file means nothing
		slices.Reverse(events)
	}
	c.ICS = r.file(c, events...)
	return c
}

func pick[T any](r *random, list []T) T { return list[r.IntN(len(list))] }

func (r *random) chance(percent int) bool { return r.IntN(100) < percent }

func (r *random) file(c testCase, events ...[]string) string {
	lines := []string{"BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//fuzz//EN", fmt.Sprintf("X-FUZZ:%s %s %s", c.Zone, c.From, c.To)}
	for _, event := range events {
		lines = append(append(append(lines, "BEGIN:VEVENT"), event...), "END:VEVENT")
	}
	return strings.Join(append(lines, "END:VCALENDAR", ""), "\r\n")
}

// someStart is often near a clock change, and near midnight.
func (r *random) someStart() time.Time {
	day := time.Date(firstYear+r.IntN(lastYear-firstYear+1), 1, 1+r.IntN(365), 0, 0, 0, 0, time.UTC)
	if r.chance(50) {
		name := r.zone
		if name == "" {
			name = r.own
		}
		if zone, err := calendar.LoadZone(name); err == nil {
			if _, change := day.In(zone).ZoneBounds(); !change.IsZero() && change.Year() <= lastYear {
				change = change.In(zone)
				day = time.Date(change.Year(), change.Month(), change.Day()-r.IntN(4), 0, 0, 0, 0, time.UTC)
			}
		}
	}
	if r.form == dateForm {
		return day
	}
	return day.Add(r.someTime())
}

func (r *random) someTime() time.Duration {
	return pick(r, []time.Duration{
		0, 0, 30 * time.Minute, time.Hour, 150 * time.Minute, 8 * time.Hour, 23 * time.Hour, 23*time.Hour + 30*time.Minute, daySeconds*time.Second - time.Second,
		time.Duration(r.IntN(24*60)) * time.Minute,
	})
}

// property writes a time of the event's form.
func (r *random) property(name string, times ...time.Time) string {
	texts := make([]string, len(times))
	for i, t := range times {
		texts[i] = t.Format(r.form)
	}
	switch {
	case r.form == dateForm:
		name += ";VALUE=DATE"
	case r.zone != "":
		name += ";TZID=" + r.zone
	}
	return name + ":" + strings.Join(texts, ",")
}

// instant is when the event's clock shows a time.
func (r *random) instant(shown time.Time) time.Time {
	name := r.zone
	if r.form == utcForm {
		name = "UTC"
	} else if name == "" {
		name = r.own
	}
	zone, err := calendar.LoadZone(name)
	if err != nil {
		panic(err) // one of zones
	}
	return calendar.ReadClock(zone, shown).Time
}

// end is DTEND, DURATION or neither.
func (r *random) end(start time.Time) []string {
	hours := time.Duration(r.IntN(80)) * time.Hour
	switch n := r.IntN(10); {
	case n < 2:
		return nil
	case n < 5 && r.form == dateForm:
		return []string{r.property("DTEND", start.AddDate(0, 0, r.IntN(5)))}
	case n < 5:
		return []string{r.property("DTEND", start.Add(hours+pick(r, []time.Duration{0, time.Minute, 30 * time.Minute, daySeconds * time.Second})))}
	case n < 6 && r.form != dateForm: // far enough for any two zones
		return []string{fmt.Sprintf("DTEND;TZID=%s:%s", pick(r, zones), start.Add(hours+27*time.Hour).Format(floatingForm))}
	case r.form == dateForm:
		return []string{"DURATION:" + pick(r, []string{"P1D", "P2D", "P1W", "PT24H", "P3DT0H"})}
	default:
		return []string{"DURATION:" + pick(r, []string{
			"P1D", "PT24H", "PT1H", "PT30M", "P1W", "PT36H", "P1DT2H", "PT1S", "PT0S", fmt.Sprintf("PT%dM", r.IntN(4000)), fmt.Sprintf("PT%dH", r.IntN(60)),
		})}
	}
}

// rules are an RRULE, two, or one with an EXRULE.
func (r *random) rules() []string {
	count := r.chance(30)
	rules := []string{"RRULE:" + r.rule(count)}
	switch {
	case !count && r.chance(8): // COUNT counts the start for one rule
		rules = append(rules, "RRULE:"+r.rule(false))
	case r.chance(6):
		rules = append(rules, "EXRULE:"+r.rule(false))
	}
	return rules
}

func (r *random) rule(count bool) string {
	frequency := pick(r, []string{"DAILY", "WEEKLY", "MONTHLY", "YEARLY"})
	parts := []string{"FREQ=" + frequency}
	add := func(name string, values ...string) { parts = append(parts, name+"="+strings.Join(values, ",")) }
	numbers := func(name string, least, most int, negative bool) {
		list := make([]string, 1+r.IntN(4))
		for i := range list {
			n := least + r.IntN(most-least+1)
			if negative && r.chance(35) {
				n = -n
			}
			list[i] = fmt.Sprint(n)
		}
		add(name, list...)
	}
	days := func(most int) {
		list := make([]string, 1+r.IntN(4))
		for i := range list {
			list[i] = pick(r, []string{"MO", "TU", "WE", "TH", "FR", "SA", "SU"})
			if most > 0 && r.chance(60) {
				n := 1 + r.IntN(most)
				if r.chance(40) {
					n = -n
				}
				list[i] = fmt.Sprint(n) + list[i]
			}
		}
		add("BYDAY", list...)
	}
	yearly, lateWeek := frequency == "YEARLY", false
	weeks := yearly && r.chance(20)
	easter := yearly && !weeks && r.chance(10)
	if yearly {
		r.to = r.start.AddDate(10, 0, 0)
	}
	if r.chance(30) {
		add("INTERVAL", fmt.Sprint(1+r.IntN(4)))
	}
	if r.chance(40) {
		add("WKST", pick(r, []string{"MO", "TU", "SU", "SA", "TH"}))
	}
	plain := len(parts)
	if r.chance(30) {
		numbers("BYMONTH", 1, 12, false)
	}
	switch {
	case weeks: // of weeks from the end, dateutil knows those of the year itself
		list := make([]string, 1+r.IntN(3))
		for i := range list {
			list[i] = pick(r, []string{fmt.Sprint(1 + r.IntN(53)), fmt.Sprint(-1 - r.IntN(40)), "1", "53", "-1"})
			lateWeek = lateWeek || list[i] == "52" || list[i] == "53"
		}
		add("BYWEEKNO", list...)
	case yearly && r.chance(15):
		numbers("BYYEARDAY", 1, 366, true)
	}
	if easter {
		add("BYEASTER", fmt.Sprint(r.IntN(110)-50))
	}
	if frequency != "WEEKLY" && r.chance(30) {
		numbers("BYMONTHDAY", 1, 31, true)
	}
	if r.chance(40) {
		most := 0
		switch {
		case frequency == "MONTHLY":
			most = 5
		case yearly && !weeks && len(parts) > plain && strings.HasPrefix(parts[plain], "BYMONTH="):
			most = 5 // dateutil fails at the 6th of a month
		case yearly && !weeks:
			most = pick(r, []int{5, 53})
		}
		days(most)
	}
	if r.form != dateForm && r.chance(15) {
		numbers("BYHOUR", 0, 23, false)
	}
	if r.form != dateForm && r.chance(10) {
		numbers("BYMINUTE", 0, 59, false)
	}
	if len(parts) > plain && !lateWeek && r.chance(25) {
		numbers("BYSETPOS", 1, 5, true)
	}
	switch {
	case count:
		add("COUNT", fmt.Sprint(1+r.IntN(40)))
	case r.chance(50) || frequency == "DAILY" && r.chance(80): // daily for a century is more than is worked out
		add("UNTIL", r.until())
	}
	return strings.Join(parts, ";")
}

func (r *random) until() string {
	at := r.start.AddDate(0, 0, r.IntN(700))
	switch {
	case r.form == dateForm, r.chance(20):
		return at.Format(dateForm)
	case r.chance(30):
		at = at.Add(r.someTime())
	}
	if r.form == floatingForm && r.zone == "" || r.chance(15) && r.form != utcForm {
		return at.Format(floatingForm)
	}
	return r.instant(at).UTC().Format(utcForm)
}

// additions are RDATEs: of the event's form, of another zone, in UTC, a date, a period.
func (r *random) additions() []string {
	if !r.chance(20) {
		return nil
	}
	at := r.start.AddDate(0, 0, r.IntN(200))
	switch n := r.IntN(10); {
	case n < 5 || r.form == dateForm:
		return []string{r.property("RDATE", at, at.AddDate(0, 0, 1+r.IntN(30)))}
	case n < 6:
		return []string{"RDATE;VALUE=DATE:" + at.Format(dateForm)}
	case n < 7:
		return []string{fmt.Sprintf("RDATE;TZID=%s:%s", pick(r, zones), at.Add(r.someTime()).Format(floatingForm))}
	case n < 8:
		return []string{"RDATE:" + at.Add(r.someTime()).Format(utcForm)}
	default:
		end := pick(r, []string{"PT5H30M", "P2D", at.Add(50 * time.Hour).Format(r.form)})
		return []string{r.property("RDATE;VALUE=PERIOD", at) + "/" + end}
	}
}

// exclusions are EXDATEs, mostly of occurrences.
func (r *random) exclusions(taking []time.Time) []string {
	if !r.chance(30) {
		return nil
	}
	at := pick(r, taking)
	switch n := r.IntN(10); {
	case n < 5:
		return []string{r.property("EXDATE", at, pick(r, taking))}
	case n < 6 && r.form != dateForm: // of no occurrence
		return []string{r.property("EXDATE", at.Add(time.Minute))}
	case n < 8 && r.form != dateForm:
		return []string{"EXDATE:" + r.instant(at).UTC().Format(utcForm)}
	default:
		return []string{"EXDATE;VALUE=DATE:" + at.Format(dateForm)}
	}
}

// change is an event that takes the place of an occurrence, or of all from one on.
func (r *random) change(taking []time.Time) []string {
	at := pick(r, taking)
	id := r.property("RECURRENCE-ID", at)
	switch {
	case r.chance(40):
		id = strings.Replace(id, "RECURRENCE-ID", "RECURRENCE-ID;RANGE=THISANDFUTURE", 1)
	case r.form != dateForm && r.chance(30):
		id = "RECURRENCE-ID:" + r.instant(at).UTC().Format(utcForm)
	}
	moved := at.AddDate(0, 0, r.IntN(9)-4)
	if r.form != dateForm && r.chance(50) {
		moved = moved.Truncate(daySeconds * time.Second).Add(r.someTime())
	}
	change := append([]string{"UID:1", "SUMMARY:Change", id, r.property("DTSTART", moved)}, r.end(moved)...)
	if r.chance(25) {
		change = append(change, "STATUS:CANCELLED")
	}
	return change
}
