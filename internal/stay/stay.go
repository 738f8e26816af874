// Package stay is how long a worker without a message waits for one. The worker and the simulator use the same code.
package stay

import "time"

// Rule costs nothing while the worker's node works anyway.
type Rule struct {
	// AfterWork is how long the worker waits after the last work on its node.
	AfterWork time.Duration
	// Longest that it waits in any case: what is not needed for so long had better be room for others.
	Longest time.Duration
}

// Default is the rule that was found best: ten seconds, and two minutes.
func Default() Rule { return Rule{AfterWork: 10 * time.Second, Longest: 2 * time.Minute} }

// Until is when a worker leaves that has had no message since an instant: works says that another worker on its node has one or is about to
// start, and lastWork when the last one ended, the zero time when none did. Ask again when one of them changes: it may be later then, and
// sooner.
func (r Rule) Until(idleSince, lastWork time.Time, works bool) time.Time {
	latest := idleSince.Add(r.Longest)
	if works {
		return latest
	}
	until := idleSince
	if lastWork.After(until) {
		until = lastWork
	}
	if until = until.Add(r.AfterWork); until.Before(latest) {
		return until
	}
	return latest
}
