package simulator

import (
	"sync"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Seen is what can be seen of a queue at an instant.
type Seen struct {
	// Class of the queue's messages; empty where there is one queue for all.
	Class                            string
	Ready, Consumers, Unacknowledged int64
	// Statistic is ready and unacknowledged as the management API says: up to five seconds old.
	Statistic int64
}

// Scaler says how many jobs a queue asks for, and what decided that. It may remember.
type Scaler interface {
	Target(now time.Time, seen Seen) (replicas int64, by sizing.Constraint)
}

// ScalerFunc is a function as a Scaler.
type ScalerFunc func(now time.Time, seen Seen) (int64, sizing.Constraint)

// Target implements Scaler.
func (f ScalerFunc) Target(now time.Time, seen Seen) (int64, sizing.Constraint) {
	return f(now, seen)
}

// Ebbtide is the scaler's own code: the limits of a calendar, and the target.
func Ebbtide(limits *calendar.Calendar, policy sizing.Parameters) Scaler {
	// The last answer for each class, as most polls see what the poll before saw: a target depends on what is seen and on the limits alone.
	type answer struct {
		seen   Seen
		limits calendar.Limits
		target int64
		by     sizing.Constraint
	}
	var last sync.Map
	return ScalerFunc(func(now time.Time, seen Seen) (int64, sizing.Constraint) {
		inForce := limits.Limits(now)
		seen.Statistic = 0
		if known, ok := last.Load(seen.Class); ok {
			if a := known.(*answer); a.seen == seen && a.limits == inForce {
				return a.target, a.by
			}
		}
		observation := sizing.Observation{
			Time: now, Ready: seen.Ready, Consumers: seen.Consumers, Unacknowledged: seen.Unacknowledged, UnacknowledgedKnown: true,
		}
		d := sizing.Decide(now, observation, nil, inForce, policy, 0)
		last.Store(seen.Class, &answer{seen, inForce, int64(d.Target), d.Constraint})
		return int64(d.Target), d.Constraint
	})
}

// RabbitMQ is KEDA's trigger of that name with a value of 1: over AMQP it reports ready messages, over HTTP a statistic of those
// and of unacknowledged ones.
func RabbitMQ(http bool) Scaler {
	return ScalerFunc(func(_ time.Time, seen Seen) (int64, sizing.Constraint) {
		if http {
			return seen.Statistic, sizing.Backlog
		}
		return seen.Ready, sizing.Backlog
	})
}

// WithCron is a scaler beside KEDA's cron triggers: the highest value counts.
func WithCron(s Scaler, triggers ...*keda.Cron) Scaler {
	return ScalerFunc(func(now time.Time, seen Seen) (int64, sizing.Constraint) {
		value, by := s.Target(now, seen)
		for _, c := range triggers {
			if floor := c.Value(now); floor > value {
				value, by = floor, sizing.Floor
			}
		}
		return value, by
	})
}

// Static are pools of fixed sizes, one for each class of messages that has a queue.
func Static(replicas map[string]int64) Scaler {
	return ScalerFunc(func(_ time.Time, seen Seen) (int64, sizing.Constraint) { return replicas[seen.Class], sizing.Floor })
}
