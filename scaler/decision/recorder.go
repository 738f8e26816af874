package decision

import (
	"context"
	"log/slog"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// Recorder puts a decision everywhere it is shown.
type Recorder struct {
	Ledger  *Ledger
	metrics *metrics
	log     *slog.Logger
}

// Record keeps a decision, updates its series, and logs it: at info level when the target or what binds it changed,
// else at debug level.
func (r *Recorder) Record(policy types.NamespacedName, d target.Decision) {
	previous, ok := r.Ledger.Add(policy, d)
	r.metrics.observe(policy, d)
	level := slog.LevelDebug
	if !ok || previous.Target != d.Target || previous.Constraint != d.Constraint {
		level = slog.LevelInfo
	}
	r.log.Log(context.Background(), level, "decided", "policy", policy.String(), "target", d.Target, "constraint", d.Constraint,
		"reason", d.Reason, "ready", d.Observation.Ready, "inFlight", d.InFlight, "period", d.Limits.Period)
}

// Forget drops everything that is shown of a deleted policy.
func (r *Recorder) Forget(policy types.NamespacedName) {
	r.Ledger.Forget(policy)
	r.metrics.forget(policy)
}
