// Package keda is the arithmetic by which KEDA 2.21 makes jobs of what triggers report, for tests and for the simulator. Target
// size is 1 throughout.
package keda

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Jobs of a ScaledJob as KEDA sees them at a poll.
type Jobs struct {
	// Unfinished jobs, and those of them without a running pod.
	Unfinished, Pending int64
	// Min and Max are minReplicaCount and maxReplicaCount.
	Min, Max int64
}

// Strategy is how many jobs a poll creates for a value. The formulas are those of pkg/scaling/executor/scale_jobs.go.
type Strategy func(value int64, jobs Jobs) int64

var strategies = map[string]Strategy{
	"default": func(value int64, j Jobs) int64 { return min(value, j.scaled(value)-j.counted()) },
	"accurate": func(value int64, j Jobs) int64 {
		if scaled := j.scaled(value); scaled+j.counted()-j.Pending <= j.Max {
			return scaled - j.Pending
		}
		return j.Max - j.counted()
	},
	"eager": func(value int64, j Jobs) int64 {
		return min(j.Max-j.counted()-j.Pending, j.scaled(value))
	},
	// with its defaults: nothing deducted, all running jobs counted
	"custom": func(value int64, j Jobs) int64 { return j.scaled(value) - j.counted() },
}

func (j Jobs) scaled(value int64) int64 { return min(value, j.Max-j.Min) }
func (j Jobs) counted() int64           { return j.Unfinished - j.Min }

// Strategies are the names of all of them.
func Strategies() []string { return slices.Sorted(maps.Keys(strategies)) }

// NewStrategy is one of Strategies; empty means default.
func NewStrategy(name string) (Strategy, error) {
	s := strategies[cmp.Or(name, "default")]
	if s == nil {
		return nil, fmt.Errorf("strategy %q is not known: one of %s", name, strings.Join(Strategies(), ", "))
	}
	return s, nil
}

// Create is how many jobs a poll creates: none for a value of 0, and only the floor's as long as there are fewer than that.
func (s Strategy) Create(value int64, jobs Jobs) int64 {
	if jobs.Unfinished < jobs.Min {
		return jobs.Min - jobs.Unfinished
	}
	if value <= 0 {
		return 0
	}
	return max(0, s(value, jobs))
}

// Cron is KEDA's cron trigger: a value between a start and an end. It knows only when each comes next, and is on where that is an end. So
// where an end follows an end, on a weekend say, it stays on between them.
type Cron struct {
	zone       *time.Location
	start, end *cron.SpecSchedule
	Desired    int64
}

// cronFields are what KEDA reads: no descriptors as @daily, no seconds.
var cronFields = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// NewCron makes a trigger of five-field cron expressions in a time zone.
func NewCron(zone *time.Location, start, end string, desired int64) (*Cron, error) {
	c := &Cron{zone: zone, Desired: desired}
	for _, expression := range []struct {
		name, text string
		into       **cron.SpecSchedule
	}{{"start", start, &c.start}, {"end", end, &c.end}} {
		schedule, err := cronFields.Parse(expression.text)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", expression.name, strconv.Quote(expression.text), err)
		}
		*expression.into = schedule.(*cron.SpecSchedule) // what has no descriptor is one
	}
	return c, nil
}

// Schedules are those of the start and the end.
func (c *Cron) Schedules() (start, end *cron.SpecSchedule) { return c.start, c.end }

// Value at an instant: Desired within the window, else 0. The rule is that of pkg/scalers/cron_scaler.go.
func (c *Cron) Value(now time.Time) int64 {
	start, end := c.next(now)
	on := now.After(start) || now.Before(end)
	if start.Before(end) {
		on = now.After(start) && now.Before(end)
	}
	if on {
		return c.Desired
	}
	return 0
}

// NextChange is the first instant after another at which the value may change; zero when it never does.
func (c *Cron) NextChange(now time.Time) time.Time {
	start, end := c.next(now)
	if start.IsZero() || !end.IsZero() && end.Before(start) {
		return end
	}
	return start
}

// next are the next start and the next end; zero where there is none in five years.
func (c *Cron) next(now time.Time) (start, end time.Time) {
	local := now.In(c.zone)
	return c.start.Next(local), c.end.Next(local)
}
