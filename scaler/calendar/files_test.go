package calendar

import (
	"encoding/binary"
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// Files as many producers write them, and the dates that each makes holidays: ERROR is an error that names the line, ? an event that is skipped
// with a reason, or such an error.
func TestFiles(t *testing.T) {
	const folder = "testdata/holidays"
	file, err := os.Open(filepath.Join(folder, "expected.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, row := range rows[1:] {
		known[row[0]] = true
		t.Run(row[0], func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(folder, row[0]))
			if err != nil {
				t.Fatal(err)
			}
			zone, err := LoadZone(row[1])
			if err != nil {
				t.Fatal(err)
			}
			h, err := ParseHolidays(string(text), zone)
			if err != nil {
				if want := row[4]; want != "ERROR" && want != "?" || !strings.HasPrefix(err.Error(), "line ") {
					t.Errorf("%v, want %s", err, want)
				}
				return
			}
			list, err := h.List(row[2], row[3])
			if err != nil {
				t.Fatal(err)
			}
			var dates []string
			for _, holiday := range list {
				dates = append(dates, holiday.Date)
			}
			switch got := strings.Join(dates, " "); {
			case row[4] == "?":
				if len(h.NotUnderstood()) == 0 {
					t.Errorf("%q, and nothing is skipped", got)
				}
			case got != row[4]:
				t.Errorf("%q, want %q; skipped: %v", got, row[4], h.Skipped())
			}
		})
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.ics"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !known[filepath.Base(file)] {
			t.Errorf("%s is not in expected.csv", file)
		}
	}
}

// However a file is encoded, its lines end and its text is written, it says the same.
func TestEncodings(t *testing.T) {
	const event = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART;VALUE=DATE:20260706\r\nSUMMARY:Jána\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
	inUTF16 := func(order binary.AppendByteOrder, text string) string {
		var b []byte
		for _, unit := range utf16.Encode([]rune(text)) {
			b = order.AppendUint16(b, unit)
		}
		return string(b)
	}
	summary := func(line string) string { return strings.Replace(event, "SUMMARY:Jána", line, 1) }
	for name, text := range map[string]string{
		"CRLF":                          event,
		"LF":                            strings.ReplaceAll(event, "\r\n", "\n"),
		"CR":                            strings.ReplaceAll(event, "\r\n", "\r"),
		"a byte-order mark":             "\ufeff" + event,
		"UTF-16, big end first":         inUTF16(binary.BigEndian, "\ufeff"+event),
		"UTF-16, little end first":      inUTF16(binary.LittleEndian, "\ufeff"+event),
		"UTF-16 without a mark":         inUTF16(binary.LittleEndian, event),
		"UTF-16, big, without a mark":   inUTF16(binary.BigEndian, event),
		"UTF-16, cut in a character":    inUTF16(binary.LittleEndian, event) + "\r",
		"a NUL and a Control-Z at last": event + "\x00\r\n\x1a",
		"quoted-printable":              summary("SUMMARY;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:J=C3=A1na"),
		"quoted-printable, broken":      summary("SUMMARY;ENCODING=quoted-printable:J=C3=\r\n=A1na"),
		"folded in a character":         summary("SUMMARY:J\xc3\r\n \xa1na"),
	} {
		h, err := ParseHolidays(text, prague(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if list, err := h.List("2026-01-01", "2026-12-31"); err != nil || len(list) != 1 || list[0].Date != "2026-07-06" || list[0].Name != "Jána" {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}
