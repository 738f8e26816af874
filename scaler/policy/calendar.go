package policy

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// CompileCalendar compiles the calendar of a policy, which may be nil; path is where it stands, for the errors. Holidays are what
// each of its iCalendar files says, in their order, nil where they are not known. No limits go beyond maxReplicas.
func CompileCalendar(
	c *v1alpha1.Calendar, holidays []*calendar.Holidays, maxReplicas int32, path *field.Path,
) (*calendar.Calendar, field.ErrorList) {
	return calendar.New(calendarSpec(c, holidays), maxReplicas, path)
}

// calendarSpec translates the API's calendar, so that package calendar knows nothing of Kubernetes.
func calendarSpec(c *v1alpha1.Calendar, holidays []*calendar.Holidays) *calendar.Spec {
	if c == nil {
		return nil
	}
	spec := &calendar.Spec{TimeZone: c.TimeZone, Weekend: c.Weekend, Default: boundsOf(&c.Default)}
	for _, p := range c.Periods {
		period := calendar.Period{
			Name: p.Name, Days: p.Days, Months: p.Months, Hours: hoursOf(p.From, p.To, p.LeadTime), Bounds: boundsOf(&p.Limits),
		}
		if w := p.Weeks; w != nil {
			period.Weeks = &calendar.Weeks{Every: int(w.Every), From: w.From}
		}
		spec.Periods = append(spec.Periods, period)
	}
	for _, e := range c.Exceptions {
		spec.Exceptions = append(spec.Exceptions, calendar.Exception{
			Name: e.Name, From: e.From, To: e.To, SpecialDay: specialDay(e.Use, e.Limits, e.SameAs, e.Periods),
		})
	}
	for i, h := range holidayFiles(c) {
		rule := calendar.HolidayRule{SpecialDay: specialDay(h.Use, h.Limits, h.SameAs, h.Periods)}
		if i < len(holidays) && holidays[i] != nil {
			rule.Days = holidays[i].Select(filterOf(h.Only), filterOf(h.Except))
		}
		spec.Holidays = append(spec.Holidays, rule)
	}
	return spec
}

// holidayFiles are the files of holidays of a calendar, in the order in which they beat each other.
func holidayFiles(c *v1alpha1.Calendar) []*v1alpha1.Holidays {
	var files []*v1alpha1.Holidays
	if c.Holidays != nil {
		files = append(files, c.Holidays)
	}
	for i := range c.AdditionalHolidays {
		files = append(files, &c.AdditionalHolidays[i])
	}
	return files
}

func specialDay(use string, limits *v1alpha1.Limits, sameAs string, periods []v1alpha1.SpecialHours) calendar.SpecialDay {
	day := calendar.SpecialDay{Use: use, Bounds: ownBounds(limits), SameAs: sameAs}
	for _, p := range periods {
		day.Periods = append(day.Periods, calendar.SpecialHours{Hours: hoursOf(p.From, p.To, p.LeadTime), Use: p.Use, Bounds: ownBounds(p.Limits)})
	}
	return day
}

// ownBounds are those of limits that may be left out.
func ownBounds(l *v1alpha1.Limits) *calendar.Bounds {
	if l == nil {
		return nil
	}
	return new(boundsOf(l))
}

func boundsOf(l *v1alpha1.Limits) calendar.Bounds {
	bounds := calendar.Bounds{MinReplicas: l.MinReplicas, IdleReplicas: l.IdleReplicas, MaxReplicas: l.MaxReplicas}
	if l.Surplus != nil {
		bounds.Surplus = l.Surplus.String()
	}
	return bounds
}

func hoursOf(from, to string, lead *metav1.Duration) calendar.Hours {
	hours := calendar.Hours{From: from, To: to}
	if lead != nil {
		hours.LeadTime = lead.Duration
	}
	return hours
}

func filterOf(f *v1alpha1.HolidayFilter) calendar.Filter {
	if f == nil {
		return calendar.Filter{}
	}
	return calendar.Filter{Categories: f.Categories, Summaries: f.Summaries, Transparency: f.Transparency}
}
