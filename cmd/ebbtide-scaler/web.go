package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
)

// web serves metrics, health and the ledger over HTTP.
type web struct {
	listener net.Listener
	server   *http.Server
}

func newWeb(address string, registry *prometheus.Registry, ledger *decision.Ledger, ready <-chan struct{}) (*web, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--metrics-listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-ready:
			fmt.Fprintln(w, "ok")
		default:
			http.Error(w, "policies are not loaded yet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /decisions", func(w http.ResponseWriter, r *http.Request) { listDecisions(w, r, ledger) })
	return &web{listener, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}}, nil
}

// listDecisions answers with the newest decisions of all policies, of those of a namespace or of that name, or both; ?namespace=&policy=&limit=.
func listDecisions(w http.ResponseWriter, r *http.Request, ledger *decision.Ledger) {
	limit := 20
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			http.Error(w, fmt.Sprintf("limit=%q: must be a whole number above 0", text), http.StatusBadRequest)
			return
		}
		limit = n
	}
	namespace, policy := r.URL.Query().Get("namespace"), r.URL.Query().Get("policy")
	list := decision.ShownList{Decisions: []decision.Shown{}}
	for _, name := range ledger.Policies() {
		if namespace != "" && name.Namespace != namespace || policy != "" && name.Name != policy {
			continue
		}
		for _, d := range ledger.Last(name, limit) {
			list.Decisions = append(list.Decisions, decision.Show(name, d))
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list) // the client is gone: nobody to tell
}
