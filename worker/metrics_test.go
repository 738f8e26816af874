package worker

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ebbtide-dev/ebbtide/internal/doctable"
)

// The reference page lists the metrics.
func TestMetricsReference(t *testing.T) {
	registry := prometheus.NewRegistry()
	NewMetrics(registry)
	doctable.Metrics(t, "../docs/reference/metrics.md", "worker metrics", registry, "ebbtide_")
}
