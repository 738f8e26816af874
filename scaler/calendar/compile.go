package calendar

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxLead bounds lead times, so that a period can only reach into the day before it.
const maxLead = 24 * time.Hour

const minutesOfDay = 24 * 60

// New compiles a calendar; path is where it stands in its policy, for the errors. A nil spec has no periods. No limits of
// the calendar go beyond maxReplicas.
func New(spec *Spec, maxReplicas int32, path *field.Path) (*Calendar, field.ErrorList) {
	c := &Calendar{zone: time.UTC, ceiling: maxReplicas, base: Limits{Period: DefaultPeriod, MaxReplicas: maxReplicas}}
	if spec == nil {
		return c, nil
	}
	var errs field.ErrorList
	zone, err := LoadZone(spec.TimeZone)
	if err != nil {
		errs = append(errs, field.Invalid(path.Child("timeZone"), spec.TimeZone, err.Error()))
	} else {
		c.zone = zone
	}
	errs = append(errs, c.checkLimits(spec.Default, path.Child("default"))...)
	c.base = c.limits(DefaultPeriod, spec.Default)

	byName := map[string]Bounds{}
	for i := range spec.Periods {
		at := path.Child("periods").Index(i)
		p, more := compilePeriod(&spec.Periods[i], at)
		errs = append(errs, more...)
		errs = append(errs, c.checkLimits(p.limits, at.Child("limits"))...)
		if _, twice := byName[p.name]; twice {
			errs = append(errs, field.Duplicate(at.Child("name"), p.name))
		}
		byName[p.name] = p.limits
		c.periods = append(c.periods, p)
	}
	for i := range spec.Exceptions {
		at := path.Child("exceptions").Index(i)
		e, more := compileException(&spec.Exceptions[i], byName, at)
		errs = append(errs, more...)
		errs = append(errs, c.checkLimits(e.limits, at.Child("limits"))...)
		c.exceptions = append(c.exceptions, e)
	}
	if h := spec.Holidays; h != nil {
		at := path.Child("holidays")
		c.holidays = h.Days
		limits, more := limitsOf(h.Use, h.Bounds, byName, at)
		errs = append(errs, more...)
		errs = append(errs, c.checkLimits(limits, at.Child("limits"))...)
		c.onHoliday = limits
	}
	if len(errs) == 0 {
		errs = c.checkOverlaps(path.Child("periods"))
	}
	return c, errs
}

// LoadZone returns an IANA time zone; no name means UTC.
func LoadZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, errors.New("must be an IANA time zone such as Europe/Prague")
	}
	return zone, nil
}

// checkLimits returns what is wrong with bounds and what they take from the default.
func (c *Calendar) checkLimits(b Bounds, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, bound := range []struct {
		name  string
		value *int32
	}{{"minReplicas", b.MinReplicas}, {"idleReplicas", b.IdleReplicas}, {"maxReplicas", b.MaxReplicas}} {
		if bound.value != nil && *bound.value < 0 {
			errs = append(errs, field.Invalid(path.Child(bound.name), *bound.value, "must not be negative"))
		}
	}
	l := c.limits("", b)
	if len(errs) > 0 || l.MinReplicas <= l.MaxReplicas {
		return errs
	}
	limit := "maxReplicas"
	switch {
	case l.MaxReplicas == c.ceiling:
		limit = "target.maxReplicas"
	case b.MaxReplicas == nil:
		limit = "default.maxReplicas, as no maxReplicas is stated here: state one"
	}
	floor := ""
	if b.MinReplicas == nil {
		floor = "; the floor is default.minReplicas, as no minReplicas is stated here: state one"
	}
	return append(errs, field.Invalid(path.Child("minReplicas"), l.MinReplicas,
		fmt.Sprintf("the floor must not exceed the cap of %d, which is %s%s", l.MaxReplicas, limit, floor)))
}

// checkOverlaps rejects two periods that overlap when the floor of one exceeds the cap of the other.
func (c *Calendar) checkOverlaps(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range c.periods {
		for j := range c.periods {
			floor, limit := c.limits("", c.periods[i].limits), c.limits("", c.periods[j].limits)
			if i == j || floor.MinReplicas <= limit.MaxReplicas || !c.overlap(&c.periods[i], &c.periods[j]) {
				continue
			}
			errs = append(errs, field.Invalid(path.Index(i).Child("limits", "minReplicas"), floor.MinReplicas, fmt.Sprintf(
				"period %q overlaps %q, whose cap is %d: a floor above the cap can't be kept; end one before the other "+
					"starts, or lower the floor", c.periods[i].name, c.periods[j].name, limit.MaxReplicas)))
		}
	}
	return errs
}

