package simulator

import (
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// Seen is what can be seen of a queue at an instant.
type Seen struct {
	Ready, Consumers, Unacknowledged int64
	// Statistic is ready and unacknowledged as the management API says: up to five seconds old.
	Statistic int64
}

// Scaler says how many jobs a queue asks for. It may remember.
type Scaler interface {
	Target(now time.Time, seen Seen) int64
}

// ScalerFunc is a function as a Scaler.
type ScalerFunc func(now time.Time, seen Seen) int64

// Target implements Scaler.
func (f ScalerFunc) Target(now time.Time, seen Seen) int64 { return f(now, seen) }

// Ebbtide is the scaler's own code: the limits of a calendar, and the target.
func Ebbtide(limits *calendar.Calendar, policy target.Policy) Scaler {
	return ScalerFunc(func(now time.Time, seen Seen) int64 {
		observation := target.Observation{
			Time: now, Ready: seen.Ready, Consumers: seen.Consumers, Unacknowledged: seen.Unacknowledged, UnacknowledgedKnown: true,
		}
		return int64(target.Decide(now, observation, nil, limits.Limits(now), policy, 0).Target)
	})
}

// RabbitMQ is KEDA's trigger of that name with a value of 1: over AMQP it reports ready messages, over HTTP a statistic of those
// and of unacknowledged ones.
func RabbitMQ(http bool) Scaler {
	return ScalerFunc(func(_ time.Time, seen Seen) int64 {
		if http {
			return seen.Statistic
		}
		return seen.Ready
	})
}

// WithCron is a scaler beside KEDA's cron triggers: the highest value counts.
func WithCron(s Scaler, triggers ...*keda.Cron) Scaler {
	return ScalerFunc(func(now time.Time, seen Seen) int64 {
		value := s.Target(now, seen)
		for _, c := range triggers {
			value = max(value, c.Value(now))
		}
		return value
	})
}

// Static is a pool of a fixed size.
func Static(replicas int64) Scaler {
	return ScalerFunc(func(time.Time, Seen) int64 { return replicas })
}
