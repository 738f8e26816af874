package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// packingResult is what one scheduler made of the comparison's pods.
type packingResult struct {
	// Scheduler is default, most-allocated or drainpack; Run is which of several runs, from 1 on.
	Scheduler string `json:"scheduler"`
	Run       int    `json:"run"`
	// Pods that ran, and how many of them were ended before their time.
	Pods    int `json:"pods"`
	Evicted int `json:"evicted"`
	// NodeSeconds from the first pod until the last node without lasting pods was gone from all, and their lower bound.
	NodeSeconds           float64 `json:"nodeSeconds"`
	LowerBoundNodeSeconds float64 `json:"lowerBoundNodeSeconds"`
	RatioToBound          float64 `json:"ratioToBound"`
	PeakNodes             int     `json:"peakNodes"`
	// DrainSeconds from the last pod's end to the last removal of a node; RemainingNodes hold pods that last.
	DrainSeconds   float64 `json:"drainSeconds"`
	RemainingNodes int     `json:"remainingNodes"`
	// WaitSecondsP95 from a pod's creation to its node.
	WaitSecondsP95 float64 `json:"waitSecondsP95"`
}

// packingScheduler is one that takes part; Name is that of its namespace and its NodePool.
type packingScheduler struct{ Name, Scheduler string }

func packingSchedulers(run int) []packingScheduler {
	schedulers := []packingScheduler{{"default", "default-scheduler"}, {"most-allocated", "most-allocated"}, {"drainpack", "ebbtide"}}
	for i := range schedulers {
		schedulers[i].Name += fmt.Sprintf("-%d", run)
	}
	return schedulers
}

// runPackings runs one workload after the other.
func runPackings(ctx context.Context, c *cluster.Cluster, loads [][]scans.Pod, out io.Writer) (results []packingResult, err error) {
	for i, load := range loads {
		result, err := runPacking(ctx, c, i+1, load, out)
		if err != nil {
			return results, err
		}
		results = append(results, result...)
		for _, s := range packingSchedulers(i + 1) {
			if err := removePacking(ctx, c, s); err != nil {
				return results, err
			}
		}
	}
	return results, nil
}

// removePacking takes a scheduler's share away, so that the next run has the machine for itself.
func removePacking(ctx context.Context, c *cluster.Cluster, s packingScheduler) error {
	pool := &unstructured.Unstructured{}
	pool.SetAPIVersion("karpenter.sh/v1")
	pool.SetKind("NodePool")
	pool.SetName(s.Name)
	return errors.Join(
		client.IgnoreNotFound(c.Client().Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.Name}})),
		client.IgnoreNotFound(c.Client().Delete(ctx, pool)))
}

// runPacking gives the same pods at the same moments to the stock scheduler, to it with MostAllocated, and to Ebbtide's, each
// with nodes of its own from Karpenter, all on one cluster, and measures what nodes each needs.
func runPacking(ctx context.Context, c *cluster.Cluster, run int, load []scans.Pod, out io.Writer) ([]packingResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	config := c.Admin()
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	schedulers, pods := packingSchedulers(run), len(load)
	observers := make([]*scans.Observer, len(schedulers))
	for i, s := range schedulers {
		if err := installPacking(ctx, c, s); err != nil {
			return nil, err
		}
		observers[i] = scans.NewObserver(s.Name, scans.NodePoolLabel, s.Name)
		if err := observers[i].Watch(ctx, clientset); err != nil {
			return nil, err
		}
	}
	if err := awaitPacking(ctx, c, schedulers, observers, out, func(s scans.Snapshot) bool {
		return s.Pending == 0 && len(s.PodsOnNode) > 0 // the lasting pods
	}); err != nil {
		return nil, err
	}
	work, workCtx := errgroup.WithContext(ctx)
	for _, s := range schedulers {
		work.Go(func() error { return scans.PlayPods(workCtx, clientset, s.Name, s.Scheduler, load) })
	}
	sent := make(chan error, 1)
	go func() { sent <- work.Wait() }()
	done := false
	if err := awaitPacking(ctx, c, schedulers, observers, out, func(s scans.Snapshot) bool {
		select {
		case err := <-sent:
			if err != nil {
				cancel()
			}
			done = true
		default:
		}
		return done && s.Pending == 0 && s.Ended >= pods && !slices.Contains(scans.PerNode(s), 0)
	}); err != nil {
		return nil, errors.Join(work.Wait(), err)
	}
	results := make([]packingResult, len(schedulers))
	for i, s := range schedulers {
		figures, state := observers[i].NodeFigures(), observers[i].Snapshot()
		results[i] = packingResult{
			Scheduler: strings.TrimSuffix(s.Name, fmt.Sprintf("-%d", run)), Run: run, Pods: state.Ended, Evicted: state.CutShort, NodeSeconds: scans.Round(figures.Seconds),
			LowerBoundNodeSeconds: scans.Round(figures.LowerBound), RatioToBound: math.Round(100*figures.Seconds/figures.LowerBound) / 100,
			PeakNodes: figures.Peak, DrainSeconds: scans.Round(figures.Drain.Seconds()), RemainingNodes: figures.Remaining,
			WaitSecondsP95: scans.Percentile(observers[i].BindingWaits(), 95),
		}
	}
	return results, nil
}

func installPacking(ctx context.Context, c *cluster.Cluster, s packingScheduler) error {
	text, err := template.ParseFS(manifests, "manifests/packing.yaml")
	if err != nil {
		return err
	}
	var objects bytes.Buffer
	if err := text.Execute(&objects, s); err != nil {
		return err
	}
	return c.ApplyYAML(ctx, objects.Bytes())
}

// awaitPacking waits until is holds for all schedulers, and says how they fare.
func awaitPacking(
	ctx context.Context, c *cluster.Cluster, schedulers []packingScheduler, observers []*scans.Observer, out io.Writer, is func(scans.Snapshot) bool,
) error {
	begin, shown := time.Now(), time.Time{}
	for {
		all := true
		for i, o := range observers {
			s := o.Snapshot()
			all = is(s) && all
			if time.Since(shown) > 15*time.Second {
				fmt.Fprintf(out, "%4.0f s  %-14s %3d ended, %2d pending, pods per node %v\n",
					time.Since(begin).Seconds(), schedulers[i].Name, s.Ended, s.Pending, scans.PerNode(s))
			}
		}
		if time.Since(shown) > 15*time.Second {
			shown = time.Now()
		}
		if all {
			return nil
		}
		if name := c.Failed(); name != "" {
			return fmt.Errorf("%s ended by itself: see %s", name, filepath.Join(c.Dir, "logs", name+".log"))
		}
		if time.Since(begin) > 15*time.Minute {
			return errors.New("not done within 15 minutes")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
