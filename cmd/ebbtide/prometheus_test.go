package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

// A workload that a real Prometheus recorded is simulated, and a calendar is learned from it.
func TestPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Prometheus")
	}
	for _, program := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal("in CI this must run: ", err)
			}
			t.Skip(err)
		}
	}
	// Four weeks: by weekday from 9 to 17 h UTC 10 messages at once for half an hour of every hour, else none.
	begin := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	var samples strings.Builder
	samples.WriteString("# TYPE rabbitmq_queue_messages gauge\n")
	const weeks, hours, atOnce = 4, 8, 10
	for at := begin; at.Before(begin.AddDate(0, 0, 7*weeks)); at = at.Add(time.Minute) {
		value := 0
		if day := at.Weekday(); day != time.Saturday && day != time.Sunday && at.Hour() >= 9 && at.Hour() < 9+hours && at.Minute() < 30 {
			value = atOnce
		}
		fmt.Fprintf(&samples, "rabbitmq_queue_messages{queue=\"scans\"} %d %d\n", value, at.Unix())
	}
	samples.WriteString("# EOF\n")
	dir := t.TempDir()
	config := fileOf(t, "prometheus.yml", "{}\n")
	if out, err := exec.Command("promtool", "tsdb", "create-blocks-from", "openmetrics", fileOf(t, "samples", samples.String()), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ports, err := proc.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	group := proc.NewGroup(t.TempDir())
	t.Cleanup(group.Stop)
	_, err = group.Start(t.Context(), proc.Spec{
		Name: "prometheus", Path: "prometheus", Ready: proc.HTTPReady("http://"+address+"/-/ready", nil),
		Args: []string{
			"--config.file=" + config, "--storage.tsdb.path=" + dir, "--storage.tsdb.retention.time=100y", "--web.listen-address=" + address,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	load := []string{"--prometheus", "http://" + address, "--query", "rabbitmq_queue_messages", "--from", "2026-03-02", "--to", "2026-03-30"}
	var trials []trial
	text := must(t, append([]string{"simulate", "-o", "json", "--report", filepath.Join(t.TempDir(), "r.html")}, load...)...)
	if err := json.Unmarshal([]byte(text), &trials); err != nil {
		t.Fatal(err)
	}
	if want := weeks * 5 * hours * atOnce; len(trials) != 1 || trials[0].Messages != want || trials[0].Unserved != 0 {
		t.Errorf("%d messages were recorded: %s", want, text)
	}
	_, _, err = run(t, "simulate", "--prometheus", "http://"+address, "--query", "sum(", "--from", "2026-03-02", "--to", "2026-03-03")
	if err == nil || !strings.Contains(err.Error(), `query "sum("`) || !strings.Contains(err.Error(), "parse error") {
		t.Errorf("a query that is wrong: %v", err)
	}
}
