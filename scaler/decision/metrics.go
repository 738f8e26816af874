package decision

import (
	"errors"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// metrics render the ledger when they are scraped: a decision costs nothing more for being shown, and the series of a
// policy end with its decisions. Labels are bounded by the policies that exist.
type metrics struct {
	ledger   *Ledger
	duration prometheus.Histogram
	panics   *prometheus.CounterVec

	mu    sync.Mutex
	valid map[types.NamespacedName]bool
}

// series are the gauges of a decision.
var series = []struct {
	desc  *prometheus.Desc
	value func(*sizing.Decision) float64
}{
	{desc("ebbtide_backlog_ready_messages", "Messages that wait to be delivered."),
		func(d *sizing.Decision) float64 { return float64(d.Observation.Ready) }},
	{desc("ebbtide_backlog_in_flight_messages", "Messages that replicas are working on."),
		func(d *sizing.Decision) float64 { return float64(d.InFlight) }},
	{desc("ebbtide_backlog_consumers_known", "1 if the source can count consumers, else 0: Prometheus can't."),
		func(d *sizing.Decision) float64 { return oneIf(!d.Observation.ConsumersUnknown) }},
	{desc("ebbtide_backlog_reachable", "1 while the backlog is read without error, else 0."),
		func(d *sizing.Decision) float64 { return oneIf(d.Failure == nil) }},
	{desc("ebbtide_backlog_missing_queues", "Queues of the policy that do not exist, in the broker's own word, whether they count as empty or as an error."),
		func(d *sizing.Decision) float64 {
			var missing *backlog.MissingQueuesError
			if errors.As(d.Failure, &missing) {
				return float64(len(missing.Names))
			}
			return float64(len(d.Observation.Missing))
		}},
	{desc("ebbtide_backlog_management_reachable", "0 while the management API that the policy names tells nothing, else 1."),
		func(d *sizing.Decision) float64 { return oneIf(d.Observation.ManagementFailure == "") }},
	{desc("ebbtide_credentials_resolved", "0 while a value that the policy refers to can't be looked up, or not again, else 1."),
		func(d *sizing.Decision) float64 {
			var unresolved *backlog.UnresolvedError
			return oneIf(d.Observation.CredentialsFailure == "" && !errors.As(d.Failure, &unresolved))
		}},
	{desc("ebbtide_decision_timestamp_seconds", "When the newest decision was taken."),
		func(d *sizing.Decision) float64 { return float64(d.Time.UnixMilli()) / 1000 }},
	{desc("ebbtide_target_replicas", "Unfinished jobs, or pods, that should exist."),
		func(d *sizing.Decision) float64 { return float64(d.Target) }},
	{desc("ebbtide_limit_min_replicas", "Floor in force."),
		func(d *sizing.Decision) float64 { return float64(d.Limits.MinReplicas) }},
	{desc("ebbtide_limit_idle_replicas", "Idle reserve in force."),
		func(d *sizing.Decision) float64 { return float64(d.Limits.IdleReplicas) }},
	{desc("ebbtide_surplus_replicas", "Replicas that the target has on top of the work because messages wait; 0 without a surplus."),
		func(d *sizing.Decision) float64 { return float64(d.Surplus) }},
	{desc("ebbtide_limit_max_replicas", "Cap in force."),
		func(d *sizing.Decision) float64 { return float64(d.Limits.MaxReplicas) }},
}

var (
	consumersDesc = desc("ebbtide_backlog_consumers",
		"Consumers of the backlog: replicas that are up, busy or idle. No series if the source can't count them.")
	constraintDesc = desc("ebbtide_target_constraint",
		"1 for the constraint that decided the target: backlog, drain, floor, idle, surplus, cap, scale-in, hold, outage; 0 for the others.",
		"constraint")
	decisionsDesc = desc("ebbtide_decisions_total", "Decisions taken.")
	validDesc     = desc("ebbtide_policy_valid",
		"1 while the newest version of the policy is in force, 0 while it is not valid and an earlier one is, or none.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"namespace", "policy"}, labels...), nil)
}

func newMetrics(ledger *Ledger) *metrics {
	m := &metrics{
		ledger: ledger, valid: map[types.NamespacedName]bool{},
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebbtide_panics_total", Help: "Panics that were recovered from, by where: a call (call), the reading of a backlog or of what a policy's author wrote (source), or the background look at a group's policies (group).",
		}, []string{"where"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ebbtide_decision_duration_seconds", Help: "Time from a question to its decision, the broker's answer included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
	for _, where := range []string{"call", "group", "source"} {
		m.panics.WithLabelValues(where)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, s := range series {
		descs <- s.desc
	}
	descs <- consumersDesc
	descs <- constraintDesc
	descs <- decisionsDesc
	descs <- validDesc
	m.duration.Describe(descs)
	m.panics.Describe(descs)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- constMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, e := range m.ledger.newest() {
		namespace, name := e.Policy.Namespace, e.Policy.Name
		for _, s := range series {
			gauge(s.desc, s.value(&e.Decision), namespace, name)
		}
		if !e.Decision.Observation.ConsumersUnknown {
			gauge(consumersDesc, float64(e.Decision.Observation.Consumers), namespace, name)
		}
		for _, constraint := range sizing.Constraints {
			gauge(constraintDesc, oneIf(constraint == e.Decision.Constraint), namespace, name, string(constraint))
		}
		out <- constMetric(decisionsDesc, prometheus.CounterValue, float64(e.count), namespace, name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for policy, valid := range m.valid {
		gauge(validDesc, oneIf(valid), policy.Namespace, policy.Name)
	}
	m.duration.Collect(out)
	m.panics.Collect(out)
}

func (m *metrics) validated(policy types.NamespacedName, valid bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.valid[policy] = valid
}

func (m *metrics) forget(policy types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.valid, policy)
}

// constMetric is a metric of which the labels may hold what users wrote: what is not UTF-8 in them is replaced, as it would make the
// metrics of all policies unreadable.
func constMetric(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) prometheus.Metric {
	for i, label := range labels {
		labels[i] = strings.ToValidUTF8(label, "\uFFFD")
	}
	return prometheus.MustNewConstMetric(desc, kind, value, labels...)
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
