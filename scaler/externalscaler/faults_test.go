package externalscaler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// values resolves references by name, from what the test puts in.
type values struct{ sync.Map }

func (v *values) Resolve(_ context.Context, _ string, value *v1alpha1.ValueSource) (string, error) {
	if value.SecretKeyRef == nil {
		return value.Value, nil
	}
	text, ok := v.Load(value.SecretKeyRef.Name)
	if !ok {
		return "", fmt.Errorf("secretKeyRef: Secret %s not found", value.SecretKeyRef.Name)
	}
	return text.(string), nil
}

// forgetting tells those who keep something of policies.
type forgetting struct {
	recorder *decision.Recorder
	service  *Service
}

func (f *forgetting) Validated(name types.NamespacedName, err error) {
	f.recorder.Validated(name, err)
}

func (f *forgetting) Forget(name types.NamespacedName) {
	f.service.Forget(name)
	f.recorder.Forget(name)
}

// What is wrong with one policy, its broker or its trigger is told to the one who asks for it, and neither delays nor
// changes what others are told. The rows are those of docs/reference/faults.md.
func TestIntegrationFaults(t *testing.T) {
	broker := rabbitmq.StartForTest(t)
	connection, err := amqp.Dial(broker.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channel.QueueDeclare("healthy", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := channel.PublishWithContext(t.Context(), "", "healthy", false, false, amqp.Publishing{}); err != nil {
			t.Fatal(err)
		}
	}
	const timeout = 4 * time.Second // a broker takes its time to refuse a password
	var ahead atomic.Int64          // by how much the clock was moved
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	registry, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	told := &forgetting{recorder: decision.NewRecorder(decision.NewLedger(4), registry, log)}
	store := policy.NewStore(policy.NewSources(backlog.Limits{MaxAge: 50 * time.Millisecond, Timeout: timeout, Now: clock}), told, log)
	service := New(Config{Policies: store, Recorder: told.recorder, RepeatFailure: 50 * time.Millisecond, Timeout: 2 * timeout, Now: clock})
	told.service = service
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
	set("healthy", v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "healthy"})
	if value, err := ask(map[string]string{"policy": "healthy"}); value != 3 || err != nil {
		t.Fatalf("%v, %v; want 3", value, err)
	}

	// The healthy policy is asked for all the time.
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
	management, silent := at("http://guest:guest@127.0.0.1:1"), at("http://guest:guest@"+hung)
	for name, tc := range map[string]struct {
		source   v1alpha1.RabbitMQBacklog
		metadata map[string]string
		code     codes.Code
		want     string
	}{
		"malformed URI":        {source: v1alpha1.RabbitMQBacklog{URI: at("broker:5672"), Queue: "q"}, code: codes.Unavailable, want: "must look like amqp://user:password@host:5672/vhost"},
		"wrong password":       {source: v1alpha1.RabbitMQBacklog{URI: at("amqp://guest:wr0ng@" + address), Queue: "q"}, code: codes.Unavailable, want: `the broker refuses user "guest"`},
		"virtual host missing": {source: v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("nowhere")), Queue: "q"}, code: codes.Unavailable, want: `virtual host "nowhere" does not exist`},
		"queue missing":        {source: v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "nope", OnMissingQueue: v1alpha1.MissingQueueError}, code: codes.Unavailable, want: `queue "nope": there is no such queue`},
		"broker hung":          {source: v1alpha1.RabbitMQBacklog{URI: at("amqp://u:p@" + hung), Queue: "q"}, code: codes.Unavailable, want: "broker " + hung + ": connect: "},
		"management off":       {source: v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), ManagementURI: &management, Queue: "healthy"}, code: codes.OK},
		"management hung":      {source: v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), ManagementURI: &silent, Queue: "healthy"}, code: codes.OK},
		"Secret missing":       {source: v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{SecretKeyRef: secretKey("mq")}, Queue: "q"}, code: codes.Unavailable, want: "spec.backlog.rabbitmq.uri.secretKeyRef: Secret mq not found"},
		"unknown policy":       {metadata: map[string]string{"policy": "nope"}, code: codes.NotFound, want: "ScalingPolicy scan/nope does not exist: create it"},
		"unknown key":          {metadata: map[string]string{"policy": "healthy", "minReplicas": "5"}, code: codes.InvalidArgument, want: `has "minReplicas" in its metadata, which means nothing here`},
		"no policy":            {metadata: map[string]string{"polcy": "healthy"}, code: codes.InvalidArgument, want: "has no `policy` in its metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.metadata == nil {
				policy := strings.ReplaceAll(strings.ToLower(name), " ", "-")
				set(policy, tc.source)
				tc.metadata = map[string]string{"policy": policy}
			}
			begin := time.Now()
			_, err := ask(tc.metadata)
			if status.Code(err) != tc.code || err != nil && (!strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "wr0ng")) {
				t.Errorf("error %v, want %s with %q", err, tc.code, tc.want)
			}
			if took := time.Since(begin); took > 3*timeout {
				t.Errorf("it took %s", took)
			}
		})
	}

	t.Run("Secret vanishes", func(t *testing.T) {
		secrets.Store("rotated", broker.AMQPURL("/"))
		set("rotated", v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{SecretKeyRef: secretKey("rotated")}, Queue: "healthy"})
		for _, vanish := range []bool{false, true} {
			if vanish {
				secrets.Delete("rotated")
			}
			if value, err := ask(map[string]string{"policy": "rotated"}); value != 3 || err != nil {
				t.Errorf("%v, %v; want 3 by the credentials that were read last", value, err)
			}
		}
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
		other := policy.NewStore(policy.NewSources(backlog.Limits{MaxAge: 50 * time.Millisecond, Timeout: timeout, Now: clock}), nobody{}, log)
		replica := New(Config{
			Policies: other, Recorder: decision.NewRecorder(decision.NewLedger(4), prometheus.NewRegistry(), log),
			RepeatFailure: 50 * time.Millisecond, Timeout: 2 * timeout, Now: clock,
		})
		healthy, _, _ := store.Get(types.NamespacedName{Namespace: "scan", Name: "healthy"})
		other.Set(t.Context(), &v1alpha1.ScalingPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "healthy"},
			Spec: v1alpha1.ScalingPolicySpec{Backlog: v1alpha1.Backlog{
				RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: at(broker.AMQPURL("/")), Queue: "healthy"}}},
		}, secrets)
		for range 10 {
			one, err := service.Decide(t.Context(), healthy.Name)
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
	if slowest := time.Duration(slowest.Load()); slowest > timeout {
		t.Errorf("an answer for the healthy policy took %s", slowest)
	}
	if n, err := testutil.GatherAndCount(registry, "ebbtide_policy_valid"); err != nil || n == 0 {
		t.Errorf("%d policies' validity is shown (%v)", n, err)
	}
}

