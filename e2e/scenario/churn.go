package scenario

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
)

// ChurnResult is what came of one scaler's run of the churn benchmark.
type ChurnResult struct {
	Scaler   string `json:"scaler"`
	Messages int    `json:"messages"`
	Jobs     int    `json:"jobs"`
	// EmptyJobs found no message. Lost messages never ended.
	EmptyJobs      int     `json:"emptyJobs"`
	Lost           int     `json:"lost"`
	WaitP50Seconds float64 `json:"waitP50Seconds"`
	WaitP95Seconds float64 `json:"waitP95Seconds"`
	// PodSeconds are counted from binding to end.
	PodSeconds float64 `json:"podSeconds"`
	// Killed workers, and messages that were delivered more than once for it.
	Killed int `json:"killed"`
	// PollersBeside asked Ebbtide's scaler as KEDA did.
	PollersBeside int     `json:"pollersBeside,omitempty"`
	WallSeconds   float64 `json:"wallSeconds"`
}

// churnCap is how many jobs may exist, for every scaler.
const churnCap = 80

// churnScalers are the runs of the benchmark, in their order.
func churnScalers() []struct {
	name string
	job  scanJob
} {
	once := []string{"--max-messages", "1", "--idle-timeout", "5s"}
	goOn := []string{"--max-messages", "0", "--idle-timeout", "2s"}
	job := func(args []string, change func(*scanJob)) scanJob {
		j := scanJob{
			Image: "ebbtide-worker", MaxReplicas: churnCap, ScaledJobMax: churnCap, CPU: "100m", Memory: "64Mi",
			Boot: []string{"e2e-boot", "1s", "4s"},
			WorkerArgs: append([]string{
				"--queue", queueScans, "--result-exchange", exchangeResults, "--dead-letter-exchange", exchangeDead,
				"--summary-file", "/dev/termination-log",
			}, args...),
		}
		change(&j)
		return j
	}
	return []struct {
		name string
		job  scanJob
	}{
		{"builtin-default", job(once, func(j *scanJob) { j.Builtin = "amqp" })},
		{"builtin-http", job(once, func(j *scanJob) { j.Builtin = "http" })},
		{"builtin-accurate", job(once, func(j *scanJob) { j.Builtin, j.Strategy = "amqp", "accurate" })},
		{"ebbtide", job(once, func(*scanJob) {})},
		{"ebbtide-reuse", job(goOn, func(*scanJob) {})},
	}
}

// ChurnScalers are the names of the runs.
func ChurnScalers() []string {
	var names []string
	for _, s := range churnScalers() {
		names = append(names, s.name)
	}
	return names
}

// churn is the benchmark's load: a trickle, and a burst now and then. Scans take a second and an exponential time. Bursts are 15 to 25 s
// apart, so that they come at any moment between polls, and between the broker's statistics of every five seconds.
func churn(messages int) []arrival {
	const perSecond, burst = 3.5, 45
	random := rand.New(rand.NewPCG(7, 7))
	var arrivals []arrival
	add := func(after float64) {
		arrivals = append(arrivals, arrival{
			after: time.Duration(after * float64(time.Second)),
			scan:  scan{Seconds: math.Round(100*(1+3*random.ExpFloat64())) / 100},
		})
	}
	for at, next := 0.0, 15.0; len(arrivals) < messages; at += random.ExpFloat64() / perSecond {
		add(at)
		if at > next {
			for range min(burst, messages-len(arrivals)) {
				add(at + random.Float64())
			}
			next += 15 + 10*random.Float64()
		}
	}
	slices.SortFunc(arrivals, func(a, b arrival) int { return int(a.after - b.after) })
	for i := range arrivals {
		arrivals[i].scan.ID = fmt.Sprintf("scan-%04d", i)
	}
	return arrivals
}

// killer kills one worker in fifty at a random moment of its first eight seconds. It is safe for concurrent use.
type killer struct {
	mu     sync.Mutex
	random *rand.Rand
	killed int
}

func (k *killer) fault() (time.Duration, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.random.IntN(50) != 0 {
		return 0, false
	}
	k.killed++
	return time.Duration(k.random.Int64N(int64(8 * time.Second))), true
}

// RunChurn plays the load once with each of the named scalers, one after the other, on a cluster that runs nothing else. Beside KEDA,
// so many pollers ask Ebbtide's scaler for the same policy.
func RunChurn(ctx context.Context, c *cluster.Cluster, scalers []string, messages, pollers int, out io.Writer) ([]ChurnResult, error) {
	if err := declareTopology(c.Broker.AMQPURL("/")); err != nil {
		return nil, err
	}
	if err := installStaticNode(ctx, c); err != nil {
		return nil, err
	}
	var results []ChurnResult
	for _, scaler := range churnScalers() {
		if !slices.Contains(scalers, scaler.name) {
			continue
		}
		result, err := runChurn(ctx, c, scaler.name, scaler.job, messages, pollers, out)
		if err != nil {
			return results, fmt.Errorf("%s: %w", scaler.name, err)
		}
		fmt.Fprintf(out, "%+v\n", result)
		results = append(results, result)
	}
	return results, nil
}

