package scenario

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/ebbtide-dev/ebbtide/dashboards"
	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// needsPredictions reports whether a panel has data only once run times are expected rightly. The demo's scans all state the same one,
// which tells nothing, so the oldest nodes are taken; TestScheduler's pods tell more.
func needsPredictions(panel string) bool { return panel == "Extension added" }

// needsDraining reports whether a panel has data only where the scheduler serves workers, which is off by default.
func needsDraining(panel string) bool { return panel == "Drains" || panel == "Workers that give way" }

// checkPanels checks that every query of some panels has data of what happened since begin: in the cluster's Prometheus, which may
// need a moment to scrape the end.
func checkPanels(t *testing.T, c *cluster.Cluster, begin time.Time, which func(panel string) bool) promv1.API {
	t.Helper()
	client, err := api.NewClient(api.Config{Address: c.PrometheusURL()})
	if err != nil {
		t.Fatal(err)
	}
	prometheus := promv1.NewAPI(client)
	empty := map[dashboards.Query]error{}
	for _, d := range dashboards.All() {
		for _, q := range d.Queries(nil) {
			if which(q.Panel) && q.Panel != "Firing alerts" { // none is to fire
				empty[q] = nil
			}
		}
	}
	if len(empty) == 0 {
		t.Error("no panel was checked")
	}
	for deadline := time.Now().Add(20 * time.Second); len(empty) > 0 && time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		for q := range empty {
			if has, err := hasData(t.Context(), prometheus, q, begin, time.Now()); has {
				delete(empty, q)
			} else {
				empty[q] = err
			}
		}
	}
	for q, err := range empty {
		t.Errorf("%s, %s, %s has no data (%v): %s", q.Dashboard, q.Panel, q.RefID, err, q.Expr)
	}
	return prometheus
}

// checkAlerts checks that none fires.
func checkAlerts(t *testing.T, prometheus promv1.API) {
	t.Helper()
	alerts, err := prometheus.Alerts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, alert := range alerts.Alerts {
		if alert.State == promv1.AlertStateFiring {
			t.Errorf("alert %s fires: %s", alert.Labels["alertname"], alert.Annotations["description"])
		}
	}
}

// hasData reports whether a query has a number in a range of time, or at its end when it asks for the newest value only.
func hasData(ctx context.Context, prometheus promv1.API, q dashboards.Query, from, to time.Time) (bool, error) {
	length := to.Sub(from).Round(time.Second)
	expr := dashboards.Replacer(map[string]string{
		"__rate_interval": "15s", "__range": length.String(), "__range_s": strconv.Itoa(int(length.Seconds())), "__interval": "2s",
		"namespace": scans.Namespace, "policy": "scans", "scaledjob": "scans", "objective": "10", "price": "0.04",
	}).Replace(q.Expr)
	if q.Instant {
		value, _, err := prometheus.Query(ctx, expr, to)
		vector, _ := value.(model.Vector)
		return slices.ContainsFunc(vector, func(s *model.Sample) bool { return isNumber(s.Value) }), err
	}
	value, _, err := prometheus.QueryRange(ctx, expr, promv1.Range{Start: from, End: to, Step: time.Second})
	if err != nil {
		return false, fmt.Errorf("%s: %w", expr, err)
	}
	for _, series := range value.(model.Matrix) {
		if slices.ContainsFunc(series.Values, func(s model.SamplePair) bool { return isNumber(s.Value) }) {
			return true, nil
		}
	}
	return false, nil
}

func isNumber(v model.SampleValue) bool { return !math.IsNaN(float64(v)) }
