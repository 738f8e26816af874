package backlog

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const traceparent = "traceparent"

// traced reads within a span of its own, which outlives whoever asked for it, and returns the span's traceparent: empty when it
// is not sampled.
func traced[T any](ctx context.Context, read func(context.Context) (T, error)) (value T, parent string, err error) {
	tracer := otel.Tracer("github.com/ebbtide-dev/ebbtide/scaler/backlog")
	ctx, span := tracer.Start(ctx, "sample", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	if value, err = read(ctx); err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	if span.SpanContext().IsSampled() {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(ctx, carrier)
		parent = carrier[traceparent]
	}
	return value, parent, err
}

// TraceLinks are the links to an observation's sample: one, or none if it was not traced.
func TraceLinks(parent string) []trace.Link {
	if parent == "" {
		return nil
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{traceparent: parent})
	return []trace.Link{trace.LinkFromContext(ctx)}
}
