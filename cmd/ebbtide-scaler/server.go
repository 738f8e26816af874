package main

import (
	"context"
	"net"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
)

const (
	// maxCallers is how many connections there are at once, and handshakeWithin how long one may take to begin. KEDA opens one for each replica
	// and each set of certificates.
	maxCallers, handshakeWithin = 1024, 10 * time.Second
	// vanished is how long a client may leave unanswered what the kernel asks or tells it before its connection ends, and with it the
	// streams that KEDA has opened. gRPC's own pings would not do: it sends none on a connection past its age.
	vanished = 20 * time.Second
	// maxConnectionAge is less than the 30 seconds for which gRPC's DNS resolver answers from its memory, so that clients resolve as
	// often as they may.
	maxConnectionAge = 20 * time.Second
)

// listen listens on a TCP address. Where the system can (Linux), a connection ends when its peer does not acknowledge data, or a
// keep-alive probe, for as long as vanished. Probes are sent every 15 s of silence, which is Go's default.
func listen(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{Control: endUnacknowledged(vanished)}
	return config.Listen(ctx, "tcp", address)
}

// newServer returns a gRPC server without services, whose streams end with serving.
func newServer(serving context.Context, credentials credentials.TransportCredentials, recorder *decision.Recorder) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(noting{credentials}),
		grpc.UnaryInterceptor(recoverUnary(recorder)),
		grpc.ChainStreamInterceptor(recoverStream(recorder), endWith(serving)),
		// Goroutines that keep answering keep their stacks; when all wait for a broker, more are made.
		grpc.NumStreamWorkers(uint32(2*runtime.GOMAXPROCS(0))),
		// Requests are small: with windows that follow the bandwidth each would be answered by a ping that measures it, too.
		grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10),
		// A trigger's metadata may hold the certificates that KEDA was given. Nothing else is large.
		grpc.MaxRecvMsgSize(1<<20), grpc.MaxHeaderListSize(64<<10),
		// Whoever connects and says nothing is gone soon.
		grpc.ConnectionTimeout(handshakeWithin),
		// A client that connects again asks DNS for the replicas, and so learns of new ones before the old are gone; a connection with
		// open streams lives until they end.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: maxConnectionAge}),
		// A client that pings more often is not one of KEDA's.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
}

// errPanic is what the caller of a call gets that panicked. Other calls are not affected.
var errPanic = status.Error(codes.Internal, "this is a bug of the scaler: its log has the stack")

func recoverUnary(recorder *decision.Recorder) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (response any, err error) {
		defer func() {
			if cause := recover(); cause != nil {
				recorder.Panicked("call", cause)
				err = errPanic
			}
		}()
		return handle(ctx, request)
	}
}

func recoverStream(recorder *decision.Recorder) grpc.StreamServerInterceptor {
	return func(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
		defer func() {
			if cause := recover(); cause != nil {
				recorder.Panicked("call", cause)
				err = errPanic
			}
		}()
		return handle(service, stream)
	}
}

// errStopping is the cause of the end of streams that are open when the scaler stops.
var errStopping = status.Error(codes.Unavailable, "this replica of the scaler stops: ask again, and another one answers")

// endWith ends the contexts of streams with serving. A stream of KEDA's or a watch has no other end, and a graceful stop would wait
// for it in vain.
func endWith(serving context.Context) grpc.StreamServerInterceptor {
	return func(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		ctx, end := context.WithCancelCause(stream.Context())
		defer end(nil)
		defer context.AfterFunc(serving, func() { end(errStopping) })()
		return handle(service, endingStream{stream, ctx})
	}
}

// endingStream is a stream with another context.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s endingStream) Context() context.Context { return s.ctx }
