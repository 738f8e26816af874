package drainpack

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/ebbtide-dev/ebbtide/internal/doctable"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
)

// The reference names every series of the plugin and no other.
func TestMetricsDocument(t *testing.T) {
	registerMetrics()
	registerDrainMetrics()
	registry := prometheus.NewRegistry()
	registry.MustRegister(newMeter())
	// Other tests start the plugin, which registers a meter of its own.
	gatherer := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := registry.Gather()
		if err != nil {
			return nil, err
		}
		of := func(name string) func(*dto.MetricFamily) bool {
			return func(f *dto.MetricFamily) bool { return f.GetName() == name }
		}
		registered, err := legacyregistry.DefaultGatherer.Gather()
		for _, family := range registered {
			if !slices.ContainsFunc(families, of(family.GetName())) {
				families = append(families, family)
			}
		}
		slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
		return families, err
	})
	doctable.Metrics(t, "../../docs/reference/metrics.md", "scheduler metrics", gatherer, "ebbtide_")
}

// Two nodes for a minute, of which one would have been enough for half of it; the second one stays for 15 s after that at least.
func TestMeter(t *testing.T) {
	m, at := newMeter(), time.Unix(1000, 0)
	need := func(after time.Duration, nodes int, needed int64) {
		m.observe(at.Add(after), fleet.Census{Nodes: [fleet.States]int{fleet.Endless: nodes}, Needed: needed})
	}
	need(0, 2, 2)
	need(30*time.Second, 2, 1)
	need(time.Minute, 0, 0)
	need(time.Hour, 0, 0)
	if m.nodeSeconds != 2*60 {
		t.Errorf("%v node-seconds, want 120", m.nodeSeconds)
	}
	if want := 2.0*(30+15) + 1*(60+15-45); m.boundSeconds != want {
		t.Errorf("at least %v node-seconds, want %v", m.boundSeconds, want)
	}
}
