package kafka_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// counted are the series that are not zero: counters, ages, and how many observations a histogram has.
func counted(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			counts[name] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	maps.DeleteFunc(counts, func(_ string, n float64) bool { return n == 0 })
	return counts
}

// Each message counts once, by what happened to it and why; and there are no other series, whatever is in messages.
func TestMetrics(t *testing.T) {
	b := newBench(t, 1)
	registry := prometheus.NewRegistry()
	j := b.job("sh", "-c", `read what || true
case $what in
exit) echo "$EBBTIDE_MESSAGE_ID"; exit 3;;
signal) kill -9 $$;;
retry) exit 75;;
slow) sleep 60;;
large) yes;;
esac`)
	j.Metrics = worker.NewMetrics(registry)
	j.MaxMessages, j.MaxAttempts, j.IdleTimeout = 0, 2, time.Second
	j.Endings.Signal = worker.Fail
	b.produce(t, 0, "fine", "exit", "signal", "retry", "large")
	for _, one := range []*kgo.Record{
		{Topic: scansTopic, Value: []byte("slow"), Headers: []kgo.RecordHeader{{Key: "ebbtide-scan-timeout", Value: []byte("10ms")}}},
		{Topic: scansTopic, Value: []byte("door"), Headers: []kgo.RecordHeader{{Key: "ebbtide-engines", Value: []byte("?")}}},
		{Topic: scansTopic, Value: []byte("had"), Headers: []kgo.RecordHeader{{Key: "ebbtide-attempt", Value: []byte("9")}}},
	} {
		if err := b.client.ProduceSync(t.Context(), one).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	const messages = "ebbtide_worker_messages_total "
	want := map[string]float64{
		messages + "succeeded none": 1, messages + "retried exit": 1, messages + "dead-lettered exit": 2, messages + "dead-lettered signal": 1,
		messages + "dead-lettered timeout": 1, messages + "dead-lettered message": 1, messages + "dead-lettered attempts": 1,
		messages + "dead-lettered result": 1, "ebbtide_worker_run_seconds": 9, "ebbtide_worker_wait_seconds": 7,
	}
	if got := counted(t, registry); !maps.Equal(got, want) {
		t.Errorf("metrics %v, want %v", got, want)
	}
}

// The current message has an age, and one that goes back when the worker stops counts so.
func TestMetricsOfTheCurrentMessage(t *testing.T) {
	b := newBench(t, 1)
	registry := prometheus.NewRegistry()
	started := filepath.Join(t.TempDir(), "started")
	j := b.job("sh", "-c", fmt.Sprintf("touch %s; sleep 60", started))
	j.Metrics = worker.NewMetrics(registry)
	j.GracePeriod = 0
	b.produce(t, 0, "one")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := j.run(ctx)
		done <- err
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(started); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command does not start")
		}
	}
	if got := counted(t, registry); got["ebbtide_worker_message_age_seconds"] <= 0 {
		t.Errorf("metrics %v have no age", got)
	}
	stop()
	if err := <-done; err == nil {
		t.Error("the message does not go back")
	}
	if got := counted(t, registry); got["ebbtide_worker_messages_total returned stopped"] != 1 || got["ebbtide_worker_message_age_seconds"] != 0 {
		t.Errorf("metrics %v", got)
	}
}
