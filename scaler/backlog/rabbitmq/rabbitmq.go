// Package rabbitmq reads the backlog of RabbitMQ queues.
//
// Ready messages and consumers come from a passive queue.declare, the only source that is live on every queue type;
// management statistics lag by up to five seconds on quorum queues and serve for what AMQP does not tell: unacknowledged
// messages, finished ones, and the type of a queue. All policies of one broker, virtual host and identity share a
// connection, on whose channels questions are asked side by side.
package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// Config says what to read, with values resolved. It holds credentials.
type Config struct {
	Identity
	// ManagementURI is empty where the management API is not to be used.
	ManagementURI string
	// Queues whose figures are added up.
	Queues []string
	// FailIfMissing makes a missing queue an error; otherwise it counts as empty.
	FailIfMissing bool
	// OtherConsumers are subtracted from the consumers seen.
	OtherConsumers int64
	// CountFinished asks for the number of acknowledged messages, too.
	CountFinished bool
}

// Identity is what a connection can be shared by: the same broker as the same user.
type Identity struct {
	// URI of the broker, of one host or several.
	URI string
	// Username and Password take the place of the URI's unless empty.
	Username, Password string
	TLS                backlog.TLS
}

// Resolve looks up what a policy refers to.
func Resolve(ctx context.Context, spec *v1alpha1.ScalingPolicySpec, values backlog.Values) (Config, error) {
	r := spec.Backlog.RabbitMQ
	c := Config{
		Queues:         r.QueueNames(),
		FailIfMissing:  r.OnMissingQueue == v1alpha1.MissingQueueError,
		OtherConsumers: int64(r.OtherConsumers),
		CountFinished:  spec.Target.DrainWithin != nil && spec.Target.ServiceTime == nil,
	}
	const field = "spec.backlog.rabbitmq."
	for _, value := range []struct {
		name   string
		source *v1alpha1.ValueSource
		text   *string
	}{
		{"uri", &r.URI, &c.URI}, {"username", r.Username, &c.Username}, {"password", r.Password, &c.Password},
		{"managementURI", r.ManagementURI, &c.ManagementURI},
	} {
		text, err := values(ctx, field+value.name, value.source)
		if err != nil {
			return c, err
		}
		*value.text = strings.TrimSpace(text)
	}
	var err error
	c.TLS, err = backlog.ResolveTLS(ctx, values, field+"tls", r.TLS)
	return c, err
}

// Brokers shares connections among readers.
type Brokers struct {
	limits backlog.Limits

	mu         sync.Mutex
	brokers    map[Identity]*broker
	management map[managementKey]*sharedManagement
}

type managementKey struct {
	Identity
	uri string
}

type sharedManagement struct {
	*management
	users int
}

// NewBrokers returns an opener of readers.
func NewBrokers(limits backlog.Limits) *Brokers {
	return &Brokers{limits: limits, brokers: map[Identity]*broker{}, management: map[managementKey]*sharedManagement{}}
}

