// Package sizing decides how many replicas a backlog asks for. It is pure: an observation, limits and parameters go in, a
// Decision comes out; no clock is read and nothing is asked of a broker.
//
// The target is the total number of unfinished jobs (or pods) that should exist, because that is what KEDA subtracts
// the existing ones from: with target size 1, strategy `default` and minReplicaCount 0 it creates target - unfinished.
// A queue's length in its place starts a second job for a message whose job is still starting.
package sizing

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// Observation is a backlog at an instant, summed over its queues.
type Observation struct {
	// Time at which the broker was asked, and where: "rabbitmq broker:5672", say.
	Time   time.Time
	Source string
	// Trace is the W3C traceparent of the sample, empty when it is not traced.
	Trace string
	// Ready messages wait to be delivered.
	Ready int64
	// ReadyHoldsInFlight is true of sources that can't tell waiting messages from those that are worked on: a Kafka
	// group's lag ends with the commit. Ready is all of both then.
	ReadyHoldsInFlight bool
	// Consumers of the workload's own. With prefetch 1 each holds at most one message.
	Consumers int64
	// ConsumersUnknown is true if the source can't count consumers: Consumers is 0 then.
	ConsumersUnknown bool
	// Unacknowledged messages, and whether they are known. They may lag some seconds behind Ready and Consumers, so
	// they only ever tell how many consumers are idle.
	Unacknowledged      int64
	UnacknowledgedKnown bool
	// Parallelism is how many consumers can work at once on the backlog: the partitions of a Kafka group that have lag, or one for each
	// queue with a single active consumer and any number for others. 0 means any number.
	Parallelism int64
	// Finished counts the messages that were ever worked off, by part of the source (a queue, a partition); nil when it is not
	// known. A part without a count is left out. It may lag: only differences over minutes are used.
	Finished map[string]int64
	// Missing names the queues that do not exist, in the broker's own word, and that count as empty.
	Missing []string
	// Quiet is how long nothing has waited for consumers of which nobody could tell whether they work, as the management API fails: see
	// Quiet.Observe.
	Quiet time.Duration
	// ManagementFailure is why the broker's management API tells nothing, and what to do; empty while it answers or is not used.
	// Unacknowledged and Finished are not known then.
	ManagementFailure string
	// CredentialsFailure is why the values that the policy refers to can't be looked up again; empty while they can. The ones that
	// were looked up last are in use.
	CredentialsFailure string
}

// Parameters are the part of a scaling policy that the arithmetic needs.
type Parameters struct {
	// MessagesPerReplica is at least 1.
	MessagesPerReplica int64
	// HoldFor is how long the last observation stays in force when newer ones fail.
	HoldFor time.Duration
	// DrainWithin is the time in which what waits is to be worked off; 0 sizes by MessagesPerReplica alone.
	DrainWithin time.Duration
	// ServiceTime that a replica takes for a message; 0 where it is observed.
	ServiceTime time.Duration
	// ScaleInStabilization is how long the highest target stays in force; 0 for ScaledJobs.
	ScaleInStabilization time.Duration
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
	// Surplus means that more come on top of the work because messages wait.
	Surplus Constraint = "surplus"
	// Cap means that maxReplicas is less than the work asks for.
	Cap Constraint = "cap"
	// Drain means that fewer replicas than one for every share of messages are enough for drainWithin.
	Drain Constraint = "drain"
	// ScaleIn means that a higher target of a moment ago still holds (scaleInStabilization).
	ScaleIn Constraint = "scale-in"
	// Hold means that the backlog can't be read and the last observation stays in force.
	Hold Constraint = "hold"
	// Outage means that it can't be read for longer than holdFor and only the calendar applies.
	Outage Constraint = "outage"
)

