package calendar

//go:generate go run windowszones_gen.go

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// LoadZone returns an IANA time zone; no name means UTC.
func LoadZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, errors.New("must be an IANA time zone such as Europe/Prague")
	}
	return zone, nil
}

// clock is what tells the time of an event: a zone of the IANA database, or one that an iCalendar file defines.
type clock interface {
	// unix is the instant at which the clock shows a time; of two the first, of none that at which it would without the jump (RFC 5545
	// section 3.3.5).
	unix(shown int64) int64
	// shown is what the clock shows at an instant.
	shown(unix int64) int64
}

type zoneClock struct{ zone *time.Location }

func (z zoneClock) unix(shown int64) int64 {
	unix := wallShown(z.zone, shown, first).Unix()
	if z.shown(unix) != shown {
		_, before := time.Unix(unix-1, 0).In(z.zone).Zone()
		return shown - int64(before)
	}
	return unix
}

func (z zoneClock) shown(unix int64) int64 {
	_, offset := time.Unix(unix, 0).In(z.zone).Zone()
	return unix + int64(offset)
}

// onset is where another offset from UTC begins; ones are sorted, and the first is at the beginning of time.
type onset struct {
	unix   int64
	offset int64
}

// definedClock is a zone of a VTIMEZONE.
type definedClock struct{ onsets []onset }

func (c *definedClock) unix(shown int64) int64 {
	o := c.onsets
	// No clock is further from UTC than a day.
	i := max(0, sort.Search(len(o), func(i int) bool { return o[i].unix > shown-daySeconds })-1)
	for ; i < len(o); i++ {
		unix := shown - o[i].offset
		if unix < o[i].unix && i > 0 {
			return shown - o[i-1].offset // it is skipped
		}
		if i+1 == len(o) || unix < o[i+1].unix {
			return unix
		}
	}
	return shown
}

func (c *definedClock) shown(unix int64) int64 {
	o := c.onsets
	i := max(0, sort.Search(len(o), func(i int) bool { return o[i].unix > unix })-1)
	return unix + o[i].offset
}

// zoneSteps is what looking for a zone takes of a budget: it reads files.
const zoneSteps = 3_000

// clocks are those of a file, by TZID.
type clocks struct {
	own         *time.Location        // of the calendar
	definitions map[string]*component // VTIMEZONEs
	found       map[string]clock
	budget      *budget
}

func (c *clocks) get(id string) (clock, error) {
	if found := c.found[id]; found != nil {
		return found, nil
	}
	if !c.budget.spend(zoneSteps) {
		return nil, errBudget
	}
	found, err := c.load(id)
	if err != nil {
		return nil, err
	}
	c.found[id] = found
	return found, nil
}

func (c *clocks) load(id string) (clock, error) {
	if zone := zoneOf(id); zone != nil {
		return c.of(zone), nil
	}
	definition := c.definitions[id]
	if definition == nil {
		return nil, fmt.Errorf("the time zone %q is neither an IANA name such as Europe/Prague nor one of Windows' names, and the file has no VTIMEZONE of it",
			harmless(id))
	}
	for _, p := range definition.properties {
		if p.name == "X-LIC-LOCATION" {
			if zone := zoneOf(p.value); zone != nil {
				return c.of(zone), nil
			}
		}
	}
	return parseZone(definition, c.budget)
}

// of is the clock of a zone; those of the calendar's own are equal.
func (c *clocks) of(zone *time.Location) clock {
	if zone.String() == c.own.String() {
		zone = c.own
	}
	return zoneClock{zone}
}

// zoneOf finds a zone by its IANA name, as the end of a path (/freeassociation.sourceforge.net/Europe/Prague), or by Windows' name.
func zoneOf(id string) *time.Location {
	if name, ok := windowsZones[strings.ToLower(strings.TrimPrefix(id, "tzone://Microsoft/"))]; ok {
		id = name
	}
	if id == "" {
		return nil
	}
	parts := strings.Split(id, "/")
	for parts = parts[max(0, len(parts)-3):]; len(parts) > 0; parts = parts[1:] {
		if name := strings.Join(parts, "/"); name != "" {
			if zone, err := LoadZone(name); err == nil {
				return zone
			}
		}
	}
	return nil
}

// parseZone reads a VTIMEZONE.
func parseZone(c *component, b *budget) (clock, error) {
	var list []onset
	before := onset{unix: -1 << 60}
	for _, part := range c.components {
		at := func(err error) error {
			return fmt.Errorf("line %d: %s of a VTIMEZONE: %w", part.line, harmless(part.kind), err)
		}
		start, _, err := part.get("DTSTART")
		if err != nil {
			return nil, err
		}
		begin, err := parseMoment(start.value)
		if err != nil {
			return nil, at(fmt.Errorf("DTSTART: %w", err))
		}
		from, errFrom := parseOffset(part, "TZOFFSETFROM")
		to, errTo := parseOffset(part, "TZOFFSETTO")
		if err := errors.Join(errFrom, errTo); err != nil {
			return nil, at(err)
		}
		add := func(shown int64) bool {
			list = append(list, onset{shown - from, to})
			return true
		}
		add(begin.shown)
		if len(list) == 1 || begin.shown-from < before.unix {
			before = onset{begin.shown - from, from}
		}
		for _, p := range part.properties {
			switch p.name {
			case "RRULE":
				r, err := parseRule(p.value)
				if err != nil {
					return nil, fmt.Errorf("line %d: RRULE: %w", p.line, err)
				}
				past := func(shown int64) bool { return r.until != nil && shown-from > r.until.shown }
				if err := (&recurrence{rule: r, start: begin.shown, past: past}).each(b, add); err != nil {
					return nil, fmt.Errorf("line %d: RRULE: %w", p.line, err)
				}
			case "RDATE":
				for _, text := range strings.Split(p.value, ",") {
					m, err := parseMoment(text)
					if err != nil {
						return nil, fmt.Errorf("line %d: RDATE: %w", p.line, err)
					}
					add(m.shown)
				}
			}
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("line %d: the VTIMEZONE has neither STANDARD nor DAYLIGHT", c.line)
	}
	slices.SortFunc(list, func(a, b onset) int { return int(max(-1, min(1, a.unix-b.unix))) })
	return &definedClock{slices.Insert(list, 0, onset{-1 << 60, before.offset})}, nil
}

func parseOffset(c *component, name string) (int64, error) {
	p, _, err := c.get(name)
	if err != nil {
		return 0, err
	}
	text := p.value
	digits := strings.TrimLeft(text, "+-")
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || len(text) != len(digits)+1 || len(digits) != 4 && len(digits) != 6 {
		return 0, fmt.Errorf("%s %q must look like +0100", name, harmless(text))
	}
	if len(digits) == 4 {
		n *= 100
	}
	seconds := int64(n/10000*3600 + n/100%100*60 + n%100)
	if text[0] == '-' {
		seconds = -seconds
	}
	return seconds, nil
}
