package sizing

import (
	"math"
	"time"
)

const (
	// serviceTimeHalfLife is the age at which finished work counts half.
	serviceTimeHalfLife = 30 * time.Minute
	// serviceTimeLeast is how many finished messages a mean is taken from at least.
	serviceTimeLeast = 10
)

// ServiceTime observes how long a replica takes for a message. By Little's law the mean is the time that replicas were
// busy, added up, divided by the messages that they finished; no message has to be followed for it. Old work fades. The
// zero value has seen nothing. It is not safe for concurrent use.
type ServiceTime struct {
	busy     float64 // seconds, up to the last known count
	pending  float64 // seconds, since then
	finished float64 // messages

	last      Observation // the newest
	lastCount Observation // the newest that knows what was finished
}

// Observe takes an observation in. Older ones than the last are left out.
func (s *ServiceTime) Observe(o Observation) {
	if s.last.Time.IsZero() {
		s.last = o
	}
	if elapsed := o.Time.Sub(s.last.Time).Seconds(); elapsed > 0 {
		s.pending += elapsed * float64(busy(s.last)+busy(o)) / 2
		s.last = o
	}
	if !o.FinishedKnown {
		return
	}
	if s.lastCount.Time.IsZero() || o.Finished < s.lastCount.Finished { // the first, or a broker that counts anew
		s.lastCount, s.pending = o, 0
		return
	}
	elapsed := o.Time.Sub(s.lastCount.Time)
	if elapsed <= 0 {
		return
	}
	fade := math.Exp2(-elapsed.Seconds() / serviceTimeHalfLife.Seconds())
	s.busy = s.busy*fade + s.pending
	s.finished = s.finished*fade + float64(o.Finished-s.lastCount.Finished)
	s.lastCount, s.pending = o, 0
}

// Mean returns the mean service time, or 0 when too little work was finished to tell.
func (s *ServiceTime) Mean() time.Duration {
	if s.finished < serviceTimeLeast {
		return 0
	}
	return time.Duration(s.busy / s.finished * float64(time.Second))
}
