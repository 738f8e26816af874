package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	decisions "github.com/ebbtide-dev/ebbtide/proto/ebbtide/decisions/v1alpha1"
)

// spans is an OTLP collector that keeps what it gets.
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu  sync.Mutex
	all []*tracepb.Span
}

func (s *spans) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			s.all = append(s.all, scope.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (s *spans) named(name string) []*tracepb.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*tracepb.Span
	for _, span := range s.all {
		if span.Name == name {
			found = append(found, span)
		}
	}
	return found
}

// The program as a whole: policies from a directory, a backlog from a Prometheus, KEDA's calls, our own API, metrics,
// traces, and an end that waits for nobody for long.
func TestRun(t *testing.T) {
	work := 4
	prometheus := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"scalar","result":[1,"%d"]}}`, work)
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = prometheus.Serve(listener) }()
	t.Cleanup(func() { _ = prometheus.Close() })

	otlp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	traces, collectors := &spans{}, grpc.NewServer()
	collector.RegisterTraceServiceServer(collectors, traces)
	go func() { _ = collectors.Serve(otlp) }()
	t.Cleanup(collectors.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+otlp.Addr().String())

	dir := t.TempDir()
	write(t, filepath.Join(dir, "scans.yaml"), fmt.Appendf(nil, `
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog: {prometheus: {url: {value: "http://%s"}, query: work}}
  calendar:
    default: {idleReplicas: 2}
    holidays: {ics: {file: holidays.ics}, limits: {maxReplicas: 1}}
`, listener.Addr()))
	write(t, filepath.Join(dir, "holidays.ics"), []byte(strings.ReplaceAll(
		"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:1\nDTSTART;VALUE=DATE:20241224\nRRULE:FREQ=YEARLY\nSUMMARY:Christmas Eve\nEND:VEVENT\nEND:VCALENDAR\n", "\n", "\r\n")))
	ports, err := proc.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	address, web := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	ctx, stop := context.WithCancel(t.Context())
	cmd := command()
	cmd.SetArgs([]string{"--policy-dir", dir, "--listen", address, "--metrics-listen", web, "--log-level", "error"})
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()

	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	wait := grpc.WaitForReady(true)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		response, err := healthpb.NewHealthClient(connection).Check(ctx, &healthpb.HealthCheckRequest{}, wait)
		if err == nil && response.Status == healthpb.HealthCheckResponse_SERVING {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not serving: %v, %v", response, err)
		}
	}
	ref := &pb.ScaledObjectRef{Name: "job", Namespace: "scan", ScalerMetadata: map[string]string{"policy": "scans"}}
	metrics, err := pb.NewExternalScalerClient(connection).GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: ref})
	if err != nil || metrics.MetricValues[0].MetricValueFloat != 6 {
		t.Fatalf("%v, %v; want 6", metrics, err)
	}

	api := decisions.NewDecisionServiceClient(connection)
	list, err := api.ListDecisions(ctx, &decisions.ListDecisionsRequest{})
	if err != nil || len(list.Decisions) != 1 || list.Decisions[0].Constraint != decisions.Constraint_CONSTRAINT_IDLE {
		t.Errorf("decisions %v, %v", list, err)
	}
	stream, err := reflectionpb.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	services, err := stream.Recv()
	if err != nil || !strings.Contains(services.String(), "externalscaler.ExternalScaler") || !strings.Contains(services.String(), "ebbtide.decisions.v1alpha1.DecisionService") {
		t.Errorf("reflection %v, %v", services, err)
	}
	response, err := http.Get("http://" + web + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	for _, want := range []string{`ebbtide_target_replicas{namespace="scan",policy="scans"} 6`, `ebbtide_policy_valid{namespace="scan",policy="scans"} 1`} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("no %s in the metrics (%v)", want, err)
		}
	}

	// Streams that are open do not keep the program: KEDA's end as if they were complete, ours with the reason.
	scaler := pb.NewExternalScalerClient(connection)
	active, err := scaler.StreamIsActive(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if first, err := active.Recv(); err != nil || !first.Result {
		t.Fatalf("%v, %v; want that the policy is active", first, err)
	}
	specs, err := scaler.StreamMetricSpec(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := specs.Recv(); err != nil {
		t.Fatal(err)
	}
	watch, err := api.WatchDecisions(t.Context(), &decisions.WatchDecisionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil { // the stream takes decisions
		t.Fatal(err)
	}
	asked := time.Now()
	stop()
	_, activeErr := active.Recv()
	_, specsErr := specs.Recv()
	if !errors.Is(activeErr, io.EOF) || !errors.Is(specsErr, io.EOF) {
		t.Errorf("KEDA's streams end with %v and %v, want %v", activeErr, specsErr, io.EOF)
	}
	var watchErr error
	for watchErr == nil {
		_, watchErr = watch.Recv()
	}
	if status.Code(watchErr) != codes.Unavailable || !strings.Contains(watchErr.Error(), "this replica of the scaler stops") {
		t.Errorf("a watch ends with %v, want that the replica stops", watchErr)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	if took := time.Since(asked); took >= stopWithin {
		t.Errorf("it took %s to end, as if streams had no end", took)
	}
	decided, sampled := traces.named("decide"), traces.named("sample")
	if len(decided) == 0 || len(decided) > len(sampled) {
		t.Fatalf("%d spans of decisions, %d of samples, want one of each decision and of each sample", len(decided), len(sampled))
	}
	if links := decided[0].Links; len(links) != 1 || string(links[0].SpanId) != string(sampled[0].SpanId) {
		t.Errorf("the decision's span is linked to %v, want the sample's", links)
	}
}

func TestFlagErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"log level":    {[]string{"--log-level", "loud"}, `--log-level "loud": must be debug, info, warn or error`},
		"allow-client": {[]string{"--allow-client", "keda"}, "--allow-client needs --tls-client-ca"},
		"listen":       {[]string{"--policy-dir", os.TempDir(), "--listen", "nowhere:x"}, "--listen: "},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command()
			cmd.SetArgs(tc.args)
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}
