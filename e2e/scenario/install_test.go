package scenario

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/images"
)

const (
	system = "ebbtide-system"
	// workerGrace is how long a worker lets its scan run after SIGTERM.
	workerGrace = 3 * time.Second
	burstScans  = 20
	// ordinaryScans are those beside the failing ones that nothing happens to.
	ordinaryScans = 8
)

// TestInstall lives through a release on real nodes, as its users do: KEDA from its manifests, the chart by helm from the project's
// images; a burst of scans, an upgrade and a rollback in the midst of it; scans that go wrong in every way; an uninstall that leaves
// nothing.
//
// What is not tried here: nothing enforces the chart's network policies in this cluster.
func TestInstall(t *testing.T) {
	needNodes(t)
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute) // most of it for images, where nothing is compiled yet
	defer cancel()
	r := newRelease(ctx, t)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"install", r.install}, {"upgrade in a burst", r.upgradeInABurst}, {"explain", r.explain}, {"scans go wrong", r.scansGoWrong},
		{"uninstall", r.uninstall},
	} {
		begin := time.Now()
		step.do()
		t.Logf("%s: %.0f s", step.name, time.Since(begin).Seconds())
	}
}

// release is the scenario's state.
type release struct {
	*testing.T
	ctx      context.Context
	c        *cluster.Cluster
	client   kubernetes.Interface
	sender   *scans.Publisher
	settled  *scans.Settlements
	observed *scans.Observer
}

func newRelease(ctx context.Context, t *testing.T) *release {
	t.Helper()
	c, _ := startWith(ctx, t, []string{"./cmd/ebbtide", "./cmd/ebbtide-scheduler"},
		func(ctx context.Context, o cluster.Options) (*cluster.Cluster, error) {
			return cluster.StartNodes(ctx, o, 2)
		})
	r := &release{T: t, ctx: ctx, c: c, observed: scans.NewObserver(scans.Namespace, corev1.LabelOSStable, "linux")}
	var err error
	r.client, err = kubernetes.NewForConfig(c.Admin())
	r.must(err)
	r.must(scans.PrepareInstall(ctx, c))
	r.must(r.observed.Watch(ctx, r.client))
	connection, err := amqp.Dial(c.Broker.AMQPURL("/"))
	r.must(err)
	t.Cleanup(func() { connection.Close() })
	r.settled, err = scans.Collect(connection)
	r.must(err)
	r.sender, err = scans.NewPublisher(connection)
	r.must(err)
	return r
}

func (r *release) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *release) exec(tool string, args ...string) string {
	r.Helper()
	out, err := r.c.Exec(r.ctx, tool, args...)
	r.must(err)
	return out
}

