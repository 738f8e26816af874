package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
)

// connect opens connections that say something, or nothing, and returns the first of them.
func connect(t *testing.T, address, say string, n int) (first net.Conn) {
	t.Helper()
	for i := range n {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, say); err != nil && i < maxConnections {
			t.Fatal(err)
		}
		if i == 0 {
			first = conn
		}
	}
	return first
}

// ended is that the other end has closed a connection.
func ended(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Error("the oldest connection is kept")
	}
}

func isTimeout(err error) bool {
	var netError net.Error
	return errors.As(err, &netError) && netError.Timeout()
}

// Whoever holds connections to the HTTP port open keeps no probe of a kubelet out, which would end the scaler for all.
func TestProbesComeThrough(t *testing.T) {
	ready := make(chan struct{})
	close(ready)
	web, err := newWeb("127.0.0.1:0", prometheus.NewRegistry(), decision.NewLedger(ledgerSize), true, ready)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = web.server.Serve(web.listener) }()
	t.Cleanup(func() { _ = web.server.Close() })
	address := web.listener.Addr().String()
	for name, say := range map[string]string{
		"silent": "", "half a request": "GET /healthz HTTP/1.1\r\nHost: ", "kept alive": "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			first := connect(t, address, say, maxConnections+20)
			client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				response, err := client.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
				if response.StatusCode != http.StatusOK {
					t.Errorf("%s: %s", path, response.Status)
				}
			}
			ended(t, first)
		})
	}
}

// Connections to the gRPC port are bounded, too; who calls stays, and metadata without end are refused.
func TestCallersAreBounded(t *testing.T) {
	server := newServer(t.Context(), insecure.NewCredentials(), decision.NewRecorder(decision.NewLedger(1), prometheus.NewRegistry(), slog.New(slog.DiscardHandler)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const most = 20
	go func() { _ = server.Serve(newCrowd(listener, most)) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	client := healthpb.NewHealthClient(connection)
	check := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	}
	if err := check(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended(t, connect(t, listener.Addr().String(), "", 2*most))
	if err := check(t.Context()); err != nil {
		t.Errorf("beside %d idle connections: %v", 2*most, err)
	}
	if err := check(metadata.AppendToOutgoingContext(t.Context(), "x", strings.Repeat("x", 1<<20))); err == nil || status.Code(err) == codes.DeadlineExceeded {
		t.Errorf("metadata of a megabyte: error %v", err)
	}
}

// accepting hands out one end of pipes.
type accepting chan net.Conn

func (a accepting) Accept() (net.Conn, error) { return <-a, nil }
func (accepting) Close() error                { return nil }
func (accepting) Addr() net.Addr              { return &net.TCPAddr{} }

// Who is in use stays as long as there is another one to go, and the newest stays in any case.
func TestCrowd(t *testing.T) {
	listener := make(accepting, 1)
	c := newCrowd(listener, 2)
	var guests []*guest
	come := func() {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		listener <- near
		conn, err := c.Accept()
		if err != nil {
			t.Fatal(err)
		}
		guests = append(guests, conn.(*guest))
	}
	there := func(want string) {
		t.Helper()
		got := ""
		for i, g := range guests {
			if g.place != nil {
				got += fmt.Sprint(i)
			}
		}
		if got != want {
			t.Errorf("there are %q, want %q", got, want)
		}
	}
	come()
	guests[0].use(true)
	come()
	there("01")
	come()
	there("02")
	guests[2].use(true)
	come()
	there("23")
	_ = guests[2].Close()
	_ = guests[2].Close()
	come()
	there("34")
}

// So many requests are answered at a time; others wait for their turn, and one that is given up leaves.
func TestTurns(t *testing.T) {
	turn, answering, answer := make(turns, 1), make(chan struct{}), make(chan struct{})
	serve := func(ctx context.Context, handler http.HandlerFunc) int {
		recorder := httptest.NewRecorder()
		turn.serve(recorder, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), handler)
		return recorder.Code
	}
	var first sync.WaitGroup
	first.Go(func() { serve(t.Context(), func(http.ResponseWriter, *http.Request) { close(answering); <-answer }) })
	<-answering
	gone, leave := context.WithCancel(t.Context())
	leave()
	if code := serve(gone, func(http.ResponseWriter, *http.Request) { t.Error("answered beside another one") }); code != http.StatusServiceUnavailable {
		t.Errorf("status %d", code)
	}
	close(answer)
	first.Wait()
	if code := serve(t.Context(), func(http.ResponseWriter, *http.Request) {}); code != http.StatusOK {
		t.Errorf("status %d", code)
	}
}
