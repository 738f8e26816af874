// packing replays loads on a fleet with the scheduler plugin's own packing code and with models of what others do, and writes
// bench/out/packing.json. Recorded loads are the CSV files of a folder.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// Figure is one replay.
type Figure struct {
	Load                   string  `json:"load"`
	Recorded               bool    `json:"recorded"`
	Predictions            string  `json:"predictions"`
	DelaySeconds           float64 `json:"delaySeconds"`
	Policy                 string  `json:"policy"`
	Seed                   uint64  `json:"seed"`
	NodeHours              float64 `json:"nodeHours"`
	RatioToBound           float64 `json:"ratioToBound"`
	PeakNodes              int     `json:"peakNodes"`
	DrainSeconds           float64 `json:"drainSeconds"`
	TimerResetsPerNodeHour float64 `json:"timerResetsPerNodeHour"`
}

// capacity of a node: 16 cores, 64 GiB, 110 pods.
var capacity = packing.Amounts{16000, 64 << 30, 0, 110}

// options of the benchmark.
type options struct {
	data, out     string
	seeds, thins  uint64
	gather        time.Duration
	loads, packer *regexp.Regexp
	stated        *regexp.Regexp
}

func main() {
	var o options
	flag.StringVar(&o.data, "data", "", "a folder of recorded loads: every CSV in it of start,seconds,class[,milliCPU,memoryMiB]")
	flag.StringVar(&o.out, "out", "bench/out/packing.json", "where the figures go")
	flag.Uint64Var(&o.seeds, "seeds", 10, "how many seeds of each generated load")
	flag.Uint64Var(&o.thins, "thins", 3, "replays of each recorded load with a random tenth of its jobs left out; the spread of their figures is the noise")
	flag.DurationVar(&o.gather, "gather", 0, "hold jobs back until the end of windows of this length, and place those of a window longest first; 0: no")
	loads := flag.String("load", ".", "replay loads whose names match this regular expression only")
	stated := flag.String("stated", ".", "replay with predictions whose names match this regular expression only, and with absent ones")
	packer := flag.String("packer", ".", "replay packers whose names match this regular expression only, first-fit and most-allocated anyway")
	flag.Parse()
	var err error
	if o.loads, err = regexp.Compile(*loads); err != nil {
		log.Fatal("-load: ", err)
	}
	if o.packer, err = regexp.Compile("^(first-fit|most-allocated)$|" + *packer); err != nil {
		log.Fatal("-packer: ", err)
	}
	if o.stated, err = regexp.Compile("^absent$|" + *stated); err != nil {
		log.Fatal("-stated: ", err)
	}
	if err := run(o, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

type load struct {
	name     string
	recorded bool
	// make is the jobs of a seed; 0 is a recorded load as it was recorded.
	make func(seed uint64) []simulator.Job
}

func run(o options, to io.Writer) error {
	recorded, err := recordedLoads(o.data)
	if err != nil {
		return err
	}
	loads := append(recorded,
		generated("heavy-tailed", simulator.HeavyTailed), generated("bursty", simulator.Bursty),
		generated("two-queues-0.3", simulator.TwoQueues(0.3)), generated("two-queues-1.6", simulator.TwoQueues(1.6)))
	loads = slices.DeleteFunc(loads, func(l load) bool { return !o.loads.MatchString(l.name) })
	figures, err := replayAll(o.plan(loads), loads, o.gather)
	if err != nil {
		return err
	}
	report(to, figures)
	text, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.out, append(text, '\n'), 0o644)
}

func generated(name string, make func(*rand.Rand) []simulator.Job) load {
	return load{name: name, make: func(seed uint64) []simulator.Job { return make(rand.New(rand.NewPCG(seed, 1))) }}
}

// recordedLoads are the CSV files of a folder; none without one.
func recordedLoads(folder string) ([]load, error) {
	if folder == "" {
		return nil, nil
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.csv"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("-data: no CSV in %s", folder)
	}
	var loads []load
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		trace, err := simulator.ReadCSV(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		loads = append(loads, load{strings.TrimSuffix(filepath.Base(name), ".csv"), true, func(seed uint64) []simulator.Job {
			if seed == 0 {
				return trace.Jobs
			}
			random := rand.New(rand.NewPCG(seed, 77))
			return slices.DeleteFunc(slices.Clone(trace.Jobs), func(simulator.Job) bool { return random.IntN(10) == 0 })
		}})
	}
	return loads, nil
}

// plan is all replays, their results still to come.
func (o options) plan(loads []load) []Figure {
	var figures []Figure
	for _, l := range loads {
		seeds := o.seeds
		if l.recorded {
			seeds = 1 + o.thins
		}
		for _, predictions := range simulator.Predictions() {
			if !o.stated.MatchString(predictions) {
				continue
			}
			for _, delay := range []float64{45, 600} {
				for _, policy := range simulator.Packers() {
					if !o.packer.MatchString(policy) {
						continue
					}
					for seed := range seeds {
						figures = append(figures, Figure{
							Load: l.name, Recorded: l.recorded, Predictions: predictions, DelaySeconds: delay, Policy: policy, Seed: seed,
						})
					}
				}
			}
		}
	}
	return figures
}

// replayAll fills in the results, on all cores. Packers that take no notice of what is stated are replayed once.
func replayAll(figures []Figure, loads []load, gather time.Duration) ([]Figure, error) {
	makers := map[string]load{}
	for _, l := range loads {
		makers[l.name] = l
	}
	deaf := func(f Figure) bool {
		return f.Predictions != "absent" && (f.Policy == "first-fit" || f.Policy == "most-allocated" || f.Policy == "spread")
	}
	errs := make([]error, len(figures))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				errs[i] = replay(&figures[i], makers[figures[i].Load].make(figures[i].Seed), gather)
			}
		})
	}
	for i := range figures {
		if i%20 == 0 {
			fmt.Fprintf(os.Stderr, "\r%d of %d replays", i, len(figures))
		}
		if !deaf(figures[i]) {
			next <- i
		}
	}
	close(next)
	workers.Wait()
	fmt.Fprintf(os.Stderr, "\r%d of %d replays\n", len(figures), len(figures))
	type which struct {
		load, policy string
		delay        float64
		seed         uint64
	}
	done := map[which]Figure{}
	for _, f := range figures {
		if f.Predictions == "absent" {
			done[which{f.Load, f.Policy, f.DelaySeconds, f.Seed}] = f
		}
	}
	for i, f := range figures {
		if deaf(f) {
			figures[i] = done[which{f.Load, f.Policy, f.DelaySeconds, f.Seed}]
			figures[i].Predictions = f.Predictions
		}
	}
	return figures, cmp.Or(errs...)
}

