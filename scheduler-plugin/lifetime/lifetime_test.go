package lifetime

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// near allows for the width of a bucket.
func near(got, want time.Duration) bool {
	return math.Abs(got.Seconds()-want.Seconds()) <= 0.13*want.Seconds()+0.01
}

// Against the exact quantile of all run times longer than the age.
func TestHistogramAgainstSorted(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		h, all := Histogram{}, []time.Duration{}
		for range 5000 {
			d := seconds(math.Exp(4 + 1.5*random.NormFloat64()))
			h.Add(d, start)
			all = append(all, d)
		}
		slices.Sort(all)
		for _, age := range []float64{0, 0.5, 3, 20, 55, 200, 900} {
			for _, q := range []float64{0.1, 0.5, 0.9} {
				first, _ := slices.BinarySearch(all, seconds(age))
				longer := all[first:]
				if len(longer) < 50 {
					continue
				}
				want := longer[int(q*float64(len(longer)))]
				got, known := h.Remaining(seconds(age), q)
				if !known || !near(seconds(age)+got, want) {
					t.Errorf("seed %d: the %g-quantile of those over %g s is %s, want %s", seed, q, age, seconds(age)+got, want)
				}
			}
		}
	}
}

func TestHistogram(t *testing.T) {
	t.Run("nothing seen", func(t *testing.T) {
		if _, known := (&Histogram{}).Remaining(0, 0.5); known {
			t.Error("an empty histogram knows something")
		}
	})
	t.Run("past everything seen", func(t *testing.T) {
		h := Histogram{}
		h.Add(time.Minute, start)
		for _, age := range []time.Duration{time.Minute, 2 * time.Minute, time.Hour} {
			if got, _ := h.Remaining(age, 0.5); got < age {
				t.Errorf("one that has run for %s, when all ended within a minute, will end in %s", age, got)
			}
		}
	})
	t.Run("old ones fade", func(t *testing.T) {
		h := Histogram{HalfLife: time.Hour}
		for range 100 {
			h.Add(10*time.Second, start)
			h.Add(1000*time.Second, start.Add(10*time.Hour))
		}
		if got, _ := h.Remaining(0, 0.5); !near(got, 1000*time.Second) {
			t.Errorf("half of them run %s, want 1000 s: the others are ten half-lives old", got)
		}
		if got, want := h.Weight(), 100+100*math.Exp2(-10); math.Abs(got-want) > 0.5 {
			t.Errorf("weight %g, want %g", got, want)
		}
	})
	t.Run("merged is as if counted together", func(t *testing.T) {
		a, b, both := Histogram{HalfLife: time.Hour}, Histogram{HalfLife: time.Hour}, Histogram{HalfLife: time.Hour}
		random := rand.New(rand.NewPCG(1, 1))
		for i := range 300 {
			d, at := seconds(math.Exp(5*random.Float64())), start.Add(time.Duration(i)*time.Minute)
			both.Add(d, at)
			if i%3 == 0 {
				a.Add(d, at)
			} else {
				b.Add(d, at)
			}
		}
		for name, merged := range map[string]Histogram{"a+b": a, "b+a": b} {
			other := b
			if name == "b+a" {
				other = a
			}
			merged.Merge(&other)
			for i := range merged.counts {
				if math.Abs(merged.counts[i]-both.counts[i]) > 1e-6 {
					t.Fatalf("%s: bucket %d counts %g, want %g", name, i, merged.counts[i], both.counts[i])
				}
			}
		}
	})
}