// The document's table names tests that are there.
func TestFaultsDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Za-z]+)(?:/([^`]+))?` in `([^`]+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 15 {
		t.Errorf("the table names %d tests, want one in each row", len(named))
	}
	for _, match := range named {
		files, err := filepath.Glob(filepath.Join("../..", match[3], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(source), "func "+match[1]+"(") && strings.Contains(string(source), `"`+match[2]+`"`) ||
				match[2] == "" && strings.Contains(string(source), "func "+match[1]+"(")
		}
		if !found {
			t.Errorf("there is no %s", match[0])
		}
	}
}

// A call that its caller gives up says nothing of the broker: KEDA cancels its calls when a ScaledJob is edited.
func TestCanceledCall(t *testing.T) {
	b := newBundle(t)
	b.set(10, 0)
	b.source.held = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	name := types.NamespacedName{Namespace: "scan", Name: "scans"}
	if _, err := b.service.Decide(ctx, name); status.Code(err) != codes.Canceled {
		t.Errorf("error %v, want code Canceled", err)
	}
	close(b.source.held)
	if d, err := b.service.Decide(t.Context(), name); err != nil || d.Constraint != target.Backlog {
		t.Errorf("the next decision is %+v, %v; want one by the backlog", d, err)
	}
}

// A cap that policies share is split by weight, follows what each wants, and waits for nobody's broker.
func TestGroup(t *testing.T) {
	b := newBundle(t)
	service := b.service
	sources := map[string]*source{}
	store := b.store
	add := func(name string, weight int32) {
		sources[name] = &source{now: b.source.now}
		b.next = sources[name]
		store.Set(t.Context(), &v1alpha1.ScalingPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: name},
			Spec: v1alpha1.ScalingPolicySpec{
				Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{Value: "amqp://" + name}, Queue: "q"}},
				Target:  v1alpha1.Target{MaxReplicas: ptr.To[int32](50), MaxReplicasGroup: &v1alpha1.MaxReplicasGroup{Name: "seats", MaxReplicas: 12, Weight: weight}},
			},
		}, nil)
	}
	add("a", 1)
	add("b", 2)
	targetOf := func(name string) int32 {
		t.Helper()
		d, err := service.Decide(t.Context(), types.NamespacedName{Namespace: "scan", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return d.Target
	}
	// settled asks until background decisions about the others are in.
	settled := func(name string, want int32) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			b.clock.Add(10)
			if got := targetOf(name); got == want {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("target of %s is %d, want %d", name, got, want)
			}
		}
	}
	sources["a"].ready.Store(40)
	sources["b"].held = make(chan struct{})
	if got := targetOf("a"); got != 4 {
		t.Errorf("target %d before b was ever seen, want its third of 12: b may want all that it may have", got)
	}
	close(sources["b"].held)
	settled("a", 12) // b wants nothing
	sources["b"].ready.Store(40)
	settled("b", 8)
	settled("a", 4)
	sources["b"].ready.Store(3)
	settled("b", 3)
	settled("a", 9)
	hang := errors.New("no answer")
	sources["b"].failure.Store(&hang)
	settled("a", 9) // b's last observation holds
}

func secretKey(name string) *corev1.SecretKeySelector {
	return &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: "uri"}
}
