package scenario

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	decisions "github.com/ebbtide-dev/ebbtide/proto/ebbtide/decisions/v1alpha1"
)

// TestCalendar lives through a shift: a ScaledObject is woken by push; a period starts at its minute; its floor is
// edited while scans run; the broker is restarted under load; the period ends.
func TestCalendar(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c, _ := startCluster(ctx, t, scans.Programs)
	s := newShift(ctx, t, c)

	s.start = time.Now().Truncate(time.Minute).Add(time.Minute)
	if time.Until(s.start) < 15*time.Second {
		s.start = s.start.Add(time.Minute)
	}
	s.end = s.start.Add(3 * time.Minute)
	s.installShift(3)
	// Side by side, as the one waits for its minute and the other for cooldowns. Run returns when both are over.
	t.Run("side by side", func(t *testing.T) {
		t.Run("wake", func(t *testing.T) {
			t.Parallel()
			s.in(t).wake()
		})
		t.Run("period", func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			s.periodStarts()
			s.editWhileScansRun()
		})
	})
	if t.Failed() {
		return
	}
	s.brokerRestarts()
	s.periodEnds()
}

// shift is the scenario's state.
type shift struct {
	*testing.T
	ctx        context.Context
	c          *cluster.Cluster
	observed   *scans.Observer
	api        decisions.DecisionServiceClient
	connection *amqp.Connection
	sender     *scans.Publisher
	start, end time.Time // of the period
}

func newShift(ctx context.Context, t *testing.T, c *cluster.Cluster) *shift {
	t.Helper()
	s := &shift{T: t, ctx: ctx, c: c, observed: scans.NewObserver(scans.Namespace, scans.NodePoolLabel, scans.NodePoolName)}
	clientset, err := kubernetes.NewForConfig(c.Admin())
	s.must(err)
	s.must(scans.DefaultTopology.Declare(c.Broker.AMQPURL("/")))
	s.must(scans.InstallStaticNode(ctx, c))
	s.must(s.observed.Watch(ctx, clientset))
	podsCtx, stopPods := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- scans.RunPods(podsCtx, c, nil) }()
	t.Cleanup(func() {
		stopPods()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	s.connect()
	s.api = s.decisions()
	return s
}

// in is the scenario in a subtest, with a connection of its own.
func (s *shift) in(t *testing.T) *shift {
	sub := *s
	sub.T = t
	sub.connect()
	return &sub
}

func (s *shift) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// connect opens a connection to publish with; a restarted broker has closed the one before.
func (s *shift) connect() {
	s.Helper()
	var err error
	s.connection, err = amqp.Dial(s.c.Broker.AMQPURL("/"))
	s.must(err)
	s.Cleanup(func() { s.connection.Close() })
	s.sender, err = scans.NewPublisher(s.connection)
	s.must(err)
}

// decisions is a client of the scaler's own API.
func (s *shift) decisions() decisions.DecisionServiceClient {
	s.Helper()
	connection, err := s.c.DialScaler()
	s.must(err)
	s.Cleanup(func() { connection.Close() })
	return decisions.NewDecisionServiceClient(connection)
}

// until waits until f is true, and returns when it was.
func (s *shift) until(what string, within time.Duration, f func() bool) time.Time {
	s.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		if f() {
			return time.Now()
		}
		if time.Now().After(deadline) {
			s.Fatalf("not within %s: %s", within, what)
		}
	}
}

// publish sends scans that take some seconds each.
func (s *shift) publish(name, queue string, n int, seconds float64) {
	s.Helper()
	for i := range n {
		s.must(s.sender.PublishTo(s.ctx, queue, scans.Scan{ID: fmt.Sprintf("%s-%d", name, i), Seconds: seconds}))
	}
}

// period is a calendar with one period, in YAML's flow style.
func (s *shift) period(floor int) string {
	return fmt.Sprintf(`{timeZone: Europe/Prague, periods: [{name: shift, from: "%s", to: "%s", limits: {minReplicas: %d}}]}`,
		clockIn(s.T, s.start), clockIn(s.T, s.end), floor)
}

func clockIn(t *testing.T, at time.Time) string {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Prague")
	if err != nil {
		t.Fatal(err)
	}
	return at.In(zone).Format("15:04")
}

