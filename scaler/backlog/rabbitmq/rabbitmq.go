// Package rabbitmq reads the backlog of RabbitMQ queues.
//
// Ready messages and consumers come from a passive queue.declare, the only source that is live on every queue type;
// management statistics lag by up to five seconds on quorum queues and serve for unacknowledged messages alone. All
// sources of one broker and identity share a connection, however many policies use it.
package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// Queues says what to read. URIs hold credentials.
type Queues struct {
	// URI of the broker: amqp://user:password@host:port/vhost.
	URI string
	// ManagementURI is empty where the management API is not to be used.
	ManagementURI string
	// Names of the queues, whose figures are added up.
	Names []string
	// FailIfMissing makes a missing queue an error; otherwise it counts as empty.
	FailIfMissing bool
	// OtherConsumers are subtracted from the consumers seen.
	OtherConsumers int64
}

// Brokers shares connections among sources.
type Brokers struct {
	maxAge  time.Duration
	timeout time.Duration
	now     func() time.Time

	mu      sync.Mutex
	brokers map[string]*broker // by URI
}

// NewBrokers returns sources whose samples are at most maxAge old and take at most timeout to make.
func NewBrokers(maxAge, timeout time.Duration, now func() time.Time) *Brokers {
	return &Brokers{maxAge: maxAge, timeout: timeout, now: now, brokers: map[string]*broker{}}
}

// Open returns a source for queues. It does not connect yet.
func (b *Brokers) Open(queues Queues) (backlog.Source, error) {
	uri, err := amqp.ParseURI(queues.URI)
	if err != nil {
		return nil, fmt.Errorf("the broker's URI must look like amqp://user:password@host:5672/vhost: %w", withoutURI(err))
	}
	s := &source{queues: queues, brokers: b, address: net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port))}
	if queues.ManagementURI != "" {
		if s.management, err = newManagement(queues.ManagementURI, uri.Vhost); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.broker = b.brokers[queues.URI]
	if s.broker == nil {
		s.broker = &broker{uri: queues.URI, timeout: b.timeout}
		b.brokers[queues.URI] = s.broker
	}
	s.broker.users++
	return s, nil
}

// withoutURI drops the URI, and with it the password, from an error of package url.
func withoutURI(err error) error {
	var parse *url.Error
	if errors.As(err, &parse) {
		return parse.Err
	}
	return err
}

// source is one policy's view of a broker.
type source struct {
	queues     Queues
	brokers    *Brokers
	broker     *broker
	management *management
	address    string

	mu     sync.Mutex
	last   target.Observation
	flight *flight // the sample under way, if any
	closed bool
}

// flight is one sample that any number of callers wait for.
type flight struct {
	done        chan struct{}
	observation target.Observation
	err         error
}

// Observe implements backlog.Source. Callers that come while a sample is fresh are answered from memory; those that
// come while one is being made wait for it.
func (s *source) Observe(ctx context.Context) (target.Observation, error) {
	s.mu.Lock()
	if !s.last.Time.IsZero() && s.brokers.now().Sub(s.last.Time) < s.brokers.maxAge {
		defer s.mu.Unlock()
		return s.last, nil
	}
	f := s.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flight = f
		// The sample outlives a caller that gives up: others may be waiting for it.
		go s.sample(context.WithoutCancel(ctx), f)
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.observation, f.err
	case <-ctx.Done():
		return target.Observation{}, fmt.Errorf("broker %s: %w", s.address, context.Cause(ctx))
	}
}

func (s *source) sample(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.brokers.timeout, fmt.Errorf("no answer within %s", s.brokers.timeout))
	defer cancel()
	f.observation, f.err = s.read(ctx)
	if f.err != nil {
		f.err = fmt.Errorf("broker %s: %w", s.address, f.err)
	}
	s.mu.Lock()
	if f.err == nil {
		s.last = f.observation
	}
	s.flight = nil
	s.mu.Unlock()
	close(f.done)
}

func (s *source) read(ctx context.Context) (target.Observation, error) {
	// The time before the question: the answer may be newer than it claims, never older.
	o := target.Observation{Time: s.brokers.now()}
	for _, name := range s.queues.Names {
		state, err := s.broker.inspect(ctx, name)
		if errors.Is(err, errMissing) && !s.queues.FailIfMissing {
			continue
		}
		if err != nil {
			return o, err
		}
		o.Ready += int64(state.Messages)
		o.Consumers += int64(state.Consumers)
	}
	o.Consumers = max(0, o.Consumers-s.queues.OtherConsumers)
	// Only with nothing waiting do unacknowledged messages matter, so only then are they asked for.
	if s.management != nil && o.Ready == 0 && o.Consumers > 0 {
		// A management API that fails costs accuracy of the idle reserve, not the observation.
		if n, err := s.management.unacknowledged(ctx, s.queues.Names); err == nil {
			o.Unacknowledged, o.UnacknowledgedKnown = n, true
		}
	}
	return o, nil
}

