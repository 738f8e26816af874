package decision

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"
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
	changed atomic.Pointer[func(policy types.NamespacedName, material bool)]
}

// OnChange lets f be called of each decision that is not as the one before it. Material are changes that people and machines act on; others
// are of figures.
func (r *Recorder) OnChange(f func(policy types.NamespacedName, material bool)) { r.changed.Store(&f) }

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
	if changed := r.changed.Load(); changed != nil {
		if material := !ok || materiallyDiffer(&previous, &d); material || previous.Target != d.Target || previous.Reason != d.Reason {
			(*changed)(policy, material)
		}
	}
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

func materiallyDiffer(a, b *sizing.Decision) bool {
	return a.Constraint != b.Constraint || a.Limits != b.Limits || (a.Failure == nil) != (b.Failure == nil) ||
		a.Failure != nil && a.Failure.Error() != b.Failure.Error() || !slices.Equal(a.Observation.Missing, b.Observation.Missing)
}

// Validated shows whether a policy's newest version is valid.
func (r *Recorder) Validated(policy types.NamespacedName, err error) {
	r.metrics.validated(policy, err == nil)
}

// Guard runs f in the background. A panic of it ends nothing else: it is counted and logged.
func (r *Recorder) Guard(where string, f func()) {
	go func() {
		defer r.Recover(where)
		f()
	}()
}

// Recover is deferred where a policy is served: a panic is counted and logged, and ends nothing else.
func (r *Recorder) Recover(where string) {
	if cause := recover(); cause != nil {
		r.Panicked(where, cause)
	}
}

// Panicked counts and logs a panic that was recovered from.
func (r *Recorder) Panicked(where string, cause any) {
	r.metrics.panics.WithLabelValues(where).Inc()
	r.log.Error("recovered from a panic: this is a bug", "where", where, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
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
