package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ebbtide-dev/ebbtide/simulator"
)

// record writes the first jobs of a generated load as if it had been recorded.
func record(t *testing.T, folder, name string, jobs []simulator.Job) {
	t.Helper()
	text := &strings.Builder{}
	fmt.Fprintln(text, "start,seconds,class,milliCPU,memoryMiB")
	for _, job := range jobs {
		fmt.Fprintf(text, "%.1f,%.1f,%s,%d,%d\n", job.Start.Seconds(), job.Run.Seconds(), job.Class, job.Requests[0], job.Requests[1]>>20)
	}
	if err := os.WriteFile(filepath.Join(folder, name), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// All CSVs of a folder are replayed, as they are and thinned, with all kinds of statements, and compared with the lower of first fit and
// MostAllocated.
func TestRecordedLoads(t *testing.T) {
	folder := t.TempDir()
	record(t, folder, "one.csv", simulator.HeavyTailed(rand.New(rand.NewPCG(1, 1)))[:300])
	record(t, folder, "two.csv", simulator.TwoQueues(0.8)(rand.New(rand.NewPCG(1, 1)))[:300])
	o := options{
		data: folder, out: filepath.Join(folder, "out.json"), seeds: 1, thins: 1,
		loads: regexp.MustCompile("^(one|two)$"), packer: regexp.MustCompile("^(first-fit|most-allocated|drainpack)$"), stated: regexp.MustCompile("."),
	}
	var table bytes.Buffer
	if err := run(o, &table); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(o.out)
	if err != nil {
		t.Fatal(err)
	}
	var figures []Figure
	if err := json.Unmarshal(text, &figures); err != nil {
		t.Fatal(err)
	}
	// Two loads, five kinds of statements, two delays, three packers, the load itself and a thinned one.
	if len(figures) != 2*5*2*3*2 {
		t.Errorf("%d figures", len(figures))
	}
	hours := map[string]float64{}
	for _, f := range figures {
		if f.RatioToBound < 1 || f.NodeHours <= 0 {
			t.Errorf("%+v beats the bound, or used nothing", f)
		}
		if f.Load == "one" && f.Policy == "first-fit" && f.DelaySeconds == 45 {
			hours[fmt.Sprint(f.Seed, f.Predictions)] = f.NodeHours
		}
	}
	if hours["0exact"] != hours["0absent"] || hours["0exact"] == hours["1exact"] {
		t.Errorf("first fit: %v, want one figure whatever is stated, and another for the thinned load", hours)
	}
	for _, want := range []string{"one ", "two ", "all recorded loads, over the lower", "liars      both  drainpack"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
}

func TestNoLoads(t *testing.T) {
	folder := t.TempDir()
	if _, err := recordedLoads(folder); err == nil || !strings.Contains(err.Error(), "no CSV") {
		t.Errorf("an empty folder: error %v", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "bad.csv"), []byte("start,seconds,class\n1,x,a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := recordedLoads(folder); err == nil || !strings.Contains(err.Error(), "bad.csv: line 2") {
		t.Errorf("a bad file: error %v", err)
	}
	if loads, err := recordedLoads(""); len(loads) > 0 || err != nil {
		t.Errorf("without a folder: %d loads, %v", len(loads), err)
	}
}
