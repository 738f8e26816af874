package recommend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// Options of Recommend.
type Options struct {
	Zone      *time.Location
	Objective Objective
	// MaxReplicas of every queue.
	MaxReplicas int32
	// Holiday is true for a day that is not to be learned from; nil: none is.
	Holiday func(time.Time) bool
	// System has the times that pods, workers and nodes take, and the seed.
	System simulator.System
	// Today is what runs now; its queues and requests are made of the load where they are not given.
	Today Configuration
	// Candidates are the sets of shapes to choose from.
	Candidates []ShapeSet
	// Keep levers as they are today, by their names.
	Keep map[string]bool
	// LongerWaits allows waits up to the objective where they are shorter today.
	LongerWaits bool
	// WithoutDraining leaves out what needs the scheduler's draining: the rules of package draining.
	WithoutDraining bool
	// Removal of an empty node, after consolidateAfter; zero: what was measured.
	Removal simulator.Range
	// Progress is called with the share of the work that is done; nil: it is not.
	Progress func(share float64)

	noCalendar bool
}

// Recommendation is what was found.
type Recommendation struct {
	// Learned until Cut, judged from there on.
	Cut          time.Time `json:"cut"`
	LearnedWeeks float64   `json:"learnedWeeks"`
	JudgedWeeks  float64   `json:"judgedWeeks"`
	// Today, the strongest alternative and the recommendation on the part that was not learned from.
	Today       Result `json:"today"`
	Alternative Result `json:"alternative"`
	Recommended Result `json:"recommended"`
	// Met is true when the objective was met on the part that was not learned from.
	Met bool `json:"objectiveMet"`
	// Decisions, the one that is worth most first.
	Decisions []Decision `json:"decisions"`
	// Rhythm is the correlation between what the week's profile says and the demand of the part that was not learned from, -1 to 1.
	Rhythm float64 `json:"rhythm"`
	// Calendars by queue and Requests by class, learned from everything.
	Calendars map[string]*v1alpha1.Calendar `json:"-"`
	Requests  Requests                      `json:"-"`
	// Reasons of the calendars' periods, by queue and period.
	Reasons map[string]map[string]string `json:"-"`
	// Notes say what had to be assumed, and why less was recommended than could be.
	Notes []string `json:"notes"`
	// CostByClass is what the pods of each class cost a month in it: by what they request and how long they run, with idle time and empty room by the
	// same shares. Empty where there is one class.
	CostByClass map[string]float64 `json:"costMonthByClass,omitempty"`
	// Played is how many configurations were simulated.
	Played int `json:"configurationsTried"`
}

// Decision is one lever of the recommendation.
type Decision struct {
	Lever       string `json:"lever"`
	Today       string `json:"today"`
	Recommended string `json:"recommended"`
	// CostWithout and WaitWithout are the cost of a month and the wait, on the part that was not learned from, of the recommendation with this lever as
	// it is today. Impossible: that does not work with the rest.
	CostWithout float64 `json:"costMonthWithout,omitempty"`
	WaitWithout float64 `json:"waitSecondsWithout,omitempty"`
	Impossible  bool    `json:"impossibleWithout,omitempty"`
	// Change says what would change the decision.
	Change string `json:"whatWouldChangeIt,omitempty"`

	worth float64
}

// ErrNothing is the error when nothing is worth recommending.
var ErrNothing = errors.New("nothing is worth recommending")

var errTooLarge = fmt.Errorf("%w: no node of the list is large enough for the pods", ErrNothing)

// leastMessages of each part of the load.
const leastMessages = 100

// judgeSeeds is with how many seeds the part that was not learned from is simulated.
const judgeSeeds = 2

// tighter are shares of the wait with which the search is tried, one after the other, until something holds.
var tighter = []float64{1, 0.95, 0.9, 0.75}

