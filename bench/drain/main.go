// drain runs loads in the simulator with pods of one message, with workers that take several, with the rules of package draining and with KEDA at
// its best, and writes bench/out/drain-simulated.json. It says what the figures of make bench-drain come to with the times of an ordinary
// installation. Other sets (-set) compare only the rules with their peers, how long workers stay, surpluses, Karpenter's settings, room without pods,
// and faults.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/simulator"
)

// kind of workers, and of what scales and packs them.
type kind struct {
	name   string
	change func(*simulator.System)
}

// load is what is simulated, by seed.
type load struct {
	name          string
	queuePerClass bool
	make          func(seed uint64) simulator.Trace
}

// figure is the mean of a kind on a load over all seeds.
type figure struct {
	Load    string  `json:"load"`
	Kind    string  `json:"kind"`
	Cost    float64 `json:"cost"`
	Jobs    float64 `json:"jobsPerMessage"`
	Pods    float64 `json:"podHours"`
	Drains  float64 `json:"drains"`
	Stopped float64 `json:"drainsStopped"`
	Yields  float64 `json:"yields"`
	// Waits in seconds.
	P50  float64 `json:"waitP50Seconds"`
	P95  float64 `json:"waitP95Seconds"`
	Mean float64 `json:"waitMeanSeconds"`
	// OverOne is the mean over seeds of the cost over that of one message a pod, less one, and Interval half of its 95% interval.
	OverOne  float64 `json:"costOverOne"`
	Interval float64 `json:"interval"`
	// MeanOfOne is the mean wait as a share of that of one message a pod.
	MeanOfOne    float64 `json:"waitMeanOfOne"`
	MeanInterval float64 `json:"waitMeanInterval"`
	// Evicted pods and Crashed scans, whose messages were delivered again, and messages that nobody took in the end.
	Evicted  float64 `json:"evicted"`
	Crashed  float64 `json:"crashed"`
	Unserved float64 `json:"unserved"`
}

func main() {
	out := flag.String("out", "bench/out/drain-simulated.json", "where the figures go")
	seeds := flag.Uint64("seeds", 5, "how many seeds of each load")
	poll := flag.Duration("poll", 5*time.Second, "KEDA's pollingInterval")
	only := flag.String("loads", "", "run only loads with one of these names, separated by commas")
	weeks := flag.Int("weeks", 4, "how many office weeks")
	set := flag.String("set", "rules", "what is compared: "+strings.Join(sets, ", "))
	var traces []string
	flag.Func("trace", "NAME=FILE: a recorded load too, with a queue for each class; NAME*N=FILE: each job N times, within an hour; repeat for several", func(text string) error {
		traces = append(traces, text)
		return nil
	})
	flag.Parse()
	if err := run(*out, *set, *seeds, *poll, *weeks, *only, traces); err != nil {
		log.Fatal(err)
	}
}

func run(out, set string, seeds uint64, poll time.Duration, weeks int, only string, traces []string) error {
	compared, err := kinds(set, poll)
	if err != nil {
		return err
	}
	chosen, err := loads(weeks, only, traces)
	if err != nil {
		return err
	}
	var figures []figure
	for _, l := range chosen {
		outcomes := make([][]simulator.Outcome, len(compared))
		var work errgroup.Group
		work.SetLimit(runtime.GOMAXPROCS(0))
		for i, k := range compared {
			outcomes[i] = make([]simulator.Outcome, seeds)
			for seed := range seeds {
				work.Go(func() error {
					trace := l.make(seed)
					s := simulator.Defaults()
					s.Seed, s.Origin, s.QueuePerClass = seed, trace.Origin, l.queuePerClass
					k.change(&s)
					o, err := s.Run(trace.Jobs)
					o.Series = simulator.Series{} // it is not needed, and large
					outcomes[i][seed] = o
					return err
				})
			}
		}
		if err := work.Wait(); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		fmt.Printf("%-46s %9s %15s %8s %8s %8s %13s %8s %11s %7s %8s\n", l.name, "cost", "beside 1st", "p50", "mean", "p95", "mean of 1st", "jobs/msg", "drains/back", "yields", "evicted")
		for i, k := range compared {
			f := figureOf(l, k, outcomes[i], outcomes[0])
			fmt.Printf("  %-44s %9.2f %+7.1f%% ± %4.1f %7.1fs %7.1fs %7.1fs %6.0f%% ± %3.0f %8.3f %6.0f/%-4.0f %7.0f %8.0f\n", f.Kind, f.Cost, 100*f.OverOne, 100*f.Interval,
				f.P50, f.Mean, f.P95, 100*f.MeanOfOne, 100*f.MeanInterval, f.Jobs, f.Drains, f.Stopped, f.Yields, f.Evicted)
			if f.Unserved > 0 {
				return fmt.Errorf("%s, %s: %.1f messages were never taken", l.name, k.name, f.Unserved)
			}
			figures = append(figures, f)
		}
	}
	text, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, append(text, '\n'), 0o644)
}

func figureOf(l load, k kind, outcomes, one []simulator.Outcome) figure {
	o := simulator.Mean(outcomes)
	f := figure{
		Load: l.name, Kind: k.name, Cost: o.Cost, Pods: o.PodHours, P50: o.Wait.P50, P95: o.Wait.P95, Mean: o.Wait.Mean,
		Drains: float64(o.Drains.Begun), Stopped: float64(o.Drains.Stopped), Yields: float64(o.Drains.Yields),
	}
	over, mean := make([]float64, len(outcomes)), make([]float64, len(outcomes))
	for i := range outcomes {
		n := float64(len(outcomes))
		f.Evicted, f.Crashed, f.Unserved = f.Evicted+float64(outcomes[i].Evicted)/n, f.Crashed+float64(outcomes[i].Crashes)/n, f.Unserved+float64(outcomes[i].Unserved)/n
		mean[i] = outcomes[i].Wait.Mean / one[i].Wait.Mean
		f.Jobs += float64(outcomes[i].Jobs) / float64(outcomes[i].Messages*len(outcomes))
		over[i] = outcomes[i].Cost/one[i].Cost - 1
	}
	f.OverOne, f.Interval = interval(over)
	f.MeanOfOne, f.MeanInterval = interval(mean)
	return f
}

// interval is the mean of values and half of its 95% interval.
func interval(values []float64) (mean, half float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += v / n
	}
	square := 0.0
	for _, v := range values {
		square += (v - mean) * (v - mean)
	}
	return mean, 1.96 * math.Sqrt(square/max(1, n-1)/n)
}
