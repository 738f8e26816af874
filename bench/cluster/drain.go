package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// drainResult is what one kind of worker made of a load.
type drainResult struct {
	Load    string `json:"load"`
	Workers string `json:"workers"`
	// Seed of the load, the same for all kinds.
	Seed     uint64 `json:"seed"`
	Messages int    `json:"messages"`
	Jobs     int    `json:"jobs"`
	// Repeated messages have more than one result: a scan was cut short.
	Repeated int `json:"repeated"`
	// NodeSeconds until the last node was gone, and PodSeconds from binding to end.
	NodeSeconds float64 `json:"nodeSeconds"`
	PodSeconds  float64 `json:"podSeconds"`
	PeakNodes   int     `json:"peakNodes"`
	// DrainSeconds from the last pod's end to the last node's removal.
	DrainSeconds float64 `json:"drainSeconds"`
	// Waits from the publishing of a message to the start of its scan.
	WaitP50Seconds  float64 `json:"waitP50Seconds"`
	WaitMeanSeconds float64 `json:"waitMeanSeconds"`
	WaitP95Seconds  float64 `json:"waitP95Seconds"`
}

// drainKind is a kind of workers, with what scales and places them.
type drainKind struct {
	name string
	args []string
	// change of the ScaledJob; nil for none.
	change func(*scans.ScanJob)
	// drains has the scheduler drain its nodes, and its workers hear it.
	drains bool
}

// drainKinds are the kinds of workers; the first is what the others are compared with. Times are to those of the scans, 5 s in the median, as
// minutes are in earnest: an idle timeout of 30 s is one of 3 s, a stay of 2 minutes one of 10 s.
func drainKinds() []drainKind {
	keda := func(j *scans.ScanJob) {
		j.Builtin, j.Strategy, j.ScaledJobMax, j.Scheduler = "amqp", "accurate", j.MaxReplicas, "most-allocated"
	}
	return []drainKind{
		{name: "one-message", args: []string{"--max-messages", "1", "--idle-timeout", "3s"}},
		{name: "go-on", args: []string{"--max-messages", "0", "--idle-timeout", "3s"}},
		{name: "three-rules", args: []string{"--max-messages", "0", "--idle-timeout", "1s", "--stay", "10s"}, drains: true},
		{name: "keda-one-message", args: []string{"--max-messages", "1", "--idle-timeout", "1s"}, change: keda},
		{name: "keda-go-on", args: []string{"--max-messages", "0", "--idle-timeout", "1s", "--priority-by-age=false"}, change: keda},
	}
}

func drainKindNames() []string {
	var names []string
	for _, k := range drainKinds() {
		names = append(names, k.name)
	}
	return names
}

// drainLoads are the loads by name.
var drainLoads = map[string]func(messages int, random *rand.Rand) []scans.Arrival{"burst": ebb, "morning": officeMorning}

// ebb is a burst within some seconds, and then fewer and fewer scans.
func ebb(messages int, random *rand.Rand) []scans.Arrival {
	const burst, fades = 5.0, 35.0 // seconds
	arrivals := make([]scans.Arrival, messages)
	for i := range arrivals {
		at := burst * random.Float64()
		if i >= messages/3 {
			at = burst + min(3*fades, fades*random.ExpFloat64())
		}
		arrivals[i] = arrivalAt(at, random)
	}
	return arrivals
}

// officeMorning is a load that rises for two minutes, from nothing, and falls for one.
func officeMorning(messages int, random *rand.Rand) []scans.Arrival {
	const rises, falls = 120.0, 60.0 // seconds
	arrivals := make([]scans.Arrival, messages)
	for i := range arrivals {
		// The square root of a uniform number rises like the load.
		at := rises * math.Sqrt(random.Float64())
		if random.Float64() < falls/(rises+falls) {
			at = rises + falls*(1-math.Sqrt(random.Float64()))
		}
		arrivals[i] = arrivalAt(at, random)
	}
	return arrivals
}

