package calendar

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
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
	"Asia/Kathmandu", "America/St_Johns", "Africa/Casablanca", "America/Sao_Paulo", "Asia/Tehran", "Asia/Beirut", "America/Santiago",
}

// walk is a wall clock of a zone, read once a minute.
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

// first is the first minute at which the clock shows at least a time, and end the last at which it shows it, or where it never
// does the one after the last at which it shows less. A clock is never further from UTC than a day.
func (w walk) first(shown int64) int {
	for i := max(0, int((shown-w.start.Unix())/60)-1600); i < len(w.shown); i++ {
		if w.shown[i] >= shown {
			return i
		}
	}
	return len(w.shown)
}

func (w walk) end(shown int64) int {
	for i := min(len(w.shown), int((shown-w.start.Unix())/60)+1600) - 1; i >= 0; i-- {
		switch {
		case w.shown[i] == shown:
			return i
		case w.shown[i] < shown:
			return i + 1
		}
	}
	return 0
}

// model says what a calendar means, from its text, day by day, without any of the code under test but the clock's minutes.
type model struct {
	spec *Spec
}

func (m model) limits(name string, b Bounds) Limits {
	l := Limits{
		Period: name, MinReplicas: ptr.Deref(m.spec.Default.MinReplicas, 0), IdleReplicas: ptr.Deref(m.spec.Default.IdleReplicas, 0),
		MaxReplicas: ptr.Deref(m.spec.Default.MaxReplicas, maxReplicas),
	}
	if b.MinReplicas != nil {
		l.MinReplicas = *b.MinReplicas
	}
	if b.MaxReplicas != nil {
		l.MaxReplicas = *b.MaxReplicas
	}
	for _, text := range []string{b.Surplus, m.spec.Default.Surplus} { // the first that is stated
		if percent, is := strings.CutSuffix(text, "%"); text != "" {
			n, err := strconv.Atoi(percent)
			if err != nil {
				panic(err) // randomCalendar wrote it
			}
			if is {
				l.Surplus.Percent = int32(n)
			} else {
				l.Surplus.Replicas = int32(n)
			}
			break
		}
	}
	return l
}

func (m model) special(d day) (*SpecialDay, string) {
	for i := range m.spec.Exceptions {
		e := &m.spec.Exceptions[i]
		text := d.String()
		if len(e.From) == len("12-24") {
			text = text[5:]
		}
		to := e.To
		if to == "" {
			to = e.From
		}
		in := e.From <= text && text <= to
		if to < e.From { // over New Year
			in = text >= e.From || text <= to
		}
		if in {
			return &e.SpecialDay, e.Name
		}
	}
	for i := range m.spec.Holidays {
		if name, is := m.spec.Holidays[i].Days.on(d); is {
			return &m.spec.Holidays[i].SpecialDay, name
		}
	}
	return nil, ""
}

func (m model) businessDay(d day) bool {
	weekend := m.spec.Weekend
	if weekend == nil {
		weekend = []string{"Sat", "Sun"}
	}
	s, _ := m.special(d)
	if s != nil && s.SameAs != "" && s.SameAs != "usual" {
		return !slices.Contains(weekend, s.SameAs)
	}
	for _, h := range m.spec.Holidays {
		if _, is := h.Days.on(d); is {
			return false
		}
	}
	return !slices.Contains(weekend, d.weekday().String()[:3])
}

