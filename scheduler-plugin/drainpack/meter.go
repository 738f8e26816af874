package drainpack

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lowerbound"
)

const (
	// meterEvery is how often nodes are counted: often enough for linger, and rarely enough to be no load.
	meterEvery = 2 * time.Second
	// linger is how long a node lives at least after its last pod, for the lower bound: the 15 s that Karpenter takes to make sure
	// before it removes an empty node, whatever its consolidateAfter. Other autoscalers take longer.
	linger = 15 * time.Second
)

// meter keeps the last census and adds up what nodes cost, and what they would have to at least. It is safe for concurrent use.
type meter struct {
	mu     sync.Mutex
	census fleet.Census
	at     time.Time // of the census
	bound  lowerbound.Window
	// Seconds of nodes, and the fewest that any packer could have used for the same pods.
	nodeSeconds, boundSeconds float64
}

func newMeter() *meter { return &meter{bound: lowerbound.Window{Linger: linger}} }

// observe takes a census in. What there was at the one before counts up to now.
func (m *meter) observe(now time.Time, c fleet.Census) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.at.IsZero() {
		m.nodeSeconds += float64(m.census.Total()) * max(0, now.Sub(m.at).Seconds())
	}
	m.census, m.at = c, now
	m.bound.Step(now, c.Needed, func(from, to time.Time, nodes int64) { m.boundSeconds += float64(nodes) * to.Sub(from).Seconds() })
}

// meterNodes counts nodes until ctx ends.
func (d *DrainPack) meterNodes(ctx context.Context, m *meter) {
	tick := time.NewTicker(meterEvery)
	defer tick.Stop()
	for {
		now := d.now()
		m.observe(now, d.fleet.Census(now))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func nodesDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ebbtide_drainpack_"+name, help, labels, nil)
}

var (
	nodesByState = nodesDesc("nodes", "Nodes by when the last of their pods is expected to end: within 1m, 5m, 15m, 1h, later, "+
		"never (endless); those without a pod that keeps them (empty) and those that are being taken away (leaving).", "state")
	nodesByPods  = nodesDesc("nodes_by_pods", "Nodes by the number of pods that keep them.", "pods")
	podsByKind   = nodesDesc("pods", "Pods on nodes: those that keep them (keeping), and DaemonSets' and the like (following).", "kind")
	usedRatio    = nodesDesc("used_ratio", "Share of all nodes' CPU and memory that pods request, from 0 to 1.", "resource")
	cpus         = nodesDesc("allocatable_cpus", "CPUs of all nodes together that pods can have.")
	nodeSeconds  = nodesDesc("node_seconds_total", "Seconds that nodes were there, added up over all nodes.")
	leastSeconds = nodesDesc("lower_bound_node_seconds_total", "The fewest node-seconds that any placement of the same pods could have used "+
		"on nodes of the largest size, where each stays for 15 s after its last pod.")
	emptyLongest   = nodesDesc("empty_longest_seconds", "How long the node that is without pods for longest is so, since its last one ended.")
	leavingLongest = nodesDesc("leaving_longest_seconds", "How long the node that is being taken away for longest "+
		"still has pods that keep it.")
)

// Describe implements prometheus.Collector.
func (m *meter) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		nodesByState, nodesByPods, podsByKind, usedRatio, cpus, nodeSeconds, leastSeconds, emptyLongest, leavingLongest,
	} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *meter) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	c := &m.census
	for state, nodes := range c.Nodes {
		gauge(nodesByState, float64(nodes), fleet.State(state).String())
	}
	for bucket, nodes := range c.NodesByPods {
		gauge(nodesByPods, float64(nodes), fleet.PodBuckets[bucket])
	}
	gauge(podsByKind, float64(c.Pods-c.Followers), "keeping")
	gauge(podsByKind, float64(c.Followers), "following")
	for d, resource := range []string{"cpu", "memory"} {
		gauge(usedRatio, float64(c.Used[d])/float64(max(1, c.Allocatable[d])), resource)
	}
	gauge(cpus, float64(c.Allocatable[0])/1000)
	gauge(emptyLongest, c.EmptyLongest.Seconds())
	gauge(leavingLongest, c.LeavingLongest.Seconds())
	out <- prometheus.MustNewConstMetric(nodeSeconds, prometheus.CounterValue, m.nodeSeconds)
	out <- prometheus.MustNewConstMetric(leastSeconds, prometheus.CounterValue, m.boundSeconds)
}
