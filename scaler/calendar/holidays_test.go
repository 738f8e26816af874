package calendar

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func ics(events ...string) string {
	var b strings.Builder
	b.WriteString("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\n")
	for _, event := range events {
		b.WriteString("BEGIN:VEVENT\r\nUID:1\r\n" + strings.ReplaceAll(event, "\n", "\r\n") + "\r\nEND:VEVENT\r\n")
	}
	b.WriteString("END:VCALENDAR\r\n")
	return b.String()
}

func prague(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Prague")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func TestParseHolidays(t *testing.T) {
	cases := map[string]struct {
		event string
		want  []string // dates of 2025 to 2027
	}{
		"one date":               {"DTSTART;VALUE=DATE:20261228\nSUMMARY:Bridge", []string{"2026-12-28 holiday: Bridge"}},
		"end is not included":    {"DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261226", []string{"2026-12-24 holiday", "2026-12-25 holiday"}},
		"over two clock changes": {"DTSTART;VALUE=DATE:20261024\nDTEND;VALUE=DATE:20261026\nRRULE:FREQ=MONTHLY;INTERVAL=5;COUNT=2", []string{"2026-10-24 holiday", "2026-10-25 holiday", "2027-03-24 holiday", "2027-03-25 holiday"}},
		"yearly":                 {"DTSTART;VALUE=DATE:20201117\nRRULE:FREQ=YEARLY", []string{"2025-11-17 holiday", "2026-11-17 holiday", "2027-11-17 holiday"}},
		"first Monday of May":    {"DTSTART;VALUE=DATE:20250505\nRRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=1MO", []string{"2025-05-05 holiday", "2026-05-04 holiday", "2027-05-03 holiday"}},
		"all but one":            {"DTSTART;VALUE=DATE:20251224\nRRULE:FREQ=YEARLY;COUNT=3\nEXDATE;VALUE=DATE:20261224", []string{"2025-12-24 holiday", "2027-12-24 holiday"}},
		"one more":               {"DTSTART;VALUE=DATE:20260101\nRDATE;VALUE=DATE:20260102,20260105", []string{"2026-01-01 holiday", "2026-01-02 holiday", "2026-01-05 holiday"}},
		"cancelled":              {"DTSTART;VALUE=DATE:20260101\nSTATUS:CANCELLED", nil},
		"a time, in its zone":    {"DTSTART;TZID=America/New_York:20260301T200000\nDTEND;TZID=America/New_York:20260301T210000", []string{"2026-03-02 holiday"}},
		"a time in UTC":          {"DTSTART:20260301T233000Z", []string{"2026-03-02 holiday"}},
		"a duration":             {"DTSTART;VALUE=DATE:20260706\nDURATION:P2D", []string{"2026-07-06 holiday", "2026-07-07 holiday"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			holidays, err := ParseHolidays(ics(tc.event), prague(t))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for day, name := range holidays.names {
				if day.year >= 2025 && day.year <= 2027 {
					got = append(got, day.midnightUTC().Format(time.DateOnly)+" "+name)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseHolidaysErrors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"not a calendar": {"holidays: []", "not an iCalendar file"},
		"no event":       {ics(), "holds no event"},
		"no start":       {ics("SUMMARY:Easter"), "event 1 (holiday: Easter): DTSTART is missing"},
		"start":          {ics("DTSTART:tomorrow"), `DTSTART: "tomorrow" is neither a date`},
		"backwards":      {ics("DTSTART;VALUE=DATE:20260102\nDTEND;VALUE=DATE:20260101"), "it ends before it starts"},
		"rule":           {ics("DTSTART;VALUE=DATE:20260102\nRRULE:FREQ=SOMETIMES"), `RRULE "FREQ=SOMETIMES"`},
		"too many":       {ics("DTSTART:20260102T000000Z\nRRULE:FREQ=SECONDLY"), "FREQ must be DAILY, WEEKLY"},
		"zone":           {ics("DTSTART;TZID=Prague:20260102T000000"), `TZID "Prague" must be an IANA time zone`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseHolidays(tc.text, prague(t))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// What beats what, and what a business day is.
func TestHolidaysInCalendar(t *testing.T) {
	holidays, err := ParseHolidays(ics(
		"DTSTART;VALUE=DATE:20261228\nSUMMARY:Bridge", "DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261227\nSUMMARY:Christmas",
		"DTSTART;VALUE=DATE:20261231\nSUMMARY:New Year's Eve",
	), prague(t))
	if err != nil {
		t.Fatal(err)
	}
	spec := workweek()
	spec.Exceptions = spec.Exceptions[:1] // December 24 to 26
	spec.Holidays = &HolidayRule{Days: holidays, Use: "weekend"}
	spec.Periods = append(spec.Periods, Period{
		Name: "closing", Days: []string{"last business day"}, From: "20:00", To: "22:00", Bounds: floor(7),
	})
	c, errs := New(spec, maxReplicas, field.NewPath("spec", "calendar"))
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	for at, want := range map[string]Limits{
		"2026-12-25T10:00:00+01:00": {"christmas", 0, 0, 20}, // the exception
		"2026-12-28T10:00:00+01:00": {"holiday: Bridge", 0, 0, 20},
		"2026-12-29T10:00:00+01:00": {"workday", 5, 3, 200},
		"2026-12-30T21:00:00+01:00": {"closing", 7, 0, 200}, // the 31st is a holiday
		"2026-12-31T21:00:00+01:00": {"holiday: New Year's Eve", 0, 0, 20},
	} {
		instant, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c.Limits(instant)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", at, diff)
		}
	}
	next, limits, ok := c.NextChange(time.Date(2026, 12, 30, 22, 0, 0, 0, prague(t)))
	if want := time.Date(2026, 12, 31, 0, 0, 0, 0, prague(t)); !ok || !next.Equal(want) || limits.Period != "holiday: New Year's Eve" {
		t.Errorf("next change %v to %v, want %v", next, limits, want)
	}
	spec.Holidays.Bounds = ptr.To(floor(1))
	if _, errs := New(spec, maxReplicas, field.NewPath("c")); !strings.Contains(errs.ToAggregate().Error(), "c.holidays.use: Invalid value: \"weekend\": set either use or limits") {
		t.Errorf("error %v", errs.ToAggregate())
	}
}
