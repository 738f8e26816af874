package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Decisions are for those who may call the gRPC service, or forward a port to the pod; page by page. Metrics and health are for all.
func TestDecisionsOverHTTP(t *testing.T) {
	ledger, ready := decision.NewLedger(ledgerSize), make(chan struct{})
	for _, policy := range []string{"a", "b", "c"} {
		ledger.Add(types.NamespacedName{Namespace: "scan", Name: policy}, sizing.Decision{Target: 1})
	}
	for _, restricted := range []bool{true, false} {
		web, err := newWeb("127.0.0.1:0", prometheus.NewRegistry(), ledger, restricted, ready)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = web.listener.Close() })
		get := func(from, path string) *httptest.ResponseRecorder {
			request, answer := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil), httptest.NewRecorder()
			request.RemoteAddr = from
			web.server.Handler.ServeHTTP(answer, request)
			return answer
		}
		for from, want := range map[string]int{
			"127.0.0.1:5": http.StatusOK, "[::1]:5": http.StatusOK, "[::ffff:127.0.0.1]:5": http.StatusOK, "10.0.0.7:5": http.StatusForbidden, "?": http.StatusForbidden,
		} {
			if !restricted {
				want = http.StatusOK
			}
			if got := get(from, "/decisions"); got.Code != want || want == http.StatusForbidden && strings.Contains(got.Body.String(), "target") {
				t.Errorf("restricted: %v: %s gets %d, want %d", restricted, from, got.Code, want)
			}
			if got := get(from, "/metrics"); got.Code != http.StatusOK {
				t.Errorf("%s gets %d for metrics", from, got.Code)
			}
		}
		var page decision.Views
		if err := json.Unmarshal(get("127.0.0.1:5", "/decisions?policies=2").Body.Bytes(), &page); err != nil || len(page.Decisions) != 2 || page.Continue != "scan/b" {
			t.Errorf("first page %+v, %v", page, err)
		}
		page = decision.Views{}
		if err := json.Unmarshal(get("127.0.0.1:5", "/decisions?policies=2&continue="+"scan/b").Body.Bytes(), &page); err != nil || len(page.Decisions) != 1 || page.Continue != "" {
			t.Errorf("second page %+v, %v", page, err)
		}
		for _, query := range []string{"limit=0", "limit=x", "policies=-1"} {
			if got := get("127.0.0.1:5", "/decisions?"+query); got.Code != http.StatusBadRequest {
				t.Errorf("%s gets %d, want %d", query, got.Code, http.StatusBadRequest)
			}
		}
	}
}
