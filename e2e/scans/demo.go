// Package scans is a scan service on a local cluster: its queues, its load, its ScaledJob and policy, and an observer of what
// happens to messages, jobs, pods and nodes. Messages in RabbitMQ become Jobs through KEDA and Ebbtide's scaler, Ebbtide's
// scheduler packs their pods onto few nodes, and Karpenter removes the nodes that fall idle. The demo (Run) is a morning of
// scans; the scenarios of e2e/scenario and the benchmarks of bench/cluster are made of the same parts.
package scans

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
	// Namespace of the scans.
	Namespace = "scan"
	// MaxReplicas of the demo.
	MaxReplicas = 48
	// NodePoolLabel marks the nodes that Karpenter makes.
	NodePoolLabel = "karpenter.sh/nodepool"
	// NodePoolName is its value on those for scans.
	NodePoolName = "scan"
	// settleWithin bounds the time from the last publish to the last node's removal.
	settleWithin = 5 * time.Minute
)

// Programs are the project's own programs that a demo needs, for toolchain.BuildProject.
var Programs = []string{"./cmd/ebbtide-scaler", "./cmd/ebbtide-scheduler", "./cmd/ebbtide-worker", "./e2e/cmd/e2e-scan", "./e2e/cmd/e2e-boot"}

// WorkerArgs make a worker that scans one message and leaves; one that finds none leaves after a while.
var WorkerArgs = []string{
	"--queue", QueueScans, "--result-exchange", ExchangeResults, "--dead-letter-exchange", ExchangeDead,
	"--max-messages", "1", "--idle-timeout", "20s", "--summary-file", "/dev/termination-log",
}

// Install makes the queues, the policy, the NodePool and the ScaledJob of the demo in a cluster.
func Install(ctx context.Context, c *cluster.Cluster) error {
	return InstallWith(ctx, c, ScanJob{Image: "ebbtide-worker", WorkerArgs: WorkerArgs, MaxReplicas: MaxReplicas, CPU: "900m", Memory: "2Gi"})
}

// InstallWith is Install with another ScaledJob.
func InstallWith(ctx context.Context, c *cluster.Cluster, job ScanJob) error {
	if job.Topology == (Topology{}) {
		job.Topology = DefaultTopology
	}
	if err := job.Topology.Declare(c.Broker.AMQPURL("/")); err != nil {
		return fmt.Errorf("declare queues: %w", err)
	}
	job.Namespace = cmp.Or(job.Namespace, Namespace)
	if err := apply(ctx, c, "cluster.yaml", job); err != nil {
		return err
	}
	return InstallScans(ctx, c, job)
}

// apply applies a template of manifests.
func apply(ctx context.Context, c *cluster.Cluster, name string, values any) error {
	text, err := template.ParseFS(manifests, "manifests/"+name)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := text.Execute(&out, values); err != nil {
		return err
	}
	return c.ApplyYAML(ctx, out.Bytes())
}

// ScanJob is what differs between the scenarios' ScaledJobs.
type ScanJob struct {
	// Namespace, and name of the NodePool that its pods run on; default: those of the demo. So are the queues.
	Namespace string
	Topology  Topology
	// Scheduler of the pods; default: ebbtide. KeepNodes keeps it from draining their nodes.
	Scheduler   string
	KeepNodes   bool
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

	// Where things are, and what KEDA presents to a scaler that no chart installed, in base64; filled in by InstallScans.
	AMQP, Management, Queue, Address string
	CACert, ClientCert, ClientKey    string
}

// InstallScans makes a ScaledJob, its policy and their credentials.
func InstallScans(ctx context.Context, c *cluster.Cluster, job ScanJob) error {
	job.Namespace, job.Scheduler, job.Queue = cmp.Or(job.Namespace, Namespace), cmp.Or(job.Scheduler, "ebbtide"), cmp.Or(job.Topology.Scans, QueueScans)
	if job.RealNodes {
		job.AMQP, job.Management, job.Address = cluster.AMQPURLInPods, cluster.ManagementURLInPods, "dns:///ebbtide-scaler.ebbtide-system:9090"
	} else {
		job.AMQP, job.Management, job.Address = c.Broker.AMQPURL("/"), c.Broker.ManagementURL(), c.ScalerAddress()
	}
	job.GraceSeconds = cmp.Or(job.GraceSeconds, 60)
	job.Strategy, job.ScaledJobMax = cmp.Or(job.Strategy, "default"), cmp.Or(job.ScaledJobMax, 1000)
	job.Calendar = cmp.Or(job.Calendar, fmt.Sprintf(
		`{timeZone: Europe/Prague, periods: [{name: every-day, from: "00:00", to: "24:00", limits: {maxReplicas: %d}}], `+
			`exceptions: [{name: christmas, from: 12-24, to: 12-26, use: every-day}]}`, job.MaxReplicas))
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
	return apply(ctx, c, "scans.yaml", job)
}

