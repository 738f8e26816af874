package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	amqp "github.com/rabbitmq/amqp091-go"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
	"github.com/ebbtide-dev/ebbtide/examples/demo-scanner"
	"github.com/ebbtide-dev/ebbtide/images"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// startupResult says where the time between a message and its scan went, in one variant of a scan queue.
type startupResult struct {
	Variant  string        `json:"variant"`
	Messages int           `json:"messages"`
	Steps    []startupStep `json:"steps"`
}

// startupStep is one step of all messages. The steps of a message follow one another, and add up to the step total.
type startupStep struct {
	Step       string  `json:"step"`
	P50Seconds float64 `json:"p50Seconds"`
	P95Seconds float64 `json:"p95Seconds"`
}

const (
	startupRelease = "startup"
	startupBegins  = "the scan begins"
	// startupWithin bounds one message.
	startupWithin = 2 * time.Minute
	workerImage   = "ebbtide-worker"
	scannerInOne  = demoscanner.Name + "-with-worker"
)

// startupBase are the values of all variants, after those of values-test.yaml. The command says when it begins.
const startupBase = `
command: [sh, -c, "echo '` + startupBegins + `' >&2; exec git ls-files --stage"]
worker: {maxMessages: 1, idleTimeout: 1m}
scaledJob: {pollingInterval: %d, successfulJobsHistoryLimit: 50}
sourceStore: {enabled: true, claim: source, args: [--max-age=1h, --protocols=file]}
test: {messages: []}
`

// startupVariant is one way to run the queue.
type startupVariant struct {
	name   string
	values string
	poll   time.Duration
	// pull makes every message find nodes without the images; headroom, nodes that are full of it; warm, a worker that waits.
	pull, headroom, warm bool
}

const startupPoll = 2 * time.Second

func startupVariants() []startupVariant {
	const inImage = "worker: {inImage: true}\nimage: {repository: " + images.Registry + "/" + scannerInOne + "}\n"
	return []startupVariant{
		{name: "poll-5s", poll: 5 * time.Second},
		{name: "default", poll: startupPoll},
		{name: "worker-in-image", poll: startupPoll, values: inImage},
		{name: "pull", poll: startupPoll, pull: true},
		{name: "headroom", poll: startupPoll, values: inImage, headroom: true},
		{name: "waiting-worker", poll: startupPoll, warm: true,
			values: "worker: {maxMessages: 0, idleTimeout: 1h, maxLifetime: 1h}\npolicy: {calendar: {default: {idleReplicas: 1}}}\n"},
	}
}

// startupVariantNames are the names of the variants.
func startupVariantNames() []string {
	var names []string
	for _, v := range startupVariants() {
		names = append(names, v.name)
	}
	return names
}

// startup is the benchmark's state.
type startup struct {
	c        *cluster.Cluster
	client   kubernetes.Interface
	channel  *amqp.Channel
	observed *scans.Observer
	random   *rand.Rand
	sent     int

	mu    sync.Mutex
	tasks []cluster.TaskEvent
}

// runStartup sends messages, one at a time, into the idle scan queue of charts/scan-jobs on a cluster of real nodes, and measures what is
// between each and its scan: once with each of the named variants.
func runStartup(
	ctx context.Context, c *cluster.Cluster, variants []string, messages int, seed uint64, out io.Writer,
) ([]startupResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &startup{c: c, observed: scans.NewObserver(scans.Namespace, corev1.LabelOSStable, "linux"), random: rand.New(rand.NewPCG(seed, 0))}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	connection, err := amqp.Dial(c.Broker.AMQPURL("/"))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	if s.channel, err = connection.Channel(); err != nil {
		return nil, err
	}
	var all []startupResult
	for _, variant := range startupVariants() {
		if !slices.Contains(variants, variant.name) {
			continue
		}
		result, err := s.run(ctx, variant, messages, out)
		if err != nil {
			return all, fmt.Errorf("%s: %w", variant.name, err)
		}
		all = append(all, result)
	}
	return all, nil
}

// prepare installs all but the scan queue.
func (s *startup) prepare(ctx context.Context) (err error) {
	if s.client, err = kubernetes.NewForConfig(s.c.Admin()); err != nil {
		return err
	}
	if err := scans.PrepareInstall(ctx, s.c); err != nil {
		return err
	}
	if err := s.addScanners(ctx); err != nil {
		return err
	}
	if _, err := s.c.Exec(ctx, "helm", "install", "ebbtide", "charts/ebbtide", "-n", "ebbtide-system", "--create-namespace",
		"--set", "image.tag="+scans.ImageTag, "--wait", "--timeout", "3m"); err != nil {
		return err
	}
	if _, err := s.c.Exec(ctx, "kubectl", "create", "namespace", scans.Namespace); err != nil {
		return err
	}
	if _, err := scans.SourceVolume(ctx, s.c, "source"); err != nil {
		return err
	}
	if err := s.c.ApplyYAML(ctx, []byte(`apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: source, namespace: `+scans.Namespace+`}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}
`)); err != nil {
		return err
	}
	if err := s.observed.Watch(ctx, s.client); err != nil {
		return err
	}
	return s.c.WatchTasks(ctx, func(event cluster.TaskEvent) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tasks = append(s.tasks, event)
	})
}

