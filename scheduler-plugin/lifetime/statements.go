package lifetime

import (
	"math"
	"time"
)

// Of statements this good nothing is left to chance, and of a run time that is this unlikely nothing is known: see remaining.
const (
	certain  = 0.01
	unlikely = 1e-4
)

// longest run time that is told from longer ones, so that durations do not overflow: some 30 years.
const longest = 1e9

// statements is how run times came out that pods had stated, by which those of others are read: as the logarithm of a run time
// being normal around its least-squares line over the logarithm of what was stated. Statements that are off by chance are thereby
// drawn towards what is usual, the more the less they have told (regression toward the mean), and those in a wrong unit are put right.
type statements struct{ pairs skill }

func (s *statements) add(stated, ran time.Duration) { s.pairs.add(stated, ran) }

// remaining is how long a pod that stated a run time will still run after age, as the q-quantile: that of the lognormal distribution
// cut off at age, whose tail is S(t | age) = S(t) / S(age), so that S(t) = (1 - q) S(age). Until enough pods have ended the statement
// is taken at its word. False when the pod has run longer than its statement lets expect of any.
func (s *statements) remaining(stated, age time.Duration, q float64) (time.Duration, bool) {
	middle, spread := math.Log(stated.Seconds()), 0.0
	if s.pairs.pairs >= coldStart {
		middle, spread = s.pairs.line(logarithm(stated))
	}
	if spread < certain {
		ends := duration(math.Exp(middle))
		return ends - age, ends > age
	}
	tail := 1.0
	if age > 0 {
		tail = math.Erfc((math.Log(age.Seconds())-middle)/spread/math.Sqrt2) / 2
	}
	if tail < unlikely {
		return 0, false
	}
	ends := middle + spread*math.Sqrt2*math.Erfcinv(2*(1-q)*tail)
	return max(0, duration(math.Exp(ends))-age), true
}

// line is the least-squares line's value at x, and the standard deviation around it.
func (s *skill) line(x float64) (y, spread float64) {
	meanX, meanY := s.x/s.weight, s.y/s.weight
	varianceX, varianceY := s.xx/s.weight-meanX*meanX, s.yy/s.weight-meanY*meanY
	if varianceX < 1e-9 {
		return meanY, math.Sqrt(max(0, varianceY))
	}
	covariance := s.xy/s.weight - meanX*meanY
	slope := max(0, covariance/varianceX) // who says long and runs short is not believed the other way round
	return meanY + slope*(x-meanX), math.Sqrt(max(0, varianceY-slope*covariance))
}

// duration of seconds, to the hundredth.
func duration(seconds float64) time.Duration {
	return time.Duration(min(longest, seconds) * float64(time.Second)).Round(10 * time.Millisecond)
}
