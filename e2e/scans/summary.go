package scans

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Summary is what a demo measured.
type Summary struct {
	// Messages published and confirmed.
	Messages int `json:"messages"`
	// Jobs that KEDA created.
	Jobs int `json:"jobs"`
	// DuplicateJobs found no message, beyond those that a floor or an idle reserve asked for.
	DuplicateJobs int `json:"duplicateJobs"`
	// LostMessages have neither a result nor a place in the dead-letter queue.
	LostMessages int `json:"lostMessages"`
	// RepeatedMessages have more than one result.
	RepeatedMessages int `json:"repeatedMessages"`
	// Wait from the publishing of a message to the start of its scan.
	WaitSecondsP50 float64 `json:"waitSecondsP50"`
	WaitSecondsP95 float64 `json:"waitSecondsP95"`
	// PeakNodes at once.
	PeakNodes int `json:"peakNodes"`
	// NodeSeconds is the time that nodes existed, summed.
	NodeSeconds float64 `json:"nodeSeconds"`
	// LowerBoundNodeSeconds is the least that any packer could have used for the same pods.
	LowerBoundNodeSeconds float64 `json:"lowerBoundNodeSeconds"`
	// DrainSeconds runs from the last pod's end to the last node's removal.
	DrainSeconds float64 `json:"drainSeconds"`
	// RemainingNodes were still there at the end.
	RemainingNodes int `json:"remainingNodes"`
	// WallSeconds of the whole run, the cluster's start and stop included.
	WallSeconds float64 `json:"wallSeconds"`
}

// Check returns what a demo must not do, or nil.
func (s Summary) Check() error {
	var faults []error
	fault := func(n int, what string) {
		if n > 0 {
			faults = append(faults, fmt.Errorf("%d %s", n, what))
		}
	}
	fault(s.LostMessages, "messages were lost")
	fault(s.RepeatedMessages, "messages were processed twice without a crash")
	fault(s.DuplicateJobs, "jobs found no message")
	fault(s.RemainingNodes, "nodes stayed")
	return errors.Join(faults...)
}

// Print writes the summary for a person.
func (s Summary) Print(w io.Writer) {
	fmt.Fprintf(w, `
messages        %4d   lost %d, processed twice %d
jobs            %4d   that found no message: %d
wait to scan    %4.1f s median, %.1f s at the 95th percentile
nodes           %4d at the peak, %.0f node-seconds: %.2f times the lower bound of %.0f
drain           %4.0f s from the last pod's end to the last node's removal, %d left
wall            %4.0f s, the cluster's start included
`, s.Messages, s.LostMessages, s.RepeatedMessages, s.Jobs, s.DuplicateJobs, s.WaitSecondsP50, s.WaitSecondsP95,
		s.PeakNodes, s.NodeSeconds, s.NodeSeconds/s.LowerBoundNodeSeconds, s.LowerBoundNodeSeconds, s.DrainSeconds,
		s.RemainingNodes, s.WallSeconds)
}

// WriteJSON writes the summary to a file.
func (s Summary) WriteJSON(path string) error { return WriteJSON(path, s) }

// WriteJSON writes a value to a file, as indented JSON; it makes the file's folder.
func WriteJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Percentile of durations in seconds, by the nearest-rank method; 0 of none.
func Percentile(waits []time.Duration, p float64) float64 {
	if len(waits) == 0 {
		return 0
	}
	return Round(NearestRank(waits, p).Seconds())
}

// NearestRank is the percentile of some durations.
func NearestRank(some []time.Duration, p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(some))
	rank := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return sorted[max(rank, 0)].Round(time.Millisecond)
}

// Round to a tenth: the clocks of the parts do not agree on more.
func Round(seconds float64) float64 { return math.Round(seconds*10) / 10 }
