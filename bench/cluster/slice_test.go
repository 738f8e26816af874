package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// Slices follow each other over the record, as long as is asked for, and nothing in them is longer.
func TestSlice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "record.csv")
	record := "start,seconds,class,milliCPU\n0,60,a,1000\n600,600,b,500\n1200,120,a,9000\n1800,6000,a,1000\n"
	if err := os.WriteFile(file, []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	s := slice{file: file, statements: "exact", pods: 3, within: time.Minute, longest: 2 * time.Minute}
	last, err := s.load(4, 5) // the last three, twenty times as fast
	if err != nil {
		t.Fatal(err)
	}
	if a, b := last[1].Class, last[0].Class; a == b || last[2].Class != a || !strings.HasPrefix(a, "class-") {
		t.Errorf("classes %s, %s and %s, want the last two alike", b, a, last[2].Class)
	}
	for i := range last {
		last[i].Class = ""
	}
	want := []scans.Pod{
		{Runs: 30 * time.Second, Stated: 30 * time.Second, MilliCPU: 500},
		{After: 30 * time.Second, Runs: 6 * time.Second, Stated: 6 * time.Second, MilliCPU: 7500},
		{After: time.Minute, Runs: 2 * time.Minute, Stated: 2 * time.Minute, MilliCPU: 1000},
	}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	s.statements = "absent"
	first, err := s.load(0, 5)
	if err != nil || first[0].After != 0 || first[0].Stated != 0 || first[0].Runs != 3*time.Second {
		t.Errorf("the first slice: %+v, %v", first, err)
	}
	s.pods = 5
	if _, err := s.load(0, 1); err == nil || !strings.Contains(err.Error(), "has 4 jobs, want at least 5") {
		t.Errorf("error %v", err)
	}
}
