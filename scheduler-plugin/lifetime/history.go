package lifetime

import "math"

// history is the product-limit estimate of Kaplan and Meier (J. Am. Stat. Assoc. 53, 1958) over bins: for each bin, the weight of the pods
// that ended in it and of those that left it alive. Pods that still run count as far as they got, so that long ones, which are the last to
// end, are not missing: a history of ended pods alone is short by what still runs.
//
// Each arrival weighs 1 + 1/memory times the one before, so old ones fade; and twice as much after a half-life.
type history struct {
	ended, left [bins]float64
	fading
}

// fading gives arrivals weights that grow. They are kept as logarithms, so that weights of pods that arrived long ago stay comparable.
type fading struct {
	newest float64 // logarithm of the weight of the newest arrival
	base   float64 // logarithm of the unit that weights are counted in
	last   float64 // when the newest arrived
}

// arrive is the logarithm of the weight of a pod that arrives.
func (f *fading) arrive(now, memory, halfLife float64) (weight float64) {
	f.newest += math.Log1p(1 / memory)
	if f.last != 0 && now > f.last {
		f.newest += math.Ln2 * (now - f.last) / halfLife
	}
	f.last = max(f.last, now)
	return f.newest
}

// largestWeight is the logarithm beyond which counts change their unit.
const largestWeight = 25

// unit is the weight of the newest arrival in the unit of counts. Counts in a unit that has become too small are brought to a new one.
func (f *fading) unit(counts ...[]float64) float64 {
	if f.newest-f.base > largestWeight {
		factor := math.Exp(f.base - f.newest)
		for _, of := range counts {
			for i := range of {
				of[i] *= factor
			}
		}
		f.base = f.newest
	}
	return math.Exp(f.newest - f.base)
}

// count is a weight in the unit of counts.
func (f *fading) count(weight float64) float64 { return math.Exp(weight - f.base) }

// priorPods is how many pods of the newest weight a prior counts for.
const priorPods = 3

// hazards are the probabilities to end in each bin once it is reached. Counts are smeared over the two bins to each side; those of the
// prior count as much as priorPods pods, so what is seldom seen is drawn towards it. A nil history is the prior.
func (h *history) hazards(prior *[bins]float64) (hazards [bins]float64) {
	if h == nil {
		return *prior
	}
	unit := priorPods * h.unit(h.ended[:], h.left[:])
	smear := [...]float64{0.1, 0.2, 0.4, 0.2, 0.1}
	for i := range hazards {
		ended, left := 0.0, 0.0
		for j, share := range smear {
			if at := i + j - len(smear)/2; at >= 0 && at < bins {
				ended += share * h.ended[at]
				left += share * h.left[at]
			}
		}
		hazards[i] = (ended + unit*prior[i]) / (ended + left + unit)
	}
	return hazards
}

// survivalOf hazards: the probability to reach each bin.
func survivalOf(hazards *[bins]float64) (survival [bins + 1]float64) {
	survival[0] = 1
	for i, h := range hazards {
		survival[i+1] = survival[i] * (1 - h)
	}
	return survival
}

// ignorance is the hazard of a pod about which nothing is known: its median is about as given, and beyond that the probability to run for t
// falls as t^-0.7, as run times of batch jobs do over many octaves (Downey, Predicting queue times on space-sharing parallel computers, 1997,
// has them uniform in the logarithm).
func ignorance(median float64) (hazards [bins]float64) {
	const steep = 0.7
	early := min(0.02, 0.5/float64(1+binOf(median)))
	from := median
	for from > 1 && math.Pow(1-early, float64(binOf(from)))*math.Pow(median/from, -steep) > 0.5 {
		from /= math.Exp2(1.0 / perOctave)
	}
	for i := range hazards {
		hazards[i] = 1 - math.Exp2(-steep/perOctave)
		if bounds[i] < from {
			hazards[i] = early
		}
	}
	hazards[bins-1] = 1
	return hazards
}

// ratios is a history of real over stated run times.
type ratios struct {
	ended, left [ratioBins]float64
	fading
	checked      int
	exact, total float64 // of the ended, by weight: those within certain, and all
}

const (
	// certain is how close a statement is that counts as exact, and almostAll how many must be for statements to be trusted.
	certain   = 0.01
	almostAll = 0.95
	// rememberedRatios is how many of the last pods that stated a run time count.
	rememberedRatios = 1000
	ratioPriorPods   = 2
	// classRatioPriorPods is how many pods of a class the ratios of all count for in those of the class.
	classRatioPriorPods = 40
)

func (r *ratios) unit() float64 {
	if r.newest-r.base > largestWeight {
		factor := math.Exp(r.base - r.newest)
		r.exact *= factor
		r.total *= factor
	}
	return r.fading.unit(r.ended[:], r.left[:])
}

// hazards of a ratio to end in each bin once it is reached. The prior counts for a number of pods.
func (r *ratios) hazards(prior *[ratioBins]float64, pods float64) (hazards [ratioBins]float64) {
	unit := pods * r.unit()
	for i := range hazards {
		hazards[i] = (r.ended[i] + unit*prior[i]) / (r.ended[i] + r.left[i] + unit)
	}
	return hazards
}

// ratioPrior is the hazard of a ratio while nothing is known of statements.
var ratioPrior = func() (hazards [ratioBins]float64) {
	for i := range hazards {
		octaves := float64(i-ratioBins/2) / ratiosPerOctave
		hazards[i] = 0.06 / (1 + octaves*octaves/4)
	}
	return hazards
}()

// check counts a statement that was checked.
func (r *ratios) check(bin int, weight float64, exact bool) {
	r.ended[bin] += weight
	r.total += weight
	r.checked++
	if exact {
		r.exact += weight
	}
}

// exactly is true when almost all statements were right, of those that count.
func (r *ratios) exactly() bool { return r.checked >= coldStart && r.exact > almostAll*r.total }

// combine is Bayes' rule: the class's distribution of run times is the prior, the distribution of ratios the likelihood of what the pod
// states. It shrinks vague statements towards what is usual, corrects wrong units and bears liars. A little of the class's is kept.
func combine(class *[bins + 1]float64, hazards *[ratioBins]float64, stated float64) (survival [bins + 1]float64) {
	const kept, floor = 0.02, 1e-5
	var ratio [ratioBins + 1]float64
	ratio[0] = 1
	for i, h := range hazards {
		ratio[i+1] = ratio[i] * (1 - h)
	}
	reach := func(seconds float64) float64 {
		if seconds <= 0 {
			return 1
		}
		at := math.Log2(seconds/stated)*ratiosPerOctave + ratioBins/2 + 0.5
		switch i := int(at); {
		case at <= 0:
			return 1
		case at >= ratioBins:
			return ratio[ratioBins]
		default:
			part := at - float64(i)
			return ratio[i]*(1-part) + ratio[i+1]*part
		}
	}
	var density [bins]float64
	sum, last := 0.0, 1.0
	for i := range density {
		next := 0.0
		if i < bins-1 {
			next = reach(bounds[i+1])
		}
		density[i] = (class[i] - class[i+1]) * (last - next + floor)
		sum, last = sum+density[i], next
	}
	for i, sofar := bins-1, 0.0; i >= 0; i-- {
		sofar += density[i] / sum
		survival[i] = (1-kept)*sofar + kept*class[i]
	}
	return survival
}