// Recommend finds a configuration for a load. The error is ErrNothing, with the reason, when nothing is better than what runs today; the
// recommendation has what is known then. It ends early with the error of a context that is done.
func Recommend(ctx context.Context, trace simulator.Trace, o Options) (Recommendation, error) {
	var r Recommendation
	cut, err := split(trace, o.Zone)
	if err != nil {
		return r, err
	}
	learned, later := trace.Until(cut), trace.After(cut)
	r.Cut, r.LearnedWeeks = cut, cut.Sub(trace.Origin).Hours()/168
	r.JudgedWeeks = later.Jobs[len(later.Jobs)-1].Start.Hours() / 168
	if o.Removal == (simulator.Range{}) {
		o.Removal = removal
	}
	classes := classesOf(trace.Jobs)
	complete(&o.Today, classes, trace)
	f := newFloors(learned, later, &o)
	// Where pods of today request alike, whatever class they are for, the history may say what each class needs.
	requests := stated(trace.Jobs)
	if !sized(trace.Jobs) {
		requests = o.Today.Requests
	}
	start := Configuration{
		Stack: Ours, Shapes: o.Today.Shapes, Queues: o.Today.Queues, Requests: requests, Workers: withRules,
		Poll: Duration(2 * time.Second), ConsolidateAfter: Duration(30 * time.Second),
	}
	r.Requests = requests
	if of, known := used(learned.Jobs, requests); known && !o.Keep[leverRequests] {
		start.Requests = of
	} else if !known {
		r.Notes = append(r.Notes, "The history does not say what pods used: requests stay as they are stated.")
	}
	if o.WithoutDraining {
		start.Workers = Workers{IdleTimeout: Duration(30 * time.Second)}
	}
	keep(&start, &o)
	switch {
	case o.Keep[leverRequests]:
		r.Requests = o.Today.Requests
	case start.Requests.Name != requests.Name:
		r.Requests, _ = used(trace.Jobs, requests)
	}
	if r.Rhythm = f.rhythm(o.Today.Queues); trace.Jobs[len(trace.Jobs)-1].Start < leastHistory {
		o.noCalendar = true
		r.Notes = append(r.Notes, fmt.Sprintf("The history has %.1f days: a calendar of the week is learned from at least a week and tried on another, so none is recommended.",
			trace.Jobs[len(trace.Jobs)-1].Start.Hours()/24))
	} else if r.Rhythm < leastRhythm {
		o.noCalendar = true
		r.Notes = append(r.Notes, fmt.Sprintf("What the first part says of an hour of the week correlates by %.2f with the second, and %.1f is wanted: a calendar would "+
			"cost pod-hours and help nobody, so none is recommended.", r.Rhythm, leastRhythm))
	}

	all := &world{trace: learned, base: o.System, learn: f, most: o.MaxReplicas, zone: o.Zone, removal: o.Removal}
	s := &search{ctx: ctx, o: &o, share: 1, worlds: newWorlds(all), queues: partitions(classes, start.Requests.Of, hoursOf(learned.Jobs)), cache: map[string]Result{}}
	s.step = &progress{say: o.Progress, total: s.planned(len(later.Jobs))}
	if !all.possible(&o.Today) {
		return r, fmt.Errorf("%w: the pods do not fit on the nodes of today, %s", ErrNothing, o.Today.Shapes.Name)
	}
	ofToday, err := s.play(len(s.worlds)-1, []Configuration{o.Today}, finalSeeds)
	if err != nil {
		return r, err
	}
	s.wait = o.Objective.Wait.Seconds()
	if !o.LongerWaits {
		s.wait = max(1, min(s.wait, ofToday[0].Wait))
	}
	if start, err = s.halve(start); err != nil {
		return r, err
	}
	judge := &world{trace: later, base: o.System, learn: f, most: o.MaxReplicas, zone: o.Zone, removal: o.Removal}
	if r.Today, err = s.judge(judge, "today", &o.Today); err != nil {
		return r, err
	}
	// What is best on the part that was learned from may wait longer than today, or than the objective, on the other: then the search continues with a shorter
	// wait as its goal. What is no worse than today is kept meanwhile.
	wait, held := s.wait, false
	for try, share := range tighter {
		s.wait, s.share = wait*share, share
		best, err := s.descend(start)
		if err != nil {
			return r, err
		}
		final, err := s.finish(best)
		if err != nil {
			return r, err
		}
		for i := range final[:min(len(final), 2)] {
			found, err := s.judge(judge, "recommended", &final[i].Configuration)
			if err != nil {
				return r, err
			}
			switch holds := s.holds(&found, &r.Today); {
			case holds && (!held || found.Excess <= 1):
				held, r.Recommended = true, found
			case !held && try+i == 0:
				r.Recommended = found
			}
			if r.Met = held && r.Recommended.Excess <= 1; r.Met {
				break
			}
		}
		if r.Met {
			break
		}
		start = best.Configuration
	}
	s.wait, s.share = wait, 1
	r.Met = r.Recommended.Excess <= 1
	if r.Alternative, err = s.alternative(judge, &r.Recommended.Configuration); err != nil {
		return r, err
	}
	if !held {
		r.Played = len(s.cache)
		return r, fmt.Errorf("%w: on the part that was not learned from the best found costs %.0f a month and waits %.1f s, where today costs %.0f and waits %.1f s; "+
			"only what costs and waits no more is recommended (--longer-waits allows waits up to the objective)",
			ErrNothing, r.Recommended.CostMonth, r.Recommended.Wait, r.Today.CostMonth, r.Today.Wait)
	}
	if err := s.explain(judge, &r); err != nil {
		return r, err
	}
	r.CostByClass = judge.costByClass(&r.Recommended)
	s.refit(&r, trace)
	r.Played = len(s.cache)
	return r, nil
}

