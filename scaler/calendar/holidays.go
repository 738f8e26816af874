package calendar

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxHolidays is how many dates a file may make of a few bytes: a daily recurrence, say.
	maxHolidays = 50_000
	// fileSteps bounds the work for a file, and eventSteps that for an event of it, so that one can't take the others' away.
	fileSteps, eventSteps, fewSteps = 300_000, 200_000, 2_000
)

// Holidays are dates with names, read of iCalendar files.
type Holidays struct {
	events  []holiday
	byDay   map[day]int // the first of the events on a day
	first   day         // of byDay
	last    day
	skipped []Skipped
}

// holiday is an event with its dates.
type holiday struct {
	name        string // empty: none
	line        int
	categories  []string
	transparent bool
	days        []day
}

// Skipped is an event of a file that is no holiday.
type Skipped struct {
	Line   int    `json:"line"`
	Name   string `json:"name,omitempty"`
	Reason string `json:"reason"`
	// Understood is true where the event says itself that it is none: it is cancelled or superseded, say. Else something in it was
	// not understood.
	Understood bool `json:"understood"`
}

func (s Skipped) String() string {
	if s.Name == "" {
		return fmt.Sprintf("event of line %d: %s", s.Line, s.Reason)
	}
	return fmt.Sprintf("event of line %d (%s): %s", s.Line, s.Name, s.Reason)
}

// Holiday is a date that is one.
type Holiday struct {
	Date string `json:"date"` // 2026-12-24
	Name string `json:"name"`
	Line int    `json:"line"`
}

// List returns the holidays from one date to another, both included and in the form 2026-12-24, in order.
func (h *Holidays) List(from, to string) ([]Holiday, error) {
	begin, err := parseDay(from)
	if err != nil {
		return nil, err
	}
	end, err := parseDay(to)
	if err != nil {
		return nil, err
	}
	list := []Holiday{}
	for _, d := range slices.Sorted(maps.Keys(h.byDay)) {
		if begin <= d && d <= end {
			e := h.events[h.byDay[d]]
			list = append(list, Holiday{d.String(), cmp.Or(e.name, "holiday"), e.line})
		}
	}
	return list, nil
}

// Skipped are the events that are no holidays, by line.
func (h *Holidays) Skipped() []Skipped {
	if h == nil {
		return nil
	}
	return h.skipped
}

// NotUnderstood are those of Skipped in which something was not understood.
func (h *Holidays) NotUnderstood() []Skipped {
	return slices.DeleteFunc(slices.Clone(h.Skipped()), func(s Skipped) bool { return s.Understood })
}

// on returns what a limit on a day is called if it is a holiday.
func (h *Holidays) on(d day) (string, bool) {
	if h == nil {
		return "", false
	}
	i, is := h.byDay[d]
	if !is {
		return "", false
	}
	if name := h.events[i].name; name != "" {
		return "holiday: " + name, true
	}
	return "holiday", true
}

// Is reports whether the local date of an instant is a holiday.
func (h *Holidays) Is(t time.Time) bool {
	_, is := h.on(dayIn(t))
	return is
}

// Len is the number of dates.
func (h *Holidays) Len() int {
	if h == nil {
		return 0
	}
	return len(h.byDay)
}

// Years are the first and the last year with a holiday; zero when there is none.
func (h *Holidays) Years() (from, to int) {
	if h.Len() == 0 {
		return 0, 0
	}
	from, _, _ = h.first.civil()
	to, _, _ = h.last.civil()
	return from, to
}

// Filter chooses events of a file. Fields that are empty choose all; texts are compared without regard to case.
type Filter struct {
	// Categories of which an event must have one.
	Categories []string
	// Summaries of which an event's must contain one.
	Summaries []string
	// Transparency: "Opaque" for events that show as busy, "Transparent" for those that do not.
	Transparency string
}

