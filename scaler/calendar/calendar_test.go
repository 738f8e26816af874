package calendar

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const maxReplicas = 200

func compile(t *testing.T, spec *Spec) *Calendar {
	t.Helper()
	c, errs := New(spec, maxReplicas, field.NewPath("spec", "calendar"))
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	return c
}

func floor(n int32) Bounds { return Bounds{MinReplicas: ptr.To(n)} }

func workweek() *Spec {
	return &Spec{
		TimeZone: "Europe/Prague",
		Periods: []Period{
			{
				Name: "workday", Days: []string{"Mon-Fri"}, Hours: Hours{From: "07:00", To: "19:00", LeadTime: 10 * time.Minute},
				Bounds: Bounds{MinReplicas: ptr.To[int32](5), IdleReplicas: ptr.To[int32](3)},
			},
			{Name: "weekend", Days: []string{"Sat", "Sun"}, Bounds: Bounds{MaxReplicas: ptr.To[int32](20)}},
			{Name: "backup", Days: []string{"Fri-Mon"}, Hours: Hours{From: "22:00", To: "02:00"}, Bounds: floor(1)},
		},
		Exceptions: []Exception{
			{Name: "christmas", From: "2026-12-24", To: "2026-12-26", SpecialDay: SpecialDay{Use: "weekend"}},
			{Name: "new-year", From: "12-31", To: "01-01", SpecialDay: SpecialDay{Bounds: &Bounds{MaxReplicas: ptr.To[int32](2)}}},
		},
	}
}

func TestLimits(t *testing.T) {
	cases := map[string]struct {
		at   string
		want Limits
	}{
		"before the lead time":          {"2026-03-02T06:49:59+01:00", Limits{"default", 0, 0, 200, Surplus{}}},
		"lead time":                     {"2026-03-02T06:50:00+01:00", Limits{"workday", 5, 3, 200, Surplus{}}},
		"a period's last second":        {"2026-03-02T18:59:59+01:00", Limits{"workday", 5, 3, 200, Surplus{}}},
		"the end is not in the period":  {"2026-03-02T19:00:00+01:00", Limits{"default", 0, 0, 200, Surplus{}}},
		"overnight, the day after":      {"2026-03-03T01:59:59+01:00", Limits{"backup", 1, 0, 200, Surplus{}}},
		"overnight ends":                {"2026-03-03T02:00:00+01:00", Limits{"default", 0, 0, 200, Surplus{}}},
		"overnight of a wrapping range": {"2026-03-06T23:00:00+01:00", Limits{"backup", 1, 0, 200, Surplus{}}},
		"overlap":                       {"2026-03-07T01:00:00+01:00", Limits{"weekend+backup", 1, 0, 20, Surplus{}}},
		"weekend starts at midnight":    {"2026-03-07T02:00:00+01:00", Limits{"weekend", 0, 0, 20, Surplus{}}},
		"a dated exception, a Thursday": {"2026-12-24T10:00:00+01:00", Limits{"christmas", 0, 0, 20, Surplus{}}},
		"its last minute":               {"2026-12-26T23:59:00+01:00", Limits{"christmas", 0, 0, 20, Surplus{}}},
		"a yearly exception":            {"2031-01-01T12:00:00+01:00", Limits{"new-year", 0, 0, 2, Surplus{}}},
		"the zone decides the date":     {"2026-12-30T23:30:00Z", Limits{"new-year", 0, 0, 2, Surplus{}}},
		// Clocks go from 02:00 to 03:00 on 2026-03-29: the Saturday night's backup ends at the jump, as 02:00 does not exist.
		"before the jump": {"2026-03-29T01:59:59+01:00", Limits{"weekend+backup", 1, 0, 20, Surplus{}}},
		"after the jump":  {"2026-03-29T03:00:00+02:00", Limits{"weekend", 0, 0, 20, Surplus{}}},
		// Clocks go from 03:00 back to 02:00 on 2026-10-25: the second 02:00 ends the period.
		"the first 02:00 of two":  {"2026-10-25T02:00:00+02:00", Limits{"weekend+backup", 1, 0, 20, Surplus{}}},
		"the second 02:00 of two": {"2026-10-25T02:00:00+01:00", Limits{"weekend", 0, 0, 20, Surplus{}}},
	}
	c := compile(t, workweek())
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, tc.at)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, c.Limits(at)); diff != "" {
				t.Errorf("limits at %s (-want +got):\n%s", tc.at, diff)
			}
		})
	}
}

