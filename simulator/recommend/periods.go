package recommend

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// group of days that have the same periods.
type group struct {
	name string
	days []int // weekdays, Monday being 0
}

// leastContrast is how many times as much work there must be on busy days as on quiet ones for them to be told apart.
const leastContrast = 1.5

// groups are the days on which people work, whichever those are, and the others: the split by which the days of a group differ least. One
// group where all days are about alike.
func (p *profile) groups() []group {
	var busy [7]float64 // the square root, as many differ more than few
	days := []int{0, 1, 2, 3, 4, 5, 6}
	for d := range busy {
		var sum float64
		for i := range 96 {
			sum += mean(p[d*96+i])
		}
		busy[d] = math.Sqrt(sum)
	}
	slices.SortStableFunc(days, func(a, b int) int { return cmp.Compare(busy[b], busy[a]) })
	spread := func(days []int) (center, squares float64) {
		for _, d := range days {
			center += busy[d] / float64(len(days))
		}
		for _, d := range days {
			squares += (busy[d] - center) * (busy[d] - center)
		}
		return center, squares
	}
	split, least := 0, math.Inf(1)
	for n := 1; n < len(days); n++ {
		_, a := spread(days[:n])
		_, b := spread(days[n:])
		if a+b < least {
			split, least = n, a+b
		}
	}
	high, _ := spread(days[:split])
	low, _ := spread(days[split:])
	if high*high <= leastContrast*low*low {
		return []group{{"day", []int{0, 1, 2, 3, 4, 5, 6}}}
	}
	slices.Sort(days[:split])
	slices.Sort(days[split:])
	return []group{{"weekday", days[:split]}, {"weekend", days[split:]}}
}

var dayNames = [...]string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

// dayNamesOf are names of days, one by one.
func dayNamesOf(days []int) []string {
	var names []string
	for _, d := range days {
		names = append(names, dayNames[d])
	}
	return names
}

// names of the days, as a calendar has them: runs of three and more, which may go over Sunday, as ranges.
func (g *group) names() []string {
	if len(g.days) == len(dayNames) {
		return nil // all days
	}
	on := func(d int) bool { return slices.Contains(g.days, (d+7)%7) }
	var names []string
	for _, d := range g.days {
		if on(d - 1) {
			continue
		}
		last := d
		for on(last + 1) {
			last++
		}
		switch first, end := dayNames[d], dayNames[last%7]; last - d {
		case 0:
			names = append(names, first)
		default:
			names = append(names, first+"-"+end)
		}
	}
	return names
}

// segment of a day with one floor: quarters of an hour from, and to but not including.
type segment struct {
	from, to int
	floor    int32
}

// periods of the replicas of a week: few for each group of days, so that a person can read them. Those whose names begin with reserve- keep idle
// replicas, the others are floors.
func periods(week [quarters]int32, groups []group, prefix string) (all []v1alpha1.Period) {
	for _, g := range groups {
		var day [96]int32
		for i := range day {
			var values []int32
			for _, d := range g.days {
				values = append(values, week[d*96+i])
			}
			slices.Sort(values)
			day[i] = values[len(values)/2]
		}
		n := 0
		for _, s := range segments(day) {
			if s.floor == 0 {
				continue
			}
			n++
			limits := v1alpha1.Limits{MinReplicas: ptr.To(s.floor)}
			if prefix != "" {
				limits = v1alpha1.Limits{IdleReplicas: ptr.To(s.floor)}
			}
			all = append(all, v1alpha1.Period{
				Name: fmt.Sprintf("%s%s-%d", prefix, g.name, n), Days: g.names(), From: clock(s.from), To: clock(s.to), Limits: limits,
			})
		}
	}
	return all
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

// Floor is a period, and the demand in it.
type Floor struct {
	Period string
	// Median and Highest demand of its quarters of an hour, over Quarters of them.
	Median, Highest float64
	Quarters        int
}

// describe says of each period what the demand in it is.
func describe(c *v1alpha1.Calendar, p *profile, groups []group) []Floor {
	var floors []Floor
	for _, period := range c.Periods {
		var g group
		for _, candidate := range groups {
			if strings.HasPrefix(strings.TrimPrefix(period.Name, "reserve-"), candidate.name+"-") {
				g = candidate
			}
		}
		from, to := index(period.From), index(period.To)
		var values []float64
		for _, d := range g.days {
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
