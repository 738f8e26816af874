package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// drainResult is what one kind of worker made of a burst that ebbs.
type drainResult struct {
	Workers string `json:"workers"`
	// Seed of the load.
	Seed     uint64 `json:"seed"`
	Messages int    `json:"messages"`
	Jobs     int    `json:"jobs"`
	// NodeSeconds until the last node was gone, and PodSeconds from binding to end.
	NodeSeconds float64 `json:"nodeSeconds"`
	PodSeconds  float64 `json:"podSeconds"`
	PeakNodes   int     `json:"peakNodes"`
	// DrainSeconds from the last pod's end to the last node's removal.
	DrainSeconds   float64 `json:"drainSeconds"`
	WaitP50Seconds float64 `json:"waitP50Seconds"`
	WaitP95Seconds float64 `json:"waitP95Seconds"`
}

// drainWorkers are the kinds of workers, in their order. Times are to those of the scans, 5 s in the median, as minutes are in earnest.
func drainWorkers() []struct {
	name string
	args []string
} {
	return []struct {
		name string
		args []string
	}{
		{"one-message", []string{"--max-messages", "1", "--idle-timeout", "10s"}},
		{"go-on", []string{"--max-messages", "0", "--idle-timeout", "10s", "--priority-by-age=false"}},
		{"go-on-by-age", []string{"--max-messages", "0", "--idle-timeout", "10s"}},
		{"go-on-by-age-idle-3s", []string{"--max-messages", "0", "--idle-timeout", "3s"}},
		{"go-on-by-age-lifetime", []string{"--max-messages", "0", "--idle-timeout", "10s", "--max-lifetime", "30s"}},
	}
}

// drainWorkerNames are the names of the kinds.
func drainWorkerNames() []string {
	var names []string
	for _, w := range drainWorkers() {
		names = append(names, w.name)
	}
	return names
}

// ebb is a burst within some seconds, and then fewer and fewer scans.
func ebb(messages int, seed uint64) []scans.Arrival {
	const burst, fades = 5.0, 35.0 // seconds
	random := rand.New(rand.NewPCG(seed, 0))
	arrivals := make([]scans.Arrival, messages)
	for i := range arrivals {
		at := burst * random.Float64()
		if i >= messages/3 {
			at = burst + min(3*fades, fades*random.ExpFloat64())
		}
		seconds := min(20, max(1, 5*math.Exp(0.6*random.NormFloat64())))
		arrivals[i] = scans.Arrival{After: time.Duration(at * float64(time.Second)), Scan: scans.Scan{Seconds: math.Round(100*seconds) / 100}}
	}
	slices.SortFunc(arrivals, func(a, b scans.Arrival) int { return int(a.After - b.After) })
	return arrivals
}

// runDrain runs the same workload once with each of the named kinds of workers, one after the other, on nodes of Karpenter's.
func runDrain(
	ctx context.Context, c *cluster.Cluster, kinds []string, messages int, seed uint64, out io.Writer,
) (results []drainResult, err error) {
	podsCtx, stopPods := context.WithCancel(ctx)
	podsDone := make(chan error, 1)
	go func() { podsDone <- scans.RunPods(podsCtx, c, nil) }()
	defer func() {
		stopPods()
		if podsErr := <-podsDone; err == nil {
			err = podsErr
		}
	}()
	// Install makes nodes and queues; its ScaledJob gives way to those that are compared.
	if err := scans.Install(ctx, c); err != nil {
		return nil, err
	}
	clientset, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return nil, err
	}
	if err := removeScans(ctx, c, clientset); err != nil {
		return nil, err
	}
	for _, kind := range drainWorkers() {
		if !slices.Contains(kinds, kind.name) {
			continue
		}
		if err := scans.InstallScans(ctx, c, scans.ScanJob{
			Image: "ebbtide-worker", MaxReplicas: scans.MaxReplicas, CPU: "900m", Memory: "2Gi", Boot: []string{"e2e-boot", "1s", "4s"},
			WorkerArgs: append([]string{
				"--queue", scans.QueueScans, "--result-exchange", scans.ExchangeResults, "--dead-letter-exchange", scans.ExchangeDead,
				"--summary-file", "/dev/termination-log",
			}, kind.args...),
		}); err != nil {
			return results, err
		}
		time.Sleep(5 * time.Second) // KEDA takes up the ScaledJob: the first messages must not wait for that
		arrivals := ebb(messages, seed)
		for i := range arrivals {
			arrivals[i].Scan.ID = fmt.Sprintf("%s-%d-%03d", kind.name, seed, i)
		}
		summary, observed, err := scans.PlayOn(ctx, c, arrivals, time.Now(), out)
		if err != nil {
			return results, fmt.Errorf("%s: %w", kind.name, err)
		}
		if summary.LostMessages > 0 {
			return results, fmt.Errorf("%s: %d messages are lost", kind.name, summary.LostMessages)
		}
		results = append(results, drainResult{
			Workers: kind.name, Seed: seed, Messages: messages, Jobs: summary.Jobs, NodeSeconds: summary.NodeSeconds,
			PodSeconds: scans.Round(observed.PodSeconds()), PeakNodes: summary.PeakNodes, DrainSeconds: summary.DrainSeconds,
			WaitP50Seconds: summary.WaitSecondsP50, WaitP95Seconds: summary.WaitSecondsP95,
		})
		fmt.Fprintf(out, "%+v\n", results[len(results)-1])
		if err := removeScans(ctx, c, clientset); err != nil {
			return results, err
		}
	}
	return results, nil
}
