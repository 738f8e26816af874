// Package lifetime says how long a pod will still run: from what it states itself and from how long pods of its class ran, each weighed
// by how well it held. It is pure: it reads no clock and knows no Kubernetes types. The same calls always give the same answers. An
// Estimator is safe for concurrent use; docs/design/packing.md says where its rules come from.
package lifetime

import (
	"cmp"
	"container/heap"
	"math"
	"sync"
	"time"
)

// Options of an Estimator. Zero values mean the defaults.
type Options struct {
	// HalfLife after which a run time counts half; default 7 days. Of a busy class fewer count: the last 300 or so.
	HalfLife time.Duration
	// Classes that are kept; beyond it the one that has not been seen for longest is forgotten. Default 1,000, some 5 MiB.
	Classes int
	// MinCorrelation between stated and real run times below which statements are not used; default 0.3.
	MinCorrelation float64
	// Unknown is the median run time of a pod while nothing is known at all; default 5 minutes.
	Unknown time.Duration
}

// What counts of the past: arrivals of a class, and of all.
const (
	rememberedOfClass = 300
	remembered        = 3000
)

// coldStart is how many pods that stated a run time must have ended before statements are used.
const coldStart = 20

// departed is how many pods are remembered that are gone from their nodes and have not been said to have ended.
const departed = 4096

// Estimator learns run times by class, and how far what pods state can be believed. It follows pods from start to end, as those that
// still run tell as much as those that ended.
type Estimator struct {
	options Options
	prior   [bins]float64

	mu      sync.Mutex
	all     history
	classes map[string]*class
	ratios  ratios
	scores  scores // of the experts, over all classes
	stated  skill  // of statements
	learned skill  // of expectations

	followed map[string]*followed
	due      duePods
	gone     []string // a ring of pods that are followed no more, and not known to have ended
	goneNext int

	// What was expected since anything was last learned: it is asked for several times for one pod.
	memo map[question]expected
}

// question is of what an expectation depends on, besides on what was learned.
type question struct {
	class  string
	stated time.Duration
}

// class of pods that are alike: those of one ScaledJob, say.
type class struct {
	history
	scores   scores
	ratios   ratios
	stated   skill
	ends     float64 // how many count in the scores
	well     bool    // one ended well
	lastSeen float64
}

// The experts that are mixed.
const (
	byAll       = iota // the history of all classes
	byClass            // of the class
	byStated           // that, and what the pod states, by how statements of all held
	byOwnStated        // the same by how those of the class held
	nrExperts   = iota
)

// scores are predictive log-likelihoods, the last ones counting most.
type scores [nrExperts]float64

// expected is a pod's distribution, and those of the experts it is a mixture of.
type expected struct {
	mixture *Distribution
	experts *[nrExperts]*[bins + 1]float32 // a pod that states nothing has none by statement
}

// followed is a pod that was started.
type followed struct {
	expected
	id     string
	class  *class
	stated float64
	start  float64
	bin    int // that it is in
	ratio  int
	next   float64 // when it leaves one
	// Logarithms of its weights.
	ofAll, ofClass, ofRatios, ofOwnRatios float64
	place                                 int // in due, -1 when not there
}

// New makes an Estimator that has seen nothing.
func New(options Options) *Estimator {
	options.HalfLife = cmp.Or(options.HalfLife, 7*24*time.Hour)
	options.Classes = cmp.Or(options.Classes, 1000)
	options.MinCorrelation = cmp.Or(options.MinCorrelation, 0.3)
	options.Unknown = cmp.Or(options.Unknown, 5*time.Minute)
	return &Estimator{
		options: options, prior: ignorance(options.Unknown.Seconds()),
		classes: map[string]*class{}, followed: map[string]*followed{}, gone: make([]string, departed), memo: map[question]expected{},
	}
}

// Expect is how long a pod of a class that states a run time, 0 for none, is expected to run.
func (e *Estimator) Expect(className string, stated time.Duration, now time.Time) *Distribution {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.advance(secondsOf(now))
	return e.expect(className, stated).mixture
}

