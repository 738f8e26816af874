package main

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
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// churnResult is what came of one scaler's run of the churn benchmark.
type churnResult struct {
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
	job  scans.ScanJob
} {
	once := []string{"--max-messages", "1", "--idle-timeout", "5s"}
	goOn := []string{"--max-messages", "0", "--idle-timeout", "2s"}
	job := func(args []string, change func(*scans.ScanJob)) scans.ScanJob {
		j := scans.ScanJob{
			Image: "ebbtide-worker", MaxReplicas: churnCap, ScaledJobMax: churnCap, CPU: "100m", Memory: "64Mi",
			Boot: []string{"e2e-boot", "1s", "4s"},
			WorkerArgs: append([]string{
				"--queue", scans.QueueScans, "--result-exchange", scans.ExchangeResults, "--dead-letter-exchange", scans.ExchangeDead,
				"--summary-file", "/dev/termination-log",
			}, args...),
		}
		change(&j)
		return j
	}
	return []struct {
		name string
		job  scans.ScanJob
	}{
		{"builtin-default", job(once, func(j *scans.ScanJob) { j.Builtin = "amqp" })},
		{"builtin-http", job(once, func(j *scans.ScanJob) { j.Builtin = "http" })},
		{"builtin-accurate", job(once, func(j *scans.ScanJob) { j.Builtin, j.Strategy = "amqp", "accurate" })},
		{"ebbtide", job(once, func(*scans.ScanJob) {})},
		{"ebbtide-reuse", job(goOn, func(*scans.ScanJob) {})},
	}
}

// churnScalerNames are the names of the runs.
func churnScalerNames() []string {
	var names []string
	for _, s := range churnScalers() {
		names = append(names, s.name)
	}
	return names
}

// churn is the benchmark's load: a trickle, and a burst now and then. Scans take a second and an exponential time. Bursts are 15 to 25 s
// apart, so that they come at any moment between polls, and between the broker's statistics of every five seconds.
func churn(messages int) []scans.Arrival {
	const perSecond, burst = 3.5, 45
	random := rand.New(rand.NewPCG(7, 7))
	var arrivals []scans.Arrival
	add := func(after float64) {
		arrivals = append(arrivals, scans.Arrival{
			After: time.Duration(after * float64(time.Second)),
			Scan:  scans.Scan{Seconds: math.Round(100*(1+3*random.ExpFloat64())) / 100},
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
	slices.SortFunc(arrivals, func(a, b scans.Arrival) int { return int(a.After - b.After) })
	for i := range arrivals {
		arrivals[i].Scan.ID = fmt.Sprintf("scan-%04d", i)
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

// runChurns runs the workload once with each of the named scalers, one after the other, on a cluster that runs nothing else. Beside KEDA,
// so many pollers ask Ebbtide's scaler for the same policy.
func runChurns(ctx context.Context, c *cluster.Cluster, scalers []string, messages, pollers int, out io.Writer) ([]churnResult, error) {
	if err := scans.DefaultTopology.Declare(c.Broker.AMQPURL("/")); err != nil {
		return nil, err
	}
	if err := scans.InstallStaticNode(ctx, c); err != nil {
		return nil, err
	}
	var results []churnResult
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

func runChurn(
	ctx context.Context, c *cluster.Cluster, name string, job scans.ScanJob, messages, pollers int, out io.Writer,
) (result churnResult, err error) {
	begin := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clientset, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return churnResult{}, err
	}
	observed := scans.NewObserver(scans.Namespace, scans.NodePoolLabel, scans.NodePoolName)
	if err := observed.Watch(ctx, clientset); err != nil {
		return churnResult{}, err
	}
	if err := scans.InstallScans(ctx, c, job); err != nil {
		return churnResult{}, err
	}
	kills := &killer{random: rand.New(rand.NewPCG(11, 11))}
	stoppable, stopBeside := context.WithCancel(ctx)
	beside, besideCtx := errgroup.WithContext(stoppable)
	beside.Go(func() error { return scans.RunPods(besideCtx, c, kills.fault) })
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
		return churnResult{}, err
	}
	defer connection.Close()
	settled, err := scans.Collect(connection)
	if err != nil {
		return churnResult{}, err
	}
	sender, err := scans.NewPublisher(connection)
	if err != nil {
		return churnResult{}, err
	}
	time.Sleep(5 * time.Second) // KEDA takes up the ScaledJob: the first messages must not wait for that
	progress := time.NewTicker(15 * time.Second)
	defer progress.Stop()
	published := make(chan error, 1)
	go func() {
		published <- sender.Play(ctx, scans.QueueScans, churn(messages), func(scans.Scan) { settled.Published() })
	}()
	sent := false
	for deadline := time.Now().Add(20 * time.Minute); ; {
		s := observed.Snapshot()
		if sent && settled.Open() == 0 && s.UnfinishedJobs == 0 {
			break
		}
		if time.Now().After(deadline) {
			break // what is open is lost
		}
		select {
		case <-ctx.Done():
			return churnResult{}, context.Cause(ctx)
		case err := <-published:
			if err != nil {
				return churnResult{}, err
			}
			sent = true
		case <-progress.C:
			fmt.Fprintf(out, "%-18s %4.0f s: %d open, %d jobs, %d unfinished\n",
				name, time.Since(begin).Seconds(), settled.Open(), s.Jobs, s.UnfinishedJobs)
		case <-time.After(100 * time.Millisecond):
		}
	}
	lost := settled.Open()
	waits := settled.Waits()
	kills.mu.Lock()
	killed := kills.killed
	kills.mu.Unlock()
	result = churnResult{
		Scaler: name, Messages: messages, Jobs: observed.Snapshot().Jobs, EmptyJobs: observed.IdlePods(), Lost: lost,
		WaitP50Seconds: scans.Percentile(waits, 50), WaitP95Seconds: scans.Percentile(waits, 95),
		PodSeconds: scans.Round(observed.PodSeconds()), Killed: killed, PollersBeside: pollers, WallSeconds: scans.Round(time.Since(begin).Seconds()),
	}
	return result, removeScans(ctx, c, clientset, scans.Namespace)
}

// removeScans removes the ScaledJob of a namespace and waits until its jobs are gone.
func removeScans(ctx context.Context, c *cluster.Cluster, clientset kubernetes.Interface, namespace string) error {
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