// Open returns a reader for queues. It does not connect yet.
func (b *Brokers) Open(config Config) (backlog.Reader, error) {
	uris, err := parseURIs(config.URI, config.Username, config.Password)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := config.TLS.Config()
	if err != nil {
		return nil, err
	}
	r := &reader{config: config, brokers: b, missing: map[string]time.Time{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	if config.ManagementURI != "" {
		key := managementKey{config.Identity, config.ManagementURI}
		shared := b.management[key]
		if shared == nil {
			m, err := newManagement(config, uris[0].Vhost, uris[0].Username, uris[0].Password, b.limits)
			if err != nil {
				return nil, err
			}
			shared = &sharedManagement{management: m}
			b.management[key] = shared
		}
		shared.users++
		r.management = shared.management
	}
	r.broker = b.brokers[config.Identity]
	if r.broker == nil {
		r.broker = newBroker(uris, tlsConfig, b.limits)
		b.brokers[config.Identity] = r.broker
	}
	r.broker.users++
	return r, nil
}

// reader is one policy's view of a broker.
type reader struct {
	config     Config
	brokers    *Brokers
	broker     *broker
	management *management // nil: not used
	closing    sync.Once

	mu        sync.Mutex
	missing   map[string]time.Time // when a queue was found missing
	typesSeen time.Time            // when the queues were last seen to be none but queues
}

const (
	// askMissingAgain is how soon a queue that was missing is asked for again: the broker logs each such question as an
	// error, and closes a channel.
	askMissingAgain = 2 * time.Second
	// checkTypes is how often it is made sure that no queue is a stream.
	checkTypes = 5 * time.Minute
)

// Read implements backlog.Reader.
func (r *reader) Read(ctx context.Context) (target.Observation, error) {
	o, err := r.read(ctx)
	if err != nil {
		return o, fmt.Errorf("broker %s: %w", r.broker.address, err)
	}
	return o, nil
}

func (r *reader) read(ctx context.Context) (target.Observation, error) {
	o := target.Observation{Source: "rabbitmq " + r.broker.address}
	if err := r.refuseStreams(ctx); err != nil {
		return o, err
	}
	states, err := r.inspectAll(ctx)
	if err != nil {
		return o, err
	}
	for _, state := range states {
		o.Ready += state.ready
		o.Consumers += state.consumers
	}
	o.Consumers = max(0, o.Consumers-r.config.OtherConsumers)
	if r.management == nil {
		return o, nil
	}
	// A management API that fails costs accuracy of the idle reserve and of the service time, not the observation. Only
	// with nothing waiting do unacknowledged messages matter, so only then are they asked for.
	if o.Ready == 0 && o.Consumers > 0 {
		if queues, err := r.management.queueTotals(ctx); err == nil {
			o.UnacknowledgedKnown = true
			for _, name := range r.config.Queues {
				o.Unacknowledged += queues[name].Unacknowledged
			}
		}
	}
	if r.config.CountFinished {
		if finished, err := r.management.finishedMessages(ctx); err == nil {
			for _, name := range r.config.Queues {
				n, known := finished[name]
				o.Finished += n
				o.FinishedKnown = o.FinishedKnown || known
			}
		}
	}
	return o, nil
}

// inspectAll asks for all queues, side by side.
func (r *reader) inspectAll(ctx context.Context) ([]queueState, error) {
	states := make([]queueState, len(r.config.Queues))
	var err error
	if len(states) == 1 { // as nearly always
		states[0], err = r.inspect(ctx, r.config.Queues[0])
		return states, err
	}
	all, allCtx := errgroup.WithContext(ctx)
	for i, name := range r.config.Queues {
		all.Go(func() error {
			var err error
			states[i], err = r.inspect(allCtx, name)
			return err
		})
	}
	return states, all.Wait()
}

// inspect asks for a queue, unless it was missing a moment ago.
func (r *reader) inspect(ctx context.Context, name string) (queueState, error) {
	now := r.brokers.limits.Now()
	r.mu.Lock()
	missing := now.Sub(r.missing[name]) < askMissingAgain
	r.mu.Unlock()
	var state queueState
	err := errMissing
	if !missing {
		state, err = r.broker.inspect(ctx, name)
		r.mu.Lock()
		delete(r.missing, name)
		if errors.Is(err, errMissing) {
			r.missing[name] = now
		}
		r.mu.Unlock()
	}
	if errors.Is(err, errMissing) {
		if !r.config.FailIfMissing {
			return queueState{}, nil
		}
		return state, fmt.Errorf("queue %q: %w: declare it, or set onMissingQueue to Zero", name, errMissing)
	}
	return state, err
}

// refuseStreams makes sure, now and then, that no queue is a stream: a stream's length says nothing of what its consumers
// have still to read.
func (r *reader) refuseStreams(ctx context.Context) error {
	now := r.brokers.limits.Now()
	if r.management == nil || now.Sub(r.typesSeen) < checkTypes {
		return nil
	}
	queues, err := r.management.queueTotals(ctx)
	if err != nil {
		return nil // see read
	}
	known := 0
	for _, name := range r.config.Queues {
		switch queues[name].Type {
		case "stream":
			return fmt.Errorf("queue %q is a stream, whose length is not a backlog: consume from a classic or quorum queue, or "+
				"scale on the consumers' offset lag with the source prometheus", name)
		case "":
		default:
			known++
		}
	}
	if known == len(r.config.Queues) { // one that is not declared yet may become a stream
		r.typesSeen = now
	}
	return nil
}

// Close implements backlog.Reader.
func (r *reader) Close() error {
	r.closing.Do(func() {
		b := r.brokers
		b.mu.Lock()
		defer b.mu.Unlock()
		if r.management != nil {
			key := managementKey{r.config.Identity, r.config.ManagementURI}
			if shared := b.management[key]; shared != nil {
				if shared.users--; shared.users == 0 {
					delete(b.management, key)
					shared.client.CloseIdleConnections()
				}
			}
		}
		if r.broker.users--; r.broker.users == 0 {
			delete(b.brokers, r.config.Identity)
			r.broker.close()
		}
	})
	return nil
}

// Equal reports whether two configurations read the same in the same way.
func (c Config) Equal(other Config) bool {
	return c.Identity == other.Identity && c.ManagementURI == other.ManagementURI && slices.Equal(c.Queues, other.Queues) &&
		c.FailIfMissing == other.FailIfMissing && c.OtherConsumers == other.OtherConsumers && c.CountFinished == other.CountFinished
}
