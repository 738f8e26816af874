package worker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Verdict is what happens to a message.
type Verdict int

const (
	// Succeed is to publish the result, then acknowledge.
	Succeed Verdict = iota
	// Retry is to try again, after a delay.
	Retry
	// Fail is to publish the result, then dead-letter the message.
	Fail
	// Larger is to hand the message to workers with more memory.
	Larger
)

var verdictNames = []string{"succeed", "retry", "fail", "larger"}

// String is its name in --on.
func (v Verdict) String() string { return verdictNames[v] }

// Endings say what happens to a message by how its command ended. An exit code that is not named fails the message, 0 succeeds.
type Endings struct {
	Codes map[int]Verdict
	// Signal: a signal that the worker did not send. Timeout: the scan timeout. Memory: killed by the kernel, out of memory.
	Signal, Timeout, Memory Verdict
}

// DefaultEndings retries what may pass by itself: EX_TEMPFAIL of sysexits.h, and signals.
func DefaultEndings() Endings {
	return Endings{Codes: map[int]Verdict{75: Retry}, Signal: Retry, Timeout: Fail, Memory: Fail}
}

// Set takes one rule: "75=retry", "64-78=fail", "memory=larger".
func (e *Endings) Set(rule string) error {
	what, name, _ := strings.Cut(rule, "=")
	index := slices.Index(verdictNames, name)
	if index < 0 {
		return fmt.Errorf("%q: want ENDING=VERDICT, with a verdict of %s", rule, strings.Join(verdictNames, ", "))
	}
	verdict := Verdict(index)
	switch what {
	case "signal":
		e.Signal = verdict
	case "timeout":
		e.Timeout = verdict
	case "memory":
		e.Memory = verdict
	default:
		low, high, isRange := strings.Cut(what, "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || from < 0 || to > 255 || from > to {
			return fmt.Errorf("%q: the ending must be an exit code or a range of them, from 0 to 255, or signal, timeout or memory", rule)
		}
		for code := from; code <= to; code++ {
			e.Codes[code] = verdict
		}
	}
	return nil
}

// outcome is how a command ended.
type outcome struct {
	verdict           Verdict
	reason            string // why it is not succeeded, for a person
	cause             cause  // the same, for metrics
	exitCode          *int   // nil when the command did not exit by itself
	output            content
	started, finished time.Time
}

// seconds that the command ran; 0 when it did not.
func (o outcome) seconds() float64 {
	if o.started.IsZero() {
		return 0
	}
	return o.finished.Sub(o.started).Seconds()
}

// judge decides by a command's exit code, or the signal that ended it (0: none).
func (e *Endings) judge(exitCode, signal int) (Verdict, string, cause) {
	if signal != 0 {
		return e.Signal, fmt.Sprintf("the command was killed by signal %d", signal), causeSignal
	}
	verdict, named := e.Codes[exitCode]
	if !named && exitCode != 0 {
		verdict = Fail
	}
	if verdict == Succeed {
		return verdict, "", causeNone
	}
	reason := fmt.Sprintf("the command exited with %d", exitCode)
	if verdict == Retry {
		reason += ", which asks for another attempt"
	}
	return verdict, reason, causeExit
}

// exhausted turns a wish for another attempt into a failure when that was the last.
func (o outcome) exhausted(attempt, maxAttempts int) outcome {
	if o.verdict == Retry && maxAttempts > 0 && attempt >= maxAttempts {
		o.verdict = Fail
		o.reason = fmt.Sprintf("%s; it was attempt %d of %d", o.reason, attempt, maxAttempts)
	}
	return o
}

// said appends what a command said to a reason.
func said(reason, text string) string {
	if text = strings.TrimSpace(text); text != "" {
		reason += ": " + text
	}
	return reason
}

// maxReasonBytes bounds a reason, which goes into headers and results that have bounds of their own.
const maxReasonBytes = 3 << 10

// printable makes a reason one that every encoding can hold, at a size that is known: valid UTF-8 without control characters but for line
// ends and tabs, cut in the middle.
func printable(reason string) string {
	reason = strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(reason, "?"))
	if len(reason) <= maxReasonBytes {
		return reason
	}
	const mark = " ... "
	head, tail := maxReasonBytes/3, len(reason)-(maxReasonBytes-maxReasonBytes/3-len(mark))
	for !utf8.RuneStart(reason[head]) {
		head--
	}
	for !utf8.RuneStart(reason[tail]) {
		tail++
	}
	return reason[:head] + mark + reason[tail:]
}
