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

// play starts pods every gap seconds, lets them run, and returns the estimator at the end of the arrivals: those that end later still run.
func play(e *Estimator, count int, gap float64, pod func(i int) (class string, stated, ran float64)) time.Time {
	type end struct {
		at, ran float64
		i       int
		class   string
		stated  float64
	}
	var running []end
	now := 0.0
	for i := range count {
		now = gap * float64(i)
		slices.SortFunc(running, func(a, b end) int { return int(math.Copysign(1, a.at-b.at)) })
		for len(running) > 0 && running[0].at <= now {
			r := running[0]
			e.Finished(fmt.Sprint(r.i), r.class, seconds(r.stated), seconds(r.ran), start.Add(seconds(r.at)), true)
			running = running[1:]
		}
		class, stated, ran := pod(i)
		e.Start(fmt.Sprint(i), class, seconds(stated), start.Add(seconds(now)))
		running = append(running, end{now + ran, ran, i, class, stated})
	}
	return start.Add(seconds(now))
}

// Run times of a class, of pods most of which still run: the quantiles of the true distribution, where those that ended alone are far short.
func TestThoseThatStillRunCount(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	e := New(Options{})
	// Medians of 1,000 s and one arrival a second for 1,500 s: of those that came in the last third hardly any has ended.
	now := play(e, 1500, 1, func(int) (string, float64, float64) { return "scan", 0, 1000 * math.Exp(0.7*random.NormFloat64()) })
	d := e.Expect("scan", 0, now)
	if got := d.Median().Seconds(); got < 800 || got > 1250 {
		t.Errorf("the median is taken for %.0f s, really 1000 s", got)
	}
	if d.Spread() < 0.5 || d.Spread() > 1.1 {
		t.Errorf("the spread is taken for %.2f, really 0.70", d.Spread())
	}
}

// Against the exact quantile of all run times longer than the age.
func TestRemainingAgainstSorted(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	e := New(Options{})
	draw := func() float64 { return math.Exp(5 + 0.8*random.NormFloat64()) }
	now := play(e, 3000, 10, func(int) (string, float64, float64) { return "scan", 0, draw() })
	var all []float64
	for range 100_000 {
		all = append(all, draw())
	}
	slices.Sort(all)
	d := e.Expect("scan", 0, now)
	for _, age := range []float64{0, 20, 55, 200, 500} {
		for _, q := range []float64{0.2, 0.5, 0.8} {
			first, _ := slices.BinarySearch(all, age)
			want := all[first+int(q*float64(len(all)-first))]
			// Of 300 pods or so a quantile is off by some 10%, and bins are 19% wide.
			if got := age + d.Remaining(seconds(age), q).Seconds(); got < want/1.35 || got > want*1.35 {
				t.Errorf("the %g-quantile of those over %g s is %.0f s, want %.0f s", q, age, got, want)
			}
		}
	}
}

func TestStatements(t *testing.T) {
	for name, tc := range map[string]struct {
		says func(ran float64, random *rand.Rand) float64
		// Of a pod that runs 60 s, and of one that runs 20 min: the largest factor by which their medians may be off; 0 for any.
		off float64
		// The weight of statements must be at least, or at most.
		least, most float64
	}{
		"exact":           {func(ran float64, _ *rand.Rand) float64 { return ran }, 1.001, 1, 1},
		"noisy":           {func(ran float64, r *rand.Rand) float64 { return ran * math.Exp(0.3*r.NormFloat64()) }, 2, 0.9, 1},
		"in another unit": {func(ran float64, r *rand.Rand) float64 { return 60 * ran * math.Exp(0.1*r.NormFloat64()) }, 1.5, 0.9, 1},
		"always the same": {func(float64, *rand.Rand) float64 { return 60 }, 0, 0, 0},
		"nothing to do":   {func(_ float64, r *rand.Rand) float64 { return math.Exp(8 * r.Float64()) }, 0, 0, 0.5},
		"the other way":   {func(ran float64, _ *rand.Rand) float64 { return 10_000 / ran }, 0, 0, 0},
		"nothing is said": {func(float64, *rand.Rand) float64 { return 0 }, 0, 0, 0},
		"half lie sixtyfold": {func(ran float64, r *rand.Rand) float64 {
			if r.IntN(2) == 0 {
				return 60 * ran
			}
			return ran
		}, 0, 0.5, 1},
	} {
		t.Run(name, func(t *testing.T) {
			e, random := New(Options{}), rand.New(rand.NewPCG(1, 1))
			now := play(e, 2000, 5, func(int) (string, float64, float64) {
				ran := math.Exp(5 + 1.3*random.NormFloat64())
				return "scan", tc.says(ran, random), ran
			})
			for _, ran := range []float64{60, 1200} {
				quiet := rand.New(rand.NewPCG(3, 3))
				stated := tc.says(ran, quiet)
				if name == "noisy" {
					stated = ran
				}
				d := e.Expect("scan", seconds(stated), now)
				if off := math.Exp(math.Abs(math.Log(d.Median().Seconds() / ran))); tc.off > 0 && off > tc.off {
					t.Errorf("one that runs %g s and says %.0f s is expected to run %s", ran, stated, d.Median())
				}
				if w := d.Stated(); w < tc.least || w > tc.most {
					t.Errorf("statements weigh %.2f, want %g to %g", w, tc.least, tc.most)
				}
			}
		})
	}
}

