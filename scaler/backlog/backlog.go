// Package backlog reads how much work waits. Each of its subpackages knows one kind of broker.
//
// A new kind is a package with a Config, a Resolve and an Open, and a line in package policy that names them; what all
// kinds need (sharing of fresh samples, time bounds, credentials that rotate) is done here and there once.
package backlog

import (
	"context"
	"time"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Source reads the backlog of one policy. It is safe for concurrent use.
type Source interface {
	// Observe returns the backlog as it is now, or as it was less than maxAge ago. It honours ctx. Its errors tell a person
	// what to do; they hold no credentials.
	Observe(ctx context.Context, maxAge time.Duration) (sizing.Observation, error)
	// Close releases what the source holds.
	Close() error
}

// Reader reads a backlog from its broker each time it is asked to; it leaves the observation's time and trace to its caller.
// One Read at a time is under way; Close may come during one.
type Reader interface {
	Read(ctx context.Context) (sizing.Observation, error)
	Close() error
}

// UnresolvedError is that of a value that a policy refers to and that can't be found.
type UnresolvedError struct {
	// Field of the policy, and what is wrong with what it refers to.
	Field string
	Err   error
}

// Error implements error.
func (e *UnresolvedError) Error() string { return e.Field + "." + e.Err.Error() }

// Unwrap is for package errors.
func (e *UnresolvedError) Unwrap() error { return e.Err }

// MissingQueuesError is that of queues that do not exist, in the broker's own word, where that counts as an error.
type MissingQueuesError struct{ Names []string }

// Error implements error.
func (e *MissingQueuesError) Error() string {
	return sizing.QueuesDoNotExist(e.Names) + ": declare it, correct the name, or set onMissingQueue to Zero"
}

// Values resolves a value that a policy refers to; field is its place in the policy, for the error. A nil value is "".
type Values func(ctx context.Context, field string, value *v1alpha1.ValueSource) (string, error)

// SampleBounds bound the taking of a sample.
type SampleBounds struct {
	// Timeout bounds the making of a sample.
	Timeout time.Duration
	Now     func() time.Time
	// OnPanic is told of a panic that was turned into an error, while its stack is there. It may be nil.
	OnPanic func(cause any)
}

// Sample is what a broker answered to a question.
type Sample[T any] struct {
	Value T
	// Time before the question: the answer may be newer than it claims, never older.
	Time time.Time
	// Trace is the W3C traceparent of the question, empty when it is not traced.
	Trace string
}

// NewSampler returns samples that read takes: callers that can do with the last one are answered from memory, and those that
// come while one is being taken wait for it.
func NewSampler[T any](bounds SampleBounds, read func(context.Context) (T, error)) *Cached[Sample[T]] {
	return NewCached(bounds, func(ctx context.Context) (Sample[T], error) {
		sample := Sample[T]{Time: bounds.Now()}
		var err error
		sample.Value, sample.Trace, err = traced(ctx, read)
		return sample, err
	})
}

// NewSource makes a source of a reader, with a sampler of its own.
func NewSource(reader Reader, bounds SampleBounds) Source {
	return &source{reader, NewSampler(bounds, reader.Read)}
}

type source struct {
	reader  Reader
	samples *Cached[Sample[sizing.Observation]]
}

func (s *source) Observe(ctx context.Context, maxAge time.Duration) (sizing.Observation, error) {
	sample, err := s.samples.Get(ctx, maxAge)
	o := sample.Value
	o.Time, o.Trace = sample.Time, sample.Trace
	return o, err
}

func (s *source) Close() error { return s.reader.Close() }
