package main

import (
	"testing"
	"time"
)

// The log of a worker that scans several messages tells the moments of each.
func TestParseStartupLog(t *testing.T) {
	log := `2026-03-02T09:00:01.05Z {"time":"2026-03-02T09:00:01Z","level":"INFO","msg":"connected","queue":"startup","seconds":0.25}
2026-03-02T09:00:02.05Z {"time":"2026-03-02T09:00:02Z","level":"INFO","msg":"scan starts","message":"one","attempt":1}
2026-03-02T09:00:03.05Z {"time":"2026-03-02T09:00:03Z","level":"INFO","msg":"scan says","message":"one","line":"the scan begins"}
2026-03-02T09:00:04Z {"time":"2026-03-02T09:00:04Z","level":"INFO","msg":"scan ended","message":"one"}
2026-03-02T09:00:05Z {"time":"2026-03-02T09:00:05Z","level":"INFO","msg":"scan starts","message":"two","attempt":1}
2026-03-02T09:00:05.5Z {"time":"2026-03-02T09:00:05.5Z","level":"INFO","msg":"scan says","message":"two","line":"{\"path\":\"/source\"}"}
2026-03-02T09:00:05.6Z no line of the worker's
2026-03-02T09:00:06.05Z {"time":"2026-03-02T09:00:06Z","level":"INFO","msg":"scan says","message":"two","line":"the scan begins"}
`
	at := func(seconds float64) time.Time {
		return time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
	}
	for id, want := range map[string]startupLog{
		"one": {process: at(0.75), connected: at(1), taken: at(2), begun: at(3)},
		"two": {process: at(0.75), connected: at(1), taken: at(5), begun: at(6)},
	} {
		got, err := parseStartupLog([]byte(log), id)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", id, got, err, want)
		}
	}
	if got, err := parseStartupLog([]byte(log), "three"); err == nil {
		t.Errorf("a message that is not in the log has %+v", got)
	}
}
