package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// resolveEvery is how soon a rotated credential is taken up.
const resolveEvery = 15 * time.Second

// Sources opens the sources that policies name.
type Sources struct {
	RabbitMQ *rabbitmq.Brokers
	Now      func() time.Time
}

// Open implements Opener. Nothing is resolved or connected yet: a Secret may come after its policy.
func (s Sources) Open(namespace string, spec v1alpha1.Backlog, resolver Resolver) backlog.Source {
	return &resolving{now: s.Now, open: func(ctx context.Context) (rabbitmq.Queues, error) {
		return resolveRabbitMQ(ctx, namespace, spec.RabbitMQ, resolver)
	}, brokers: s.RabbitMQ}
}

func resolveRabbitMQ(
	ctx context.Context, namespace string, spec *v1alpha1.RabbitMQBacklog, resolver Resolver,
) (rabbitmq.Queues, error) {
	queues := rabbitmq.Queues{
		Names:          spec.QueueNames(),
		FailIfMissing:  spec.OnMissingQueue == v1alpha1.MissingQueueError,
		OtherConsumers: int64(spec.OtherConsumers),
	}
	uri, err := resolver.Resolve(ctx, namespace, spec.URI)
	if err != nil {
		return queues, fmt.Errorf("spec.backlog.rabbitmq.uri.%w", err)
	}
	queues.URI = strings.TrimSpace(uri)
	if spec.ManagementURI != nil {
		if uri, err = resolver.Resolve(ctx, namespace, *spec.ManagementURI); err != nil {
			return queues, fmt.Errorf("spec.backlog.rabbitmq.managementURI.%w", err)
		}
		queues.ManagementURI = strings.TrimSpace(uri)
	}
	return queues, nil
}

// resolving is a source whose credentials are looked up again from time to time.
type resolving struct {
	now     func() time.Time
	open    func(context.Context) (rabbitmq.Queues, error)
	brokers *rabbitmq.Brokers

	mu         sync.Mutex
	closed     bool
	resolvedAt time.Time
	queues     rabbitmq.Queues
	source     backlog.Source
}

// Observe implements backlog.Source.
func (r *resolving) Observe(ctx context.Context) (target.Observation, error) {
	source, err := r.current(ctx)
	if err != nil {
		return target.Observation{}, err
	}
	return source.Observe(ctx)
}

// current is the source for the credentials of the moment. While they can't be looked up, the last ones serve.
func (r *resolving) current(ctx context.Context) (backlog.Source, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("a newer version of the policy is in force")
	}
	if r.source != nil && r.now().Sub(r.resolvedAt) < resolveEvery {
		return r.source, nil
	}
	queues, err := r.open(ctx)
	if err != nil {
		if r.source != nil {
			return r.source, nil
		}
		return nil, err
	}
	r.resolvedAt = r.now()
	if r.source != nil && queues.URI == r.queues.URI && queues.ManagementURI == r.queues.ManagementURI {
		return r.source, nil
	}
	source, err := r.brokers.Open(queues)
	if err != nil {
		return nil, err
	}
	if r.source != nil {
		_ = r.source.Close() // its connection is of no more use
	}
	r.queues, r.source = queues, source
	return source, nil
}

// Close implements backlog.Source.
func (r *resolving) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.source == nil {
		return nil
	}
	return r.source.Close()
}