// Constraints are all of them.
var Constraints = [...]Constraint{Backlog, Floor, Idle, Surplus, Cap, Drain, ScaleIn, Hold, Outage}

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
	// Surplus is how many replicas the limits add because messages wait.
	Surplus int64
	// Target is the number of replicas that should exist.
	Target int32
	// Constraint that decided the target, and a sentence that says how.
	Constraint Constraint
	Reason     string

	reserve int64 // replicas on top of the demand
	drained bool  // drainWithin made the demand smaller
	working string
}

// Decide turns an observation into a target:
//
//	busy    = consumers                       when messages wait: with prefetch 1 no consumer is idle then
//	          min(unacknowledged, consumers)  otherwise; consumers when unacknowledged is not known, and
//	          0                               when it should be known and has not been for holdFor, in which nothing waited
//	waiting = ceil(ready / messagesPerReplica), or ceil(ready * serviceTime / drainWithin) where that is less
//	demand  = waiting + busy
//	surplus = of the limits, for what waits   when messages wait: a number, or a percentage of waiting, rounded down
//	target  = min(max(demand + idleReplicas + surplus, minReplicas), maxReplicas)
//
// A source that counts what is worked on among what waits has demand = waiting, at most its parallelism. No surplus goes beyond the
// parallelism, and there is none where it is not known that messages wait.
//
// Where nothing waits and unacknowledged is not known, some of the consumers may be the idle reserve already, and
// adding the reserve to them would start it again with every decision: it only fills demand up to idleReplicas then.
//
// Failure is why there is no newer observation, or nil. It holds the last observation for parameters.HoldFor; after that,
// or when there never was one (observation.Time is zero), only the calendar applies. ServiceTime is what was observed, 0
// when it is not known yet; parameters.ServiceTime comes before it.
func Decide(
	now time.Time, observation Observation, failure error, limits calendar.Limits, parameters Parameters, serviceTime time.Duration,
) Decision {
	d := Decision{Time: now, Observation: observation, Failure: failure, Limits: limits}
	age := now.Sub(observation.Time)
	if failure != nil && (observation.Time.IsZero() || age > parameters.HoldFor) {
		d.Observation = Observation{Time: observation.Time, Source: observation.Source, ConsumersUnknown: true}
		d.Target = min(max(limits.MinReplicas, limits.IdleReplicas), limits.MaxReplicas)
		d.Constraint = Outage
		d.Reason = oneLine("the backlog can't be read (%v); the limits of period %s ask for %d", failure, limits.Period, d.Target)
		return d
	}
	d.measure(parameters, cmp.Or(parameters.ServiceTime, serviceTime))
	d.bound()
	d.working = "" // it is in the reason
	if missing := observation.Missing; len(missing) > 0 {
		d.Reason = oneLine("%s; %s", d.Reason, MissingQueues(missing))
	}
	if failure != nil {
		d.Constraint = Hold
		d.Reason = oneLine("%s, as of %s ago: the backlog can't be read (%v)", d.Reason, age.Round(time.Second), failure)
	}
	return d
}

// MissingQueues says in a sentence that queues do not exist, and what they count as.
func MissingQueues(names []string) string {
	if len(names) == 1 {
		return QueuesDoNotExist(names) + " and counts as empty"
	}
	return QueuesDoNotExist(names) + " and count as empty"
}

// QueuesDoNotExist says which, of many only the first.
func QueuesDoNotExist(names []string) string {
	const shown = 3
	text := ""
	for i, name := range names[:min(shown, len(names))] {
		if i > 0 {
			text += ", "
		}
		text += strconv.Quote(name)
	}
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	if len(names) == 1 {
		return "queue " + text + " does not exist"
	}
	return "queues " + text + " do not exist"
}

// oneLine formats a text that holds what users and brokers wrote.
func oneLine(format string, arguments ...any) string {
	return OneLine(fmt.Sprintf(format, arguments...))
}

