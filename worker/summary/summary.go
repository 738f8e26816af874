// Package summary is what a worker says of itself when it leaves: a little JSON that fits into a pod's termination message, by
// which whoever sees finished pods learns what no metrics endpoint lives long enough to show. It imports nothing of Ebbtide.
package summary

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Summary is what a worker did. It is comparable.
type Summary struct {
	// Messages taken, and how they ended.
	Messages     int `json:"messages"`
	Succeeded    int `json:"succeeded"`
	Retried      int `json:"retried"`
	DeadLettered int `json:"deadLettered"`
	// Ended says why the worker left: messages, lifetime, idle, yielded (to a pod or a drain), stopped or error.
	Ended string `json:"ended"`
	// WaitSeconds is how long messages waited from their timestamp, where the publisher set one, to their first delivery.
	WaitSeconds Histogram `json:"waitSeconds,omitzero"`
	// ScanSeconds is how long commands ran, however they ended.
	ScanSeconds Histogram `json:"scanSeconds,omitzero"`
}

// Untimed is the summary without how long things took.
func (s Summary) Untimed() Summary {
	s.WaitSeconds, s.ScanSeconds = Histogram{}, Histogram{}
	return s
}

// Bounds are the upper bounds of a Histogram's buckets, in seconds; the last bucket has none.
var Bounds = [...]float64{1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400}

// Histogram counts durations. In JSON it is their sum and the counts of the buckets that have any, by upper bound:
//
//	{"sum": 71.5, "le": {"10": 3, "60": 1}}
//
// so that one that was made with other bounds can be read: a count goes to the first bucket here that holds its bound.
type Histogram struct {
	Sum    float64
	Counts [len(Bounds) + 1]uint32
}

// Add counts a duration in seconds; less than nothing counts as nothing.
func (h *Histogram) Add(seconds float64) {
	seconds = max(0, seconds)
	h.Sum += seconds
	h.Counts[bucket(seconds)]++
}

func bucket(seconds float64) int {
	i, _ := slices.BinarySearch(Bounds[:], seconds)
	return i
}

// Count of all durations.
func (h *Histogram) Count() (n uint64) {
	for _, count := range h.Counts {
		n += uint64(count)
	}
	return n
}

type encoded struct {
	Sum float64           `json:"sum"`
	LE  map[string]uint32 `json:"le"`
}

const infinity = "+Inf"

// MarshalJSON implements json.Marshaler.
func (h Histogram) MarshalJSON() ([]byte, error) {
	e := encoded{Sum: math.Round(h.Sum*1000) / 1000, LE: map[string]uint32{}}
	for i, count := range h.Counts {
		switch {
		case count == 0:
		case i == len(Bounds):
			e.LE[infinity] = count
		default:
			e.LE[strconv.FormatFloat(Bounds[i], 'g', -1, 64)] = count
		}
	}
	return json.Marshal(e)
}

// UnmarshalJSON implements json.Unmarshaler. Anybody can write a termination message: what can't be is an error.
func (h *Histogram) UnmarshalJSON(text []byte) error {
	var e encoded
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	if e.Sum < 0 {
		return fmt.Errorf("sum is %v, want at least 0", e.Sum)
	}
	*h = Histogram{Sum: e.Sum}
	for bound, count := range e.LE {
		seconds, err := strconv.ParseFloat(bound, 64) // it takes +Inf
		if err != nil || math.IsNaN(seconds) {
			return fmt.Errorf("le has %q, want a bound in seconds", bound)
		}
		h.Counts[bucket(seconds)] += count
	}
	return nil
}
