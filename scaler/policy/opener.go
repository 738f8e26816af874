package policy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog/kafka"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog/prometheus"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const (
	// resolveEvery is how soon a rotated credential, or a changed file of holidays, is taken up.
	resolveEvery = 15 * time.Second
	// resolveTimeout bounds the look-up of a value.
	resolveTimeout = 5 * time.Second
)

// Sources opens the sources that policies name.
type Sources struct {
	limits   backlog.SampleBounds
	rabbitmq *rabbitmq.Brokers
}

// NewSources returns sources whose samples are taken within limits.
func NewSources(limits backlog.SampleBounds) *Sources {
	return &Sources{limits: limits, rabbitmq: rabbitmq.NewBrokers(limits)}
}

// Open implements Opener. Nothing is resolved or connected yet: a Secret may come after its policy. A new kind of source
// is a line here.
func (s *Sources) Open(spec *v1alpha1.ScalingPolicySpec, values backlog.Values) backlog.Source {
	switch b := spec.Backlog; {
	case b.Kafka != nil:
		return resolved(s, spec, values, kafka.Resolve, sampled(s, kafka.Open))
	case b.Prometheus != nil:
		return resolved(s, spec, values, prometheus.Resolve, sampled(s, prometheus.Open))
	default:
		return resolved(s, spec, values, rabbitmq.Resolve, s.rabbitmq.Open)
	}
}

// sampled makes sources of a kind's readers.
func sampled[C any](s *Sources, open func(C) (backlog.Reader, error)) func(C) (backlog.Source, error) {
	return func(config C) (backlog.Source, error) {
		reader, err := open(config)
		if err != nil {
			return nil, err
		}
		return backlog.NewSource(reader, s.limits), nil
	}
}

// resolution is what a policy refers to, as it was looked up.
type resolution[C any] struct {
	config *C
	// failure is why it could not be looked up again; empty if it could.
	failure string
}

// resolved returns a source whose values are looked up when it is first used, and again from time to time.
func resolved[C any](
	s *Sources, spec *v1alpha1.ScalingPolicySpec, values backlog.Values,
	resolve func(context.Context, *v1alpha1.ScalingPolicySpec, backlog.Values) (C, error), open func(C) (backlog.Source, error),
) backlog.Source {
	var last *C
	limits := s.limits
	limits.Timeout = resolveTimeout
	r := &resolving[C]{open: open}
	r.resolutions = backlog.NewCached(limits, func(ctx context.Context) (resolution[C], error) {
		if r.failed.Load() {
			ctx = context.WithValue(ctx, freshKey{}, true)
		}
		config, err := resolve(ctx, spec, bounded(values))
		switch {
		case err == nil && last != nil && reflect.DeepEqual(*last, config): // which saves to compare them with every poll
		case err == nil:
			last = &config
		case last != nil: // while they can't be looked up, the last ones serve
			return resolution[C]{config: last, failure: err.Error()}, nil
		}
		return resolution[C]{config: last}, err
	})
	return r
}

// maxValue bounds, in bytes, what a policy refers to: a URI, a password, the certificates of some authorities.
const maxValue = 64 << 10

// bounded refuses values that are too large to be what they should.
func bounded(values backlog.Values) backlog.Values {
	return func(ctx context.Context, field string, value *v1alpha1.ValueSource) (string, error) {
		text, err := values(ctx, field, value)
		if err == nil && len(text) > maxValue {
			return "", fmt.Errorf("%s: it has %d bytes: at most %d are allowed", field, len(text), maxValue)
		}
		return text, err
	}
}

// resolving is a source whose credentials are looked up again from time to time.
type resolving[C any] struct {
	resolutions *backlog.Cached[resolution[C]]
	open        func(C) (backlog.Source, error)
	failed      atomic.Bool // the last observation failed: its credentials may have been rotated

	mu     sync.Mutex
	closed bool
	config *C
	source backlog.Source // opened with config
}

// Observe implements backlog.Source.
func (r *resolving[C]) Observe(ctx context.Context, maxAge time.Duration) (sizing.Observation, error) {
	every := resolveEvery
	if r.failed.Load() {
		every = objectAge
	}
	// Only the first look-up is waited for.
	resolved, err := r.resolutions.Recent(ctx, every, math.MaxInt64)
	if err != nil {
		return sizing.Observation{}, err
	}
	source, err := r.current(resolved.config)
	if err != nil {
		return sizing.Observation{}, err
	}
	o, err := source.Observe(ctx, maxAge)
	r.failed.Store(err != nil)
	o.CredentialsFailure = resolved.failure
	return o, err
}

// current is the source for a configuration.
func (r *resolving[C]) current(config *C) (backlog.Source, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.New("a newer version of the policy is in force")
	}
	if r.source != nil && config == r.config {
		return r.source, nil
	}
	source, err := r.open(*config)
	if err != nil {
		return nil, err
	}
	if r.source != nil {
		_ = r.source.Close() // its connection is of no more use
	}
	r.config, r.source = config, source
	return source, nil
}

// Close implements backlog.Source.
func (r *resolving[C]) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.source == nil {
		return nil
	}
	return r.source.Close()
}
