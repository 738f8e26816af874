package externalscaler

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// source answers what the test puts into it.
type source struct {
	now      func() time.Time
	observed atomic.Int64
	ready    atomic.Int64
	failure  atomic.Pointer[error]
	held     chan struct{} // answers wait until it is closed; nil: they do not
}

func (s *source) Observe(ctx context.Context, _ time.Duration) (sizing.Observation, error) {
	s.observed.Add(1)
	if s.held != nil {
		select {
		case <-s.held:
		case <-ctx.Done():
			return sizing.Observation{}, context.Cause(ctx)
		}
	}
	if failure := s.failure.Load(); failure != nil {
		return sizing.Observation{}, *failure
	}
	return sizing.Observation{Time: s.now(), Ready: s.ready.Load()}, nil
}

func (*source) Close() error { return nil }

// nobody is told what happens to policies.
type nobody struct{}

func (nobody) Validated(types.NamespacedName, error) {}
func (nobody) Forget(types.NamespacedName)           {}

// testBundle is a service with one policy, scan/scans, behind a real gRPC connection.
type testBundle struct {
	clock   atomic.Int64 // seconds
	source  *source      // of the policies that the bundle sets
	next    *source      // what is opened next
	service *Service
	decider *decision.Decider
	store   *policy.Store
	ledger  *decision.Ledger
	client  pb.ExternalScalerClient
}

// Open implements policy.Opener.
func (b *testBundle) Open(*v1alpha1.ScalingPolicySpec, backlog.Values) backlog.Source { return b.next }

func newBundle(t *testing.T) *testBundle {
	t.Helper()
	b := &testBundle{ledger: decision.NewLedger(10)}
	now := func() time.Time { return time.Unix(b.clock.Load(), 0) }
	b.clock.Store(1000)
	b.source = &source{now: now}
	b.next = b.source
	log := slog.New(slog.DiscardHandler)
	b.store = policy.NewStore(b, nobody{}, log)
	b.decider = decision.NewDecider(decision.Config{
		Policies: b.store, Recorder: decision.NewRecorder(b.ledger, prometheus.NewRegistry(), log),
		MaxAge: time.Second, Timeout: time.Second, Now: now,
	})
	b.service = New(Config{Decider: b.decider, MaxAge: time.Second})
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	b.service.Register(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient("passthrough:///scaler", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	b.client = pb.NewExternalScalerClient(connection)
	return b
}

// set puts a policy in force, with a floor for when the broker is away.
func (b *testBundle) set(maxReplicas, floor int32) {
	b.store.Set(context.Background(), &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "scans"},
		Spec: v1alpha1.ScalingPolicySpec{
			Backlog:  v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{Value: "amqp://x"}, Queue: "q"}},
			Target:   v1alpha1.Target{MaxReplicas: &maxReplicas},
			Calendar: &v1alpha1.Calendar{Default: v1alpha1.Limits{MinReplicas: ptr.To(floor)}},
			Outage:   v1alpha1.Outage{HoldFor: &metav1.Duration{Duration: time.Minute}},
		},
	}, nil)
}

func ref(name string) *pb.ScaledObjectRef {
	return &pb.ScaledObjectRef{Namespace: "scan", Name: "job", ScalerMetadata: map[string]string{"policy": name}}
}

func (b *testBundle) value(t *testing.T) float64 {
	t.Helper()
	response, err := b.client.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: ref("scans")})
	if err != nil {
		t.Fatal(err)
	}
	if len(response.MetricValues) != 1 {
		t.Fatalf("%d values, want one", len(response.MetricValues))
	}
	return response.MetricValues[0].MetricValueFloat
}

func (b *testBundle) active(t *testing.T) bool {
	t.Helper()
	response, err := b.client.IsActive(t.Context(), ref("scans"))
	if err != nil {
		t.Fatal(err)
	}
	return response.Result
}

func TestCallsAnswerFromOneDecision(t *testing.T) {
	b := newBundle(t)
	b.set(50, 0)
	if b.active(t) || b.value(t) != 0 {
		t.Error("active without work")
	}
	b.source.ready.Store(7)
	if b.active(t) {
		t.Error("a second decision was taken by the same sample")
	}
	b.clock.Add(2)
	if !b.active(t) || b.value(t) != 7 {
		t.Errorf("value %v, want 7", b.value(t))
	}
	if n := len(b.ledger.Last(types.NamespacedName{Namespace: "scan", Name: "scans"}, 10)); n != 2 {
		t.Errorf("%d decisions in the ledger, want 2", n)
	}
	b.set(5, 0)
	if b.value(t) != 5 {
		t.Errorf("value %v right after the edit, want the new cap of 5", b.value(t))
	}
}

