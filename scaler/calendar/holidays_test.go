package calendar

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
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

// Files as producers write them, and the dates that they mean.
func TestParseHolidays(t *testing.T) {
	const berlin = "BEGIN:VTIMEZONE\nTZID:%s\nBEGIN:STANDARD\nDTSTART:16010101T030000\nTZOFFSETFROM:+0200\nTZOFFSETTO:+0100\nRRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10\n" +
		"END:STANDARD\nBEGIN:DAYLIGHT\nDTSTART:16010101T020000\nTZOFFSETFROM:+0100\nTZOFFSETTO:+0200\nRRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3\nEND:DAYLIGHT\nEND:VTIMEZONE\n"
	event := func(text string) string { return "BEGIN:VEVENT\n" + text + "\nEND:VEVENT\n" }
	cases := map[string]struct {
		text    string // of the calendar, or of one event where it does not say BEGIN
		zone    string // default: Europe/Prague
		from    string // and a year on
		want    string
		skipped string // part of the report on an event that was not understood
	}{
		// Found by make fuzz-calendar.
		"an end that clocks skip":   {"DTSTART;TZID=America/Scoresbysund:20160326T233000\nDURATION:PT1H", "America/Scoresbysund", "2016-01-01", "2016-03-26 2016-03-27", ""},
		"an end when clocks jump":   {"DTSTART;TZID=America/Scoresbysund:20160326T230000\nDURATION:PT1H", "America/Scoresbysund", "2016-01-01", "2016-03-26", ""},
		"a skipped end, own clock":  {strings.NewReplacer("%s", "Ours", "T030000", "T010000", "T020000", "T000000").Replace(berlin) + event("DTSTART;TZID=Ours:20260328T233000\nDTEND;TZID=Ours:20260329T003000"), "", "2026-01-01", "2026-03-28 2026-03-29", ""},
		"a rule without a match":    {"DTSTART;VALUE=DATE:20260330\nRRULE:FREQ=DAILY;BYDAY=TH;BYSETPOS=4\nRRULE:FREQ=WEEKLY;COUNT=2", "", "2026-01-01", "2026-03-30 2026-04-06", ""},
		"a day that clocks skip":    {"DTSTART:19941231T090000", "Pacific/Kiritimati", "1994-12-01", "1995-01-01", ""},
		"one date":                  {"DTSTART;VALUE=DATE:20261228\nSUMMARY:Bridge", "", "2026-01-01", "2026-12-28", ""},
		"end is not included":       {"DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261226", "", "2026-01-01", "2026-12-24 2026-12-25", ""},
		"end is the start":          {"DTSTART;VALUE=DATE:20261115\nDTEND;VALUE=DATE:20261115", "", "2026-01-01", "2026-11-15", ""},
		"over two clock changes":    {"DTSTART;VALUE=DATE:20261024\nDTEND;VALUE=DATE:20261026\nRRULE:FREQ=MONTHLY;INTERVAL=5;COUNT=2", "", "2026-06-01", "2026-10-24 2026-10-25 2027-03-24 2027-03-25", ""},
		"yearly":                    {"DTSTART;VALUE=DATE:20201117\nRRULE:FREQ=YEARLY", "", "2099-02-01", "2099-11-17", ""},
		"first Monday of May":       {"DTSTART;VALUE=DATE:20250505\nRRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=1MO", "", "2026-01-01", "2026-05-04", ""},
		"last Monday of May":        {"DTSTART;VALUE=DATE:20260525\nRRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=-1MO;COUNT=3", "", "2027-01-01", "2027-05-31", ""},
		"all but one":               {"DTSTART;VALUE=DATE:20251224\nRRULE:FREQ=YEARLY;COUNT=3\nEXDATE;VALUE=DATE:20261224", "", "2026-06-01", "", ""},
		"one more":                  {"DTSTART;VALUE=DATE:20260101\nRDATE;VALUE=DATE:20260102,20260105", "", "2026-01-01", "2026-01-01 2026-01-02 2026-01-05", ""},
		"periods":                   {"DTSTART:20260201T090000\nRDATE;VALUE=PERIOD:20260301T090000/P2D,20260401T090000/20260402T100000", "", "2026-01-01", "2026-02-01 2026-03-01 2026-03-02 2026-03-03 2026-04-01 2026-04-02", ""},
		"a time, in its zone":       {"DTSTART;TZID=America/New_York:20260301T200000\nDTEND;TZID=America/New_York:20260301T210000", "", "2026-01-01", "2026-03-02", ""},
		"a time in UTC":             {"DTSTART:20260301T233000Z", "", "2026-01-01", "2026-03-02", ""},
		"UTC in spite of a TZID":    {"DTSTART;TZID=America/New_York:20260301T033000Z", "", "2026-01-01", "2026-03-01", ""},
		"midnight in Kathmandu":     {"DTSTART:20260321T181500Z", "Asia/Kathmandu", "2026-01-01", "2026-03-22", ""},
		"a duration":                {"DTSTART;VALUE=DATE:20260706\nDURATION:P2D", "", "2026-01-01", "2026-07-06 2026-07-07", ""},
		"days over a clock change":  {"DTSTART;TZID=Europe/Prague:20260328T000000\nDURATION:P2D", "", "2026-01-01", "2026-03-28 2026-03-29", ""},
		"hours over a clock change": {"DTSTART;TZID=Europe/Prague:20260329T000000\nDURATION:PT24H", "", "2026-01-01", "2026-03-29", ""},
		"weekly over one":           {"DTSTART;TZID=Europe/Prague:20260322T000000\nDTEND;TZID=Europe/Prague:20260323T000000\nRRULE:FREQ=WEEKLY;COUNT=3", "", "2026-01-01", "2026-03-22 2026-03-29 2026-04-05", ""},
		"no midnight in Santiago":   {"DTSTART:20270829T100000\nDTEND:20270829T180000\nRRULE:FREQ=WEEKLY;COUNT=3", "America/Santiago", "2027-01-01", "2027-08-29 2027-09-05 2027-09-12", ""},
		"no midnight, by its zone":  {"DTSTART;TZID=America/Santiago:20270829T000000\nDTEND;TZID=America/Santiago:20270830T000000\nRRULE:FREQ=WEEKLY;COUNT=3", "America/Santiago", "2027-01-01", "2027-08-29 2027-09-05 2027-09-12", ""},
		"no midnight in Beirut":     {"DTSTART;VALUE=DATE:20260329\nRRULE:FREQ=DAILY;COUNT=2", "Asia/Beirut", "2026-01-01", "2026-03-29 2026-03-30", ""},
		"Ramadan in Casablanca":     {"DTSTART:20260321T000000\nDTEND:20260322T000000\nRRULE:FREQ=DAILY;COUNT=3", "Africa/Casablanca", "2026-01-01", "2026-03-21 2026-03-22 2026-03-23", ""},
		"a day that Apia skipped":   {"DTSTART;VALUE=DATE:20111229\nDTEND;VALUE=DATE:20120101", "Pacific/Apia", "2011-01-01", "2011-12-29 2011-12-30 2011-12-31", ""},
		"a date with TZID":          {"DTSTART;VALUE=DATE;TZID=America/New_York:20261224\nDTEND;VALUE=DATE;TZID=America/New_York:20261225", "", "2026-01-01", "2026-12-24", ""},
		"all day, in UTC":           {"DTSTART:20261224T000000Z\nDTEND:20261225T000000Z\nX-MICROSOFT-CDO-ALLDAYEVENT:TRUE", "", "2026-01-01", "2026-12-24", ""},
		"all day, elsewhere":        {"DTSTART;TZID=Tokyo Standard Time:20261224T000000\nDTEND;TZID=Tokyo Standard Time:20261225T000000\nX-MICROSOFT-CDO-ALLDAYEVENT:TRUE", "", "2026-01-01", "2026-12-24", ""},
		"a path to a zone":          {"DTSTART;TZID=/freeassociation.sourceforge.net/Europe/Prague:20260706T080000", "", "2026-01-01", "2026-07-06", ""},
		"quotes":                    {"DTSTART;TZID=\"Europe/Prague\":20260706T080000\nORGANIZER;CN=\"HR: all; here\":mailto:a@b.c", "", "2026-01-01", "2026-07-06", ""},
		"a Windows zone": {
			strings.ReplaceAll(berlin, "%s", "W. Europe Standard Time") + event("DTSTART;TZID=W. Europe Standard Time:20261224T000000\nDTEND;TZID=W. Europe Standard Time:20261225T000000"),
			"", "2026-01-01", "2026-12-24", "",
		},
		"a zone of the file's own": {
			strings.ReplaceAll(berlin, "%s", "Ours") + event("DTSTART;TZID=Ours:20260701T000000\nDTEND;TZID=Ours:20260702T000000") + event("DTSTART;TZID=Ours:20261224T000000\nDTEND;TZID=Ours:20261225T000000"),
			"", "2026-01-01", "2026-07-01 2026-12-24", "",
		},
		"a zone of none":            {"DTSTART;TZID=Prague:20260102T000000", "", "2026-01-01", "", `line 4: DTSTART: the time zone "Prague" is neither an IANA name`},
		"COUNT counts the start":    {"DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=1MO;COUNT=2", "", "2026-01-01", "2026-01-01 2026-05-04", ""},
		"COUNT of 0":                {"DTSTART;VALUE=DATE:20270101\nRRULE:FREQ=YEARLY;COUNT=0", "", "2026-12-01", "2027-01-01", ""},
		"COUNT and UNTIL":           {"DTSTART;VALUE=DATE:20270101\nRRULE:FREQ=MONTHLY;UNTIL=20300101;COUNT=2", "", "2027-01-01", "2027-01-01 2027-02-01", ""},
		"from 1601":                 {"DTSTART;VALUE=DATE:16010101\nRRULE:FREQ=YEARLY", "", "2026-01-01", "2026-01-01 2027-01-01", ""},
		"February 29th":             {"DTSTART;VALUE=DATE:20240229\nRRULE:FREQ=YEARLY", "", "2027-06-01", "2028-02-29", ""},
		"February 29th, or before":  {"DTSTART;VALUE=DATE:20240229\nRRULE:RSCALE=GREGORIAN;FREQ=YEARLY;SKIP=BACKWARD", "", "2025-01-01", "2025-02-28", ""},
		"February 29th, or after":   {"DTSTART;VALUE=DATE:20240229\nRRULE:RSCALE=GREGORIAN;FREQ=YEARLY;SKIP=FORWARD", "", "2025-01-01", "2025-03-01", ""},
		"WKST":                      {"DTSTART;VALUE=DATE:19970805\nRRULE:FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU", "", "1997-01-01", "1997-08-05 1997-08-17 1997-08-19 1997-08-31", ""},
		"Good Friday":               {"DTSTART;VALUE=DATE:20260403\nRRULE:FREQ=YEARLY;BYEASTER=-2;COUNT=3", "", "2027-01-01", "2027-03-26", ""},
		"two rules":                 {"DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=YEARLY;COUNT=2\nRRULE:FREQ=YEARLY;BYMONTH=7;BYMONTHDAY=4;COUNT=2", "", "2026-06-01", "2026-07-04 2027-01-01", ""},
		"a rule that takes away":    {"DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=DAILY;COUNT=5\nEXRULE:FREQ=WEEKLY;BYDAY=WE", "", "2026-01-01", "2026-01-05 2026-01-06 2026-01-08 2026-01-09", ""},
		"no rule":                   {"DTSTART:20270101\nDTEND:20270101\nRRULE:\nSTATUS:CONFIRMED", "", "2027-01-01", "2027-01-01", ""},
		"a semicolon too many":      {"DTSTART;VALUE=DATE:20260706\nRRULE:FREQ=YEARLY;", "", "2026-01-01", "2026-07-06", ""},
		"UNTIL a date, of times":    {"DTSTART;TZID=Europe/Prague:20260301T090000\nRRULE:FREQ=DAILY;UNTIL=20260303", "", "2026-01-01", "2026-03-01 2026-03-02 2026-03-03", ""},
		"UNTIL midnight, as Google": {"DTSTART;VALUE=DATE:20260301\nRRULE:FREQ=DAILY;UNTIL=20260302T230000Z", "", "2026-01-01", "2026-03-01 2026-03-02 2026-03-03", ""},
		"UNTIL midnight of UTC":     {"DTSTART;VALUE=DATE:20260301\nRRULE:FREQ=DAILY;UNTIL=20260303T000000Z", "America/New_York", "2026-01-01", "2026-03-01 2026-03-02 2026-03-03", ""},
		"UNTIL the last second":     {"DTSTART;VALUE=DATE:20260301\nRRULE:FREQ=DAILY;UNTIL=20260302T235959Z", "", "2026-01-01", "2026-03-01 2026-03-02", ""},
		"EXDATE a date, of times":   {"DTSTART;TZID=Europe/Prague:20260215T100000\nRRULE:FREQ=WEEKLY;COUNT=3\nEXDATE;VALUE=DATE:20260222", "", "2026-01-01", "2026-02-15 2026-03-01", ""},
		"EXDATE a time, of dates":   {"DTSTART;VALUE=DATE:20260216\nRRULE:FREQ=DAILY;COUNT=3\nEXDATE;TZID=Europe/Prague:20260217T000000", "", "2026-01-01", "2026-02-16 2026-02-18", ""},
		"EXDATE in UTC, of a zone":  {"DTSTART;TZID=Europe/Prague:20260216T090000\nRRULE:FREQ=DAILY;COUNT=3\nEXDATE:20260217T080000Z", "", "2026-01-01", "2026-02-16 2026-02-18", ""},
		"EXDATE twice":              {"DTSTART;VALUE=DATE:20260201\nRRULE:FREQ=DAILY;COUNT=5\nEXDATE;VALUE=DATE:20260202,20260203\nEXDATE;VALUE=DATE:20260205", "", "2026-01-01", "2026-02-01 2026-02-04", ""},
		"cancelled":                 {"DTSTART;VALUE=DATE:20260101\nstatus:cancelled", "", "2026-01-01", "", ""},
		"a file of cancellations":   {"METHOD:CANCEL\n" + event("UID:1\nDTSTART;VALUE=DATE:20260101"), "", "2026-01-01", "", ""},
		"tentative":                 {"DTSTART;VALUE=DATE:20260706\nSTATUS:TENTATIVE", "", "2026-01-01", "2026-07-06", ""},
		"a make-up workday":         {"DTSTART;VALUE=DATE:20261010\nX-APPLE-SPECIAL-DAY:ALTERNATE-WORKDAY", "", "2026-01-01", "", ""},
		"lower case":                {"begin:vevent\ndtstart;value=date:20260706\nend:vevent\n" + event("DTSTART;VALUE=DATE:20260707"), "", "2026-01-01", "2026-07-06 2026-07-07", ""},
		"space":                     {"DTSTART;VALUE=DATE: 20260706 ", "", "2026-01-01", "2026-07-06", ""},
		"blank lines":               {"\n\nDTSTART;VALUE=DATE:20260706\n\nSUMMARY:x\n  y\n", "", "2026-01-01", "2026-07-06", ""},
		"lines without a colon":     {"DTSTART;VALUE=DATE:20260706\nDESCRIPTION\nnot folded", "", "2026-01-01", "2026-07-06", ""},
		"an alarm":                  {"DTSTART;VALUE=DATE:20260706\nBEGIN:VALARM\nTRIGGER:-PT10M\nDURATION:PT5M\nEND:VALARM", "", "2026-01-01", "2026-07-06", ""},
		"a leap second":             {"DTSTART:20260630T235960Z", "UTC", "2026-01-01", "2026-06-30", ""},
		"a to-do":                   {"BEGIN:VTODO\nDTSTART;VALUE=DATE:20260708\nEND:VTODO\n" + event("DTSTART;VALUE=DATE:20260706") + "X-WR-CALNAME:late\n", "", "2026-01-01", "2026-07-06", ""},
		"one UID for all":           {event("UID:1\nDTSTART;VALUE=DATE:20260501") + event("UID:1\nDTSTART;VALUE=DATE:20260502"), "", "2026-01-01", "2026-05-01 2026-05-02", ""},
		"a newer version":           {event("UID:1\nDTSTART;VALUE=DATE:20260502\nSEQUENCE:2") + event("UID:1\nDTSTART;VALUE=DATE:20260501\nSEQUENCE:1"), "", "2026-01-01", "2026-05-02", ""},
		"cancelled by a newer one":  {event("UID:1\nDTSTART;VALUE=DATE:20260501") + event("UID:1\nDTSTART;VALUE=DATE:20260501\nSEQUENCE:1\nSTATUS:CANCELLED"), "", "2026-01-01", "", ""},
		"one moved":                 {event("UID:m\nDTSTART;VALUE=DATE:20260501\nRRULE:FREQ=YEARLY;COUNT=3") + event("UID:m\nRECURRENCE-ID;VALUE=DATE:20270501\nDTSTART;VALUE=DATE:20270503"), "", "2026-05-01", "2026-05-01 2027-05-03", ""},
		"one cancelled":             {event("UID:m\nRECURRENCE-ID:20260502T000000\nDTSTART:20260502T000000\nSTATUS:CANCELLED") + event("UID:m\nDTSTART;VALUE=DATE:20260501\nRRULE:FREQ=DAILY;COUNT=3"), "", "2026-01-01", "2026-05-01 2026-05-03", ""},
		"one moved twice":           {event("UID:m\nDTSTART;VALUE=DATE:20260501\nRRULE:FREQ=DAILY;COUNT=2") + event("UID:m\nSEQUENCE:2\nRECURRENCE-ID;VALUE=DATE:20260502\nDTSTART;VALUE=DATE:20260510") + event("UID:m\nSEQUENCE:1\nRECURRENCE-ID;VALUE=DATE:20260502\nDTSTART;VALUE=DATE:20260505"), "", "2026-01-01", "2026-05-01 2026-05-10", ""},
		"one of times moved":        {event("UID:m\nDTSTART;TZID=Europe/Prague:20260501T100000\nRRULE:FREQ=DAILY;COUNT=3") + event("UID:m\nRECURRENCE-ID:20260502T080000Z\nDTSTART;TZID=Europe/Prague:20260510T100000"), "", "2026-01-01", "2026-05-01 2026-05-03 2026-05-10", ""},
		"this and all that follow":  {event("UID:m\nDTSTART;VALUE=DATE:20260504\nRRULE:FREQ=WEEKLY;COUNT=4") + event("UID:m\nRECURRENCE-ID;RANGE=THISANDFUTURE;VALUE=DATE:20260518\nDTSTART;VALUE=DATE:20260519\nDTEND;VALUE=DATE:20260521"), "", "2026-01-01", "2026-05-04 2026-05-11 2026-05-19 2026-05-20 2026-05-26 2026-05-27", ""},
		"none that follow":          {event("UID:m\nDTSTART;VALUE=DATE:20260504\nRRULE:FREQ=WEEKLY;COUNT=4") + event("UID:m\nRECURRENCE-ID;RANGE=THISANDFUTURE;VALUE=DATE:20260518\nDTSTART;VALUE=DATE:20260518\nSTATUS:CANCELLED"), "", "2026-01-01", "2026-05-04 2026-05-11", ""},

		"no start":            {"SUMMARY:Easter", "", "2026-01-01", "", "line 3 (Easter): line 3: DTSTART is missing"},
		"a start of words":    {"DTSTART:tomorrow", "", "2026-01-01", "", `line 4: DTSTART: "TOMORROW" is neither a date`},
		"no such date":        {"DTSTART:20260231", "", "2026-01-01", "", `line 4: DTSTART: "20260231"`},
		"two starts":          {"DTSTART:20260201\nDTSTART:20260202", "", "2026-01-01", "", `line 5: a second DTSTART, after the one in line 4`},
		"backwards":           {"DTSTART;VALUE=DATE:20260102\nDTEND;VALUE=DATE:20260101", "", "2026-01-01", "", "line 5: DTEND 20260101 is before DTSTART 20260102"},
		"end and duration":    {"DTSTART;VALUE=DATE:20260102\nDTEND;VALUE=DATE:20260103\nDURATION:P1D", "", "2026-01-01", "", "line 5: DTEND and DURATION"},
		"a duration of words": {"DTSTART;VALUE=DATE:20260102\nDURATION:a day", "", "2026-01-01", "", `line 5: DURATION "a day": must look like P1D`},
		"a rule of words":     {"DTSTART;VALUE=DATE:20260102\nRRULE:FREQ=SOMETIMES", "", "2026-01-01", "", `line 5: RRULE:FREQ=SOMETIMES: FREQ=SOMETIMES: must be DAILY`},
		"every second":        {"DTSTART:20260102T000000Z\nRRULE:FREQ=SECONDLY", "", "2026-01-01", "", "must be DAILY, WEEKLY"},
		"an unknown part":     {"DTSTART;VALUE=DATE:20260102\nRRULE:FREQ=YEARLY;BYMOON=2", "", "2026-01-01", "", "BYMOON=2 is not known"},
		"space in a rule":     {"DTSTART;VALUE=DATE:20260525\nRRULE:FREQ=YEARLY;BYDAY=MO, TU", "", "2026-01-01", "", "BYDAY=MO, TU must be days"},
		"an interval of 0":    {"DTSTART;VALUE=DATE:20270101\nRRULE:FREQ=YEARLY;INTERVAL=0", "", "2026-01-01", "", "INTERVAL=0 must be a number from 1"},
		"UNTIL before":        {"DTSTART;VALUE=DATE:20270101\nRRULE:FREQ=YEARLY;UNTIL=20260101", "", "2026-01-01", "", "UNTIL is before DTSTART"},
		"another scale":       {"DTSTART;VALUE=DATE:20270101\nRRULE:RSCALE=HEBREW;FREQ=YEARLY", "", "2026-01-01", "", "RSCALE=HEBREW only GREGORIAN"},
		"an EXDATE of words":  {"DTSTART;VALUE=DATE:20270101\nEXDATE:never", "", "2026-01-01", "", `line 5: EXDATE: "NEVER" is neither`},
		"EXDATE of nothing":   {"DTSTART;VALUE=DATE:20270101\nEXDATE", "", "2026-01-01", "", `line 5: EXDATE has no value`},
		"one odd of two":      {event("DTSTART:soon") + event("DTSTART;VALUE=DATE:20260706"), "", "2026-01-01", "2026-07-06", `line 3: line 4: DTSTART: "SOON"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(strings.ToUpper(tc.text), "BEGIN:V") || strings.Contains(tc.text, "VALARM") {
				tc.text = event(tc.text)
			}
			zone, err := LoadZone(cmp.Or(tc.zone, "Europe/Prague"))
			if err != nil {
				t.Fatal(err)
			}
			text := "BEGIN:VCALENDAR\nVERSION:2.0\n" + tc.text + "END:VCALENDAR\n"
			for _, text := range []string{text, strings.ReplaceAll(text, "\n", "\r\n")} {
				h, err := ParseHolidays(text, zone)
				if err != nil {
					t.Fatal(err)
				}
				from, err := time.Parse(time.DateOnly, tc.from)
				if err != nil {
					t.Fatal(err)
				}
				list, err := h.List(tc.from, from.AddDate(1, 0, 5).Format(time.DateOnly))
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, holiday := range list {
					got = append(got, holiday.Date)
				}
				if got := strings.Join(got, " "); got != tc.want {
					t.Errorf("%q, want %q", got, tc.want)
				}
				skipped := fmt.Sprint(h.NotUnderstood())
				if (tc.skipped == "") != (len(h.NotUnderstood()) == 0) || !strings.Contains(skipped, tc.skipped) {
					t.Errorf("skipped %s, want %q", skipped, tc.skipped)
				}
				if len(list) == 0 && tc.from != "2026-06-01" && len(h.Skipped()) == 0 {
					t.Error("no holiday, and not a word about it")
				}
			}
		})
	}
}

// A file that is not whole, or not a calendar as we count days, is an error that names the line.
func TestParseHolidaysErrors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"not a calendar":  {"holidays: []", "line 1: not an iCalendar file"},
		"empty":           {"", "line 1: the file is empty"},
		"a web page":      {"\n<html>\n", "line 2: not an iCalendar file"},
		"no event":        {ics(), "line 1: the iCalendar file holds no event"},
		"cut off":         {"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101\n", "line 3: the file ends inside of the VEVENT that began in line 2"},
		"cut off between": {"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101\nEND:VEVENT\n", "line 4: the file ends inside of the VCALENDAR"},
		"a hole":          {"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101\nEND:VCALENDAR\n", "line 4: END:VCALENDAR, but line 2 began VEVENT"},
		"another scale":   {"BEGIN:VCALENDAR\nCALSCALE:ISLAMIC\nEND:VCALENDAR\n", "line 2: CALSCALE ISLAMIC"},
		"too large":       {strings.Repeat("X", maxICS+1), "line 1: the file has 1048577 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseHolidays(tc.text, prague(t))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// What a file calls a holiday becomes a label of a metric and a cell of a table.
func TestHolidayNamesAreHarmless(t *testing.T) {
	for summary, want := range map[string]string{
		`Bridge\, and more\; too`:    "holiday: Bridge, and more; too",
		"line one\\nTARGET   999\tx": "holiday: line one TARGET 999 x",
		"\x1b[31mred\u202e":          "holiday: [31mred",
		"Svatek pr\xe1ce":            "holiday: Svatek pr\ufffdce",
		strings.Repeat("x", 300):     "holiday: " + strings.Repeat("x", maxName) + "…",
		"":                           "holiday",
	} {
		h, err := ParseHolidays(ics("DTSTART:20260101\nSUMMARY:"+summary), time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		if name, is := h.on(dayOf(2026, 1, 1)); !is || name != want || !utf8.ValidString(name) {
			t.Errorf("%q is called %q, want %q", summary, name, want)
		}
	}
}

// cpuTime is what the process has used of processors: a bound on it holds on a busy machine too.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestSelect(t *testing.T) {
	h, err := ParseHolidays(ics(
		"DTSTART:20260101\nSUMMARY:New Year\nCATEGORIES:Public holiday,Bank", "DTSTART:20260214\nSUMMARY:Valentine's Day\nCATEGORIES:Observance\nTRANSP:TRANSPARENT",
		"DTSTART:20261224\nSUMMARY:Christmas Eve (half day)\nCATEGORIES:public HOLIDAY",
	), time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		only, except Filter
		want         string
	}{
		"all":           {Filter{}, Filter{}, "2026-01-01 2026-02-14 2026-12-24"},
		"by category":   {Filter{Categories: []string{"Public Holiday"}}, Filter{}, "2026-01-01 2026-12-24"},
		"all but some":  {Filter{}, Filter{Summaries: []string{"HALF DAY", "new"}}, "2026-02-14"},
		"transparency":  {Filter{Transparency: "Opaque"}, Filter{}, "2026-01-01 2026-12-24"},
		"the other":     {Filter{Transparency: "Transparent"}, Filter{}, "2026-02-14"},
		"both":          {Filter{Categories: []string{"bank", "public holiday"}}, Filter{Summaries: []string{"eve"}}, "2026-01-01"},
		"every of them": {Filter{Categories: []string{"Public holiday"}, Summaries: []string{"year"}}, Filter{}, "2026-01-01"},
	} {
		list, err := h.Select(tc.only, tc.except).List("2026-01-01", "2026-12-31")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, holiday := range list {
			got = append(got, holiday.Date)
		}
		if got := strings.Join(got, " "); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// Whatever is in a file, reading it takes a bounded time, and one event can't take the others away.
func TestParseHolidaysIsBounded(t *testing.T) {
	list := func(from, to int) string {
		var texts []string
		for i := from; i <= to; i++ {
			texts = append(texts, fmt.Sprint(i))
		}
		return strings.Join(texts, ",")
	}
	hours := "BYHOUR=" + list(0, 23) + ";BYMINUTE=" + list(0, 59) + ";BYSECOND=" + list(0, 59)
	many := func(event string, n int) string { return ics(slices.Repeat([]string{event}, n)...) }
	for name, text := range map[string]string{
		"every second of every day":  ics("DTSTART:20000101T000000Z\nRRULE:FREQ=DAILY;"+hours, "DTSTART:20260706"),
		"of every zone":              ics("DTSTART;TZID=America/New_York:20000101T000000\nRRULE:FREQ=DAILY;"+hours, "DTSTART:20260706"),
		"many times, never":          many("DTSTART:20000101T000000Z\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;"+hours, 1000),
		"ten thousand years":         ics("DTSTART;VALUE=DATE:00010101\nDTEND;VALUE=DATE:99991231", "DTSTART:20260706"),
		"ten thousand years, weekly": many("DTSTART;VALUE=DATE:00010101\nDTEND;VALUE=DATE:99991231\nRRULE:FREQ=WEEKLY", 1000),
		"never":                      many("DTSTART;VALUE=DATE:00010101\nRRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", 5000),
		"rarely":                     many("DTSTART;VALUE=DATE:16010101\nRRULE:FREQ=YEARLY;BYWEEKNO=53;BYDAY=SU;BYSETPOS=-1", 5000),
		"daily, of times":            many("DTSTART;TZID=America/New_York:19000101T000000\nRRULE:FREQ=DAILY", 5000),
		"many zones":                 many("DTSTART;TZID=x/y/z/%d:20260101T000000", 12_000),
		"a long list of days":        ics("DTSTART:20260101T000000\nRDATE:" + strings.Repeat("20260101T000000,", 50_000) + "20260101"),
		"many changes":               many("DTSTART:20260101\nRECURRENCE-ID:20260101\nRRULE:FREQ=DAILY", 2),
	} {
		t.Run(name, func(t *testing.T) {
			if n := strings.Count(text, "%d"); n > 0 { // a zone of its own for each
				var numbers []any
				for i := range n {
					numbers = append(numbers, i)
				}
				text = fmt.Sprintf(text, numbers...)
			}
			begin := cpuTime(t)
			h, err := ParseHolidays(text, prague(t))
			took := cpuTime(t) - begin
			if err != nil {
				t.Fatal(err)
			}
			if took > 300*time.Millisecond { // some 50 ms; busy machines share caches
				t.Errorf("it took %s", took)
			}
			if _, is := h.on(dayOf(2026, 7, 6)); strings.Contains(text, "20260706") && !is {
				t.Errorf("one event took another away: %v", h.Skipped())
			}
			t.Log(took, h.Len(), "dates;", len(h.NotUnderstood()), "events not understood")
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
	spec.Holidays = []HolidayRule{{Days: holidays, SpecialDay: SpecialDay{Use: "weekend"}}}
	spec.Periods = append(spec.Periods, Period{
		Name: "closing", Days: []string{"last business day"}, Hours: Hours{From: "20:00", To: "22:00"}, Bounds: floor(7),
	})
	c, errs := New(spec, maxReplicas, field.NewPath("spec", "calendar"))
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	for at, want := range map[string]Limits{
		"2026-12-25T10:00:00+01:00": {"christmas", 0, 0, 20, Surplus{}}, // the exception
		"2026-12-28T10:00:00+01:00": {"holiday: Bridge", 0, 0, 20, Surplus{}},
		"2026-12-29T10:00:00+01:00": {"workday", 5, 3, 200, Surplus{}},
		"2026-12-30T21:00:00+01:00": {"closing", 7, 0, 200, Surplus{}}, // the 31st is a holiday
		"2026-12-31T21:00:00+01:00": {"holiday: New Year's Eve", 0, 0, 20, Surplus{}},
	} {
		instant, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want, c.Limits(instant)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", at, diff)
		}
	}
	next, limits, ok := c.NextChange(time.Date(2026, 12, 30, 22, 0, 0, 0, prague(t)))
	if want := time.Date(2026, 12, 31, 0, 0, 0, 0, prague(t)); !ok || !next.Equal(want) || limits.Period != "holiday: New Year's Eve" {
		t.Errorf("next change %v to %v, want %v", next, limits, want)
	}
	spec.Holidays[0].Bounds = ptr.To(floor(1))
	if _, errs := New(spec, maxReplicas, field.NewPath("c")); !strings.Contains(errs.ToAggregate().Error(), "c.holidays.use: Invalid value: \"weekend\": set either use or limits") {
		t.Errorf("error %v", errs.ToAggregate())
	}
}
