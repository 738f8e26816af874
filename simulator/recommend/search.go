package recommend

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// The search has two stages. Shapes and queues depend on each other, and there are too many pairs to simulate each on the whole load: successive
// halving simulates all on a short part of it, the better quarter on a longer one, and so on. Then coordinate descent changes one lever at a time. All
// configurations are simulated with the same seeds, and what is drawn depends on the worker's and the node's number alone, so two that are alike
// draw alike and small differences show. docs/design/recommend.md says what was tried in their place.

// rungs are how many jobs the parts of the load have on which configurations are simulated, from the first look on.
var rungs = []int{800, 3000, 10000}

const (
	// eta is the share of configurations that a rung of successive halving leaves: one in so many.
	eta = 4
	// passes over all levers at most; a pass that gains less than leastGain is the last.
	passes    = 3
	leastGain = 0.003
	// finalists are simulated on the whole part that is learned from, with that many seeds.
	finalists, finalSeeds = 6, 2
)

// Levers by their names in --keep.
const (
	leverShapes        = "shapes"
	leverQueues        = "queues"
	leverRequests      = "requests"
	leverWorkers       = "workers"
	leverPolling       = "polling"
	leverConsolidation = "consolidation"
	leverCalendar      = "calendar"
	leverDrain         = "drain-within"
	leverSurplus       = "surplus"
)

// Levers are the names of what is decided.
func Levers() []string {
	return []string{leverShapes, leverQueues, leverRequests, leverWorkers, leverPolling, leverConsolidation, leverCalendar, leverDrain, leverSurplus}
}

// lever is one part of a configuration.
type lever struct {
	name string
	// say is its value in words; set gives it the value of another configuration.
	say func(*Configuration) string
	set func(to, from *Configuration)
}

var levers = []lever{
	{leverShapes, func(c *Configuration) string { return c.Shapes.Name }, func(to, from *Configuration) { to.Shapes = from.Shapes }},
	{leverQueues, func(c *Configuration) string { return c.Queues.Name }, func(to, from *Configuration) { to.Queues = from.Queues }},
	{leverRequests, func(c *Configuration) string { return c.Requests.Name }, func(to, from *Configuration) { to.Requests = from.Requests }},
	{leverWorkers, func(c *Configuration) string { return c.Workers.String() }, func(to, from *Configuration) { to.Workers = from.Workers }},
	{leverPolling, func(c *Configuration) string { return "every " + c.Poll.String() }, func(to, from *Configuration) { to.Poll = from.Poll }},
	{leverConsolidation, func(c *Configuration) string { return "after " + c.ConsolidateAfter.String() }, func(to, from *Configuration) { to.ConsolidateAfter = from.ConsolidateAfter }},
	{leverCalendar, func(c *Configuration) string { return c.Calendar.String() }, func(to, from *Configuration) { to.Calendar = from.Calendar }},
	{leverDrain, sayDrain, func(to, from *Configuration) { to.DrainWithin = from.DrainWithin }},
	{leverSurplus, func(c *Configuration) string { return cmp.Or(c.Surplus, "none") }, func(to, from *Configuration) { to.Surplus = from.Surplus }},
}

func sayDrain(c *Configuration) string {
	if c.DrainWithin == 0 {
		return "a worker for each message"
	}
	return "what waits is drained within " + c.DrainWithin.String()
}

// search is one at work.
type search struct {
	ctx    context.Context // of the one call that makes it
	o      *Options
	worlds []*world // parts of the load, from the shortest on; the last is all that is learned from
	wait   float64  // objective in seconds, or today's wait
	share  float64  // of the objectives that the search aims at, at most 1
	queues []Queues
	shapes []ShapeSet // those that did best, once that is known
	step   *progress

	mu    sync.Mutex
	cache map[string]Result
}

// progress counts the jobs that were simulated, and all that will be.
type progress struct {
	mu          sync.Mutex
	done, total float64
	say         func(share float64)
}

