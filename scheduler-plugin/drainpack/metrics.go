package drainpack

import (
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
	extensionSeconds = metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: "ebbtide_drainpack", Name: "extension_seconds", StabilityLevel: metrics.ALPHA,
		Help:    "How much longer a node is expected to live because of a pod that was put there.",
		Buckets: append([]float64{0}, metrics.ExponentialBuckets(15, 2, 12)...),
	})
)

// registerMetrics puts the metrics on the scheduler's /metrics, once for all profiles.
var registerMetrics = sync.OnceFunc(func() { legacyregistry.MustRegister(candidatesTotal, extensionSeconds) })
