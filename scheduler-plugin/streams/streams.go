// Package streams holds the streams of workers to the scheduler's leader, by which they say whether they have a message and are told whether
// to leave. It decides nothing: package drainpack does.
//
// A worker speaks for its own pod only: the name and the UID that it states must be those of one pod, and the stream must come from that
// pod's address. There is one stream for a pod; a newer one ends the older. Everything is bounded: streams, what they say and how often.
package streams

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	drainingv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/draining/v1alpha1"
)

// State of a worker.
type State int

// States. A worker of which nothing is known is Busy.
const (
	Busy State = iota
	Idle
	Leaving
)

// Pod is what the cluster knows of a pod.
type Pod struct {
	Name      string
	Addresses []string
}

// Word is what a worker is told. The zero value tells it nothing but that it is heard.
type Word struct {
	Leave  bool
	Reason string
	// NodeWorks says that another pod on its node works; LastWork when the last work there ended, the zero time when that is not known.
	NodeWorks bool
	LastWork  time.Time
}

// Bounds.
const (
	maxMessageBytes = 4 << 10
	maxNameBytes    = 253
	maxUIDBytes     = 64
	// firstWithin is how soon a stream must say whose it is.
	firstWithin = 10 * time.Second
	// A stream may say so much a second; what comes faster waits.
	perSecond, burst = 10, 20
	// streamsOfConnection is how many a client may have at once: one, and one that replaces it.
	streamsOfConnection = 2
)

// Keepalive finds dead connections, and allows clients to.
const (
	pingAfter, pingTimeout = 20 * time.Second, 10 * time.Second
	clientPingsAtMost      = 10 * time.Second
)

// Options of a Server.
type Options struct {
	// Pod finds a pod that has not ended by its UID.
	Pod func(uid string) (Pod, bool)
	// AnyAddress lets a stream come from another address than its pod's, as behind some service meshes. Then who knows a pod's name and UID
	// and has a client certificate speaks for it.
	AnyAddress bool
	// MaxStreams at once.
	MaxStreams int
	// Observe is told of every state of a worker, in order; Gone when its stream ended. It must not block.
	Observe func(uid string, state State, at time.Time)
	Gone    func(uid string)
	Now     func() time.Time
}

// Server is safe for concurrent use.
type Server struct {
	drainingv1alpha1.UnimplementedDrainingServiceServer
	options Options

	mu      sync.Mutex
	streams map[string]*stream
	opening int
}

type stream struct {
	word Word
	send chan Word // holds the newest word that was not sent yet
	end  context.CancelCauseFunc
}

// New makes a Server without streams.
func New(options Options) *Server {
	return &Server{options: options, streams: map[string]*stream{}}
}

// Serve answers until ctx ends. Without TLS any pod that reaches it may connect.
func (s *Server) Serve(ctx context.Context, listener net.Listener, tls credentials.TransportCredentials) error {
	server := grpc.NewServer(grpc.Creds(tls), grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxConcurrentStreams(streamsOfConnection),
		grpc.MaxHeaderListSize(8<<10), grpc.ConnectionTimeout(firstWithin),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout, MaxConnectionIdle: time.Minute}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: clientPingsAtMost, PermitWithoutStream: false}))
	drainingv1alpha1.RegisterDrainingServiceServer(server, s)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(listener)
}

// Ends of streams.
var (
	errReplaced = status.Error(codes.Aborted, "another stream of this pod has replaced this one")
	errGone     = status.Error(codes.NotFound, "the pod has ended")
)

// Attend implements drainingv1alpha1.DrainingServiceServer.
func (s *Server) Attend(rpc drainingv1alpha1.DrainingService_AttendServer) error {
	if !s.admit() {
		return status.Errorf(codes.ResourceExhausted, "there are %d streams already", s.options.MaxStreams)
	}
	admitted := true
	defer func() {
		if admitted {
			s.release()
		}
	}()
	requests, failed := make(chan *drainingv1alpha1.AttendRequest), make(chan error, 1)
	ctx, end := context.WithCancelCause(rpc.Context())
	defer end(nil)
	go receive(ctx, rpc, requests, failed)

	first := time.NewTimer(firstWithin)
	defer first.Stop()
	var request *drainingv1alpha1.AttendRequest
	select {
	case request = <-requests:
	case err := <-failed:
		return err
	case <-first.C:
		return status.Errorf(codes.DeadlineExceeded, "said nothing within %s", firstWithin)
	}
	uid := request.GetPodUid()
	if err := s.check(rpc.Context(), request); err != nil {
		return err
	}
	own := &stream{send: make(chan Word, 1), end: end}
	own.send <- Word{}
	state, err := stateOf(request)
	if err != nil {
		return err
	}
	s.release()
	admitted = false
	s.join(uid, own, state)
	defer s.leave(uid, own)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-failed:
			return err
		case request := <-requests:
			if state, err = stateOf(request); err != nil {
				return err
			}
			s.set(uid, own, state)
		case word := <-own.send:
			if err := rpc.Send(response(word, s.options.Now())); err != nil {
				return err
			}
		}
	}
}