func (p *progress) add(jobs int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += float64(jobs)
	if p.total = max(p.total, p.done); p.say != nil {
		p.say(p.done / p.total)
	}
}

// newWorlds are parts of a load, as rungs say, and all of it.
func newWorlds(all *world) []*world {
	var worlds []*world
	for _, jobs := range rungs {
		if jobs < len(all.trace.Jobs)*3/4 {
			part := *all
			part.trace = typical(all.trace, float64(jobs)/float64(len(all.trace.Jobs)))
			worlds = append(worlds, &part)
		}
	}
	return append(worlds, all)
}

// main is the part of the load on which levers are changed: all of it unless that takes too long.
func (s *search) main() int {
	if last := len(s.worlds) - 1; len(s.worlds[last].trace.Jobs) <= wholeUpTo || last == 0 {
		return last
	}
	return len(s.worlds) - 2
}

// wholeUpTo is how many jobs all that is learned from may have for levers to be changed on all of it.
const wholeUpTo = 12_000

// typical is a part of a trace, of a share of its time, with nearly that share of its jobs and of their run times.
func typical(t simulator.Trace, share float64) simulator.Trace {
	span := t.Jobs[len(t.Jobs)-1].Start
	length := time.Duration(share * float64(span))
	var total float64
	for i := range t.Jobs {
		total += t.Jobs[i].Run.Seconds()
	}
	const starts = 64
	best, least := t, math.Inf(1)
	for n := range starts {
		from := t.Origin.Add(time.Duration(float64(n) / (starts - 1) * float64(span-length)))
		part := t.After(from)
		part = part.Until(from.Add(length))
		if len(part.Jobs) == 0 {
			continue
		}
		var seconds float64
		for i := range part.Jobs {
			seconds += part.Jobs[i].Run.Seconds()
		}
		off := math.Abs(math.Log(float64(len(part.Jobs))/(share*float64(len(t.Jobs))))) + math.Abs(math.Log(max(1, seconds)/max(1, share*total)))
		if off < least {
			best, least = part, off
		}
	}
	return best
}

// play simulates configurations on a part of the load, as many at once as there are processors. Those that are not possible have a score without end.
func (s *search) play(rung int, cs []Configuration, seeds int) ([]Result, error) {
	results := make([]Result, len(cs))
	w := s.worlds[rung]
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	for i := range cs {
		c := &cs[i]
		key := string(rune('0'+rung)) + string(rune('0'+seeds)) + c.key()
		s.mu.Lock()
		known, ok := s.cache[key]
		s.mu.Unlock()
		switch {
		case ok:
			results[i] = known
			s.step.add(0)
			continue
		case !w.possible(c):
			results[i] = Result{Configuration: *c, CostMonth: math.Inf(1)}
			continue
		}
		work.Go(func() error {
			if err := s.ctx.Err(); err != nil {
				return err
			}
			r, err := w.play(c, &s.o.Objective, seeds)
			if err != nil {
				return err
			}
			r.Series = simulator.Series{}
			results[i] = r
			s.mu.Lock()
			s.cache[key] = r
			s.mu.Unlock()
			s.step.add(seeds * len(w.trace.Jobs))
			return nil
		})
	}
	return results, work.Wait()
}

// pods are what the pods of each queue request: the most that a message of theirs does.
func (w *world) pods(c *Configuration) map[string]packing.Amounts {
	pods := map[string]packing.Amounts{}
	for i := range w.trace.Jobs {
		j := &w.trace.Jobs[i]
		of, requests := pods[c.Queues.Of[j.Class]], j.Requests
		if given, ok := c.Requests.Of[j.Class]; ok {
			requests = given
		}
		for d := range of {
			of[d] = max(of[d], requests[d])
		}
		pods[c.Queues.Of[j.Class]] = of
	}
	return pods
}

