package dead_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/worker/dead"
)

func TestFilter(t *testing.T) {
	died := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	letter := dead.Letter{Key: "m-1", Reason: "the command exited with 4: licence", Died: dead.Ended(`{"finishedTime": "2026-11-26T10:00:00Z"}`)}
	for name, tc := range map[string]struct {
		filter dead.Filter
		letter dead.Letter
		want   bool
	}{
		"all":                     {dead.Filter{}, letter, true},
		"its reason":              {dead.Filter{Reason: regexp.MustCompile("exited with [45]")}, letter, true},
		"another reason":          {dead.Filter{Reason: regexp.MustCompile("memory")}, letter, false},
		"its key":                 {dead.Filter{Keys: []string{"m-0", "m-1"}}, letter, true},
		"another key":             {dead.Filter{Keys: []string{"m-0"}}, letter, false},
		"since its end":           {dead.Filter{Since: died}, letter, true},
		"since later":             {dead.Filter{Since: died.Add(time.Second)}, letter, false},
		"until its end":           {dead.Filter{Until: died}, letter, false},
		"until later":             {dead.Filter{Until: died.Add(time.Second)}, letter, true},
		"all, of unknown age":     {dead.Filter{}, dead.Letter{Died: dead.Ended("{")}, true},
		"since, of unknown age":   {dead.Filter{Since: died}, dead.Letter{}, false},
		"until, of unknown age":   {dead.Filter{Until: died}, dead.Letter{}, false},
		"its reason, another key": {dead.Filter{Reason: regexp.MustCompile("licence"), Keys: []string{"m-0"}}, letter, false},
	} {
		if got := tc.filter.Match(tc.letter); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
