// Package dead describes messages that failed, whichever broker keeps them, and chooses among them.
package dead

import (
	"regexp"
	"time"

	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// Letter is a message that failed.
type Letter struct {
	// Key is its id, Reason why it failed.
	Key    string `json:"key"`
	Reason string `json:"reason"`
	// Died is when its last attempt ended; zero where nobody said so.
	Died time.Time `json:"died,omitzero"`
	// Dropped says what of the message did not fit beside the reason. It can't be replayed as it was.
	Dropped string            `json:"dropped,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Bytes   int               `json:"bytes"`
	Body    []byte            `json:"-"`
	// Result is the whole result of the worker, in JSON.
	Result string `json:"-"`
	// Position of the letter at the broker, where it has one.
	Position string `json:"position,omitempty"`
}

// Ended reads when the last attempt ended from a result in JSON; zero if it does not say.
func Ended(result string) time.Time {
	r, err := results.Unmarshal(string(results.JSON), []byte(result))
	if err != nil || !r.GetFinishedTime().IsValid() {
		return time.Time{}
	}
	return r.GetFinishedTime().AsTime()
}

// Filter chooses letters. What is zero chooses all.
type Filter struct {
	// Reason must be found in a letter's.
	Reason *regexp.Regexp
	Keys   []string
	// Since and Until bound when it died. One of which nobody knows is not between them.
	Since, Until time.Time
}

// Match reports whether a letter is chosen.
func (f Filter) Match(l Letter) bool {
	if f.Reason != nil && !f.Reason.MatchString(l.Reason) {
		return false
	}
	if len(f.Keys) > 0 {
		found := false
		for _, key := range f.Keys {
			found = found || key == l.Key
		}
		if !found {
			return false
		}
	}
	if f.Since.IsZero() && f.Until.IsZero() {
		return true
	}
	return !l.Died.IsZero() && !l.Died.Before(f.Since) && (f.Until.IsZero() || l.Died.Before(f.Until))
}