// possible is true when every queue's pods fit on a node.
func (w *world) possible(c *Configuration) bool {
	for _, requests := range w.pods(c) {
		if !slices.ContainsFunc(c.Shapes.Shapes, func(s simulator.Shape) bool { return s.Capacity.Fit(requests) }) {
			return false
		}
	}
	return true
}

// sorted are results, the best first; equal ones stay in their order.
func (s *search) sorted(results []Result) []Result {
	slices.SortStableFunc(results, func(a, b Result) int { return cmp.Compare(a.score(s.wait, s.share), b.score(s.wait, s.share)) })
	for len(results) > 0 && math.IsInf(results[len(results)-1].CostMonth, 1) {
		results = results[:len(results)-1]
	}
	return results
}

// halve finds the best pair of shapes and queues for the rest of a configuration, and the shapes that did well.
func (s *search) halve(start Configuration) (Configuration, error) {
	var arms []Configuration
	for _, q := range s.queues {
		for _, set := range s.o.Candidates {
			c := start
			if !s.o.Keep[leverQueues] {
				c.Queues = q
			}
			if !s.o.Keep[leverShapes] {
				c.Shapes = set
			}
			if !slices.ContainsFunc(arms, func(a Configuration) bool { return a.key() == c.key() }) {
				arms = append(arms, c)
			}
		}
	}
	last := s.main()
	var results []Result
	for rung := 0; rung <= last; rung++ {
		var err error
		if results, err = s.play(rung, arms, 1); err != nil {
			return start, err
		}
		if results = s.sorted(results); len(results) == 0 {
			return start, errTooLarge
		}
		if rung < last {
			results = results[:min(len(results), max(8, len(arms)/eta))]
		}
		arms = arms[:0]
		for i := range results {
			arms = append(arms, results[i].Configuration)
		}
	}
	for i := range results {
		set := results[i].Configuration.Shapes
		if len(s.shapes) < 8 && !slices.ContainsFunc(s.shapes, func(other ShapeSet) bool { return other.Name == set.Name }) {
			s.shapes = append(s.shapes, set)
		}
	}
	return results[0].Configuration, nil
}

// others are a configuration with other values of a lever.
func (s *search) others(c Configuration, name string) []Configuration {
	var all []Configuration
	add := func(change func(*Configuration)) {
		other := c
		change(&other)
		if other.key() != c.key() {
			all = append(all, other)
		}
	}
	switch name {
	case leverShapes:
		for _, set := range s.shapes {
			add(func(o *Configuration) { o.Shapes = set })
		}
	case leverQueues:
		for _, q := range s.queues {
			add(func(o *Configuration) { o.Queues = q })
		}
	case leverWorkers:
		for _, w := range []Workers{
			{MaxMessages: 1, IdleTimeout: Duration(5 * time.Second)},
			{IdleTimeout: Duration(5 * time.Second)}, {IdleTimeout: Duration(10 * time.Second)}, {IdleTimeout: Duration(30 * time.Second)}, {IdleTimeout: Duration(2 * time.Minute)},
			{IdleTimeout: Duration(15 * time.Minute)}, {IdleTimeout: Duration(30 * time.Second), MaxLifetime: Duration(5 * time.Minute)},
			withRules, {Rules: true, IdleTimeout: withRules.IdleTimeout, MaxLifetime: Duration(5 * time.Minute)},
		} {
			if !w.Rules || !s.o.WithoutDraining {
				add(func(o *Configuration) { o.Workers = w })
			}
		}
	case leverDrain:
		for _, seconds := range []int{0, 15, 30, 60, 120, 300} {
			if seconds > 0 && c.Workers.MaxMessages == 1 {
				break // fewer workers than messages, each for one
			}
			add(func(o *Configuration) { o.DrainWithin = Duration(time.Duration(seconds) * time.Second) })
		}
	case leverPolling:
		for _, seconds := range []int{2, 5, 15, 30} {
			add(func(o *Configuration) { o.Poll = Duration(time.Duration(seconds) * time.Second) })
		}
	case leverConsolidation:
		for _, seconds := range []int{0, 15, 30, 60, 120, 300, 600} {
			add(func(o *Configuration) { o.ConsolidateAfter = Duration(time.Duration(seconds) * time.Second) })
		}
	case leverSurplus:
		for _, surplus := range surpluses {
			add(func(o *Configuration) { o.Surplus = surplus })
		}
	case leverCalendar:
		if s.o.noCalendar {
			return nil
		}
		for _, level := range []float64{0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95} {
			add(func(o *Configuration) { o.Calendar = Calendar{Level: level, Reserve: c.Calendar.Reserve} })
		}
		for _, reserve := range []int32{0, 1, 2, 3, 4, 8, 16} {
			add(func(o *Configuration) { o.Calendar = Calendar{Level: c.Calendar.Level, Reserve: reserve} })
		}
	}
	return all
}

