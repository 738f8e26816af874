package recommend

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// Configuration is everything that is decided.
type Configuration struct {
	Stack    Stack    `json:"stack"`
	Shapes   ShapeSet `json:"shapes"`
	Queues   Queues   `json:"queues"`
	Requests Requests `json:"requests"`
	Workers  Workers  `json:"workers"`
	// Poll is KEDA's pollingInterval; ConsolidateAfter the NodePool's.
	Poll             Duration `json:"pollingInterval"`
	ConsolidateAfter Duration `json:"consolidateAfter"`
	Calendar         Calendar `json:"calendar"`
	// DrainWithin is the policy's: what waits is to be worked off in it; 0: every waiting message has a worker. A peer has as many messages for each
	// worker as its mean run time makes of it.
	DrainWithin Duration `json:"drainWithin"`
	// Surplus of replicas while messages wait, as a policy has it: a number, or a percentage such as 30%; empty: none. Only Ebbtide's scaler adds one.
	Surplus string `json:"surplus,omitempty"`
}

// Duration is written as 1m30s.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Stack is who scales and who packs.
type Stack struct {
	Name string `json:"name"`
	// Ebbtide's scaler asks for the jobs; else KEDA's rabbitmq trigger does, over AMQP or HTTP.
	Ebbtide bool `json:"ebbtide"`
	HTTP    bool `json:"-"`
	// Strategy of KEDA; Packer is one of simulator.Packers.
	Strategy string `json:"strategy"`
	Packer   string `json:"packer"`
}

// Stacks that are compared.
var (
	Ours = Stack{Name: "Ebbtide", Ebbtide: true, Strategy: "default", Packer: "drainpack"}
	// Peer is KEDA at its best, and PeerCron the same where cron triggers keep workers: strategy accurate would start workers at every poll then.
	Peer     = Stack{Name: "KEDA accurate, MostAllocated", Strategy: "accurate", Packer: "most-allocated"}
	PeerCron = Stack{Name: "KEDA cron, MostAllocated", HTTP: true, Strategy: "default", Packer: "most-allocated"}
	// Usual is KEDA and the scheduler with their defaults.
	Usual = Stack{Name: "KEDA, default scheduler", HTTP: true, Strategy: "default", Packer: "spread"}
)

// Queues say which classes share a queue.
type Queues struct {
	Name string `json:"name"`
	// Of is the queue of each class.
	Of map[string]string `json:"of,omitempty"`
}

// Names of the queues, in order.
func (q Queues) Names() []string {
	return slices.Compact(slices.Sorted(maps.Values(q.Of)))
}

// Requests of the pods for messages of each class.
type Requests struct {
	Name string `json:"name"`
	// Of each class.
	Of map[string]packing.Amounts `json:"-"`
}

// Workers say how long workers stay and what they do next.
type Workers struct {
	// MaxMessages is 1, or 0 for as long as there are any.
	MaxMessages int `json:"maxMessages"`
	// IdleTimeout after which a worker without a message leaves; MaxLifetime after which it takes no more, 0 for none.
	IdleTimeout Duration `json:"idleTimeout"`
	MaxLifetime Duration `json:"maxLifetime"`
	// Rules: workers stay while their node works, give way to pods without room, and leave nodes that drain, in place of the idle timeout.
	Rules bool `json:"rules"`
}

func (w Workers) String() string {
	switch {
	case w.MaxMessages == 1:
		return "one message a pod"
	case w.Rules && w.MaxLifetime > 0:
		return fmt.Sprintf("stay, give way, drain; at most %s", w.MaxLifetime)
	case w.Rules:
		return "stay, give way, drain"
	case w.MaxLifetime > 0:
		return fmt.Sprintf("keep consuming, exit after %s idle or %s in all", w.IdleTimeout, w.MaxLifetime)
	default:
		return fmt.Sprintf("keep consuming, exit after %s idle", w.IdleTimeout)
	}
}

