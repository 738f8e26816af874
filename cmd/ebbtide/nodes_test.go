package main

import (
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
)

func TestStateOfNode(t *testing.T) {
	now := time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)
	since, exit, seconds := now.Add(-40*time.Second), now.Add(5*time.Minute), 30.0
	for want, v := range map[string]fleet.View{
		"works for about 5m0s":                      {Exit: &exit},
		"empty":                                     {},
		"a pod on it never ends":                    {Endless: true},
		"drains since 40s, works for about 30s":     {Draining: &since, Exit: &exit, BusyWorkers: 1, EmptiesIn: &seconds},
		"drains since 40s, empty":                   {Draining: &since},
		"is being taken away, works for about 5m0s": {Leaving: true, Exit: &exit},
	} {
		if got := stateOfNode(v, now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
