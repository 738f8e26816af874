package stay

import (
	"testing"
	"time"
)

var now = time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)

func TestStay(t *testing.T) {
	s := Default()
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	for name, tc := range map[string]struct {
		lastWork time.Time
		works    bool
		want     time.Time
	}{
		"while the node works, two minutes":                 {at(0), true, at(120)},
		"ten seconds after the last work":                   {at(50), false, at(60)},
		"a worker that never had company: from its idling":  {time.Time{}, false, at(10)},
		"its own work ended as it became idle":              {at(0), false, at(10)},
		"never longer than two minutes":                     {at(119), false, at(120)},
		"work before it was idle does not count against it": {at(-100), false, at(10)},
	} {
		if got := s.Until(now, tc.lastWork, tc.works); !got.Equal(tc.want) {
			t.Errorf("%s: leaves after %s, want %s", name, got.Sub(now), tc.want.Sub(now))
		}
	}
}