func arrivalAt(seconds float64, random *rand.Rand) scans.Arrival {
	takes := min(20, max(1, 5*math.Exp(0.6*random.NormFloat64())))
	return scans.Arrival{After: time.Duration(seconds * float64(time.Second)), Scan: scans.Scan{Seconds: math.Round(100*takes) / 100}}
}

// runDrain runs the same load with each of the named kinds of workers at the same time, each with its own queue and Karpenter's nodes for it alone; once
// for each load and seed.
func runDrain(
	ctx context.Context, c *cluster.Cluster, kinds, loads []string, messages int, seed uint64, runs int, out io.Writer,
) (results []drainResult, err error) {
	clientset, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return nil, err
	}
	connection, err := amqp.Dial(c.Broker.AMQPURL("/"))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	podsCtx, stopPods := context.WithCancel(ctx)
	podsDone := make(chan error, 1)
	go func() { podsDone <- scans.RunPods(podsCtx, c, nil) }()
	defer func() {
		stopPods()
		err = errors.Join(err, <-podsDone)
	}()
	for _, load := range loads {
		for run := range runs {
			seed := seed + uint64(run)
			var together errgroup.Group
			begin := time.Now().Add(15 * time.Second) // KEDA takes up the ScaledJobs: the first messages must not wait for that
			of := make([]drainResult, len(kinds))
			for i, name := range kinds {
				kind := drainKinds()[slices.IndexFunc(drainKinds(), func(k drainKind) bool { return k.name == name })]
				together.Go(func() (err error) {
					of[i], err = runDrainKind(ctx, c, clientset, connection, kind, load, messages, seed, begin)
					if err != nil {
						err = fmt.Errorf("%s, %s: %w", load, name, err)
					}
					return err
				})
			}
			if err := together.Wait(); err != nil {
				return results, err
			}
			for _, r := range of {
				fmt.Fprintf(out, "%+v\n", r)
			}
			results = append(results, of...)
		}
	}
	return results, nil
}

