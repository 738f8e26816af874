package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/simulator"
	"github.com/ebbtide-dev/ebbtide/simulator/report"
)

// trial is a system, and what came of it.
type trial struct {
	Name   string           `json:"name"`
	System simulator.System `json:"-"`
	// Ours are Ebbtide's configurations; Front ones are not worse than another in both p95 wait and node-hours.
	Ours bool `json:"ebbtide"`
	// Outcome is the mean of runs, one for each seed.
	simulator.Outcome
	runs     []simulator.Outcome
	Front    bool     `json:"paretoFront"`
	BeatenBy []string `json:"beatenBy,omitempty"`
	// TiesWith are those that differ in neither.
	TiesWith []string `json:"tiesWith,omitempty"`
}

// trialFlags are those of simulate and compare.
type trialFlags struct {
	load     loadFlags
	system   systemFlags
	policies *[]string
	out      *output
	report   string
	series   bool
	runs     uint
}

// add the flags; runs is how often each trial is played unless the user says otherwise.
func (f *trialFlags) add(cmd *cobra.Command, runs uint) {
	f.load.add(cmd)
	f.system.add(cmd)
	f.policies = policyFlag(cmd, "YAML file with ScalingPolicies; repeat for several. Default: one that only reacts")
	f.out = outputFlag(cmd)
	cmd.Flags().StringVar(&f.report, "report", "", "write a page with plots to this HTML file")
	cmd.Flags().BoolVar(&f.series, "series", false, "print the series of the first runs with -o json or yaml")
	cmd.Flags().UintVar(&f.runs, "runs", runs, "play everything with so many seeds, from --seed on; what is printed are means")
}

func simulateCommand() *cobra.Command {
	var f trialFlags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Play a load on policies: waits, jobs, nodes and cost",
		Long: `Plays a recorded or made-up load on each policy, from the message to the node: KEDA's polls and arithmetic, pods and nodes that take
their time to start, the scheduler's packing, Karpenter's batches and delays. The scaler's calendar and target and the scheduler's
packing are the code that runs in the cluster.`,
		Example: `  # last month's load on a policy, with a page of plots
  ebbtide simulate --trace month.csv -f policy.yaml --report month.html

  # four made-up weeks, on spot nodes that are taken away
  ebbtide simulate --generate weeks=4,perDay=3000 -f policy.yaml --node cpu=16,memory=64Gi,price=0.27 --node-loss 0.02`,
		Args: cobra.NoArgs,
	}
	f.add(cmd, 1)
	packer := cmd.Flags().String("packer", "drainpack", "how pods are packed: "+fmt.Sprint(simulator.Packers()))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.run(cmd, func(system simulator.System, _ simulator.Trace, policies []*policy.Policy) ([]trial, error) {
			system.Packer = *packer
			var trials []trial
			for _, p := range policies {
				system.Scaler = simulator.Ebbtide(p.Calendar, p.Target)
				trials = append(trials, trial{Name: p.Name.Name, System: system, Ours: true})
			}
			return trials, nil
		})
	}
	return cmd
}

// run makes trials of the flags, plays them and prints what came of them.
func (f *trialFlags) run(
	cmd *cobra.Command, plan func(simulator.System, simulator.Trace, []*policy.Policy) ([]trial, error),
) error {
	if f.runs == 0 {
		return errors.New("--runs is 0, want at least 1")
	}
	shown := newProgress(cmd.ErrOrStderr())
	f.load.progress = shown
	trace, err := f.load.read(cmd.Context())
	if err != nil {
		return err
	}
	system, err := f.system.read(&f.load, trace.Origin)
	if err != nil {
		return err
	}
	policies, err := readPolicies(cmd.Context(), *f.policies)
	if err != nil {
		return err
	}
	trials, err := plan(system, trace, policies)
	if err != nil {
		return err
	}
	if err := play(trials, trace, f.runs, shown); err != nil {
		return err
	}
	markFront(trials)
	if f.report != "" {
		zone, err := calendar.LoadZone(f.load.zone)
		if err != nil {
			return fmt.Errorf("--time-zone: %w", err)
		}
		if len(*f.policies) > 0 {
			zone = policies[0].TimeZone
		}
		if err := f.write(trials, zone); err != nil {
			return err
		}
	}
	if !f.series {
		for i := range trials {
			trials[i].Series = simulator.Series{}
		}
	}
	return f.out.print(cmd, trials, func(t *table) { printTrials(t, trials) })
}