// What pods state of one class, exact, is not distorted by another that says sixty times too much.
func TestStatementsOfOneClassDoNotSpoilAnother(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	e := New(Options{})
	now := play(e, 4000, 1, func(i int) (string, float64, float64) {
		ran := math.Exp(3 + 4*random.Float64())
		if i%2 == 0 {
			return "exact", ran, ran
		}
		return "minutes", 60 * ran, ran // says minutes as hours
	})
	for class, stated := range map[string]float64{"exact": 100, "minutes": 6000} {
		d := e.Expect(class, seconds(stated), now)
		if off := math.Abs(math.Log(d.Median().Seconds() / 100)); off > math.Log(1.35) || d.Stated() < 0.5 {
			t.Errorf("%s: one that states %g s is expected to run %s, really 100 s; statements weigh %.2f", class, stated, d.Median(), d.Stated())
		}
	}
}

// Statements of nine classes are exact. However the tenth states its own, and however many of the pods are its, those of the nine are believed
// to the letter, and those of the tenth only if they say something.
func TestTrustIsByClass(t *testing.T) {
	for name, tc := range map[string]struct {
		says  func(ran float64, random *rand.Rand) float64
		noise bool // what the tenth states says nothing
	}{
		"at random":            {func(_ float64, r *rand.Rand) float64 { return 300 * math.Exp(1.5*r.NormFloat64()) }, true},
		"the other way":        {func(ran float64, _ *rand.Rand) float64 { return 90_000 / ran }, true},
		"sixty times":          {func(ran float64, _ *rand.Rand) float64 { return 60 * ran }, false},
		"half of it sixtyfold": {func(ran float64, r *rand.Rand) float64 { return ran * []float64{1, 60}[r.IntN(2)] }, false},
	} {
		for _, share := range []float64{0.1, 0.5, 0.9} {
			t.Run(fmt.Sprintf("%s, %.0f%%", name, 100*share), func(t *testing.T) {
				e, random := New(Options{}), rand.New(rand.NewPCG(1, 1))
				now := play(e, 5000, 5, func(int) (string, float64, float64) {
					ran := 300 * math.Exp(1.5*random.NormFloat64())
					if random.Float64() < share {
						return "tenth", tc.says(ran, random), ran
					}
					return fmt.Sprint("exact-", random.IntN(9)), ran, ran
				})
				for i := range 9 {
					for _, stated := range []float64{30, 300, 6000} {
						d := e.Expect(fmt.Sprint("exact-", i), seconds(stated), now)
						if d.Median() != seconds(stated) || d.Spread() > 0 || d.Stated() < 1 {
							t.Errorf("exact-%d: one that states %g s is expected to run %s, spread %.2f", i, stated, d.Median(), d.Spread())
						}
					}
				}
				if w := e.Expect("tenth", 5*time.Minute, now).Stated(); tc.noise && w > 0 {
					t.Errorf("the tenth class's own statements weigh %.2f", w)
				}
			})
		}
	}
}

// Two classes of different run times are swapped halfway. Soon what is known of a class is not taken for more than it is, and in the end it is
// relearned.
func TestSwappedClasses(t *testing.T) {
	for since, limits := range map[int][2]float64{100: {0.8, 3}, 1500: {0, 1.2}} {
		e, random := New(Options{}), rand.New(rand.NewPCG(1, 1))
		now := play(e, 2000+since, 20, func(i int) (string, float64, float64) {
			class := random.IntN(2)
			median := []float64{30, 900}[class]
			if i >= 2000 {
				median = 27_000 / median
			}
			return fmt.Sprint(class), 0, median * math.Exp(0.3*random.NormFloat64())
		})
		for class, median := range map[string]float64{"0": 900, "1": 30} {
			d := e.Expect(class, 0, now)
			if d.Spread() < limits[0] || d.Spread() > limits[1] {
				t.Errorf("%d pods after the swap class %s has a spread of %.2f, want %v", since, class, d.Spread(), limits)
			}
			if off := math.Abs(math.Log(d.Median().Seconds() / median)); since > 1000 && off > math.Log(1.25) {
				t.Errorf("%d pods after the swap class %s has a median of %s, really %g s", since, class, d.Median(), median)
			}
		}
	}
}

