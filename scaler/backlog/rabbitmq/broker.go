package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

const (
	// channelsPerConnection is how many questions are asked side by side. A channel answers one at a time; a declaration
	// takes a broker less than a millisecond.
	channelsPerConnection = 16
	// patience is how long a question keeps others from the channel's place: hundreds of times what an answer takes.
	patience = 200 * time.Millisecond
	// owingFor is how long a queue is not asked again that has not answered.
	owingFor = time.Minute
	// askMissingAgain is how soon a queue that was missing is asked for again: the broker logs each such question as an
	// error, and closes a channel.
	askMissingAgain = 2 * time.Second
	maxBackoff      = 15 * time.Second
	heartbeat       = 10 * time.Second
)

// queueState is what a passive declaration tells.
type queueState struct {
	ready, consumers int64
	missing          bool // there is no such queue
}

// queue is sampled for all policies that read it.
type queue struct {
	name    string
	samples *backlog.Cached[backlog.Sample[queueState]]
	users   int // guarded by Brokers.mu
}

// broker is one connection, shared by policies, that is made anew when it breaks.
type broker struct {
	uris    []amqp.URI
	address string // names the broker in errors
	source  string // and in observations
	tls     *tls.Config
	limits  backlog.SampleBounds
	users   int               // guarded by Brokers.mu
	queues  map[string]*queue // guarded by Brokers.mu

	mu         sync.Mutex
	connection *connection   // nil: none
	dialing    chan struct{} // closed when the dial under way ends; nil: none is
	dialErr    error         // of the last dial
	retryAt    time.Time
	failures   int
	host       int // index of the URI that is tried next
	closed     bool
}

func newBroker(uris []amqp.URI, tlsConfig *tls.Config, limits backlog.SampleBounds) *broker {
	hosts := make([]string, len(uris))
	for i, uri := range uris {
		hosts[i] = net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
	}
	address := strings.Join(hosts, ",")
	return &broker{
		uris: uris, address: address, source: "rabbitmq " + address, tls: tlsConfig, limits: limits, queues: map[string]*queue{},
	}
}

// use returns a queue, to be left by leave. Brokers.mu is held, as it is for leave.
func (b *broker) use(name string) *queue {
	q := b.queues[name]
	if q == nil {
		var missingAt time.Time // one question is under way at a time
		q = &queue{name: name, samples: backlog.NewSampler(b.limits, func(ctx context.Context) (queueState, error) {
			now := b.limits.Now()
			if now.Sub(missingAt) < askMissingAgain {
				return queueState{missing: true}, nil
			}
			state, err := b.inspect(ctx, name)
			missingAt = time.Time{}
			if state.missing {
				missingAt = now
			}
			return state, err
		})}
		b.queues[name] = q
	}
	q.users++
	return q
}

func (b *broker) leave(q *queue) {
	if q.users--; q.users == 0 {
		delete(b.queues, q.name)
	}
}

// connection is an open one, with a fixed number of channels that are opened when they are first needed.
type connection struct {
	*amqp.Connection
	slots   chan *amqp.Channel // nil: not open
	answers atomic.Int64       // how many came

	mu   sync.Mutex
	owes map[string]time.Time // when queues were given up that have not answered yet
}

// owing says whether a queue has still to answer a question of the last minute.
func (c *connection) owing(queue string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	given, is := c.owes[queue]
	return is && now.Sub(given).Abs() < owingFor
}

// abandon lets go of a question that may be answered at some time. Until then the queue is rarely asked: each question holds a channel,
// and there is an end to these.
func (c *connection) abandon(queue string, now time.Time, answer func() *amqp.Channel) {
	c.mu.Lock()
	c.owes[queue] = now
	c.mu.Unlock()
	go func() {
		if channel := answer(); channel != nil {
			_ = channel.Close() // it has outlived its use
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.owes, queue)
	}()
}