func (f Filter) matches(e *holiday) bool {
	return (len(f.Categories) == 0 || slices.ContainsFunc(f.Categories, func(wanted string) bool {
		return slices.ContainsFunc(e.categories, func(c string) bool { return strings.EqualFold(c, strings.TrimSpace(wanted)) })
	})) && (len(f.Summaries) == 0 || slices.ContainsFunc(f.Summaries, func(part string) bool {
		return strings.Contains(strings.ToLower(e.name), strings.ToLower(part))
	})) && (f.Transparency == "" || (f.Transparency == "Transparent") == e.transparent)
}

func (f Filter) isEmpty() bool {
	return len(f.Categories) == 0 && len(f.Summaries) == 0 && f.Transparency == ""
}

// Select returns the holidays that only chooses and except does not. An empty except leaves nothing out.
func (h *Holidays) Select(only, except Filter) *Holidays {
	if only.isEmpty() && except.isEmpty() {
		return h
	}
	selected := &Holidays{byDay: map[day]int{}, skipped: h.skipped}
	for _, e := range h.events {
		if only.matches(&e) && (except.isEmpty() || !except.matches(&e)) {
			selected.add(e)
		}
	}
	return selected
}

func (h *Holidays) add(e holiday) {
	for _, d := range e.days {
		if len(h.byDay) == 0 {
			h.first, h.last = d, d
		}
		h.first, h.last = min(h.first, d), max(h.last, d)
		if _, named := h.byDay[d]; !named {
			h.byDay[d] = len(h.events)
		}
	}
	h.events = append(h.events, e)
}

// moment is what DTSTART and the like say: a date, a time in UTC, or a time that clocks show somewhere.
type moment struct {
	shown int64
	date  bool
	utc   bool
}

// parseMoment reads 20261224, 20261224T080000Z or 20261224T080000.
func parseMoment(text string) (moment, error) {
	text = strings.ToUpper(strings.TrimSpace(text))
	local, utc := strings.CutSuffix(text, "Z")
	if leap, ok := strings.CutSuffix(local, "5960"); ok && len(local) == len("20060102T150405") {
		local = leap + "5959" // a leap second
	}
	form := "20060102T150405"
	if len(local) == len("20061224") && !utc {
		form = "20060102"
	}
	at, err := time.Parse(form, local)
	if err != nil {
		return moment{}, fmt.Errorf("%q is neither a date (20261224) nor a time (20261224T080000Z)", harmless(text))
	}
	return moment{at.Unix(), form == "20060102", utc}, nil
}

// event is a VEVENT that was understood.
type event struct {
	holiday
	uid         string
	sequence    int
	cancelled   bool     // by its status
	cancels     bool     // others of its UID, by the file's METHOD
	special     string   // why it is no holiday although it takes place
	left        string   // why it is left out; empty: it is not
	changes     []*event // of its occurrences
	clock       clock
	start       int64 // as its clock shows it
	date        bool  // no time
	length      int64 // seconds, as clocks count them
	rules       []*recurrence
	exRules     []*recurrence
	added       []occurrenceAt
	excluded    exclusions
	replaces    *moment // the occurrence of its UID that it takes the place of
	andFollow   bool    // and all that follow
	replacesIn  clock
	replacesRaw int64
}

// occurrenceAt is one of an event.
type occurrenceAt struct{ start, length int64 }

// exclusions are occurrences that are left out, by date or by time.
type exclusions struct {
	days  map[day]bool
	times map[int64]bool // instants
}

func (e *exclusions) has(shown int64, c clock) bool {
	return e.days[dayShown(shown)] || len(e.times) > 0 && e.times[c.unix(shown)]
}

