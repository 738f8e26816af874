// drain simulates workloads with pods of one message, with workers that take several, with the rules of package draining and with KEDA at its
// best, and writes bench/out/drain-simulated.json. It says what the figures of make bench-drain come to with the times of an ordinary
// installation.
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
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
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
}

func main() {
	out := flag.String("out", "bench/out/drain-simulated.json", "where the figures go")
	seeds := flag.Uint64("seeds", 5, "how many seeds of each load")
	poll := flag.Duration("poll", 5*time.Second, "KEDA's pollingInterval")
	only := flag.String("loads", "", "run only workloads with one of these names, separated by commas")
	var traces []string
	flag.Func("trace", "NAME=FILE: a recorded load too, with a queue for each class; repeat for several", func(text string) error {
		traces = append(traces, text)
		return nil
	})
	flag.Parse()
	if err := run(*out, *seeds, *poll, *only, traces); err != nil {
		log.Fatal(err)
	}
}

// kinds are what is compared; the first is what the others are beside.
func kinds(poll time.Duration) ([]kind, error) {
	limits, errs := calendar.New(nil, 100_000, nil)
	if len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	accurate, err := keda.NewStrategy("accurate")
	if err != nil {
		return nil, err
	}
	base := func(s *simulator.System) {
		s.Scaler, s.PollEvery, s.Worker.IdleTimeout = simulator.Ebbtide(limits, sizing.Parameters{MessagesPerReplica: 1}), poll, 5*time.Second
	}
	goOn := func(idle time.Duration) func(*simulator.System) {
		return func(s *simulator.System) {
			s.Worker.MaxMessages, s.Worker.IdleTimeout, s.Worker.OldestFirst = 0, idle, true
		}
	}
	peer := func(s *simulator.System) {
		s.Scaler, s.Strategy, s.Packer = simulator.RabbitMQ(false), accurate, "most-allocated"
	}
	with := func(change func(*simulator.Rules)) func(*simulator.System) {
		return func(s *simulator.System) {
			goOn(10 * time.Second)(s)
			s.Rules = simulator.ThreeRules()
			change(s.Rules)
		}
	}
	return []kind{
		{"one message a pod", base},
		{"KEDA accurate, MostAllocated", peer},
		{"the same, several messages", func(s *simulator.System) { peer(s); goOn(5 * time.Second)(s) }},
		{"several messages, idle 30s", goOn(30 * time.Second)},
		{"the three rules", with(func(*simulator.Rules) {})},
		{"without staying", with(func(r *simulator.Rules) { r.Stay.Longest = r.Stay.AfterWork })},
		{"without giving way", with(func(r *simulator.Rules) { r.GiveWay = false })},
		{"without drains", with(func(r *simulator.Rules) { r.Every = 0 })},
	}, nil
}

func loads(only string, traces []string) ([]load, error) {
	prague, err := calendar.LoadZone("Europe/Prague")
	if err != nil {
		return nil, err
	}
	weeks := func(seed uint64) simulator.Trace {
		return simulator.Weeks(rand.New(rand.NewPCG(seed, 0)), 4, 2000, prague)
	}
	all := []load{
		{"a burst that ebbs", false, func(seed uint64) simulator.Trace { return simulator.Trace{Jobs: ebb(rand.New(rand.NewPCG(seed, 0)))} }},
		{"office weeks (1 queue)", false, weeks},
		{"office weeks (5 queues)", true, weeks},
	}
	for _, text := range traces {
		name, path, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("-trace %s: want NAME=FILE", text)
		}
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		trace, err := simulator.ReadCSV(file)
		_ = file.Close() // it was only read
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, load{name, true, func(uint64) simulator.Trace { return trace }})
	}
	if only != "" {
		names := strings.Split(only, ",")
		all = slices.DeleteFunc(all, func(l load) bool { return !slices.Contains(names, l.name) })
	}
	return all, nil
}

func run(out string, seeds uint64, poll time.Duration, only string, traces []string) error {
	compared, err := kinds(poll)
	if err != nil {
		return err
	}
	played, err := loads(only, traces)
	if err != nil {
		return err
	}
	var figures []figure
	for _, l := range played {
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
					compared[0].change(&s)
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
		fmt.Printf("%-30s %9s %14s %8s %8s %8s %9s %14s %7s\n", l.name, "cost", "beside one", "p50", "mean", "p95", "jobs/msg", "drains/back", "yields")
		for i, k := range compared {
			f := figureOf(l, k, outcomes[i], outcomes[0])
			fmt.Printf("  %-28s %9.2f %+7.1f%% ± %3.1f %7.1fs %7.1fs %7.1fs %9.3f %7.0f/%-6.0f %7.0f\n",
				f.Kind, f.Cost, 100*f.OverOne, 100*f.Interval, f.P50, f.Mean, f.P95, f.Jobs, f.Drains, f.Stopped, f.Yields)
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
	over := make([]float64, len(outcomes))
	for i := range outcomes {
		f.Jobs += float64(outcomes[i].Jobs) / float64(outcomes[i].Messages*len(outcomes))
		over[i] = outcomes[i].Cost/one[i].Cost - 1
	}
	f.OverOne, f.Interval = interval(over)
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
