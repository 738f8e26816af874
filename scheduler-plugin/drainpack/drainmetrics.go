package drainpack

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/draining"
)

// Ends of drains, in drainsEnded.
const endFinished = "finished"

// endNames are those of reasons.
var endNames = map[draining.Reason]string{
	draining.NeedsRoom: "needs_room", draining.NoRoom: "no_room", draining.TooLong: "too_long", draining.NotOurs: "not_ours",
}

func endOf(why draining.Reason) string { return endNames[why] }

var (
	drainsBegun = metrics.NewCounter(&metrics.CounterOpts{
		Subsystem: "ebbtide_draining", Name: "begun_total", StabilityLevel: metrics.ALPHA, Help: "Drains of nodes that began.",
	})
	drainsEnded = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "ebbtide_draining", Name: "ended_total", StabilityLevel: metrics.ALPHA,
		Help: "Drains that ended: with the node (finished), or before it because a pod found no room (needs_room), the node's pods no longer fit " +
			"elsewhere (no_room), it took longer than allowed (too_long), or the node's owner keeps it (not_ours).",
	}, []string{"reason"})
	drainingNow = metrics.NewGauge(&metrics.GaugeOpts{
		Subsystem: "ebbtide_draining", Name: "nodes", StabilityLevel: metrics.ALPHA, Help: "Nodes that drain.",
	})
	drainingLongest = metrics.NewGauge(&metrics.GaugeOpts{
		Subsystem: "ebbtide_draining", Name: "longest_seconds", StabilityLevel: metrics.ALPHA, Help: "How long the node that drains for longest does.",
	})
	taintErrors = metrics.NewCounter(&metrics.CounterOpts{
		Subsystem: "ebbtide_draining", Name: "taint_errors_total", StabilityLevel: metrics.ALPHA,
		Help: "Changes of nodes' taints that the API server refused, other than for a change at the same time.",
	})
	connected = metrics.NewGauge(&metrics.GaugeOpts{
		Subsystem: "ebbtide_draining", Name: "workers", StabilityLevel: metrics.ALPHA, Help: "Workers that are connected to this scheduler.",
	})
	sentAway = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "ebbtide_draining", Name: "workers_sent_away_total", StabilityLevel: metrics.ALPHA,
		Help: "Idle workers that were told to leave, for a pod without room (yield) or because their node drains (drain).",
	}, []string{"for"})
	nominationsTotal = metrics.NewCounter(&metrics.CounterOpts{
		Subsystem: "ebbtide_draining", Name: "nominations_total", StabilityLevel: metrics.ALPHA,
		Help: "Pods without room that were nominated to a node where idle workers give way.",
	})
	promisesTotal = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "ebbtide_draining", Name: "promises_total", StabilityLevel: metrics.ALPHA,
		Help: "Nominated pods that got their room in time (kept), that did not (broken), or that found room on another node before (elsewhere).",
	}, []string{"result"})
)

// registerDrainMetrics puts the metrics on the scheduler's /metrics.
var registerDrainMetrics = sync.OnceFunc(func() {
	legacyregistry.MustRegister(drainsBegun, drainsEnded, drainingNow, drainingLongest, taintErrors, connected, sentAway, nominationsTotal, promisesTotal)
	drainsEnded.WithLabelValues(endFinished)
	for _, end := range endNames {
		drainsEnded.WithLabelValues(end)
	}
	for _, why := range []string{"yield", "drain"} {
		sentAway.WithLabelValues(why)
	}
	for _, result := range []string{"kept", "broken", "elsewhere"} {
		promisesTotal.WithLabelValues(result)
	}
})