func TestGetMetricSpecNeverFails(t *testing.T) {
	b := newBundle(t)
	response, err := b.client.GetMetricSpec(t.Context(), ref("no-such-policy"))
	if err != nil || len(response.MetricSpecs) != 1 || response.MetricSpecs[0].TargetSizeFloat != 1 {
		t.Errorf("%v, %v; want one specification with target size 1", response, err)
	}
}

// KEDA opens this stream beside StreamIsActive, and again whenever it ends.
func TestStreamMetricSpec(t *testing.T) {
	b := newBundle(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := b.client.StreamMetricSpec(ctx, ref("scans"))
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := b.client.GetMetricSpec(t.Context(), ref("scans"))
	if err != nil || !proto.Equal(pushed, pulled) {
		t.Errorf("pushed %v, pulled %v, %v; want the same", pushed, pulled, err)
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("the stream ended by itself: %v", err)
	}
}

func TestOutage(t *testing.T) {
	b := newBundle(t)
	b.set(50, 0)
	b.source.ready.Store(7)
	b.value(t)
	refused := errors.New("connection refused")
	b.source.failure.Store(&refused)
	b.clock.Add(60)
	if b.value(t) != 7 {
		t.Errorf("value %v within holdFor, want the last one, 7", b.value(t))
	}
	b.clock.Add(2)
	_, err := b.client.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: ref("scans")})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v after holdFor, want Unavailable with the cause", err)
	}
	b.set(50, 3)
	if b.value(t) != 3 {
		t.Errorf("value %v after holdFor, want the floor of 3", b.value(t))
	}
}

func TestErrors(t *testing.T) {
	b := newBundle(t)
	b.store.Set(t.Context(), &v1alpha1.ScalingPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "broken"}}, nil)
	for name, tc := range map[string]struct {
		policy string
		code   codes.Code
		want   string
	}{
		"unknown": {"nope", codes.NotFound, "ScalingPolicy scan/nope does not exist: create it"},
		"invalid": {"broken", codes.FailedPrecondition, "spec.backlog: Invalid value: set exactly one source"},
		"unnamed": {"", codes.InvalidArgument, "the trigger of scan/job has no `policy` in its metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			_, metricsErr := b.client.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: ref(tc.policy)})
			_, activeErr := b.client.IsActive(t.Context(), ref(tc.policy))
			for _, err := range []error{metricsErr, activeErr} {
				if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want %s with %q", err, tc.code, tc.want)
				}
			}
		})
	}
}

func TestStreamIsActive(t *testing.T) {
	b := newBundle(t)
	b.set(50, 0)
	stream, err := b.client.StreamIsActive(t.Context(), ref("scans"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, false} {
		b.source.ready.Store(int64(i % 2))
		b.clock.Add(2)
		begin := time.Now()
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if response.Result != want {
			t.Errorf("announcement %d is %v, want %v", i, response.Result, want)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("announcement %d took %s, want within a second: streams look every %s", i, took, pushEvery)
		}
	}
}

// A stream that will never be answered ends with the reason; one more than there may be is refused.
func TestStreamsThatEnd(t *testing.T) {
	b := newBundle(t)
	b.set(10, 0)
	b.service.config.Authorize = func(_ context.Context, namespace string) error {
		if namespace != "scan" {
			return status.Error(codes.PermissionDenied, "no")
		}
		return nil
	}
	foreign := ref("scans")
	foreign.Namespace = "other"
	for name, tc := range map[string]struct {
		ref  *pb.ScaledObjectRef
		open int64
		want codes.Code
	}{
		"another namespace": {foreign, 0, codes.PermissionDenied}, "no policy": {&pb.ScaledObjectRef{Namespace: "scan", Name: "x"}, 0, codes.InvalidArgument},
		"too many": {ref("scans"), maxStreams, codes.ResourceExhausted},
	} {
		b.service.streams.Add(tc.open)
		stream, err := b.client.StreamIsActive(t.Context(), tc.ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
		b.service.streams.Add(-tc.open)
	}
	if n := b.service.streams.Load(); n != 0 {
		t.Errorf("%d streams are counted", n)
	}
}
