package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

const testHolidays = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\n" +
	"BEGIN:VEVENT\r\nUID:1\r\nDTSTART;VALUE=DATE:20261224\r\nDTEND;VALUE=DATE:20261227\r\nSUMMARY:Christmas\r\nCATEGORIES:Public\r\nRRULE:FREQ=YEARLY;COUNT=3\r\nEND:VEVENT\r\n" +
	"BEGIN:VEVENT\r\nUID:2\r\nDTSTART;VALUE=DATE:20261115\r\nSTATUS:CANCELLED\r\nSUMMARY:Off\r\nEND:VEVENT\r\n" +
	"BEGIN:VEVENT\r\nUID:3\r\nDTSTART;TZID=Nowhere:20261101T000000\r\nSUMMARY:Bridge\r\nEND:VEVENT\r\n" +
	"BEGIN:VEVENT\r\nUID:4\r\nDTSTART;VALUE=DATE:20260706\r\nSUMMARY:Company day\r\nTRANSP:TRANSPARENT\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"

func TestHolidays(t *testing.T) {
	file := fileOf(t, "cz.ics", testHolidays)
	got := must(t, "holidays", file, "--time-zone", "Europe/Prague", "--from", "2026-01-01", "--to", "2026-12-31")
	want := `DATE        DAY  LINE  NAME
2026-07-06  Mon  22    Company day
2026-12-24  Thu  3     Christmas
2026-12-25  Fri  3     Christmas
2026-12-26  Sat  3     Christmas

4 here; the file has 10, from 2026 to 2028.
skipped: event of line 11 (Off): it is cancelled
skipped: event of line 17 (Bridge): line 19: DTSTART: the time zone "Nowhere" is neither an IANA name such as Europe/Prague nor one of Windows' names, and the file has no VTIMEZONE of it
`
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var list map[string][]map[string]any
	text := must(t, "holidays", file, "--time-zone", "Europe/Prague", "--from", "2026-12-26", "--to", "2027-12-24", "-o", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	var dates []any
	for _, h := range list["holidays"] {
		dates = append(dates, h["date"], h["name"])
	}
	if diff := gocmp.Diff([]any{"2026-12-26", "Christmas", "2027-12-24", "Christmas"}, dates); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(list["skipped"]) != 2 || list["skipped"][1]["name"] != "Bridge" || list["skipped"][1]["line"] == nil || list["skipped"][1]["reason"] == "" {
		t.Errorf("skipped: %v", list["skipped"])
	}
	for filter, want := range map[string]string{
		"--category=public": "Christmas", "--summary=COMPANY": "Company day", "--transparency=Transparent": "Company day", "--except-summary=company": "Christmas",
	} {
		out := must(t, "holidays", file, "--from", "2026-01-01", "--to", "2026-12-31", filter)
		if !strings.Contains(out, want) || strings.Contains(out, "Christmas") == strings.Contains(out, "Company day") {
			t.Errorf("%s: %s", filter, out)
		}
	}
	// No holiday, and nothing skipped, are empty lists.
	empty := must(t, "holidays", fileOf(t, "one.ics", "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101\nEND:VEVENT\nEND:VCALENDAR\n"), "--from", "2027-01-01", "--to", "2027-01-01", "-o", "json")
	if !strings.Contains(empty, `"holidays": []`) || !strings.Contains(empty, `"skipped": []`) {
		t.Errorf("%s", empty)
	}
}

// What is wrong is an error that names the flag, or the file and its line, and the program exits with 1.
func TestHolidaysErrors(t *testing.T) {
	file := fileOf(t, "cz.ics", testHolidays)
	for want, args := range map[string][]string{
		`--time-zone "Prague" must be an IANA time zone`:         {file, "--time-zone", "Prague"},
		`--from "today" must be a date`:                          {file, "--from", "today"},
		`--to "2025-12-31" must be a date such as 2026-12-31, a`: {file, "--from", "2026-01-01", "--to", "2025-12-31"},
		`--transparency "busy": must be Opaque or Transparent`:   {file, "--transparency", "busy"},
		"no such file": {"none.ics"},
		"cut.ics: line 3: the file ends inside of the VEVENT that began in line 2": {fileOf(t, "cut.ics", "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101\n")},
		"not an iCalendar file": {fileOf(t, "page.ics", "<html>\n")},
		"accepts 1 arg":         {},
	} {
		out, _, err := run(t, append([]string{"holidays"}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != 1 || out != "" {
			t.Errorf("%v: %v, %q; want %q", args, err, out, want)
		}
	}
	if code := exitCode(findings{errors.New("found")}); code != 2 {
		t.Errorf("findings exit with %d", code)
	}
}

// explain says what the files of holidays cover, and when the year in question is none of theirs.
func TestExplainHolidays(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"cz.ics":   testHolidays,
		"p.yaml":   testPolicy + "    holidays: {ics: {file: cz.ics}, limits: {maxReplicas: 20}}\n",
		"two.yaml": testPolicy + "    holidays: {ics: {file: cz.ics}, only: {categories: [public]}, limits: {maxReplicas: 20}}\n    additionalHolidays: [{ics: {file: cz.ics}, only: {summaries: [company]}, sameAs: Sun}]\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		file, at string
		want     []string
		not      string
	}{
		{"p.yaml", "2026-12-24T12:00", []string{"HOLIDAYS  10 dates, from 2026 to 2028; skipped: event of line 17 (Bridge)", "holiday: Christmas: at least 0, 0 idle, at most 20", "cap, from 20 to 200"}, "says nothing of"},
		{"p.yaml", "2029-12-24T12:00", []string{"no holiday in 2029: the file says nothing of that year", "workday: at least 5"}, "cap, from"},
		{"two.yaml", "2026-07-06T12:00", []string{"HOLIDAYS  9 dates, from 2026 to 2028", "          1 dates, from 2026 to 2026", "default: at least 0"}, "says nothing of"},
	} {
		text := must(t, "explain", "-f", filepath.Join(folder, tc.file), "--at", tc.at)
		for _, want := range tc.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s at %s lacks %q:\n%s", tc.file, tc.at, want, text)
			}
		}
		if strings.Contains(text, tc.not) {
			t.Errorf("%s at %s says %q", tc.file, tc.at, tc.not)
		}
	}
	var explained []explanation
	text := must(t, "explain", "-f", filepath.Join(folder, "p.yaml"), "--at", "2026-12-24T12:00", "-o", "json")
	if err := json.Unmarshal([]byte(text), &explained); err != nil || len(explained[0].Holidays) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	if h := explained[0].Holidays[0]; h.Dates != 10 || h.FirstYear != 2026 || h.LastYear != 2028 || len(h.Skipped) != 1 {
		t.Errorf("%+v", h)
	}
}