// eventually polls until a state is as it should be, for as long as it changes at least every three minutes. Its description is in the error
// when it no longer does.
func (r *release) eventually(what string, state func() (string, bool)) {
	r.Helper()
	const patience = 3 * time.Minute
	last, since := "", time.Now()
	for {
		seen, ok := state()
		switch {
		case ok:
			return
		case seen != last:
			last, since = seen, time.Now()
		case time.Since(since) > patience:
			r.Fatalf("%s: not within %s: %s", what, patience, seen)
		}
		select {
		case <-r.ctx.Done():
			r.Fatalf("%s: %v: %s", what, context.Cause(r.ctx), seen)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (r *release) install() {
	r.exec("helm", "install", "ebbtide", "charts/ebbtide", "-n", system, "--create-namespace",
		"--set", "image.tag="+scans.ImageTag+",scaler.secretNamespaces={*}",
		"--wait", "--timeout", "3m")
	nodes := map[string]bool{}
	for _, pod := range r.pods("ebbtide-scaler") {
		nodes[pod.Spec.NodeName] = true
	}
	if len(nodes) != 2 {
		r.Errorf("the scaler's replicas are on %v, want them on two nodes", nodes)
	}
	// From the upgrade on, pods are held to it.
	r.exec("kubectl", "label", "namespace", system, "pod-security.kubernetes.io/enforce=restricted")
	r.exec("kubectl", "create", "namespace", scans.Namespace)
	r.must(scans.InstallScans(r.ctx, r.c, scans.ScanJob{
		Image: images.Reference("ebbtide-worker", scans.ImageTag), WorkerArgs: append([]string{"--grace-period", workerGrace.String(), "--retry-delays", "500ms,1s"}, scans.WorkerArgs...),
		MaxReplicas: 8, CPU: "50m", Memory: "32Mi", RealNodes: true, GraceSeconds: 20,
	}))
}

// pods of a component of the chart that are not on their way out.
func (r *release) pods(component string) []corev1.Pod {
	r.Helper()
	list, err := r.client.CoreV1().Pods(system).List(r.ctx, metav1.ListOptions{
		LabelSelector: labels.Set{"app.kubernetes.io/name": component}.String(),
	})
	r.must(err)
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// leader is the replica of the scheduler that leads.
func (r *release) leader() string {
	r.Helper()
	lease, err := r.client.CoordinationV1().Leases(system).Get(r.ctx, "ebbtide-scheduler", metav1.GetOptions{})
	r.must(err)
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	name, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return name
}

// upgradeInABurst sends a burst of scans, and one a second after it until an upgrade and a rollback of the release are done: fewer if the
// machine is too slow for as many.
func (r *release) upgradeInABurst() {
	for i := range burstScans {
		r.publish(scans.Scan{ID: fmt.Sprintf("burst-%02d", i), Seconds: 2})
	}
	ctx, stop := context.WithCancel(r.ctx)
	var trickle sync.WaitGroup
	trickle.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if r.settled.Open() < 2*burstScans {
				r.publish(scans.Scan{ID: fmt.Sprintf("trickle-%03d", i), Seconds: 2})
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	begin, before := time.Now(), r.calls()
	r.eventually("the burst's first scans", func() (string, bool) {
		open := r.settled.Open()
		return fmt.Sprintf("%d scans are open", open), r.observed.Snapshot().Ended > 0
	})
	for _, change := range [][]string{
		{"upgrade", "ebbtide", "charts/ebbtide", "--reuse-values", "--set", "scaler.logLevel=debug,scheduler.verbosity=3"},
		{"rollback", "ebbtide", "1"},
	} {
		jobs, old := r.observed.Snapshot().Jobs, map[string]bool{}
		for _, component := range []string{"ebbtide-scaler", "ebbtide-scheduler"} {
			for _, pod := range r.pods(component) {
				old[pod.Name] = true
			}
		}
		r.exec("helm", append(change, "-n", system, "--wait", "--timeout", "3m")...)
		for _, component := range []string{"ebbtide-scaler", "ebbtide-scheduler"} {
			for _, pod := range r.pods(component) {
				if old[pod.Name] {
					r.Errorf("pod %s is still there after the %s, which was to replace it", pod.Name, change[0])
				}
			}
		}
		r.eventually("a leader after the "+change[0], func() (string, bool) { leader := r.leader(); return leader, leader != "" && !old[leader] })
		if during := r.observed.Snapshot().Jobs - jobs; during == 0 {
			r.Errorf("no job was made during the %s", change[0])
		} else {
			r.Logf("%d jobs were made during the %s", during, change[0])
		}
	}
	stop()
	trickle.Wait()
	r.quiet()

	for id, ends := range r.settled.Ends() {
		if len(ends) != 1 || ends[0] != (scans.End{}) {
			r.Errorf("%s ended with %+v, want one result of its first delivery", id, ends)
		}
	}
	if r.settled.Done() != r.settled.Sent() {
		r.Errorf("%d scans ended, want %d", r.settled.Done(), r.settled.Sent())
	}
	r.Logf("%d scans in %d jobs; waits: %.1f s median, %.1f s at the 95th percentile", r.settled.Sent(), r.observed.Snapshot().Jobs,
		scans.Percentile(r.settled.Waits(), 50), scans.Percentile(r.settled.Waits(), 95))
	if failed := r.failedPods(); len(failed) > 0 {
		r.Errorf("pods of scans failed, which says that they were killed: %v", failed)
	}
	if idle := r.observed.IdlePods(); idle > 0 {
		r.Errorf("%d jobs found no message, want none", idle)
	}
	// KEDA asks once more when a call fails; only when that fails too is a poll without an answer, and an event says so.
	calls, asked, failed := r.calls(), 0.0, map[string]float64{}
	for call, n := range calls {
		n -= before[call]
		if asked += n; n > 0 && !strings.HasSuffix(call, " OK") {
			failed[call] = n
		}
	}
	r.Logf("of KEDA's %.0f calls to the scaler failed: %v", asked, failed)
	// Two calls of one poll while a replica is replaced are more than one in 50 where KEDA asks less than a hundred times.
	if repeated := total(failed); asked == 0 || repeated > max(4, 0.02*asked) {
		r.Errorf("of KEDA's %.0f calls to the scaler %.0f failed, want at most 4 or one in 50: %v", asked, repeated, failed)
	}
	events, err := r.client.CoreV1().Events(scans.Namespace).List(r.ctx, metav1.ListOptions{FieldSelector: "reason=KEDAScalerFailed"})
	r.must(err)
	for _, event := range events.Items {
		if event.LastTimestamp.After(begin) {
			r.Errorf("KEDA's event of %s: %s", event.LastTimestamp, event.Message)
		}
	}
}

// calls of KEDA to the scaler, by method and code. KEDA makes neither an event nor another metric of one that failed.
func (r *release) calls() map[string]float64 {
	r.Helper()
	calls := map[string]float64{}
	list, err := r.client.CoreV1().Pods("keda").List(r.ctx, metav1.ListOptions{LabelSelector: "app=keda-operator"})
	r.must(err)
	for _, pod := range list.Items {
		metrics := r.get("http://" + net.JoinHostPort(pod.Status.PodIP, "8080") + "/metrics")
		for _, call := range kedaCall.FindAllStringSubmatch(metrics, -1) {
			n, err := strconv.ParseFloat(call[3], 64)
			r.must(err)
			calls[call[2]+" "+call[1]] += n
		}
	}
	return calls
}

func total(calls map[string]float64) (n float64) {
	for _, of := range calls {
		n += of
	}
	return n
}

// kedaCall is a line of KEDA's metrics: the code, the method and how often.
var kedaCall = regexp.MustCompile(`(?m)^keda_grpc_client_handled_total\{grpc_code="(\w+)",grpc_method="(\w+)".*\} (\S+)$`)

// publish may be called by any goroutine.
func (r *release) publish(s scans.Scan) {
	r.Helper()
	r.settled.Published()
	if err := r.sender.Publish(r.ctx, s); err != nil {
		r.Errorf("publish %s: %v", s.ID, err)
	}
}

// quiet waits until every message has ended and every job has finished.
func (r *release) quiet() {
	r.Helper()
	r.eventually("quiet", func() (string, bool) {
		messages, jobs := r.settled.Open(), r.observed.Snapshot().UnfinishedJobs
		return fmt.Sprintf("%d messages and %d jobs are open", messages, jobs), messages == 0 && jobs == 0
	})
}

// failedPods are those of scans with an exit code other than 0.
func (r *release) failedPods() []string {
	var failed []string
	for _, pod := range r.observed.Pods() {
		if pod.ExitCode != 0 || pod.CutShort {
			failed = append(failed, fmt.Sprintf("%s (exit code %d)", pod.Name, pod.ExitCode))
		}
	}
	return failed
}

// explain asks what a user asks: every replica of the scaler was asked by KEDA, and the command finds them in their pods.
func (r *release) explain() {
	for _, pod := range r.pods("ebbtide-scaler") {
		r.eventually("a decision of "+pod.Name, func() (string, bool) {
			metrics := r.get("http://" + net.JoinHostPort(pod.Status.PodIP, "8080") + "/metrics")
			return "no decisions in its metrics", sum(metrics, "ebbtide_decisions_total{") > 0
		})
	}
	for _, args := range [][]string{{"decisions", "scans", "-n", scans.Namespace}, {"placements", "-n", scans.Namespace}, {"doctor"}} {
		r.ebbtide(args...)
	}
	if out := r.exec("kubectl", "logs", "-n", system, "deployment/ebbtide-scaler", "--tail=1"); out == "" {
		r.Error("the scaler has no log")
	}
}

// ebbtide runs the command, which must succeed, and logs what it prints.
func (r *release) ebbtide(args ...string) {
	r.Helper()
	out, err := exec.CommandContext(r.ctx, r.c.Bin("ebbtide"), append(args, "--kubeconfig", r.c.Kubeconfig("admin"))...).CombinedOutput()
	if err != nil {
		r.Errorf("ebbtide %s: %v: %s", args[0], err, out)
	}
	r.Logf("ebbtide %s:\n%s", args[0], out)
}

// get asks a pod over HTTP.
func (r *release) get(url string) string {
	r.Helper()
	return string(get(r.ctx, r.T, &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, address string) (net.Conn, error) { return r.c.Dial(ctx, address) },
	}}, url))
}

// sum of the samples, in metrics in Prometheus' text format, that begin with a text.
func sum(metrics, begin string) float64 {
	var n float64
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), begin); ok {
			if value, err := strconv.ParseFloat(rest[strings.LastIndex(rest, " ")+1:], 64); err == nil {
				n += value
			}
		}
	}
	return n
}