// overlap reports whether two periods are ever in force together, by the wall clock of days without clock changes.
func (c *Calendar) overlap(a, b *period) bool {
	from, length := date{2024, time.January, 1}, 14
	if len(a.days.monthly)+len(b.days.monthly) > 0 {
		length = 28 * 366 // after 28 years the weekdays of dates repeat
	}
	for i := range length {
		day := from.add(i)
		if !a.days.include(day, c.holidays) {
			continue
		}
		for offset := -2; offset <= 2; offset++ {
			shift := offset * minutesOfDay
			if b.days.include(day.add(offset), c.holidays) &&
				a.from-leadMinutes(a) < b.to+shift && b.from-leadMinutes(b)+shift < a.to {
				return true
			}
		}
	}
	return false
}

func leadMinutes(p *period) int { return int(p.lead / time.Minute) }

func compilePeriod(spec *Period, path *field.Path) (period, field.ErrorList) {
	var errs field.ErrorList
	p := period{name: spec.Name, limits: spec.Bounds}
	if spec.Name == "" || spec.Name == DefaultPeriod {
		errs = append(errs, field.Invalid(path.Child("name"), spec.Name, "must be a name, and not \"default\""))
	}
	var err error
	if p.days, err = parseDays(spec.Days); err != nil {
		errs = append(errs, field.Invalid(path.Child("days"), strings.Join(spec.Days, ", "), err.Error()))
	}
	if p.from, err = parseClock(spec.From, 0, minutesOfDay-1); err != nil {
		errs = append(errs, field.Invalid(path.Child("from"), spec.From, "must be a time HH:MM from 00:00 to 23:59"))
	}
	if p.to, err = parseClock(spec.To, minutesOfDay, minutesOfDay); err != nil {
		errs = append(errs, field.Invalid(path.Child("to"), spec.To, "must be a time HH:MM from 00:00 to 24:00"))
	}
	switch {
	case p.to == p.from:
		errs = append(errs, field.Invalid(path.Child("to"), spec.To,
			"must differ from from; for whole days write from 00:00 to 24:00"))
	case p.to < p.from:
		p.to += minutesOfDay
	}
	if p.lead = spec.LeadTime; p.lead < 0 || p.lead > maxLead {
		errs = append(errs, field.Invalid(path.Child("leadTime"), p.lead.String(), "must be from 0s to 24h"))
	}
	return p, errs
}

func compileException(
	spec *Exception, periods map[string]Bounds, path *field.Path,
) (exception, field.ErrorList) {
	var errs field.ErrorList
	e := exception{name: spec.Name}
	if spec.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), "name the exception"))
	}
	const form = "must be a date: 2026-12-24, or 12-24 for every year"
	var err error
	if e.from, e.yearly, err = parseDate(spec.From); err != nil {
		errs = append(errs, field.Invalid(path.Child("from"), spec.From, form))
	}
	e.to = e.from
	if spec.To != "" {
		var yearly bool
		if e.to, yearly, err = parseDate(spec.To); err != nil {
			errs = append(errs, field.Invalid(path.Child("to"), spec.To, form))
		} else if yearly != e.yearly {
			errs = append(errs, field.Invalid(path.Child("to"), spec.To, "from and to must both have a year, or neither"))
		} else if !e.yearly && e.to.before(e.from) {
			errs = append(errs, field.Invalid(path.Child("to"), spec.To, "must not be before from, "+spec.From))
		}
	}
	var more field.ErrorList
	e.limits, more = limitsOf(spec.Use, spec.Bounds, periods, path)
	return e, append(errs, more...)
}

// limitsOf are the limits that hold on a special day: those of the period that use names, or its own.
func limitsOf(
	use string, own *Bounds, periods map[string]Bounds, path *field.Path,
) (Bounds, field.ErrorList) {
	limits, known := periods[use]
	switch {
	case (use == "") == (own == nil):
		return limits, field.ErrorList{field.Invalid(path.Child("use"), use, "set either use or limits")}
	case own != nil:
		return *own, nil
	case !known && use != DefaultPeriod:
		names := slices.Sorted(maps.Keys(periods))
		return limits, field.ErrorList{field.NotSupported(path.Child("use"), use, append(names, DefaultPeriod))}
	}
	return limits, nil
}

// parseClock reads HH:MM as minutes after midnight, at most limit.
func parseClock(text string, unset, limit int) (int, error) {
	if text == "" {
		return unset, nil
	}
	hours, minutes, ok := strings.Cut(text, ":")
	h, errH := strconv.ParseUint(hours, 10, 8)
	m, errM := strconv.ParseUint(minutes, 10, 8)
	total := int(h)*60 + int(m)
	if !ok || errH != nil || errM != nil || len(hours) != 2 || len(minutes) != 2 || m > 59 || total > limit {
		return unset, fmt.Errorf("%q is not a time", text)
	}
	return total, nil
}

// parseDate reads a date with or without a year. Without one the year is a leap year, so that 02-29 is legal.
func parseDate(text string) (day date, yearly bool, err error) {
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return dateOf(t), false, nil
	}
	t, err := time.Parse(time.DateOnly, "2000-"+text)
	return dateOf(t), true, err
}
