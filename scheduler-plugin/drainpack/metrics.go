package drainpack

import (
	"context"
	"math"
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

var (
	candidatesTotal = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "ebbtide_drainpack", Name: "candidates_total", StabilityLevel: metrics.ALPHA,
		Help: "Scheduling attempts by what they were offered: candidates of the index (offered), or all nodes because none of " +
			"the index is proven to fit (none), the pod is not simple (complex), or the candidates before failed (refused).",
	}, []string{"result"})
	placementsTotal = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "ebbtide_drainpack", Name: "placements_total", StabilityLevel: metrics.ALPHA,
		Help: "Pods put on nodes by what the node was to them: one that never ends (endless), one that stays for others anyway " +
			"(outlasts), one that must live longer for the pod (extended), one without pods (empty), one that is being taken " +
			"away (leaving), or any for a pod that keeps no node (unknown).",
	}, []string{"tier"})
	extensionSeconds = metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: "ebbtide_drainpack", Name: "extension_seconds", StabilityLevel: metrics.ALPHA,
		Help:    "How much longer a node is expected to live because of a pod that was put there.",
		Buckets: append([]float64{0}, metrics.ExponentialBuckets(15, 2, 12)...),
	})
	emptySeconds = metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: "ebbtide_drainpack", Name: "empty_seconds", StabilityLevel: metrics.ALPHA,
		Help:    "How long nodes were there without pods, after their last one ended, until they were removed.",
		Buckets: metrics.ExponentialBuckets(5, 2, 11),
	})
	runTimeRatio = metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: "ebbtide_drainpack", Name: "run_time_ratio", StabilityLevel: metrics.ALPHA,
		Help:    "Run times of pods that ended well over what was expected of them; 1 is a right expectation.",
		Buckets: metrics.ExponentialBuckets(1.0/16, math.Sqrt2, 17),
	})
	runTimeCorrelation = metrics.NewGauge(&metrics.GaugeOpts{
		Subsystem: "ebbtide_drainpack", Name: "run_time_correlation", StabilityLevel: metrics.ALPHA,
		Help: "Correlation between the logarithms of expected and real run times of the last pods. Near 0 run times are not known, and " +
			"nodes are taken mostly by their age.",
	})
	classes = metrics.NewGauge(&metrics.GaugeOpts{
		Subsystem: "ebbtide_drainpack", Name: "classes", StabilityLevel: metrics.ALPHA,
		Help: "Classes of pods whose run times are known.",
	})
)

// registerMetrics puts the metrics on the scheduler's /metrics, once for all profiles.
var registerMetrics = sync.OnceFunc(func() {
	legacyregistry.MustRegister(candidatesTotal, placementsTotal, extensionSeconds, emptySeconds, runTimeRatio, runTimeCorrelation, classes)
	for _, offer := range offerNames {
		candidatesTotal.WithLabelValues(offer)
	}
	for _, tier := range tierNames {
		placementsTotal.WithLabelValues(tier)
	}
})

// reporting is done by the first profile's plugin: all of them see the same nodes and pods, which count once.
var reporting sync.Once

// report counts nodes until ctx ends, and puts them on the scheduler's /metrics.
func (d *DrainPack) report(ctx context.Context) {
	reporting.Do(func() {
		m := newMeter()
		legacyregistry.RawMustRegister(m)
		go d.meterNodes(ctx, m)
	})
}
