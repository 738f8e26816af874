package decision

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// constraints are all values of the label constraint.
var constraints = []target.Constraint{
	target.Backlog, target.Floor, target.Idle, target.Cap, target.Hold, target.Outage,
}

// metrics are the series of all policies. Labels are bounded by the policies that exist.
type metrics struct {
	ready, inFlight, target, floor, idle, limit *prometheus.GaugeVec
	constraint                                  *prometheus.GaugeVec
	decisions                                   *prometheus.CounterVec
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
			"1 for the constraint that decided the target: backlog, floor, idle, cap, hold, outage; 0 for the others.", "constraint"),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebbtide_decisions_total", Help: "Decisions taken.",
		}, policy),
	}
	registerer.MustRegister(m.decisions)
	return &Recorder{Ledger: ledger, metrics: m, log: log}
}

func (m *metrics) observe(policy types.NamespacedName, d target.Decision) {
	namespace, name := policy.Namespace, policy.Name
	for vec, value := range map[*prometheus.GaugeVec]float64{
		m.ready: float64(d.Observation.Ready), m.inFlight: float64(d.InFlight), m.target: float64(d.Target),
		m.floor: float64(d.Limits.MinReplicas), m.idle: float64(d.Limits.IdleReplicas), m.limit: float64(d.Limits.MaxReplicas),
	} {
		vec.WithLabelValues(namespace, name).Set(value)
	}
	for _, constraint := range constraints {
		value := 0.0
		if constraint == d.Constraint {
			value = 1
		}
		m.constraint.WithLabelValues(namespace, name, string(constraint)).Set(value)
	}
	m.decisions.WithLabelValues(namespace, name).Inc()
}

func (m *metrics) forget(policy types.NamespacedName) {
	labels := prometheus.Labels{"namespace": policy.Namespace, "policy": policy.Name}
	for _, vec := range []*prometheus.GaugeVec{m.ready, m.inFlight, m.target, m.floor, m.idle, m.limit, m.constraint} {
		vec.DeletePartialMatch(labels)
	}
	m.decisions.DeletePartialMatch(labels)
}