func TestRemaining(t *testing.T) {
	e := New(Options{})
	for range 50 {
		e.Finished("short", 0, 20*time.Second, start, true)
		e.Finished("short", 0, time.Second, start, false)
		e.Finished("crashing", 0, 5*time.Second, start, false)
	}
	for name, tc := range map[string]struct {
		class       string
		stated, age time.Duration
		want        time.Duration
		known       bool
	}{
		"of its class, failures apart":     {class: "short", want: 20 * time.Second, known: true},
		"what it says itself":              {class: "short", stated: time.Hour, age: time.Minute, want: 59 * time.Minute, known: true},
		"it has outlived what it said":     {class: "short", stated: 10 * time.Second, age: 15 * time.Second, want: 5 * time.Second, known: true},
		"and its class is not known":       {class: "new", stated: 10 * time.Second, age: 15 * time.Second, want: 15 * time.Second, known: true},
		"only failures are known":          {class: "crashing", want: 5 * time.Second, known: true},
		"nothing is known":                 {class: "new"},
		"older than all others of a class": {class: "short", age: time.Minute, want: time.Minute, known: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, known := e.Remaining(tc.class, tc.stated, tc.age, 0.5)
			if known != tc.known || !near(tc.age+got, tc.age+tc.want) {
				t.Errorf("%s, %t, want %s, %t", got, known, tc.want, tc.known)
			}
		})
	}
}

func TestTrusted(t *testing.T) {
	for name, tc := range map[string]struct {
		expect func(real time.Duration, random *rand.Rand) time.Duration
		want   bool
	}{
		"exact": {func(r time.Duration, _ *rand.Rand) time.Duration { return r }, true},
		"noisy": {func(r time.Duration, n *rand.Rand) time.Duration {
			return seconds(r.Seconds() * math.Exp(0.7*n.NormFloat64()))
		}, true},
		"in another unit":  {func(r time.Duration, _ *rand.Rand) time.Duration { return 60 * r }, true},
		"always the same":  {func(time.Duration, *rand.Rand) time.Duration { return time.Minute }, false},
		"nothing to do":    {func(_ time.Duration, n *rand.Rand) time.Duration { return seconds(math.Exp(6 * n.Float64())) }, false},
		"the other way":    {func(r time.Duration, _ *rand.Rand) time.Duration { return seconds(10000 / r.Seconds()) }, false},
		"nothing expected": {func(time.Duration, *rand.Rand) time.Duration { return 0 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			e, random := New(Options{}), rand.New(rand.NewPCG(1, 1))
			for i := range 2000 {
				if i == coldStart-1 && e.Trusted() {
					t.Errorf("trusted after %d pods", i)
				}
				ran := seconds(math.Exp(4 + 1.5*random.NormFloat64()))
				e.Finished("c", tc.expect(ran, random), ran, start, true)
			}
			if e.Trusted() != tc.want {
				t.Errorf("trusted: %t with correlation %.2f, want %t", e.Trusted(), e.Correlation(), tc.want)
			}
		})
	}
}

// What it was right about once does not keep it trusted.
func TestTrustIsLost(t *testing.T) {
	e, random := New(Options{}), rand.New(rand.NewPCG(1, 1))
	for i := range 4000 {
		ran := seconds(math.Exp(4 + 1.5*random.NormFloat64()))
		expected := ran
		if i >= 2000 {
			expected = seconds(10000 / ran.Seconds())
		}
		e.Finished("c", expected, ran, start, true)
	}
	if e.Trusted() {
		t.Errorf("still trusted, correlation %.2f", e.Correlation())
	}
}

func TestClassesAreBounded(t *testing.T) {
	e := New(Options{Classes: 3})
	for i, class := range []string{"a", "b", "c", "a", "d", "e"} {
		e.Finished(class, 0, time.Second, start.Add(time.Duration(i)*time.Second), true)
	}
	if got := fmt.Sprint(slices.Sorted(maps.Keys(e.classes))); got != "[a d e]" || e.Classes() != 3 {
		t.Errorf("%d classes, %s, are kept, want those seen last: [a d e]", e.Classes(), got)
	}
}

func TestConcurrency(_ *testing.T) {
	e := New(Options{Classes: 5})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				class := fmt.Sprint(i * j % 9)
				e.Finished(class, time.Second, time.Minute, start, true)
				e.Remaining(class, 0, time.Second, 0.5)
				e.Trusted()
			}
		})
	}
	all.Wait()
}
