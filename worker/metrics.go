package worker

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ebbtide-dev/ebbtide/worker/summary"
)

// Metrics of a worker that lives long enough to be asked. No label is of a message.
type Metrics struct {
	messages    *prometheus.CounterVec
	run, wait   prometheus.Histogram
	mu          sync.Mutex
	currentFrom time.Time // when work on the current message began; zero: there is none
}

// What happened to a message, in metrics.
const (
	outcomeSucceeded    = "succeeded"
	outcomeRetried      = "retried"
	outcomeForwarded    = "forwarded"
	outcomeDeadLettered = "dead-lettered"
	outcomeReturned     = "returned"
)

// cause is why a message did not succeed, in metrics: one of a few.
type cause string

const (
	causeNone     cause = "none"
	causeExit     cause = "exit"     // the command's exit code
	causeSignal   cause = "signal"   // a signal that the worker did not send
	causeTimeout  cause = "timeout"  // the scan timeout
	causeMemory   cause = "memory"   // killed by the kernel, out of memory
	causeScratch  cause = "scratch"  // too much in its temporary folders
	causeStart    cause = "start"    // the command could not be started
	causeMessage  cause = "message"  // the message's headers ask for what can't be
	causeAttempts cause = "attempts" // it has had its attempts, which ended without an answer
	causeResult   cause = "result"   // the result is too large
	causeStopped  cause = "stopped"  // the worker was asked to stop
	causeLost     cause = "lost"     // the broker gave the message to another worker
	causeWorker   cause = "worker"   // the worker could not do its part: no disk, no broker
)

// causes by outcomes, for series that begin at zero: an alert needs to see the first one.
var causes = map[string][]cause{
	outcomeSucceeded: {causeNone},
	outcomeRetried:   {causeExit, causeSignal, causeTimeout, causeMemory, causeStart},
	outcomeForwarded: {causeExit, causeSignal, causeTimeout, causeMemory},
	outcomeDeadLettered: {
		causeExit, causeSignal, causeTimeout, causeMemory, causeScratch, causeStart, causeMessage, causeAttempts, causeResult,
	},
	outcomeReturned: {causeStopped, causeLost, causeWorker},
}

// NewMetrics registers a worker's metrics.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebbtide_worker_messages_total",
			Help: "Messages by outcome (succeeded, retried, forwarded, dead-lettered, returned) and why (reason: none, " +
				"exit, signal, timeout, memory, scratch, start, message, attempts, result, stopped, lost, worker).",
		}, []string{"outcome", "reason"}),
		run: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ebbtide_worker_run_seconds", Help: "How long commands ran, however they ended.", Buckets: summary.Bounds[:],
		}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ebbtide_worker_wait_seconds",
			Help:    "How long messages waited from their timestamp, where the producer set one, to their first attempt.",
			Buckets: summary.Bounds[:],
		}),
	}
	registerer.MustRegister(m.messages, m.run, m.wait, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ebbtide_worker_message_age_seconds",
		Help: "How long the current message has been worked on; 0 without one.",
	}, m.age))
	for outcome, reasons := range causes {
		for _, reason := range reasons {
			m.messages.WithLabelValues(outcome, string(reason))
		}
	}
	return m
}

func (m *Metrics) age() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.currentFrom.IsZero() {
		return 0
	}
	return time.Since(m.currentFrom).Seconds()
}

// began notes that work on a message begins; a zero time that it has ended. A nil Metrics notes nothing, as do the other methods.
func (m *Metrics) began(at time.Time) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.currentFrom = at
}

func (m *Metrics) waited(d time.Duration) {
	if m != nil {
		m.wait.Observe(max(0, d.Seconds()))
	}
}

func (m *Metrics) ran(d time.Duration) {
	if m != nil {
		m.run.Observe(d.Seconds())
	}
}

func (m *Metrics) ended(outcome string, why cause) {
	if m != nil {
		m.messages.WithLabelValues(outcome, string(why)).Inc()
	}
}
