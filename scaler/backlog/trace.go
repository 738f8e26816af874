package backlog

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

const traceparent = "traceparent"

// traced makes a sample within a span of its own, which outlives whoever asked for it.
func traced(ctx context.Context, read func(context.Context) (target.Observation, error)) (target.Observation, error) {
	tracer := otel.Tracer("github.com/ebbtide-dev/ebbtide/scaler/backlog")
	ctx, span := tracer.Start(ctx, "sample", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	o, err := read(ctx)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	if span.SpanContext().IsSampled() {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(ctx, carrier)
		o.Trace = carrier[traceparent]
	}
	return o, err
}

// TraceLinks are the links to an observation's sample: one, or none if it was not traced.
func TraceLinks(parent string) []trace.Link {
	if parent == "" {
		return nil
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{traceparent: parent})
	return []trace.Link{trace.LinkFromContext(ctx)}
}