// ParseHolidays reads an iCalendar file (RFC 5545). Every date in zone that an event touches is a holiday, recurrences until the
// end of the year 2100 included. A file that is not whole is an error that names the line. An event that is not understood is
// skipped whole, and Skipped says why: a holiday neither vanishes without a word nor takes the others away with it.
func ParseHolidays(ics string, zone *time.Location) (*Holidays, error) {
	calendars, err := parseICS(ics)
	if err != nil {
		return nil, err
	}
	p := &parser{zone: zone, budget: &budget{steps: fileSteps}, h: &Holidays{byDay: map[day]int{}}}
	p.clocks = &clocks{own: zone, definitions: map[string]*component{}, found: map[string]clock{}, budget: p.budget}
	found := 0
	var events []*event
	for _, c := range calendars {
		cancels := false
		for _, property := range c.properties {
			switch {
			case property.name == "CALSCALE" && !strings.EqualFold(property.value, "GREGORIAN"):
				return nil, fmt.Errorf("line %d: CALSCALE %s: only GREGORIAN is understood", property.line, harmless(property.value))
			case property.name == "METHOD" && strings.EqualFold(property.value, "CANCEL"):
				cancels = true
			}
		}
		for _, part := range c.components {
			if part.kind == "VTIMEZONE" {
				id, _, _ := part.get("TZID")
				p.clocks.definitions[id.value] = part
			}
		}
		for _, part := range c.components {
			if part.kind != "VEVENT" {
				continue
			}
			found++
			e, err := p.event(part)
			if err != nil {
				p.skip(part.line, part.text("SUMMARY"), err.Error(), false)
				continue
			}
			e.cancels = cancels
			events = append(events, e)
		}
	}
	if found == 0 {
		return nil, fmt.Errorf("line %d: the iCalendar file holds no event (VEVENT)", calendars[0].line)
	}
	p.expand(events)
	slices.SortStableFunc(p.h.skipped, func(a, b Skipped) int { return cmp.Compare(a.Line, b.Line) })
	return p.h, nil
}

// parser reads one file.
type parser struct {
	zone   *time.Location
	clocks *clocks
	budget *budget
	h      *Holidays
}

func (p *parser) skip(line int, name, reason string, understood bool) {
	p.h.skipped = append(p.h.skipped, Skipped{line, name, reason, understood})
}

// single are properties of which an event has one at most.
var single = []string{"DTSTART", "DTEND", "DURATION", "RECURRENCE-ID", "UID", "SEQUENCE", "STATUS"}

func (p *parser) event(c *component) (*event, error) {
	e := &event{holiday: holiday{name: c.text("SUMMARY"), line: c.line}}
	only := map[string]property{}
	for _, name := range single {
		found, ok, err := c.get(name)
		if err != nil {
			return nil, err
		}
		if ok {
			only[name] = found
		}
	}
	start, ok := only["DTSTART"]
	if !ok {
		return nil, fmt.Errorf("line %d: DTSTART is missing", c.line)
	}
	wholeDay := false
	for _, other := range c.properties {
		switch {
		case !other.colon && slices.Contains(understood, other.name):
			return nil, fmt.Errorf("line %d: %s has no value", other.line, other.name)
		case other.name == "TRANSP":
			e.transparent = strings.EqualFold(other.value, "TRANSPARENT")
		case other.name == "CATEGORIES":
			e.categories = append(e.categories, splitText(other.value)...)
		case other.name == "X-APPLE-SPECIAL-DAY" && strings.EqualFold(other.value, "ALTERNATE-WORKDAY"):
			e.special = "it is a make-up workday (X-APPLE-SPECIAL-DAY)"
		case slices.Contains(allDayMarks, other.name):
			wholeDay = wholeDay || strings.EqualFold(other.value, "TRUE") || other.value == "1"
		}
	}
	e.uid = only["UID"].value
	e.cancelled = strings.EqualFold(only["STATUS"].value, "CANCELLED") || strings.EqualFold(only["STATUS"].value, "CANCELED")
	if text := only["SEQUENCE"]; text.value != "" {
		var err error
		if e.sequence, err = strconv.Atoi(text.value); err != nil {
			return nil, fmt.Errorf("line %d: SEQUENCE %q is no number", text.line, harmless(text.value))
		}
	}
	if err := p.times(e, start, only, wholeDay); err != nil {
		return nil, err
	}
	if id, ok := only["RECURRENCE-ID"]; ok {
		m, clock, err := p.moment(id, id.value, e.clock)
		if err != nil {
			return nil, err
		}
		e.replaces, e.replacesIn = &m, clock
		switch rng := strings.ToUpper(id.parameters["RANGE"]); rng {
		case "":
			if rule, ok, _ := c.get("RRULE"); ok && rule.value != "" {
				return nil, fmt.Errorf("line %d: an RRULE in the change of one occurrence (RECURRENCE-ID)", rule.line)
			}
		case "THISANDFUTURE":
			e.andFollow = true
		default:
			return nil, fmt.Errorf("line %d: RECURRENCE-ID with RANGE=%s: only THISANDFUTURE is understood", id.line, harmless(rng))
		}
	}
	return e, p.recurrences(e, c)
}