// play runs every trial with so many seeds, as many at once as there are processors.
func play(trials []trial, trace simulator.Trace, runs uint, shown *progress) error {
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	var done atomic.Int64
	defer shown.done()
	for i := range trials {
		t := &trials[i]
		t.runs = make([]simulator.Outcome, runs)
		for run := range t.runs {
			work.Go(func() error {
				system := t.System
				system.Seed += uint64(run)
				out, err := system.Run(trace.Jobs)
				if err != nil {
					return fmt.Errorf("%s: %w", t.Name, err)
				}
				if run > 0 {
					out.Series = simulator.Series{} // only the first is shown
				}
				t.runs[run] = out
				shown.say("%d of %d played", done.Add(1), uint(len(trials))*runs)
				return nil
			})
		}
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for i := range trials {
		trials[i].Outcome = simulator.Mean(trials[i].runs)
	}
	return nil
}

// tie is how much less, as a share, still counts as the same: waits are of whole polls.
const tie = 0.01

// less reports whether a has less of something than b: by more than a tie, and by more than luck. Luck is two standard errors of the
// difference between runs of the same seed.
func less(a, b *trial, of func(*simulator.Outcome) float64) bool {
	if of(&a.Outcome) >= of(&b.Outcome)*(1-tie) {
		return false
	}
	sum, squares, n := 0.0, 0.0, float64(len(a.runs))
	for i := range a.runs {
		d := of(&b.runs[i]) - of(&a.runs[i])
		sum, squares = sum+d, squares+d*d
	}
	mean := sum / n
	return n < 2 || mean > 2*math.Sqrt(max(0, squares/n-mean*mean)/(n-1))
}

// markFront finds the trials that no other beats: none is better in p95 wait or node-hours and not worse in the other.
func markFront(trials []trial) {
	wait := func(o *simulator.Outcome) float64 { return o.Wait.P95 }
	nodes := func(o *simulator.Outcome) float64 { return o.NodeHours }
	for i := range trials {
		a := &trials[i]
		a.BeatenBy, a.TiesWith = nil, nil
		for j := range trials {
			b := &trials[j]
			if i == j || b.Unserved > a.Unserved || less(a, b, wait) || less(a, b, nodes) {
				continue
			}
			switch {
			case less(b, a, wait) || less(b, a, nodes):
				a.BeatenBy = append(a.BeatenBy, b.Name)
			case a.Unserved == b.Unserved:
				a.TiesWith = append(a.TiesWith, b.Name)
			}
		}
		a.Front = len(a.BeatenBy) == 0
	}
}

func printTrials(t *table, trials []trial) {
	t.row("CONFIGURATION", "WAIT P50", "P95", "P99", "JOBS/MSG", "EMPTY", "POD-H", "IDLE", "NODE-H", "BOUND", "PEAK", "COST", "FRONT")
	for _, r := range trials {
		front := ""
		if r.Front && len(trials) > 1 {
			front = "*"
			if len(r.TiesWith) > 0 {
				front += " ties with " + strings.Join(r.TiesWith, "; ")
			}
		}
		name := r.Name
		if r.Unserved > 0 {
			name += fmt.Sprintf(" (%d unserved)", r.Unserved)
		}
		t.row(name, waited(r.Wait.P50), waited(r.Wait.P95), waited(r.Wait.P99), fmt.Sprintf("%.3f", float64(r.Jobs)/float64(r.Messages)),
			percent(r.EmptyJobs, r.Jobs), number(r.PodHours), percent(int(r.IdlePodHours*1000), int(r.PodHours*1000)), number(r.NodeHours),
			fmt.Sprintf("x%.2f", r.RatioToBound), r.PeakNodes, number(r.Cost), front)
	}
}

// waited is seconds as a duration, to a tenth.
func waited(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}

// number of three digits at least.
func number(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func (f *trialFlags) write(trials []trial, zone *time.Location) (err error) {
	file, err := os.Create(f.report)
	if err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	defer func() {
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
	}()
	runs := make([]report.Run, len(trials))
	for i, t := range trials {
		runs[i] = report.Run{Name: t.Name, Ours: t.Ours, Front: t.Front, Outcome: t.Outcome}
	}
	return report.Write(file, runs, zone)
}

func compareCommand() *cobra.Command {
	var f trialFlags
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Play a load on a policy and on what people run today, side by side",
		Long: `Plays a load on KEDA's own rabbitmq trigger (over AMQP and over HTTP, strategies default and accurate, and beside cron triggers of the
policy's floors), on a pool of a fixed size, on Ebbtide without a calendar, and on Ebbtide with the stock scheduler, with MostAllocated and with DrainPack. Those marked
in the last column are on the front: no other has a shorter p95 wait without more node-hours, or fewer node-hours without a longer wait,
by more than 1% and by more than luck; those that differ less in both tie. Luck is two standard errors of the difference over --runs seeds.`,
		Example: `  ebbtide compare --trace month.csv -f policy.yaml
  ebbtide compare --generate weeks=4,perDay=2000 --report compare.html -o json`,
		Args: cobra.NoArgs,
	}
	f.add(cmd, 5)
	static := cmd.Flags().Int64("static", 0, "size of the fixed pool; default: what 99% of the time is enough for all messages at once")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.run(cmd, func(system simulator.System, trace simulator.Trace, policies []*policy.Policy) ([]trial, error) {
			pool := *static
			if pool == 0 {
				pool = concurrency(trace, 0.99)
			}
			return comparison(system, policies, pool)
		})
	}
	return cmd
}

