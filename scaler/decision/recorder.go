package decision

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Recorder puts a decision everywhere it is shown.
type Recorder struct {
	Ledger  *Ledger
	metrics *metrics
	log     *slog.Logger
}

// NewRecorder returns a recorder that keeps decisions in a ledger, and registers the series that show it.
func NewRecorder(ledger *Ledger, registerer prometheus.Registerer, log *slog.Logger) *Recorder {
	m := newMetrics(ledger)
	registerer.MustRegister(m)
	return &Recorder{Ledger: ledger, metrics: m, log: log}
}

// Record keeps a decision, updates its series, traces it, and logs it: at info level when the target or what binds it
// changed, else at debug level. Begin is when it was asked for.
func (r *Recorder) Record(ctx context.Context, policy types.NamespacedName, d sizing.Decision, begin time.Time) {
	previous, ok := r.Ledger.Add(policy, d)
	r.metrics.duration.Observe(d.Time.Sub(begin).Seconds())
	traceDecision(ctx, policy, d, begin)
	level := slog.LevelDebug
	if !ok || previous.Target != d.Target || previous.Constraint != d.Constraint {
		level = slog.LevelInfo
	}
	if r.log.Enabled(ctx, level) {
		r.log.Log(ctx, level, "decided", "policy", policy.String(), "target", d.Target, "constraint", d.Constraint,
			"reason", d.Reason, "ready", d.Observation.Ready, "inFlight", d.InFlight, "source", d.Observation.Source,
			"observedAt", d.Observation.Time, "period", d.Limits.Period)
	}
}

// Validated shows whether a policy's newest version is valid.
func (r *Recorder) Validated(policy types.NamespacedName, err error) {
	r.metrics.validated(policy, err == nil)
}

// Forget drops everything that is shown of a deleted policy.
func (r *Recorder) Forget(policy types.NamespacedName) {
	r.Ledger.Forget(policy)
	r.metrics.forget(policy)
}

// traceDecision makes a span of a decision, linked to that of the sample that it was taken by: one sample serves many
// decisions.
func traceDecision(ctx context.Context, policy types.NamespacedName, d sizing.Decision, begin time.Time) {
	tracer := otel.Tracer("github.com/ebbtide-dev/ebbtide/scaler/decision")
	_, span := tracer.Start(ctx, "decide", trace.WithTimestamp(begin), trace.WithLinks(backlog.TraceLinks(d.Observation.Trace)...))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("ebbtide.policy", policy.String()), attribute.Int("ebbtide.target", int(d.Target)),
			attribute.String("ebbtide.constraint", string(d.Constraint)), attribute.String("ebbtide.reason", d.Reason),
			attribute.Int64("ebbtide.ready", d.Observation.Ready), attribute.Int64("ebbtide.in_flight", d.InFlight),
			attribute.String("ebbtide.period", d.Limits.Period),
		)
		if d.Failure != nil {
			span.SetStatus(codes.Error, d.Failure.Error())
		}
	}
	span.End(trace.WithTimestamp(d.Time))
}
