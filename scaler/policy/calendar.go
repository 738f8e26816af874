package policy

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// CompileCalendar compiles the calendar of a policy, which may be nil; path is where it stands, for the errors. Holidays are what
// its iCalendar file says, nil without one. No limits go beyond maxReplicas.
func CompileCalendar(
	c *v1alpha1.Calendar, holidays *calendar.Holidays, maxReplicas int32, path *field.Path,
) (*calendar.Calendar, field.ErrorList) {
	return calendar.New(calendarSpec(c, holidays), maxReplicas, path)
}

// calendarSpec translates the API's calendar, so that package calendar knows nothing of Kubernetes.
func calendarSpec(c *v1alpha1.Calendar, holidays *calendar.Holidays) *calendar.Spec {
	if c == nil {
		return nil
	}
	spec := &calendar.Spec{TimeZone: c.TimeZone, Default: calendar.Bounds(c.Default)}
	for _, p := range c.Periods {
		period := calendar.Period{Name: p.Name, Days: p.Days, From: p.From, To: p.To, Bounds: calendar.Bounds(p.Limits)}
		if p.LeadTime != nil {
			period.LeadTime = p.LeadTime.Duration
		}
		spec.Periods = append(spec.Periods, period)
	}
	for _, e := range c.Exceptions {
		spec.Exceptions = append(spec.Exceptions, calendar.Exception{
			Name: e.Name, From: e.From, To: e.To, Use: e.Use, Bounds: (*calendar.Bounds)(e.Limits),
		})
	}
	if h := c.Holidays; h != nil {
		spec.Holidays = &calendar.HolidayRule{Days: holidays, Use: h.Use, Bounds: (*calendar.Bounds)(h.Limits)}
	}
	return spec
}