// understood are the properties without which an event means something else.
var understood = append([]string{"RRULE", "EXRULE", "RDATE", "EXDATE"}, single...)

// allDayMarks say that an event from midnight to midnight is one of dates, whatever zone the midnights are of.
var allDayMarks = []string{"X-MICROSOFT-CDO-ALLDAYEVENT", "X-MICROSOFT-MSNCALENDAR-ALLDAYEVENT", "X-FUNAMBOL-ALLDAY"}

// moment reads a property's value, in the zone of its TZID or else in that of the event.
func (p *parser) moment(of property, text string, event clock) (moment, clock, error) {
	m, err := parseMoment(text)
	if err != nil {
		return m, nil, fmt.Errorf("line %d: %s: %w", of.line, of.name, err)
	}
	c := event
	if id := of.parameters["TZID"]; id != "" && !m.date && !m.utc {
		if c, err = p.clocks.get(id); err != nil {
			return m, nil, fmt.Errorf("line %d: %s: %w", of.line, of.name, err)
		}
	}
	if m.utc {
		c = zoneClock{time.UTC}
	}
	return m, c, nil
}

// times reads when an event begins and how long it takes. Without an end a date lasts a day, and a time counts for its date.
func (p *parser) times(e *event, start property, only map[string]property, wholeDay bool) error {
	m, c, err := p.moment(start, start.value, zoneClock{p.zone})
	if err != nil {
		return err
	}
	e.start, e.date, e.clock = m.shown, m.date, c
	if wholeDay && m.shown%daySeconds == 0 {
		e.date = true
	}
	if e.date {
		e.clock = zoneClock{p.zone}
		e.length = daySeconds
	}
	end, hasEnd := only["DTEND"]
	duration, hasDuration := only["DURATION"]
	switch {
	case hasEnd && hasDuration:
		return fmt.Errorf("line %d: DTEND and DURATION are both set", end.line)
	case hasEnd:
		m, c, err := p.moment(end, end.value, e.clock)
		if err != nil {
			return err
		}
		stop := m.shown
		if !m.date && !e.date {
			stop = shownBy(e.clock, c, m)
		}
		if e.date && !m.date && m.shown%daySeconds != 0 { // the date of a time counts
			stop = dayShown(m.shown).shown() + daySeconds
		}
		if m.date && !e.date && dayShown(stop) == dayShown(e.start) {
			stop = e.start
		}
		if stop < e.start {
			return fmt.Errorf("line %d: DTEND %s is before DTSTART %s", end.line, harmless(end.value), harmless(start.value))
		}
		if stop > e.start { // one at the start says nothing
			e.length = stop - e.start
		}
	case hasDuration:
		length, err := parseDuration(duration.value)
		if err != nil {
			return fmt.Errorf("line %d: DURATION %q: %w", duration.line, harmless(duration.value), err)
		}
		if length > 0 {
			e.length = length
		}
	}
	return nil
}

// shownBy is what one clock shows at a moment of another.
func shownBy(c, of clock, m moment) int64 {
	if c == of {
		return m.shown
	}
	return c.shown(of.unix(m.shown))
}

