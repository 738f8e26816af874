package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
)

// PackingResult is what one scheduler made of the comparison's pods.
type PackingResult struct {
	// Scheduler is default, most-allocated or drainpack.
	Scheduler string `json:"scheduler"`
	// Pods that came and went, and how many of them were ended before their time.
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

func packingSchedulers() []packingScheduler {
	return []packingScheduler{{"default", "default-scheduler"}, {"most-allocated", "most-allocated"}, {"drainpack", "ebbtide"}}
}

// packingPod is a pod of the comparison.
type packingPod struct {
	after, runs, stated time.Duration
	milliCPU            int64
}

// packingLoad comes in three waves over four minutes. Most pods run for seconds and some for minutes; what they say of it is
// off by a lognormal factor of sigma 0.3.
func packingLoad(pods int) []packingPod {
	random := rand.New(rand.NewPCG(20260302, 5))
	const length, wave = 4 * time.Minute, 80 * time.Second
	load := make([]packingPod, pods)
	for i := range load {
		p := &load[i]
		for { // more likely at the height of a wave
			p.after = time.Duration(random.Float64() * float64(length))
			phase := 2 * math.Pi * float64(p.after%wave) / float64(wave)
			if random.Float64() < (1-math.Cos(phase))/2 {
				break
			}
		}
		seconds := min(240, max(3, 15*math.Exp(1.2*random.NormFloat64())))
		p.runs = time.Duration(seconds * float64(time.Second)).Round(time.Second)
		p.stated = max(time.Second, time.Duration(seconds*math.Exp(0.3*random.NormFloat64())*float64(time.Second)).Round(time.Second))
		p.milliCPU = []int64{500, 500, 1000, 2000}[random.IntN(4)]
	}
	slices.SortFunc(load, func(a, b packingPod) int { return int(a.after - b.after) })
	return load
}

// RunPacking gives the same pods at the same moments to the stock scheduler, to it with MostAllocated, and to Ebbtide's, each
// with nodes of its own from Karpenter, all on one cluster, and measures what nodes each needs.
func RunPacking(ctx context.Context, c *cluster.Cluster, pods int, out io.Writer) ([]PackingResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	config := c.Admin()
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	schedulers := packingSchedulers()
	observers := make([]*observer, len(schedulers))
	for i, s := range schedulers {
		if err := installPacking(ctx, c, s); err != nil {
			return nil, err
		}
		observers[i] = newObserver(s.Name, nodePoolLabel, s.Name)
		if err := observers[i].watch(ctx, clientset); err != nil {
			return nil, err
		}
	}
	if err := awaitPacking(ctx, c, schedulers, observers, out, func(s snapshot) bool {
		return s.pending == 0 && len(s.podsOnNode) > 0 // the lasting pods
	}); err != nil {
		return nil, err
	}
	load := packingLoad(pods)
	work, workCtx := errgroup.WithContext(ctx)
	for _, s := range schedulers {
		work.Go(func() error { return playPacking(workCtx, clientset, s, load) })
	}
	sent := make(chan error, 1)
	go func() { sent <- work.Wait() }()
	done := false
	if err := awaitPacking(ctx, c, schedulers, observers, out, func(s snapshot) bool {
		select {
		case err := <-sent:
			if err != nil {
				cancel()
			}
			done = true
		default:
		}
		return done && s.pending == 0 && s.ended >= pods && !slices.Contains(perNode(s), 0)
	}); err != nil {
		return nil, errors.Join(work.Wait(), err)
	}
	results := make([]PackingResult, len(schedulers))
	for i, s := range schedulers {
		figures, state := observers[i].nodeFigures(), observers[i].snapshot()
		results[i] = PackingResult{
			Scheduler: s.Name, Pods: state.ended, Evicted: state.cutShort, NodeSeconds: round(figures.seconds),
			LowerBoundNodeSeconds: round(figures.lowerBound), RatioToBound: math.Round(100*figures.seconds/figures.lowerBound) / 100,
			PeakNodes: figures.peak, DrainSeconds: round(figures.drain.Seconds()), RemainingNodes: figures.remaining,
			WaitSecondsP95: percentile(observers[i].bindingWaits(), 95),
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

// playPacking creates a scheduler's pods at their moments.
func playPacking(ctx context.Context, clientset kubernetes.Interface, s packingScheduler, load []packingPod) error {
	begin := time.Now()
	for i, p := range load {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Until(begin.Add(p.after))):
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("scan-%04d", i), Namespace: s.Name, Labels: map[string]string{"ebbtide.dev/duration-class": "scan"},
				Annotations: map[string]string{"e2e.ebbtide.dev/run-for": p.runs.String(), "ebbtide.dev/expected-duration": p.stated.String()},
			},
			Spec: corev1.PodSpec{
				SchedulerName: s.Scheduler, RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: new(bool),
				NodeSelector: map[string]string{nodePoolLabel: s.Name},
				Tolerations:  []corev1.Toleration{{Key: "ebbtide.dev/scan", Operator: corev1.TolerationOpExists}},
				Containers: []corev1.Container{{Name: "scan", Image: "scan", Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{
						corev1.ResourceCPU: *resource.NewMilliQuantity(p.milliCPU, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("512Mi"),
					},
				}}},
			},
		}
		if _, err := clientset.CoreV1().Pods(s.Name).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// awaitPacking waits until is holds for all schedulers, and says how they fare.
func awaitPacking(
	ctx context.Context, c *cluster.Cluster, schedulers []packingScheduler, observers []*observer, out io.Writer, is func(snapshot) bool,
) error {
	begin, shown := time.Now(), time.Time{}
	for {
		all := true
		for i, o := range observers {
			s := o.snapshot()
			all = is(s) && all
			if time.Since(shown) > 15*time.Second {
				fmt.Fprintf(out, "%4.0f s  %-14s %3d ended, %2d pending, pods per node %v\n",
					time.Since(begin).Seconds(), schedulers[i].Name, s.ended, s.pending, perNode(s))
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

// WritePacking writes results to a file as JSON.
func WritePacking(path string, results []PackingResult) error { return writeJSON(path, results) }
