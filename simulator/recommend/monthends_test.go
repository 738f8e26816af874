package recommend

import (
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

// Four months of Sunday to Thursday with two at once from nine to five, and eight at once on the last two business days of each month.
func monthsOfWork(ends int) []sample {
	var samples []sample
	works := func(t time.Time) bool { return t.Weekday() < time.Friday }
	for at := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC); at.Before(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)); at = at.Add(quarter) {
		demand := 0.0
		if works(at) && at.Hour() >= 9 && at.Hour() < 17 {
			demand = 2
			if p := position(at, works, "business day"); p == "last business day" || p == "last business day -1" {
				demand = float64(ends)
			}
		}
		samples = append(samples, sample{at, demand})
	}
	return samples
}

func TestMonthEnds(t *testing.T) {
	samples := monthsOfWork(8)
	groups := newProfile(samples, nil).groups()
	m := monthEndsOf(samples, groups, nil)
	if m == nil || strings.Join(m.days, ", ") != "last business day, last business day -1" || m.months != 4 || m.least < 3.9 || m.most > 4.1 {
		t.Fatalf("found %+v, want the last two business days", m)
	}
	c := &v1alpha1.Calendar{TimeZone: "UTC", Weekend: dayNamesOf(groups[1].days)}
	p := newProfile(samples, m.is)
	c.Periods = append(periods(p.floors(0.5, 100), groups, ""), m.periods(0.5, 0, 100)...)
	limits, errs := policy.CompileCalendar(c, nil, 100, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for at, want := range map[time.Time]int32{
		time.Date(2026, 6, 30, 10, 0, 0, 0, time.UTC): 8, // a Tuesday, the last business day of June
		time.Date(2026, 6, 29, 10, 0, 0, 0, time.UTC): 8,
		time.Date(2026, 6, 28, 10, 0, 0, 0, time.UTC): 2, // a Sunday
		time.Date(2026, 7, 30, 10, 0, 0, 0, time.UTC): 8, // a Thursday: the 31st is a Friday, which is weekend here
		time.Date(2026, 7, 31, 10, 0, 0, 0, time.UTC): 0,
		time.Date(2026, 6, 30, 3, 0, 0, 0, time.UTC):  0,
	} {
		if got := limits.Limits(at).MinReplicas; got != want {
			t.Errorf("%s: a floor of %d, want %d", at.Format("2 January 15:04"), got, want)
		}
	}
	for name, samples := range map[string][]sample{"no more work than usual": monthsOfWork(2), "one month alone": monthsOfWork(8)[:40*96]} {
		if m := monthEndsOf(samples, newProfile(samples, nil).groups(), nil); m != nil {
			t.Errorf("%s: found %v", name, m.days)
		}
	}
}