func replay(f *Figure, jobs []simulator.Job, gather time.Duration) error {
	jobs, err := simulator.State(jobs, f.Predictions, rand.New(rand.NewPCG(f.Seed, 2)))
	if err != nil {
		return err
	}
	packer, err := simulator.NewPacker(f.Policy, simulator.PackerOptions{Seed: f.Seed})
	if err != nil {
		return err
	}
	result, err := simulator.Replay(jobs, packer, simulator.Options{
		Capacity: capacity, Delay: time.Duration(f.DelaySeconds * float64(time.Second)), Gather: gather,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", f.Load, err)
	}
	f.NodeHours, f.RatioToBound, f.PeakNodes = result.NodeHours, result.RatioToBound, result.PeakNodes
	f.DrainSeconds, f.TimerResetsPerNodeHour = result.DrainSeconds, result.TimerResetsPerNodeHour
	return nil
}

// group of replays that differ by their seeds alone.
type group struct {
	load, predictions string
	delay             float64
	policy            string
}

// report shows node-hours over the lower bound, and over the lower of first fit and MostAllocated in the same replay: of a recorded load as
// it was recorded, with the mean over the thinned ones and its 95% interval; of a generated one the mean over the seeds. At the end the means
// over the recorded loads.
func report(to io.Writer, figures []Figure) {
	bars := map[Figure]float64{}
	run := func(f Figure) Figure {
		return Figure{Load: f.Load, Predictions: f.Predictions, DelaySeconds: f.DelaySeconds, Seed: f.Seed}
	}
	for _, f := range figures {
		if f.Policy == "first-fit" || f.Policy == "most-allocated" {
			if bar, ok := bars[run(f)]; !ok || f.NodeHours < bar {
				bars[run(f)] = f.NodeHours
			}
		}
	}
	over, bound := map[group][]float64{}, map[group][]float64{}
	var order []group
	type summary struct {
		sum, worst float64
		count      int
	}
	recorded := map[group]*summary{}
	var summaries []group
	for _, f := range figures {
		g := group{f.Load, f.Predictions, f.DelaySeconds, f.Policy}
		if over[g] == nil {
			order = append(order, g)
		}
		ratio := f.NodeHours / bars[run(f)]
		over[g], bound[g] = append(over[g], ratio), append(bound[g], f.RatioToBound)
		if !f.Recorded || f.Seed > 0 {
			continue
		}
		for _, all := range []group{{predictions: f.Predictions, delay: f.DelaySeconds, policy: f.Policy}, {predictions: f.Predictions, policy: f.Policy}} {
			if recorded[all] == nil {
				recorded[all] = &summary{}
				summaries = append(summaries, all)
			}
			s := recorded[all]
			s.sum, s.count, s.worst = s.sum+ratio, s.count+1, max(s.worst, ratio)
		}
	}
	fmt.Fprintf(to, "%-18s %-9s %5s  %-15s %9s %9s  %s\n", "load", "stated", "delay", "policy", "/ bound", "/ lower", "mean over seeds")
	for _, g := range order {
		mean, half := interval(over[g])
		fmt.Fprintf(to, "%-18s %-9s %4.0fs  %-15s %9.3f %9.3f  %.3f ± %.3f\n", g.load, g.predictions, g.delay, g.policy, bound[g][0], over[g][0], mean, half)
	}
	if len(summaries) == 0 {
		return
	}
	fmt.Fprintf(to, "\nall recorded loads, over the lower of first fit and MostAllocated\n%-9s %5s  %-15s %7s %7s\n", "stated", "delay", "policy", "mean", "worst")
	for _, g := range summaries {
		delay := "both"
		if g.delay > 0 {
			delay = fmt.Sprintf("%.0fs", g.delay)
		}
		s := recorded[g]
		fmt.Fprintf(to, "%-9s %5s  %-15s %7.3f %7.3f\n", g.predictions, delay, g.policy, s.sum/float64(s.count), s.worst)
	}
}

// interval is the mean and half of the width of its 95% interval, by the normal distribution.
func interval(values []float64) (mean, half float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	if len(values) < 2 {
		return mean, 0
	}
	variance := 0.0
	for _, v := range values {
		variance += (v - mean) * (v - mean) / float64(len(values)-1)
	}
	return mean, 1.96 * math.Sqrt(variance/float64(len(values)))
}
