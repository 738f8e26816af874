package externalscaler

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/e2e/testcert"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// values resolves references by name, from what the test puts in.
type values struct {
	sync.Map
	missed atomic.Int64 // look-ups in vain
}

func (v *values) Resolve(_ context.Context, _ string, value *v1alpha1.ValueSource) (string, error) {
	if value.SecretKeyRef == nil {
		return value.Value, nil
	}
	text, ok := v.Load(value.SecretKeyRef.Name)
	if !ok {
		v.missed.Add(1)
		return "", fmt.Errorf("secretKeyRef: Secret %s not found", value.SecretKeyRef.Name)
	}
	return text.(string), nil
}

// forgetting tells those who keep something of policies.
type forgetting struct {
	recorder *decision.Recorder
	decider  *decision.Decider
}

func (f *forgetting) Validated(name types.NamespacedName, err error) {
	f.recorder.Validated(name, err)
}

func (f *forgetting) Forget(name types.NamespacedName) {
	f.decider.Forget(name)
	f.recorder.Forget(name)
}

// What is wrong with one policy, its broker or its trigger is told to the caller that asked for it, and neither delays nor
// changes what others are told. The rows are those of docs/reference/faults.md.
func TestIntegrationFaults(t *testing.T) {
	const timeout = 4 * time.Second // a broker takes its time to refuse a password
	authority, dir := testcert.New(t), t.TempDir()
	certificate, key := authority.Issue(t, "broker")
	for name, text := range map[string][]byte{"cert.pem": certificate, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ports, err := proc.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	broker := rabbitmq.StartForTest(t, fmt.Sprintf("listeners.ssl.default = 127.0.0.1:%d\nssl_options.certfile = %[2]s/cert.pem\n"+
		"ssl_options.keyfile = %[2]s/key.pem\n", ports[0], dir))
	// Another one, that goes away, starts while the first faults are looked at.
	var away *rabbitmq.Broker
	var awayErr error
	var starting sync.WaitGroup
	awayDir := t.TempDir()
	starting.Go(func() { away, awayErr = rabbitmq.Start(t.Context(), rabbitmq.Options{Dir: awayDir}) })
	t.Cleanup(func() {
		if starting.Wait(); awayErr == nil {
			away.Stop()
		}
	})
	connection, err := amqp.Dial(broker.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	fill(t, channel, "healthy", amqp.QueueTypeClassic, 3)
	var ahead atomic.Int64 // by how much the clock was moved
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	registry, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	told := &forgetting{recorder: decision.NewRecorder(decision.NewLedger(4), registry, log)}
	store := policy.NewStore(policy.NewSources(backlog.SampleBounds{Timeout: timeout, Now: clock}), told, log)
	decider := decision.NewDecider(decision.Config{Policies: store, Recorder: told.recorder, MaxAge: maxAge, Timeout: 2 * timeout, Now: clock})
	service := New(Config{Decider: decider, MaxAge: maxAge})
	told.decider = decider
	secrets := &values{}
	set := func(name string, source v1alpha1.RabbitMQBacklog) {
		store.Set(t.Context(), &v1alpha1.ScalingPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: name},
			Spec: v1alpha1.ScalingPolicySpec{
				Backlog: v1alpha1.Backlog{RabbitMQ: &source},
				Outage:  v1alpha1.Outage{HoldFor: &metav1.Duration{Duration: time.Minute}},
			},
		}, secrets)
	}
	ask := func(metadata map[string]string) (float64, error) {
		ref := &pb.ScaledObjectRef{Namespace: "scan", Name: "job", ScalerMetadata: metadata}
		response, err := service.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: ref})
		if err != nil {
			return 0, err
		}
		return response.MetricValues[0].MetricValueFloat, nil
	}
	at := func(uri string) v1alpha1.ValueSource { return v1alpha1.ValueSource{Value: uri} }
	// asks is ask of a policy by its name that must have an answer.
	asks := func(t *testing.T, policy string, want float64, when string) {
		t.Helper()
		if value, err := ask(map[string]string{"policy": policy}); value != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", when, value, err, want)
		}
	}
	// becomes is asks until the answer is right.
	becomes := func(t *testing.T, policy string, want float64, when string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(maxAge) {
			if value, err := ask(map[string]string{"policy": policy}); value == want && err == nil {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("%s: %v, %v; want %v", when, value, err, want)
			}
		}
	}

	set("healthy", v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "healthy"})
	if value, err := ask(map[string]string{"policy": "healthy"}); value != 3 || err != nil {
		t.Fatalf("%v, %v; want 3", value, err)
	}

	// The healthy policy is asked for all the time. What waits for a fault waits for the timeout; half of that is a slow machine.
	const allowed = timeout / 2
	watching, stopWatching := context.WithCancel(t.Context())
	var slowest atomic.Int64
	var watch sync.WaitGroup
	watch.Go(func() {
		for watching.Err() == nil {
			begin := time.Now()
			value, err := ask(map[string]string{"policy": "healthy", "scalerAddress": "scaler:9090"})
			if value != 3 || err != nil {
				t.Errorf("the healthy policy's target is %v, %v; want 3", value, err)
				return
			}
			slowest.Store(max(slowest.Load(), int64(time.Since(begin))))
			time.Sleep(10 * time.Millisecond)
		}
	})

	hung := func() string {
		listener, err := net.Listen("tcp", "127.0.0.1:0") // accepted by the kernel, read by nobody
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		return listener.Addr().String()
	}()
	address := strings.TrimPrefix(broker.AMQPURL("/"), "amqp://guest:guest@")
	unknownName := v1alpha1.RabbitMQBacklog{
		URI: at(fmt.Sprintf("amqps://guest:guest@localhost:%d/", ports[0])), Queue: "q", TLS: &v1alpha1.TLS{CA: ptr.To(at(string(authority.PEM)))},
	}
	management, silent := at("http://guest:guest@127.0.0.1:1"), at("http://guest:guest@"+hung)
	t.Run("at once", func(t *testing.T) {
		for name, tc := range map[string]struct {
			source   v1alpha1.RabbitMQBacklog
			metadata map[string]string
			code     codes.Code
			want     string
		}{
			"malformed URI":        {source: v1alpha1.RabbitMQBacklog{URI: at("broker:5672"), Queue: "q"}, code: codes.Unavailable, want: "must look like amqp://user:password@host:5672/vhost"},
			"wrong password":       {source: v1alpha1.RabbitMQBacklog{URI: at("amqp://guest:wr0ng@" + address), Queue: "q"}, code: codes.Unavailable, want: `the broker refuses user "guest"`},
			"TLS name mismatch":    {source: unknownName, code: codes.Unavailable, want: "set tls.ca, or tls.serverName"},
			"virtual host missing": {source: v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("nowhere")), Queue: "q"}, code: codes.Unavailable, want: `virtual host "nowhere" does not exist`},
			"queue missing":        {source: v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "nope", OnMissingQueue: v1alpha1.MissingQueueError}, code: codes.Unavailable, want: `queue "nope" does not exist`},
			"broker hung":          {source: v1alpha1.RabbitMQBacklog{URI: at("amqp://u:p@" + hung), Queue: "q"}, code: codes.Unavailable, want: "broker " + hung + ": connect: "},
			"management off":       {source: v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), ManagementURI: &management, Queue: "healthy"}, code: codes.OK},
			"management hung":      {source: v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), ManagementURI: &silent, Queue: "healthy"}, code: codes.OK},
			"Secret missing":       {source: v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{SecretKeyRef: secretKey("mq")}, Queue: "q"}, code: codes.Unavailable, want: "spec.backlog.rabbitmq.uri.secretKeyRef: Secret mq not found"},
			"unknown policy":       {metadata: map[string]string{"policy": "nope"}, code: codes.NotFound, want: "ScalingPolicy scan/nope does not exist: create it"},
			"unknown key":          {metadata: map[string]string{"policy": "healthy", "minReplicas": "5"}, code: codes.InvalidArgument, want: `has "minReplicas" in its metadata, which means nothing here`},
			"no policy":            {metadata: map[string]string{"polcy": "healthy"}, code: codes.InvalidArgument, want: "has no `policy` in its metadata"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if tc.metadata == nil {
					policy := strings.ReplaceAll(strings.ToLower(name), " ", "-")
					set(policy, tc.source)
					tc.metadata = map[string]string{"policy": policy}
				}
				begin := time.Now()
				value, err := ask(tc.metadata)
				if err == nil && value != 3 {
					t.Errorf("%v, want 3", value)
				}
				if status.Code(err) != tc.code || err != nil && (!strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "wr0ng")) {
					t.Errorf("error %v, want %s with %q", err, tc.code, tc.want)
				}
				if took := time.Since(begin); took > 3*timeout {
					t.Errorf("it took %s", took)
				}
			})
		}
	})

	t.Run("Secret vanishes", func(t *testing.T) {
		defer ahead.Store(0)
		secrets.Store("rotated", broker.AMQPURL("nowhere"))
		set("rotated", v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{SecretKeyRef: secretKey("rotated")}, Queue: "healthy"})
		if _, err := ask(map[string]string{"policy": "rotated"}); status.Code(err) != codes.Unavailable {
			t.Errorf("error %v by credentials that are wrong", err)
		}
		secrets.Store("rotated", broker.AMQPURL("/"))
		ahead.Add(int64(time.Minute)) // values are looked up again by then, and nobody waits for it
		becomes(t, "rotated", 3, "corrected")
		before := secrets.missed.Load()
		secrets.Delete("rotated")
		ahead.Add(int64(time.Minute))
		for deadline := time.Now().Add(20 * time.Second); secrets.missed.Load() == before; time.Sleep(maxAge) {
			asks(t, "rotated", 3, "vanished: by the credentials that were read last")
			if time.Now().After(deadline) {
				t.Fatal("nobody looked for the Secret")
			}
		}
		asks(t, "rotated", 3, "looked for in vain")
	})

	t.Run("queue deleted while in use", func(t *testing.T) {
		fill(t, channel, "short-lived", amqp.QueueTypeClassic, 2)
		set("of-a-queue", v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "short-lived"})
		asks(t, "of-a-queue", 2, "in use")
		if _, err := channel.QueueDelete("short-lived", false, false, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(maxAge)
		asks(t, "of-a-queue", 0, "deleted")
	})

	// The totals of a quorum queue are up to 5 s old. Here they say that no message is worked on, and later that two still are.
	t.Run("totals 5 s old", func(t *testing.T) {
		fill(t, channel, "lagging", amqp.QueueTypeQuorum, 3)
		workers, err := connection.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if err := workers.Qos(1, 0, false); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			deliveries, err := workers.Consume("lagging", "", false, false, false, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			<-deliveries
		}
		settled(t, channel, "lagging", 1, 2)
		set("lagging", v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), ManagementURI: ptr.To(at(broker.ManagementURL())), Queue: "lagging"})
		asks(t, "lagging", 3, "one waits, two are worked on")
		if _, err := channel.QueuePurge("lagging", false); err != nil {
			t.Fatal(err)
		}
		if err := workers.Ack(0, true); err != nil { // all
			t.Fatal(err)
		}
		if err := workers.Close(); err != nil {
			t.Fatal(err)
		}
		settled(t, channel, "lagging", 0, 0)
		time.Sleep(maxAge)
		asks(t, "lagging", 0, "all are done, and their consumers gone")
	})

	// More queues than there are channels.
	t.Run("queues that do not answer", func(t *testing.T) {
		const stuck = 40
		var polls sync.WaitGroup
		for i := range stuck {
			fill(t, channel, fmt.Sprint("stuck-", i), amqp.QueueTypeClassic, 1)
		}
		all := func(what string) {
			t.Helper()
			if err := broker.Control(t.Context(), "eval", fmt.Sprintf(`[begin {ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue,
				list_to_binary("stuck-" ++ integer_to_list(I)))), sys:%s(amqqueue:get_pid(Q)) end || I <- lists:seq(0, %d)].`, what, stuck-1)); err != nil {
				t.Fatal(err)
			}
		}
		all("suspend")
		for i := range stuck {
			name := fmt.Sprint("stuck-", i)
			set(name, v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: name})
			polls.Go(func() {
				if _, err := ask(map[string]string{"policy": name}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), name) {
					t.Errorf("error %v, want Unavailable and the queue's name", err)
				}
			})
		}
		polls.Wait()
		time.Sleep(2 * maxAge)
		begin := time.Now()
		_, err := ask(map[string]string{"policy": "stuck-0"})
		if took := time.Since(begin); took > allowed || err == nil || !strings.Contains(err.Error(), `queue "stuck-0": it does not answer, though`) {
			t.Errorf("error %v after %s, want at once that the queue does not answer", err, took)
		}
		all("resume")
		becomes(t, "stuck-0", 1, "once it answers again")
	})

	t.Run("edit not valid", func(t *testing.T) {
		set("edited", v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "healthy"})
		set("edited", v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/"))})
		asks(t, "edited", 3, "the last good version")
		if got := validity(t, registry, "edited"); got != 0 {
			t.Errorf("ebbtide_policy_valid is %v, want 0", got)
		}
	})

	t.Run("10,000 policies at start-up", func(t *testing.T) {
		begin := time.Now()
		for i := range 10_000 {
			set(fmt.Sprint("many-", i), v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "healthy"})
		}
		t.Logf("in force after %s", time.Since(begin))
		asks(t, "many-9999", 3, "the last one")
	})

	t.Run("broker hangs while in use, and is killed", func(t *testing.T) {
		if starting.Wait(); awayErr != nil {
			t.Fatal(awayErr)
		}
		elsewhere, err := amqp.Dial(away.AMQPURL("/"))
		if err != nil {
			t.Fatal(err)
		}
		defer elsewhere.Close()
		channel, err := elsewhere.Channel()
		if err != nil {
			t.Fatal(err)
		}
		fill(t, channel, "scans", amqp.QueueTypeClassic, 2)
		set("elsewhere", v1alpha1.RabbitMQBacklog{URI: at(away.AMQPURL("/")), Queue: "scans"})
		asks(t, "elsewhere", 2, "in use")
		held := func(when string) {
			t.Helper()
			time.Sleep(maxAge)
			d, err := decider.Decide(t.Context(), types.NamespacedName{Namespace: "scan", Name: "elsewhere"})
			if err != nil || d.Target != 2 || d.Constraint != sizing.Hold {
				t.Errorf("%s: %d by %s, %v; want 2, held", when, d.Target, d.Constraint, err)
			}
		}
		if err := away.Pause(); err != nil {
			t.Fatal(err)
		}
		held("it hangs")
		away.Crash()
		held("it is killed")
	})

	t.Run("policy deleted while polled", func(t *testing.T) {
		name := types.NamespacedName{Namespace: "scan", Name: "short-lived"}
		for range 20 {
			set(name.Name, v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "healthy"})
			var polls sync.WaitGroup
			for range 4 {
				polls.Go(func() {
					if _, err := ask(map[string]string{"policy": name.Name}); err != nil && status.Code(err) != codes.NotFound && status.Code(err) != codes.Unavailable {
						t.Error(err)
					}
				})
			}
			store.Delete(name)
			polls.Wait()
		}
		_, err := ask(map[string]string{"policy": name.Name})
		if status.Code(err) != codes.NotFound {
			t.Errorf("error %v, want NotFound", err)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if strings.Contains(family.String(), `"short-lived"`) {
				t.Errorf("series of a deleted policy are left: %s", family)
			}
		}
	})

	t.Run("replicas answer alike", func(t *testing.T) {
		other := policy.NewStore(policy.NewSources(backlog.SampleBounds{Timeout: timeout, Now: clock}), nobody{}, log)
		replica := decision.NewDecider(decision.Config{
			Policies: other, Recorder: decision.NewRecorder(decision.NewLedger(4), prometheus.NewRegistry(), log),
			MaxAge: maxAge, Timeout: 2 * timeout, Now: clock,
		})
		healthy, _, _ := store.Get(types.NamespacedName{Namespace: "scan", Name: "healthy"})
		other.Set(t.Context(), &v1alpha1.ScalingPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "healthy"},
			Spec: v1alpha1.ScalingPolicySpec{Backlog: v1alpha1.Backlog{
				RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "healthy"}}},
		}, secrets)
		for range 10 {
			one, err := decider.Decide(t.Context(), healthy.Name)
			two, otherErr := replica.Decide(t.Context(), healthy.Name)
			if err != nil || otherErr != nil || one.Target != two.Target || one.Constraint != two.Constraint || one.Reason != two.Reason {
				t.Errorf("%d (%s, %v) and %d (%s, %v)", one.Target, one.Reason, err, two.Target, two.Reason, otherErr)
			}
			time.Sleep(60 * time.Millisecond)
		}
	})

	t.Run("clock jumps", func(t *testing.T) {
		for _, jump := range []time.Duration{time.Hour, -3 * time.Hour, 0} {
			ahead.Store(int64(jump))
			if value, err := ask(map[string]string{"policy": "healthy"}); value != 3 || err != nil {
				t.Errorf("%v, %v with a clock moved by %s; want 3", value, err, jump)
			}
		}
	})

	stopWatching()
	watch.Wait()
	t.Logf("the slowest answer for the healthy policy took %s", time.Duration(slowest.Load()))
	if slowest := time.Duration(slowest.Load()); slowest > allowed {
		t.Errorf("an answer for the healthy policy took %s, as if it waited for another policy's fault", slowest)
	}
}

