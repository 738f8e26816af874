package calendar

import "time"

// Spec is a calendar as its author writes it, still to be checked. Package policy makes one of a ScalingPolicy.
type Spec struct {
	// TimeZone is an IANA name; empty means UTC.
	TimeZone string
	// Default bounds hold outside every period.
	Default    Bounds
	Periods    []Period
	Exceptions []Exception
	Holidays   *HolidayRule // nil: none
}

// Bounds are limits of which each may be left out (nil); it is then taken from the calendar's default.
type Bounds struct{ MinReplicas, IdleReplicas, MaxReplicas *int32 }

// Period is a part of the week or month with bounds of its own.
type Period struct {
	Name string
	// Days on which it starts; none means every day.
	Days []string
	// From and To are local times, HH:MM; empty means 00:00 and 24:00.
	From, To string
	// LeadTime starts it so much earlier; from 0 to 24 hours.
	LeadTime time.Duration
	Bounds   Bounds
}

// Exception is a range of dates, both included, on which other bounds hold.
type Exception struct {
	Name string
	// From and To are dates: 2026-12-24, or 12-24 for every year. No To means From.
	From, To string
	// Use names the period whose bounds hold; Bounds are others. Exactly one is set.
	Use    string
	Bounds *Bounds
}

// HolidayRule says what holds on holidays.
type HolidayRule struct {
	Days *Holidays
	// Use names the period whose bounds hold; Bounds are others. Exactly one is set.
	Use    string
	Bounds *Bounds
}