// Calendar of floors: learned at a level, or one that is there.
type Calendar struct {
	// Level is the quantile of demand that floors are, 0 for no floors; Reserve are idle replicas while there is demand.
	Level   float64 `json:"level"`
	Reserve int32   `json:"reserve"`
	// Given calendars by queue are used as they are; a queue that has none has no floor. The key "" is for all queues.
	Given map[string]*v1alpha1.Calendar `json:"-"`
	// Crons are KEDA's cron triggers, in place of a calendar.
	Crons []*keda.Cron `json:"-"`
}

func (c Calendar) String() string {
	switch {
	case c.Given != nil || len(c.Crons) > 0:
		return "as it is"
	case c.Level == 0 && c.Reserve == 0:
		return "none"
	case c.Level == 0:
		return fmt.Sprintf("%d idle while there is work", c.Reserve)
	case c.Reserve == 0:
		return fmt.Sprintf("floors at %.0f%% of demand", 100*c.Level)
	default:
		return fmt.Sprintf("floors at %.0f%% of demand, %d idle", 100*c.Level, c.Reserve)
	}
}

// key tells configurations apart.
func (c *Configuration) key() string {
	return fmt.Sprint(c.Stack, c.Shapes.Name, c.Queues.Name, c.Requests.Name, c.Workers, c.Poll, c.ConsolidateAfter, c.Calendar.String(), c.DrainWithin, c.Surplus)
}

// removal is how long a node stays after consolidateAfter: Karpenter looks every 10 s, waits 15 s to look again, and ends the node. make e2e-calibration
// saw 17 to 32 s on Karpenter 1.14.
var removal = simulator.Range{Min: 17 * time.Second, Max: 32 * time.Second}

// world is a load and what does not change between configurations on it.
type world struct {
	trace simulator.Trace
	base  simulator.System
	learn *floors
	most  int32
	zone  *time.Location
	// removal of an empty node, after consolidateAfter.
	removal simulator.Range
}

// system is the configuration as one that the simulator runs, and the jobs as it sees them.
func (w *world) system(c *Configuration) (simulator.System, []simulator.Job, error) {
	s := w.base
	s.Origin, s.Packer, s.QueuePerClass, s.PollEvery = w.trace.Origin, c.Stack.Packer, len(c.Queues.Names()) > 1, time.Duration(c.Poll)
	s.Pod, s.Rules = packing.Amounts{}, nil
	s.Worker.MaxMessages, s.Worker.IdleTimeout, s.Worker.MaxLifetime = c.Workers.MaxMessages, time.Duration(c.Workers.IdleTimeout), time.Duration(c.Workers.MaxLifetime)
	s.Worker.OldestFirst = c.Stack.Ebbtide && c.Workers.MaxMessages != 1
	if c.Workers.Rules {
		s.Rules = simulator.ThreeRules()
	}
	s.Nodes.Shapes = c.Shapes.Shapes
	after := time.Duration(c.ConsolidateAfter)
	s.Nodes.Delay = simulator.Range{Min: after + w.removal.Min, Max: after + w.removal.Max}
	var err error
	if s.Strategy, err = keda.NewStrategy(c.Stack.Strategy); err != nil {
		return s, nil, err
	}
	if s.Scaler, err = w.scaler(c); err != nil {
		return s, nil, err
	}
	jobs := slices.Clone(w.trace.Jobs)
	for i := range jobs {
		j := &jobs[i]
		if r, ok := c.Requests.Of[j.Class]; ok {
			j.Requests = r
		}
		j.Class = c.Queues.Of[j.Class]
	}
	return s, jobs, nil
}

// withSurplus is a calendar, which may be nil, with a surplus at all times but in periods that have their own.
func withSurplus(c *v1alpha1.Calendar, surplus string) *v1alpha1.Calendar {
	if surplus == "" {
		return c
	}
	if c = c.DeepCopy(); c == nil {
		c = &v1alpha1.Calendar{}
	}
	c.Default.Surplus = ptr.To(intstr.Parse(surplus))
	return c
}

