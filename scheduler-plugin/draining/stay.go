package draining

import "time"

// Stay is how long a worker without a message waits for one. It costs nothing while the node works anyway.
type Stay struct {
	// AfterWork is how long it waits after the last work on its node.
	AfterWork time.Duration
	// Longest that it waits in any case: what is not needed for so long had better be room for others.
	Longest time.Duration
}

// DefaultStay is the rule that was found best: ten seconds, and two minutes.
func DefaultStay() Stay { return Stay{AfterWork: 10 * time.Second, Longest: 2 * time.Minute} }

// Until is when a worker leaves that has had no message since an instant: works says that another worker on its node has one or is about to
// start, and lastWork when the last one ended, the zero time when none did. Ask again when one of them changes: it may be later then, and
// sooner.
func (s Stay) Until(idleSince, lastWork time.Time, works bool) time.Time {
	latest := idleSince.Add(s.Longest)
	if works {
		return latest
	}
	until := idleSince
	if lastWork.After(until) {
		until = lastWork
	}
	if until = until.Add(s.AfterWork); until.Before(latest) {
		return until
	}
	return latest
}