// scansGoWrong kills the worker of the scan "crash", and deletes the pods of "given-back" and "finishes" while they scan, the first with a
// scan that takes longer than the worker's grace period. Scans that fail in the ways a command can come after them, among ordinary ones.
func (r *release) scansGoWrong() {
	before := len(r.failedPods())
	deletePod := func(p scanProcess) error {
		return r.client.CoreV1().Pods(scans.Namespace).Delete(r.ctx, p.pod, metav1.DeleteOptions{})
	}
	for _, step := range []struct {
		scan scans.Scan
		do   func(scanProcess) error
	}{
		{scans.Scan{ID: "crash", Seconds: 4}, func(p scanProcess) error { return syscall.Kill(p.worker, syscall.SIGKILL) }},
		{scans.Scan{ID: "given-back", Seconds: 2 * workerGrace.Seconds()}, deletePod},
		{scans.Scan{ID: "finishes", Seconds: workerGrace.Seconds() / 2}, deletePod},
	} {
		r.publish(step.scan)
		process, err := awaitScan(r.ctx)
		r.must(err)
		r.must(step.do(process))
		r.quiet()
	}
	// Deliveries are those before the one that ended a message, at least; the reason is a part of it.
	want := map[string]scans.End{
		"crash": {Deliveries: 1}, "given-back": {Deliveries: 1}, "finishes": {}, "third-time": {Deliveries: 2},
		"fails-1": {Dead: true, Reason: "the command exited with 3: the order asks for exit code 3"},
		"fails-2": {Dead: true, Reason: "the command exited with 65"},
		"never":   {Dead: true, Reason: "75"},
	}
	sent := []scans.Scan{
		{ID: "fails-1", Seconds: 0.1, ExitCode: 3}, {ID: "fails-2", Seconds: 0.1, ExitCode: 65},
		{ID: "third-time", Seconds: 0.1, ExitCode: 75, SucceedsAt: 2}, {ID: "never", Seconds: 0.1, ExitCode: 75},
	}
	for i := range ordinaryScans {
		id := fmt.Sprintf("scan-%02d", i)
		sent, want[id] = append(sent, scans.Scan{ID: id, Seconds: 0.5}), scans.End{}
	}
	for _, s := range sent {
		r.publish(s)
	}
	r.quiet()

	all := r.settled.Ends()
	for id, w := range want {
		ends := all[id]
		if len(ends) != 1 {
			r.Errorf("%s ended %d times: %+v", id, len(ends), ends)
			continue
		}
		if got := ends[0]; got.Dead != w.Dead || !strings.Contains(got.Reason, w.Reason) || (w.Reason == "") != (got.Reason == "") ||
			got.Deliveries < w.Deliveries {
			r.Errorf("%s ended with %+v, want %+v", id, got, w)
		}
	}
	if r.settled.Done() != r.settled.Sent() {
		r.Errorf("%d scans ended, want %d", r.settled.Done(), r.settled.Sent())
	}
	// The crashed worker's pod, and that of the one that requeued its message.
	if failed := r.failedPods(); len(failed)-before != 2 {
		r.Errorf("failed pods: %v; want 2 more than %d", failed, before)
	}
}

