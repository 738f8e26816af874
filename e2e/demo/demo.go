// Package demo plays the main job on real parts: messages in RabbitMQ become Jobs through KEDA and Ebbtide's scaler,
// Ebbtide's scheduler packs their pods onto few nodes, and Karpenter removes the nodes that fall idle. It measures what
// users care about and fails when a message is lost, a job is a duplicate or a node stays.
package demo

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"text/template"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/podrunner"
)

//go:embed manifests
var manifests embed.FS

const (
	namespace   = "scan"
	maxReplicas = 48
	// nodePoolLabel marks the nodes that Karpenter makes for scans.
	nodePoolLabel, nodePoolName = "karpenter.sh/nodepool", "scan"
	// settleWithin bounds the time from the last publish to the last node's removal.
	settleWithin = 5 * time.Minute
)

// Programs are the project's own programs that a demo needs, for toolchain.BuildProject.
var Programs = []string{"./cmd/ebbtide-scaler", "./cmd/ebbtide-scheduler", "./cmd/ebbtide-worker", "./e2e/cmd/e2e-scan"}

// workerArgs make a worker that scans one message and leaves; one that finds none leaves after a while.
var workerArgs = []string{
	"--queue", queueScans, "--result-exchange", exchangeResults, "--dead-letter-exchange", exchangeDead,
	"--max-messages", "1", "--idle-timeout", "20s", "--summary-file", "/dev/termination-log",
}

// Install makes the queues, the policy, the NodePool and the ScaledJob in a cluster.
func Install(ctx context.Context, c *cluster.Cluster) error {
	connection, err := amqp.Dial(c.Broker.AMQPURL("/"))
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err := declareTopology(channel); err != nil {
		return fmt.Errorf("declare queues: %w", err)
	}
	nodes, err := manifests.ReadFile("manifests/cluster.yaml")
	if err != nil {
		return err
	}
	if err := c.ApplyYAML(ctx, nodes); err != nil {
		return err
	}
	scans, err := render(map[string]any{
		"AMQP": c.Broker.AMQPURL("/"), "Management": c.Broker.ManagementURL(), "Queue": queueScans,
		"Scaler": c.ScalerAddress(), "MaxReplicas": maxReplicas, "Image": "ebbtide-worker", "WorkerArgs": workerArgs,
		"HostNetwork": false, "CPU": "900m", "Memory": "2Gi",
	})
	if err != nil {
		return err
	}
	return c.ApplyYAML(ctx, scans)
}

func render(values map[string]any) ([]byte, error) {
	text, err := template.ParseFS(manifests, "manifests/scans.yaml")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = text.Execute(&out, values)
	return out.Bytes(), err
}

