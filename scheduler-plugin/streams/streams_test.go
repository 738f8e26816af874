package streams

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/ebbtide-dev/ebbtide/e2e/testcert"
	"github.com/ebbtide-dev/ebbtide/internal/tlsfiles"
	drainingv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/draining/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/draining"
)

// said is what the server was told of a worker.
type said struct {
	uid   string
	state State
	gone  bool
}

type bundle struct {
	*Server
	address string
	heard   chan said
	stop    context.CancelFunc
}

var pods = map[string]Pod{
	"uid-a":    {Name: "a", Addresses: []string{"127.0.0.1"}},
	"uid-b":    {Name: "b", Addresses: []string{"10.0.0.7", "::1"}},
	"uid-none": {Name: "none"},
}

// serve starts a server on an address, a free one when that is empty.
func serve(t *testing.T, address string, security credentials.TransportCredentials, change func(*Options)) *bundle {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{address: listener.Addr().String(), heard: make(chan said, 100)}
	options := Options{
		Pod:        func(uid string) (Pod, bool) { pod, ok := pods[uid]; return pod, ok },
		MaxStreams: 10, Now: time.Now,
		Observe: func(uid string, state State, _ time.Time) { b.heard <- said{uid: uid, state: state} },
		Gone:    func(uid string) { b.heard <- said{uid: uid, gone: true} },
	}
	if change != nil {
		change(&options)
	}
	b.Server = New(options)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Serve(ctx, listener, security) }()
	b.stop = func() { stop(); <-done }
	t.Cleanup(b.stop)
	return b
}