// A local time that clocks skip, or show twice, means one instant, and explain says which.
func TestExplainAt(t *testing.T) {
	path := fileOf(t, "p.yaml", testPolicy)
	for at, want := range map[string][2]string{
		"2026-03-29T02:30":          {"2026-03-29T03:00:00+02:00", "clocks skip 2026-03-29 02:30:00 there: taken for the instant at which they jump, to 03:00:00 CEST (+02:00)"},
		"2026-10-25T02:30:15":       {"2026-10-25T02:30:15+02:00", "clocks show 2026-10-25 02:30:15 twice there: taken for the first, 02:30:15 CEST (+02:00); the second is 02:30:15 CET (+01:00)"},
		"2026-10-25T02:30:15+01:00": {"2026-10-25T02:30:15+01:00", ""},
		"2026-11-27 18:55:30":       {"2026-11-27T18:55:30+01:00", ""},
		"2026-11-27":                {"2026-11-27T00:00:00+01:00", ""},
	} {
		var explained []explanation
		if err := json.Unmarshal([]byte(must(t, "explain", "-f", path, "--at", at, "-o", "json")), &explained); err != nil {
			t.Fatal(err)
		}
		if got := explained[0].At.Format("2006-01-02T15:04:05Z07:00"); got != want[0] || explained[0].Note != want[1] {
			t.Errorf("%s: %s, %q", at, got, explained[0].Note)
		}
		if table := must(t, "explain", "-f", path, "--at", at); want[1] != "" && !strings.Contains(table, want[1]) {
			t.Errorf("%s: %s", at, table)
		}
	}
}

// The week's pictures show caps where they differ, and only there.
func TestExplainCaps(t *testing.T) {
	capped := strings.Replace(testPolicy, "    periods:\n", "    periods:\n    - {name: night, days: [Mon-Fri], from: \"22:00\", to: \"06:00\", limits: {maxReplicas: 50}}\n", 1)
	for name, tc := range map[string]struct {
		policy string
		rows   int
	}{"one cap": {testPolicy, 0}, "two": {capped, 7}} {
		picture := filepath.Join(t.TempDir(), "week.svg")
		text := must(t, "explain", "-f", fileOf(t, "p.yaml", tc.policy), "--at", "2026-11-25T12:00", "--svg", picture)
		svg, err := os.ReadFile(picture)
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, string(svg))
		if got := strings.Count(string(svg), `class="cap"`); (got == 0) != (tc.rows == 0) {
			t.Errorf("%s: %d lines of caps", name, got)
		}
		if says := strings.Contains(string(svg), "dashed: cap, from 50 to 200"); says != (tc.rows > 0) {
			t.Errorf("%s: the legend speaks of caps: %v", name, says)
		}
		_, after, found := strings.Cut(text, "cap, from 50 to 200\n")
		if found != (tc.rows > 0) || found && strings.Count(after, "\n") != tc.rows {
			t.Errorf("%s:\n%s", name, text)
		}
		if tc.rows > 0 && !strings.Contains(after, "Mon   "+strings.Repeat("█", 44)+"▂▂▂▂") {
			t.Errorf("Monday's caps:\n%s", after)
		}
	}
}
