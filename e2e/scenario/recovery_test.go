package scenario

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/podrunner"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

var (
	absence       = flag.Duration("absence", 30*time.Second, "how long TestRecovery leaves out what it takes away")
	drillsWith    = flag.String("drill", "", "let TestRecovery play only drills that have this in their names")
	recoveryJSON  = flag.String("recovery", "", "write what TestRecovery measured to this file")
	recoverWithin = 4 * time.Minute
)

// drill is one failure in the middle of a burst, and what came of it.
type drill struct {
	Name  string `json:"drill"`
	Scans int    `json:"scans"`
	// Lost scans have no result. Repeated ones have several, of one key: their worker was killed after its result was confirmed.
	// At most MayRepeat can be: as many as there were workers to be killed.
	Lost      int `json:"lost"`
	Repeated  int `json:"repeated"`
	MayRepeat int `json:"mayRepeat"`
	// OutageSeconds from the failure until everything was started again, RecoverySeconds from there to the last scan's result.
	OutageSeconds   float64 `json:"outageSeconds"`
	RecoverySeconds float64 `json:"recoverySeconds"`
}

// The drills of docs/how-to/recover.md, in the middle of a burst each: no message is lost, and every scan is done.
func TestRecovery(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 18*time.Minute+5**absence)
	defer cancel()
	c, _ := startCluster(ctx, t, scans.Programs)
	r := newRecovery(ctx, t, c)
	var drills []drill
	for _, d := range []struct {
		name string
		// fail lets something fail and brings it back. It returns how many workers it may have killed.
		fail func() int
	}{
		{"the broker's process, then its disk, restored from definitions and an earlier copy", r.brokerLost},
		{"the scaler and the scheduler are gone", r.gone(cluster.Scaler, cluster.Scheduler)},
		{"KEDA is gone", r.gone(cluster.KEDA)},
		{"all nodes are gone", r.nodesLost},
		{"API server and etcd, restored from a snapshot of half a burst earlier", r.etcdRestored},
	} {
		if strings.Contains(d.name, *drillsWith) {
			drills = append(drills, r.play(d.name, d.fail))
		}
	}
	if len(drills) == 0 {
		t.Errorf("no drill has %q in its name", *drillsWith)
	}
	if *recoveryJSON != "" {
		if err := scans.WriteJSON(*recoveryJSON, drills); err != nil {
			t.Error(err)
		}
	}
}

// recovery is the scenario's state.
type recovery struct {
	*testing.T
	ctx      context.Context
	c        *cluster.Cluster
	client   kubernetes.Interface
	runner   *podrunner.Runner
	observed *scans.Observer
	sent     int
	// kubelet is true where components that end by themselves are started again, as by the kubelet that they run under.
	kubelet bool
}

func newRecovery(ctx context.Context, t *testing.T, c *cluster.Cluster) *recovery {
	t.Helper()
	r := &recovery{T: t, ctx: ctx, c: c, observed: scans.NewObserver(scans.Namespace, scans.NodePoolLabel, scans.NodePoolName)}
	var err error
	r.client, err = kubernetes.NewForConfig(c.Admin())
	r.must(err)
	r.must(scans.Install(ctx, c))
	r.must(r.observed.Watch(ctx, r.client))
	r.runner, err = scans.NewRunner(c, nil)
	r.must(err)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.runner.Run(running) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *recovery) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// until waits until f is true.
func (r *recovery) until(what string, within time.Duration, f func() bool) {
	r.Helper()
	for deadline := time.Now().Add(within); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("not within %s: %s", within, what)
		}
	}
}

// publish sends scans of a few seconds, through a connection of its own.
func (r *recovery) publish(n int) {
	r.Helper()
	connection, err := amqp.Dial(r.c.Broker.AMQPURL("/"))
	r.must(err)
	defer connection.Close()
	sender, err := scans.NewPublisher(connection)
	r.must(err)
	for range n {
		r.must(sender.Publish(r.ctx, scans.Scan{ID: fmt.Sprintf("scan-%04d", r.sent), Seconds: 2 + float64(r.sent%7)}))
		r.sent++
	}
}