// inspect asks for a queue's ready messages and consumers, or whether there is none.
func (b *broker) inspect(ctx context.Context, name string) (queueState, error) {
	c, err := b.connect(ctx)
	if err != nil {
		return queueState{}, err
	}
	if c.owing(name, b.limits.Now()) {
		return queueState{}, fmt.Errorf("queue %q: it does not answer, though its broker does: look at the queue's state and its leader", name)
	}
	var channel *amqp.Channel
	select {
	case channel = <-c.slots:
	case <-ctx.Done():
		return queueState{}, fmt.Errorf("queue %q: %w", name, context.Cause(ctx))
	}
	type answer struct {
		queue   amqp.Queue
		channel *amqp.Channel
		err     error
	}
	// The client library has no deadline for a call, so it is left alone with it when the time is over.
	answers, before := make(chan answer, 1), c.answers.Load()
	go func() {
		a := answer{channel: channel}
		if a.channel == nil || a.channel.IsClosed() {
			a.channel, a.err = c.Channel()
		}
		if a.err == nil {
			a.queue, a.err = a.channel.QueueDeclarePassive(name, false, false, false, false, nil)
		}
		answers <- a
	}()
	// The slot goes back with what was answered on, or without it when the answer is late, for questions about other queues.
	var late bool
	giveBack := func(channel *amqp.Channel) {
		switch {
		case !late:
			c.slots <- channel
		case channel != nil:
			go func() { _ = channel.Close() }()
		}
	}
	waited := time.NewTimer(patience)
	defer waited.Stop()
	for {
		select {
		case <-waited.C:
			giveBack(nil)
			late = true
		case a := <-answers:
			c.answers.Add(1)
			if a.err != nil {
				giveBack(nil) // a channel is closed by what failed on it
				return b.explain(c, name, a.err)
			}
			giveBack(a.channel)
			return queueState{ready: int64(a.queue.Messages), consumers: int64(a.queue.Consumers)}, nil
		case <-ctx.Done():
			if c.answers.Load() == before { // nobody was answered meanwhile: the broker hangs, not the queue
				b.drop(c)
			} else {
				giveBack(nil)
				c.abandon(name, b.limits.Now(), func() *amqp.Channel { return (<-answers).channel })
			}
			return queueState{}, fmt.Errorf("queue %q: %w", name, context.Cause(ctx))
		}
	}
}

// explain turns a failed declaration into a state, or an error for a person.
func (b *broker) explain(c *connection, name string, err error) (queueState, error) {
	var failure *amqp.Error
	if !errors.As(err, &failure) {
		b.drop(c)
		return queueState{}, fmt.Errorf("queue %q: %w", name, err)
	}
	switch failure.Code {
	case amqp.NotFound:
		return queueState{missing: true}, nil
	case amqp.AccessRefused:
		return queueState{}, fmt.Errorf("queue %q: the broker refuses access; the user needs the configure permission on it: %s",
			name, failure.Reason)
	case amqp.ResourceLocked:
		return queueState{}, fmt.Errorf("queue %q is exclusive to another connection and can't be scaled on", name)
	default:
		b.drop(c)
		return queueState{}, fmt.Errorf("queue %q: %s (%d)", name, failure.Reason, failure.Code)
	}
}

