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

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
	"github.com/ebbtide-dev/ebbtide/simulator/report"
)

// calibrationLoad is 320 scans: a trickle, and a burst every half minute.
func calibrationLoad() []arrival {
	random := rand.New(rand.NewPCG(20260302, 7))
	var arrivals []arrival
	add := func(after time.Duration) {
		seconds := min(45, max(1, 8*math.Exp(0.9*random.NormFloat64())))
		arrivals = append(arrivals, arrival{after: after, scan: scan{Seconds: math.Round(seconds*100) / 100}})
	}
	for range 120 {
		add(time.Duration(random.Float64() * float64(2*time.Minute)))
	}
	for burst := range 4 {
		for range 50 {
			add(time.Duration(10+30*burst)*time.Second + time.Duration(random.Float64()*float64(3*time.Second)))
		}
	}
	slices.SortFunc(arrivals, func(a, b arrival) int { return int(a.after - b.after) })
	for i := range arrivals {
		arrivals[i].scan.ID = fmt.Sprintf("scan-%03d", i)
	}
	return arrivals
}

var overlay = flag.String("overlay", "", "write a picture of what TestCalibration saw over what was simulated to this file")

// The same scans on the cluster and in the simulator: node-hours and p95 wait within 10%.
func TestCalibration(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c, _ := startCluster(ctx, t, Programs)
	if err := Install(ctx, c); err != nil {
		t.Fatal(err)
	}
	var summary Summary
	var observed *observer
	var began time.Time
	if err := whilePodsRun(ctx, c, func(ctx context.Context) (err error) {
		began = time.Now()
		summary, observed, err = playOn(ctx, c, calibrationLoad(), began, os.Stderr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	summary.Print(os.Stderr)
	show := func(name string, times []time.Duration) {
		t.Logf("%-20s p5 %5.1f p50 %5.1f p95 %5.1f s, %d", name, percentile(times, 5), percentile(times, 50), percentile(times, 95), len(times))
	}
	show("pod created-bound", observed.bindingWaits())
	show("pod bound-running", observed.between(func(p *podRecord) (time.Time, time.Time) { return p.bound, p.running }))
	show("node to first pod", observed.firstBindings())
	show("node lingers", observed.lingering())
	show("pod ended-job done", observed.jobEnds())
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
		picture := report.Overlay("Nodes", "how many", began, step, observed.nodesOver(began, step, shown), s.Nodes[:shown])
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
func predict(o *observer, arrivals []arrival) (simulator.Outcome, error) {
	limits, errs := calendar.New(nil, maxReplicas, nil)
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
	s.Worker.Boot = around(o.between(func(p *podRecord) (time.Time, time.Time) { return p.bound, p.running }))
	// A worker's own time around its scan, half before and half after it.
	var scans []time.Duration
	for _, a := range arrivals {
		scans = append(scans, time.Duration(a.scan.Seconds*float64(time.Second)))
	}
	half := (mean(o.between(func(p *podRecord) (time.Time, time.Time) { return p.running, p.ended })) - mean(scans)) / 2
	s.Worker.Connect = simulator.Range{Min: half, Max: half}
	leave := around(o.jobEnds())
	s.Worker.Leave = simulator.Range{Min: leave.Min + half, Max: leave.Max + half}
	s.Nodes = simulator.Nodes{
		Shapes: []simulator.Shape{{Name: "8x", Capacity: packing.Amounts{8000, 32 << 30, 0, 110}}}, Boot: around(o.firstBindings()),
		BatchIdle: time.Second, BatchMax: 3 * time.Second, Delay: around(o.lingering()),
	}
	var messages []simulator.Job
	for i, a := range arrivals {
		messages = append(messages, simulator.Job{Start: a.after, Run: scans[i], Class: "scan", Requests: s.Pod})
	}
	return s.Run(messages)
}
