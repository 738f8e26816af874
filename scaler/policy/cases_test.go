package policy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var caseRow = regexp.MustCompile(`(?m)^# (at|next|error) (.*)$`)

// Each file says what holds at an instant, what changes next after one, or what is wrong with it.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) < 14 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			rows := caseRow.FindAllStringSubmatch(string(text), -1)
			if len(rows) == 0 {
				t.Fatal("it says nothing")
			}
			policies, err := ReadFile(t.Context(), file)
			if rows[0][1] == "error" {
				if err == nil || !strings.Contains(err.Error(), rows[0][2]) {
					t.Errorf("error %v, want %s", err, rows[0][2])
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c := policies[0].Calendar
			for _, row := range rows {
				instant, rest, _ := strings.Cut(row[2], " ")
				at, err := time.Parse(time.RFC3339, instant)
				if err != nil {
					t.Fatal(err)
				}
				if row[1] == "next" {
					next, limits, ok := c.NextChange(at)
					if got := next.UTC().Format(time.RFC3339) + " " + limits.Period; !ok || got != rest {
						t.Errorf("after %s: %s, want %s", instant, got, rest)
					}
					continue
				}
				l := c.Limits(at)
				name := l.Period
				if strings.HasPrefix(rest, `"`) {
					name = strconv.Quote(name)
				}
				got := strings.Join([]string{name, strconv.Itoa(int(l.MinReplicas)), strconv.Itoa(int(l.IdleReplicas)), strconv.Itoa(int(l.MaxReplicas))}, " ")
				if surplus := l.Surplus.Text(); surplus != "" {
					got += " " + surplus
				}
				if got != rest {
					t.Errorf("at %s: %s, want %s", instant, got, rest)
				}
			}
		})
	}
	// Every iCalendar file is of one of them.
	ics, err := filepath.Glob("testdata/cases/*.ics")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range ics {
		if !slices.ContainsFunc(files, func(f string) bool {
			text, err := os.ReadFile(f)
			return err == nil && strings.Contains(string(text), filepath.Base(file))
		}) {
			t.Errorf("%s is read by none", file)
		}
	}
}