// split is the instant between the part to learn from and the part to judge on: half of the days, at least a week of two.
func split(trace simulator.Trace, zone *time.Location) (time.Time, error) {
	span := trace.Jobs[len(trace.Jobs)-1].Start
	origin := trace.Origin.In(zone)
	cut := origin.Add(span / 2)
	if days := span.Hours() / 24; days >= 4 {
		half := int(math.Round(days / 2))
		if span >= leastHistory {
			half = max(7, half)
		}
		cut = time.Date(origin.Year(), origin.Month(), origin.Day()+half, 0, 0, 0, 0, zone)
	}
	first := len(trace.Until(cut).Jobs)
	if second := len(trace.Jobs) - first; first < leastMessages || second < leastMessages {
		return cut, fmt.Errorf("%w: the history has %d messages in its first half and %d in its second, and at least %d are wanted in each", ErrNothing, first, second, leastMessages)
	}
	return cut, nil
}

// complete gives what runs today the queues and requests that the load says.
func complete(today *Configuration, classes []string, trace simulator.Trace) {
	switch {
	case today.Queues.Of != nil:
	case today.Queues.Name == queueByClass(nil).Name:
		today.Queues = queueByClass(classes)
	default:
		today.Queues = oneQueue(classes)
	}
	switch all, alike := today.Requests.Of[""]; {
	case today.Requests.Of == nil:
		today.Requests = stated(trace.Jobs)
	case alike:
		today.Requests.Of = map[string]packing.Amounts{}
		for _, class := range classes {
			today.Requests.Of[class] = all
		}
	}
}

// keep gives a configuration today's value of the levers that are to stay.
func keep(c *Configuration, o *Options) {
	for _, l := range levers {
		if o.Keep[l.name] {
			l.set(c, &o.Today)
		}
	}
}

// planned is about how many jobs will be simulated.
func (s *search) planned(later int) float64 {
	jobs := func(rung int) float64 { return float64(len(s.worlds[rung].trace.Jobs)) }
	total, arms := 0.0, float64(len(s.queues)*len(s.o.Candidates))
	for rung := 0; rung <= s.main(); rung++ {
		total += arms * jobs(rung)
		arms = max(8, arms/eta)
	}
	const neighbours = 49 // tries for what is tighter come on top, where they are needed
	total += 2 * neighbours * jobs(s.main())
	total += (finalists + 7) * finalSeeds * jobs(len(s.worlds)-1)
	return total + float64(later)*judgeSeeds*float64(2+len(levers)+4)
}

// judge simulates a configuration on the part that was not learned from.
func (s *search) judge(w *world, name string, c *Configuration) (Result, error) {
	if err := s.ctx.Err(); err != nil {
		return Result{}, err
	}
	r, err := w.play(c, &s.o.Objective, judgeSeeds)
	r.Name = name
	s.step.add(judgeSeeds * len(w.trace.Jobs))
	return r, err
}

