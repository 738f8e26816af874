// drain plays bursts that ebb in the simulator with workers that take one message or go on, by age or not, and writes
// bench/out/drain-simulated.json. It says what the figures of make bench-drain come to with the times of an ordinary installation.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// kind of workers.
type kind struct {
	name   string
	worker simulator.Worker
}

// figure is the mean of one kind of workers over all seeds.
type figure struct {
	Workers     string  `json:"workers"`
	Jobs        float64 `json:"jobs"`
	NodeSeconds float64 `json:"nodeSeconds"`
	PodSeconds  float64 `json:"podSeconds"`
	// WaitP50 and WaitP95 in seconds.
	WaitP50 float64 `json:"waitP50Seconds"`
	WaitP95 float64 `json:"waitP95Seconds"`
	// NodeSecondsOverOne is the mean over seeds of node-seconds over those of one message a worker, less one, and Interval half of its
	// 95% interval.
	NodeSecondsOverOne float64 `json:"nodeSecondsOverOne"`
	Interval           float64 `json:"interval"`
}

func main() {
	out := flag.String("out", "bench/out/drain-simulated.json", "where the figures go")
	seeds := flag.Uint64("seeds", 20, "how many seeds of the load")
	poll := flag.Duration("poll", simulator.Defaults().PollEvery, "KEDA's pollingInterval")
	flag.Parse()
	if err := run(*out, *seeds, *poll); err != nil {
		log.Fatal(err)
	}
}

func run(out string, seeds uint64, poll time.Duration) error {
	limits, errs := calendar.New(nil, 200, nil)
	if len(errs) > 0 {
		return errs.ToAggregate()
	}
	one := simulator.Defaults().Worker
	kinds := []kind{{"one message", one}}
	for _, idle := range []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute} {
		for _, oldest := range []bool{false, true} {
			w := one
			w.MaxMessages, w.IdleTimeout, w.OldestFirst = 0, idle, oldest
			name := fmt.Sprintf("go on, idle %s", idle)
			if oldest {
				name += ", by age"
			}
			kinds = append(kinds, kind{name, w})
		}
	}
	for _, lifetime := range []time.Duration{5 * time.Minute, 15 * time.Minute} {
		w := one
		w.MaxMessages, w.IdleTimeout, w.OldestFirst, w.MaxLifetime = 0, 30*time.Second, true, lifetime
		kinds = append(kinds, kind{fmt.Sprintf("go on, idle 30s, by age, lifetime %s", lifetime), w})
	}
	var figures []figure
	var base []float64
	for _, k := range kinds {
		f := figure{Workers: k.name}
		var over []float64
		for seed := range seeds {
			s := simulator.Defaults()
			s.PollEvery = poll
			s.Scaler, s.Worker, s.Seed = simulator.Ebbtide(limits, sizing.Parameters{MessagesPerReplica: 1}), k.worker, seed
			o, err := s.Run(ebb(rand.New(rand.NewPCG(seed, 0))))
			if err != nil {
				return err
			}
			n := float64(seeds)
			f.Jobs += float64(o.Jobs) / n
			f.NodeSeconds += o.NodeHours * 3600 / n
			f.PodSeconds += o.PodHours * 3600 / n
			f.WaitP50 += o.Wait.P50 / n
			f.WaitP95 += o.Wait.P95 / n
			if len(base) <= int(seed) {
				base = append(base, o.NodeHours)
			}
			over = append(over, o.NodeHours/base[seed]-1)
		}
		f.NodeSecondsOverOne, f.Interval = interval(over)
		fmt.Printf("%-38s %5.0f jobs  %6.0f node-s (%+5.1f%% ± %.1f)  %6.0f pod-s  wait %5.1f / %5.1f s\n",
			f.Workers, f.Jobs, f.NodeSeconds, 100*f.NodeSecondsOverOne, 100*f.Interval, f.PodSeconds, f.WaitP50, f.WaitP95)
		figures = append(figures, f)
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

// ebb is a burst within a minute, and then fewer and fewer scans for half an hour. They take a minute in the median.
func ebb(random *rand.Rand) []simulator.Job {
	const messages, burst, fades = 600, 60.0, 480.0
	jobs := make([]simulator.Job, messages)
	for i := range jobs {
		at := burst * random.Float64()
		if i >= messages/3 {
			at = burst + min(4*fades, fades*random.ExpFloat64())
		}
		seconds := min(600, max(5, 60*math.Exp(0.8*random.NormFloat64())))
		jobs[i] = simulator.Job{
			Start: time.Duration(at * float64(time.Second)), Run: time.Duration(seconds * float64(time.Second)), Class: "scan",
			Requests: packing.Amounts{1000, 2 << 30, 0, 1},
		}
	}
	slices.SortFunc(jobs, func(a, b simulator.Job) int { return int(a.Start - b.Start) })
	return jobs
}
