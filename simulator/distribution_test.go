package simulator

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Every distribution draws what it says: its percentiles, its least, and what String writes can be read again.
func TestDistributions(t *testing.T) {
	for text, want := range map[string][3]time.Duration{ // least, median, p95
		"5s":                     {5 * time.Second, 5 * time.Second, 5 * time.Second},
		"5s..25s":                {5 * time.Second, 15 * time.Second, 24 * time.Second},
		"p50=8s,p95=40s":         {0, 8 * time.Second, 40 * time.Second},
		"1s,2s,2s,2s,9s":         {time.Second, 2 * time.Second, 9 * time.Second},
		"p50=100ms, p95=2m":      {0, 100 * time.Millisecond, 2 * time.Minute},
		"1ms, 1ms, 1ms,1ms,1ms ": {time.Millisecond, time.Millisecond, time.Millisecond},
	} {
		d, err := ParseDistribution(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		again, err := ParseDistribution(d.String())
		if err != nil || again.String() != d.String() {
			t.Errorf("%q is written as %q: %v", text, d, err)
		}
		random := rand.New(rand.NewPCG(1, 1))
		var drawn []time.Duration
		for range 20_000 {
			drawn = append(drawn, d.Draw(random))
		}
		slices.Sort(drawn)
		near := func(what string, got, want time.Duration) {
			if float64(got) < 0.93*float64(want) || float64(got) > 1.07*float64(want) {
				t.Errorf("%q: %s is %s, want about %s", text, what, got, want)
			}
		}
		near("median", drawn[10_000], want[1])
		near("p95", drawn[19_000], want[2])
		if d.Least() != want[0] || drawn[0] < want[0] {
			t.Errorf("%q: at least %s, drew %s", text, d.Least(), drawn[0])
		}
	}
	for _, text := range []string{"", "5", "-1s", "20s..5s", "p50=8s", "p50=0s,p95=3s", "p50=8s,p95=8s", "p50=8s,p99=9s", "5s,,6s", "5s.."} {
		if d, err := ParseDistribution(text); err == nil {
			t.Errorf("%q is read as %s", text, d)
		}
	}
}
