package scenario

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/examples/demo-scanner"
	"github.com/ebbtide-dev/ebbtide/images"
)

// TestScans installs charts/scan-jobs as its README says, on real nodes with KEDA and Ebbtide: gitleaks scans real repositories, results
// arrive complete and once, an upgrade ends no scan, and engines run in one pod, in pods that are put on one node, and over a source store.
// Then hostile scans are run on the same cluster.
func TestScans(t *testing.T) {
	needNodes(t)
	ctx, cancel := context.WithTimeout(t.Context(), 38*time.Minute) // most of it for images, where nothing is compiled yet
	defer cancel()
	s := newScans(ctx, t)
	t.Run("AsDocumented", func(t *testing.T) { s.in(t).asDocumented() })
	t.Run("Hostile", func(t *testing.T) {
		begin := time.Now()
		s.in(t).hostile()
		t.Logf("hostile scans took %.0f s", time.Since(begin).Seconds())
	})
}

func (s *scanQueue) asDocumented() {
	s.helm("install", "my-scans", "charts/scan-jobs", "-f", "charts/scan-jobs/values-test.yaml")
	s.test("my-scans", "charts/scan-jobs/values-test.yaml", 1)
	s.ebbtide("doctor", "-n", scans.Namespace)
	s.upgradeInABurst()
	s.helm("uninstall", "my-scans")

	for name, results := range map[string]int{"engines-one-pod": 1, "engines-pod-group": 2} {
		values := filepath.Join("examples", name, "values.yaml")
		s.helm("install", name, "charts/scan-jobs", "-f", "charts/scan-jobs/values-test.yaml", "-f", values)
		s.test(name, values, results)
		s.ebbtide("doctor", "-n", scans.Namespace)
		s.helm("uninstall", name)
	}
	s.sourceStore()
	s.batchJobs()
}

// scanQueue is the scenario's state.
type scanQueue struct {
	release
	root    string
	channel *amqp.Channel
}

func newScans(ctx context.Context, t *testing.T) *scanQueue {
	t.Helper()
	c, root := startWith(ctx, t, []string{"./cmd/ebbtide", "./cmd/ebbtide-scheduler"},
		func(ctx context.Context, o cluster.Options) (*cluster.Cluster, error) {
			return cluster.StartNodes(ctx, o, 2)
		})
	s := &scanQueue{release: release{T: t, ctx: ctx, c: c}, root: root}
	var err error
	s.client, err = kubernetes.NewForConfig(c.Admin())
	s.must(err)
	s.must(scans.PrepareInstall(ctx, c))
	scanner, err := demoscanner.Build(ctx, root)
	s.must(err)
	s.must(c.AddImage(ctx, demoscanner.Name, scans.ImageTag, scanner))
	connection, err := amqp.Dial(c.Broker.AMQPURL("/"))
	s.must(err)
	t.Cleanup(func() { connection.Close() })
	s.channel, err = connection.Channel()
	s.must(err)
	s.exec("helm", "install", "ebbtide", "charts/ebbtide", "-n", system, "--create-namespace", "--set", "image.tag="+scans.ImageTag,
		"--wait", "--timeout", "3m")
	s.exec("kubectl", "create", "namespace", scans.Namespace)
	s.exec("kubectl", "label", "namespace", scans.Namespace, "pod-security.kubernetes.io/enforce=restricted")
	return s
}

// in is the scenario in a subtest.
func (s *scanQueue) in(t *testing.T) *scanQueue {
	sub := *s
	sub.T = t
	return &sub
}

func (s *scanQueue) helm(args ...string) {
	s.Helper()
	s.exec("helm", append(args, "-n", scans.Namespace, "--timeout", "3m")...)
}

// test runs helm's test of a release, and looks for its results in the queue for them: each once.
func (s *scanQueue) test(name, values string, resultsEach int) {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(s.root, values))
	s.must(err)
	var file struct {
		Test struct{ Messages []struct{ Body string } }
	}
	s.must(yaml.Unmarshal(text, &file))
	_, failure := s.c.Exec(s.ctx, "helm", "test", name, "-n", scans.Namespace, "--timeout", "3m")
	out, err := s.c.Exec(s.ctx, "kubectl", "logs", name+"-test", "-n", scans.Namespace)
	s.Logf("%s: the test's log, %v:\n%s", name, err, out)
	s.must(failure)
	s.results(name, len(file.Test.Messages)*resultsEach)
	if nodes := s.nodes(name); len(nodes) != 1 {
		s.Errorf("pods of %s ran on %v: they all fit on one node", name, nodes)
	}
	if dead := s.take(name + ".dead"); len(dead) > 0 {
		s.Errorf("%s has %d dead letters", name, len(dead))
	}
}

// results takes the results of a release and checks that there are so many, each once.
func (s *scanQueue) results(name string, want int) {
	s.Helper()
	keys := map[string]int{}
	for _, delivery := range s.take(name + ".results") {
		keys[delivery.MessageId]++
	}
	for key, n := range keys {
		if n != 1 {
			s.Errorf("the result %s of %s came %d times", key, name, n)
		}
	}
	if len(keys) != want {
		s.Errorf("%s has %d results, want %d", name, len(keys), want)
	}
}