// What a period or a special day states replaces the default's, caps included. Only the ceiling bounds everything.
func TestStatedReplacesDefault(t *testing.T) {
	limit := func(n int32) Bounds { return Bounds{MaxReplicas: ptr.To(n)} }
	c := compile(t, &Spec{
		Default: Bounds{MinReplicas: ptr.To[int32](2), MaxReplicas: ptr.To[int32](20)},
		Periods: []Period{
			{Name: "work", Days: []string{"Mon-Fri"}, Hours: Hours{From: "07:00", To: "19:00"}, Bounds: Bounds{MinReplicas: ptr.To[int32](30), MaxReplicas: ptr.To[int32](100)}},
			{Name: "late", Days: []string{"Mon"}, Hours: Hours{From: "18:00", To: "20:00"}, Bounds: limit(50)},
			{Name: "vast", Days: []string{"Sat"}, Bounds: limit(1000)},
		},
		Exceptions: []Exception{{Name: "launch", From: "2026-11-27", SpecialDay: SpecialDay{Bounds: ptr.To(limit(150))}}},
	})
	for at, want := range map[string]Limits{
		"2026-11-23T06:00:00Z": {"default", 2, 0, 20, Surplus{}},
		"2026-11-23T07:00:00Z": {"work", 30, 0, 100, Surplus{}},
		"2026-11-23T18:30:00Z": {"work+late", 30, 0, 50, Surplus{}},
		"2026-11-23T19:30:00Z": {"late", 2, 0, 50, Surplus{}},
		"2026-11-27T12:00:00Z": {"launch", 2, 0, 150, Surplus{}},
		"2026-11-28T12:00:00Z": {"vast", 2, 0, maxReplicas, Surplus{}},
	} {
		instant, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c.Limits(instant)); diff != "" {
			t.Errorf("at %s (-want +got):\n%s", at, diff)
		}
	}
}

func TestWall(t *testing.T) {
	cases := map[string]struct {
		zone        string
		day         day
		minutes     int
		first, last string
	}{
		"once":     {"Europe/Prague", dayOf(2026, 3, 2), 7 * 60, "2026-03-02T06:00:00Z", "2026-03-02T06:00:00Z"},
		"midnight": {"Europe/Prague", dayOf(2026, 3, 2), 1440, "2026-03-02T23:00:00Z", "2026-03-02T23:00:00Z"},
		"skipped":  {"Europe/Prague", dayOf(2026, 3, 29), 150, "2026-03-29T01:00:00Z", "2026-03-29T01:00:00Z"},
		"twice":    {"Europe/Prague", dayOf(2026, 10, 25), 150, "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},
		// Half an hour: 02:00 becomes 02:30 on 2026-10-04, and 02:00 becomes 01:30 on 2026-04-05.
		"Lord Howe skips half an hour":   {"Australia/Lord_Howe", dayOf(2026, 10, 4), 135, "2026-10-03T15:30:00Z", "2026-10-03T15:30:00Z"},
		"Lord Howe repeats half an hour": {"Australia/Lord_Howe", dayOf(2026, 4, 5), 105, "2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"},
		// The whole of 2011-12-30 was left out at the date line.
		"Apia's missing day": {"Pacific/Apia", dayOf(2011, 12, 30), 720, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z"},
		// Midnight itself is skipped.
		"Cairo has no midnight": {"Africa/Cairo", dayOf(2026, 4, 24), 0, "2026-04-23T22:00:00Z", "2026-04-23T22:00:00Z"},
		"Havana's two midnights": {
			"America/Havana", dayOf(2026, 11, 1), 0, "2026-11-01T04:00:00Z", "2026-11-01T05:00:00Z",
		},
		"a quarter": {"Asia/Kathmandu", dayOf(2026, 3, 2), 0, "2026-03-01T18:15:00Z", "2026-03-01T18:15:00Z"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			zone, err := time.LoadLocation(tc.zone)
			if err != nil {
				t.Fatal(err)
			}
			for which, want := range map[occurrence]string{first: tc.first, last: tc.last} {
				if got := wall(zone, tc.day, tc.minutes, which).UTC().Format(time.RFC3339); got != want {
					t.Errorf("last=%v: %s, want %s", which, got, want)
				}
			}
		})
	}
}

// A period's length in wall-clock minutes is what the policy says on every day without a clock change, and a change
// neither loses nor doubles a period: it starts exactly once on each of its days.
func TestPeriodsStartOncePerDay(t *testing.T) {
	for _, zone := range []string{"Europe/Prague", "America/New_York", "Australia/Lord_Howe", "America/Havana"} {
		c := compile(t, &Spec{
			TimeZone: zone,
			Periods:  []Period{{Name: "night", Hours: Hours{From: "01:30", To: "02:30"}, Bounds: floor(1)}},
		})
		from := time.Date(2024, 1, 1, 12, 0, 0, 0, time.UTC)
		starts := 0
		for _, span := range c.Timeline(from, from.AddDate(2, 0, 0)) {
			if span.Limits.Period == "night" {
				starts++
			}
		}
		if want := 366 + 365; starts != want {
			t.Errorf("%s: %d periods in two years, want %d", zone, starts, want)
		}
	}
}

func TestNextChange(t *testing.T) {
	c := compile(t, workweek())
	at := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	next, limits, ok := c.NextChange(at)
	if want := time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC); !ok || !next.Equal(want) || limits.Period != DefaultPeriod {
		t.Errorf("%v %v %v, want %v %s", next, limits, ok, want, DefaultPeriod)
	}
	always := compile(t, &Spec{TimeZone: "UTC", Periods: []Period{{Name: "always", Bounds: floor(1)}}})
	if next, limits, ok := always.NextChange(at); ok {
		t.Errorf("a calendar that never changes changes at %v to %v", next, limits)
	}
}