// holds is true for what costs no more and waits no longer than today, or no longer than the objective where that is allowed.
func (s *search) holds(found, today *Result) bool {
	wait := today.Wait
	if s.o.LongerWaits {
		wait = max(wait, s.o.Objective.Wait.Seconds())
	}
	return found.CostMonth <= today.CostMonth && found.Wait <= wait && found.Unserved <= today.Unserved && found.score(s.wait, s.share) < today.score(s.wait, s.share)*(1-leastGain)
}

// peers are KEDA with MostAllocated on a configuration's shapes, queues, requests and polling, in all the ways in which it may do best. It removes empty
// nodes as soon as Karpenter can, as the configuration does, or after today's usual half minute.
func (s *search) peers(judge *world, c *Configuration) []Configuration {
	var peers []Configuration
	after := []Duration{0, Duration(30 * time.Second)}
	if !slices.Contains(after, c.ConsolidateAfter) {
		after = append(after, c.ConsolidateAfter)
	}
	for _, after := range after {
		for _, messages := range []int{1, 0} {
			p := *c
			p.Surplus = "" // KEDA has none
			if messages == 1 {
				p.DrainWithin = 0
			} else if c.DrainWithin > 0 { // and without
				without := p
				without.DrainWithin, without.Stack, without.ConsolidateAfter = 0, Peer, after
				without.Workers, without.Calendar = Workers{IdleTimeout: Duration(5 * time.Second)}, Calendar{}
				peers = append(peers, without)
			}
			p.Stack, p.ConsolidateAfter = Peer, after
			p.Workers, p.Calendar = Workers{MaxMessages: messages, IdleTimeout: Duration(5 * time.Second)}, Calendar{}
			peers = append(peers, p)
			if calendars := judge.calendars(c); len(calendars) > 0 {
				p.Stack, p.Calendar = PeerCron, c.Calendar
				p.Workers.IdleTimeout = Duration(15 * time.Minute)
				peers = append(peers, p)
			}
		}
	}
	return peers
}

// alternative is the strongest of the peers: as the part that was learned from says, simulated on the other.
func (s *search) alternative(judge *world, c *Configuration) (Result, error) {
	results, err := s.play(len(s.worlds)-1, s.peers(judge, c), 1)
	if err != nil {
		return Result{}, err
	}
	if results = s.sorted(results); len(results) == 0 {
		return Result{}, errTooLarge
	}
	return s.judge(judge, "strongest alternative", &results[0].Configuration)
}

// calendars of a configuration, by queue.
func (w *world) calendars(c *Configuration) map[string]*v1alpha1.Calendar {
	if c.Calendar.Given != nil {
		return c.Calendar.Given
	}
	return w.learn.calendars(c.Queues, c.Calendar.Level, c.Calendar.Reserve)
}

// explain works out what each decision alone is worth and what would change it.
func (s *search) explain(judge *world, r *Recommendation) error {
	c := &r.Recommended.Configuration
	for _, l := range levers {
		d := Decision{Lever: l.name, Today: l.say(&s.o.Today), Recommended: l.say(c)}
		if d.Today != d.Recommended {
			without := *c
			l.set(&without, &s.o.Today)
			if d.Impossible = !judge.possible(&without); !d.Impossible {
				result, err := s.judge(judge, "without", &without)
				if err != nil {
					return err
				}
				d.CostWithout, d.WaitWithout = result.CostMonth, result.Wait
				d.worth = result.score(s.wait, s.share) - r.Recommended.score(s.wait, s.share)
			} else {
				d.worth = math.Inf(1)
			}
		}
		var err error
		if d.Change, err = s.change(c, l); err != nil {
			return err
		}
		r.Decisions = append(r.Decisions, d)
	}
	// Ebbtide's own share is beside the strongest alternative.
	r.Decisions = append(r.Decisions, Decision{
		Lever: "scaler and scheduler", Today: s.o.Today.Stack.Name, Recommended: c.Stack.Name, CostWithout: r.Alternative.CostMonth, WaitWithout: r.Alternative.Wait,
		Change: "without: " + r.Alternative.Configuration.Stack.Name + ", " + r.Alternative.Configuration.Workers.String() + ", on the same shapes, queues and requests",
		worth:  r.Alternative.score(s.wait, s.share) - r.Recommended.score(s.wait, s.share),
	})
	slices.SortStableFunc(r.Decisions, func(a, b Decision) int { return cmp.Compare(b.worth, a.worth) })
	return nil
}