// starts says what the days of a period mean, for a day that counts as a weekday where as is not empty.
func (m model) starts(p *Period, d day, as string) bool {
	year, mon, _ := d.civil()
	if len(p.Months) > 0 && !slices.Contains(p.Months, mon.String()[:3]) {
		return false
	}
	if w := p.Weeks; w != nil {
		from, err := time.Parse(time.DateOnly, w.From)
		if err != nil {
			panic(err)
		}
		monday := func(d day) day { return d - day((d.weekday()+6)%7) }
		if (monday(d)-monday(dayIn(from)))%day(7*w.Every) != 0 {
			return false
		}
	}
	short := d.weekday().String()[:3]
	var weekdays, businessDays, all []day // of this month, on this weekday
	for on := dayOf(year, mon, 1); on < dayOf(year, mon+1, 1); on++ {
		all = append(all, on)
		if on.weekday() == d.weekday() {
			weekdays = append(weekdays, on)
		}
		if m.businessDay(on) {
			businessDays = append(businessDays, on)
		}
	}
	nth := func(list []day, word string) bool {
		back := 0
		if n, _ := fmt.Sscanf(word, "last -%d", &back); n == 1 || word == "last" {
			i := len(list) - 1 - back
			return i >= 0 && list[i] == d
		}
		i := slices.Index([]string{"first", "second", "third", "fourth", "fifth"}, word)
		return i >= 0 && i < len(list) && list[i] == d
	}
	if as == "" {
		as = short
	}
	for _, text := range p.Days {
		word, rest, _ := strings.Cut(text, " ")
		if base, back, ok := strings.Cut(rest, " -"); ok {
			word, rest = word+" -"+back, base
		}
		var from, to int
		if n, _ := fmt.Sscanf(text, "day %d-%d", &from, &to); n == 2 {
			_, _, of := d.civil()
			if from <= of && of <= to {
				return true
			}
		}
		_, _, of := d.civil()
		switch {
		case text == as, text == fmt.Sprintf("day %d", of), rest == short && nth(weekdays, word), rest == "day" && nth(all, word),
			rest == "business day" && nth(businessDays, word), text == "business day" && m.businessDay(d), text == d.String(), text == d.String()[5:]:
			return true
		}
	}
	return len(p.Days) == 0
}

// hoursOf reads hours in the forms that randomCalendar writes.
func hoursOf(h Hours) (from, to int64) {
	read := func(text string, unset int64) int64 {
		if text == "" {
			return unset
		}
		var hour, minute int64
		if _, err := fmt.Sscanf(text, "%d:%d", &hour, &minute); err != nil {
			panic(err)
		}
		return hour*3600 + minute*60
	}
	clock, later, _ := strings.Cut(h.To, " +")
	from, to = read(h.From, 0), read(clock, daySeconds)
	if later != "" {
		to += int64(later[0]-'0') * daySeconds
	} else if to <= from {
		to += daySeconds
	}
	return from, to
}

// check compares everything that a calendar says with a wall clock that is read every minute.
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
	spec := randomCalendar(random, zoneName, start)
	c, errs := New(spec, maxReplicas, field.NewPath("calendar"))
	if len(errs) > 0 {
		if strings.Contains(errs.ToAggregate().Error(), "never holds") || strings.Contains(errs.ToAggregate().Error(), "a floor above the cap") {
			return // rightly
		}
		t.Fatal(errs.ToAggregate())
	}
	// The walk begins and ends some days further out, so that periods that reach in are seen whole.
	const margin = 6 * minutesOfDay
	minutes := weeks * 7 * minutesOfDay
	w := newWalk(zone, start.Add(-margin*time.Minute), minutes+2*margin)
	expected := model{spec}.walk(w)
	timeline := c.Timeline(start, start.Add(time.Duration(minutes)*time.Minute))
	said := func(i int) string { return w.start.Add(time.Duration(i) * time.Minute).In(zone).String() }
	changes := []int{} // minutes at which limits differ from those before
	for i := margin; i < margin+minutes; i++ {
		at := w.start.Add(time.Duration(i) * time.Minute)
		if i > margin && expected[i] != expected[i-1] {
			changes = append(changes, i)
		}
		for !at.Before(timeline[0].To) {
			timeline = timeline[1:]
		}
		if got := c.Limits(at); got != expected[i] || timeline[0].Limits != expected[i] {
			t.Fatalf("seed %d, %s, %s: the clock on the wall says %v, Limits %v, Timeline %v\n%s",
				seed, zoneName, said(i), expected[i], got, timeline[0].Limits, cmp.Diff(nil, spec))
		}
	}
	if len(timeline) != 1 {
		t.Fatalf("seed %d: the timeline has %d spans past its end", seed, len(timeline)-1)
	}
	for range 20 + weeks {
		i := margin + random.IntN(minutes)
		at := w.start.Add(time.Duration(i) * time.Minute)
		next, limits, ok := c.NextChange(at)
		n, _ := slices.BinarySearch(changes, i+1)
		if n == len(changes) {
			if ok && next.Before(w.start.Add(time.Duration(margin+minutes)*time.Minute)) {
				t.Fatalf("seed %d, %s, %s: NextChange says %v, and nothing changes\n%s", seed, zoneName, said(i), next, cmp.Diff(nil, spec))
			}
			continue
		}
		if wanted := w.start.Add(time.Duration(changes[n]) * time.Minute); !ok || !next.Equal(wanted) || limits != expected[changes[n]] {
			t.Fatalf("seed %d, %s, %s: NextChange says %v %v, the clock on the wall %s %v\n%s",
				seed, zoneName, said(i), next.In(zone), limits, said(changes[n]), expected[changes[n]], cmp.Diff(nil, spec))
		}
	}
}