func (w *world) scaler(c *Configuration) (simulator.Scaler, error) {
	calendars := c.Calendar.Given
	if calendars == nil && len(c.Calendar.Crons) == 0 {
		calendars = w.learn.calendars(c.Queues, c.Calendar.Level, c.Calendar.Reserve)
	}
	limits := map[string]*calendar.Calendar{}
	for _, queue := range c.Queues.Names() {
		of := calendars[queue]
		if of == nil {
			of = calendars[""]
		}
		compiled, errs := policy.CompileCalendar(withSurplus(of, c.Surplus), nil, w.most, nil)
		if len(errs) > 0 {
			return nil, errs.ToAggregate()
		}
		limits[queue] = compiled
		if len(c.Queues.Names()) == 1 {
			limits[""] = compiled
		}
	}
	floor := len(calendars) > 0
	scalers := map[string]simulator.Scaler{}
	for queue, of := range limits {
		mean := w.learn.meanRun(c.Queues, queue)
		if c.Stack.Ebbtide {
			parameters := sizing.Parameters{MessagesPerReplica: 1, DrainWithin: time.Duration(c.DrainWithin)}
			if parameters.DrainWithin > 0 {
				parameters.ServiceTime = mean // which the scaler observes
			}
			scalers[queue] = remembering(of, simulator.Ebbtide(of, parameters))
			continue
		}
		perReplica := int64(1)
		if c.DrainWithin > 0 && mean > 0 {
			perReplica = max(1, int64(time.Duration(c.DrainWithin)/mean))
		}
		trigger := simulator.WithCron(simulator.RabbitMQ(c.Stack.HTTP), c.Calendar.Crons...)
		scalers[queue] = simulator.ScalerFunc(func(now time.Time, seen simulator.Seen) (int64, sizing.Constraint) {
			value, by := trigger.Target(now, seen)
			value = (value + perReplica - 1) / perReplica
			if !floor {
				return value, by
			}
			// Cron triggers have no idle reserve: a careful user makes a floor of it.
			l := of.Limits(now)
			if warm := int64(max(l.MinReplicas, l.IdleReplicas)); warm > value {
				return warm, sizing.Floor
			}
			return value, by
		})
	}
	return simulator.ScalerFunc(func(now time.Time, seen simulator.Seen) (int64, sizing.Constraint) {
		return scalers[seen.Class].Target(now, seen)
	}), nil
}

// remembering answers what was asked before without deciding again: a decision depends on what is seen and on the limits alone, most polls of a
// month see what others saw, and the reason that each decision words costs more than all the rest of a simulation.
func remembering(limits *calendar.Calendar, s simulator.Scaler) simulator.Scaler {
	type question struct {
		ready, consumers, unacknowledged int64
		limits                           calendar.Limits
	}
	type answer struct {
		replicas int64
		by       sizing.Constraint
	}
	answers := map[question]answer{}
	var last question
	var given answer
	var until time.Time // when the limits change
	return simulator.ScalerFunc(func(now time.Time, seen simulator.Seen) (int64, sizing.Constraint) {
		q := question{seen.Ready, seen.Consumers, seen.Unacknowledged, last.limits}
		if !now.Before(until) {
			q.limits = limits.Limits(now)
			var changes bool
			if until, _, changes = limits.NextChange(now); !changes {
				until = now.AddDate(100, 0, 0)
			}
		}
		if q == last && given.by != "" {
			return given.replicas, given.by
		}
		a, ok := answers[q]
		if !ok {
			if len(answers) > 1e5 {
				clear(answers)
			}
			a.replicas, a.by = s.Target(now, seen)
			answers[q] = a
		}
		last, given = q, a
		return a.replicas, a.by
	})
}

