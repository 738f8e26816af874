package calendar

import (
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
				Name: "workday", Days: []string{"Mon-Fri"}, From: "07:00", To: "19:00",
				LeadTime: 10 * time.Minute,
				Bounds:   Bounds{MinReplicas: ptr.To[int32](5), IdleReplicas: ptr.To[int32](3)},
			},
			{Name: "weekend", Days: []string{"Sat", "Sun"}, Bounds: Bounds{MaxReplicas: ptr.To[int32](20)}},
			{Name: "backup", Days: []string{"Fri-Mon"}, From: "22:00", To: "02:00", Bounds: floor(1)},
		},
		Exceptions: []Exception{
			{Name: "christmas", From: "2026-12-24", To: "2026-12-26", Use: "weekend"},
			{Name: "new-year", From: "12-31", To: "01-01", Bounds: &Bounds{MaxReplicas: ptr.To[int32](2)}},
		},
	}
}

func TestLimits(t *testing.T) {
	cases := map[string]struct {
		at   string
		want Limits
	}{
		"before the lead time":          {"2026-03-02T06:49:59+01:00", Limits{"default", 0, 0, 200}},
		"lead time":                     {"2026-03-02T06:50:00+01:00", Limits{"workday", 5, 3, 200}},
		"a period's last second":        {"2026-03-02T18:59:59+01:00", Limits{"workday", 5, 3, 200}},
		"the end is not in the period":  {"2026-03-02T19:00:00+01:00", Limits{"default", 0, 0, 200}},
		"overnight, the day after":      {"2026-03-03T01:59:59+01:00", Limits{"backup", 1, 0, 200}},
		"overnight ends":                {"2026-03-03T02:00:00+01:00", Limits{"default", 0, 0, 200}},
		"overnight of a wrapping range": {"2026-03-06T23:00:00+01:00", Limits{"backup", 1, 0, 200}},
		"overlap":                       {"2026-03-07T01:00:00+01:00", Limits{"weekend+backup", 1, 0, 20}},
		"weekend starts at midnight":    {"2026-03-07T02:00:00+01:00", Limits{"weekend", 0, 0, 20}},
		"a dated exception, a Thursday": {"2026-12-24T10:00:00+01:00", Limits{"christmas", 0, 0, 20}},
		"its last minute":               {"2026-12-26T23:59:00+01:00", Limits{"christmas", 0, 0, 20}},
		"a yearly exception":            {"2031-01-01T12:00:00+01:00", Limits{"new-year", 0, 0, 2}},
		"the zone decides the date":     {"2026-12-30T23:30:00Z", Limits{"new-year", 0, 0, 2}},
		// Clocks go from 02:00 to 03:00 on 2026-03-29: the Saturday night's backup ends at the jump, as 02:00 does not exist.
		"before the jump": {"2026-03-29T01:59:59+01:00", Limits{"weekend+backup", 1, 0, 20}},
		"after the jump":  {"2026-03-29T03:00:00+02:00", Limits{"weekend", 0, 0, 20}},
		// Clocks go from 03:00 back to 02:00 on 2026-10-25: the second 02:00 ends the period.
		"the first 02:00 of two":  {"2026-10-25T02:00:00+02:00", Limits{"weekend+backup", 1, 0, 20}},
		"the second 02:00 of two": {"2026-10-25T02:00:00+01:00", Limits{"weekend", 0, 0, 20}},
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
			{Name: "work", Days: []string{"Mon-Fri"}, From: "07:00", To: "19:00", Bounds: Bounds{MinReplicas: ptr.To[int32](30), MaxReplicas: ptr.To[int32](100)}},
			{Name: "late", Days: []string{"Mon"}, From: "18:00", To: "20:00", Bounds: limit(50)},
			{Name: "vast", Days: []string{"Sat"}, Bounds: limit(1000)},
		},
		Exceptions: []Exception{{Name: "launch", From: "2026-11-27", Bounds: ptr.To(limit(150))}},
	})
	for at, want := range map[string]Limits{
		"2026-11-23T06:00:00Z": {"default", 2, 0, 20},
		"2026-11-23T07:00:00Z": {"work", 30, 0, 100},
		"2026-11-23T18:30:00Z": {"work+late", 30, 0, 50},
		"2026-11-23T19:30:00Z": {"late", 2, 0, 50},
		"2026-11-27T12:00:00Z": {"launch", 2, 0, 150},
		"2026-11-28T12:00:00Z": {"vast", 2, 0, maxReplicas},
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
		day         date
		minutes     int
		first, last string
	}{
		"once":     {"Europe/Prague", date{2026, 3, 2}, 7 * 60, "2026-03-02T06:00:00Z", "2026-03-02T06:00:00Z"},
		"midnight": {"Europe/Prague", date{2026, 3, 2}, 1440, "2026-03-02T23:00:00Z", "2026-03-02T23:00:00Z"},
		"skipped":  {"Europe/Prague", date{2026, 3, 29}, 150, "2026-03-29T01:00:00Z", "2026-03-29T01:00:00Z"},
		"twice":    {"Europe/Prague", date{2026, 10, 25}, 150, "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},
		// Half an hour: 02:00 becomes 02:30 on 2026-10-04, and 02:00 becomes 01:30 on 2026-04-05.
		"Lord Howe skips half an hour":   {"Australia/Lord_Howe", date{2026, 10, 4}, 135, "2026-10-03T15:30:00Z", "2026-10-03T15:30:00Z"},
		"Lord Howe repeats half an hour": {"Australia/Lord_Howe", date{2026, 4, 5}, 105, "2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"},
		// The whole of 2011-12-30 was left out at the date line.
		"Apia's missing day": {"Pacific/Apia", date{2011, 12, 30}, 720, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z"},
		// Midnight itself is skipped.
		"Cairo has no midnight": {"Africa/Cairo", date{2026, 4, 24}, 0, "2026-04-23T22:00:00Z", "2026-04-23T22:00:00Z"},
		"Havana's two midnights": {
			"America/Havana", date{2026, 11, 1}, 0, "2026-11-01T04:00:00Z", "2026-11-01T05:00:00Z",
		},
		"a quarter": {"Asia/Kathmandu", date{2026, 3, 2}, 0, "2026-03-01T18:15:00Z", "2026-03-01T18:15:00Z"},
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
			Periods:  []Period{{Name: "night", From: "01:30", To: "02:30", Bounds: floor(1)}},
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
		"empty":     {func(c *Spec) { c.Periods[0].To = "07:00" }, `must differ from from`},
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