// change says which other value of a lever comes next, and by how much.
func (s *search) change(c *Configuration, l lever) (string, error) {
	if s.o.Keep[l.name] {
		return "kept as it is today", nil
	}
	others := s.others(*c, l.name)
	if l.name == leverRequests || len(others) == 0 {
		return "", nil
	}
	results, err := s.play(s.main(), append(others, *c), 1)
	if err != nil {
		return "", err
	}
	chosen := results[len(results)-1]
	results = s.sorted(results[:len(results)-1])
	if len(results) == 0 {
		return "nothing else is possible", nil
	}
	next := results[0]
	cost := 100 * (next.CostMonth/chosen.CostMonth - 1)
	text := fmt.Sprintf("next is %s: cost %+.1f%%, wait %.0f s in place of %.0f s", l.say(&next.Configuration), cost, next.Wait, chosen.Wait)
	if l.name == leverShapes && cost > 0 {
		text += fmt.Sprintf("; a price %.0f%% lower would change it", 100*(1-chosen.score(s.wait, s.share)/next.score(s.wait, s.share)))
	}
	return text, nil
}

// CalendarOf is the calendar of a queue's policy: what was learned, with the surplus as the default of all limits. It is nil where there is neither.
func (r *Recommendation) CalendarOf(queue string) *v1alpha1.Calendar {
	surplus := r.Recommended.Configuration.Surplus
	if surplus == "" && r.Today.Configuration.Surplus != "" {
		surplus = "0" // where values are merged with today's, those stay otherwise
	}
	return withSurplus(cmp.Or(r.Calendars[queue], r.Calendars[""]), surplus)
}

// costByClass shares the cost of a result out.
func (w *world) costByClass(r *Result) map[string]float64 {
	c := &r.Configuration
	pods := w.pods(c)
	costs, total := map[string]float64{}, 0.0
	for i := range w.trace.Jobs {
		j := &w.trace.Jobs[i]
		share := size(pods[c.Queues.Of[j.Class]]) * j.Run.Hours()
		costs[j.Class], total = costs[j.Class]+share, total+share
	}
	if len(costs) < 2 || total == 0 {
		return nil
	}
	for class := range costs {
		costs[class] *= r.CostMonth / total
	}
	return costs
}

// refit learns calendars again from everything.
func (s *search) refit(r *Recommendation, trace simulator.Trace) {
	c := &r.Recommended.Configuration
	r.Reasons = map[string]map[string]string{}
	if c.Calendar.Given != nil {
		r.Calendars = c.Calendar.Given
		return
	}
	before := s.worlds[0].learn
	f := newFloors(trace, before.later, s.o)
	r.Calendars = f.calendars(c.Queues, c.Calendar.Level, c.Calendar.Reserve)
	for queue, calendar := range r.Calendars {
		if before.of(c.Queues, queue).rhythm < leastRhythm { // what was learned from everything knows the other part too well
			delete(r.Calendars, queue)
			continue
		}
		p := f.of(c.Queues, queue)
		r.Reasons[queue] = map[string]string{}
		for _, d := range describe(calendar, p.profile, p.groups) {
			if d.Quarters == 0 {
				continue
			}
			r.Reasons[queue][d.Period] = fmt.Sprintf("demand at once: median %.0f, at most %.0f, in %d quarters of an hour", d.Median, d.Highest, d.Quarters)
		}
		for _, period := range calendar.Periods {
			if strings.Contains(period.Name, "month-end-") {
				r.Reasons[queue][period.Name] = fmt.Sprintf("%.1f to %.1f times the work of such a day of other weeks, in %d months", p.ends.least, p.ends.most, p.ends.months)
			}
		}
	}
}
