package lifetime

import "math"

// skillKept is how much of its weight a pair keeps with each new one: 500 pairs count.
const skillKept = 1 - 1.0/500

// skill is the correlation of pairs of run times, the latest counting most.
type skill struct {
	pairs                    int
	weight, x, y, xx, yy, xy float64
}

// add counts a pair, in seconds; what is under one is alike.
func (s *skill) add(expected, ran float64) {
	x, y := math.Log(max(1, expected)), math.Log(max(1, ran))
	for _, sum := range []*float64{&s.weight, &s.x, &s.y, &s.xx, &s.yy, &s.xy} {
		*sum *= skillKept
	}
	s.pairs++
	s.weight++
	s.x, s.y, s.xx, s.yy, s.xy = s.x+x, s.y+y, s.xx+x*x, s.yy+y*y, s.xy+x*y
}

// varies is true when run times differ enough to be told apart: by a fifth or so in the standard deviation.
func (s *skill) varies() bool {
	mean := s.y / s.weight
	return s.yy/s.weight-mean*mean > 0.04
}

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