// uninstall removes the queue, the release and KEDA, and looks for what is left of each.
func (r *release) uninstall() {
	r.exec("helm", "test", "ebbtide", "-n", system, "--timeout", "2m")
	r.exec("helm", "uninstall", "ebbtide", "-n", system, "--wait", "--timeout", "2m")
	// An uninstall keeps policies.
	r.exec("kubectl", "get", "scalingpolicies", "scans", "-n", scans.Namespace)
	r.exec("kubectl", "delete", "customresourcedefinition", "scalingpolicies.ebbtide.dev")
	r.exec("kubectl", "delete", "pod", "ebbtide-test", "-n", system)
	// Helm does not own the namespace, and replicas make their leases themselves.
	r.nothingLeft("ebbtide", "namespace/"+system, "lease.coordination.k8s.io/ebbtide-scaler", "lease.coordination.k8s.io/ebbtide-scheduler")
	r.exec("kubectl", "delete", "namespace", scans.Namespace, system)
	r.must(r.c.UninstallKEDA(r.ctx))
	for _, word := range []string{"ebbtide", "keda"} {
		r.nothingLeft(word)
	}
}

// nothingLeft waits until no object of any kind has a word in its name, in any namespace, except those that are named.
func (r *release) nothingLeft(word string, but ...string) {
	r.Helper()
	kinds := slices.DeleteFunc(strings.Fields(r.exec("kubectl", "api-resources", "--verbs=list", "-o", "name")), func(kind string) bool {
		return strings.HasPrefix(kind, "events") // they tell of what was
	})
	r.eventually("nothing left of "+word, func() (string, bool) {
		var left []string
		for _, name := range strings.Fields(r.exec("kubectl", "get", strings.Join(kinds, ","), "-A", "-o", "name")) {
			if strings.Contains(name, word) && !slices.Contains(but, name) {
				left = append(left, name)
			}
		}
		return strings.Join(left, ", "), len(left) == 0
	})
}
