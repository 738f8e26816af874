// Package scenario plays the main job on real parts: messages in RabbitMQ become Jobs through KEDA and Ebbtide's scaler,
// Ebbtide's scheduler packs their pods onto few nodes, and Karpenter removes the nodes that fall idle. It measures what
// users care about.
//
// The demo (Run) is a morning of scans on nodes that KWOK keeps. TestInstall runs scans, some of which go wrong, in containers on real
// nodes.
package scenario

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
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
var Programs = []string{"./cmd/ebbtide-scaler", "./cmd/ebbtide-scheduler", "./cmd/ebbtide-worker", "./e2e/cmd/e2e-scan", "./e2e/cmd/e2e-boot"}

// workerArgs make a worker that scans one message and leaves; one that finds none leaves after a while.
var workerArgs = []string{
	"--queue", queueScans, "--result-exchange", exchangeResults, "--dead-letter-exchange", exchangeDead,
	"--max-messages", "1", "--idle-timeout", "20s", "--summary-file", "/dev/termination-log",
}

// Install makes the queues, the policy, the NodePool and the ScaledJob in a cluster.
func Install(ctx context.Context, c *cluster.Cluster) error {
	if err := declareTopology(c.Broker.AMQPURL("/")); err != nil {
		return fmt.Errorf("declare queues: %w", err)
	}
	nodes, err := manifests.ReadFile("manifests/cluster.yaml")
	if err != nil {
		return err
	}
	if err := c.ApplyYAML(ctx, nodes); err != nil {
		return err
	}
	return installScans(ctx, c, scanJob{
		Image: "ebbtide-worker", WorkerArgs: workerArgs, MaxReplicas: maxReplicas, CPU: "900m", Memory: "2Gi",
	})
}

// scanJob is what differs between the scenarios' ScaledJobs.
type scanJob struct {
	Image       string
	WorkerArgs  []string
	MaxReplicas int
	CPU, Memory string
	// RealNodes run the workers in containers, and a scaler that the chart installed.
	RealNodes bool
	// GraceSeconds a pod gets when it is deleted.
	GraceSeconds int
	// Builtin is the protocol of KEDA's own rabbitmq trigger, amqp or http, where that is used instead of the scaler.
	Builtin string
	// Strategy of KEDA; default: default. ScaledJobMax is KEDA's own cap; default: out of reach, as the policy caps.
	Strategy     string
	ScaledJobMax int
	// Boot makes every worker take this long to be ready, as large images do.
	Boot []string
	// Calendar of the policy, in YAML's flow style.
	Calendar string

	// Where things are, and what KEDA presents to a scaler that no chart installed, in base64; filled in by installScans.
	AMQP, Management, Queue, Scaler string
	CACert, ClientCert, ClientKey   string
}

// installScans makes a ScaledJob, its policy and their credentials.
func installScans(ctx context.Context, c *cluster.Cluster, job scanJob) error {
	job.Queue = queueScans
	if job.RealNodes {
		job.AMQP, job.Management, job.Scaler = cluster.AMQPURLInPods, cluster.ManagementURLInPods, "dns:///ebbtide-scaler.ebbtide-system:9090"
	} else {
		job.AMQP, job.Management, job.Scaler = c.Broker.AMQPURL("/"), c.Broker.ManagementURL(), c.ScalerAddress()
	}
	job.GraceSeconds = cmp.Or(job.GraceSeconds, 60)
	job.Strategy, job.ScaledJobMax = cmp.Or(job.Strategy, "default"), cmp.Or(job.ScaledJobMax, 1000)
	job.Calendar = cmp.Or(job.Calendar, fmt.Sprintf(
		`{timeZone: Europe/Prague, periods: [{name: every-day, from: "00:00", to: "24:00", limits: {maxReplicas: %d}}]}`, job.MaxReplicas))
	for field, file := range map[*string]string{
		&job.CACert: cluster.ScalerCA + ".crt", &job.ClientCert: cluster.ScalerClient + ".crt",
		&job.ClientKey: cluster.ScalerClient + ".key",
	} {
		content, err := c.PKI(file)
		if err != nil {
			return err
		}
		*field = base64.StdEncoding.EncodeToString(content)
	}
	text, err := template.ParseFS(manifests, "manifests/scans.yaml")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := text.Execute(&out, job); err != nil {
		return err
	}
	return c.ApplyYAML(ctx, out.Bytes())
}

// RunPods runs the pods that are bound to KWOK nodes until ctx ends. Fault says which are killed; nil for none.
func RunPods(ctx context.Context, c *cluster.Cluster, fault podrunner.Fault) error {
	runner, err := newRunner(c, fault)
	if err != nil {
		return err
	}
	return runner.Run(ctx)
}

func newRunner(c *cluster.Cluster, fault podrunner.Fault) (*podrunner.Runner, error) {
	config, err := c.Config(cluster.PodRunner)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	logFile, err := os.Create(filepath.Join(c.Dir, "logs", "pod-runner.log")) // open as long as the program
	if err != nil {
		return nil, err
	}
	programs := map[string]string{}
	for _, program := range []string{"ebbtide-worker", "e2e-scan", "e2e-boot"} {
		programs[program] = c.Bin(program)
	}
	log := slog.New(slog.NewJSONHandler(logFile, nil))
	return podrunner.New(client, programs, filepath.Join(c.Dir, "pods"), log, fault), nil
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
	summary, _, err := playOn(ctx, c, morning(rand.New(rand.NewPCG(20260302, 0))), begin, out)
	return summary, err
}

// playOn plays any arrivals.
func playOn(ctx context.Context, c *cluster.Cluster, arrivals []arrival, begin time.Time, out io.Writer) (Summary, *observer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return Summary{}, nil, err
	}
	connection, err := amqp.Dial(c.Broker.AMQPURL("/"))
	if err != nil {
		return Summary{}, nil, err
	}
	defer connection.Close()
	observed := newObserver(namespace, nodePoolLabel, nodePoolName)
	if err := observed.watch(ctx, client); err != nil {
		return Summary{}, nil, err
	}
	settled, err := collect(connection)
	if err != nil {
		return Summary{}, nil, err
	}
	sender, err := newPublisher(connection)
	if err != nil {
		return Summary{}, nil, err
	}
	live := newView(out, c, observed, settled)
	stopView := live.start(ctx)
	defer stopView()

	if err := sender.play(ctx, arrivals, func(scan) { settled.published() }); err != nil {
		return Summary{}, nil, err
	}
	waitErr := untilQuiet(ctx, c, observed, settled)
	stopView()
	return summarize(observed, settled, begin), observed, waitErr
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
	for _, ends := range settled.results {
		s.RepeatedMessages += len(ends) - 1
	}
	return s
}
