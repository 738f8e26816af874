// Package rabbitmq reads the backlog of RabbitMQ queues.
//
// Ready messages and consumers come from a passive queue.declare, the only source that is live on every queue type;
// management statistics lag by up to five seconds on quorum queues and serve for what AMQP does not tell: unacknowledged
// messages, finished ones, and the type of a queue. All policies of one broker, virtual host and identity share a
// connection, on whose channels questions are asked side by side, and the samples of its queues.
package rabbitmq

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Config says what to read, with values resolved. It holds credentials.
type Config struct {
	Identity
	// ManagementURI is empty where the management API is not to be used.
	ManagementURI string
	// Queues whose figures are added up, or the pattern of their names.
	Queues  []string
	Pattern string
	// MessagesPerReplica is at least 1; 0 counts as 1.
	MessagesPerReplica int64
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
		Queues:             r.QueueNames(),
		Pattern:            r.QueuePattern,
		MessagesPerReplica: int64(spec.Target.MessagesPerReplica),
		FailIfMissing:      r.OnMissingQueue == v1alpha1.MissingQueueError,
		OtherConsumers:     int64(r.OtherConsumers),
		CountFinished:      spec.Target.DrainWithin != nil && spec.Target.ServiceTime == nil,
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

// Brokers shares connections, and samples of queues, among policies.
type Brokers struct {
	limits backlog.SampleBounds

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

// NewBrokers returns an opener of sources.
func NewBrokers(limits backlog.SampleBounds) *Brokers {
	return &Brokers{limits: limits, brokers: map[Identity]*broker{}, management: map[managementKey]*sharedManagement{}}
}

// Open returns a source that adds up queues. It does not connect yet.
func (b *Brokers) Open(config Config) (backlog.Source, error) {
	at, err := parseURIs(config.URI, config.Username, config.Password)
	if err != nil {
		return nil, err
	}
	for _, name := range config.Queues {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	tlsConfig, err := config.TLS.Config()
	if err != nil {
		return nil, err
	}
	s := &source{config: config, brokers: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	if config.ManagementURI != "" {
		key := managementKey{config.Identity, config.ManagementURI}
		shared := b.management[key]
		if shared == nil {
			m, err := newManagement(config, at.uris[0], b.limits)
			if err != nil {
				return nil, err
			}
			shared = &sharedManagement{management: m}
			b.management[key] = shared
		}
		shared.users++
		s.management = shared.management
		s.followed = s.management.follow(config.Queues, config.Pattern)
	}
	s.broker = b.brokers[config.Identity]
	if s.broker == nil {
		s.broker = newBroker(at, tlsConfig, b.limits)
		b.brokers[config.Identity] = s.broker
	}
	s.broker.users++
	s.use(config.Queues)
	return s, nil
}

// maxName is the longest name of a queue, in bytes: AMQP 0-9-1 has no room for a longer one, and a broker closes the connection on it.
const maxName = 255

func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("queue %.40q...: its name has %d bytes, and a queue's name has at most %d", name, len(name), maxName)
	case name == "" || !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return fmt.Errorf("queue %q: no queue has such a name", name)
	}
	return nil
}

// source is one policy's view of a broker.
type source struct {
	config     Config
	brokers    *Brokers
	broker     *broker
	management *management // nil: not used
	followed   int         // since which round the management API's answers have the source's queues
	queues     []*queue    // that are read; guarded by Brokers.mu, and replaced as a whole
	closed     bool        // guarded by Brokers.mu

	mu     sync.Mutex
	kinds  map[string]kind // of the queues that are listed
	listed time.Time       // when they were last looked at
}

// Observe implements backlog.Source. Of several samples the oldest is the observation's time.
func (s *source) Observe(ctx context.Context, maxAge time.Duration) (sizing.Observation, error) {
	o, err := s.observe(ctx, maxAge)
	if err != nil {
		return o, fmt.Errorf("broker %s: %w", s.broker.name, err)
	}
	return o, nil
}

func (s *source) observe(ctx context.Context, maxAge time.Duration) (sizing.Observation, error) {
	o := sizing.Observation{Source: s.broker.source}
	queues, kinds, err := s.look(ctx)
	if err != nil {
		return o, err
	}
	samples, err := s.sampleAll(ctx, queues, maxAge)
	if err != nil {
		return o, err
	}
	names := make([]string, len(queues))
	var atOnce int64 // how many consumers can work on the backlog
	single := false
	for i, sample := range samples {
		if names[i] = queues[i].name; o.Time.IsZero() || sample.Time.Before(o.Time) {
			o.Time, o.Trace = sample.Time, sample.Trace
		}
		q := sample.Value
		if q.missing && s.config.Pattern == "" {
			o.Missing = append(o.Missing, names[i])
			s.lookAgain() // it may be declared again as another kind
		}
		if q.unproven {
			if err := s.isListed(ctx, names[i]); err != nil {
				return o, err
			}
		}
		o.Ready += q.ready
		o.Consumers += q.consumers
		if kinds[names[i]].single {
			single = true
			atOnce += min(1, q.ready+q.consumers)
		} else {
			each := max(1, s.config.MessagesPerReplica)
			atOnce += (q.ready+each-1)/each + q.consumers
		}
	}
	if len(queues) == 0 {
		o.Time, o.Missing = s.brokers.limits.Now(), []string{s.config.Pattern}
	}
	if len(o.Missing) > 0 && s.config.FailIfMissing {
		return o, &backlog.MissingQueuesError{Names: o.Missing}
	}
	if single {
		o.Parallelism = max(1, atOnce)
	}
	o.Consumers = max(0, o.Consumers-s.config.OtherConsumers)
	if s.management != nil {
		s.addStatistics(ctx, names, &o)
		o.ManagementFailure = cmp.Or(o.ManagementFailure, s.management.failure())
	}
	return o, nil
}

// isListed returns an error for a queue that the management API does not list, although the broker says that it is there and empty: a quorum queue without
// a majority is told of in this way. While the API can't be asked the broker's word is all that there is.
func (s *source) isListed(ctx context.Context, queue string) error {
	if s.management == nil {
		return nil
	}
	list, err := s.management.queueTotals(ctx, s.followed)
	if err != nil {
		return nil // observe tells
	}
	if _, is := list.queues[queue]; !is {
		return fmt.Errorf("queue %q: it looks empty, and the management API does not list it: a quorum queue without a majority of its nodes: look at the broker's nodes, "+
			"or give the user the read permission on the queue", queue)
	}
	return nil
}

// addStatistics adds what the management API tells. One that fails costs accuracy of the idle reserve and of the service time, not the
// observation.
func (s *source) addStatistics(ctx context.Context, names []string, o *sizing.Observation) {
	// Only with nothing waiting do unacknowledged messages matter, so only then are they asked for; and to see a failure end.
	if o.Ready == 0 && o.Consumers > 0 || s.management.failure() != "" {
		if list, err := s.management.queueTotals(ctx, s.followed); err == nil {
			o.UnacknowledgedKnown = true
			for _, name := range names {
				total, listed := list.queues[name]
				if total.Unacknowledged != nil {
					o.Unacknowledged += *total.Unacknowledged
					continue
				}
				if slices.Contains(o.Missing, name) {
					continue
				}
				// A queue that is not seen is not one that holds nothing.
				o.UnacknowledgedKnown, o.Unacknowledged = false, 0
				o.ManagementFailure = unlisted(name, listed)
				break
			}
		}
	}
	if s.config.CountFinished {
		if finished, err := s.management.finishedMessages(ctx, s.followed); err == nil {
			for _, name := range names {
				if n, known := finished.queues[name]; known {
					if o.Finished == nil {
						o.Finished = map[string]int64{}
					}
					o.Finished[name] = n
				}
			}
		}
	}
}

// sampleAll returns samples of all queues, taken side by side.
func (s *source) sampleAll(ctx context.Context, queues []*queue, maxAge time.Duration) ([]backlog.Sample[queueState], error) {
	samples := make([]backlog.Sample[queueState], len(queues))
	var err error
	if len(samples) == 1 { // as nearly always
		samples[0], err = queues[0].samples.Get(ctx, maxAge)
		return samples, err
	}
	all, allCtx := errgroup.WithContext(ctx)
	for i, queue := range queues {
		all.Go(func() error {
			return s.brokers.limits.Guard(func() error {
				var err error
				samples[i], err = queue.samples.Get(allCtx, maxAge)
				return err
			})
		})
	}
	return samples, all.Wait()
}

// Close implements backlog.Source.
func (s *source) Close() error {
	b := s.brokers
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.management != nil {
		s.management.leave(s.config.Queues, s.config.Pattern)
		key := managementKey{s.config.Identity, s.config.ManagementURI}
		if shared := b.management[key]; shared != nil {
			if shared.users--; shared.users == 0 {
				delete(b.management, key)
				shared.client.CloseIdleConnections()
			}
		}
	}
	for _, queue := range s.queues {
		s.broker.leave(queue)
	}
	if s.broker.users--; s.broker.users == 0 {
		delete(b.brokers, s.config.Identity)
		s.broker.close()
	}
	return nil
}
