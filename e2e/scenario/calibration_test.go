package scenario

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
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

var (
	overlay     = flag.String("overlay", "", "write a picture of what TestCalibration saw over what was simulated to this file")
	updateTimes = flag.Bool("update-start-times", false, "let TestCalibration keep what its run took to start, for other runs")
)

// batchIdle of the cluster's Karpenter.
const batchIdle = time.Second

// otherRun is what an earlier run took to start.
const otherRun = "testdata/start-times.json"

// The same scans on the cluster and in the simulator: node-hours within 10% and p95 wait within 15%, some two seconds. Where the simulator
// is told only what another run took to start, which may have been on a faster machine, node-hours are within 15%.
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
	var poll time.Duration
	if err := whilePodsRun(ctx, c, func(ctx context.Context) (err error) {
		began = time.Now()
		before := polls(ctx, t, c)
		summary, observed, err = scans.PlayOn(ctx, c, calibrationLoad(), began, os.Stderr)
		poll = time.Duration(float64(time.Since(began)) / (polls(ctx, t, c) - before))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	summary.Print(os.Stderr)
	show := func(name string, times []time.Duration) {
		t.Logf("%-20s p5 %5.1f p50 %5.1f p95 %5.1f s, %d", name, scans.Percentile(times, 5), scans.Percentile(times, 50), scans.Percentile(times, 95), len(times))
	}
	t.Logf("KEDA polled every %.1f s", poll.Seconds())
	show("job-pod created", observed.PodCreations())
	show("pod created-bound", observed.BindingWaits())
	show("pod bound-running", observed.Between(func(p *scans.PodRecord) (time.Time, time.Time) { return p.Bound, p.Running }))
	show("pod waits-node", observed.NodeRequests())
	show("node to first pod", observed.NodeStarts())
	show("node lingers", observed.Lingering())
	show("pod ended-job done", observed.JobEnds())
	times := startTimesOf(observed, calibrationLoad(), poll)
	if *updateTimes {
		if err := scans.WriteJSON(otherRun, times); err != nil {
			t.Fatal(err)
		}
	}
	var others startTimes
	text, err := os.ReadFile(otherRun)
	if err == nil {
		err = json.Unmarshal(text, &others)
	}
	if err != nil {
		t.Fatal(err)
	}
	predicted := predict(t, summary, "with what this run took to start", times)
	within(t, "node-seconds", summary.NodeSeconds, predicted.NodeHours*3600, 0.1)
	within(t, "p95 wait", summary.WaitSecondsP95, predicted.Wait.P95, 0.15)
	// A prediction of a run that is still to come knows nothing of it. How long messages wait depends on how fast the machine starts pods.
	other := predict(t, summary, "with what another run took to start", others)
	within(t, "node-seconds with what another run took to start", summary.NodeSeconds, other.NodeHours*3600, 0.15)
	if *overlay != "" {
		s := predicted.Series
		step, shown := time.Duration(s.StepSeconds*float64(time.Second)), 25
		picture := report.Overlay("Nodes", "how many", began, step, observed.NodesOver(began, step, shown), s.Nodes[:shown])
		if err := os.WriteFile(*overlay, []byte(picture), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// polls is how often KEDA has asked the scaler for a metric.
func polls(ctx context.Context, t *testing.T, c *cluster.Cluster) float64 {
	t.Helper()
	return sum(string(get(ctx, t, nil, c.KEDAMetricsURL())), `keda_grpc_client_handled_total{grpc_code="OK",grpc_method="GetMetrics"`)
}

// predict simulates the run, and logs it beside what was measured.
func predict(t *testing.T, summary scans.Summary, name string, times startTimes) simulator.Outcome {
	t.Helper()
	predicted, err := simulate(times, calibrationLoad())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: node-seconds %.0f, simulated %.0f; wait p50 %.1f, simulated %.1f; p95 %.1f, simulated %.1f; peak nodes %d, simulated %d", name,
		summary.NodeSeconds, predicted.NodeHours*3600, summary.WaitSecondsP50, predicted.Wait.P50, summary.WaitSecondsP95, predicted.Wait.P95,
		summary.PeakNodes, predicted.PeakNodes)
	return predicted
}

// within reports what the simulator is off by more than a share of what was measured.
func within(t *testing.T, what string, real, simulated, share float64) {
	t.Helper()
	if math.Abs(simulated-real) > share*real {
		t.Errorf("%s: %.1f on the cluster, %.1f in the simulator", what, real, simulated)
	}
}

// mean of at least one.
func mean(times []time.Duration) time.Duration {
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	return sum / time.Duration(len(times))
}

// startTimes are how long the steps take in which workers and nodes start and end, as a run showed them.
type startTimes struct {
	// Poll is from one poll of KEDA to the next. Boot is from a job's creation until its worker runs, less what its pod waited for room; NodeBoot
	// from when Karpenter may decide to its node's first pod; Linger from a node's last pod to its removal; Finish from a pod's end until its
	// Job is finished.
	Poll                           time.Duration
	Boot, NodeBoot, Linger, Finish simulator.Range
	// Around is a worker's own time before its scan, and as much after it.
	Around time.Duration
}

// startTimesOf works out what an observed run of a load shows.
func startTimesOf(o *scans.Observer, arrivals []scans.Arrival, poll time.Duration) startTimes {
	// Uniform around the mean, from the least that was seen: few nodes make poor percentiles.
	around := func(times []time.Duration) simulator.Range {
		least := slices.Min(times)
		return simulator.Range{Min: least, Max: 2*mean(times) - least}
	}
	var lengths []time.Duration
	for _, a := range arrivals {
		lengths = append(lengths, time.Duration(a.Scan.Seconds*float64(time.Second)))
	}
	ran := o.Between(func(p *scans.PodRecord) (time.Time, time.Time) { return p.Running, p.Ended })
	boot, created := around(o.Between(func(p *scans.PodRecord) (time.Time, time.Time) { return p.Bound, p.Running })), mean(o.PodCreations())
	// Karpenter decides when no pod has come for batchIdle, and then takes its time.
	nodeBoot, decided := around(o.NodeStarts()), max(0, mean(o.NodeRequests())-batchIdle)
	nodeBoot = simulator.Range{Min: nodeBoot.Min + decided, Max: nodeBoot.Max + decided}
	return startTimes{
		Poll: poll, Boot: simulator.Range{Min: boot.Min + created, Max: boot.Max + created},
		NodeBoot: nodeBoot, Linger: around(o.Lingering()), Finish: around(o.JobEnds()),
		Around: (mean(ran) - mean(lengths)) / 2,
	}
}

// simulate replays the load with the cluster's settings, and with how long workers and nodes take to start and end: the
// simulator is to find out what these make together.
func simulate(times startTimes, arrivals []scans.Arrival) (simulator.Outcome, error) {
	limits, errs := calendar.New(nil, scans.MaxReplicas, nil)
	if len(errs) > 0 {
		return simulator.Outcome{}, errs.ToAggregate()
	}
	s := simulator.Defaults()
	s.Scaler, s.PollEvery = simulator.Ebbtide(limits, sizing.Parameters{MessagesPerReplica: 1}), times.Poll
	s.Pod = packing.Amounts{900, 2 << 30, 0, 1}
	s.Worker.Boot = times.Boot
	s.Worker.Connect = simulator.Range{Min: times.Around, Max: times.Around}
	s.Worker.Leave = simulator.Range{Min: times.Finish.Min + times.Around, Max: times.Finish.Max + times.Around}
	s.Nodes = simulator.Nodes{
		Shapes: []simulator.Shape{{Name: "8x", Capacity: packing.Amounts{8000, 32 << 30, 0, 110}}}, Boot: times.NodeBoot,
		BatchIdle: batchIdle, BatchMax: 3 * time.Second, Delay: times.Linger,
	}
	var messages []simulator.Job
	for _, a := range arrivals {
		messages = append(messages, simulator.Job{
			Start: a.After, Run: time.Duration(a.Scan.Seconds * float64(time.Second)), Class: "scan", Requests: s.Pod,
		})
	}
	return s.Run(messages)
}