// recurrences reads RRULE, EXRULE, RDATE and EXDATE, however many there are and of whatever type of value.
func (p *parser) recurrences(e *event, c *component) error {
	for _, property := range c.properties {
		var err error
		switch property.name {
		case "RRULE", "EXRULE":
			if property.value == "" {
				continue // some producers write it for none
			}
			var r *rule
			if r, err = parseRule(property.value); err == nil && r.until != nil && p.beforeStart(e, r.until) {
				err = fmt.Errorf("UNTIL is before DTSTART")
			}
			if err != nil {
				return fmt.Errorf("line %d: %s:%s: %w", property.line, property.name, harmless(property.value), err)
			}
			made := &recurrence{rule: r, start: e.start, wholeDays: e.date, past: p.past(e, r.until)}
			if property.name == "RRULE" {
				e.rules = append(e.rules, made)
			} else {
				e.exRules = append(e.exRules, made)
			}
		case "RDATE", "EXDATE":
			for _, text := range strings.Split(property.value, ",") {
				if strings.TrimSpace(text) == "" {
					continue
				}
				if property.name == "RDATE" {
					err = p.addDate(e, property, text)
				} else {
					err = p.exclude(&e.excluded, e, property, text)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// date is the date that a moment means for an event of dates, or that is compared with one. A time in UTC is taken in the
// calendar's zone where that makes it midnight, as Google writes it, or else as written where it is the day's first or last
// second, as others do.
func (p *parser) date(m moment) day {
	if !m.utc {
		return dayShown(m.shown)
	}
	local := zoneClock{p.zone}.shown(m.shown)
	if of := m.shown - dayShown(m.shown).shown(); local%daySeconds != 0 && (of == 0 || of == daySeconds-1) {
		return dayShown(m.shown)
	}
	return dayShown(local)
}

// past is when a rule of an event ends.
func (p *parser) past(e *event, until *moment) func(int64) bool {
	switch {
	case until == nil:
		return func(int64) bool { return false }
	case e.date:
		end := p.date(*until)
		return func(shown int64) bool { return dayShown(shown) > end }
	case until.date:
		end := dayShown(until.shown)
		return func(shown int64) bool { return dayShown(shown) > end }
	case until.utc:
		return func(shown int64) bool { return e.clock.unix(shown) > until.shown }
	default:
		return func(shown int64) bool { return shown > until.shown }
	}
}

func (p *parser) beforeStart(e *event, until *moment) bool { return p.past(e, until)(e.start) }

// addDate reads a date, a time or a period of an RDATE.
func (p *parser) addDate(e *event, property property, text string) error {
	text, end, isPeriod := strings.Cut(text, "/")
	m, c, err := p.moment(property, text, e.clock)
	if err != nil {
		return err
	}
	at := occurrenceAt{length: e.length}
	switch {
	case e.date:
		at.start = p.date(m).shown()
	case m.date:
		at.start = m.shown + e.start - dayShown(e.start).shown() // on that date, at the event's time
	default:
		at.start = shownBy(e.clock, c, m)
	}
	if isPeriod {
		if at.length, err = parseDuration(end); err != nil {
			stop, c, errEnd := p.moment(property, end, e.clock)
			if errEnd != nil {
				return errEnd
			}
			at.length = shownBy(e.clock, c, stop) - at.start
		}
		if at.length < 0 {
			return fmt.Errorf("line %d: RDATE: the period %s/%s ends before it starts", property.line, harmless(text), harmless(end))
		}
	}
	e.added = append(e.added, at)
	return nil
}

// exclude reads an EXDATE, or what RECURRENCE-ID names. A date leaves out all of that date; so does a midnight that is no time of
// the event.
func (p *parser) exclude(x *exclusions, e *event, property property, text string) error {
	m, c, err := p.moment(property, text, e.clock)
	if err != nil {
		return err
	}
	p.excludeMoment(x, e, m, c)
	return nil
}

func (p *parser) excludeMoment(x *exclusions, e *event, m moment, c clock) {
	if x.days == nil {
		x.days, x.times = map[day]bool{}, map[int64]bool{}
	}
	switch {
	case e.date:
		x.days[p.date(m)] = true
	case m.date, m.shown%daySeconds == 0 && !m.utc && e.start%daySeconds != 0:
		x.days[dayShown(m.shown)] = true
	default:
		x.times[c.unix(m.shown)] = true
	}
}

var durationForm = regexp.MustCompile(`^\+?P(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?:(\d{1,8})H)?(?:(\d{1,8})M)?(?:(\d{1,9})S)?)?$`)

// parseDuration reads P1D, PT8H and the like, in seconds. All of it is counted as clocks show it: an event of 24 hours that begins
// at midnight is one of a day, whatever clocks do on it.
func parseDuration(text string) (int64, error) {
	match := durationForm.FindStringSubmatch(strings.ToUpper(strings.TrimSpace(text)))
	if match == nil || !strings.ContainsAny(text, "0123456789") {
		return 0, errors.New("must look like P1D or PT8H")
	}
	total := int64(0)
	for i, unit := range []int64{7 * daySeconds, daySeconds, 3600, 60, 1} {
		if n, err := strconv.ParseInt(match[i+1], 10, 64); err == nil {
			total += n * unit
		}
	}
	return total, nil
}

// expand makes dates of events, and applies what one says of another of the same UID.
func (p *parser) expand(events []*event) {
	byUID := map[string][]*event{}
	for _, e := range events {
		if e.uid != "" {
			byUID[e.uid] = append(byUID[e.uid], e)
		}
	}
	gone := map[*event]string{} // and why
	changes := map[string][]*event{}
	for uid, group := range byUID {
		p.supersede(group, gone)
		for _, e := range group {
			if _, is := gone[e]; !is && e.replaces != nil {
				changes[uid] = append(changes[uid], e)
			}
		}
	}
	for _, e := range events {
		why, is := gone[e]
		switch {
		case is:
		case e.cancels:
			why = "it is cancelled (METHOD:CANCEL)"
		case e.cancelled:
			why = "it is cancelled"
		default:
			why = e.special
		}
		if e.left = why; e.replaces == nil {
			e.changes = changes[e.uid]
		}
	}
	// First what is done with a few steps, so that nothing that recurs often takes them away.
	failed := map[*event]error{}
	for _, most := range [2]int{fewSteps, eventSteps} {
		for _, e := range events {
			if e.left != "" || e.days != nil {
				continue
			}
			all := p.budget.steps
			p.budget.steps = min(all, most)
			before := p.budget.steps
			failed[e] = p.dates(e, e.changes)
			p.budget.steps = max(0, all-(before-p.budget.steps))
		}
	}
	for _, e := range events {
		err := failed[e]
		if err == nil && len(p.h.byDay)+len(e.days) > maxHolidays {
			err = fmt.Errorf("line %d: the file makes more than %d dates", e.line, maxHolidays)
		}
		switch {
		case e.left != "":
			p.skip(e.line, e.name, e.left, true)
		case err != nil:
			p.skip(e.line, e.name, err.Error(), false)
		default:
			p.h.add(e.holiday)
		}
	}
}

// supersede finds those of a UID's events that a newer version takes the place of.
func (p *parser) supersede(group []*event, gone map[*event]string) {
	if len(group) == 1 {
		return
	}
	type occurrence struct {
		at  day
		all bool
	}
	of := func(e *event) occurrence {
		if e.replaces == nil {
			return occurrence{all: true}
		}
		return occurrence{at: dayShown(e.replaces.shown)}
	}
	newest := map[occurrence]*event{}
	for _, e := range group {
		// Of two changes of one occurrence the later one counts; two whole events without a version are two events, as producers
		// that give all of them one UID mean it.
		if known := newest[of(e)]; known == nil || e.sequence > known.sequence || e.replaces != nil && e.sequence == known.sequence {
			newest[of(e)] = e
		}
	}
	for _, e := range group {
		n := newest[of(e)]
		if n.sequence > e.sequence || n != e && e.replaces != nil {
			gone[e] = fmt.Sprintf("line %d has a newer version of it", n.line)
		}
	}
	// A file of cancellations cancels what it names, a status alone its event with the changes of that.
	var byFile, byStatus *event
	for _, c := range group {
		switch {
		case c.replaces != nil:
		case c.cancels && (byFile == nil || c.sequence > byFile.sequence):
			byFile = c
		case c.cancelled && gone[c] == "":
			byStatus = c
		}
	}
	for _, e := range group {
		if _, is := gone[e]; is || e.cancels {
			continue
		}
		if byFile != nil && e.sequence <= byFile.sequence {
			gone[e] = fmt.Sprintf("line %d cancels it", byFile.line)
		} else if byStatus != nil && e.replaces != nil {
			gone[e] = fmt.Sprintf("line %d cancels it", byStatus.line)
		}
	}
}

// dates works out on which dates an event takes place; changes are those of its occurrences.
func (p *parser) dates(e *event, changes []*event) error {
	if !p.budget.spend(len(changes) + len(e.excluded.days) + len(e.excluded.times)) {
		return fmt.Errorf("line %d: %w", e.line, errBudget)
	}
	set := map[day]bool{}
	excluded := exclusions{days: maps.Clone(e.excluded.days), times: maps.Clone(e.excluded.times)}
	var following []*event // in the order of what they replace
	for _, change := range changes {
		p.excludeMoment(&excluded, e, *change.replaces, change.replacesIn)
		if change.replacesRaw = shownBy(e.clock, change.replacesIn, *change.replaces); e.date {
			change.replacesRaw = p.date(*change.replaces).shown()
		}
		if change.andFollow {
			following = append(following, change)
		}
	}
	slices.SortFunc(following, func(a, b *event) int { return cmp.Compare(a.replacesRaw, b.replacesRaw) })
	for _, r := range e.exRules {
		if excluded.times == nil {
			excluded.days, excluded.times = map[day]bool{}, map[int64]bool{}
		}
		if err := r.each(p.budget, func(shown int64) bool {
			if e.date {
				excluded.days[dayShown(shown)] = true
			} else {
				excluded.times[e.clock.unix(shown)] = true
			}
			return true
		}); err != nil {
			return fmt.Errorf("line %d: %w", e.line, err)
		}
	}
	var failed error
	take := func(start, length int64) bool {
		if excluded.has(start, e.clock) {
			return p.budget.spend(1)
		}
		c := e.clock
		for i := len(following) - 1; i >= 0; i-- {
			f := following[i]
			if start < f.replacesRaw {
				continue
			}
			if f.cancelled || f.cancels || len(f.rules) > 0 { // none follow, or others do
				return p.budget.spend(1)
			}
			start, length, c = start+f.start-f.replacesRaw, f.length, f.clock
			break
		}
		failed = p.touch(set, start, length, c, e.date)
		return failed == nil
	}
	// The start is the first occurrence, and one of those that COUNT counts, whether a rule makes it or not.
	matched := false
	var rules []*recurrence // without those that make nothing, which takes the most steps
	for _, r := range e.rules {
		r.plus = false // an earlier try may have run out of steps
		makes := false
		if err := r.each(p.budget, func(shown int64) bool {
			makes = true
			matched = matched || shown == e.start
			return false
		}); err != nil {
			return fmt.Errorf("line %d: %w", e.line, err)
		}
		if makes {
			rules = append(rules, r)
		}
	}
	take(e.start, e.length)
	for _, r := range rules {
		r.plus = !matched
		if err := r.each(p.budget, func(shown int64) bool { return take(shown, e.length) }); err != nil {
			return fmt.Errorf("line %d: %w", e.line, err)
		}
	}
	for _, at := range e.added {
		if failed == nil {
			take(at.start, at.length)
		}
	}
	if failed != nil || p.budget.steps < 0 {
		return fmt.Errorf("line %d: %w", e.line, errBudget)
	}
	e.days = slices.AppendSeq(make([]day, 0, len(set)), maps.Keys(set))
	slices.Sort(e.days)
	return nil
}

// touch adds the dates in the calendar's zone that an occurrence touches.
func (p *parser) touch(set map[day]bool, start, length int64, c clock, date bool) error {
	begin, end := start, start+max(length, 1)
	if !p.budget.spend(1 + int(length/daySeconds)) {
		return errBudget
	}
	if own := (zoneClock{p.zone}); !date { // even in the same zone: some clocks skip whole days
		unix := c.unix(begin)
		stop := max(unix+1, c.unix(end))
		begin, end = own.shown(unix), own.shown(stop-1)+1
	}
	for d := dayShown(begin); d <= max(dayShown(begin), dayShown(end-1)); d++ {
		set[d] = true
	}
	return nil
}
