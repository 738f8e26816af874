package sizing

import (
	"math"
	"slices"
	"time"
)

const (
	// serviceTimeHalfLife is the age at which finished work counts half.
	serviceTimeHalfLife = 30 * time.Minute
	// serviceTimeLeast is how many finished messages a mean is taken from at least.
	serviceTimeLeast = 10
	// compared is with how many of the last measurements a new one is compared, and from how many on it is.
	compared, comparedLeast = 9, 3
	// implausible is by how many times shorter than the median a measurement is left out.
	implausible = 10
)

// ServiceTime observes how long a replica takes for a message. By Little's law the mean is the time that replicas were
// busy, added up, divided by the messages that they finished; no message has to be followed for it. Old work fades as newer work
// comes in; while none does, the mean stays.
//
// Progress is taken by part of the source (queue, partition): a part that is seen for the first time, or that counts from a lower
// number, only sets where to count from. A measurement that is ten times shorter than the median of the last ones is left out, such as an
// offset that was moved by hand; one that repeats moves the median and is believed.
//
// The zero value has seen nothing. It is not safe for concurrent use.
type ServiceTime struct {
	mean     time.Duration // the last one known
	busy     float64       // seconds of replicas, of the measurements that count
	finished float64       // messages, of the same

	last    Observation // the newest
	counted Observation // the newest that knows what was finished
	pending float64     // seconds of replicas, since the last measurement
	begun   time.Time   // when the last measurement ended
	recent  []measurement
}

// measurement is what was finished in how many seconds of busy replicas.
type measurement struct{ busy, finished float64 }

func (m measurement) each() float64 { return m.busy / m.finished }

// StartFrom takes a mean that was observed before, by another process, until enough is seen to tell.
func (s *ServiceTime) StartFrom(mean time.Duration) {
	if s.mean == 0 {
		s.mean = mean
	}
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
	if o.Finished == nil || !o.Time.After(s.counted.Time) {
		return
	}
	finished, complete := progress(s.counted.Finished, o.Finished)
	s.counted = o
	switch {
	case !complete: // what was finished meanwhile is not known
		s.pending, s.begun = 0, o.Time
	case finished > 0:
		s.measured(measurement{s.pending, float64(finished)}, o.Time.Sub(s.begun))
		s.pending, s.begun = 0, o.Time
	}
}

// progress is how many messages were finished from one count to the next. It is not complete where a part has nothing to compare with.
func progress(before, after map[string]int64) (finished int64, complete bool) {
	complete = before != nil
	for part, count := range after {
		from, known := before[part]
		if !known || count < from {
			complete = false
			continue
		}
		finished += count - from
	}
	return finished, complete
}

// measured takes a measurement in that took some time.
func (s *ServiceTime) measured(m measurement, took time.Duration) {
	if len(s.recent) == compared {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	s.recent = append(s.recent, m)
	taken := []measurement{m}
	switch n := len(s.recent); {
	case n < comparedLeast:
		return
	case n == comparedLeast: // those before have waited for it
		taken = s.recent
	}
	fade := math.Exp2(-took.Seconds() / serviceTimeHalfLife.Seconds())
	s.busy, s.finished = s.busy*fade, s.finished*fade
	median := s.median()
	for _, m := range taken {
		// A few messages do no harm, and their times differ widely.
		if m.finished <= serviceTimeLeast || m.each() >= median/implausible {
			s.busy, s.finished = s.busy+m.busy, s.finished+m.finished
		}
	}
	if s.finished >= serviceTimeLeast {
		s.mean = time.Duration(s.busy / s.finished * float64(time.Second)).Round(time.Millisecond)
	}
}

func (s *ServiceTime) median() float64 {
	each := make([]float64, len(s.recent))
	for i, m := range s.recent {
		each[i] = m.each()
	}
	slices.Sort(each)
	return each[len(each)/2]
}

// Mean returns the mean service time, or 0 when too little work was ever finished to tell.
func (s *ServiceTime) Mean() time.Duration { return s.mean }