// Objective of waits.
type Objective struct {
	// Wait that a share of Quantile of all messages is not to exceed, and of those of some classes.
	Wait     time.Duration
	Quantile float64
	Classes  map[string]time.Duration
}

// waits are what the objective is about: the wait at its quantile, and how many times it is the objective's, of all or the worst class.
func (o *Objective) waits(jobs []simulator.Job, waited []time.Duration) (wait, excess float64) {
	wait = o.at(waited)
	excess = wait / o.Wait.Seconds()
	for class, objective := range o.Classes {
		var of []time.Duration
		for i := range jobs {
			if jobs[i].Class == class {
				of = append(of, waited[i])
			}
		}
		excess = max(excess, o.at(of)/objective.Seconds())
	}
	return wait, excess
}

// never is the wait of a message whose scan did not begin.
const never = 7 * 24 * 3600

func (o *Objective) at(waited []time.Duration) float64 {
	if len(waited) == 0 {
		return 0
	}
	sorted := slices.Clone(waited)
	slices.SortFunc(sorted, func(a, b time.Duration) int {
		return cmp.Compare(uint64(a), uint64(b)) // -1, never, is the longest
	})
	at := sorted[max(0, int(math.Ceil(o.Quantile*float64(len(sorted))))-1)]
	if at < 0 {
		return never
	}
	return at.Seconds()
}

// Result of a configuration on a load.
type Result struct {
	Name          string        `json:"name"`
	Configuration Configuration `json:"configuration"`
	// CostMonth is the cost of 730 hours, Wait at the objective's quantile, in seconds, IdleShare of pod-hours without a scan at work.
	CostMonth float64 `json:"costMonth"`
	Wait      float64 `json:"waitSeconds"`
	// Excess is how many times the objective the wait is, of the worst class.
	Excess            float64 `json:"waitOverObjective"`
	IdleShare         float64 `json:"idleShare"`
	simulator.Outcome `json:"outcome"`
}

// month is the mean month's hours.
const month = 730

// play simulates a load with that many seeds; the result is their mean.
func (w *world) play(c *Configuration, o *Objective, seeds int) (Result, error) {
	r := Result{Configuration: *c}
	s, jobs, err := w.system(c)
	if err != nil {
		return r, err
	}
	var outs []simulator.Outcome
	for range seeds {
		out, err := s.Run(jobs)
		if err != nil {
			return r, fmt.Errorf("%s on %s: %w", c.Stack.Name, c.Shapes.Name, err)
		}
		wait, excess := o.waits(w.trace.Jobs, out.Waited)
		r.Wait, r.Excess = r.Wait+wait/float64(seeds), r.Excess+excess/float64(seeds)
		if out.Waited = nil; len(outs) > 0 {
			out.Series = simulator.Series{}
		}
		outs = append(outs, out)
		s.Seed++
	}
	r.Outcome = simulator.Mean(outs)
	span := jobs[len(jobs)-1].Start.Hours() + 1
	r.CostMonth = r.Cost * month / span
	if r.PodHours > 0 {
		r.IdleShare = r.IdlePodHours / r.PodHours
	}
	return r, nil
}

const (
	// margin of the objective on what is learned from: a load that was not seen is never quite the same.
	margin = 0.95
	// meanWorth is the share of the cost that a mean wait as long as the objective is worth: between configurations that cost about the same and meet
	// the objective the one that lets messages wait less is better.
	meanWorth = 0.15
)

// score is the cost as the search sees it: more by the third power of how far the wait is beyond the objective less a margin, or beyond a wait, which is
// today's on the same load where that is shorter and so needs none; and a little more for a longer mean wait. The lowest is best. Only a share
// of both waits is allowed.
func (r *Result) score(wait, share float64) float64 {
	over := max(1, r.Excess/(margin*share), r.Wait/wait)
	score := r.CostMonth * (1 + meanWorth*min(1, r.Outcome.Wait.Mean/wait)) * over * over * over
	if r.Unserved > 0 {
		score *= 10
	}
	return score
}
