package calendar

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// maxLead bounds lead times, so that a period can only reach into the day before it.
	maxLead = 24 * time.Hour
	// maxDaysLater bounds how many days after its start a period may end.
	maxDaysLater = 31

	maxPeriods, maxExceptions, maxHours, maxFiles = 64, 128, 16, 16
	// maxConflicts is how many periods that can't be together are told.
	maxConflicts = 10
)

const minutesOfDay = 24 * 60

// New compiles a calendar; path is where it stands in its policy, for the errors. A nil spec has no periods. No limits of
// the calendar go beyond maxReplicas.
func New(spec *Spec, maxReplicas int32, path *field.Path) (*Calendar, field.ErrorList) {
	c := &Calendar{zone: time.UTC, ceiling: maxReplicas, base: Limits{Period: DefaultPeriod, MaxReplicas: maxReplicas}}
	if spec == nil {
		return c, nil
	}
	var errs field.ErrorList
	for _, list := range []struct {
		name      string
		size, max int
	}{{"periods", len(spec.Periods), maxPeriods}, {"exceptions", len(spec.Exceptions), maxExceptions}, {"holidays", len(spec.Holidays), maxFiles}} {
		if list.size > list.max {
			return c, append(errs, field.TooMany(path.Child(list.name), list.size, list.max))
		}
	}
	zone, err := LoadZone(spec.TimeZone)
	if err != nil {
		errs = append(errs, field.Invalid(path.Child("timeZone"), spec.TimeZone, err.Error()))
	} else {
		c.zone = zone
	}
	errs = append(errs, c.parseWeekend(spec.Weekend, path.Child("weekend"))...)
	errs = append(errs, c.checkLimits(spec.Default, path.Child("default"))...)
	c.base = c.limits(DefaultPeriod, spec.Default)

	byName := map[string]Bounds{DefaultPeriod: {}}
	for i := range spec.Periods {
		at := path.Child("periods").Index(i)
		p, more := c.compilePeriod(&spec.Periods[i], at)
		errs = append(errs, more...)
		if _, twice := byName[p.limits.Period]; twice && p.limits.Period != DefaultPeriod {
			errs = append(errs, field.Duplicate(at.Child("name"), p.limits.Period))
		}
		byName[p.limits.Period] = spec.Periods[i].Bounds
		c.periods = append(c.periods, p)
	}
	for i := range spec.Exceptions {
		at := path.Child("exceptions").Index(i)
		e, more := c.compileException(&spec.Exceptions[i], byName, at)
		errs = append(errs, more...)
		c.exceptions = append(c.exceptions, e)
	}
	for i := range spec.Holidays {
		at := path.Child("holidays")
		if i > 0 {
			at = path.Child("additionalHolidays").Index(i - 1)
		}
		s, more := c.compileSpecial(&spec.Holidays[i].SpecialDay, byName, at)
		errs = append(errs, more...)
		c.holidays = append(c.holidays, holidayRule{spec.Holidays[i].Days, s})
	}
	if len(errs) == 0 {
		errs = append(c.checkHidden(path.Child("exceptions")), c.checkOverlaps(path)...)
	}
	return c, errs
}