// Close implements backlog.Source.
func (s *source) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.brokers.mu.Lock()
	s.broker.users--
	unused := s.broker.users == 0
	if unused {
		delete(s.brokers.brokers, s.queues.URI)
	}
	s.brokers.mu.Unlock()
	if unused {
		return s.broker.close()
	}
	return nil
}

var errMissing = errors.New("there is no such queue")

// broker is one connection, shared by sources, with a channel for passive declarations.
type broker struct {
	uri     string
	timeout time.Duration
	users   int // guarded by Brokers.mu

	mu         sync.Mutex // one question at a time; a declaration takes a millisecond
	connection *amqp.Connection
	channel    *amqp.Channel
	retryAt    time.Time
	failures   int
	lastErr    error
}

// inspect asks for a queue's ready messages and consumers.
func (b *broker) inspect(ctx context.Context, name string) (amqp.Queue, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return amqp.Queue{}, context.Cause(ctx)
	}
	if err := b.open(ctx); err != nil {
		return amqp.Queue{}, err
	}
	type answer struct {
		queue amqp.Queue
		err   error
	}
	// The client library has no deadline for a call: closing the connection is what ends one.
	answers, channel := make(chan answer, 1), b.channel
	go func() {
		queue, err := channel.QueueDeclarePassive(name, false, false, false, false, nil)
		answers <- answer{queue, err}
	}()
	select {
	case a := <-answers:
		if a.err == nil {
			return a.queue, nil
		}
		return amqp.Queue{}, b.explain(name, a.err)
	case <-ctx.Done():
		b.drop()
		return amqp.Queue{}, fmt.Errorf("queue %q: %w", name, context.Cause(ctx))
	}
}

// explain turns a failed declaration into an error for a person. Any failure closes the channel.
func (b *broker) explain(name string, err error) error {
	b.channel = nil
	var failure *amqp.Error
	if !errors.As(err, &failure) {
		b.drop()
		return fmt.Errorf("queue %q: %w", name, err)
	}
	switch failure.Code {
	case amqp.NotFound:
		return fmt.Errorf("queue %q: %w: declare it, or set onMissingQueue to Zero", name, errMissing)
	case amqp.AccessRefused:
		return fmt.Errorf("queue %q: the broker refuses access; the user needs the configure permission on it: %s",
			name, failure.Reason)
	case amqp.ResourceLocked:
		return fmt.Errorf("queue %q is exclusive to another connection and can't be scaled on", name)
	default:
		b.drop()
		return fmt.Errorf("queue %q: %s (%d)", name, failure.Reason, failure.Code)
	}
}

const maxBackoff = 15 * time.Second

// open makes sure of a connection and a channel. After a failure it waits before it tries again, longer each time, and
// answers with that failure meanwhile.
func (b *broker) open(ctx context.Context) error {
	if b.connection != nil && b.connection.IsClosed() {
		b.drop()
	}
	if b.connection == nil {
		if wait := time.Until(b.retryAt); wait > 0 {
			return fmt.Errorf("%w; next attempt in %s", b.lastErr, wait.Round(100*time.Millisecond))
		}
		if err := b.dial(ctx); err != nil {
			b.failures++
			backoff := min(maxBackoff, 250*time.Millisecond<<min(b.failures, 10))
			b.retryAt, b.lastErr = time.Now().Add(jitter(backoff)), err
			return err
		}
		b.failures = 0
	}
	if b.channel == nil || b.channel.IsClosed() {
		channel, err := b.connection.Channel()
		if err != nil {
			b.drop()
			return fmt.Errorf("open a channel: %w", err)
		}
		b.channel = channel
	}
	return nil
}

func (b *broker) dial(ctx context.Context) error {
	config := amqp.Config{
		Heartbeat:  10 * time.Second,
		Properties: amqp.Table{"connection_name": "ebbtide-scaler", "product": "ebbtide"},
		Dial: func(network, address string) (net.Conn, error) {
			connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			// Bounds the handshake; the library clears it afterwards.
			deadline, ok := ctx.Deadline()
			if !ok {
				deadline = time.Now().Add(b.timeout)
			}
			return connection, connection.SetDeadline(deadline)
		},
	}
	connection, err := amqp.DialConfig(b.uri, config)
	if err != nil {
		return fmt.Errorf("connect: %s", strings.TrimSpace(withoutURI(err).Error()))
	}
	b.connection = connection
	return nil
}

// drop gives the connection up.
func (b *broker) drop() {
	if b.connection != nil {
		go b.connection.Close() // may wait for a broker that does not answer
	}
	b.connection, b.channel = nil, nil
}

func (b *broker) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.connection == nil {
		return nil
	}
	err := b.connection.Close()
	b.connection, b.channel = nil, nil
	if errors.Is(err, amqp.ErrClosed) {
		return nil
	}
	return err
}
