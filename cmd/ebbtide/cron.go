package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

// weekdays as cron and calendars name them.
var weekdays = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// cronTriggers are KEDA's cron triggers for a policy's floors, as people write them: the period's days at its start and at its end. A
// period that crosses midnight gets the fault that those have. Periods of days of the month, exceptions, holidays and lead times can't be
// written as such triggers and are left out.
func cronTriggers(p *policy.Policy) ([]*keda.Cron, error) {
	var triggers []*keda.Cron
	c := p.Spec().Calendar
	if c == nil {
		return nil, nil
	}
	for _, period := range c.Periods {
		days, ok := cronDays(period.Days)
		if period.Limits.MinReplicas == nil || *period.Limits.MinReplicas == 0 || !ok {
			continue
		}
		from, to := period.From, period.To
		if from == "" {
			from = "00:00"
		}
		if to == "" || to == "24:00" {
			to = "23:59"
		}
		expression := func(clock string) string {
			hour, minute, _ := strings.Cut(clock, ":")
			return fmt.Sprintf("%s %s * * %s", minute, hour, days)
		}
		trigger, err := keda.NewCron(p.TimeZone, expression(from), expression(to), int64(*period.Limits.MinReplicas))
		if err != nil {
			return nil, fmt.Errorf("period %s as a cron trigger: %w", period.Name, err)
		}
		triggers = append(triggers, trigger)
	}
	return triggers, nil
}

// cronDays are a period's weekdays in cron's form; false when it has other days.
func cronDays(days []string) (string, bool) {
	if len(days) == 0 {
		return "*", true
	}
	var found []string
	for _, text := range days {
		first, last, isRange := strings.Cut(text, "-")
		from := weekday(first)
		to := from
		if isRange {
			to = weekday(last)
		}
		if from < 0 || to < 0 {
			return "", false
		}
		for d := from; ; d = (d + 1) % 7 {
			found = append(found, fmt.Sprint(d))
			if d == to {
				break
			}
		}
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), ","), true
}

// weekday by its name, in full or of three letters; -1 for none.
func weekday(name string) int {
	return slices.IndexFunc(weekdays, func(day string) bool { return len(name) >= 3 && strings.EqualFold(name[:3], day) })
}