// comparison is a load's trials.
func comparison(system simulator.System, policies []*policy.Policy, pool int64) ([]trial, error) {
	var trials []trial
	add := func(name string, ours bool, change func(*simulator.System)) {
		s := system
		s.Packer = "spread"
		change(&s)
		trials = append(trials, trial{Name: name, System: s, Ours: ours})
	}
	accurate, err := keda.NewStrategy("accurate")
	if err != nil {
		return nil, err
	}
	add(fmt.Sprintf("static pool of %d", pool), false, func(s *simulator.System) {
		s.Scaler, s.Worker.MaxMessages, s.Worker.IdleTimeout = simulator.Static(pool), 0, 365*24*time.Hour
	})
	add("keda rabbitmq AMQP, default", false, func(s *simulator.System) { s.Scaler = simulator.RabbitMQ(false) })
	add("keda rabbitmq HTTP, default", false, func(s *simulator.System) { s.Scaler = simulator.RabbitMQ(true) })
	add("keda rabbitmq AMQP, accurate", false, func(s *simulator.System) { s.Scaler, s.Strategy = simulator.RabbitMQ(false), accurate })
	if reactive, err := reactivePolicy(); err != nil {
		return nil, err
	} else if !slices.ContainsFunc(policies, func(p *policy.Policy) bool { return p.Name == reactive.Name }) {
		add("ebbtide reactive, DrainPack", true, func(s *simulator.System) {
			s.Scaler, s.Packer = simulator.Ebbtide(reactive.Calendar, reactive.Target), "drainpack"
		})
	}
	for _, p := range policies {
		triggers, err := cronTriggers(p)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", p.Name, err)
		}
		if len(triggers) > 0 {
			add("keda rabbitmq HTTP + cron of "+p.Name.Name, false, func(s *simulator.System) {
				s.Scaler = simulator.WithCron(simulator.RabbitMQ(true), triggers...)
			})
		}
		ours := simulator.Ebbtide(p.Calendar, p.Target)
		name := "ebbtide " + p.Name.Name
		add(name+", stock scheduler", true, func(s *simulator.System) { s.Scaler = ours })
		add(name+", MostAllocated", true, func(s *simulator.System) { s.Scaler, s.Packer = ours, "most-allocated" })
		add(name+", DrainPack", true, func(s *simulator.System) { s.Scaler, s.Packer = ours, "drainpack" })
		add(name+", DrainPack, workers go on", true, func(s *simulator.System) {
			s.Scaler, s.Packer, s.Worker.MaxMessages, s.Worker.IdleTimeout, s.Worker.OldestFirst = ours, "drainpack", 0, 30*time.Second, true
		})
	}
	return trials, nil
}

// concurrency is how many messages are worked on at once for a share of the time, when none has to wait. Time without any is left out.
func concurrency(trace simulator.Trace, share float64) int64 {
	type change struct {
		at    time.Duration
		delta int
	}
	var changes []change
	for _, job := range trace.Jobs {
		changes = append(changes, change{job.Start, 1}, change{job.Start + job.Run, -1})
	}
	slices.SortFunc(changes, func(a, b change) int { return int(a.at - b.at) })
	spent, running, total := map[int]time.Duration{}, 0, time.Duration(0)
	for i, c := range changes {
		running += c.delta
		if i+1 < len(changes) && running > 0 {
			spent[running] += changes[i+1].at - c.at
			total += changes[i+1].at - c.at
		}
	}
	below := time.Duration(0)
	for n := 1; ; n++ {
		if below += spent[n]; float64(below) >= share*float64(total) {
			return int64(n)
		}
	}
}