// OneLine returns a text as one line of valid UTF-8: what can't be printed in it, newlines included, is escaped as in Go.
func OneLine(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var out strings.Builder
	for _, r := range strings.ToValidUTF8(text, "\uFFFD") {
		if !unprintable(r) {
			out.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		out.WriteString(quoted[1 : len(quoted)-1])
	}
	return out.String()
}

func unprintable(r rune) bool { return r != utf8.RuneError && !unicode.IsPrint(r) }

// measure works out the demand.
func (d *Decision) measure(parameters Parameters, serviceTime time.Duration) {
	o := d.Observation
	idle := takenForIdle(o, parameters.HoldFor)
	if !idle {
		d.InFlight = busy(o)
	}
	waiting := ceil(o.Ready, parameters.MessagesPerReplica)
	ready := fmt.Sprintf("%d ready", o.Ready)
	if o.ReadyHoldsInFlight {
		ready = fmt.Sprintf("%d unfinished", o.Ready)
	}
	if n := parameters.MessagesPerReplica; n > 1 {
		ready += fmt.Sprintf(" (%d a replica)", n)
	}
	if parameters.DrainWithin > 0 && serviceTime > 0 {
		fewer := math.Ceil(float64(o.Ready) * serviceTime.Seconds() / parameters.DrainWithin.Seconds())
		if fewer < float64(waiting) {
			waiting, d.drained = int64(fewer), true
			ready += fmt.Sprintf(", at %s each to be drained within %s by %d,", serviceTime.Round(100*time.Millisecond), parameters.DrainWithin, waiting)
		}
	}
	d.Demand, d.working = waiting, ready
	if idle {
		d.working += fmt.Sprintf(" (%d consumers count as idle: nothing has waited for %s, and the management API does not tell)", o.Consumers, o.Quiet.Round(time.Second))
	}
	if !o.ReadyHoldsInFlight {
		if d.Demand += d.InFlight; d.Demand < 0 { // more than there is a number for
			d.Demand = math.MaxInt64
		}
		d.working += fmt.Sprintf(" and %d in flight", d.InFlight)
	}
	if o.Parallelism > 0 && d.Demand > o.Parallelism {
		d.Demand = o.Parallelism
		if o.ReadyHoldsInFlight {
			d.working += fmt.Sprintf(", on %d partitions,", o.Parallelism)
		} else {
			d.working += fmt.Sprintf(", but queues with a single active consumer allow only %d at once,", o.Parallelism)
		}
	}
	d.Surplus = surplus(d.Limits.Surplus, o, waiting, ceil(o.Ready-d.InFlight, parameters.MessagesPerReplica))
	if o.Parallelism > 0 {
		d.Surplus = min(d.Surplus, o.Parallelism-d.Demand)
	}
	d.reserve = int64(d.Limits.IdleReplicas)
	if !o.ReadyHoldsInFlight && o.Ready == 0 && !o.UnacknowledgedKnown {
		d.reserve = max(0, d.reserve-d.Demand)
	}
}

// surplus is how many replicas are added because messages wait, of which waiting replicas are for. Where the source counts what is in flight among
// them, only those that are not in flight count; if it does not know how many are in flight, nothing is known to wait.
func surplus(s calendar.Surplus, o Observation, waiting, notInFlight int64) int64 {
	switch {
	case !o.ReadyHoldsInFlight:
		return s.Of(waiting)
	case o.ConsumersUnknown:
		return 0
	default:
		return s.Of(min(waiting, notInFlight))
	}
}

// busy is how many messages are worked on.
func busy(o Observation) int64 {
	switch {
	case o.ReadyHoldsInFlight:
		return min(o.Ready, o.Consumers)
	case o.Ready > 0 || !o.UnacknowledgedKnown:
		return o.Consumers
	default:
		return min(o.Unacknowledged, o.Consumers)
	}
}

// takenForIdle is that consumers have counted as busy for as long as a backlog that can't be read is held, and no longer do: pods of a
// Deployment do not end by themselves, so they would be kept for ever.
func takenForIdle(o Observation, holdFor time.Duration) bool { return o.Quiet > 0 && o.Quiet > holdFor }

// Quiet remembers since when nothing has waited for consumers of which it is not known whether they work, though a management API is there
// to tell. The zero value is ready for use. It is not safe for concurrent use.
type Quiet struct{ since time.Time }

// Observe takes a new observation and returns it with its Quiet.
func (q *Quiet) Observe(o Observation) Observation {
	if o.Ready > 0 || o.Consumers == 0 || o.UnacknowledgedKnown || o.ManagementFailure == "" {
		q.since = time.Time{}
		return o
	}
	if q.since.IsZero() || o.Time.Before(q.since) { // the clock was put back
		q.since = o.Time
	}
	o.Quiet = o.Time.Sub(q.since)
	return o
}

func ceil(a, b int64) int64 {
	if a%b > 0 {
		return a/b + 1
	}
	return a / b
}

// bound applies the limits to the demand.
func (d *Decision) bound() {
	l := d.Limits
	d.Demand = min(d.Demand, math.MaxInt64-d.reserve-d.Surplus)
	work := d.Demand + d.reserve + d.Surplus
	wanted := max(work, int64(l.MinReplicas))
	d.Target = int32(min(wanted, int64(l.MaxReplicas)))
	asked := fmt.Sprintf("%s ask for %d", d.working, d.Demand)
	withMore := asked
	switch {
	case d.reserve > 0 && d.Surplus > 0:
		withMore += fmt.Sprintf(", %d with %d idle and a surplus of %d", work, d.reserve, d.Surplus)
	case d.reserve > 0:
		withMore += fmt.Sprintf(", %d with %d idle", work, d.reserve)
	case d.Surplus > 0:
		withMore += fmt.Sprintf(", %d with a surplus of %d", work, d.Surplus)
	}
	switch {
	case wanted > int64(l.MaxReplicas) && wanted > work:
		d.Constraint = Cap
		d.Reason = oneLine("%s, below the floor of %d, which is capped at %d by period %s", withMore, l.MinReplicas, l.MaxReplicas, l.Period)
	case wanted > int64(l.MaxReplicas):
		d.Constraint = Cap
		d.Reason = oneLine("%s, capped at %d by period %s", withMore, l.MaxReplicas, l.Period)
	case work < int64(l.MinReplicas):
		d.Constraint = Floor
		d.Reason = oneLine("%s, below the floor of %d of period %s", withMore, l.MinReplicas, l.Period)
	case d.Surplus > 0 && d.reserve > 0:
		d.Constraint = Surplus
		d.Reason = oneLine("%s, and period %s keeps %d idle and adds %d while messages wait (%s)", asked, l.Period, d.reserve, d.Surplus, l.Surplus)
	case d.Surplus > 0:
		d.Constraint = Surplus
		d.Reason = oneLine("%s, and period %s adds %d while messages wait (%s)", asked, l.Period, d.Surplus, l.Surplus)
	case d.reserve > 0:
		d.Constraint = Idle
		d.Reason = oneLine("%s, and period %s keeps %d idle", asked, l.Period, d.reserve)
	default:
		d.Constraint = Backlog
		if d.drained {
			d.Constraint = Drain
		}
		d.Reason = oneLine("%s", asked)
	}
}

// UntilServiceTimeKnown returns the decision with no more than a previous target, for a policy that sizes by a service time that is not known
// yet: a replica for every share of messages would be far too many. The floor still holds. Previous is 0 where there was none, and the decision
// is returned as it is.
func (d Decision) UntilServiceTimeKnown(previous int64) Decision {
	held := max(previous, int64(d.Limits.MinReplicas))
	if previous <= 0 || int64(d.Target) <= held || d.Constraint == Outage {
		return d
	}
	d.Reason = oneLine("%s; held at %d until the service time of messages is known", d.Reason, held)
	d.Target = int32(held)
	if d.Constraint != Hold {
		d.Constraint = Drain
	}
	return d
}
