package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/images"
)

const (
	pauseReference  = "ebbtide.dev/pause:e2e"
	workerReference = "ebbtide.dev/ebbtide-worker:e2e"
	// nodeGrace is how long a worker lets its scan go on after SIGTERM.
	nodeGrace = 3 * time.Second
)

// NodePrograms are the project's own programs that run outside images in the node scenario.
var NodePrograms = []string{"./cmd/ebbtide", "./cmd/ebbtide-scaler", "./cmd/ebbtide-scheduler"}

// NodeReport is how the node scenario's messages ended, by the scan's id.
type NodeReport struct {
	Ends map[string][]end
	// FailedPods ended with an exit code other than 0; Pods is all of them.
	FailedPods, Pods int
	// Decisions of a scaler in a pod, as the command ebbtide reads them through its own port-forward.
	Decisions string
}

// RunNode runs scans in containers on a real node, from images that it builds. The worker of the scan "crash" is killed
// by SIGKILL; the pods of "given-back" and "finishes" are deleted while they scan, the first with a scan that takes
// longer than the worker's grace period. Ordinary scans, and ones that fail in the ways a command can, come after them.
func RunNode(ctx context.Context, c *cluster.Cluster, root string, progress io.Writer) (NodeReport, error) {
	node, err := startNode(ctx, c, root)
	if err != nil {
		return NodeReport{}, err
	}
	uri := c.Broker.AMQPURL("/")
	if err := declareTopology(uri); err != nil {
		return NodeReport{}, err
	}
	if err := c.ApplyYAML(ctx, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: "+namespace+"}\n")); err != nil {
		return NodeReport{}, err
	}
	if err := installScans(ctx, c, scanJob{
		Image: workerReference, WorkerArgs: append([]string{"--grace-period", nodeGrace.String()}, workerArgs...),
		MaxReplicas: 8, CPU: "50m", Memory: "32Mi", HostNetwork: true, GraceSeconds: 20,
	}); err != nil {
		return NodeReport{}, err
	}
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return NodeReport{}, err
	}
	connection, err := amqp.Dial(uri)
	if err != nil {
		return NodeReport{}, err
	}
	defer connection.Close()
	settled, err := collect(connection)
	if err != nil {
		return NodeReport{}, err
	}
	observed := newObserver(namespace, corev1.LabelHostname, node.Name)
	if err := observed.watch(ctx, client); err != nil {
		return NodeReport{}, err
	}
	sender, err := newPublisher(connection)
	if err != nil {
		return NodeReport{}, err
	}
	n := nodeScenario{client: client, sender: sender, settled: settled, observed: observed, progress: progress}
	if err := n.play(ctx); err != nil {
		return NodeReport{}, err
	}
	report := n.report()
	report.Decisions, err = decisionsOfPod(ctx, c, root, node)
	return report, err
}

func startNode(ctx context.Context, c *cluster.Cluster, root string) (*cluster.Node, error) {
	pause, worker := filepath.Join(c.Dir, "pause.tar"), filepath.Join(c.Dir, "worker.tar")
	for _, image := range []struct {
		spec            images.Spec
		file, reference string
	}{
		{images.Spec{Name: "pause", Packages: []string{"./images/pause"}, Arch: runtime.GOARCH}, pause, pauseReference},
		{
			images.Spec{
				Name: "ebbtide-worker", Packages: []string{"./cmd/ebbtide-worker", "./e2e/cmd/e2e-scan"}, Arch: runtime.GOARCH,
			}, worker, workerReference,
		},
	} {
		built, err := images.Build(ctx, root, image.spec)
		if err != nil {
			return nil, err
		}
		if err := images.WriteTarball(image.file, image.reference, built); err != nil {
			return nil, err
		}
	}
	node, err := c.StartNode(ctx, "localhost", pause, pauseReference)
	if err != nil {
		return nil, err
	}
	return node, node.Import(ctx, worker)
}

// nodeScenario is a run in progress.
type nodeScenario struct {
	client   kubernetes.Interface
	sender   *publisher
	settled  *settlements
	observed *observer
	progress io.Writer
}

// OrdinaryScans are those of the node scenario that nothing happens to.
const OrdinaryScans = 23

