package main

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
)

// panicking is a service with a bug.
type panicking struct {
	healthpb.UnimplementedHealthServer
}

func (panicking) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	panic("a bug")
}

func (panicking) Watch(*healthpb.HealthCheckRequest, grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	panic("a bug")
}

// A panic ends only the call that it happens in.
func TestPanic(t *testing.T) {
	registry := prometheus.NewRegistry()
	server := newServer(t.Context(), insecure.NewCredentials(), decision.NewRecorder(decision.NewLedger(1), registry, slog.New(slog.DiscardHandler)))
	healthpb.RegisterHealthServer(server, panicking{})
	listener := bufconn.Listen(1 << 16)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient("passthrough:///scaler", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := healthpb.NewHealthClient(connection)
	for range 2 {
		if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("a call ends with %v, want code Internal", err)
		}
		stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Internal {
			t.Errorf("a stream ends with %v, want code Internal", err)
		}
	}
	metrics, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range metrics {
		if family.GetName() == "ebbtide_panics_total" {
			for _, m := range family.GetMetric() {
				if label := m.GetLabel()[0].GetValue(); label == "call" && m.GetCounter().GetValue() != 4 {
					t.Errorf("%v panics are counted, want 4", m.GetCounter().GetValue())
				}
			}
		}
	}
}