// connect returns the connection, or dials, or waits for the dial under way. After a failure it waits before it tries
// again, longer each time, and answers with that failure meanwhile.
func (b *broker) connect(ctx context.Context) (*connection, error) {
	b.mu.Lock()
	if b.connection != nil && b.connection.IsClosed() {
		b.connection = nil
	}
	if c := b.connection; c != nil {
		b.mu.Unlock()
		return c, nil
	}
	if b.dialing == nil {
		if wait := b.retryAt.Sub(b.limits.Now()); wait > 0 && wait <= maxBackoff { // more: the clock was put back
			defer b.mu.Unlock()
			return nil, fmt.Errorf("%w; next attempt in %s", b.dialErr, wait.Round(100*time.Millisecond))
		}
		b.dialing = make(chan struct{})
		go b.dial(context.WithoutCancel(ctx))
	}
	dialing := b.dialing
	b.mu.Unlock()
	select {
	case <-dialing:
	case <-ctx.Done():
		return nil, fmt.Errorf("connect: %w", context.Cause(ctx))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.connection == nil {
		return nil, b.dialErr
	}
	return b.connection, nil
}

// dial tries the hosts in turn, beginning with the one after that which failed last.
func (b *broker) dial(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.limits.Timeout, fmt.Errorf("no answer within %s", b.limits.Timeout))
	defer cancel()
	b.mu.Lock()
	host := b.host
	b.mu.Unlock()
	var opened *connection
	var err error
	for i := range b.uris {
		uri := b.uris[(host+i)%len(b.uris)]
		var c *amqp.Connection
		if c, err = b.dialHost(ctx, uri, b.limits.Timeout/time.Duration(len(b.uris))); err == nil {
			host += i
			opened = &connection{Connection: c, slots: make(chan *amqp.Channel, channelsPerConnection), owes: map[string]time.Time{}}
			for range channelsPerConnection {
				opened.slots <- nil
			}
			break
		}
		if err = b.explainDial(uri, err); len(b.uris) > 1 {
			err = fmt.Errorf("%s: %w", uri.Host, err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.dialing) // whoever waits goes on when the lock is free
	b.dialing = nil
	switch {
	case err != nil:
		b.failures++
		backoff := min(maxBackoff, 250*time.Millisecond<<min(b.failures, 10))
		b.retryAt, b.dialErr, b.host = b.limits.Now().Add(jitter(backoff)), fmt.Errorf("connect: %w", err), host+1
	case b.closed:
		go opened.Close()
		b.dialErr = amqp.ErrClosed
	default:
		b.connection, b.failures, b.host = opened, 0, host
	}
}

func (b *broker) dialHost(ctx context.Context, uri amqp.URI, timeout time.Duration) (*amqp.Connection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	var raw net.Conn
	config := amqp.Config{
		Heartbeat:       heartbeat,
		TLSClientConfig: b.tls.Clone(), // also keeps the library from reading files that a URI names
		Properties:      amqp.Table{"connection_name": "ebbtide-scaler", "product": "ebbtide"},
		SASL:            []amqp.Authentication{uri.PlainAuth()},
		Vhost:           uri.Vhost,
		Dial: func(network, address string) (net.Conn, error) {
			var err error
			if raw, err = (&net.Dialer{}).DialContext(ctx, network, address); err != nil {
				return nil, err
			}
			// Bounds the handshake; the library clears it afterwards.
			deadline, _ := ctx.Deadline()
			return raw, raw.SetDeadline(deadline)
		},
	}
	c, err := amqp.DialConfig(uri.String(), config)
	if err != nil && raw != nil {
		raw.Close()
	}
	return c, err
}

// explainDial turns a failed dial into an error for a person.
func (b *broker) explainDial(uri amqp.URI, err error) error {
	switch {
	case errors.Is(err, amqp.ErrVhost):
		return fmt.Errorf("virtual host %q does not exist, or user %q may not use it", uri.Vhost, uri.Username)
	case errors.Is(err, amqp.ErrCredentials):
		return fmt.Errorf("the broker refuses user %q: correct the user or the password", uri.Username)
	}
	var mismatch *tls.CertificateVerificationError
	if errors.As(err, &mismatch) {
		return fmt.Errorf("the broker's certificate is not trusted (set tls.ca, or tls.serverName): %w", mismatch.Err)
	}
	text := strings.TrimSpace(withoutURI(err).Error())
	var operation *net.OpError
	connected := !errors.As(err, &operation) || operation.Op != "dial"
	// A refusal for want of a certificate comes as whatever the connection was doing just then.
	if connected && uri.Scheme == "amqps" && len(b.tls.Certificates) == 0 {
		text += " (the broker may ask for a client certificate: tls.certificate, tls.key)"
	}
	return errors.New(text)
}

// drop gives a connection up.
func (b *broker) drop(c *connection) {
	b.mu.Lock()
	if b.connection == c {
		b.connection = nil
	}
	b.mu.Unlock()
	go c.Close() // may wait for a broker that does not answer
}

func (b *broker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.connection != nil {
		go b.connection.Close()
		b.connection = nil
	}
}

// jitter spreads d over its upper half, so that clients of a broker that comes back do not all come at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }
