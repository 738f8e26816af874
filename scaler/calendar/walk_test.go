package calendar

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// walkZones have clock changes of all kinds, at midnight and over it, of half an hour and of a day.
var walkZones = []string{
	"Europe/Prague", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo", "America/Havana",
	"Asia/Kathmandu", "America/St_Johns", "Africa/Casablanca", "America/Sao_Paulo", "Asia/Tehran",
}

// walk is a clock on the wall of a zone, read once a minute.
type walk struct {
	start time.Time
	shown []int64 // what the clock shows at start + i minutes, as seconds of a zone without changes
}

func newWalk(zone *time.Location, start time.Time, minutes int) walk {
	w := walk{start: start, shown: make([]int64, minutes)}
	for i := range w.shown {
		at := start.Add(time.Duration(i) * time.Minute)
		_, offset := at.In(zone).Zone()
		w.shown[i] = at.Unix() + int64(offset)
	}
	return w
}

// mark sets the minutes from the first at which the clock shows at least from, until the last at which it shows to, or
// where it skips that, the last at which it shows less. That is what a half-open period of wall-clock times is, by
// definition.
func (w walk) mark(in []bool, from, to int64, lead time.Duration) {
	begin, end := -1, -1
	// A clock is never further from UTC than a day.
	around := func(shown int64, minutes int) int { return int((shown-w.start.Unix())/60) + minutes }
	for i := max(0, around(from, -1600)); i < min(len(w.shown), around(to, 1600)); i++ {
		if begin < 0 && w.shown[i] >= from {
			begin = i
		}
		if w.shown[i] < to || i > 0 && w.shown[i] == to && begin >= 0 {
			end = i
		}
	}
	if end >= 0 && w.shown[end] == to {
		end-- // the end itself is not in the period
	}
	if begin < 0 {
		return
	}
	for i := max(0, begin-int(lead/time.Minute)); i <= end; i++ {
		in[i] = true
	}
}

func (w walk) date(i int) date { return dateOf(time.Unix(w.shown[i], 0).UTC()) }

// Everything that a calendar says, against a clock on the wall that is read every minute.
func checkAgainstWalk(t *testing.T, seed uint64, weeks int) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 7))
	zoneName := walkZones[random.IntN(len(walkZones))]
	zone, err := time.LoadLocation(zoneName)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2006+random.IntN(25), time.Month(1+random.IntN(12)), 1+random.IntN(28), 0, 0, 0, 0, time.UTC)
	if random.IntN(3) == 0 { // near a clock change
		if _, change := start.In(zone).ZoneBounds(); !change.IsZero() {
			start = change.UTC().Truncate(24*time.Hour).AddDate(0, 0, -5)
		}
	}
	if zoneName == "Pacific/Apia" && random.IntN(2) == 0 {
		start = time.Date(2011, 12, 20, 0, 0, 0, 0, time.UTC)
	}
	spec, holidays := randomCalendar(random, zoneName, start)
	c, errs := New(spec, maxReplicas, field.NewPath("calendar"))
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	// The walk begins and ends three days further out, so that periods that reach in are seen whole.
	const margin = 3 * minutesOfDay
	minutes := weeks * 7 * minutesOfDay
	w := newWalk(zone, start.Add(-margin*time.Minute), minutes+2*margin)
	inForce := make([][]bool, len(spec.Periods))
	for p := range spec.Periods {
		inForce[p] = make([]bool, len(w.shown))
		compiled := &c.periods[p]
		for day := w.date(0).add(1); day.before(w.date(len(w.shown) - 1)); day = day.add(1) {
			if namesDay(spec.Periods[p].Days, day, holidays) {
				midnight := day.midnightUTC().Unix()
				w.mark(inForce[p], midnight+60*int64(compiled.from), midnight+60*int64(compiled.to), compiled.lead)
			}
		}
	}
	timeline := c.Timeline(start, start.Add(time.Duration(minutes)*time.Minute))
	for i := margin; i < margin+minutes; i++ {
		at := w.start.Add(time.Duration(i) * time.Minute)
		want := expected(spec, holidays, inForce, i, w.date(i))
		for !at.Before(timeline[0].To) {
			timeline = timeline[1:]
		}
		if got := c.Limits(at); got != want || timeline[0].Limits != want {
			t.Fatalf("seed %d, %s, %s: the clock on the wall says %v, Limits %v, Timeline %v\n%s",
				seed, zoneName, at.In(zone), want, got, timeline[0].Limits, describe(spec))
		}
	}
	if len(timeline) != 1 {
		t.Fatalf("seed %d: the timeline has %d spans past its end", seed, len(timeline)-1)
	}
}

// expected are the limits of a minute, by the rules of precedence.
func expected(spec *Spec, holidays *Holidays, inForce [][]bool, minute int, today date) Limits {
	for _, e := range spec.Exceptions {
		text := today.midnightUTC().Format(time.DateOnly)
		if len(e.From) == len("12-24") {
			text = text[5:]
		}
		in := e.From <= text && text <= e.To
		if e.To < e.From { // over New Year
			in = text >= e.From || text <= e.To
		}
		if in {
			return Limits{Period: e.Name, MinReplicas: *e.Bounds.MinReplicas, MaxReplicas: maxReplicas}
		}
	}
	if name, is := holidays.on(today); is {
		return Limits{Period: name, MinReplicas: *spec.Holidays.Bounds.MinReplicas, MaxReplicas: maxReplicas}
	}
	want := Limits{Period: DefaultPeriod, MaxReplicas: maxReplicas}
	var names []string
	for p, period := range spec.Periods {
		if inForce[p][minute] {
			names = append(names, period.Name)
			want.MinReplicas = max(want.MinReplicas, *period.Bounds.MinReplicas)
		}
	}
	if names != nil {
		want.Period = strings.Join(names, "+")
	}
	return want
}

// namesDay says what the days of a period mean, day by day of the month.
func namesDay(texts []string, day date, holidays *Holidays) bool {
	short := day.weekday().String()[:3]
	var weekdays, businessDays, all []date // of this month, on this weekday
	for d := (date{day.year, day.month, 1}); d.month == day.month; d = d.add(1) {
		all = append(all, d)
		if d.weekday() == day.weekday() {
			weekdays = append(weekdays, d)
		}
		if _, holiday := holidays.on(d); !holiday && d.weekday() != time.Saturday && d.weekday() != time.Sunday {
			businessDays = append(businessDays, d)
		}
	}
	nth := func(list []date, word string) bool {
		if word == "last" {
			return list[len(list)-1] == day
		}
		i := slices.Index([]string{"first", "second", "third", "fourth", "fifth"}, word)
		return i >= 0 && i < len(list) && list[i] == day
	}
	for _, text := range texts {
		word, rest, _ := strings.Cut(text, " ")
		switch {
		case text == short, text == fmt.Sprintf("day %d", day.day), rest == short && nth(weekdays, word),
			rest == "day" && nth(all, word), rest == "business day" && nth(businessDays, word):
			return true
		}
	}
	return len(texts) == 0
}

func randomCalendar(random *rand.Rand, zone string, start time.Time) (*Spec, *Holidays) {
	clock := func() string { return fmt.Sprintf("%02d:%02d", random.IntN(24), 15*random.IntN(4)) }
	choices := []string{
		"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Sun", "Sat", "first Mon", "second Sun", "fifth Fri", "last Sun",
		"last day", "last business day", "first business day", "third business day", "day 15", "day 31", "first day",
	}
	spec := &Spec{TimeZone: zone}
	for i := range random.IntN(4) {
		from, to := clock(), clock()
		if random.IntN(4) == 0 {
			to = "24:00"
		}
		if from == to {
			continue
		}
		var names []string
		for range random.IntN(4) {
			names = append(names, choices[random.IntN(len(choices))])
		}
		spec.Periods = append(spec.Periods, Period{
			Name: fmt.Sprint("p", i), Days: names, From: from, To: to,
			LeadTime: time.Duration(max(0, random.IntN(120)-60)) * time.Minute, Bounds: floor(int32(i + 1)),
		})
	}
	day := func() time.Time { return start.AddDate(0, 0, random.IntN(30)) }
	for i := range random.IntN(3) {
		from := day()
		to := from.AddDate(0, 0, random.IntN(3))
		form := time.DateOnly
		if random.IntN(2) == 0 {
			form = "01-02"
		}
		spec.Exceptions = append(spec.Exceptions, Exception{
			Name: fmt.Sprint("e", i), From: from.Format(form), To: to.Format(form), Bounds: ptr.To(floor(int32(10 + i))),
		})
	}
	if random.IntN(2) == 0 {
		return spec, nil
	}
	holidays := &Holidays{names: map[date]string{}}
	spec.Holidays = &HolidayRule{Days: holidays, Bounds: ptr.To(floor(20))}
	for range 1 + random.IntN(3) {
		holidays.names[dateOf(day())] = "holiday"
	}
	return spec, holidays
}

func describe(spec *Spec) string { return cmp.Diff(nil, spec) }

func TestAgainstWalk(t *testing.T) {
	seeds, weeks := uint64(200), 6
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		checkAgainstWalk(t, seed, weeks)
	}
	// Whole years, with two clock changes in each.
	for seed := range uint64(6) {
		checkAgainstWalk(t, 1000+seed, 3*52)
	}
}

func FuzzAgainstWalk(f *testing.F) {
	for seed := range uint64(5) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { checkAgainstWalk(t, seed, 5) })
}
