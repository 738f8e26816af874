package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

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
