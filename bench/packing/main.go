// packing replays loads on a fleet with the scheduler plugin's own packing code and with models of what others do, and writes
// bench/out/packing.json.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// Figure is one replay.
type Figure struct {
	Load                   string  `json:"load"`
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

func main() {
	trace := flag.String("trace", "", "a CSV of start,seconds,class[,milliCPU,memoryMiB] to replay too")
	out := flag.String("out", "bench/out/packing.json", "where the figures go")
	seeds := flag.Uint64("seeds", 5, "how many seeds of each load")
	flag.Parse()
	if err := run(*trace, *out, *seeds); err != nil {
		log.Fatal(err)
	}
}

type load struct {
	name string
	make func(*rand.Rand) []simulator.Job
}

func run(trace, out string, seeds uint64) error {
	loads := []load{{"heavy-tailed", simulator.HeavyTailed}, {"bursty", simulator.Bursty}}
	if trace != "" {
		file, err := os.Open(trace)
		if err != nil {
			return err
		}
		defer file.Close()
		recorded, err := simulator.ReadCSV(file)
		if err != nil {
			return fmt.Errorf("%s: %w", trace, err)
		}
		loads = append(loads, load{filepath.Base(trace), func(*rand.Rand) []simulator.Job { return recorded.Jobs }})
	}
	figures, err := replayAll(plan(loads, seeds), loads, 3)
	if err != nil {
		return err
	}
	// How far apart two runs are that differ by nothing but chance.
	again := slices.DeleteFunc(slices.Clone(figures), func(f Figure) bool { return f.Policy != "most-allocated" || f.Predictions != "absent" })
	again, err = replayAll(again, loads, 4)
	if err != nil {
		return err
	}
	for i := range again {
		again[i].Policy = "other ties"
	}
	printFigures(slices.Concat(figures, again))
	text, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, append(text, '\n'), 0o644)
}

// plan is all replays, their results still to come.
func plan(loads []load, seeds uint64) []Figure {
	var figures []Figure
	for _, l := range loads {
		for _, predictions := range simulator.Predictions() {
			for _, delay := range []float64{45, 600} {
				for _, policy := range simulator.Packers() {
					for seed := range seeds {
						figures = append(figures, Figure{
							Load: l.name, Predictions: predictions, DelaySeconds: delay, Policy: policy, Seed: seed,
						})
					}
				}
			}
		}
	}
	return figures
}

// replayAll fills in the results, on all cores. Ties that policies leave to chance are broken by a stream of random numbers of that name.
func replayAll(figures []Figure, loads []load, ties uint64) ([]Figure, error) {
	makers := map[string]func(*rand.Rand) []simulator.Job{}
	for _, l := range loads {
		makers[l.name] = l.make
	}
	errs := make([]error, len(figures))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				errs[i] = replay(&figures[i], makers[figures[i].Load], ties)
			}
		})
	}
	for i := range figures {
		if i%20 == 0 {
			fmt.Fprintf(os.Stderr, "\r%d of %d replays", i, len(figures))
		}
		next <- i
	}
	close(next)
	workers.Wait()
	fmt.Fprintf(os.Stderr, "\r%d of %d replays\n", len(figures), len(figures))
	return figures, cmp.Or(errs...)
}

func replay(f *Figure, load func(*rand.Rand) []simulator.Job, ties uint64) error {
	jobs, err := simulator.State(load(rand.New(rand.NewPCG(f.Seed, 1))), f.Predictions, rand.New(rand.NewPCG(f.Seed, 2)))
	if err != nil {
		return err
	}
	packer, err := simulator.NewPacker(f.Policy, simulator.PackerOptions{Seed: f.Seed + ties<<32})
	if err != nil {
		return err
	}
	result, err := simulator.Replay(jobs, packer, simulator.Options{
		Capacity: capacity, Delay: time.Duration(f.DelaySeconds * float64(time.Second)),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", f.Load, err)
	}
	f.NodeHours, f.RatioToBound, f.PeakNodes = result.NodeHours, result.RatioToBound, result.PeakNodes
	f.DrainSeconds, f.TimerResetsPerNodeHour = result.DrainSeconds, result.TimerResetsPerNodeHour
	return nil
}

// print shows the mean over the seeds with its 95% interval, and the worst seed beside MostAllocated; "other ties" is MostAllocated
// again, its ties broken otherwise.
func printFigures(figures []Figure) {
	type group struct {
		load, predictions string
		delay             float64
		policy            string
	}
	ratios, most := map[group][]float64{}, map[Figure]float64{}
	var order []group
	run := func(f Figure) Figure {
		return Figure{Load: f.Load, Predictions: f.Predictions, DelaySeconds: f.DelaySeconds, Seed: f.Seed}
	}
	for _, f := range figures {
		if f.Policy == "most-allocated" {
			most[run(f)] = f.NodeHours
		}
	}
	worst := map[group]float64{}
	for _, f := range figures {
		g := group{f.Load, f.Predictions, f.DelaySeconds, f.Policy}
		if ratios[g] == nil {
			order = append(order, g)
		}
		ratios[g] = append(ratios[g], f.RatioToBound)
		worst[g] = max(worst[g], f.NodeHours/most[run(f)])
	}
	fmt.Printf("%-18s %-9s %5s  %-15s %-16s %s\n", "load", "stated", "delay", "policy", "over the bound", "worst seed over most-allocated")
	for _, g := range order {
		mean, half := interval(ratios[g])
		fmt.Printf("%-18s %-9s %4.0fs  %-15s %.3f ± %.3f    %.3f\n", g.load, g.predictions, g.delay, g.policy, mean, half, worst[g])
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