// Start follows a pod that started at an instant, and returns what is expected of it. IDs are unique over time.
func (e *Estimator) Start(id, className string, stated time.Duration, at time.Time) *Distribution {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := secondsOf(at)
	e.advance(now)
	return e.start(id, className, stated, now).mixture
}

func (e *Estimator) start(id, className string, stated time.Duration, at float64) *followed {
	if old := e.followed[id]; old != nil {
		e.forget(old)
	}
	f := &followed{
		expected: e.expect(className, stated), id: id, class: e.class(className, at), stated: stated.Seconds(), start: at, place: -1,
	}
	halfLife := e.options.HalfLife.Seconds()
	f.ofAll = e.all.arrive(at, remembered, halfLife)
	f.ofClass = f.class.arrive(at, rememberedOfClass, halfLife)
	f.ofRatios = e.ratios.arrive(at, rememberedRatios, halfLife)
	f.ofOwnRatios = f.class.ratios.arrive(at, rememberedOfClass, halfLife)
	// Weights grow, and nobody may ask for long what these have become.
	e.ratios.unit()
	f.class.ratios.unit()
	f.class.lastSeen = max(f.class.lastSeen, at)
	clear(e.memo)
	e.followed[id] = f
	e.plan(f)
	return f
}

// Moved says that a pod started at another instant than was thought.
func (e *Estimator) Moved(id string, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.followed[id]; f != nil && f.place >= 0 {
		f.start = secondsOf(at)
		e.plan(f)
	}
}

// Gone says that a pod is on its node no more. It is not known whether it has ended: Finished may say so yet.
func (e *Estimator) Gone(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.followed[id]
	if f == nil || f.place < 0 {
		return
	}
	heap.Remove(&e.due, f.place)
	if old := e.followed[e.gone[e.goneNext]]; old != nil && old.place < 0 {
		e.forget(old)
	}
	e.gone[e.goneNext] = id
	e.goneNext = (e.goneNext + 1) % len(e.gone)
}

// Finished learns from a pod that ran for ran and ended at an instant, well or not. One that was not followed counts as if it had been. It
// returns what was expected of it. Pods that did not end well do not count as ended, as a crash at start says nothing about a scan, unless
// none of the class ever did.
func (e *Estimator) Finished(id, className string, stated, ran time.Duration, at time.Time, well bool) *Distribution {
	e.mu.Lock()
	defer e.mu.Unlock()
	f, seconds := e.followed[id], max(0, ran.Seconds())
	if f == nil {
		f = e.start(id, className, stated, secondsOf(at)-seconds)
	}
	f.start = min(f.start, secondsOf(at)-seconds)
	e.pass(f, f.start+seconds)
	f.class.well = f.class.well || well
	if ends := well || !f.class.well; ends {
		e.leave(f, true)
		f.class.ends = f.class.ends*0.99 + 1
		if well {
			e.learned.add(f.mixture.median, seconds)
		}
		if f.stated > 0 && well {
			e.check(f, seconds)
		}
	}
	e.forget(f)
	return f.mixture
}

// check learns how a statement held.
func (e *Estimator) check(f *followed, ran float64) {
	e.stated.add(f.stated, ran)
	f.class.stated.add(f.stated, ran)
	exact := math.Abs(math.Log(max(1, ran)/max(1, f.stated))) < certain
	e.ratios.check(f.ratio, e.ratios.count(f.ofRatios), exact)
	f.class.ratios.check(f.ratio, f.class.ratios.count(f.ofOwnRatios), exact)
}

func (e *Estimator) forget(f *followed) {
	if f.place >= 0 {
		heap.Remove(&e.due, f.place)
	}
	delete(e.followed, f.id)
	clear(e.memo)
}