// installStaticNode makes a node that is always there.
func installStaticNode(ctx context.Context, c *cluster.Cluster) error {
	node, err := manifests.ReadFile("manifests/static-node.yaml")
	if err != nil {
		return err
	}
	return c.ApplyYAML(ctx, node)
}

func runChurn(
	ctx context.Context, c *cluster.Cluster, name string, job scanJob, messages, pollers int, out io.Writer,
) (result ChurnResult, err error) {
	begin := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clientset, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return ChurnResult{}, err
	}
	observed := newObserver(namespace, nodePoolLabel, nodePoolName)
	if err := observed.watch(ctx, clientset); err != nil {
		return ChurnResult{}, err
	}
	if err := installScans(ctx, c, job); err != nil {
		return ChurnResult{}, err
	}
	kills := &killer{random: rand.New(rand.NewPCG(11, 11))}
	stoppable, stopBeside := context.WithCancel(ctx)
	beside, besideCtx := errgroup.WithContext(stoppable)
	beside.Go(func() error { return RunPods(besideCtx, c, kills.fault) })
	if job.Builtin != "" {
		pollers = 0
	}
	beside.Go(func() error { return pollBeside(besideCtx, c, pollers) })
	defer func() {
		stopBeside()
		if besideErr := beside.Wait(); err == nil {
			err = besideErr
		}
	}()

	connection, err := amqp.Dial(c.Broker.AMQPURL("/"))
	if err != nil {
		return ChurnResult{}, err
	}
	defer connection.Close()
	settled, err := collect(connection)
	if err != nil {
		return ChurnResult{}, err
	}
	sender, err := newPublisher(connection)
	if err != nil {
		return ChurnResult{}, err
	}
	time.Sleep(5 * time.Second) // KEDA takes up the ScaledJob: the first messages must not wait for that
	progress := time.NewTicker(15 * time.Second)
	defer progress.Stop()
	published := make(chan error, 1)
	go func() {
		published <- sender.play(ctx, churn(messages), func(scan) { settled.published() })
	}()
	sent := false
	for deadline := time.Now().Add(20 * time.Minute); ; {
		s := observed.snapshot()
		if sent && settled.open() == 0 && s.unfinishedJobs == 0 {
			break
		}
		if time.Now().After(deadline) {
			break // what is open is lost
		}
		select {
		case <-ctx.Done():
			return ChurnResult{}, context.Cause(ctx)
		case err := <-published:
			if err != nil {
				return ChurnResult{}, err
			}
			sent = true
		case <-progress.C:
			fmt.Fprintf(out, "%-18s %4.0f s: %d open, %d jobs, %d unfinished\n",
				name, time.Since(begin).Seconds(), settled.open(), s.jobs, s.unfinishedJobs)
		case <-time.After(100 * time.Millisecond):
		}
	}
	lost := settled.open()
	settled.mu.Lock()
	waits := slices.Clone(settled.waits)
	settled.mu.Unlock()
	kills.mu.Lock()
	killed := kills.killed
	kills.mu.Unlock()
	result = ChurnResult{
		Scaler: name, Messages: messages, Jobs: observed.snapshot().jobs, EmptyJobs: observed.idlePods(), Lost: lost,
		WaitP50Seconds: percentile(waits, 50), WaitP95Seconds: percentile(waits, 95),
		PodSeconds: round(observed.podSeconds()), Killed: killed, PollersBeside: pollers, WallSeconds: round(time.Since(begin).Seconds()),
	}
	return result, removeScans(ctx, c, clientset)
}

// removeScans removes the ScaledJob and waits until its jobs are gone.
func removeScans(ctx context.Context, c *cluster.Cluster, clientset kubernetes.Interface) error {
	scaledJob := &unstructured.Unstructured{}
	scaledJob.SetAPIVersion("keda.sh/v1alpha1")
	scaledJob.SetKind("ScaledJob")
	scaledJob.SetNamespace(namespace)
	scaledJob.SetName("scans")
	if err := c.Client().Delete(ctx, scaledJob); err != nil {
		return err
	}
	if err := c.Client().DeleteAllOf(ctx, &batchv1.Job{}, client.InNamespace(namespace),
		client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		return err
	}
	for {
		pods, err := clientset.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil || len(pods.Items) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// podSeconds add up what pods ran, from binding to end.
func (o *observer) podSeconds() float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	total := 0.0
	for _, pod := range o.pods {
		if !pod.bound.IsZero() && !pod.ended.IsZero() {
			total += pod.ended.Sub(pod.bound).Seconds()
		}
	}
	return total
}

// WriteChurn writes results to a file as the JSON of the benchmark.
func WriteChurn(path string, results []ChurnResult) error { return writeJSON(path, results) }