// wants waits until the server is told something.
func (b *bundle) wants(t *testing.T, want said) {
	t.Helper()
	select {
	case got := <-b.heard:
		if got != want {
			t.Fatalf("the server was told %+v, want %+v", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("the server was not told %+v", want)
	}
}

func open(t *testing.T, b *bundle, config *tls.Config) *draining.Stream {
	t.Helper()
	s, err := draining.Open(draining.Config{
		Address: b.address, PodName: "a", PodUID: "uid-a", TLS: config, RetryAfter: time.Millisecond, RetryAtMost: 10 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// hears waits until the worker's word is one that a test wants.
func hears(t *testing.T, s *draining.Stream, what string, want func(worker.Word) bool) worker.Word {
	t.Helper()
	over := time.After(time.Minute)
	for {
		word, changed := s.Word()
		if want(word) {
			return word
		}
		select {
		case <-changed:
		case <-over:
			t.Fatalf("the worker does not hear: %s; last %+v", what, word)
		}
	}
}

func TestStream(t *testing.T) {
	b := serve(t, "", insecure.NewCredentials(), nil)
	s := open(t, b, nil)
	b.wants(t, said{uid: "uid-a", state: Busy})
	hears(t, s, "that there is a leader", func(w worker.Word) bool { return w.Heard && !w.Leave })
	s.Say(worker.Idle)
	b.wants(t, said{uid: "uid-a", state: Idle})
	ended := time.Now().Add(-time.Hour)
	b.Tell("uid-a", Word{LastWork: ended})
	w := hears(t, s, "when work ended", func(w worker.Word) bool { return !w.LastWork.IsZero() })
	if off := w.LastWork.Sub(ended).Abs(); off > time.Minute {
		t.Errorf("work ended at %s, want %s", w.LastWork, ended)
	}
	// Only the newest word counts.
	for range 1000 {
		b.Tell("uid-a", Word{NodeWorks: true})
		b.Tell("uid-a", Word{Leave: true, Reason: "a pod needs room"})
	}
	w = hears(t, s, "to leave", func(w worker.Word) bool { return w.Leave })
	if w.Reason != "a pod needs room" {
		t.Errorf("reason %q", w.Reason)
	}
	b.Tell("uid-a", Word{})
	hears(t, s, "to stay", func(w worker.Word) bool { return w.Heard && !w.Leave })
	s.Close()
	b.wants(t, said{uid: "uid-a", gone: true})
	if b.Tell("uid-a", Word{}) {
		t.Error("a worker without a stream is told something")
	}
}

// A leader that is gone is not heard; the next one hears what the worker does now.
func TestLeaderChanges(t *testing.T) {
	first := serve(t, "", insecure.NewCredentials(), nil)
	s := open(t, first, nil)
	first.wants(t, said{uid: "uid-a", state: Busy})
	first.Tell("uid-a", Word{Leave: true})
	hears(t, s, "to leave", func(w worker.Word) bool { return w.Leave })
	first.stop()
	hears(t, s, "that there is no leader", func(w worker.Word) bool { return w == worker.Word{} })
	s.Say(worker.Idle)
	second := serve(t, first.address, insecure.NewCredentials(), nil)
	second.wants(t, said{uid: "uid-a", state: Idle})
	hears(t, s, "that there is a leader", func(w worker.Word) bool { return w.Heard && !w.Leave })
	second.End("uid-a") // the pod has ended, the leader thinks: the worker tries again
	second.wants(t, said{uid: "uid-a", gone: true})
	second.wants(t, said{uid: "uid-a", state: Idle})
}

func attend(t *testing.T, address string) drainingv1alpha1.DrainingService_AttendClient {
	t.Helper()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	rpc, err := drainingv1alpha1.NewDrainingServiceClient(connection).Attend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return rpc
}

func TestWhoMaySpeak(t *testing.T) {
	busy := drainingv1alpha1.State_STATE_BUSY
	for name, tc := range map[string]struct {
		request    *drainingv1alpha1.AttendRequest
		anyAddress bool
		want       codes.Code
	}{
		"its own pod":                 {&drainingv1alpha1.AttendRequest{PodName: "a", PodUid: "uid-a", State: busy}, false, codes.OK},
		"another's name":              {&drainingv1alpha1.AttendRequest{PodName: "b", PodUid: "uid-a", State: busy}, false, codes.PermissionDenied},
		"from another address":        {&drainingv1alpha1.AttendRequest{PodName: "b", PodUid: "uid-b", State: busy}, false, codes.PermissionDenied},
		"where addresses are not":     {&drainingv1alpha1.AttendRequest{PodName: "b", PodUid: "uid-b", State: busy}, true, codes.OK},
		"a pod without an address":    {&drainingv1alpha1.AttendRequest{PodName: "none", PodUid: "uid-none", State: busy}, false, codes.Unavailable},
		"a pod that nobody knows":     {&drainingv1alpha1.AttendRequest{PodName: "x", PodUid: "uid-x", State: busy}, false, codes.Unavailable},
		"no name":                     {&drainingv1alpha1.AttendRequest{PodUid: "uid-a", State: busy}, false, codes.InvalidArgument},
		"no UID":                      {&drainingv1alpha1.AttendRequest{PodName: "a", State: busy}, false, codes.InvalidArgument},
		"a name that is too long":     {&drainingv1alpha1.AttendRequest{PodName: strings.Repeat("a", 300), PodUid: "uid-a", State: busy}, false, codes.InvalidArgument},
		"no state":                    {&drainingv1alpha1.AttendRequest{PodName: "a", PodUid: "uid-a"}, false, codes.InvalidArgument},
		"a state that does not exist": {&drainingv1alpha1.AttendRequest{PodName: "a", PodUid: "uid-a", State: 99}, false, codes.InvalidArgument},
		"more bytes than are read":    {&drainingv1alpha1.AttendRequest{PodName: strings.Repeat("a", 5000), PodUid: "uid-a", State: busy}, false, codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, "", insecure.NewCredentials(), func(o *Options) { o.AnyAddress = tc.anyAddress })
			rpc := attend(t, b.address)
			_ = rpc.Send(tc.request) // Recv has the error
			if _, err := rpc.Recv(); status.Code(err) != tc.want {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

func TestOneStreamForAPod(t *testing.T) {
	b := serve(t, "", insecure.NewCredentials(), func(o *Options) { o.MaxStreams = 2 })
	hello := &drainingv1alpha1.AttendRequest{PodName: "a", PodUid: "uid-a", State: drainingv1alpha1.State_STATE_IDLE}
	first, second := attend(t, b.address), attend(t, b.address)
	for _, rpc := range []drainingv1alpha1.DrainingService_AttendClient{first, second} {
		if err := rpc.Send(hello); err != nil {
			t.Fatal(err)
		}
		if _, err := rpc.Recv(); err != nil {
			t.Fatal(err)
		}
		b.wants(t, said{uid: "uid-a", state: Idle})
	}
	if _, err := first.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the older stream ends with %v, want Aborted", err)
	}
	if n := b.Streams(); n != 1 {
		t.Errorf("%d streams, want 1", n)
	}
	// The end of the older stream is not the worker's.
	if err := second.Send(&drainingv1alpha1.AttendRequest{State: drainingv1alpha1.State_STATE_BUSY}); err != nil {
		t.Fatal(err)
	}
	b.wants(t, said{uid: "uid-a", state: Busy})
}

func TestTotalOfStreams(t *testing.T) {
	b := serve(t, "", insecure.NewCredentials(), func(o *Options) { o.MaxStreams = 1 })
	first := attend(t, b.address)
	if err := first.Send(&drainingv1alpha1.AttendRequest{PodName: "a", PodUid: "uid-a", State: drainingv1alpha1.State_STATE_IDLE}); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := attend(t, b.address).Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a stream too many ends with %v, want ResourceExhausted", err)
	}
}

// files of a pair that an authority signed, for a side that trusts it.
func files(t *testing.T, authority *testcert.Authority, name string) tlsfiles.Files {
	t.Helper()
	certificate, key := authority.Issue(t, name)
	folder := t.TempDir()
	f := tlsfiles.Files{Cert: filepath.Join(folder, "tls.crt"), Key: filepath.Join(folder, "tls.key"), CA: filepath.Join(folder, "ca.crt")}
	for path, text := range map[string][]byte{f.Cert: certificate, f.Key: key, f.CA: authority.PEM} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestTLS(t *testing.T) {
	ours, others := testcert.New(t), testcert.New(t)
	server, err := tlsfiles.NewServer(files(t, ours, "server"))
	if err != nil {
		t.Fatal(err)
	}
	b := serve(t, "", credentials.NewTLS(server.Config()), nil)
	client, err := files(t, ours, "client").Client()
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, b, client)
	b.wants(t, said{uid: "uid-a", state: Busy})
	hears(t, s, "that there is a leader", func(w worker.Word) bool { return w.Heard })

	stranger, err := files(t, others, "client").Client()
	if err != nil {
		t.Fatal(err)
	}
	trusting := client.Clone()
	trusting.GetClientCertificate = nil
	forged := client.Clone()
	forged.GetClientCertificate = stranger.GetClientCertificate
	for name, config := range map[string]*tls.Config{"no certificate": trusting, "another authority's": forged, "a server of another authority": stranger} {
		connection, err := grpc.NewClient(b.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		rpc, err := drainingv1alpha1.NewDrainingServiceClient(connection).Attend(t.Context())
		if err == nil {
			_, err = rpc.Recv()
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, want that it does not connect", name, err)
		}
		connection.Close()
	}
}