// addScanners gives the nodes and their registry the scanner, alone and with the worker in its image, and the registry the worker's image.
func (s *startup) addScanners(ctx context.Context) error {
	root, err := toolchain.Root()
	if err != nil {
		return err
	}
	scanner, err := demoscanner.Build(ctx, root)
	if err != nil {
		return err
	}
	worker, err := images.Build(ctx, root, images.Spec{
		Name: workerImage, Packages: []string{"./cmd/ebbtide-worker"}, Arch: runtime.GOARCH,
	})
	if err != nil {
		return err
	}
	layers, err := worker.Layers()
	if err != nil {
		return err
	}
	both, err := mutate.AppendLayers(scanner, layers...)
	if err != nil {
		return err
	}
	if err := s.c.StartRegistry(ctx); err != nil {
		return err
	}
	return errors.Join(s.c.PushImage(ctx, demoscanner.Name, scans.ImageTag, scanner), s.c.PushImage(ctx, workerImage, scans.ImageTag, worker),
		s.c.AddImage(ctx, demoscanner.Name, scans.ImageTag, scanner), s.c.AddImage(ctx, scannerInOne, scans.ImageTag, both))
}

// run installs a variant, measures its messages, and uninstalls it.
func (s *startup) run(ctx context.Context, v startupVariant, messages int, out io.Writer) (startupResult, error) {
	if v.headroom {
		full, err := s.fullNodes(ctx)
		if err != nil {
			return startupResult{}, err
		}
		v.values += full
	}
	base, own := filepath.Join(s.c.Dir, "startup-base.yaml"), filepath.Join(s.c.Dir, "startup-"+v.name+".yaml")
	if err := errors.Join(
		os.WriteFile(base, fmt.Appendf(nil, startupBase, int(v.poll.Seconds())), 0o644), os.WriteFile(own, []byte(v.values), 0o644),
	); err != nil {
		return startupResult{}, err
	}
	if _, err := s.c.Exec(ctx, "helm", "install", startupRelease, "charts/scan-jobs", "-n", scans.Namespace, "--timeout", "3m",
		"-f", "charts/scan-jobs/values-test.yaml", "-f", base, "-f", own); err != nil {
		return startupResult{}, err
	}
	ended, err := s.channel.Consume(startupRelease+".results", startupRelease, true, false, false, false, nil)
	if err != nil {
		return startupResult{}, err
	}
	var steps []map[string]time.Duration
	for i := range messages + 1 {
		took, err := s.message(ctx, v, ended)
		if err != nil {
			return startupResult{}, err
		}
		fmt.Fprintf(out, "%-16s %2d of %d: %s\n", v.name, i, messages, took["total"].Round(10*time.Millisecond))
		if i > 0 { // the first one waits for KEDA to take up the ScaledJob, and fetches the source
			steps = append(steps, took)
		}
	}
	if v.headroom {
		events, err := s.client.CoreV1().Events(scans.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=Preempted"})
		if err != nil {
			return startupResult{}, err
		}
		if len(events.Items) < messages {
			return startupResult{}, fmt.Errorf("%d scans pushed away %d pods of the headroom, want one each", messages, len(events.Items))
		}
	}
	if err := s.channel.Cancel(startupRelease, false); err != nil {
		return startupResult{}, err
	}
	if _, err := s.c.Exec(ctx, "helm", "uninstall", startupRelease, "-n", scans.Namespace, "--wait", "--timeout", "2m"); err != nil {
		return startupResult{}, err
	}
	return summarizeStartup(v.name, steps), s.removeJobs(ctx)
}

// fullNodes are values with which the headroom takes what is left of each node, and a scan as much.
func (s *startup) fullNodes(ctx context.Context) (string, error) {
	nodes, err := s.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	pods, err := s.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
	if err != nil {
		return "", err
	}
	var free []int64 // millicores of each node
	for _, node := range nodes.Items {
		left := node.Status.Allocatable.Cpu().MilliValue()
		for _, pod := range pods.Items {
			for _, container := range pod.Spec.Containers {
				if pod.Spec.NodeName == node.Name {
					left -= container.Resources.Requests.Cpu().MilliValue()
				}
			}
		}
		free = append(free, left)
	}
	if least := slices.Min(free); least < 1 || 2*least <= slices.Max(free) {
		return "", fmt.Errorf("the nodes have %v millicores left: that can't be filled with one pod of the same size each", free)
	}
	return fmt.Sprintf("resources: {requests: {cpu: %dm, memory: 64Mi}, limits: {memory: 256Mi}}\nheadroom: {replicas: %d}\n",
		slices.Min(free), len(free)), nil
}

func summarizeStartup(variant string, messages []map[string]time.Duration) startupResult {
	result := startupResult{Variant: variant, Messages: len(messages)}
	for _, step := range startupSteps {
		var took []time.Duration
		for _, m := range messages {
			if length, has := m[step]; has {
				took = append(took, length)
			}
		}
		if len(took) > 0 {
			result.Steps = append(result.Steps, startupStep{step, scans.NearestRank(took, 50).Seconds(), scans.NearestRank(took, 95).Seconds()})
		}
	}
	return result
}

// message sends a message when nothing runs, and measures what is between it and its scan.
func (s *startup) message(ctx context.Context, v startupVariant, ended <-chan amqp.Delivery) (map[string]time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startupWithin, fmt.Errorf("not within %s", startupWithin))
	defer cancel()
	if v.pull {
		if err := s.removeJobs(ctx); err != nil {
			return nil, err
		}
		for _, name := range []string{demoscanner.Name, workerImage} {
			if err := s.c.RemoveImage(ctx, name, scans.ImageTag); err != nil {
				return nil, err
			}
		}
	}
	if err := s.idle(ctx, v.warm); err != nil {
		return nil, err
	}
	// At any time between two polls.
	if err := sleep(ctx, time.Duration(s.random.Int64N(int64(v.poll)))); err != nil {
		return nil, err
	}
	s.sent++
	id := fmt.Sprintf("startup-%03d", s.sent)
	published := time.Now()
	if err := s.channel.PublishWithContext(ctx, startupRelease, "", true, false, amqp.Publishing{
		DeliveryMode: amqp.Persistent, MessageId: id, Timestamp: published,
		Headers: amqp.Table{"repository": "file:///repositories/payments.git"},
	}); err != nil {
		return nil, err
	}
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s has no result: %w", id, context.Cause(ctx))
		case delivery, open := <-ended:
			if !open {
				return nil, errors.New("the consumer of results ended")
			}
			if delivery.MessageId != id {
				continue
			}
			result, err := results.Unmarshal(delivery.ContentType, delivery.Body)
			if err != nil {
				return nil, err
			}
			if reason := result.GetReason(); reason != "" {
				return nil, fmt.Errorf("%s failed: %s", id, reason)
			}
			return s.measure(ctx, v, id, published, result.GetWorker())
		}
	}
}