// runDrainKind sends the load to one kind of workers from begin on, and takes their ScaledJob away when the last node is gone.
func runDrainKind(
	ctx context.Context, c *cluster.Cluster, clientset kubernetes.Interface, connection *amqp.Connection, kind drainKind,
	load string, messages int, seed uint64, begin time.Time,
) (drainResult, error) {
	queues := scans.Topology{Scans: kind.name, Results: kind.name + "-results", Dead: kind.name + "-dead"}
	job := scans.ScanJob{
		Namespace: kind.name, Topology: queues, KeepNodes: !kind.drains,
		Image: "ebbtide-worker", MaxReplicas: scans.MaxReplicas, CPU: "900m", Memory: "2Gi", Boot: []string{"e2e-boot", "1s", "4s"},
		WorkerArgs: append([]string{
			"--queue", queues.Scans, "--result-exchange", queues.Results, "--dead-letter-exchange", queues.Dead, "--summary-file", "/dev/termination-log",
		}, kind.args...),
	}
	if kind.drains {
		job.WorkerArgs = append(job.WorkerArgs, "--scheduler", c.SchedulerWorkers())
	}
	if kind.change != nil {
		kind.change(&job)
	}
	if err := scans.InstallWith(ctx, c, job); err != nil {
		return drainResult{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	observed := scans.NewObserver(kind.name, scans.NodePoolLabel, kind.name)
	if err := observed.Watch(ctx, clientset); err != nil {
		return drainResult{}, err
	}
	settled, err := scans.CollectFrom(connection, queues.Ends())
	if err != nil {
		return drainResult{}, err
	}
	sender, err := scans.NewPublisher(connection)
	if err != nil {
		return drainResult{}, err
	}
	arrivals := drainLoads[load](messages, rand.New(rand.NewPCG(seed, 0)))
	slices.SortFunc(arrivals, func(a, b scans.Arrival) int { return int(a.After - b.After) })
	for i := range arrivals {
		arrivals[i].Scan.ID = fmt.Sprintf("%s-%s-%d-%03d", kind.name, load, seed, i)
	}
	select {
	case <-ctx.Done():
		return drainResult{}, context.Cause(ctx)
	case <-time.After(time.Until(begin)):
	}
	if err := sender.Play(ctx, queues.Scans, arrivals, func(scans.Scan) { settled.Published() }); err != nil {
		return drainResult{}, err
	}
	if err := scans.UntilQuiet(ctx, c, observed, settled); err != nil {
		return drainResult{}, err
	}
	if err := settled.Pause(); err != nil {
		return drainResult{}, err
	}
	figures, waits := observed.NodeFigures(), settled.Waits()
	var sum time.Duration
	for _, wait := range waits {
		sum += wait
	}
	result := drainResult{
		Load: load, Workers: kind.name, Seed: seed, Messages: messages, Jobs: observed.Snapshot().Jobs, NodeSeconds: scans.Round(figures.Seconds),
		PodSeconds: scans.Round(observed.PodSeconds()), PeakNodes: figures.Peak, DrainSeconds: scans.Round(figures.Drain.Seconds()),
		WaitP50Seconds: scans.Percentile(waits, 50), WaitP95Seconds: scans.Percentile(waits, 95),
		WaitMeanSeconds: scans.Round((sum / time.Duration(max(1, len(waits)))).Seconds()),
	}
	for _, ends := range settled.Ends() {
		result.Repeated += len(ends) - 1
	}
	return result, removeScans(ctx, c, clientset, kind.name)
}

// printDrain writes, for each load and kind, the mean over seeds of its ratios to the first kind's figures for the same seed, and in parentheses the lowest
// and the highest.
func printDrain(out io.Writer, results []drainResult) error {
	type key struct{ load, workers string }
	var keys []key
	by := map[key][]drainResult{}
	for _, r := range results {
		k := key{r.Load, r.Workers}
		if by[k] == nil {
			keys = append(keys, k)
		}
		by[k] = append(by[k], r)
	}
	var faults error
	for i, k := range keys {
		if i == 0 || keys[i-1].load != k.load {
			_, err := fmt.Fprintf(out, "\n| %s | jobs | node-seconds | pod-seconds | peak nodes | wait p50 | mean | p95 | repeated |\n|---|---|---|---|---|---|---|---|---|\n", k.load)
			faults = errors.Join(faults, err)
		}
		first := by[key{k.load, results[0].Workers}]
		ratio := func(of func(drainResult) float64) string {
			sum, low, high := 0.0, math.Inf(1), math.Inf(-1)
			for j, r := range by[k] {
				x := of(r) / of(first[j])
				sum, low, high = sum+x, min(low, x), max(high, x)
			}
			return fmt.Sprintf("%.2f (%.2f to %.2f)", sum/float64(len(by[k])), low, high)
		}
		mean := func(of func(drainResult) float64) float64 {
			sum := 0.0
			for _, r := range by[k] {
				sum += of(r)
			}
			return sum / float64(len(by[k]))
		}
		_, err := fmt.Fprintf(out, "| %s | %.0f | %s | %s | %.1f | %s | %s | %s | %.1f |\n", k.workers, mean(func(r drainResult) float64 { return float64(r.Jobs) }),
			ratio(func(r drainResult) float64 { return r.NodeSeconds }), ratio(func(r drainResult) float64 { return r.PodSeconds }),
			mean(func(r drainResult) float64 { return float64(r.PeakNodes) }), ratio(func(r drainResult) float64 { return r.WaitP50Seconds }),
			ratio(func(r drainResult) float64 { return r.WaitMeanSeconds }), ratio(func(r drainResult) float64 { return r.WaitP95Seconds }),
			mean(func(r drainResult) float64 { return float64(r.Repeated) }))
		faults = errors.Join(faults, err)
	}
	return faults
}
