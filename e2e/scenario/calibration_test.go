package scenario

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
	"github.com/ebbtide-dev/ebbtide/simulator/report"
)

// calibrationLoad is 320 scans: a trickle, and a burst every half minute.
func calibrationLoad() []scans.Arrival {
	random := rand.New(rand.NewPCG(20260302, 7))
	var arrivals []scans.Arrival
	add := func(after time.Duration) {
		seconds := min(45, max(1, 8*math.Exp(0.9*random.NormFloat64())))
		arrivals = append(arrivals, scans.Arrival{After: after, Scan: scans.Scan{Seconds: math.Round(seconds*100) / 100}})
	}
	for range 120 {
		add(time.Duration(random.Float64() * float64(2*time.Minute)))
	}
	for burst := range 4 {
		for range 50 {
			add(time.Duration(10+30*burst)*time.Second + time.Duration(random.Float64()*float64(3*time.Second)))
		}
	}
	slices.SortFunc(arrivals, func(a, b scans.Arrival) int { return int(a.After - b.After) })
	for i := range arrivals {
		arrivals[i].Scan.ID = fmt.Sprintf("scan-%03d", i)
	}
	return arrivals
}

var overlay = flag.String("overlay", "", "write a picture of what TestCalibration saw over what was simulated to this file")

// The same scans on the cluster and in the simulator: node-hours and p95 wait within 10%.
func TestCalibration(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c, _ := startCluster(ctx, t, scans.Programs)
	if err := scans.Install(ctx, c); err != nil {
		t.Fatal(err)
	}
	var summary scans.Summary
	var observed *scans.Observer
	var began time.Time
	if err := whilePodsRun(ctx, c, func(ctx context.Context) (err error) {
		began = time.Now()
		summary, observed, err = scans.PlayOn(ctx, c, calibrationLoad(), began, os.Stderr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	summary.Print(os.Stderr)
	show := func(name string, times []time.Duration) {
		t.Logf("%-20s p5 %5.1f p50 %5.1f p95 %5.1f s, %d", name, scans.Percentile(times, 5), scans.Percentile(times, 50), scans.Percentile(times, 95), len(times))
	}
	show("pod created-bound", observed.BindingWaits())
	show("pod bound-running", observed.Between(func(p *scans.PodRecord) (time.Time, time.Time) { return p.Bound, p.Running }))
	show("node to first pod", observed.FirstBindings())
	show("node lingers", observed.Lingering())
	show("pod ended-job done", observed.JobEnds())
	predicted, err := predict(observed, calibrationLoad())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("node-seconds %.0f, simulated %.0f; wait p50 %.1f, simulated %.1f; p95 %.1f, simulated %.1f; peak nodes %d, simulated %d",
		summary.NodeSeconds, predicted.NodeHours*3600, summary.WaitSecondsP50, predicted.Wait.P50, summary.WaitSecondsP95, predicted.Wait.P95,
		summary.PeakNodes, predicted.PeakNodes)
	if *overlay != "" {
		s := predicted.Series
		step, shown := time.Duration(s.StepSeconds*float64(time.Second)), 25
		picture := report.Overlay("Nodes", "how many", began, step, observed.NodesOver(began, step, shown), s.Nodes[:shown])
		if err := os.WriteFile(*overlay, []byte(picture), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	within := func(what string, real, simulated float64) {
		if math.Abs(simulated-real) > 0.1*real {
			t.Errorf("%s: %.1f on the cluster, %.1f in the simulator", what, real, simulated)
		}
	}
	within("node-seconds", summary.NodeSeconds, predicted.NodeHours*3600)
	within("p95 wait", summary.WaitSecondsP95, predicted.Wait.P95)
}

// mean of at least one.
func mean(times []time.Duration) time.Duration {
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	return sum / time.Duration(len(times))
}

// predict plays the load in the simulator with the cluster's settings. How long pods and nodes take to start and nodes to go is taken from
// what was observed, step by step: the simulator is to find out what they make together.
func predict(o *scans.Observer, arrivals []scans.Arrival) (simulator.Outcome, error) {
	limits, errs := calendar.New(nil, scans.MaxReplicas, nil)
	if len(errs) > 0 {
		return simulator.Outcome{}, errs.ToAggregate()
	}
	// Uniform around the mean, from the least that was seen: few nodes make poor percentiles.
	around := func(times []time.Duration) simulator.Range {
		least := slices.Min(times)
		return simulator.Range{Min: least, Max: 2*mean(times) - least}
	}
	s := simulator.Defaults()
	s.Scaler, s.PollEvery = simulator.Ebbtide(limits, sizing.Parameters{MessagesPerReplica: 1}), 2*time.Second
	s.Pod = packing.Amounts{900, 2 << 30, 0, 1}
	s.Worker.Boot = around(o.Between(func(p *scans.PodRecord) (time.Time, time.Time) { return p.Bound, p.Running }))
	// A worker's own time around its scan, half before and half after it.
	var lengths []time.Duration
	for _, a := range arrivals {
		lengths = append(lengths, time.Duration(a.Scan.Seconds*float64(time.Second)))
	}
	half := (mean(o.Between(func(p *scans.PodRecord) (time.Time, time.Time) { return p.Running, p.Ended })) - mean(lengths)) / 2
	s.Worker.Connect = simulator.Range{Min: half, Max: half}
	leave := around(o.JobEnds())
	s.Worker.Leave = simulator.Range{Min: leave.Min + half, Max: leave.Max + half}
	s.Nodes = simulator.Nodes{
		Shapes: []simulator.Shape{{Name: "8x", Capacity: packing.Amounts{8000, 32 << 30, 0, 110}}}, Boot: around(o.FirstBindings()),
		BatchIdle: time.Second, BatchMax: 3 * time.Second, Delay: around(o.Lingering()),
	}
	var messages []simulator.Job
	for i, a := range arrivals {
		messages = append(messages, simulator.Job{Start: a.After, Run: lengths[i], Class: "scan", Requests: s.Pod})
	}
	return s.Run(messages)
}
