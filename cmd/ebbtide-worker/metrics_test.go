package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestServeMetrics(t *testing.T) {
	var log bytes.Buffer
	o := runOptions{metricsListen: "127.0.0.1:0"}
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	stop, err := o.serveMetrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	address := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(log.String())
	if address == nil {
		t.Fatal(log.String())
	}
	response, err := http.Get("http://" + address[1] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if want := `ebbtide_worker_messages_total{outcome="dead-lettered",reason="memory"} 0`; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("%s, %v has no %s", text, err, want)
	}
	if _, err := (&runOptions{metricsListen: address[1]}).serveMetrics(t.Context()); err == nil || !strings.Contains(err.Error(), "--metrics-listen") {
		t.Errorf("the same address again: %v", err)
	}
}
