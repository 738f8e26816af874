package policy

import (
	"context"
	"errors"
	"math"
	"sync"
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

// config is what a kind of source is opened with.
type config[C any] interface{ Equal(other C) bool }

// resolved returns a source whose values are looked up when it is first used, and again from time to time.
func resolved[C config[C]](
	s *Sources, spec *v1alpha1.ScalingPolicySpec, values backlog.Values,
	resolve func(context.Context, *v1alpha1.ScalingPolicySpec, backlog.Values) (C, error), open func(C) (backlog.Source, error),
) backlog.Source {
	var last *C
	limits := backlog.SampleBounds{Timeout: resolveTimeout, Now: s.limits.Now}
	return &resolving[C]{open: open, configs: backlog.NewCached(limits, func(ctx context.Context) (C, error) {
		config, err := resolve(ctx, spec, values)
		switch {
		case err == nil:
			last = &config
		case last != nil: // while they can't be looked up, the last ones serve
			return *last, nil
		}
		return config, err
	})}
}

// resolving is a source whose credentials are looked up again from time to time.
type resolving[C config[C]] struct {
	configs *backlog.Cached[C]
	open    func(C) (backlog.Source, error)

	mu     sync.Mutex
	closed bool
	config C
	source backlog.Source // opened with config
}

// Observe implements backlog.Source.
func (r *resolving[C]) Observe(ctx context.Context, maxAge time.Duration) (sizing.Observation, error) {
	// Only the first look-up is waited for.
	config, err := r.configs.Recent(ctx, resolveEvery, math.MaxInt64)
	if err != nil {
		return sizing.Observation{}, err
	}
	source, err := r.current(config)
	if err != nil {
		return sizing.Observation{}, err
	}
	return source.Observe(ctx, maxAge)
}

// current is the source for a configuration.
func (r *resolving[C]) current(config C) (backlog.Source, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.New("a newer version of the policy is in force")
	}
	if r.source != nil && config.Equal(r.config) {
		return r.source, nil
	}
	source, err := r.open(config)
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
