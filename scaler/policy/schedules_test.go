package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	scheduleBlock = regexp.MustCompile("(?s)## ([^\n]+)\n\n```yaml\n(.*?)```\n(.*?)(?:\n## |\\z)")
	scheduleRow   = regexp.MustCompile(`\| (\d{4}-\d\d-\d\d \d\d:\d\d) \| (\S+) \| (\d+) \| (\d+) \|`)
)

// The page of schedules says what holds, and it does.
func TestSchedules(t *testing.T) {
	page, err := os.ReadFile("../../docs/how-to/schedules.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := 0
	for rest := string(page); ; {
		at := scheduleBlock.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		title, calendar, table := rest[at[2]:at[3]], rest[at[4]:at[5]], rest[at[6]:at[7]]
		rest = rest[at[7]:]
		sections++
		t.Run(title, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "policy.yaml")
			text := "apiVersion: ebbtide.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {name: scans}\nspec:\n" +
				"  backlog: {rabbitmq: {uri: {value: amqp://mq}, queue: scans}}\n  target: {maxReplicas: 200}\n" +
				"  " + strings.ReplaceAll(strings.TrimSpace(calendar), "\n", "\n  ") + "\n"
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			policies, err := ReadFile(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			p := policies[0]
			rows := scheduleRow.FindAllStringSubmatch(table, -1)
			for _, row := range rows {
				when, err := time.ParseInLocation("2006-01-02 15:04", row[1], p.TimeZone)
				if err != nil {
					t.Fatal(err)
				}
				l := p.Calendar.Limits(when)
				if got := fmt.Sprintf("%s %d %d", l.Period, l.MinReplicas, l.MaxReplicas); got != strings.Join(row[2:], " ") {
					t.Errorf("at %s: %s, the page says %s", row[1], got, strings.Join(row[2:], " "))
				}
			}
			if len(rows) < 3 {
				t.Errorf("only %d rows", len(rows))
			}
		})
	}
	if sections != 10 {
		t.Errorf("%d schedules, want 10", sections)
	}
}
