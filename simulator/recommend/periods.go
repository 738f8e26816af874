package recommend

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// group of days that have the same periods.
type group struct {
	name, days string
	from, to   int // weekdays from Monday on, both included
}

// groups: people work from Monday to Friday.
var groups = []group{{"weekday", "Mon-Fri", 0, 4}, {"weekend", "Sat-Sun", 5, 6}}

// segment of a day with one floor: quarters of an hour from, and to but not including.
type segment struct {
	from, to int
	floor    int32
}

// calendarOf makes periods of the floors of a week: few for each group of days, so that a person can read them.
func calendarOf(floors [quarters]int32, o Options) *v1alpha1.Calendar {
	c := &v1alpha1.Calendar{TimeZone: o.Zone.String()}
	for _, g := range groups {
		var day [96]int32
		for i := range day {
			var values []int32
			for d := g.from; d <= g.to; d++ {
				values = append(values, floors[d*96+i])
			}
			slices.Sort(values)
			day[i] = values[len(values)/2]
		}
		for n, s := range segments(day) {
			if s.floor > 0 {
				c.Periods = append(c.Periods, v1alpha1.Period{
					Name: fmt.Sprintf("%s-%d", g.name, n+1), Days: []string{g.days}, From: clock(s.from), To: clock(s.to),
					Limits: v1alpha1.Limits{MinReplicas: ptr.To(s.floor)},
				})
			}
		}
	}
	return c
}

func clock(i int) string { return fmt.Sprintf("%02d:%02d", i/4, i%4*15) }

// segments makes few of a day's floors: as long as there are too many, the two neighbours become one whose joint floor, the higher one,
// costs the fewest replica-hours more.
func segments(day [96]int32) []segment {
	var all []segment
	for i, floor := range day {
		if n := len(all); n > 0 && all[n-1].floor == floor {
			all[n-1].to = i + 1
			continue
		}
		all = append(all, segment{i, i + 1, floor})
	}
	warm := func() int {
		n := 0
		for _, s := range all {
			if s.floor > 0 {
				n++
			}
		}
		return n
	}
	for len(all) > 1 && warm() > mostPeriods {
		best, bestCost := 0, int32(1<<30)
		for i := range len(all) - 1 {
			a, b := all[i], all[i+1]
			high := max(a.floor, b.floor)
			if cost := (high-a.floor)*int32(a.to-a.from) + (high-b.floor)*int32(b.to-b.from); cost < bestCost {
				best, bestCost = i, cost
			}
		}
		all[best] = segment{all[best].from, all[best+1].to, max(all[best].floor, all[best+1].floor)}
		all = slices.Delete(all, best+1, best+2)
	}
	return all
}

// describe says of each period what the demand in it is.
func describe(c *v1alpha1.Calendar, p *profile) []Floor {
	var floors []Floor
	for _, period := range c.Periods {
		var g group
		for _, candidate := range groups {
			if candidate.days == period.Days[0] {
				g = candidate
			}
		}
		from, to := index(period.From), index(period.To)
		var values []float64
		for d := g.from; d <= g.to; d++ {
			for i := from; i < to; i++ {
				values = append(values, p[d*96+i]...)
			}
		}
		slices.Sort(values)
		f := Floor{Period: period.Name, Median: quantile(values, 0.5), Quarters: len(values)}
		if len(values) > 0 {
			f.Highest = values[len(values)-1]
		}
		floors = append(floors, f)
	}
	return floors
}

// index of a clock time in quarters of an hour, 24:00 included.
func index(text string) int {
	if text == "24:00" {
		return 96
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0
	}
	return t.Hour()*4 + t.Minute()/15
}
