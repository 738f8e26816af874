package decision

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

// CalendarMetrics show what the calendars of the policies in force say at the moment that it is scraped, whether or not anybody asks
// for decisions. It is a prometheus.Collector. Labels are bounded by the policies that exist and their periods.
type CalendarMetrics struct {
	Policies *policy.Store
	Now      func() time.Time
	// OnPanic is told of a panic in a policy's calendar, whose series are left out then. It may be nil.
	OnPanic func(cause any)
}

var (
	periodDesc     = desc("ebbtide_calendar_period", "1 for the period in force; several are joined by +.", "period")
	nextChangeDesc = desc("ebbtide_calendar_next_change_timestamp_seconds",
		"When limits change next, and to which period; no series when they do not within eight years.", "period")
	utcOffsetDesc = desc("ebbtide_calendar_utc_offset_seconds",
		"How far the clock of the policy's time zone is ahead of UTC, as of now.")
)

// Describe implements prometheus.Collector.
func (c *CalendarMetrics) Describe(descs chan<- *prometheus.Desc) {
	descs <- periodDesc
	descs <- nextChangeDesc
	descs <- utcOffsetDesc
}

// Collect implements prometheus.Collector.
func (c *CalendarMetrics) Collect(out chan<- prometheus.Metric) {
	now := c.Now()
	for _, name := range c.Policies.Names() {
		p, _, _ := c.Policies.Get(name)
		if p == nil { // it never was valid, or is gone meanwhile
			continue
		}
		c.collect(out, p, now)
	}
}

func (c *CalendarMetrics) collect(out chan<- prometheus.Metric, p *policy.Policy, now time.Time) {
	_ = backlog.SampleBounds{OnPanic: c.OnPanic}.Guard(func() error {
		gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
			out <- constMetric(desc, prometheus.GaugeValue, value, append([]string{p.Name.Namespace, p.Name.Name}, labels...)...)
		}
		gauge(periodDesc, 1, p.Calendar.Limits(now).Period)
		if at, next, ok := p.Calendar.NextChange(now); ok {
			gauge(nextChangeDesc, float64(at.Unix()), next.Period)
		}
		_, offset := now.In(p.TimeZone).Zone()
		gauge(utcOffsetDesc, float64(offset))
		return nil
	})
}
