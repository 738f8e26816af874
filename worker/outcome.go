package worker

import (
	"fmt"
	"slices"
	"time"
)

// verdict is what becomes of a message.
type verdict int

const (
	// succeeded: publish the result, then acknowledge.
	succeeded verdict = iota
	// retry: give the message back to the queue.
	retry
	// failed: publish the result, then dead-letter the message.
	failed
)

// outcome is how a command ended.
type outcome struct {
	verdict           verdict
	reason            string // why it is not succeeded, for a person
	exitCode          *int   // nil when the command did not exit by itself
	output            content
	started, finished time.Time
}

// judge decides by a command's exit code, or the signal that ended it (0: none).
func judge(exitCode, signal int, retryable []int) (verdict, string) {
	switch {
	case signal != 0:
		return retry, fmt.Sprintf("the command was killed by signal %d", signal)
	case exitCode == 0:
		return succeeded, ""
	case slices.Contains(retryable, exitCode):
		return retry, fmt.Sprintf("the command exited with %d, which asks for another attempt", exitCode)
	default:
		return failed, fmt.Sprintf("the command exited with %d", exitCode)
	}
}

// exhausted turns a wish for another attempt into a failure when that was the last.
func (o outcome) exhausted(attempt, maxAttempts int) outcome {
	if o.verdict == retry && maxAttempts > 0 && attempt >= maxAttempts {
		o.verdict = failed
		o.reason = fmt.Sprintf("%s; it was attempt %d of %d", o.reason, attempt, maxAttempts)
	}
	return o
}
