package backlog

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Cached is a value that is read again only when it is older than the caller accepts, and by one reader at a time however
// many ask. It is safe for concurrent use.
type Cached[T any] struct {
	bounds SampleBounds
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

// NewCached returns a value that read reads. A reading takes at most bounds.Timeout.
func NewCached[T any](bounds SampleBounds, read func(context.Context) (T, error)) *Cached[T] {
	return &Cached[T]{bounds: bounds, read: read}
}

// Get returns the value, younger than maxAge. An error is not kept: the next caller reads again.
func (f *Cached[T]) Get(ctx context.Context, maxAge time.Duration) (T, error) {
	return f.Recent(ctx, maxAge, maxAge)
}

// Recent is Get for callers who would rather have an older value than wait: one that is past maxAge but younger than tolerated
// is returned at once, while a newer one is read in the background.
func (f *Cached[T]) Recent(ctx context.Context, maxAge, tolerated time.Duration) (T, error) {
	f.mu.Lock()
	age, value := f.bounds.Now().Sub(f.readAt), f.value
	known := !f.readAt.IsZero() && age >= 0
	if known && age < maxAge {
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

func (f *Cached[T]) fly(ctx context.Context, current *flight[T]) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.bounds.Timeout, fmt.Errorf("no answer within %s", f.bounds.Timeout))
	defer cancel()
	readAt := f.bounds.Now()
	current.err = f.bounds.Guard(func() error {
		var err error
		current.value, err = f.read(ctx)
		return err
	})
	f.mu.Lock()
	if current.err == nil {
		f.value, f.readAt = current.value, readAt
	}
	f.flight = nil
	f.mu.Unlock()
	close(current.done)
}