// walk returns what holds in each minute of a walk.
func (m model) walk(w walk) []Limits {
	type layer struct{ day, period, hours []Limits } // the highest that is set counts
	layers := make([]layer, len(w.shown))
	type piece struct {
		from, to int64 // shown
		lead     time.Duration
		limits   Limits
		hours    bool
		order    int
	}
	var pieces []piece
	ends := map[int64]bool{}
	firstDay, lastDay := dayShown(w.shown[0])+1, dayShown(w.shown[len(w.shown)-1])
	for d := firstDay - 5; d < lastDay+3; d++ {
		s, name := m.special(d)
		if s != nil && s.SameAs == "" {
			l := m.limits(name, Bounds{})
			if s.Bounds != nil {
				l = m.limits(name, *s.Bounds)
			}
			for i := w.end(d.shown()); i < w.end((d + 1).shown()); i++ {
				layers[i].day = []Limits{l}
			}
		}
		as := ""
		if s != nil && s.SameAs != "usual" {
			as = s.SameAs
		}
		for i := range m.spec.Periods {
			p := &m.spec.Periods[i]
			if s != nil && s.SameAs == "" || !m.starts(p, d, as) && !(as != "" && m.starts(&Period{Days: slices.DeleteFunc(slices.Clone(p.Days),
				func(text string) bool { return len(text) == 3 }), Months: p.Months, Weeks: p.Weeks}, d, "") && hasOther(p.Days)) {
				continue
			}
			from, to := hoursOf(p.Hours)
			pieces = append(pieces, piece{d.shown() + from, d.shown() + to, p.LeadTime, m.limits(p.Name, p.Bounds), false, i})
		}
		if s != nil {
			for _, h := range s.Periods {
				from, to := hoursOf(h.Hours)
				pieces = append(pieces, piece{d.shown() + from, d.shown() + to, h.LeadTime, m.limits(name, *h.Bounds), true, 0})
			}
		}
	}
	for _, p := range pieces {
		ends[p.to] = true
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return a.order - b.order })
	for _, p := range pieces {
		begin, end := w.first(p.from), w.end(p.to)
		if ends[p.from] { // it starts where another ends
			begin = w.end(p.from)
		}
		if end <= begin {
			if p.lead == 0 {
				continue
			}
		}
		for i := max(0, begin-int(p.lead/time.Minute)); i < min(end, len(layers)); i++ {
			list := &layers[i].period
			if p.hours {
				list = &layers[i].hours
			}
			if !slices.ContainsFunc(*list, func(l Limits) bool { return l == p.limits }) {
				*list = append(*list, p.limits)
			}
		}
	}
	result := make([]Limits, len(layers))
	for i, l := range layers {
		list := []Limits{m.limits(DefaultPeriod, Bounds{})}
		switch {
		case l.hours != nil:
			list = l.hours
		case l.period != nil:
			list = l.period
		case l.day != nil:
			list = l.day
		}
		merged := list[0]
		names := []string{merged.Period}
		for _, other := range list[1:] {
			if !slices.Contains(names, other.Period) {
				names = append(names, other.Period)
			}
			merged.MinReplicas = max(merged.MinReplicas, other.MinReplicas)
			merged.MaxReplicas = min(merged.MaxReplicas, other.MaxReplicas)
			merged.Surplus.Replicas = max(merged.Surplus.Replicas, other.Surplus.Replicas)
			merged.Surplus.Percent = max(merged.Surplus.Percent, other.Surplus.Percent)
		}
		merged.Period = strings.Join(names, "+")
		result[i] = merged
	}
	return result
}

// hasOther reports whether days are more than weekdays.
func hasOther(days []string) bool {
	return slices.ContainsFunc(days, func(text string) bool { return len(text) != 3 })
}

