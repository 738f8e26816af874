package lifetime

import "math"

// Run times are counted in bins of a quarter of an octave (19%) from one second up; the first bin holds what is shorter, the last what is
// longer than some 190 days.
const (
	perOctave = 4
	bins      = 24*perOctave + 1
)

// bounds of the bins: bin i is from bounds[i] up to bounds[i+1], in seconds.
var bounds = func() (b [bins + 1]float64) {
	for i := 1; i <= bins; i++ {
		b[i] = math.Exp2(float64(i-1) / perOctave)
	}
	return b
}()

// middles of the bins, as logarithms.
var middles = func() (m [bins]float64) {
	for i := range m {
		m[i] = math.Log(max(1, (bounds[i]+bounds[i+1])/2))
	}
	return m
}()

func binOf(seconds float64) int {
	if seconds < 1 {
		return 0
	}
	return min(bins-1, 1+int(perOctave*math.Log2(seconds)))
}

// Ratios of real to stated run times are counted in bins of an eighth of an octave (9%), the middle one around 1, down to and up from a
// factor of some 4,000.
const (
	ratiosPerOctave = 8
	ratioBins       = 2*12*ratiosPerOctave + 1
)

// ratioBounds are the lower bounds of the bins of ratios.
var ratioBounds = func() (b [ratioBins + 1]float64) {
	for i := range b {
		b[i] = math.Exp2((float64(i) - ratioBins/2 - 0.5) / ratiosPerOctave)
	}
	return b
}()
