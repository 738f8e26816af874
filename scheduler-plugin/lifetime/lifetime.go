// Package lifetime says how long a pod will still run: from what it says itself, or from how long pods of its class ran. It
// is pure: it reads no clock and knows no Kubernetes types. An Estimator is safe for concurrent use.
package lifetime

import (
	"cmp"
	"math"
	"sync"
	"time"
)

// Options of an Estimator. Zero values mean the defaults.
type Options struct {
	// HalfLife after which a run time counts half; default 7 days.
	HalfLife time.Duration
	// Classes that are kept; beyond it the one that has not been seen for longest is forgotten. Default 1,000, some 2 MiB.
	Classes int
	// MinCorrelation between expected and real run times below which nothing is expected; default 0.5.
	MinCorrelation float64
}

// coldStart is how many finished pods an Estimator must have seen before its expectations count.
const coldStart = 20

// Estimator learns run times by class and measures how well it expects them.
type Estimator struct {
	options Options
	mu      sync.Mutex
	classes map[string]*class
	stated  statements
	skill   skill
}

// class of pods that are alike: those of one ScaledJob, say.
type class struct {
	done     Histogram // that ended well
	failed   Histogram // that did not: kept apart, as a crash at start says nothing about a scan
	lastSeen time.Time
}

// New makes an Estimator that has seen nothing.
func New(options Options) *Estimator {
	options.HalfLife = cmp.Or(options.HalfLife, 7*24*time.Hour)
	options.Classes = cmp.Or(options.Classes, 1000)
	options.MinCorrelation = cmp.Or(options.MinCorrelation, 0.5)
	return &Estimator{options: options, classes: map[string]*class{}}
}

// Remaining is how long a pod that has run for age will still run, as the quantile (between 0 and 1) of what is expected: by the run
// time that the pod states itself, 0 for none, as far as such statements held; else, and when it has outlived that, by what is known of
// its class. False when that is nothing.
//
// It says what is expected whether or not expectations can be trusted: see Trusted.
func (e *Estimator) Remaining(className string, stated, age time.Duration, quantile float64) (time.Duration, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.remaining(className, stated, age, quantile)
}

func (e *Estimator) remaining(className string, stated, age time.Duration, quantile float64) (time.Duration, bool) {
	if stated > 0 {
		if remaining, known := e.stated.remaining(stated, age, quantile); known {
			return remaining, true
		}
	}
	c := e.classes[className]
	if c == nil {
		if stated > 0 {
			return max(age, time.Second), true
		}
		return 0, false
	}
	remaining, known := c.done.Remaining(age, quantile)
	if !known {
		// Nothing of this class has ended well yet: its failures are all there is to go by.
		remaining, known = c.failed.Remaining(age, quantile)
	}
	return remaining, known
}

// Finished learns from a pod that ran for ran and ended at an instant, well or not. It returns what was expected of it, in the median; 0
// when that was nothing.
func (e *Estimator) Finished(className string, stated, ran time.Duration, at time.Time, well bool) (expected time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	expected, _ = e.remaining(className, stated, 0, 0.5)
	c := e.classes[className]
	if c == nil {
		e.makeRoom()
		c = &class{done: Histogram{HalfLife: e.options.HalfLife}, failed: Histogram{HalfLife: e.options.HalfLife}}
		e.classes[className] = c
	}
	if at.After(c.lastSeen) {
		c.lastSeen = at
	}
	if !well {
		c.failed.Add(ran, at)
		return expected
	}
	c.done.Add(ran, at)
	if stated > 0 {
		e.stated.add(stated, ran)
	}
	if expected > 0 {
		e.skill.add(expected, ran)
	}
	return expected
}

// makeRoom forgets the class that has not been seen for longest when there are as many as may be.
func (e *Estimator) makeRoom() {
	if len(e.classes) < e.options.Classes {
		return
	}
	oldest := ""
	for name, c := range e.classes {
		o := e.classes[oldest]
		if o == nil || c.lastSeen.Before(o.lastSeen) || c.lastSeen.Equal(o.lastSeen) && name < oldest {
			oldest = name
		}
	}
	delete(e.classes, oldest)
}

// Trusted is true when what was expected lately told long pods from short ones. Where it did not, an order of nodes by
// expected run times is worse than one that knows nothing of them.
func (e *Estimator) Trusted() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.skill.pairs >= coldStart && e.skill.correlation() >= e.options.MinCorrelation
}

// Correlation between the logarithms of expected and real run times of the last few hundred pods, from -1 to 1; 0 when
// there is none or nothing was seen.
func (e *Estimator) Correlation() float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.skill.correlation()
}

// Classes is the number of classes that are known.
func (e *Estimator) Classes() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.classes)
}

// skillKept is how much of its weight a pair keeps with each new one: 500 pairs count.
const skillKept = 1 - 1.0/500

// skill is the correlation of pairs of numbers, the latest counting most.
type skill struct {
	pairs                    int
	weight, x, y, xx, yy, xy float64
}

func (s *skill) add(expected, ran time.Duration) {
	x, y := logarithm(expected), logarithm(ran)
	for _, sum := range []*float64{&s.weight, &s.x, &s.y, &s.xx, &s.yy, &s.xy} {
		*sum *= skillKept
	}
	s.pairs++
	s.weight++
	s.x, s.y, s.xx, s.yy, s.xy = s.x+x, s.y+y, s.xx+x*x, s.yy+y*y, s.xy+x*y
}

// logarithm of a run time; what is under a second is alike.
func logarithm(d time.Duration) float64 { return math.Log(max(1, d.Seconds())) }

// correlation is Pearson's.
func (s *skill) correlation() float64 {
	if s.weight == 0 {
		return 0
	}
	meanX, meanY := s.x/s.weight, s.y/s.weight
	varianceX, varianceY := s.xx/s.weight-meanX*meanX, s.yy/s.weight-meanY*meanY
	if varianceX < 1e-9 || varianceY < 1e-9 {
		return 0
	}
	return (s.xy/s.weight - meanX*meanY) / math.Sqrt(varianceX*varianceY)
}
