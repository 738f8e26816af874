package backlog

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Fresh is a value that is read again only when it is older than a maximum age, and by one reader at a time however many
// ask for it. It is safe for concurrent use.
type Fresh[T any] struct {
	maxAge time.Duration
	limits Limits
	read   func(context.Context) (T, error)

	mu     sync.Mutex
	value  T
	readAt time.Time // zero: never
	flight *flight[T]
}

// flight is one reading that any number of callers wait for.
type flight[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// NewFresh returns a value that read reads. A reading takes at most limits.Timeout.
func NewFresh[T any](maxAge time.Duration, limits Limits, read func(context.Context) (T, error)) *Fresh[T] {
	return &Fresh[T]{maxAge: maxAge, limits: limits, read: read}
}

// Get returns the value, not older than its maximum age. An error is not kept: the next caller reads again.
func (f *Fresh[T]) Get(ctx context.Context) (T, error) { return f.Recent(ctx, f.maxAge) }

// Recent is Get for callers who can do with an older value: one that is past its maximum age but younger than tolerated is
// returned at once, while a newer one is read in the background.
func (f *Fresh[T]) Recent(ctx context.Context, tolerated time.Duration) (T, error) {
	f.mu.Lock()
	age, value := f.limits.Now().Sub(f.readAt), f.value
	known := !f.readAt.IsZero() && age >= 0
	if known && age < f.maxAge {
		f.mu.Unlock()
		return value, nil
	}
	current := f.flight
	if current == nil {
		current = &flight[T]{done: make(chan struct{})}
		f.flight = current
		// The reading outlives a caller that gives up: others may be waiting for it.
		go f.fly(context.WithoutCancel(ctx), current)
	}
	f.mu.Unlock()
	if known && age < tolerated {
		return value, nil
	}
	select {
	case <-current.done:
		return current.value, current.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

func (f *Fresh[T]) fly(ctx context.Context, current *flight[T]) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.limits.Timeout, fmt.Errorf("no answer within %s", f.limits.Timeout))
	defer cancel()
	readAt := f.limits.Now()
	current.value, current.err = f.read(ctx)
	f.mu.Lock()
	if current.err == nil {
		f.value, f.readAt = current.value, readAt
	}
	f.flight = nil
	f.mu.Unlock()
	close(current.done)
}
