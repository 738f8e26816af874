package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

// weekdays as cron and calendars name them.
var weekdays = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// cronTriggers are KEDA's cron triggers for a policy's floors, as a careful user writes them: such a trigger is on where its end comes next
// before its start, so a window that ends on the day after it starts must end on the days after. Lead times start it earlier; a reserve of
// idle replicas, which they cannot keep, is a floor where it is the larger one; a floor of the default holds at all times. Periods of days of
// the month, exceptions and holidays can't be written as such triggers and are left out.
func cronTriggers(p *policy.Policy) ([]*keda.Cron, error) {
	c := p.Spec().Calendar
	if c == nil {
		return nil, nil
	}
	var triggers []*keda.Cron
	add := func(name string, limits v1alpha1.Limits, days []int, from, to int) error {
		floor := max(ptr.Deref(limits.MinReplicas, 0), ptr.Deref(limits.IdleReplicas, 0))
		if floor == 0 {
			return nil
		}
		trigger, err := keda.NewCron(p.TimeZone, cronAt(days, from), cronAt(days, to), int64(floor))
		if err != nil {
			return fmt.Errorf("%s as a cron trigger: %w", name, err)
		}
		triggers = append(triggers, trigger)
		return nil
	}
	const day = 24 * 60
	if err := add("default", c.Default, allDays, 0, day); err != nil {
		return nil, err
	}
	for _, period := range c.Periods {
		days, ok := cronDays(period.Days)
		if !ok {
			continue
		}
		from, to := minutes(period.From, 0), minutes(period.To, day)
		if to <= from {
			to += day
		}
		if period.LeadTime != nil {
			from -= int(period.LeadTime.Minutes())
		}
		if to-from >= day && len(days) == len(allDays) {
			from, to = 0, day
		}
		if err := add("period "+period.Name, period.Limits, days, from, to); err != nil {
			return nil, err
		}
	}
	return triggers, nil
}

var allDays = []int{0, 1, 2, 3, 4, 5, 6}

// minutes of a clock time since midnight.
func minutes(clock string, none int) int {
	hour, minute, ok := strings.Cut(clock, ":")
	if !ok {
		return none
	}
	h, _ := strconv.Atoi(hour) // a policy's clock times are valid
	m, _ := strconv.Atoi(minute)
	return 60*h + m
}

// cronAt is a cron expression for so many minutes after midnight of weekdays, which may be on the days before or after.
func cronAt(days []int, minute int) string {
	const day = 24 * 60
	shift := 0
	for ; minute < 0; minute += day {
		shift--
	}
	for ; minute >= day; minute -= day {
		shift++
	}
	var on []string
	for _, d := range days {
		on = append(on, strconv.Itoa((d+shift+7*7)%7))
	}
	slices.Sort(on)
	return fmt.Sprintf("%d %d * * %s", minute%60, minute/60, strings.Join(on, ","))
}

// cronDays are a period's weekdays as cron numbers them; false when it has other days.
func cronDays(days []string) ([]int, bool) {
	if len(days) == 0 {
		return allDays, true
	}
	var found []int
	for _, text := range days {
		first, last, isRange := strings.Cut(text, "-")
		from := weekday(first)
		to := from
		if isRange {
			to = weekday(last)
		}
		if from < 0 || to < 0 {
			return nil, false
		}
		for d := from; ; d = (d + 1) % 7 {
			found = append(found, d)
			if d == to {
				break
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found), true
}

// weekday by its name, in full or of three letters; -1 for none.
func weekday(name string) int {
	return slices.IndexFunc(weekdays, func(day string) bool { return len(name) >= 3 && strings.EqualFold(name[:3], day) })
}