// surpluses that are tried. A number helps where queues are short: a percentage of few messages rounds down to nothing.
var surpluses = []string{"", "1", "10%", "30%", "60%"}

// withRules are workers by the rules of package draining.
var withRules = Workers{Rules: true, IdleTimeout: Duration(10 * time.Second)}

// descend changes one lever after the other as long as that gains something.
func (s *search) descend(start Configuration) (Result, error) {
	rung := s.main()
	results, err := s.play(rung, []Configuration{start}, 1)
	if err != nil {
		return Result{}, err
	}
	best := results[0]
	for range passes {
		before := best.score(s.wait, s.share)
		// What shortens waits comes in the order of its usual cost, so that idle replicas are not added where a surplus is enough.
		for _, name := range []string{leverWorkers, leverDrain, leverSurplus, leverCalendar, leverConsolidation, leverPolling, leverShapes, leverQueues} {
			if s.o.Keep[name] {
				continue
			}
			results, err := s.play(rung, s.others(best.Configuration, name), 1)
			if err != nil {
				return best, err
			}
			if results = s.sorted(results); len(results) > 0 && results[0].score(s.wait, s.share) < best.score(s.wait, s.share) {
				best = results[0]
			}
		}
		if best.score(s.wait, s.share) > before*(1-leastGain) {
			break
		}
	}
	return best, nil
}

// finish simulates the best of what was seen on all that is learned from, and returns them, the best first.
func (s *search) finish(best Result) ([]Result, error) {
	rung := s.main()
	seen := []Result{best}
	for _, name := range Levers() {
		if s.o.Keep[name] {
			continue
		}
		near, err := s.play(rung, s.others(best.Configuration, name), 1)
		if err != nil {
			return nil, err
		}
		seen = append(seen, near...)
	}
	seen = s.sorted(seen)
	var final []Configuration
	for i := range seen[:min(len(seen), finalists)] {
		final = append(final, seen[i].Configuration)
	}
	results, err := s.play(len(s.worlds)-1, final, finalSeeds)
	if err != nil || len(results) == 0 {
		return nil, err
	}
	results = s.sorted(results)
	results[0], err = s.simplify(results[0])
	return results, err
}

// simplify leaves what is worth nothing as it is today: a change that gains less than leastGain is not worth making.
func (s *search) simplify(best Result) (Result, error) {
	target := best.score(s.wait, s.share) * (1 + leastGain)
	for _, l := range slices.Backward(levers) {
		simpler := best.Configuration
		if l.set(&simpler, &s.o.Today); l.say(&simpler) == l.say(&best.Configuration) || l.name == leverRequests {
			continue
		}
		results, err := s.play(len(s.worlds)-1, []Configuration{simpler}, finalSeeds)
		if err != nil {
			return best, err
		}
		if results[0].score(s.wait, s.share) <= target {
			best = results[0]
		}
	}
	return best, nil
}