// InstallStaticNode makes a node that is always there.
func InstallStaticNode(ctx context.Context, c *cluster.Cluster) error {
	node, err := manifests.ReadFile("manifests/static-node.yaml")
	if err != nil {
		return err
	}
	return c.ApplyYAML(ctx, node)
}

// RunPods runs the pods that are bound to KWOK nodes until ctx ends. Fault says which are killed; nil for none.
func RunPods(ctx context.Context, c *cluster.Cluster, fault podrunner.Fault) error {
	runner, err := NewRunner(c, fault)
	if err != nil {
		return err
	}
	return runner.Run(ctx)
}

// NewRunner returns what runs the pods of KWOK's nodes. Fault says which are killed; nil for none.
func NewRunner(c *cluster.Cluster, fault podrunner.Fault) (*podrunner.Runner, error) {
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

// Publish sends n scans at once, for people who try a running cluster.
func Publish(ctx context.Context, amqpURL string, n int) error {
	connection, err := amqp.Dial(amqpURL)
	if err != nil {
		return err
	}
	defer connection.Close()
	sender, err := NewPublisher(connection)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for i := range n {
		s := morning(random)[i%MorningMessages].Scan
		s.ID = fmt.Sprintf("%s-%d", time.Now().Format("150405"), i)
		if err := sender.Publish(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// Run runs the morning on a cluster on which Install and RunPods are done, and measures it until the last node is
// gone. Begin is when the whole run began. The live view goes to out.
func Run(ctx context.Context, c *cluster.Cluster, begin time.Time, out io.Writer) (Summary, error) {
	summary, _, err := PlayOn(ctx, c, morning(rand.New(rand.NewPCG(20260302, 0))), begin, out)
	return summary, err
}

// PlayOn runs any arrivals.
func PlayOn(ctx context.Context, c *cluster.Cluster, arrivals []Arrival, begin time.Time, out io.Writer) (Summary, *Observer, error) {
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
	observed := NewObserver(Namespace, NodePoolLabel, NodePoolName)
	if err := observed.Watch(ctx, client); err != nil {
		return Summary{}, nil, err
	}
	settled, err := Collect(connection)
	if err != nil {
		return Summary{}, nil, err
	}
	sender, err := NewPublisher(connection)
	if err != nil {
		return Summary{}, nil, err
	}
	live := newView(out, c, observed, settled)
	stopView := live.start(ctx)
	defer stopView()

	if err := sender.Play(ctx, QueueScans, arrivals, func(Scan) { settled.Published() }); err != nil {
		return Summary{}, nil, err
	}
	waitErr := UntilQuiet(ctx, c, observed, settled)
	stopView()
	return summarize(observed, settled, begin), observed, waitErr
}

// UntilQuiet waits until every message has ended, every job has finished and every node is gone.
func UntilQuiet(ctx context.Context, c *cluster.Cluster, observed *Observer, settled *Settlements) error {
	deadline := time.Now().Add(settleWithin)
	for {
		s := observed.Snapshot()
		open := settled.Open()
		if open == 0 && s.UnfinishedJobs == 0 && len(s.PodsOnNode) == 0 {
			return nil
		}
		if name := c.Failed(); name != "" {
			return fmt.Errorf("%s ended by itself: see %s", name, filepath.Join(c.Dir, "logs", name+".log"))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not quiet %s after the last message: %d messages open, %d jobs unfinished, %d nodes left",
				settleWithin, open, s.UnfinishedJobs, len(s.PodsOnNode))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func summarize(observed *Observer, settled *Settlements, begin time.Time) Summary {
	sent, ends, waits := settled.Sent(), settled.Ends(), settled.Waits()
	figures, jobs := observed.NodeFigures(), observed.Snapshot()
	s := Summary{
		Messages: sent, Jobs: jobs.Jobs, DuplicateJobs: observed.IdlePods(),
		LostMessages: sent - len(ends), WaitSecondsP50: Percentile(waits, 50),
		WaitSecondsP95: Percentile(waits, 95), PeakNodes: figures.Peak, NodeSeconds: Round(figures.Seconds),
		LowerBoundNodeSeconds: Round(figures.LowerBound), DrainSeconds: Round(figures.Drain.Seconds()),
		RemainingNodes: figures.Remaining, WallSeconds: Round(time.Since(begin).Seconds()),
	}
	for _, ends := range ends {
		s.RepeatedMessages += len(ends) - 1
	}
	return s
}