// play sends a burst, lets something fail while some scans run and others wait, sends more, and waits for all results.
func (r *recovery) play(name string, fail func() int) drill {
	r.Helper()
	d := drill{Name: name}
	first := r.sent
	r.publish(30)
	r.until("scans that run", 2*time.Minute, func() bool { return r.observed.Running() >= 10 })
	failedAt := time.Now()
	d.MayRepeat = fail()
	restored := time.Now()
	d.OutageSeconds = scans.Round(restored.Sub(failedAt).Seconds())
	d.Scans = r.sent - first

	connection, err := amqp.Dial(r.c.Broker.AMQPURL("/"))
	r.must(err)
	defer connection.Close()
	settled, err := scans.Collect(connection)
	r.must(err)
	// What is missing at the deadline is lost.
	for deadline := restored.Add(recoverWithin); settled.Done() < d.Scans && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		r.startAgain()
	}
	d.RecoverySeconds = scans.Round(time.Since(restored).Seconds())
	all := settled.Ends()
	for i := first; i < r.sent; i++ {
		switch ends := all[fmt.Sprintf("scan-%04d", i)]; {
		case len(ends) == 0 || ends[0].Dead:
			d.Lost++
		case len(ends) > 1:
			d.Repeated++
		}
	}
	r.Logf("%-75s %d scans, %d lost, %d repeated; out for %.0f s, all done %.0f s after", d.Name, d.Scans, d.Lost, d.Repeated,
		d.OutageSeconds, d.RecoverySeconds)
	if d.Lost > 0 {
		r.Errorf("%s: %d of %d scans have no result within %s", d.Name, d.Lost, d.Scans, recoverWithin)
	}
	if d.Repeated > d.MayRepeat {
		r.Errorf("%s: %d scans have several results, want at most the %d whose workers were killed", d.Name, d.Repeated, d.MayRepeat)
	}
	r.until("no unfinished jobs", 3*time.Minute, func() bool { r.startAgain(); return r.allJobsFinished() })
	if gone := r.c.Failed(); gone != "" {
		r.Fatalf("%s ended by itself: see %s", gone, filepath.Join(r.c.Dir, "logs", gone+".log"))
	}
	return d
}

// startAgain starts components that ended by themselves, where the drill says that a kubelet would.
func (r *recovery) startAgain() {
	if gone := r.c.Failed(); r.kubelet && gone != "" {
		r.must(r.c.Restart(r.ctx, gone))
	}
}

// allJobsFinished asks the API server: what was observed may have been forgotten since.
func (r *recovery) allJobsFinished() bool {
	jobs, err := r.client.BatchV1().Jobs(scans.Namespace).List(r.ctx, metav1.ListOptions{})
	r.must(err)
	for _, job := range jobs.Items {
		if !slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
			return c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed)
		}) {
			return false
		}
	}
	return true
}

// gone takes components away for a while, in which more messages come.
func (r *recovery) gone(components ...string) func() int {
	return func() int {
		r.must(r.c.Crash(components...))
		back := time.Now().Add(*absence)
		r.publish(20)
		time.Sleep(time.Until(back)) // the failure's length, which is what is drilled
		r.must(r.c.Restart(r.ctx, components...))
		return 0 // they are next to the scans: no worker notices
	}
}

