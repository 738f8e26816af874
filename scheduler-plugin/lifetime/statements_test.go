package lifetime

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Against what really became of pods: of those that stated about as much, and ran for age, the q-quantile of the rest of their run
// times. Statements are off by a lognormal factor, or say minutes for seconds too.
func TestStatementsAgainstSorted(t *testing.T) {
	for name, unit := range map[string]float64{"right unit": 1, "minutes said for seconds": 60} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 1))
			var s statements
			type pod struct{ stated, ran time.Duration }
			var pods []pod
			for range 100_000 {
				ran := math.Exp(5 + 1.5*random.NormFloat64())
				p := pod{seconds(unit * ran * math.Exp(0.7*random.NormFloat64())), seconds(ran)}
				pods = append(pods, p)
				s.add(p.stated, p.ran)
			}
			for _, said := range []float64{60, 600} {
				for _, age := range []float64{0, 30, 300, 900} {
					var rest []time.Duration
					for _, p := range pods {
						if math.Abs(math.Log(p.stated.Seconds()/said/unit)) < 0.05 && p.ran > seconds(age) {
							rest = append(rest, p.ran-seconds(age))
						}
					}
					if len(rest) < 100 {
						continue
					}
					slices.Sort(rest)
					for _, q := range []float64{0.3, 0.5, 0.8} {
						want := rest[int(q*float64(len(rest)))]
						got, known := s.remaining(seconds(said*unit), seconds(age), q)
						// The line is that of the last 500 pods, so it is off by some percent itself.
						if ratio := got.Seconds() / want.Seconds(); !known || ratio < 0.8 || ratio > 1.25 {
							t.Errorf("of %d pods that said %g s and ran for %g s the %g-quantile is %s, want %s", len(rest), said, age, q, got, want)
						}
					}
				}
			}
		})
	}
}

func TestStatements(t *testing.T) {
	after := func(pairs int, ran func(stated float64) float64) *statements {
		var s statements
		for i := range pairs {
			stated := float64(1 + i%100)
			s.add(seconds(stated), seconds(ran(stated)))
		}
		return &s
	}
	exactly := func(s float64) float64 { return s }
	for name, tc := range map[string]struct {
		s           *statements
		stated, age time.Duration
		want        time.Duration
		known       bool
	}{
		"nothing seen: at its word":            {after(0, exactly), time.Hour, time.Minute, 59 * time.Minute, true},
		"nothing seen, and outlived":           {after(0, exactly), time.Minute, time.Minute, 0, false},
		"they held":                            {after(500, exactly), time.Hour, time.Minute, 59 * time.Minute, true},
		"they held, and one is outlived":       {after(500, exactly), time.Minute, 61 * time.Second, 0, false},
		"they said half":                       {after(500, func(s float64) float64 { return 2 * s }), 30 * time.Second, 20 * time.Second, 40 * time.Second, true},
		"they always ran a minute, so will it": {after(500, func(float64) float64 { return 60 }), time.Hour, 0, time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, known := tc.s.remaining(tc.stated, tc.age, 0.5)
			if known != tc.known || known && math.Abs((got-tc.want).Seconds()) > 0.05*tc.want.Seconds() {
				t.Errorf("%s, %t, want %s, %t", got, known, tc.want, tc.known)
			}
		})
	}
	t.Run("who says long and runs short is not believed the other way round", func(t *testing.T) {
		s := after(500, func(s float64) float64 { return 1000 / s })
		long, _ := s.remaining(100*time.Second, 0, 0.5)
		short, _ := s.remaining(time.Second, 0, 0.5)
		if long != short {
			t.Errorf("%s is expected of one that says long, %s of one that says short", long, short)
		}
	})
	t.Run("no pod is about to end for ever", func(t *testing.T) {
		random, s := rand.New(rand.NewPCG(1, 1)), statements{}
		for range 1000 {
			ran := math.Exp(4 + random.NormFloat64())
			s.add(seconds(ran*math.Exp(0.5*random.NormFloat64())), seconds(ran))
		}
		for age := time.Minute; ; age *= 2 {
			rest, known := s.remaining(time.Minute, age, 0.3)
			if !known {
				break // left to what is known of its class
			}
			// In the tail of a lognormal the q-quantile of the rest is some -log(1-q)*spread/z of the age, and z is 3.7 at most.
			if rest < age/30 {
				t.Errorf("one that said a minute and has run for %s will end in %s", age, rest)
			}
		}
	})
}
