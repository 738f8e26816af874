// Package backlog reads how much work waits. Each of its subpackages knows one kind of broker.
//
// A new kind is a package with a Config, a Resolve and an Open, and a line in package policy that names them; what all
// kinds need (sharing of fresh samples, time limits, credentials that rotate) is done here and there once.
package backlog

import (
	"context"
	"time"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// Source reads the backlog of one policy. It is safe for concurrent use.
type Source interface {
	// Observe returns the backlog as it is now, or as it was at most the source's maximum age ago. It honours ctx. Its
	// errors tell a person what to do; they hold no credentials.
	Observe(ctx context.Context) (target.Observation, error)
	// Close gives back what the source holds.
	Close() error
}

// Reader reads a backlog from its broker each time it is asked to; it leaves the observation's time to its caller. One
// Read at a time is under way; Close may come during one.
type Reader interface {
	Read(ctx context.Context) (target.Observation, error)
	Close() error
}

// Values resolves a value that a policy refers to; field is its place in the policy, for the error. A nil value is "".
type Values func(ctx context.Context, field string, value *v1alpha1.ValueSource) (string, error)

// Limits are the bounds of all sampling.
type Limits struct {
	// MaxAge is how old a sample may be that is answered with.
	MaxAge time.Duration
	// Timeout bounds the making of a sample.
	Timeout time.Duration
	Now     func() time.Time
}

// NewSource makes a source of a reader: callers that come while a sample is fresh are answered from memory, and those
// that come while one is being made wait for it.
func NewSource(reader Reader, limits Limits) Source {
	read := func(ctx context.Context) (target.Observation, error) {
		// The time before the question: the answer may be newer than it claims, never older.
		at := limits.Now()
		o, err := traced(ctx, reader.Read)
		o.Time = at
		return o, err
	}
	return &source{reader, NewFresh(limits.MaxAge, limits, read)}
}

type source struct {
	reader Reader
	sample *Fresh[target.Observation]
}

func (s *source) Observe(ctx context.Context) (target.Observation, error) { return s.sample.Get(ctx) }

func (s *source) Close() error { return s.reader.Close() }
