// Package target decides how many replicas a backlog asks for. It is pure: an observation, limits and a policy go in, a
// Decision comes out; no clock is read and nothing is asked of a broker.
//
// The target is the total number of unfinished jobs (or pods) that should exist, because that is what KEDA subtracts
// the existing ones from: with target size 1, strategy `default` and minReplicaCount 0 it creates target - unfinished.
// A queue's length in its place starts a second job for a message whose job is still starting.
package target

import (
	"fmt"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// Observation is a backlog at an instant, summed over its queues.
type Observation struct {
	// Time at which the broker was asked.
	Time time.Time
	// Ready messages wait to be delivered.
	Ready int64
	// Consumers of the workload's own. With prefetch 1 each holds at most one message.
	Consumers int64
	// Unacknowledged messages, and whether they are known. They may lag some seconds behind Ready and Consumers, so
	// they only ever tell how many consumers are idle.
	Unacknowledged      int64
	UnacknowledgedKnown bool
}

// Policy is the part of a scaling policy that the arithmetic needs.
type Policy struct {
	// MessagesPerReplica is at least 1.
	MessagesPerReplica int64
	// HoldFor is how long the last observation stays in force when newer ones fail.
	HoldFor time.Duration
}

// Constraint is what decided a target.
type Constraint string

const (
	// Backlog asks for one replica for each busy consumer and each waiting share of messages.
	Backlog Constraint = "backlog"
	// Floor means that minReplicas is more than the work asks for.
	Floor Constraint = "floor"
	// Idle means that the reserve comes on top of the work.
	Idle Constraint = "idle"
	// Cap means that maxReplicas is less than the work asks for.
	Cap Constraint = "cap"
	// Hold means that the backlog can't be read and the last observation stays in force.
	Hold Constraint = "hold"
	// Outage means that it can't be read for longer than holdFor and the calendar speaks alone.
	Outage Constraint = "outage"
)

// Decision is a target and why it is that.
type Decision struct {
	// Time of the decision.
	Time time.Time
	// Observation that was used, and the failure to make a newer one, if any.
	Observation Observation
	Failure     error
	// Limits in force.
	Limits calendar.Limits
	// InFlight is how many messages are being worked on; Demand the replicas that the work asks for, limits aside.
	InFlight, Demand int64
	// Target is the number of replicas that should exist.
	Target int32
	// Constraint that decided the target, and a sentence that says how.
	Constraint Constraint
	Reason     string

	reserve int64 // replicas on top of the demand
}

// Decide turns an observation into a target:
//
//	busy   = consumers                       when messages wait: with prefetch 1 no consumer is idle then
//	         min(unacknowledged, consumers)  otherwise; consumers when unacknowledged is not known
//	demand = ceil(ready / messagesPerReplica) + busy
//	target = min(max(demand + idleReplicas, minReplicas), maxReplicas)
//
// Where nothing waits and unacknowledged is not known, some of the consumers may be the idle reserve already, and
// adding the reserve to them would start it anew with every decision: it only fills demand up to idleReplicas then.
//
// Failure is why there is no newer observation, or nil. It holds the last observation for policy.HoldFor; after that,
// or when there never was one (observation.Time is zero), the calendar speaks alone.
func Decide(now time.Time, observation Observation, failure error, limits calendar.Limits, policy Policy) Decision {
	d := Decision{Time: now, Observation: observation, Failure: failure, Limits: limits}
	age := now.Sub(observation.Time)
	if failure != nil && (observation.Time.IsZero() || age > policy.HoldFor) {
		d.Observation = Observation{Time: observation.Time}
		d.Target = min(max(limits.MinReplicas, limits.IdleReplicas), limits.MaxReplicas)
		d.Constraint = Outage
		d.Reason = fmt.Sprintf("the backlog can't be read (%v); the limits of period %s ask for %d", failure, limits.Period, d.Target)
		return d
	}
	d.InFlight = busy(observation)
	d.Demand = ceil(observation.Ready, policy.MessagesPerReplica) + d.InFlight
	d.reserve = int64(limits.IdleReplicas)
	if observation.Ready == 0 && !observation.UnacknowledgedKnown {
		d.reserve = max(0, d.reserve-d.Demand)
	}
	d.Target, d.Constraint, d.Reason = bound(d)
	if failure != nil {
		d.Constraint = Hold
		d.Reason = fmt.Sprintf("%s, as of %s ago: the backlog can't be read (%v)", d.Reason, age.Round(time.Second), failure)
	}
	return d
}

func busy(o Observation) int64 {
	if o.Ready > 0 || !o.UnacknowledgedKnown {
		return o.Consumers
	}
	return min(o.Unacknowledged, o.Consumers)
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }

// bound applies the limits to the demand.
func bound(d Decision) (int32, Constraint, string) {
	l := d.Limits
	work := fmt.Sprintf("%d ready and %d in flight", d.Observation.Ready, d.InFlight)
	wanted := max(d.Demand+d.reserve, int64(l.MinReplicas))
	switch {
	case wanted > int64(l.MaxReplicas):
		return l.MaxReplicas, Cap, fmt.Sprintf("%s ask for %d, capped at %d by period %s", work, wanted, l.MaxReplicas, l.Period)
	case d.Demand+d.reserve < int64(l.MinReplicas):
		return int32(wanted), Floor, fmt.Sprintf("%s ask for %d, below the floor of %d of period %s",
			work, d.Demand+d.reserve, l.MinReplicas, l.Period)
	case d.reserve > 0:
		return int32(wanted), Idle, fmt.Sprintf("%s ask for %d, and period %s keeps %d idle", work, d.Demand, l.Period, d.reserve)
	default:
		return int32(wanted), Backlog, fmt.Sprintf("%s ask for %d", work, d.Demand)
	}
}