// One queue that cannot be predicted takes nothing from another that can.
func TestOneClassDoesNotSpoilAnother(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	e := New(Options{})
	now := play(e, 4000, 2, func(i int) (string, float64, float64) {
		if i%10 == 0 {
			return "steady", 0, 100 * math.Exp(0.2*random.NormFloat64())
		}
		return "busy", 0, math.Exp(5 + 1.5*random.NormFloat64())
	})
	steady, busy := e.Expect("steady", 0, now), e.Expect("busy", 0, now)
	if steady.Spread() > 0.5 || math.Abs(steady.Median().Seconds()-100) > 20 {
		t.Errorf("the steady class: median %s, spread %.2f, really 100 s and 0.20", steady.Median(), steady.Spread())
	}
	if busy.Spread() < 1.1 {
		t.Errorf("the busy class: spread %.2f, really 1.50", busy.Spread())
	}
}

// Two classes that differ much are not taken for predictable when inside each nothing is: the spread says so.
func TestDifferencesBetweenClassesAreNoPrecision(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	e := New(Options{})
	now := play(e, 3000, 5, func(i int) (string, float64, float64) {
		return fmt.Sprint(i % 2), 0, []float64{30, 900}[i%2] * math.Exp(1.6*random.NormFloat64())
	})
	for class, median := range map[string]float64{"0": 30, "1": 900} {
		d := e.Expect(class, 0, now)
		if off := math.Abs(math.Log(d.Median().Seconds() / median)); off > math.Log(1.6) || d.Spread() < 1.2 {
			t.Errorf("class %s: median %s, really %g s; spread %.2f, really 1.60", class, d.Median(), median, d.Spread())
		}
	}
}

// What was right once is not believed for ever.
func TestStatementsAreGivenUp(t *testing.T) {
	e, random := New(Options{}), rand.New(rand.NewPCG(1, 1))
	now := play(e, 4000, 5, func(i int) (string, float64, float64) {
		ran := math.Exp(4 + 1.5*random.NormFloat64())
		if i < 2000 {
			return "scan", ran, ran
		}
		return "scan", 10_000 / ran, ran
	})
	if w := e.Expect("scan", time.Minute, now).Stated(); w > 0 {
		t.Errorf("statements still weigh %.2f", w)
	}
}

func TestUnknown(t *testing.T) {
	for _, unknown := range []time.Duration{5 * time.Second, 20 * time.Second, 5 * time.Minute, 10 * time.Hour} {
		d := New(Options{Unknown: unknown}).Expect("scan", 0, start)
		if off := math.Abs(math.Log(d.Median().Seconds() / unknown.Seconds())); off > math.Log(1.4) {
			t.Errorf("nothing is known, and a pod is expected to run %s, want %s or so", d.Median(), unknown)
		}
	}
}

func TestOutlived(t *testing.T) {
	e := New(Options{})
	for i := range 300 {
		e.Finished(fmt.Sprint(i), "scan", time.Minute, time.Minute, start, true)
	}
	for name, d := range map[string]*Distribution{"by history": e.Expect("scan", 0, start), "by its statement": e.Expect("scan", time.Minute, start)} {
		for age := 2 * time.Minute; age < 1000*time.Hour; age *= 2 {
			if rest := d.Remaining(age, 0.2); rest < age/30 {
				t.Errorf("%s: one that has run for %s, when all ended within a minute, will end in %s", name, age, rest)
			}
		}
	}
}

// Pods that crash say nothing about those that work, unless all of the class do.
func TestFailures(t *testing.T) {
	e := New(Options{})
	for i := range 50 {
		at := start.Add(time.Duration(i) * time.Minute)
		e.Finished(fmt.Sprint("ok", i), "scan", 0, 20*time.Second, at, true)
		e.Finished(fmt.Sprint("bad", i), "scan", 0, time.Second, at, false)
		e.Finished(fmt.Sprint("crash", i), "crashing", 0, 5*time.Second, at, false)
	}
	for class, want := range map[string]float64{"scan": 20, "crashing": 5} {
		if got := e.Expect(class, 0, start).Median().Seconds(); math.Abs(math.Log(got/want)) > math.Log(1.25) {
			t.Errorf("%s: %.1f s, want %g s", class, got, want)
		}
	}
}

