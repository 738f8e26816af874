package decision

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// metrics are the series of all policies. Labels are bounded by the policies that exist.
type metrics struct {
	ready, inFlight, target, floor, idle, limit, reachable, valid *prometheus.GaugeVec
	constraint                                                    *prometheus.GaugeVec
	decisions                                                     *prometheus.CounterVec
	duration                                                      prometheus.Histogram
}

// NewRecorder registers the decisions' series and returns a recorder with an empty ledger.
func NewRecorder(ledger *Ledger, registerer prometheus.Registerer, log *slog.Logger) *Recorder {
	policy := []string{"namespace", "policy"}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append(policy[:2:2], labels...))
		registerer.MustRegister(vec)
		return vec
	}
	m := &metrics{
		ready:    gauge("ebbtide_backlog_ready_messages", "Messages that wait to be delivered."),
		inFlight: gauge("ebbtide_backlog_in_flight_messages", "Messages that replicas are working on."),
		target:   gauge("ebbtide_target_replicas", "Unfinished jobs, or pods, that should exist."),
		floor:    gauge("ebbtide_limit_min_replicas", "Floor in force."),
		idle:     gauge("ebbtide_limit_idle_replicas", "Idle reserve in force."),
		limit:    gauge("ebbtide_limit_max_replicas", "Cap in force."),
		constraint: gauge("ebbtide_target_constraint",
			"1 for the constraint that decided the target: backlog, drain, floor, idle, cap, scale-in, hold, outage; 0 for the others.",
			"constraint"),
		reachable: gauge("ebbtide_backlog_reachable", "1 while the backlog is read without error, else 0."),
		valid: gauge("ebbtide_policy_valid",
			"1 while the newest version of the policy is in force, 0 while it is not valid and an earlier one is, or none."),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ebbtide_decision_duration_seconds", Help: "Time from a question to its decision, the broker's answer included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebbtide_decisions_total", Help: "Decisions taken.",
		}, policy),
	}
	registerer.MustRegister(m.decisions, m.duration)
	return &Recorder{Ledger: ledger, metrics: m, log: log}
}

func (m *metrics) observe(policy types.NamespacedName, d target.Decision, begin time.Time) {
	namespace, name := policy.Namespace, policy.Name
	m.duration.Observe(d.Time.Sub(begin).Seconds())
	for vec, value := range map[*prometheus.GaugeVec]float64{
		m.ready: float64(d.Observation.Ready), m.inFlight: float64(d.InFlight), m.target: float64(d.Target),
		m.floor: float64(d.Limits.MinReplicas), m.idle: float64(d.Limits.IdleReplicas), m.limit: float64(d.Limits.MaxReplicas),
		m.reachable: oneIf(d.Failure == nil),
	} {
		vec.WithLabelValues(namespace, name).Set(value)
	}
	for _, constraint := range target.Constraints {
		m.constraint.WithLabelValues(namespace, name, string(constraint)).Set(oneIf(constraint == d.Constraint))
	}
	m.decisions.WithLabelValues(namespace, name).Inc()
}

func (m *metrics) validated(policy types.NamespacedName, valid bool) {
	m.valid.WithLabelValues(policy.Namespace, policy.Name).Set(oneIf(valid))
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func (m *metrics) forget(policy types.NamespacedName) {
	labels := prometheus.Labels{"namespace": policy.Namespace, "policy": policy.Name}
	for _, vec := range []*prometheus.GaugeVec{m.ready, m.inFlight, m.target, m.floor, m.idle, m.limit, m.reachable, m.valid, m.constraint} {
		vec.DeletePartialMatch(labels)
	}
	m.decisions.DeletePartialMatch(labels)
}