func TestErrors(t *testing.T) {
	cases := map[string]struct {
		change func(*Spec)
		want   string
	}{
		"zone":      {func(c *Spec) { c.TimeZone = "Prague" }, `spec.calendar.timeZone: Invalid value: "Prague": must be an IANA`},
		"day":       {func(c *Spec) { c.Periods[0].Days = []string{"Mo"} }, `periods[0].days: Invalid value: "Mo": "Mo" must be a day (Mon,`},
		"month day": {func(c *Spec) { c.Periods[0].Days = []string{"day 32"} }, `"day 32": a month has days 1 to 31`},
		"sixth":     {func(c *Spec) { c.Periods[0].Days = []string{"sixth Mon"} }, `"sixth Mon" must be a day`},
		"from":      {func(c *Spec) { c.Periods[0].From = "7:00" }, `periods[0].from: Invalid value: "7:00": must be a time HH:MM`},
		"to":        {func(c *Spec) { c.Periods[0].To = "24:01" }, `periods[0].to: Invalid value: "24:01"`},
		"from 24":   {func(c *Spec) { c.Periods[0].From = "24:00" }, `periods[0].from: Invalid value: "24:00"`},
		"empty":     {func(c *Spec) { c.Periods[0].To = ""; c.Periods[0].From = "24:30" }, `periods[0].from`},
		"lead":      {func(c *Spec) { c.Periods[0].LeadTime = 25 * time.Hour }, `periods[0].leadTime: Invalid value: "25h0m0s": must be from 0s to 24h`},
		"twice":     {func(c *Spec) { c.Periods[1].Name = "workday" }, `periods[1].name: Duplicate value: "workday"`},
		"floor":     {func(c *Spec) { c.Periods[0].Bounds.MinReplicas = ptr.To[int32](201) }, `periods[0].limits.minReplicas: Invalid value: 201: the floor must not exceed the cap of 200, which is target.maxReplicas`},
		"negative":  {func(c *Spec) { c.Periods[0].Bounds.IdleReplicas = ptr.To[int32](-1) }, `periods[0].limits.idleReplicas: Invalid value: -1`},
		"overlap": {
			func(c *Spec) { c.Periods[2].Bounds = floor(21) },
			`period "backup" overlaps "weekend", whose cap is 20`,
		},
		"no such period":  {func(c *Spec) { c.Exceptions[0].Use = "holiday" }, `exceptions[0].use: Unsupported value: "holiday"`},
		"date":            {func(c *Spec) { c.Exceptions[0].From = "24.12." }, `exceptions[0].from: Invalid value: "24.12."`},
		"backwards":       {func(c *Spec) { c.Exceptions[0].To = "2026-12-01" }, `must not be before from, 2026-12-24`},
		"one with a year": {func(c *Spec) { c.Exceptions[0].To = "12-26" }, `must both have a year, or neither`},
		"use and limits":  {func(c *Spec) { c.Exceptions[1].Use = "weekend" }, `set either use or limits`},
		"the default's cap": {
			func(c *Spec) { c.Default.MaxReplicas = ptr.To[int32](4) },
			`periods[0].limits.minReplicas: Invalid value: 5: the floor must not exceed the cap of 4, which is default.maxReplicas, as no maxReplicas is stated here`,
		},
		"the default's floor": {
			func(c *Spec) { c.Default = floor(30) },
			`periods[1].limits.minReplicas: Invalid value: 30: the floor must not exceed the cap of 20, which is maxReplicas; the floor is default.minReplicas`,
		},
		"default's limits": {func(c *Spec) { c.Default = floor(300) }, `spec.calendar.default.minReplicas: Invalid value: 300`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			spec := workweek()
			tc.change(spec)
			_, errs := New(spec, maxReplicas, field.NewPath("spec", "calendar"))
			if err := errs.ToAggregate(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func BenchmarkLimits(b *testing.B) {
	for name, step := range map[string]time.Duration{"next second": time.Second, "another day": 25 * time.Hour} {
		b.Run(name, func(b *testing.B) {
			c, errs := New(workweek(), maxReplicas, nil)
			if len(errs) > 0 {
				b.Fatal(errs)
			}
			at := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
			b.ReportAllocs()
			for b.Loop() {
				at = at.Add(step)
				c.Limits(at)
			}
		})
	}
}

func TestDay(t *testing.T) {
	for d := dayOf(-5, 1, 1); d < dayOf(2410, 1, 1); d++ {
		year, m, n := d.civil()
		if wantYear, wantMonth, want := d.utc().Date(); year != wantYear || m != wantMonth || n != want || dayOf(year, m, n) != d || d.weekday() != d.utc().Weekday() {
			t.Fatalf("day %d: %d-%d-%d, %s, want %s", d, year, m, n, d.weekday(), d)
		}
	}
}

// Whatever an author writes, compiling it and asking it take a bounded time.
func TestCompileIsBounded(t *testing.T) {
	var dates []string
	for i := range maxDays {
		dates = append(dates, fmt.Sprintf("%02d-%02d to %02d-%02d", 1+i%12, 1+i%28, 1+(i+5)%12, 1+i%27))
	}
	monthly := slices.Repeat([]string{"last business day", "fifth Mon", "third business day", "last business day -3"}, maxDays/4)
	spec := func(days []string, change func(*Period)) *Spec {
		s := &Spec{TimeZone: "Europe/Prague"}
		for i := range maxPeriods {
			p := Period{
				Name: fmt.Sprint("p", i), Days: append(slices.Clone(days[:maxDays-1]), fmt.Sprintf("day %d", 1+i%28)),
				Hours: Hours{From: fmt.Sprintf("%02d:%02d", i/3, 20*(i%3)), To: fmt.Sprintf("%02d:%02d", i/3, 20*(i%3)+10)}, Bounds: floor(10),
			}
			if i%2 == 1 {
				p.Bounds = Bounds{MaxReplicas: ptr.To[int32](5)}
			}
			if change != nil {
				change(&p)
			}
			s.Periods = append(s.Periods, p)
		}
		return s
	}
	exceptions := func(s *Spec, special SpecialDay) *Spec {
		for i := range maxExceptions {
			from := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, 79*i)
			s.Exceptions = append(s.Exceptions, Exception{
				Name: fmt.Sprint("e", i), From: from.Format(time.DateOnly), To: from.AddDate(0, 0, 79).Format(time.DateOnly), SpecialDay: special,
			})
		}
		return s
	}
	never := &Spec{Periods: []Period{{Name: "a", Hours: Hours{From: "02:00", To: "02:00"}, Bounds: floor(1)}}}
	for name, s := range map[string]*Spec{
		"business days": spec(monthly, nil),
		"dates":         spec(dates, nil),
		"rarely":        spec(monthly, func(p *Period) { p.Months, p.Weeks = []string{"Feb"}, &Weeks{Every: 52, From: "2026-01-05"} }),
		"a month long": spec(monthly, func(p *Period) {
			p.To = "23:59 +31"
			p.Bounds = Bounds{MinReplicas: ptr.To[int32](1), MaxReplicas: ptr.To[int32](9)}
		}),
		"exceptions":           exceptions(spec(monthly, nil), SpecialDay{SameAs: "Fri"}),
		"exceptions of nobody": exceptions(spec(monthly, nil), SpecialDay{SameAs: "usual"}),
		"no change":            exceptions(never, SpecialDay{SameAs: "Mon"}),
	} {
		t.Run(name, func(t *testing.T) {
			begin := cpuTime(t)
			c, errs := New(s, maxReplicas, field.NewPath("c"))
			compiled := cpuTime(t) - begin
			at := time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)
			begin = cpuTime(t)
			c.Limits(at)
			asked := cpuTime(t) - begin
			begin = cpuTime(t)
			next, _, ok := c.NextChange(at)
			sought := cpuTime(t) - begin
			t.Log(compiled, asked, sought, next, ok, len(errs))
			if compiled > 300*time.Millisecond || asked > 50*time.Millisecond || sought > time.Second { // busy machines share caches
				t.Errorf("compiled in %s, asked in %s, next change in %s", compiled, asked, sought)
			}
		})
	}
}

// Days and hours that people name, and what they mean.
func TestForms(t *testing.T) {
	for name, tc := range map[string]struct {
		period Period
		at     map[string]bool // in force
	}{
		"any case":       {Period{Days: []string{"mon-fri", "SUNDAY"}}, map[string]bool{"2026-11-27T10:00": true, "2026-11-28T10:00": false, "2026-11-29T10:00": true}},
		"24 hours":       {Period{Days: []string{"Fri"}, Hours: Hours{From: "06:00", To: "06:00"}}, map[string]bool{"2026-11-28T05:59": true, "2026-11-28T06:00": false}},
		"a weekend":      {Period{Days: []string{"fri"}, Hours: Hours{From: "18:00", To: "mon 06:00"}}, map[string]bool{"2026-11-29T12:00": true, "2026-11-30T05:59": true, "2026-11-30T06:00": false}},
		"a week":         {Period{Days: []string{"Fri"}, Weeks: &Weeks{2, "2026-11-23"}, Hours: Hours{From: "18:00", To: "Fri 18:00"}}, map[string]bool{"2026-12-04T17:59": true, "2026-12-04T18:00": false}},
		"days later":     {Period{Days: []string{"day 1"}, Hours: Hours{From: "20:00", To: "06:00 +3"}}, map[string]bool{"2026-12-04T05:00": true, "2026-12-04T06:00": false}},
		"before last":    {Period{Days: []string{"last day - 2"}}, map[string]bool{"2026-11-28T00:00": true, "2026-11-29T00:00": false}},
		"business days":  {Period{Days: []string{"business day 2-3"}}, map[string]bool{"2026-12-01T00:00": false, "2026-12-02T00:00": true, "2026-12-03T12:00": true, "2026-12-04T00:00": false}},
		"quarters":       {Period{Days: []string{"last day"}, Months: []string{"Mar", "jun", "September", "Dec"}}, map[string]bool{"2026-12-31T00:00": true, "2026-11-30T00:00": false}},
		"winter":         {Period{Months: []string{"Nov-Feb"}}, map[string]bool{"2026-12-15T00:00": true, "2026-02-28T00:00": true, "2026-03-01T00:00": false}},
		"every two":      {Period{Days: []string{"Wed"}, Weeks: &Weeks{2, "2026-01-09"}}, map[string]bool{"2026-01-07T00:00": true, "2026-01-14T00:00": false, "2025-12-24T00:00": true}},
		"dates":          {Period{Days: []string{"2026-11-27", "12-24 to 01-02", "2026-03-01 to 2026-03-03"}}, map[string]bool{"2026-11-27T00:00": true, "2027-11-27T00:00": false, "2027-01-01T00:00": true, "2026-03-03T00:00": true, "2026-03-04T00:00": false}},
		"no 29 February": {Period{Days: []string{"2027-02-29"}}, map[string]bool{"2027-02-28T12:00": false, "2027-03-01T00:00": true}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.period.Name = "p"
			c := compile(t, &Spec{Periods: []Period{tc.period}})
			for text, want := range tc.at {
				at, err := time.Parse("2006-01-02T15:04", text)
				if err != nil {
					t.Fatal(err)
				}
				if got := c.Limits(at).Period == "p"; got != want {
					t.Errorf("in force at %s: %v", text, got)
				}
			}
		})
	}
	for name, tc := range map[string]struct {
		period Period
		want   string
	}{
		"two days to one": {Period{Days: []string{"Fri", "Sat"}, Hours: Hours{To: "Mon 06:00"}}, "days must name one too, and only one"},
		"both":            {Period{Days: []string{"Fri"}, Hours: Hours{To: "Mon 06:00 +2"}}, "periods[0].to"},
		"much later":      {Period{Hours: Hours{To: "06:00 +32"}}, "must be from 1 to 31 days later"},
		"month":           {Period{Months: []string{"Brumaire"}}, `"Brumaire" must be a month (Jan)`},
		"weeks":           {Period{Weeks: &Weeks{0, "2026-01-05"}}, "every: must be from 1 to 52, not 0"},
		"week's date":     {Period{Weeks: &Weeks{2, "01-05"}}, `from: "01-05" must be a date such as`},
		"a date":          {Period{Days: []string{"2026-02-30"}}, `"2026-02-30" must be a date`},
		"backwards":       {Period{Days: []string{"2026-02-20 to 2026-02-10"}}, `must not be before from, 2026-02-20`},
		"day 5-1":         {Period{Days: []string{"day 5-1"}}, "a month has days 1 to 31"},
		"first day -1":    {Period{Days: []string{"first day -1"}}, `"first day -1" must be a day`},
		"a line break":    {Period{Name: "a\nb"}, "must be printable characters on one line"},
	} {
		if tc.period.Name == "" {
			tc.period.Name = "p"
		}
		if _, errs := New(&Spec{Periods: []Period{tc.period}}, 100, field.NewPath("c")); !strings.Contains(fmt.Sprint(errs.ToAggregate()), tc.want) {
			t.Errorf("%s: error %v, want %q", name, errs.ToAggregate(), tc.want)
		}
	}
}

// Where exceptions share dates the first in the list holds; one that never does is an error.
func TestHiddenExceptions(t *testing.T) {
	for name, tc := range map[string]struct {
		first, second [2]string
		hidden        bool
	}{
		"a date in winter":      {[2]string{"12-01", "02-28"}, [2]string{"2026-12-10", ""}, true},
		"winter after a date":   {[2]string{"2026-12-10", ""}, [2]string{"12-01", "02-28"}, false},
		"partly":                {[2]string{"12-01", "12-20"}, [2]string{"12-15", "12-31"}, false},
		"a longer one":          {[2]string{"12-01", "12-20"}, [2]string{"2026-12-15", "2027-12-10"}, false},
		"the same":              {[2]string{"12-24", ""}, [2]string{"12-24", ""}, true},
		"one year of many":      {[2]string{"2026-12-24", ""}, [2]string{"12-24", ""}, false},
		"February 29th of none": {[2]string{"02-29", ""}, [2]string{"2027-02-01", "2027-02-28"}, false},
	} {
		spec := &Spec{Exceptions: []Exception{
			{Name: "one", From: tc.first[0], To: tc.first[1], SpecialDay: SpecialDay{Bounds: ptr.To(floor(1))}},
			{Name: "two", From: tc.second[0], To: tc.second[1], SpecialDay: SpecialDay{Bounds: ptr.To(floor(2))}},
		}}
		if _, errs := New(spec, 100, field.NewPath("c")); (len(errs) > 0) != tc.hidden {
			t.Errorf("%s: %v", name, errs.ToAggregate())
		}
	}
}

// A period that starts where another ends starts at that end, in the doubled hour too, so a floor never meets the other's cap.
func TestBackToBack(t *testing.T) {
	c := compile(t, &Spec{TimeZone: "Europe/Prague", Periods: []Period{
		{Name: "night", Hours: Hours{From: "22:00", To: "02:30"}, Bounds: Bounds{MaxReplicas: ptr.To[int32](20)}},
		{Name: "early", Hours: Hours{From: "02:30", To: "06:00"}, Bounds: floor(30)},
	}})
	from := time.Date(2026, 10, 24, 23, 30, 0, 0, time.UTC)
	var got []string
	for _, s := range c.Timeline(from, from.Add(6*time.Hour)) {
		got = append(got, s.From.UTC().Format("15:04 ")+s.Limits.Period)
	}
	if want := "23:30 night, 01:30 early, 05:00 default"; strings.Join(got, ", ") != want {
		t.Errorf("%s, want %s", strings.Join(got, ", "), want)
	}
}

func TestReadClock(t *testing.T) {
	for text, want := range map[string]string{
		"2026-03-29T02:30": "2026-03-29T03:00:00+02:00 clocks skip",
		"2026-10-25T02:30": "2026-10-25T02:30:00+02:00 clocks show",
		"2026-10-25T03:00": "2026-10-25T03:00:00+01:00 ",
	} {
		shows, err := time.Parse("2006-01-02T15:04", text)
		if err != nil {
			t.Fatal(err)
		}
		r := ReadClock(prague(t), shows)
		if got := r.Time.Format(time.RFC3339) + " " + r.Note; !strings.HasPrefix(got, want) || want[len(want)-1] == ' ' && got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