// maxAge of a sample in TestIntegrationFaults.
const maxAge = 50 * time.Millisecond

// validity is what ebbtide_policy_valid shows of a policy.
func validity(t *testing.T, registry *prometheus.Registry, policy string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				if family.GetName() == "ebbtide_policy_valid" && label.GetName() == "policy" && label.GetValue() == policy {
					return series.GetGauge().GetValue()
				}
			}
		}
	}
	t.Fatalf("there is no ebbtide_policy_valid of %s", policy)
	return 0
}

// fill declares a queue and publishes messages that the broker confirms.
func fill(t *testing.T, channel *amqp.Channel, queue, kind string, messages int) {
	t.Helper()
	if _, err := channel.QueueDeclare(queue, true, false, false, false, amqp.Table{amqp.QueueTypeArg: kind}); err != nil {
		t.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for range messages {
		confirmation, err := channel.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{DeliveryMode: amqp.Persistent})
		if err != nil {
			t.Fatal(err)
		}
		confirmation.Wait()
	}
}

// settled waits until the broker shows what was done to a queue.
func settled(t *testing.T, channel *amqp.Channel, queue string, ready, consumers int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		state, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if state.Messages == ready && state.Consumers == consumers {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %+v, want %d messages and %d consumers", queue, state, ready, consumers)
		}
	}
}

func secretKey(name string) *corev1.SecretKeySelector {
	return &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: "uri"}
}