// wake: a message for a Deployment of no replicas wakes it by push, in under a second; more messages bring more replicas
// up to the cap, and without any it goes back to none.
func (s *shift) wake() {
	channel, err := s.connection.Channel()
	s.must(err)
	_, err = channel.QueueDeclare("calls", true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum})
	s.must(err)
	text, err := template.ParseFS(manifests, "manifests/calls.yaml")
	s.must(err)
	var out bytes.Buffer
	s.must(text.Execute(&out, struct{ Scaler string }{s.c.ScalerAddress()}))
	s.must(s.c.ApplyYAML(s.ctx, out.Bytes()))
	s.until("the ScaledObject is ready", time.Minute, func() bool { return s.ready("ScaledObject", "calls") })
	time.Sleep(3 * time.Second) // KEDA opens its stream

	s.publish("wake", "calls", 1, 0.5)
	begin := time.Now()
	woken := s.until("a replica", 20*time.Second, func() bool { return s.replicas() > 0 }).Sub(begin)
	s.Logf("woken by push after %s", woken)
	if woken >= time.Second {
		s.Errorf("woken from zero after %s, want under a second", woken)
	}
	s.publish("calls", "calls", 15, 4)
	s.until("as many replicas as the cap", time.Minute, func() bool { return s.replicas() == 5 })
	s.until("no replicas", 3*time.Minute, func() bool { return s.replicas() == 0 })
}

func (s *shift) replicas() int32 {
	var deployment appsv1.Deployment
	s.must(s.c.Client().Get(s.ctx, types.NamespacedName{Namespace: scans.Namespace, Name: "calls"}, &deployment))
	return ptr.Deref(deployment.Spec.Replicas, 1)
}

// get reads one of KEDA's objects.
func (s *shift) get(kind, name string) *unstructured.Unstructured {
	s.Helper()
	object := &unstructured.Unstructured{}
	object.SetAPIVersion("keda.sh/v1alpha1")
	object.SetKind(kind)
	s.must(s.c.Client().Get(s.ctx, types.NamespacedName{Namespace: scans.Namespace, Name: name}, object))
	return object
}

func (s *shift) ready(kind, name string) bool {
	conditions, _, err := unstructured.NestedSlice(s.get(kind, name).Object, "status", "conditions")
	s.must(err)
	for _, condition := range conditions {
		if c := condition.(map[string]any); c["type"] == "Ready" && c["status"] == "True" {
			return true
		}
	}
	return false
}

func (s *shift) installShift(floor int) {
	s.Helper()
	s.must(scans.InstallScans(s.ctx, s.c, scans.ScanJob{
		Image: "ebbtide-worker", MaxReplicas: 30, CPU: "100m", Memory: "64Mi", Calendar: s.period(floor),
		WorkerArgs: []string{
			"--queue", scans.QueueScans, "--result-exchange", scans.ExchangeResults, "--dead-letter-exchange", scans.ExchangeDead,
			"--max-messages", "1", "--idle-timeout", "20s", "--summary-file", "/dev/termination-log",
		},
	}))
}

// periodStarts: the period's floor is there at its minute, and not before.
func (s *shift) periodStarts() {
	time.Sleep(time.Until(s.start.Add(-time.Second)))
	if jobs := s.observed.Snapshot().Jobs; jobs != 0 {
		s.Errorf("%d jobs before the period", jobs)
	}
	first := s.until("the floor's jobs", 30*time.Second, func() bool { return s.observed.Snapshot().UnfinishedJobs >= 3 })
	s.Logf("the floor is there %s after the period's start", first.Sub(s.start))
	if first.Before(s.start) {
		s.Errorf("the floor is there %s before the period", s.start.Sub(first))
	}
	s.until("an event that says so", 20*time.Second, func() bool {
		var events corev1.EventList
		s.must(s.c.Client().List(s.ctx, &events, client.InNamespace(scans.Namespace)))
		for _, event := range events.Items {
			if event.InvolvedObject.Kind == "ScalingPolicy" && event.InvolvedObject.Name == "scans" && event.Reason == "BoundByFloor" {
				return true
			}
		}
		return false
	})
}