func randomCalendar(random *rand.Rand, zone string, start time.Time) *Spec {
	one := func(list ...string) string { return list[random.IntN(len(list))] }
	clock := func() string { return fmt.Sprintf("%02d:%02d", random.IntN(24), 15*random.IntN(4)) }
	day := func() time.Time { return start.AddDate(0, 0, random.IntN(30)) }
	bounds := func(floor int) Bounds {
		b := Bounds{MinReplicas: ptr.To(int32(floor))}
		if random.IntN(3) == 0 {
			b.MaxReplicas = ptr.To(int32(40 + random.IntN(100)))
		}
		b.Surplus = one("", "", "0", "2", "30%", "100%")
		return b
	}
	hours := func() Hours {
		h := Hours{From: clock(), To: clock()}
		switch random.IntN(8) {
		case 0:
			h.To = "24:00"
		case 1:
			h.To += fmt.Sprintf(" +%d", 1+random.IntN(3))
		case 2:
			h = Hours{}
		}
		h.LeadTime = time.Duration(max(0, random.IntN(120)-60)) * time.Minute
		return h
	}
	spec := &Spec{TimeZone: zone}
	if random.IntN(3) == 0 {
		spec.Default = Bounds{MaxReplicas: ptr.To(int32(30 + random.IntN(20)))} // at least every floor
		spec.Default.Surplus = one("", "1", "10%")
	}
	if random.IntN(4) == 0 {
		spec.Weekend = []string{"Fri", "Sat"}
	}
	shared := clock() // where some periods start and others end
	for i := range random.IntN(4) {
		p := Period{Name: fmt.Sprint("p", i), Hours: hours(), Bounds: bounds(i + 1)}
		switch random.IntN(4) {
		case 0:
			p.From = shared
		case 1:
			if p.To = shared; p.From == "" {
				p.From = "00:15"
			}
		}
		for range random.IntN(4) {
			p.Days = append(p.Days, one("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Sun", "Sat", "first Mon", "second Sun", "fifth Fri",
				"last Sun", "last day", "last business day", "first business day", "third business day", "day 15", "day 31", "first day", "day 3-9",
				"last day -2", "last business day -1", "business day", day().Format(time.DateOnly), day().Format("01-02")))
		}
		if random.IntN(6) == 0 {
			p.Months = []string{start.Month().String()[:3], one("Jan", "Feb", "Mar", "Jul")}
		}
		if random.IntN(6) == 0 {
			p.Weeks = &Weeks{Every: 2, From: day().Format(time.DateOnly)}
		}
		spec.Periods = append(spec.Periods, p)
	}
	special := func(floor int) SpecialDay {
		s := SpecialDay{}
		switch random.IntN(4) {
		case 0:
			s.SameAs = one("Mon", "Fri", "Sun", "usual")
		case 1:
		default:
			s.Bounds = ptr.To(bounds(floor))
		}
		if s.Bounds == nil && s.SameAs == "" || random.IntN(3) == 0 {
			for range 1 + random.IntN(2) {
				s.Periods = append(s.Periods, SpecialHours{Hours: hours(), Bounds: ptr.To(bounds(floor + 5))})
			}
		}
		return s
	}
	for i := range random.IntN(3) {
		from := day()
		to := from.AddDate(0, 0, random.IntN(3))
		form := time.DateOnly
		if random.IntN(2) == 0 {
			form = "01-02"
		}
		spec.Exceptions = append(spec.Exceptions, Exception{Name: fmt.Sprint("e", i), From: from.Format(form), To: to.Format(form), SpecialDay: special(10 + i)})
	}
	for range max(0, random.IntN(4)-1) {
		holidays := &Holidays{byDay: map[daykey]int{}}
		for range 1 + random.IntN(3) {
			holidays.add(holiday{days: []daykey{dayIn(day())}})
		}
		spec.Holidays = append(spec.Holidays, HolidayRule{Days: holidays, SpecialDay: special(20)})
	}
	return spec
}

type daykey = day // where day is a function

func TestAgainstWalk(t *testing.T) {
	seeds, weeks := uint64(300), 5
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		checkAgainstWalk(t, seed, weeks)
	}
}

// Whole years, minute by minute, with their clock changes.
func TestYearAgainstWalk(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	for seed := range uint64(10) {
		checkAgainstWalk(t, 1000+seed, 53)
	}
}

func FuzzAgainstWalk(f *testing.F) {
	for seed := range uint64(5) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { checkAgainstWalk(t, seed, 5) })
}