// take empties a queue.
func (s *scanQueue) take(queue string) []amqp.Delivery {
	s.Helper()
	var all []amqp.Delivery
	for {
		delivery, ok, err := s.channel.Get(queue, true)
		s.must(err)
		if !ok {
			return all
		}
		all = append(all, delivery)
	}
}

// nodes on which pods of a release scanned.
func (s *scanQueue) nodes(name string) []string {
	s.Helper()
	var nodes []string
	for _, pod := range s.podsOf(name) {
		if !slices.Contains(nodes, pod.Spec.NodeName) {
			nodes = append(nodes, pod.Spec.NodeName)
		}
	}
	return nodes
}

func (s *scanQueue) podsOf(name string) []corev1.Pod {
	s.Helper()
	pods, err := s.client.CoreV1().Pods(scans.Namespace).List(s.ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/component=scan,app.kubernetes.io/instance=" + name,
	})
	s.must(err)
	return pods.Items
}

func (s *scanQueue) jobs() map[string]batchv1.Job {
	s.Helper()
	list, err := s.client.BatchV1().Jobs(scans.Namespace).List(s.ctx, metav1.ListOptions{LabelSelector: "scaledjob.keda.sh/name=my-scans"})
	s.must(err)
	jobs := map[string]batchv1.Job{}
	for _, job := range list.Items {
		jobs[job.Name] = job
	}
	return jobs
}

// upgradeInABurst changes what pods look like while scans run: the jobs that run stay, and every scan has one result.
func (s *scanQueue) upgradeInABurst() {
	const burst = 40
	names := slices.Sorted(maps.Keys(demoscanner.Repositories()))
	for i := range burst {
		s.must(s.channel.PublishWithContext(s.ctx, "my-scans", "", true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, MessageId: fmt.Sprintf("burst-%02d", i), Body: []byte(names[i%len(names)]),
		}))
	}
	running := func() map[string]bool {
		active := map[string]bool{}
		for name, job := range s.jobs() {
			if job.Status.Active > 0 {
				active[name] = true
			}
		}
		return active
	}
	s.eventually("scans run", func() (string, bool) { n := len(running()); return fmt.Sprintf("%d jobs run", n), n > 0 })
	before := running()
	s.helm("upgrade", "my-scans", "charts/scan-jobs", "-f", "charts/scan-jobs/values-test.yaml", "--set", "podLabels.version=two")
	for name := range before {
		if _, there := s.jobs()[name]; !there {
			s.Errorf("the upgrade ended job %s", name)
		}
	}
	s.eventually("every scan has ended", func() (string, bool) {
		state, err := s.channel.QueueDeclarePassive("my-scans.results", true, false, false, false, nil)
		s.must(err)
		return fmt.Sprintf("%d results", state.Messages), state.Messages >= burst
	})
	s.results("my-scans", burst)
	for name, job := range s.jobs() {
		if job.Status.Failed > 0 {
			s.Errorf("job %s failed: %s", name, job.Status.Conditions)
		}
	}
}

// sourceStore scans repositories from a volume that both nodes have.
func (s *scanQueue) sourceStore() {
	folder, err := scans.SourceVolume(s.ctx, s.c, "source-source")
	s.must(err)
	s.helm("install", "source", "charts/scan-jobs", "-f", "charts/scan-jobs/values-test.yaml", "-f", "examples/source-store/values.yaml")
	s.test("source", "examples/source-store/values.yaml", 1)
	s.ebbtide("doctor", "-n", scans.Namespace)
	mirrors, err := filepath.Glob(filepath.Join(folder, "mirrors", "*"))
	if err != nil || len(mirrors) != 2 {
		s.Errorf("mirrors %v, %v: want one for each of two repositories", mirrors, err)
	}
	s.storeLost(folder)
	s.exec("kubectl", "create", "job", "collect", "--from=cronjob/source-source-gc", "-n", scans.Namespace)
	s.exec("kubectl", "wait", "--for=condition=complete", "job/collect", "-n", scans.Namespace, "--timeout=1m")
	s.helm("uninstall", "source")
}

