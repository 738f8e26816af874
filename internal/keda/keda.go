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

// Cron is KEDA's cron trigger: a value between a start and an end. It knows only when each comes next, so where both fall on
// different days, a window of Monday to Friday stays open from Friday's start to Monday's end.
type Cron struct {
	zone       *time.Location
	start, end cron.Schedule
	Desired    int64
}

// NewCron makes a trigger of five-field cron expressions in a time zone.
func NewCron(zone *time.Location, start, end string, desired int64) (*Cron, error) {
	from, err := cron.ParseStandard(start)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", strconv.Quote(start), err)
	}
	to, err := cron.ParseStandard(end)
	if err != nil {
		return nil, fmt.Errorf("end %s: %w", strconv.Quote(end), err)
	}
	return &Cron{zone: zone, start: from, end: to, Desired: desired}, nil
}

// Value at an instant: Desired within the window, else 0. The rule is that of pkg/scalers/cron_scaler.go.
func (c *Cron) Value(now time.Time) int64 {
	local := now.In(c.zone)
	start, end := c.start.Next(local), c.end.Next(local)
	if start.Before(end) {
		return 0
	}
	return c.Desired
}