// admit counts a stream that opens, and reports whether there is room for it.
func (s *Server) admit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams)+s.opening >= s.options.MaxStreams {
		return false
	}
	s.opening++
	return true
}

func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening--
}

// receive hands on what a stream says, not faster than allowed.
func receive(ctx context.Context, rpc drainingv1alpha1.DrainingService_AttendServer, to chan<- *drainingv1alpha1.AttendRequest, failed chan<- error) {
	limit := rate.NewLimiter(perSecond, burst)
	for {
		request, err := rpc.Recv()
		if err == nil {
			err = limit.Wait(ctx)
		}
		if err != nil {
			failed <- err
			return
		}
		select {
		case to <- request:
		case <-ctx.Done():
			return
		}
	}
}

// check says whether a stream may speak for the pod that it names.
func (s *Server) check(ctx context.Context, request *drainingv1alpha1.AttendRequest) error {
	name, uid := request.GetPodName(), request.GetPodUid()
	if name == "" || uid == "" || len(name) > maxNameBytes || len(uid) > maxUIDBytes {
		return status.Error(codes.InvalidArgument, "the first request names the pod: its name and its UID, from the downward API")
	}
	pod, known := s.options.Pod(uid)
	if !known {
		// It may have started just now; the caller tries again. A wrong UID is told no more.
		return status.Error(codes.Unavailable, "no such pod is known yet")
	}
	if pod.Name != name {
		return status.Error(codes.PermissionDenied, "the pod's name and UID do not belong together")
	}
	if s.options.AnyAddress {
		return nil
	}
	if len(pod.Addresses) == 0 {
		return status.Error(codes.Unavailable, "the pod's address is not known yet")
	}
	from, ok := peer.FromContext(ctx)
	if !ok {
		return status.Error(codes.PermissionDenied, "the caller has no address")
	}
	host, _, err := net.SplitHostPort(from.Addr.String())
	if err != nil || !slices.ContainsFunc(pod.Addresses, func(address string) bool { return sameAddress(address, host) }) {
		return status.Error(codes.PermissionDenied, "the stream does not come from the pod's address: a proxy or NAT between both changes it")
	}
	return nil
}

func sameAddress(a, b string) bool {
	x, y := net.ParseIP(a), net.ParseIP(b)
	return x != nil && x.Equal(y)
}

func stateOf(request *drainingv1alpha1.AttendRequest) (State, error) {
	switch request.GetState() {
	case drainingv1alpha1.State_STATE_BUSY:
		return Busy, nil
	case drainingv1alpha1.State_STATE_IDLE:
		return Idle, nil
	case drainingv1alpha1.State_STATE_LEAVING:
		return Leaving, nil
	case drainingv1alpha1.State_STATE_UNSPECIFIED:
	}
	return Busy, status.Errorf(codes.InvalidArgument, "state is %s: want busy, idle or leaving", request.GetState())
}

func response(word Word, now time.Time) *drainingv1alpha1.AttendResponse {
	r := &drainingv1alpha1.AttendResponse{Leave: word.Leave, Reason: word.Reason, NodeWorks: word.NodeWorks}
	if !word.NodeWorks && !word.LastWork.IsZero() {
		r.SinceWork = durationpb.New(max(0, now.Sub(word.LastWork)))
	}
	return r
}

// join makes a stream that of its pod.
func (s *Server) join(uid string, own *stream, state State) {
	s.mu.Lock()
	if old := s.streams[uid]; old != nil {
		old.end(errReplaced)
	}
	s.streams[uid] = own
	s.mu.Unlock()
	s.set(uid, own, state)
}

func (s *Server) leave(uid string, own *stream) {
	s.mu.Lock()
	last := s.streams[uid] == own
	if last {
		delete(s.streams, uid)
	}
	s.mu.Unlock()
	if last {
		s.options.Gone(uid)
	}
}

// set passes on what a worker says, unless a newer stream speaks for it.
func (s *Server) set(uid string, own *stream, state State) {
	s.mu.Lock()
	current := s.streams[uid] == own
	s.mu.Unlock()
	if current {
		s.options.Observe(uid, state, s.options.Now())
	}
}

// Streams is the number of workers with a stream.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// Tell sends a worker a word, unless it was told the same. It reports whether it has a stream; it does not wait for the worker.
func (s *Server) Tell(uid string, word Word) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.streams[uid]
	if own == nil {
		return false
	}
	if own.word == word {
		return true
	}
	own.word = word
	select {
	case <-own.send: // it is out of date
	default:
	}
	own.send <- word
	return true
}

// End ends the stream of a pod that has ended.
func (s *Server) End(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own := s.streams[uid]; own != nil {
		own.end(errGone)
	}
}