// storeLost empties the volume in the middle of scans: those that had a checkout get another attempt, repositories are fetched again, and
// every scan has its result.
func (s *scanQueue) storeLost(folder string) {
	const burst = 20
	for i := range burst {
		s.must(s.channel.PublishWithContext(s.ctx, "source", "", true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, MessageId: fmt.Sprintf("lost-%02d", i),
			Headers: amqp.Table{"repository": []string{"file:///repositories/payments.git", "file:///repositories/website.git"}[i%2]},
		}))
	}
	s.eventually("scans have checkouts", func() (string, bool) {
		checkouts, err := filepath.Glob(filepath.Join(folder, "checkouts", "*", "*"))
		s.must(err)
		return "none has", len(checkouts) > 0
	})
	begin := time.Now()
	lost := s.TempDir()
	for _, what := range []string{"checkouts", "locks", "mirrors", "trash"} {
		s.must(os.Rename(filepath.Join(folder, what), filepath.Join(lost, what)))
	}
	s.eventually("every scan has ended", func() (string, bool) {
		state, err := s.channel.QueueDeclarePassive("source.results", true, false, false, false, nil)
		s.must(err)
		return fmt.Sprintf("%d results", state.Messages), state.Messages >= burst
	})
	s.Logf("the source store was lost: %d scans done %.0f s after", burst, time.Since(begin).Seconds())
	s.results("source", burst)
	if dead := s.take("source.dead"); len(dead) > 0 {
		s.Errorf("the loss of the store made %d dead letters", len(dead))
	}
}

// batchJobs runs charts/batch-jobs-min-nodes as its README says, and then jobs of two repositories by either scheduler. All jobs fit on one
// node and run there, and each repository is fetched once.
func (s *scanQueue) batchJobs() {
	const chart = "charts/batch-jobs-min-nodes"
	begin := time.Now()
	_, err := scans.SourceVolume(s.ctx, s.c, "my-jobs-cache")
	s.must(err)
	s.helm("install", "my-jobs", chart, "--values", filepath.Join(chart, "test_values.yaml"))
	if fetches := s.batchEnds("my-jobs", 5, "ebbtide"); fetches != 2 {
		s.Errorf("my-jobs: %d fetches of two repositories, want 2", fetches)
	}
	s.helm("uninstall", "my-jobs")

	for mode, scheduler := range map[string]string{"auto": "ebbtide", "default": corev1.DefaultSchedulerName} {
		name := "batch-" + mode
		folder, err := scans.SourceVolume(s.ctx, s.c, name+"-cache")
		s.must(err)
		values := []string{"scheduling.mode=" + mode, "worker.image.tag=" + scans.ImageTag, "cache.protocols={file}", "cache.size=1Gi",
			"cache.gc.unusedFor=1ns", "resources.requests.cpu=20m", "resources.requests.memory=32Mi"}
		const jobs = 6
		for i := range jobs {
			values = append(values, fmt.Sprintf("jobs[%d].name=job-%d,jobs[%d].image=%s,jobs[%d].command={git,log,--oneline},jobs[%d].repository=file:///repositories/%s.git",
				i, i, i, images.Reference(demoscanner.Name, scans.ImageTag), i, i, []string{"payments", "website"}[i%2]))
		}
		s.helm("install", name, chart, "--set", strings.Join(values, ","))
		if fetches := s.batchEnds(name, jobs, scheduler); fetches != 2 {
			s.Errorf("%s: %d fetches of two repositories for %d jobs, want 2", name, fetches, jobs)
		}
		s.exec("kubectl", "create", "job", name+"-gc", "--from=cronjob/"+name+"-cache-gc", "-n", scans.Namespace)
		s.exec("kubectl", "wait", "--for=condition=complete", "job/"+name+"-gc", "-n", scans.Namespace, "--timeout=1m")
		if mirrors, err := filepath.Glob(filepath.Join(folder, "mirrors", "*")); err != nil || len(mirrors) > 0 {
			s.Errorf("%s: mirrors %v are left in the cache, %v", name, mirrors, err)
		}
		s.helm("uninstall", name)
	}
	s.Logf("batch jobs: %.0f s", time.Since(begin).Seconds())
}

// batchEnds waits for the jobs of a release and checks that their pods ran on one node, by a scheduler. It returns how often they fetched.
func (s *scanQueue) batchEnds(name string, jobs int, scheduler string) (fetches int) {
	s.Helper()
	s.exec("kubectl", "wait", "--for=condition=complete", "jobs", "-l", "app.kubernetes.io/instance="+name, "-n", scans.Namespace, "--timeout=3m")
	list, err := s.client.CoreV1().Pods(scans.Namespace).List(s.ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/component=job,app.kubernetes.io/instance=" + name,
	})
	s.must(err)
	nodes, by := map[string]int{}, map[string]bool{}
	for _, pod := range list.Items {
		nodes[pod.Spec.NodeName]++
		by[pod.Spec.SchedulerName] = true
	}
	if len(list.Items) != jobs || len(nodes) != 1 || !by[scheduler] || len(by) != 1 {
		s.Errorf("%s: pods by node %v, schedulers %v; want %d pods on one node by %s", name, nodes, by, jobs, scheduler)
	}
	for i := range list.Items {
		if out := s.exec("kubectl", "logs", list.Items[i].Name, "-n", scans.Namespace); out == "" {
			s.Errorf("%s: pod %s has no output", name, list.Items[i].Name)
		}
		if len(list.Items[i].Spec.InitContainers) == 0 {
			continue // a job without a repository
		}
		fetches += strings.Count(s.exec("kubectl", "logs", list.Items[i].Name, "-c", "source", "-n", scans.Namespace), `"fetched":true`)
	}
	return fetches
}
