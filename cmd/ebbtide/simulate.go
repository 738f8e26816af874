package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

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
	rules    bool
	runs     uint
}

// add the flags; runs is how often each trial is simulated unless the user says otherwise.
func (f *trialFlags) add(cmd *cobra.Command, runs uint) {
	f.load.add(cmd)
	f.system.add(cmd)
	f.policies = policyFlag(cmd, "YAML file with ScalingPolicies; repeat for several. Default: one that only reacts")
	f.out = outputFlag(cmd)
	cmd.Flags().StringVar(&f.report, "report", "", "write a report with plots to this HTML file")
	cmd.Flags().BoolVar(&f.rules, "rules", false, "workers take several messages, stay while their node works, give way to pods without room, and leave draining nodes")
	cmd.Flags().BoolVar(&f.series, "series", false, "with -o json or yaml, print the series of the first run")
	cmd.Flags().UintVar(&f.runs, "runs", runs, "number of seeds, starting with --seed; the output has means")
}

func simulateCommand() *cobra.Command {
	var f trialFlags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Replay a workload against policies: waits, jobs, nodes and cost",
		Long: `Replays a recorded or synthetic workload against each policy, from the message to the node: KEDA's polls and arithmetic, pods and nodes that take
their time to start, the scheduler's packing, Karpenter's batches and delays. The scaler's calendar and target and the scheduler's
packing are the code that runs in the cluster.`,
		Example: `  # last month's workload, with a report
  ebbtide simulate --trace month.csv -f policy.yaml --report month.html

  # four synthetic weeks on spot nodes that are reclaimed
  ebbtide simulate --generate weeks=4,perDay=3000 -f policy.yaml --node cpu=16,memory=64Gi,price=0.27 --node-loss 0.02`,
		Args: cobra.NoArgs,
	}
	f.add(cmd, 1)
	packer := cmd.Flags().String("packer", "drainpack", "how pods are placed: "+fmt.Sprint(simulator.Packers()))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.run(cmd, func(system simulator.System, _ simulator.Trace, policies []*policy.Policy) ([]trial, error) {
			if system.Packer = *packer; f.rules {
				followRules(&system)
			}
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

// followRules makes workers follow the rules of package draining.
func followRules(s *simulator.System) {
	s.Worker.MaxMessages, s.Worker.OldestFirst, s.Rules = 0, true, simulator.ThreeRules()
}

// run makes trials from the flags, simulates them and prints the results.
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
	if few := tooFew(trials); few == "" {
		markFront(trials)
	} else if *f.out != "table" {
		fmt.Fprintln(cmd.ErrOrStderr(), few)
	}
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

// play simulates every trial with that many seeds, as many at once as there are processors.
func play(trials []trial, trace simulator.Trace, runs uint, shown *progress) error {
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	var done atomic.Int64
	total := uint(len(trials)) * runs
	shown.say("0 of %d simulated", total)
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
				shown.say("%d of %d simulated", done.Add(1), total)
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

// less reports whether a has less of something than b: by more than a tie, and by more than chance. Chance is two standard errors of the
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

// fewMessages is how many messages a comparison needs: of fewer than a hundred the p95 wait is that of a handful.
const fewMessages = 100

// Widths of the table of trials, so that it fits a terminal of 120 columns.
const (
	nameWidth  = 42
	frontWidth = 9
)

func printTrials(t *table, trials []trial) {
	row := func(number any, cells ...any) {
		if len(trials) > 1 { // numbers are there to say what ties
			cells = slices.Concat([]any{number}, cells)
		}
		t.row(cells...)
	}
	row("#", "CONFIGURATION", "WAIT P50", "MEAN", "P95", "JOBS", "EMPTY", "IDLE", "NODE-H", "PEAK", "COST", "FRONT")
	var notes []string
	for i, r := range trials {
		front := ""
		if r.Front && len(trials) > 1 {
			front = "*"
			if ties := tied(trials, r.TiesWith); ties != "" {
				if front = "* = " + ties; len(front) > frontWidth {
					front = "* ="
					notes = append(notes, fmt.Sprintf("%d ties with %s.", i+1, ties))
				}
			}
		}
		if r.Unserved > 0 {
			notes = append(notes, fmt.Sprintf("%d left %d of %d messages undone a week after the last one.", i+1, r.Unserved, r.Messages))
		}
		row(i+1, shortened(r.Name), waited(r.Wait.P50), waited(r.Wait.Mean), waited(r.Wait.P95), number(float64(r.Jobs)/float64(r.Messages), 2),
			percent(r.EmptyJobs, r.Jobs), percent(int(r.IdlePodHours*1000), int(r.PodHours*1000)), number(r.NodeHours, 1), r.PeakNodes,
			number(r.Cost, 1), front)
	}
	for _, note := range notes {
		t.line("%s", note)
	}
	if few := tooFew(trials); few != "" {
		t.line("%s", few)
	}
}

// tooFew says that a comparison is of too few messages to tell anything; empty when it is not.
func tooFew(trials []trial) string {
	if len(trials) < 2 || trials[0].Messages >= fewMessages {
		return ""
	}
	count := fmt.Sprintf("%d messages are", trials[0].Messages)
	if trials[0].Messages == 1 {
		count = "1 message is"
	}
	return fmt.Sprintf("%s too few to tell configurations apart: nothing is marked. Want at least %d.", count, fewMessages)
}

// tied are the numbers of trials by their names.
func tied(trials []trial, names []string) string {
	var numbers []string
	for i, r := range trials {
		if slices.Contains(names, r.Name) {
			numbers = append(numbers, strconv.Itoa(i+1))
		}
	}
	return strings.Join(numbers, ",")
}

// shortened is a name that fits its column: names of policies may be long, and differ at both ends.
func shortened(name string) string {
	text := []rune(strings.Replace(name, "keda rabbitmq", "keda", 1))
	if len(text) <= nameWidth {
		return string(text)
	}
	return string(text[:nameWidth/2]) + "…" + string(text[len(text)-nameWidth/2+1:])
}

// waited is seconds as a duration: to a tenth below a minute, to seconds below an hour.
func waited(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	default:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
}

// number of three digits at least and six at most, with so many decimals when it is small.
func number(v float64, decimals int) string {
	switch {
	case v < 100:
		return strconv.FormatFloat(v, 'f', decimals, 64)
	case v < 1e5:
		return strconv.FormatFloat(v, 'f', 0, 64)
	default:
		return strconv.FormatFloat(v/1000, 'f', 0, 64) + "k"
	}
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
