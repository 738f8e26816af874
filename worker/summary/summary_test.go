package summary

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestHistogram(t *testing.T) {
	var s Summary
	text, err := json.Marshal(s)
	if want := `{"messages":0,"succeeded":0,"retried":0,"deadLettered":0,"ended":""}`; err != nil || string(text) != want {
		t.Errorf("nothing is %s (%v), want %s", text, err, want)
	}
	// A bound belongs to its bucket; a clock that is behind makes no negative wait.
	for _, seconds := range []float64{-3, 1, 1.0004, 10, 59, 14401} {
		s.WaitSeconds.Add(seconds)
	}
	text, err = json.Marshal(s.WaitSeconds)
	if want := `{"sum":14472,"le":{"+Inf":1,"1":2,"10":1,"2.5":1,"60":1}}`; err != nil || string(text) != want {
		t.Errorf("%s (%v), want %s", text, err, want)
	}
	var back Histogram
	if err := json.Unmarshal(text, &back); err != nil || back.Counts != s.WaitSeconds.Counts || back.Count() != 6 {
		t.Errorf("%+v (%v), want %+v", back, err, s.WaitSeconds)
	}
}

// A worker of another version may know other bounds, and anything may stand in a termination message.
func TestHistogramOfOthers(t *testing.T) {
	var h Histogram
	if err := json.Unmarshal([]byte(`{"sum":9,"le":{"3":2,"4":1,"99999":1}}`), &h); err != nil || h.Counts[2] != 3 || h.Counts[len(Bounds)] != 1 {
		t.Errorf("%+v (%v), want 3 up to 5 s and one past all bounds", h, err)
	}
	for text, want := range map[string]string{
		`{"sum":-1}`:                    "sum is -1",
		`{"sum":1,"le":{"soon":1}}`:     `le has "soon"`,
		`{"sum":1,"le":{"NaN":1}}`:      `le has "NaN"`,
		`{"sum":1,"le":{"1":-1}}`:       "-1",
		`{"sum":1e999,"le":{"1":1}}`:    "1e999",
		`{"sum":1,"le":{"1":99999999}}`: "",
	} {
		if err := json.Unmarshal([]byte(text), &h); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The fullest summary is far below the 4096 bytes that a kubelet keeps of a termination message.
func TestSummaryFits(t *testing.T) {
	s := Summary{Messages: 1 << 30, Succeeded: 1 << 30, Retried: 1 << 30, DeadLettered: 1 << 30, Ended: "messages"}
	for i := range s.WaitSeconds.Counts {
		s.WaitSeconds.Counts[i] = 1 << 31
	}
	s.WaitSeconds.Sum, s.ScanSeconds = 1<<40, s.WaitSeconds
	text, err := json.Marshal(s)
	if err != nil || len(text) > 1024 {
		t.Errorf("%d bytes (%v): %s", len(text), err, text)
	}
}