// idle waits until nothing runs, or until a worker waits.
func (s *startup) idle(ctx context.Context, warm bool) error {
	for {
		queue, err := s.channel.QueueDeclarePassive(startupRelease, true, false, false, false, nil)
		if err != nil {
			return err
		}
		// Polls that were answered before must be over, too.
		if warm && queue.Consumers > 0 && queue.Messages == 0 || !warm && s.observed.Snapshot().UnfinishedJobs == 0 && s.placed(ctx) {
			return sleep(ctx, time.Second)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("not idle: %d consumers, %+v: %w", queue.Consumers, s.observed.Snapshot(), err)
		}
	}
}

// placed reports whether every pod has a node: what a scan has pushed away is back.
func (s *startup) placed(ctx context.Context) bool {
	pods, err := s.client.CoreV1().Pods(scans.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Pending"})
	return err == nil && len(pods.Items) == 0
}

func sleep(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(length):
		return nil
	}
}

// removeJobs removes all jobs, and waits until their containers are gone too.
func (s *startup) removeJobs(ctx context.Context) error {
	if err := s.c.Client().DeleteAllOf(ctx, &batchv1.Job{}, client.InNamespace(scans.Namespace),
		client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		return err
	}
	for {
		pods, err := s.client.CoreV1().Pods(scans.Namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel})
		if err != nil || len(pods.Items) == 0 {
			return err
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("pods of jobs are left: %w", err)
		}
	}
}

// printStartup writes the medians and the 95th percentiles of all variants as a table.
func printStartup(out io.Writer, all []startupResult) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "p50 / p95, seconds\t")
	for _, result := range all {
		fmt.Fprintf(table, "%s\t", result.Variant)
	}
	fmt.Fprintln(table)
	for _, name := range startupSteps {
		fmt.Fprintf(table, "%s\t", name)
		for _, result := range all {
			cell := ""
			for _, step := range result.Steps {
				if step.Step == name {
					cell = fmt.Sprintf("%.2f / %.2f", step.P50Seconds, step.P95Seconds)
				}
			}
			fmt.Fprintf(table, "%s\t", cell)
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}