// class is a class's record, a new one when nothing was heard of it.
func (e *Estimator) class(name string, now float64) *class {
	c := e.classes[name]
	if c == nil {
		e.makeRoom()
		c = &class{lastSeen: now}
		e.classes[name] = c
	}
	return c
}

// makeRoom forgets the class that has not been seen for longest when there are as many as may be.
func (e *Estimator) makeRoom() {
	if len(e.classes) < e.options.Classes {
		return
	}
	oldest := ""
	for name, c := range e.classes {
		if o := e.classes[oldest]; o == nil || c.lastSeen < o.lastSeen || c.lastSeen == o.lastSeen && name < oldest {
			oldest = name
		}
	}
	delete(e.classes, oldest)
}

// expect mixes the experts.
func (e *Estimator) expect(className string, stated time.Duration) expected {
	if x, ok := e.memo[question{className, stated}]; ok {
		return x
	}
	c := e.classes[className]
	ofAll := e.all.hazards(&e.prior)
	survivals := [nrExperts]*[bins + 1]float64{}
	survival := survivalOf(&ofAll)
	survivals[byAll] = &survival
	of := (*history)(nil)
	if c != nil {
		of = &c.history
	}
	ofClass := of.hazards(&ofAll)
	classSurvival := survivalOf(&ofClass)
	survivals[byClass] = &classSurvival
	believed := stated > 0 && e.believed(c)
	if believed {
		ofRatios := e.ratios.hazards(&ratioPrior, ratioPriorPods)
		combined := combine(&classSurvival, &ofRatios, stated.Seconds())
		survivals[byStated] = &combined
		if c.known() {
			ofOwn := c.ratios.hazards(&ofRatios, classRatioPriorPods)
			own := combine(&classSurvival, &ofOwn, stated.Seconds())
			survivals[byOwnStated] = &own
		}
	}
	x := expected{experts: &[nrExperts]*[bins + 1]float32{}}
	var mixture [bins + 1]float64
	weights := e.weights(c, &survivals)
	for expert, survival := range survivals {
		if survival == nil {
			continue
		}
		x.experts[expert] = &[bins + 1]float32{}
		for i, s := range survival {
			mixture[i] += weights[expert] * s
			x.experts[expert][i] = float32(s)
		}
	}
	mixture[bins] = 0
	ratios := &e.ratios
	if c.known() {
		ratios = &c.ratios
	}
	if believed && ratios.exactly() {
		x.mixture = known(stated.Seconds())
	} else {
		x.mixture = newDistribution(&mixture, weights[byStated]+weights[byOwnStated])
	}
	if len(e.memo) == remembered {
		clear(e.memo)
	}
	e.memo[question{className, stated}] = x
	return x
}

// known is true of a class of which enough statements were checked to tell how they hold.
func (c *class) known() bool { return c != nil && c.ratios.checked >= coldStart }

// believed is true when statements told long pods from short ones lately: those of the class, or those of all while it has few, or its run times
// are so alike that there is nothing to tell. The likelihood alone does not tell: pods that arrive in bulk are alike, and so is what is learned from
// them.
func (e *Estimator) believed(c *class) bool {
	told := &e.stated
	if c.known() {
		if c.ratios.exactly() {
			return true
		}
		if c.stated.varies() {
			told = &c.stated
		}
	}
	return told.pairs >= coldStart && told.correlation() >= e.options.MinCorrelation
}

// settled is the number of ends after which a class's own scores count in full.
const settled = 100

// weights of the experts are their predictive likelihoods: Bayesian model averaging, with forgetting (Raftery, Karny and Ettler,
// Technometrics 52, 2010). The more ends of its own a class has, the less those of others count.
func (e *Estimator) weights(c *class, survivals *[nrExperts]*[bins + 1]float64) (weights [nrExperts]float64) {
	total := e.scores
	if c != nil {
		own := min(1, c.ends/settled)
		for expert := range total {
			total[expert] = total[expert]*(1-0.7*own) + c.scores[expert]
		}
	}
	best := math.Inf(-1)
	for expert, survival := range survivals {
		if survival != nil {
			best = max(best, total[expert])
		}
	}
	sum := 0.0
	for expert, survival := range survivals {
		if survival != nil {
			weights[expert] = math.Exp(total[expert] - best)
			sum += weights[expert]
		}
	}
	for expert := range weights {
		weights[expert] /= sum
	}
	return weights
}