// A pod's end may be heard of before or after that it left its node, or never; and it is learned from once.
func TestEndsInAnyOrder(t *testing.T) {
	feed := func(gone func(e *Estimator, id string), after bool) *Estimator {
		e := New(Options{})
		for i := range 100 {
			id, at := fmt.Sprint(i), start.Add(time.Duration(i)*time.Minute)
			e.Start(id, "scan", 0, at)
			if !after {
				gone(e, id)
			}
			e.Finished(id, "scan", 0, 40*time.Second, at.Add(40*time.Second), true)
			if after {
				gone(e, id)
			}
		}
		return e
	}
	now := start.Add(100 * time.Minute)
	want := feed(func(*Estimator, string) {}, false).Expect("scan", 0, now)
	for name, e := range map[string]*Estimator{"gone first": feed((*Estimator).Gone, false), "gone after": feed((*Estimator).Gone, true)} {
		if got := e.Expect("scan", 0, now); *got != *want {
			t.Errorf("%s: %s and a spread of %.3f, want %s and %.3f", name, got.Median(), got.Spread(), want.Median(), want.Spread())
		}
		if len(e.followed)+len(e.due) != 0 {
			t.Errorf("%s: %d pods are still followed, %d due", name, len(e.followed), len(e.due))
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	e := New(Options{Classes: 3})
	for i, class := range []string{"a", "b", "c", "a", "d", "e"} {
		e.Finished(fmt.Sprint(i), class, 0, time.Second, start.Add(time.Duration(i)*time.Second), true)
	}
	if got := fmt.Sprint(slices.Sorted(maps.Keys(e.classes))); got != "[a d e]" || e.Classes() != 3 {
		t.Errorf("%d classes, %s, are kept, want those seen last: [a d e]", e.Classes(), got)
	}
	for i := range 3 * departed {
		id := fmt.Sprint("gone", i)
		e.Start(id, "a", time.Minute, start)
		e.Gone(id)
	}
	if len(e.followed) > departed || len(e.due) > 0 {
		t.Errorf("%d pods that left without a word are remembered, %d due", len(e.followed), len(e.due))
	}
}

// A busy class must not run out of numbers: the weights of arrivals grow for ever.
func TestManyArrivals(t *testing.T) {
	e := New(Options{HalfLife: time.Minute})
	var long []string
	for i := range 15_000 {
		at := start.Add(time.Duration(i) * time.Second)
		id := fmt.Sprint(i)
		if i%1000 == 0 { // runs across many changes of the unit
			e.Start(id, "scan", time.Minute, at)
			long = append(long, id)
			continue
		}
		e.Finished(id, "scan", 40*time.Second, 40*time.Second, at, true)
	}
	for _, id := range long[:8] {
		e.Finished(id, "scan", time.Minute, 9*time.Hour, start.Add(15_000*time.Second), true)
	}
	d := e.Expect("scan", 0, start.Add(15_000*time.Second))
	if got := d.Median().Seconds(); math.IsNaN(got) || got < 32 || got > 50 || math.IsNaN(d.Spread()) {
		t.Errorf("median %.1f s, spread %.2f, want 40 s: old pods are to have faded", got, d.Spread())
	}
}

// Statements that are not believed are counted all the same, however long that takes, and those after them that are right are believed.
func TestManyWrongStatements(t *testing.T) {
	e := New(Options{HalfLife: 10 * time.Second})
	const wrong, right = 12_000, 2_000
	for i := range wrong + right {
		stated := time.Duration(20+i%50) * time.Second
		ran := stated
		if i < wrong {
			ran = 90*time.Second - stated
		}
		e.Finished(fmt.Sprint(i), "scan", stated, ran, start.Add(time.Duration(i)*time.Second), true)
	}
	for _, class := range []string{"scan", "another"} {
		d := e.Expect(class, 40*time.Second, start.Add((wrong+right)*time.Second))
		if d.Median() != 40*time.Second || d.Stated() != 1 {
			t.Errorf("%s: one that states 40s is expected to run %s, spread %.2f; statements weigh %.2f", class, d.Median(), d.Spread(), d.Stated())
		}
	}
}

func TestConcurrency(_ *testing.T) {
	e := New(Options{Classes: 5})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				class, id := fmt.Sprint(i*j%9), fmt.Sprint(i, j)
				e.Start(id, class, time.Second, start)
				e.Expect(class, 0, start.Add(time.Minute))
				e.Gone(id)
				e.Finished(id, class, time.Second, time.Minute, start, true)
			}
		})
	}
	all.Wait()
}

func BenchmarkExpect(b *testing.B) {
	e, random := New(Options{}), rand.New(rand.NewPCG(1, 1))
	now := play(e, 2000, 5, func(i int) (string, float64, float64) {
		ran := math.Exp(5 + 1.3*random.NormFloat64())
		return fmt.Sprint(i % 20), ran * math.Exp(0.7*random.NormFloat64()), ran
	})
	for i := 0; b.Loop(); i++ {
		e.Expect(fmt.Sprint(i%20), time.Duration(i)*time.Second, now)
	}
}