// RunPods runs the pods that are bound to KWOK nodes until ctx ends.
func RunPods(ctx context.Context, c *cluster.Cluster) error {
	config, err := c.Config(cluster.PodRunner)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(c.Dir, "logs", "pod-runner.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	programs := map[string]string{"ebbtide-worker": c.Bin("ebbtide-worker"), "e2e-scan": c.Bin("e2e-scan")}
	log := slog.New(slog.NewJSONHandler(logFile, nil))
	return podrunner.New(client, programs, filepath.Join(c.Dir, "pods"), log).Run(ctx)
}

// Publish sends n scans at once, for a person who plays with a running cluster.
func Publish(ctx context.Context, amqpURL string, n int) error {
	connection, err := amqp.Dial(amqpURL)
	if err != nil {
		return err
	}
	defer connection.Close()
	sender, err := newPublisher(connection)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for i := range n {
		s := morning(random)[i%morningMessages].scan
		s.ID = fmt.Sprintf("%s-%d", time.Now().Format("150405"), i)
		if err := sender.publish(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// Run plays the morning on a cluster on which Install and RunPods are done, and measures it until the last node is
// gone. Begin is when the whole run began. The live view goes to out.
func Run(ctx context.Context, c *cluster.Cluster, begin time.Time, out io.Writer) (Summary, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return Summary{}, err
	}
	connection, err := amqp.Dial(c.Broker.AMQPURL("/"))
	if err != nil {
		return Summary{}, err
	}
	defer connection.Close()
	observed := newObserver(nodePoolLabel, nodePoolName)
	if err := observed.watch(ctx, client); err != nil {
		return Summary{}, err
	}
	settled, err := collect(connection)
	if err != nil {
		return Summary{}, err
	}
	sender, err := newPublisher(connection)
	if err != nil {
		return Summary{}, err
	}
	live := newView(out, c, observed, settled)
	stopView := live.start(ctx)
	defer stopView()

	arrivals := morning(rand.New(rand.NewPCG(20260302, 0)))
	if err := sender.play(ctx, arrivals, func(scan) { settled.published() }); err != nil {
		return Summary{}, err
	}
	waitErr := untilQuiet(ctx, c, observed, settled)
	stopView()
	return summarize(observed, settled, begin), waitErr
}

// untilQuiet waits until every message is settled, every job has finished and every node is gone.
func untilQuiet(ctx context.Context, c *cluster.Cluster, observed *observer, settled *settlements) error {
	deadline := time.Now().Add(settleWithin)
	for {
		s := observed.snapshot()
		open := settled.open()
		if open == 0 && s.unfinishedJobs == 0 && len(s.podsOnNode) == 0 {
			return nil
		}
		if name := c.Failed(); name != "" {
			return fmt.Errorf("%s ended by itself: see %s", name, filepath.Join(c.Dir, "logs", name+".log"))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not quiet %s after the last message: %d messages unsettled, %d jobs unfinished, %d nodes left",
				settleWithin, open, s.unfinishedJobs, len(s.podsOnNode))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func summarize(observed *observer, settled *settlements, begin time.Time) Summary {
	settled.mu.Lock()
	defer settled.mu.Unlock()
	figures, jobs := observed.nodeFigures(), observed.snapshot()
	s := Summary{
		Messages: settled.sent, Jobs: jobs.jobs, DuplicateJobs: observed.idlePods(),
		LostMessages: settled.sent - len(settled.results), WaitSecondsP50: percentile(settled.waits, 50),
		WaitSecondsP95: percentile(settled.waits, 95), PeakNodes: figures.peak, NodeSeconds: round(figures.seconds),
		LowerBoundNodeSeconds: round(figures.lowerBound), DrainSeconds: round(figures.drain.Seconds()),
		RemainingNodes: figures.remaining, WallSeconds: round(time.Since(begin).Seconds()),
	}
	for _, n := range settled.results {
		s.RepeatedMessages += n - 1
	}
	return s
}

// settlements counts where messages end: in the results, or among the dead letters.
type settlements struct {
	mu      sync.Mutex
	sent    int
	results map[string]int // by the scan's id
	waits   []time.Duration
}

// outcome is a result, or a dead letter, which never started.
type outcome struct {
	ID        string    `json:"id"`
	Published time.Time `json:"published"`
	Started   time.Time `json:"started"`
}

func collect(connection *amqp.Connection) (*settlements, error) {
	s := &settlements{results: map[string]int{}}
	for _, queue := range []string{queueResults, queueDead} {
		channel, err := connection.Channel()
		if err != nil {
			return nil, err
		}
		deliveries, err := channel.Consume(queue, "", true, false, false, false, nil)
		if err != nil {
			return nil, err
		}
		go func() {
			for delivery := range deliveries {
				s.settle(delivery)
			}
		}()
	}
	return s, nil
}

func (s *settlements) settle(delivery amqp.Delivery) {
	var o outcome
	if err := json.Unmarshal(delivery.Body, &o); err != nil || o.ID == "" {
		o.ID = delivery.MessageId
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[o.ID]++
	if !o.Started.IsZero() {
		s.waits = append(s.waits, o.Started.Sub(o.Published))
	}
}

func (s *settlements) published() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
}

// open is the number of messages that are neither done nor dead.
func (s *settlements) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent - len(s.results)
}