func (n *nodeScenario) play(ctx context.Context) error {
	for _, step := range []struct {
		scan scan
		do   func(context.Context, scanProcess) error
	}{
		{scan{ID: "crash", Seconds: 4}, func(_ context.Context, p scanProcess) error { return syscall.Kill(p.worker, syscall.SIGKILL) }},
		{scan{ID: "given-back", Seconds: 2 * nodeGrace.Seconds()}, n.deletePod},
		{scan{ID: "finishes", Seconds: nodeGrace.Seconds() / 2}, n.deletePod},
	} {
		if err := n.publish(ctx, step.scan); err != nil {
			return err
		}
		process, err := awaitScan(ctx)
		if err != nil {
			return fmt.Errorf("scan %s: %w", step.scan.ID, err)
		}
		if err := step.do(ctx, process); err != nil {
			return fmt.Errorf("scan %s: %w", step.scan.ID, err)
		}
		if err := n.quiet(ctx); err != nil {
			return fmt.Errorf("scan %s: %w", step.scan.ID, err)
		}
		fmt.Fprintf(n.progress, "scan %-12s settled\n", step.scan.ID)
	}
	scans := []scan{
		{ID: "fails-1", Seconds: 0.1, ExitCode: 3}, {ID: "fails-2", Seconds: 0.1, ExitCode: 65},
		{ID: "third-time", Seconds: 0.1, ExitCode: 75, SucceedsAt: 2}, {ID: "never", Seconds: 0.1, ExitCode: 75},
	}
	for i := range OrdinaryScans {
		scans = append(scans, scan{ID: fmt.Sprintf("scan-%02d", i), Seconds: 0.5})
	}
	for _, s := range scans {
		if err := n.publish(ctx, s); err != nil {
			return err
		}
	}
	if err := n.quiet(ctx); err != nil {
		return err
	}
	fmt.Fprintf(n.progress, "%d more scans settled\n", len(scans))
	return nil
}

func (n *nodeScenario) publish(ctx context.Context, s scan) error {
	n.settled.published()
	return n.sender.publish(ctx, s)
}

// quiet waits until every message is settled and every job has finished.
func (n *nodeScenario) quiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("not settled within three minutes"))
	defer cancel()
	for n.settled.open() > 0 || n.observed.snapshot().unfinishedJobs > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %d messages and %d jobs are open", context.Cause(ctx), n.settled.open(),
				n.observed.snapshot().unfinishedJobs)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

func (n *nodeScenario) deletePod(ctx context.Context, p scanProcess) error {
	return n.client.CoreV1().Pods(namespace).Delete(ctx, p.pod, metav1.DeleteOptions{})
}

func (n *nodeScenario) report() NodeReport {
	n.settled.mu.Lock()
	defer n.settled.mu.Unlock()
	n.observed.mu.Lock()
	defer n.observed.mu.Unlock()
	report := NodeReport{Ends: n.settled.results, Pods: len(n.observed.pods)}
	for _, pod := range n.observed.pods {
		if pod.exitCode != 0 {
			report.FailedPods++
		}
	}
	return report
}

// scanProcess is a scan that runs in a container.
type scanProcess struct {
	worker int // process id of its worker
	pod    string
}

// awaitScan waits for the only scan that runs, and finds its worker and its pod.
func awaitScan(ctx context.Context) (scanProcess, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("no scan started within two minutes"))
	defer cancel()
	for {
		found, err := filepath.Glob("/proc/[0-9]*/comm")
		if err != nil {
			return scanProcess{}, err
		}
		for _, path := range found {
			if comm, err := os.ReadFile(path); err == nil && string(comm) == "e2e-scan\n" {
				if p, err := describeScan(filepath.Dir(path)); err == nil {
					return p, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return scanProcess{}, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func describeScan(proc string) (scanProcess, error) {
	var p scanProcess
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return p, err
	}
	for _, line := range strings.Split(string(status), "\n") {
		if parent, ok := strings.CutPrefix(line, "PPid:"); ok {
			if p.worker, err = strconv.Atoi(strings.TrimSpace(parent)); err != nil {
				return p, err
			}
		}
	}
	environment, err := os.ReadFile(filepath.Join(proc, "environ"))
	if err != nil {
		return p, err
	}
	for _, variable := range bytes.Split(environment, []byte{0}) {
		if name, ok := bytes.CutPrefix(variable, []byte("POD_NAME=")); ok {
			p.pod = string(name)
		}
	}
	if p.pod == "" || p.worker <= 1 {
		return p, errors.New("not the scan of a worker in a pod")
	}
	return p, nil
}
