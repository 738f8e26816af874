package report

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Whatever the values, an axis has a few marks in order, and all values are on it.
func TestScale(t *testing.T) {
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 0))
		values := make([]float64, 1+random.IntN(12))
		for i := range values {
			values[i] = random.ExpFloat64() * []float64{0, 1, 1, 1000}[random.IntN(4)]
		}
		s := scaleOf(values)
		if len(s.marks) < 2 || len(s.marks) > 40 || !slices.IsSorted(s.marks) {
			t.Fatalf("%v: marks %v", values, s.marks)
		}
		for _, v := range values {
			if share := s.share(v); !(share >= 0 && share <= 1) {
				t.Fatalf("%v: %v is at %v of marks %v", values, v, share, s.marks)
			}
		}
	}
	// One that is far off leaves room for the others: 44 and 60 of 44 to 300 would be 0.05 of a linear axis apart.
	s := scaleOf([]float64{44, 50, 60, 300})
	if !s.log || s.share(60)-s.share(44) < 0.08 {
		t.Errorf("%+v: from %v to %v", s, s.share(44), s.share(60))
	}
}
