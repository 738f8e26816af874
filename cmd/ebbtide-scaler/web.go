package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
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

// newWeb listens. Where clients of the gRPC service must have a certificate (restricted), decisions are for those who reach this port from the pod itself
// only: whoever may forward a port to it, which Kubernetes decides.
func newWeb(address string, registry *prometheus.Registry, ledger *decision.Ledger, restricted bool, ready <-chan struct{}) (*web, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--metrics-listen: %w", err)
	}
	mux, scrapes, lists := http.NewServeMux(), make(turns, maxScrapes), make(turns, maxLists)
	scrape := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, Registry: registry, // what is wrong with one series says nothing of the others
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) { scrapes.serve(w, r, scrape.ServeHTTP) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-ready:
			fmt.Fprintln(w, "ok")
		default:
			http.Error(w, "policies are not loaded yet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /decisions", func(w http.ResponseWriter, r *http.Request) {
		if restricted && !local(r) {
			http.Error(w, "clients of this scaler must have a certificate: forward a port to its pod (ebbtide decisions), or ask ebbtide.decisions.v1alpha1.DecisionService "+
				"over gRPC with a certificate that --allow-client names", http.StatusForbidden)
			return
		}
		lists.serve(w, r, func(w http.ResponseWriter, r *http.Request) { listDecisions(w, r, ledger) })
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ConnState: httpState,
	}
	return &web{newCrowd(listener, maxConnections), server}, nil
}

const (
	// maxConnections to the HTTP port at once, and of them scrapes and lists of decisions that are being answered. A scrape of 10,000 policies takes 100 MiB.
	maxConnections, maxScrapes, maxLists = 256, 2, 4
	// turnWithin is how long a request waits for its turn, and then how long its answer may take to be read.
	turnWithin = 10 * time.Second
	// maxPolicies are on one page of decisions, and maxOfEach decisions of each policy.
	maxPolicies, maxOfEach = decision.MaxPage, ledgerSize
)

// local reports whether a request comes from the pod itself.
func local(r *http.Request) bool {
	address, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && address.Addr().Unmap().IsLoopback()
}

// listDecisions answers with the newest decisions of all policies, of those of a namespace or of that name, or both, page by page:
// ?namespace=&policy=&limit=&policies=&continue=.
func listDecisions(w http.ResponseWriter, r *http.Request, ledger *decision.Ledger) {
	query := r.URL.Query()
	limit, policies := 20, 100
	for _, number := range []struct {
		name  string
		value *int
		most  int
	}{{"limit", &limit, maxOfEach}, {"policies", &policies, maxPolicies}} {
		text := query.Get(number.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			http.Error(w, fmt.Sprintf("%s=%q: must be a whole number above 0", number.name, text), http.StatusBadRequest)
			return
		}
		*number.value = min(n, number.most)
	}
	w.Header().Set("Content-Type", "application/json")
	page := ledger.Page(query.Get("namespace"), query.Get("policy"), limit, policies, query.Get("continue"))
	_ = json.NewEncoder(w).Encode(page) // the client is gone: nobody to tell
}