func (c *Calendar) parseWeekend(names []string, path *field.Path) field.ErrorList {
	if len(names) == 0 {
		names = []string{"Sat", "Sun"}
	}
	if len(names) > 6 {
		return field.ErrorList{field.TooMany(path, len(names), 6)}
	}
	for i, name := range names {
		weekday, ok := weekdayOf(strings.ToLower(name))
		if !ok {
			return field.ErrorList{field.Invalid(path.Index(i), name, "must be a weekday: Mon, Tue, Wed, Thu, Fri, Sat or Sun")}
		}
		c.weekend[weekday] = true
	}
	return nil
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
	if b.Surplus != "" {
		if _, err := ParseSurplus(b.Surplus); err != nil {
			errs = append(errs, field.Invalid(path.Child("surplus"), b.Surplus, err.Error()))
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

func checkName(name string, path *field.Path) field.ErrorList {
	switch {
	case name == "":
		return field.ErrorList{field.Required(path, "give it a name")}
	case name == DefaultPeriod:
		return field.ErrorList{field.Invalid(path, name, "is the name of what holds outside of all periods")}
	case !isHarmless(name):
		return field.ErrorList{field.Invalid(path, harmless(name), "must be printable characters on one line")}
	}
	return nil
}

func (c *Calendar) compilePeriod(spec *Period, path *field.Path) (period, field.ErrorList) {
	errs := checkName(spec.Name, path.Child("name"))
	errs = append(errs, c.checkLimits(spec.Bounds, path.Child("limits"))...)
	p := period{limits: c.limits(spec.Name, spec.Bounds)}
	var err error
	if p.days, err = parseDays(spec); err != nil {
		errs = append(errs, field.Invalid(path.Child("days"), strings.Join(spec.Days, ", "), err.Error()))
	}
	if err := p.days.parseMonths(spec.Months); err != nil {
		errs = append(errs, field.Invalid(path.Child("months"), strings.Join(spec.Months, ", "), err.Error()))
	}
	if err := p.days.parseWeeks(spec.Weeks); err != nil {
		errs = append(errs, field.Invalid(path.Child("weeks"), spec.Weeks.Every, err.Error()))
	}
	c.business = c.business || slices.ContainsFunc(p.days.monthly, func(m monthDays) bool { return m.kind == nthBusinessDay })
	var more field.ErrorList
	p.hours, more = c.compileHours(&spec.Hours, &p.days, path)
	return p, append(errs, more...)
}

var endForm = regexp.MustCompile(`^(?:([A-Za-z]+) )?([^ +]*)(?: ?\+(\d{1,2}))?$`)

// compileHours reads hours; of says on which days they start, nil for those of special days.
func (c *Calendar) compileHours(spec *Hours, of *days, path *field.Path) (hours, field.ErrorList) {
	var errs field.ErrorList
	h := hours{lead: spec.LeadTime}
	var err error
	if h.from, err = parseClock(spec.From, 0, minutesOfDay-1); err != nil {
		errs = append(errs, field.Invalid(path.Child("from"), spec.From, "must be a time HH:MM from 00:00 to 23:59"))
	}
	const form = `must be a time HH:MM from 00:00 to 24:00; at or before from it is on the next day; "06:00 +2" is two days after the start, ` +
		`"Mon 06:00" the Monday after it`
	m := endForm.FindStringSubmatch(spec.To)
	if m == nil {
		m = []string{"", "", "?", ""}
	}
	if h.to, err = parseClock(m[2], minutesOfDay, minutesOfDay); err != nil || spec.To != "" && m[2] == "" {
		return h, append(errs, field.Invalid(path.Child("to"), spec.To, form))
	}
	later := 0
	switch end, isWeekday := weekdayOf(strings.ToLower(m[1])); {
	case m[1] != "" && (!isWeekday || m[3] != ""):
		errs = append(errs, field.Invalid(path.Child("to"), spec.To, form))
	case m[1] != "":
		var start time.Weekday
		one := false
		if of != nil {
			start, one = of.single()
		}
		if !one {
			errs = append(errs, field.Invalid(path.Child("to"), spec.To, "names a weekday, so days must name one too, and only one"))
		}
		if later = int(end-start+7) % 7; later == 0 && h.to <= h.from {
			later = 7
		}
	case m[3] != "":
		if later, _ = strconv.Atoi(m[3]); later < 1 || later > maxDaysLater {
			errs = append(errs, field.Invalid(path.Child("to"), spec.To, fmt.Sprintf("must be from 1 to %d days later", maxDaysLater)))
		}
	case h.to <= h.from:
		later = 1
	}
	h.to += later * minutesOfDay
	if h.lead < 0 || h.lead > maxLead {
		errs = append(errs, field.Invalid(path.Child("leadTime"), h.lead.String(), "must be from 0s to 24h"))
	}
	if len(errs) == 0 {
		c.reach = max(c.reach, h.to/minutesOfDay)
		c.leads = c.leads || h.lead > 0
	}
	return h, errs
}

func (c *Calendar) compileException(spec *Exception, periods map[string]Bounds, path *field.Path) (exception, field.ErrorList) {
	errs := checkName(spec.Name, path.Child("name"))
	e := exception{}
	if _, _, err := parseDate(spec.From, true); err != nil {
		errs = append(errs, field.Invalid(path.Child("from"), spec.From, err.Error()))
	} else if e.dateRange, err = parseRange(spec.From, spec.To); err != nil {
		errs = append(errs, field.Invalid(path.Child("to"), spec.To, err.Error()))
	}
	var more field.ErrorList
	e.special, more = c.compileSpecial(&spec.SpecialDay, periods, path)
	e.name = spec.Name
	return e, append(errs, more...)
}

func (c *Calendar) compileSpecial(spec *SpecialDay, periods map[string]Bounds, path *field.Path) (special, field.ErrorList) {
	var s special
	var errs field.ErrorList
	set := 0
	if spec.Use != "" || spec.Bounds != nil {
		set++
		bounds, more := c.boundsOf(spec.Use, spec.Bounds, periods, path)
		errs = append(errs, more...)
		limits := c.limits("", bounds)
		s.allDay = &limits
	}
	if spec.SameAs != "" {
		set++
		if s.usual = strings.EqualFold(spec.SameAs, "usual"); !s.usual {
			if s.weekday, s.sameAs = weekdayOf(strings.ToLower(spec.SameAs)); !s.sameAs {
				errs = append(errs, field.Invalid(path.Child("sameAs"), spec.SameAs, "must be a weekday (Fri), or usual"))
			}
		}
	}
	if set > 1 {
		errs = append(errs, field.Invalid(path.Child("use"), spec.Use, "set either use, limits or sameAs"))
	}
	if set == 0 && len(spec.Periods) == 0 {
		errs = append(errs, field.Required(path.Child("use"), "set either use, limits or sameAs, or periods, or one of the first and periods"))
	}
	if len(spec.Periods) > maxHours {
		return s, append(errs, field.TooMany(path.Child("periods"), len(spec.Periods), maxHours))
	}
	for i := range spec.Periods {
		at := path.Child("periods").Index(i)
		h := &spec.Periods[i]
		bounds, more := c.boundsOf(h.Use, h.Bounds, periods, at)
		errs = append(errs, more...)
		hours, more := c.compileHours(&h.Hours, nil, at)
		errs = append(errs, more...)
		s.hours = append(s.hours, period{hours: hours, limits: c.limits("", bounds)})
	}
	return s, errs
}

// boundsOf are those of the period that use names, or other ones.
func (c *Calendar) boundsOf(use string, own *Bounds, periods map[string]Bounds, path *field.Path) (Bounds, field.ErrorList) {
	if (use == "") == (own == nil) {
		return Bounds{}, field.ErrorList{field.Invalid(path.Child("use"), use, "set either use or limits")}
	}
	if own != nil {
		return *own, c.checkLimits(*own, path.Child("limits"))
	}
	bounds, known := periods[use]
	if !known {
		return bounds, field.ErrorList{field.NotSupported(path.Child("use"), use, slices.Sorted(maps.Keys(periods)))}
	}
	return bounds, nil
}

// checkHidden rejects an exception that never holds because earlier ones hold on all of its dates.
func (c *Calendar) checkHidden(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range c.exceptions {
		e := &c.exceptions[i]
		from, to := e.from, e.to
		if e.yearly {
			from, to = dayOf(2000, 1, 1), dayOf(2000, 12, 31) // a leap year
		}
		if to-from > 366 { // every yearly one has come by then
			to = from + 366
		}
		hidden := -1
		for d := from; d <= to; d++ {
			if !e.has(d) {
				continue
			}
			hidden = slices.IndexFunc(c.exceptions[:i], func(other exception) bool { return other.has(d) && (other.yearly || !e.yearly) })
			if hidden < 0 {
				break
			}
		}
		if hidden >= 0 {
			errs = append(errs, field.Invalid(path.Index(i).Child("from"), e.name, fmt.Sprintf(
				"never holds: where exceptions share dates the first in the list holds, and %q comes before; put this one first, or change the dates",
				c.exceptions[hidden].name)))
		}
	}
	return errs
}

// checkOverlaps rejects two periods that overlap when the floor of one exceeds the cap of the other.
func (c *Calendar) checkOverlaps(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	conflict := func(at *field.Path, floor, limit Limits, a, b string) {
		if len(errs) < maxConflicts {
			errs = append(errs, field.Invalid(at, floor.MinReplicas, fmt.Sprintf("%s overlaps %s, whose cap is %d: a floor above the cap can't be kept; "+
				"end one before the other starts, or lower the floor", a, b, limit.MaxReplicas)))
		}
	}
	var starts []dayBits
	for i := range c.periods {
		for j := range c.periods {
			floor, limit := &c.periods[i], &c.periods[j]
			if i == j || floor.limits.MinReplicas <= limit.limits.MaxReplicas {
				continue
			}
			if starts == nil {
				starts = c.startBits()
			}
			if overlap(&floor.hours, &limit.hours, starts[i], starts[j]) {
				conflict(path.Child("periods").Index(i).Child("limits", "minReplicas"), floor.limits, limit.limits,
					fmt.Sprintf("period %q", floor.limits.Period), fmt.Sprintf("%q", limit.limits.Period))
			}
		}
	}
	always := dayBits{^uint64(0), ^uint64(0)}
	check := func(s *special, path *field.Path) {
		for i := range s.hours {
			for j := range s.hours {
				if floor, limit := &s.hours[i], &s.hours[j]; floor.limits.MinReplicas > limit.limits.MaxReplicas &&
					overlap(&floor.hours, &limit.hours, always, always) {
					conflict(path.Child("periods").Index(i).Child("limits", "minReplicas"), floor.limits, limit.limits,
						"it", fmt.Sprintf("periods[%d]", j))
				}
			}
		}
	}
	for i := range c.exceptions {
		check(&c.exceptions[i].special, path.Child("exceptions").Index(i))
	}
	for i := range c.holidays {
		check(&c.holidays[i].special, path.Child("holidays"))
	}
	return errs
}

// dayBits is a set of days, counted from the first of some.
type dayBits []uint64

func (b dayBits) set(n int) { b[n/64] |= 1 << (n % 64) }

// meets reports whether some day of b is that many days before one of other.
func (b dayBits) meets(other dayBits, later int) bool {
	words, shift := later/64, later%64
	if shift < 0 {
		words, shift = words-1, shift+64
	}
	at := func(i int) uint64 {
		if i < 0 || i >= len(other) {
			return 0
		}
		return other[i]
	}
	for i, word := range b {
		shifted := at(i+words) >> shift
		if shift > 0 {
			shifted |= at(i+words+1) << (64 - shift)
		}
		if word&shifted != 0 {
			return true
		}
	}
	return false
}

// overlapYears is over how many years overlaps are looked for: after 28 the weekdays of dates repeat.
const overlapYears = 28

// startBits are the days from 2024 on, on which each period starts and is not replaced.
func (c *Calendar) startBits() []dayBits {
	begin := month{2024, time.January}
	sets := make([]dayBits, len(c.periods))
	for i := range sets {
		sets[i] = make(dayBits, overlapYears*366/64+1)
	}
	p := &planner{c: c}
	for n := range 12 * overlapYears {
		m := begin.add(n)
		offset := int(m.first() - begin.first())
		for d := range m.length() {
			k := p.kind(m.first() + day(d))
			for i := range sets {
				if k.periods>>i&1 == 1 {
					sets[i].set(offset + d)
				}
			}
		}
	}
	return sets
}

// overlap reports whether hours that start on given days are ever in force together, by the wall clock of days without clock
// changes.
func overlap(a, b *hours, startsA, startsB dayBits) bool {
	beginA, beginB := a.from-leadMinutes(a), b.from-leadMinutes(b)
	most := (max(a.to, b.to)+int(maxLead/time.Minute))/minutesOfDay + 1
	for later := -most; later <= most; later++ {
		if shift := later * minutesOfDay; beginA < b.to+shift && beginB+shift < a.to && startsA.meets(startsB, later) {
			return true
		}
	}
	return false
}

func leadMinutes(h *hours) int { return int((h.lead + time.Minute - 1) / time.Minute) }

// parseClock reads HH:MM as minutes after midnight, at most limit.
func parseClock(text string, unset, limit int) (int, error) {
	if text == "" {
		return unset, nil
	}
	h, m, ok := strings.Cut(text, ":")
	hour, errHour := strconv.ParseUint(h, 10, 8)
	minute, errMinute := strconv.ParseUint(m, 10, 8)
	total := int(hour)*60 + int(minute)
	if !ok || errHour != nil || errMinute != nil || len(h) != 2 || len(m) != 2 || minute > 59 || total > limit {
		return unset, fmt.Errorf("%q is not a time", text)
	}
	return total, nil
}
