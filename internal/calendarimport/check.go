package calendarimport

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// step is a change to a number of replicas.
type step struct {
	at       time.Time
	replicas int32
}

// steps are in the order of time, each to another number than the one before. Before the first there are none.
type steps []step

func (s steps) at(t time.Time) int32 {
	i := sort.Search(len(s), func(i int) bool { return s[i].at.After(t) })
	if i == 0 {
		return 0
	}
	return s[i-1].replicas
}

// add appends a change, if it is one. What is changed again at the same instant never held.
func (s steps) add(at time.Time, replicas int32) steps {
	for len(s) > 0 && !at.After(s[len(s)-1].at) {
		s = s[:len(s)-1]
	}
	if n := len(s); n > 0 && s[n-1].replicas == replicas {
		return s
	}
	return append(s, step{at, replicas})
}

// sorted are steps of any order; of two at the same instant the later one holds.
func (s steps) sorted() steps {
	slices.SortStableFunc(s, func(a, b step) int { return a.at.Compare(b.at) })
	var list steps
	for _, one := range s {
		list = list.add(one.at, one.replicas)
	}
	return list
}

// combine puts together what several ask for at the same time.
func combine(all []steps, together func(a, b int32) int32) steps {
	var at []time.Time
	for _, s := range all {
		for _, one := range s {
			at = append(at, one.at)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	var list steps
	next := make([]int, len(all)) // of each, the first step that is still to come
	for _, t := range at {
		total := int32(0)
		for i, s := range all {
			for next[i] < len(s) && !s[next[i]].at.After(t) {
				next[i]++
			}
			if next[i] > 0 {
				total = together(total, s[next[i]-1].replicas)
			}
		}
		list = list.add(t, total)
	}
	return list
}

func larger(a, b int32) int32 { return max(a, b) }
func sum(a, b int32) int32    { return a + b }

// bounded are steps from an instant on, with a floor below all of them and a cap above.
func (s steps) bounded(begin time.Time, floor, limit int32) steps {
	bound := func(n int32) int32 { return min(max(n, floor), limit) }
	list := steps{{begin, bound(s.at(begin))}}
	for _, one := range s {
		if one.at.After(begin) {
			list = list.add(one.at, bound(one.replicas))
		}
	}
	return list
}

// windows are those in which there are replicas.
func (s steps) windows() []window {
	var list []window
	for i := range len(s) - 1 {
		if s[i].replicas > 0 {
			list = append(list, window{s[i].at.Unix() / 60, s[i+1].at.Unix() / 60, s[i].replicas})
		}
	}
	return list
}

// stepsOf are those of windows, of which the largest holds.
func stepsOf(windows []window, at func(minute) time.Time) steps {
	all := map[int32]steps{}
	for _, w := range merge(slices.Clone(windows)) {
		s := all[w.replicas]
		if n := len(s); n > 0 && s[n-1].at.Equal(at(w.from)) {
			s = s[:n-1] // the same level continues
		} else {
			s = append(s, step{at(w.from), w.replicas})
		}
		all[w.replicas] = append(s, step{at(w.to), 0})
	}
	var list []steps
	for _, s := range all {
		list = append(list, s)
	}
	return combine(list, larger)
}

// onWall is the time of a clock that never changes, as an instant in UTC.
func onWall(m minute) time.Time { return time.Unix(m*60, 0).UTC() }

// behaviour is how many replicas something asks for.
type behaviour struct {
	// ran is what the original does, by instants.
	ran steps
	// plain is what it would do if clocks never changed, and meant what its author wants of it; by what a clock shows, as if in UTC.
	plain, meant steps
}

// Difference is a time for which the calendar asks for something else than the original did.
type Difference struct {
	From, To time.Time
	// Original and Calendar are the replicas of each.
	Original, Calendar int32
	Reason             Reason
}

// Reason is why a calendar differs.
type Reason string

const (
	// ClockChange is what the original makes of clocks that change.
	ClockChange Reason = "clock change"
	// OnPurpose is false for what the original does by accident, for example because it has no end.
	OnPurpose Reason = "on purpose"
)

// Check is a comparison of an original with its calendar.
type Check struct {
	From, To time.Time
	// Minutes are how many there are, and Same for how many of them both ask for the same.
	Minutes, Same int64
	Differences   []Difference
}

// compare checks a calendar against an original in every minute of [from, to). What they ask for changes at a few instants, so that nothing is
// looked at in between. A difference that has no reason is an error: the calendar is not what was read.
func compare(b behaviour, c *calendar.Calendar, replicas func(calendar.Limits) int32, zone *time.Location, from, to time.Time) (Check, error) {
	check := Check{From: from, To: to, Minutes: int64(to.Sub(from) / time.Minute)}
	at := []time.Time{from, to}
	for _, s := range b.ran {
		at = append(at, s.at)
	}
	var written steps
	for _, span := range c.Timeline(from, to) {
		written = written.add(span.From, replicas(span.Limits))
	}
	for _, s := range written {
		at = append(at, s.at)
	}
	for _, s := range append(slices.Clip(b.plain), b.meant...) {
		if s.at.After(from.AddDate(0, 0, -2)) && s.at.Before(to.AddDate(0, 0, 2)) {
			at = append(at, calendar.ReadClock(zone, s.at).Time)
		}
	}
	changes := clockChanges(zone, from.AddDate(0, 0, -2), to.AddDate(0, 0, 2))
	for _, c := range changes {
		at = append(at, c.from, c.at, c.to)
	}
	for i, t := range at { // what counts are whole minutes
		at[i] = t.Add(time.Minute - time.Nanosecond).Truncate(time.Minute)
	}
	at = slices.DeleteFunc(at, func(t time.Time) bool { return t.Before(from) || t.After(to) })
	slices.SortFunc(at, time.Time.Compare)
	check.Same = check.Minutes
	for i := range len(at) - 1 {
		begin, end := at[i], at[i+1]
		if !begin.Before(end) {
			continue
		}
		clock := shown(begin, zone)
		d := Difference{begin, end, b.ran.at(begin), written.at(begin), OnPurpose}
		plain, meant := b.plain.at(clock), b.meant.at(clock)
		changing := slices.ContainsFunc(changes, func(c clockChange) bool { return !begin.Before(c.from) && begin.Before(c.to) })
		if !changing && d.Calendar != meant {
			return check, fmt.Errorf("at %s the calendar asks for %d, and what was read means %d: please report it, and write this one by hand",
				begin.In(zone).Format(time.RFC3339), d.Calendar, meant)
		}
		if d.Original == d.Calendar {
			continue
		}
		check.Same -= int64(end.Sub(begin) / time.Minute)
		if d.Original != plain || d.Calendar != meant {
			d.Reason = ClockChange
		}
		if n := len(check.Differences); n > 0 && check.Differences[n-1].follows(d) {
			check.Differences[n-1].To = end
			continue
		}
		check.Differences = append(check.Differences, d)
	}
	return check, nil
}

func (d Difference) follows(next Difference) bool {
	return d.To.Equal(next.From) && d.Original == next.Original && d.Calendar == next.Calendar && d.Reason == next.Reason
}

// clockChange is when clocks change, and around it as long as they jump.
type clockChange struct{ from, at, to time.Time }

func clockChanges(zone *time.Location, from, to time.Time) []clockChange {
	var list []clockChange
	for t := from.In(zone); ; {
		_, end := t.ZoneBounds()
		if end.IsZero() || !end.Before(to) {
			return list
		}
		_, before := end.Add(-time.Second).Zone()
		_, after := end.Zone()
		by := (time.Duration(after-before) * time.Second).Abs()
		if by > 0 {
			list = append(list, clockChange{end.Add(-by), end, end.Add(by)})
		}
		t = end
	}
}