// editWhileScansRun: an edit of the calendar applies within a second and touches no scan.
func (s *shift) editWhileScansRun() {
	generation := s.get("ScaledJob", "scans").GetGeneration()
	settled, err := scans.Collect(s.connection)
	s.must(err)
	s.publish("long", scans.QueueScans, 4, 20)
	time.Sleep(10 * time.Second) // they run
	var policy v1alpha1.ScalingPolicy
	s.must(s.c.Client().Get(s.ctx, types.NamespacedName{Namespace: scans.Namespace, Name: "scans"}, &policy))
	policy.Spec.Calendar.Periods[0].Limits.MinReplicas = ptr.To[int32](6)
	s.must(s.c.Client().Update(s.ctx, &policy))
	edited := time.Now()
	applied := s.until("the edit", 10*time.Second, func() bool {
		answer, err := s.api.ExplainDecision(s.ctx, &decisions.ExplainDecisionRequest{Policy: &decisions.PolicyRef{Namespace: scans.Namespace, Name: "scans"}})
		s.must(err)
		return answer.GetDecision().GetTarget() == 6 && answer.GetDecision().GetConstraint() == decisions.Constraint_CONSTRAINT_FLOOR
	})
	s.Logf("the edit applies after %s", applied.Sub(edited))
	if applied.Sub(edited) > time.Second {
		s.Errorf("the edit applies after %s, want within a second", applied.Sub(edited))
	}
	s.until("the new floor's jobs", 30*time.Second, func() bool { return s.observed.Snapshot().UnfinishedJobs >= 6 })
	s.until("the scans' results", time.Minute, func() bool { return len(endsOf(settled, "long-")) == 4 })
	for id, ends := range endsOf(settled, "long-") {
		if len(ends) != 1 || ends[0].Dead || ends[0].Deliveries != 0 {
			s.Errorf("scan %s was disturbed by the edit: %+v", id, ends)
		}
	}
	if now := s.get("ScaledJob", "scans").GetGeneration(); now != generation {
		s.Errorf("the ScaledJob's generation went from %d to %d", generation, now)
	}
}

// brokerRestarts: the broker is killed under load and comes back; no message is lost, and the target is held meanwhile.
func (s *shift) brokerRestarts() {
	s.must(s.connection.Close()) // results are counted when all is over: what is read with auto-ack may die with the broker
	s.connect()
	s.publish("load", scans.QueueScans, 20, 3)
	time.Sleep(4 * time.Second) // some run, some wait, some are done
	s.c.Broker.Crash()
	s.until("a held decision", 30*time.Second, func() bool {
		list, err := s.api.ListDecisions(s.ctx, &decisions.ListDecisionsRequest{Namespace: scans.Namespace, Name: "scans", Limit: 1})
		s.must(err)
		d := list.GetDecisions()[0]
		return d.GetConstraint() == decisions.Constraint_CONSTRAINT_HOLD && d.GetTarget() > 0
	})
	s.must(s.c.Broker.Restart(s.ctx))
	s.connect()
	settled, err := scans.Collect(s.connection)
	s.must(err)
	s.until("every message's end", 2*time.Minute, func() bool { return len(endsOf(settled, "load-")) == 20 })
	for id, ends := range endsOf(settled, "load-") {
		for _, end := range ends {
			if end.Dead {
				s.Errorf("%s is a dead letter after the broker's restart: %s", id, end.Reason)
			}
		}
	}
}

// endsOf are the ends of the messages whose names begin with a prefix.
func endsOf(settled *scans.Settlements, prefix string) map[string][]scans.End {
	ends := map[string][]scans.End{}
	for id, list := range settled.Ends() {
		if strings.HasPrefix(id, prefix) {
			ends[id] = slices.Clone(list)
		}
	}
	return ends
}

// periodEnds: with the period ends its floor, and idle workers leave by themselves.
func (s *shift) periodEnds() {
	if left := time.Until(s.end); left > 15*time.Second {
		time.Sleep(left - 15*time.Second)
		// Idle workers leave after a while, and others come at KEDA's next poll.
		s.until("the floor's jobs just before the period's end", 14*time.Second, func() bool { return s.observed.Snapshot().UnfinishedJobs >= 6 })
	}
	time.Sleep(time.Until(s.end))
	none := s.until("no jobs", time.Minute, func() bool { return s.observed.Snapshot().UnfinishedJobs == 0 })
	s.Logf("the last job ended %s after the period", none.Sub(s.end))
	jobs := s.observed.Snapshot().Jobs
	time.Sleep(5 * time.Second)
	if more := s.observed.Snapshot().Jobs - jobs; more != 0 {
		s.Errorf("%d jobs were created after the period", more)
	}
}
