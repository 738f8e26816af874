package calendar

import "time"

// Spec is a calendar as its author writes it, still to be checked. Package policy makes one of a ScalingPolicy, whose reference
// says what is legal.
type Spec struct {
	// TimeZone is an IANA name; empty means UTC.
	TimeZone string
	// Weekend are the weekdays that are no business days; none means Saturday and Sunday.
	Weekend []string
	// Default bounds hold outside every period.
	Default    Bounds
	Periods    []Period
	Exceptions []Exception
	// Holidays beat each other in their order.
	Holidays []HolidayRule
}

// Bounds are limits of which each may be left out (nil, or empty); it is then taken from the calendar's default.
type Bounds struct {
	MinReplicas, IdleReplicas, MaxReplicas *int32
	// Surplus as ParseSurplus reads it.
	Surplus string
}

// Period is a part of the week, month or year with bounds of its own.
type Period struct {
	Name string
	// Days on which it starts, Months of those days, and Weeks; none means all.
	Days, Months []string
	Weeks        *Weeks
	Hours
	Bounds Bounds
}

// Weeks are every nth week from Monday to Sunday, counted from the one with a date.
type Weeks struct {
	Every int
	From  string
}

// Hours of a day.
type Hours struct {
	// From and To are local times; empty means 00:00 and 24:00. To may be on a later day: at or before From it is the next, "06:00 +2"
	// is two days later, and "Mon 06:00" the Monday after.
	From, To string
	// LeadTime starts them so much earlier; from 0 to 24 hours.
	LeadTime time.Duration
}

// SpecialDay is what holds on a day in place of the periods that start on it. At least one field is set; of Use, Bounds and
// SameAs at most one.
type SpecialDay struct {
	// Use names the period whose bounds hold all day; Bounds are others.
	Use    string
	Bounds *Bounds
	// SameAs is the weekday whose periods hold, or "usual" for the day's own.
	SameAs string
	// Periods are hours of these days. They beat all else.
	Periods []SpecialHours
}

// SpecialHours are hours with bounds. Exactly one of Use and Bounds is set.
type SpecialHours struct {
	Hours
	Use    string
	Bounds *Bounds
}

// Exception is a range of dates, both included, on which something else holds.
type Exception struct {
	Name string
	// From and To are dates: 2026-12-24, or 12-24 for every year. No To means From.
	From, To string
	SpecialDay
}

// HolidayRule says what holds on holidays. They are no business days either.
type HolidayRule struct {
	Days *Holidays
	SpecialDay
}