// brokerLost copies the broker's disk while its process is down, lets more scans come and run, and loses the disk. Definitions
// alone bring back the queues, the copy the messages of its time, and who sent messages since then sends them again.
func (r *recovery) brokerLost() (mayRepeat int) {
	definitions, err := r.c.Broker.Definitions(r.ctx)
	r.must(err)
	mayRepeat = r.observed.Running()
	r.c.Broker.Crash()
	disk, backup := r.c.Broker.Data(), filepath.Join(r.TempDir(), "disk")
	r.copyFolder(disk, backup)
	r.must(r.c.Broker.Restart(r.ctx))
	afterCopy, ended := r.sent, r.observed.Snapshot().Ended
	r.publish(20)
	r.until("scans that end after the copy", 2*time.Minute, func() bool { return r.observed.Snapshot().Ended >= ended+15 })

	mayRepeat += r.observed.Running()
	r.c.Broker.Crash()
	r.must(os.RemoveAll(disk))
	r.must(r.c.Broker.Restart(r.ctx))
	r.must(r.c.Broker.ImportDefinitions(r.ctx, definitions))
	connection, err := amqp.Dial(r.c.Broker.AMQPURL("/"))
	r.must(err)
	channel, err := connection.Channel()
	r.must(err)
	for _, queue := range []string{scans.QueueScans, scans.QueueResults, scans.QueueDead} {
		state, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil || state.Messages > 0 {
			r.Errorf("after the import of definitions into an empty broker: %s has %d messages, %v", queue, state.Messages, err)
		}
	}
	connection.Close()

	r.c.Broker.Crash()
	r.must(os.RemoveAll(disk))
	r.copyFolder(backup, disk)
	r.must(r.c.Broker.Restart(r.ctx))
	r.must(r.c.Broker.ImportDefinitions(r.ctx, definitions)) // harms nothing that is there
	r.sent = afterCopy
	r.publish(20) // the same again, by their keys
	return mayRepeat
}

// copyFolder copies a folder with owners and modes, which Erlang insists on.
func (r *recovery) copyFolder(from, to string) {
	r.Helper()
	out, err := exec.CommandContext(r.ctx, "cp", "-a", from, to).CombinedOutput()
	if err != nil {
		r.Fatalf("cp -a %s %s: %v: %s", from, to, err, out)
	}
}

// nodesLost kills everything on all nodes, and the nodes, without a word to the API server.
func (r *recovery) nodesLost() int {
	running := r.observed.Running()
	r.runner.LoseNodes()
	nodes, err := r.client.CoreV1().Nodes().List(r.ctx, metav1.ListOptions{LabelSelector: scans.NodePoolLabel + "=" + scans.NodePoolName})
	r.must(err)
	if len(nodes.Items) == 0 {
		r.Fatal("there are no nodes to lose")
	}
	for _, node := range nodes.Items {
		r.loseNode(&node)
	}
	r.publish(20)
	return running
}

// loseNode does what a cloud's node controller does for an instance that is gone.
func (r *recovery) loseNode(node *corev1.Node) {
	r.Helper()
	_, err := r.client.CoreV1().Nodes().Patch(r.ctx, node.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	if err == nil {
		err = r.client.CoreV1().Nodes().Delete(r.ctx, node.Name, metav1.DeleteOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		r.Fatal(err)
	}
}

// etcdRestored saves etcd, lets more scans come and run, kills the API server and etcd, and restores the save: the API server has
// forgotten the newer jobs, and how the older ones ended.
func (r *recovery) etcdRestored() int {
	file := filepath.Join(r.TempDir(), "etcd.db")
	r.must(r.c.SaveEtcd(r.ctx, file))
	r.publish(20)
	jobs := r.observed.Snapshot().Jobs
	r.until("jobs that the snapshot does not know", time.Minute, func() bool { return r.observed.Snapshot().Jobs >= jobs+10 })
	running := r.observed.Running()
	r.must(r.c.Crash(cluster.APIServer, cluster.Etcd))
	r.must(r.c.RestoreEtcd(r.ctx, file))
	r.must(r.c.Restart(r.ctx, cluster.Etcd, cluster.APIServer))
	// Components end because they have no API server, and the scheduler because pods are not where it knows them to be.
	r.kubelet = true
	return running
}
