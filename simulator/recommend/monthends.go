package recommend

import (
	"fmt"
	"math"
	"slices"
	"time"

	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// mostTurns is how many days at each side of the turn of a month are looked at, and leastMonths in how many months one must have stood out.
const (
	mostTurns   = 5
	leastMonths = 2
)

// monthEnd are days at the turn of the month, the same in every month, with more work than on their days of other weeks.
type monthEnd struct {
	// days as a calendar names them, and their dates in the load.
	days  []string
	dates map[civil]bool
	// day is the demand of each quarter of an hour of them.
	day [96][]float64
	// least and most times the work of such a day of other weeks; months in which that was seen.
	least, most float64
	months      int
}

// civil is a date.
type civil struct {
	year  int
	month time.Month
	day   int
}

func civilOf(t time.Time) civil {
	year, month, day := t.Date()
	return civil{year, month, day}
}

// monthEndsOf finds the days at the turn of the month that stand out; nil when none does. Business days are those of the busy group of days where there are
// two, without holidays.
func monthEndsOf(samples []sample, groups []group, holiday func(time.Time) bool) *monthEnd {
	works := func(t time.Time) bool {
		return (holiday == nil || !holiday(t)) && slices.Contains(groups[0].days, (int(t.Weekday())+6)%7)
	}
	type day struct {
		at       time.Time
		work     float64
		quarters int
		position string // at the turn of a month; empty: none
	}
	var days []*day
	for _, s := range samples {
		if n := len(days); n == 0 || civilOf(days[n-1].at) != civilOf(s.at) {
			days = append(days, &day{at: s.at})
		}
		last := days[len(days)-1]
		last.work, last.quarters = last.work+s.demand, last.quarters+1
	}
	days = slices.DeleteFunc(days, func(d *day) bool { return d.quarters < 90 || !works(d.at) })
	what := "day"
	if len(groups) > 1 {
		what = "business day"
	}
	byDay := map[time.Weekday][]float64{}
	for _, d := range days {
		if d.position = position(d.at, works, what); d.position == "" {
			byDay[d.at.Weekday()] = append(byDay[d.at.Weekday()], d.work)
		}
	}
	type seen struct {
		least, most float64
		dates       []civil
	}
	positions, order := map[string]*seen{}, []string(nil)
	for _, d := range days {
		usual := byDay[d.at.Weekday()]
		if d.position == "" || len(usual) == 0 {
			continue
		}
		slices.Sort(usual)
		p := positions[d.position]
		if p == nil {
			p = &seen{least: math.Inf(1)}
			positions[d.position], order = p, append(order, d.position)
		}
		times := d.work / max(1, quantile(usual, 0.5))
		p.least, p.most, p.dates = min(p.least, times), max(p.most, times), append(p.dates, civilOf(d.at))
	}
	m := &monthEnd{dates: map[civil]bool{}, least: math.Inf(1)}
	slices.Sort(order)
	for _, name := range order {
		p := positions[name]
		if len(p.dates) < leastMonths || p.least < leastContrast {
			continue
		}
		m.days, m.least, m.most, m.months = append(m.days, name), min(m.least, p.least), max(m.most, p.most), max(m.months, len(p.dates))
		for _, date := range p.dates {
			m.dates[date] = true
		}
	}
	if len(m.days) == 0 {
		return nil
	}
	for _, s := range samples {
		if m.dates[civilOf(s.at)] {
			i := s.at.Hour()*4 + s.at.Minute()/15
			m.day[i] = append(m.day[i], s.demand)
		}
	}
	return m
}

var ordinals = [...]string{"first", "second", "third", "fourth", "fifth"}

// position of a date at the turn of a month, as a calendar names it: counted in days that work.
func position(at time.Time, works func(time.Time) bool, what string) string {
	count := func(step int) int {
		n := 0
		for d := at.AddDate(0, 0, step); d.Month() == at.Month() && n < mostTurns; d = d.AddDate(0, 0, step) {
			if works(d) {
				n++
			}
		}
		return n
	}
	switch after, before := count(1), count(-1); {
	case after == 0:
		return "last " + what
	case after < mostTurns:
		return fmt.Sprintf("last %s -%d", what, after)
	case before < mostTurns:
		return ordinals[before] + " " + what
	}
	return ""
}

// is says whether a date is one of them.
func (m *monthEnd) is(t time.Time) bool { return m != nil && m.dates[civilOf(t)] }

// around is the demand of a quarter of an hour and of those beside it.
func (m *monthEnd) around(i int) []float64 {
	var all []float64
	for j := max(0, i-2); j <= min(95, i+2); j++ {
		all = append(all, m.day[j]...)
	}
	slices.Sort(all)
	return all
}

// periods of floors at a quantile of demand and of a reserve of idle replicas while there is demand.
func (m *monthEnd) periods(level float64, reserve, most int32) []v1alpha1.Period {
	if m == nil {
		return nil
	}
	var floors, idle [96]int32
	var means [96]float64
	for i := range means {
		means[i] = mean(m.around(i))
	}
	highest := slices.Max(means[:])
	for i := range floors {
		if level > 0 {
			floors[i] = min(most, int32(quantile(m.around(i), level)))
		}
		if highest > 0 && means[i] >= highest/4 {
			idle[i] = reserve
		}
	}
	var all []v1alpha1.Period
	add := func(prefix string, day [96]int32, limits func(int32) v1alpha1.Limits) {
		n := 0
		for _, s := range segments(day) {
			if s.floor > 0 {
				n++
				all = append(all, v1alpha1.Period{Name: fmt.Sprintf("%smonth-end-%d", prefix, n), Days: m.days, From: clock(s.from), To: clock(s.to), Limits: limits(s.floor)})
			}
		}
	}
	add("", floors, func(n int32) v1alpha1.Limits { return v1alpha1.Limits{MinReplicas: ptr.To(n)} })
	add("reserve-", idle, func(n int32) v1alpha1.Limits { return v1alpha1.Limits{IdleReplicas: ptr.To(n)} })
	return all
}
