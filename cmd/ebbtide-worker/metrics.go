package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// serveMetrics serves /metrics until stop is called, where an address is set.
func (o *runOptions) serveMetrics(ctx context.Context) (stop func(), err error) {
	if o.metricsListen == "" {
		return func() {}, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.metricsListen)
	if err != nil {
		return nil, fmt.Errorf("--metrics-listen: %w", err)
	}
	registry := prometheus.NewRegistry()
	o.Metrics = worker.NewMetrics(registry)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	// A command of the same pod can ask, too: what it asks is bounded.
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			o.Log.Warn("metrics are not served any more", "error", err)
		}
	}()
	o.Log.Info("metrics are served", "address", listener.Addr().String())
	return func() { _ = server.Close() }, nil
}