// advance takes all followed pods to an instant.
func (e *Estimator) advance(now float64) {
	for len(e.due) > 0 && e.due[0].next <= now {
		e.pass(e.due[0], now)
	}
}

// pass counts the bins that a pod has left alive by an instant.
func (e *Estimator) pass(f *followed, now float64) {
	for f.bin < bins-1 && f.start+bounds[f.bin+1] <= now {
		e.leave(f, false)
		f.bin++
	}
	for f.stated > 0 && f.ratio < ratioBins-1 && f.start+f.stated*ratioBounds[f.ratio+1] <= now {
		e.ratios.left[f.ratio] += e.ratios.count(f.ofRatios)
		f.class.ratios.left[f.ratio] += f.class.ratios.count(f.ofOwnRatios)
		f.ratio++
	}
	clear(e.memo)
	e.plan(f)
}

// leave counts a pod as having ended in the bin that it is in, or as having left it alive, and scores what the experts expected.
func (e *Estimator) leave(f *followed, ended bool) {
	ofAll, ofClass := e.all.count(f.ofAll), f.class.count(f.ofClass)
	if ended {
		e.all.ended[f.bin] += ofAll
		f.class.ended[f.bin] += ofClass
	} else {
		e.all.left[f.bin] += ofAll
		f.class.left[f.bin] += ofClass
	}
	for expert, survival := range f.experts {
		if survival == nil {
			survival = f.experts[byAll]
			if stated := f.experts[byStated]; expert == byOwnStated && stated != nil {
				survival = stated // until enough is known of the class
			}
		}
		hazard := 0.5
		if reached := survival[f.bin]; reached > 1e-9 {
			hazard = float64((reached - survival[f.bin+1]) / reached)
		}
		// Nothing is so sure that one pod could refute an expert for good.
		hazard = min(0.98, max(0.002, hazard))
		if !ended {
			hazard = 1 - hazard
		}
		e.scores[expert] += math.Log(hazard)
		f.class.scores[expert] += math.Log(hazard)
		if ended {
			e.scores[expert] *= 1 - 1.0/200
			f.class.scores[expert] *= 1 - 1.0/50
		}
	}
}

// plan says when a pod leaves its bin.
func (e *Estimator) plan(f *followed) {
	f.next = math.Inf(1)
	if f.bin < bins-1 {
		f.next = f.start + bounds[f.bin+1]
	}
	if f.stated > 0 && f.ratio < ratioBins-1 {
		f.next = min(f.next, f.start+f.stated*ratioBounds[f.ratio+1])
	}
	if f.place >= 0 {
		heap.Fix(&e.due, f.place)
	} else {
		heap.Push(&e.due, f)
	}
}

// Correlation between the logarithms of expected and real run times of the last few hundred pods, from -1 to 1; 0 when
// there is none or nothing was seen.
func (e *Estimator) Correlation() float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.learned.correlation()
}

// Classes is the number of classes that are known.
func (e *Estimator) Classes() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.classes)
}

func secondsOf(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// duePods is a heap of pods by when they leave their bins.
type duePods []*followed

func (d duePods) Len() int { return len(d) }
func (d duePods) Less(i, j int) bool {
	if d[i].next != d[j].next {
		return d[i].next < d[j].next
	}
	return d[i].id < d[j].id
}
func (d duePods) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push implements heap.Interface.
func (d *duePods) Push(x any) {
	f := x.(*followed)
	f.place = len(*d)
	*d = append(*d, f)
}

// Pop implements heap.Interface.
func (d *duePods) Pop() any {
	last := len(*d) - 1
	f := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	f.place = -1
	return f
}
