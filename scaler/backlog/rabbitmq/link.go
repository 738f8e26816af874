package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/internal/endpoint"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

const (
	// channelsPerConnection is how many questions are asked side by side. A channel answers one at a time; a declaration
	// takes a broker less than a millisecond.
	channelsPerConnection = 16
	// maxLate bounds the channels beyond those, on which answers come late.
	maxLate = 500
	// patience is how long a question keeps others from the channel's place: hundreds of times what an answer takes.
	patience = 200 * time.Millisecond
	// owingFor is how long a queue is not asked again that has not answered, or whose question made the broker close the connection.
	owingFor   = time.Minute
	maxBackoff = 15 * time.Second
	heartbeat  = 10 * time.Second
)

// link is a connection that is made again when it breaks. Questions about queues are asked over it side by side.
type link struct {
	address
	tls    *tls.Config
	bounds backlog.SampleBounds
	// patient is that a connection over which nothing is answered is kept: it is asked what a healthy broker may leave unanswered.
	patient bool
	// punish is how long a queue is left alone whose question made the broker close the connection.
	punish time.Duration

	mu         sync.Mutex
	connection *connection // nil: none
	dialing    *dialing    // nil: no dial is under way
	failure    error       // of the last attempt
	retryAt    time.Time
	failures   int
	host       int // index of the URI that is tried next
	channels   int // that the broker allows; 0: as many as it said when it was connected to
	closed     bool
	guilty     map[string]guilt // queues whose question ended a connection
	suspects   map[string]bool  // queues whose question may have
}

// errConnect is that there is no connection.
var errConnect = errors.New("connect")

// dialing is an attempt to connect, for any number of callers. What came of it travels with it: by the time that a caller looks, the
// link may have another connection, or none.
type dialing struct {
	done       chan struct{}
	connection *connection
	err        error
}

// guilt is why a queue is not asked for a while.
type guilt struct {
	err   error
	until time.Time
}

func newLink(at address, config *tls.Config, bounds backlog.SampleBounds) *link {
	return &link{address: at, tls: config, bounds: bounds, punish: owingFor, guilty: map[string]guilt{}, suspects: map[string]bool{}}
}

// connection is an open one, with a fixed number of channels that are opened when they are first needed.
type connection struct {
	*amqp.Connection
	slots     chan *amqp.Channel // nil: not open
	late      chan struct{}      // one for each channel more that may be open
	answers   atomic.Int64       // how many came
	opened    atomic.Int64       // channels that are open
	questions questions

	ended      chan struct{} // closed when the connection ends
	closedWith *amqp.Error   // why it ended, if that is known. Read it when ended is closed.

	mu   sync.Mutex
	owes map[string]time.Time // when queues were given up that have not answered yet
}

// questions counts those that are under way in its lower half, and all that there ever were in its upper half: one number, so that a question
// that comes meanwhile is in both counts or in none.
type questions struct{ atomic.Uint64 }

// begin counts one more, and says which it is and whether no other is under way.
func (q *questions) begin() (number uint32, first bool) {
	n := q.Add(1<<32 | 1)
	return uint32(n >> 32), uint32(n) == 1
}

func (q *questions) end()         { q.Add(^uint64(0)) }
func (q *questions) ever() uint32 { return uint32(q.Load() >> 32) }

// newConnection makes a connection of one whose broker allows so many channels.
func newConnection(c *amqp.Connection, channels int) *connection {
	slots := min(channelsPerConnection, (channels+1)/2)
	opened := &connection{
		Connection: c, slots: make(chan *amqp.Channel, slots), late: make(chan struct{}, min(maxLate, channels-slots)), owes: map[string]time.Time{},
		ended: make(chan struct{}),
	}
	ends := c.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		opened.closedWith = <-ends
		close(opened.ended)
	}()
	for range slots {
		opened.slots <- nil
	}
	return opened
}

// owing says whether a queue has still to answer a question of the last minute.
func (c *connection) owing(queue string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	given, is := c.owes[queue]
	return is && now.Sub(given).Abs() < owingFor
}

// ask asks a question about a queue. Where another queue's question made the broker close the connection, it is asked once more.
func ask[T any](ctx context.Context, l *link, queue string, question func(*amqp.Channel) (T, error)) (T, error) {
	answer, err := askOnce(ctx, l, queue, question)
	var lost *lostError
	if errors.As(err, &lost) && lost.innocent && ctx.Err() == nil && !l.suspected(queue) {
		return askOnce(ctx, l, queue, question)
	}
	return answer, err
}

func askOnce[T any](ctx context.Context, l *link, queue string, question func(*amqp.Channel) (T, error)) (T, error) {
	var none T
	c, channel, err := l.place(ctx, queue)
	if err != nil {
		return none, err
	}
	type answer struct {
		value   T
		channel *amqp.Channel
		err     error
	}
	// The client library has no deadline for a call, so it is left alone with it when the time is over.
	answers, before := make(chan answer, 1), c.answers.Load()
	// A question that comes when the connection has ended already is not the reason. Those that were under way count until it has.
	number, first := c.questions.begin()
	first = first && !c.IsClosed()
	alone := func() bool { return first && c.questions.ever() == number }
	go func() {
		a := answer{channel: channel}
		a.err = l.bounds.Guard(func() error {
			var err error
			if a.channel == nil || a.channel.IsClosed() {
				if a.channel, err = c.Channel(); err != nil {
					return err
				}
				c.opened.Add(1)
			}
			a.value, err = question(a.channel)
			return err
		})
		if a.channel != nil && a.channel.IsClosed() {
			if !c.IsClosed() {
				c.opened.Add(-1)
			}
			a.channel = nil
		}
		answers <- a
	}()
	var late bool
	// done gives the place of the question to the next one, with the channel that it was answered on.
	done := func(channel *amqp.Channel) {
		c.questions.end()
		if !late {
			c.slots <- channel
			return
		}
		if channel != nil {
			c.opened.Add(-1)
			_ = channel.Close()
		}
		<-c.late
	}
	waited := time.NewTimer(patience)
	defer waited.Stop()
	for {
		select {
		case <-waited.C:
			select {
			case c.late <- struct{}{}: // its place goes to others
				c.slots <- nil
				late = true
			default: // the broker allows no more channels
			}
		case a := <-answers:
			if a.err == nil || !c.IsClosed() && !errors.As(a.err, new(*net.OpError)) { // one that can't be written to ends a moment later
				c.answers.Add(1)
				if late {
					go done(a.channel)
				} else {
					done(a.channel)
				}
				return a.value, a.err
			}
			err := l.lost(ctx, c, queue, alone(), a.err)
			c.questions.end()
			return none, err
		case <-ctx.Done():
			if !l.patient && c.answers.Load() == before { // nobody was answered meanwhile: the broker hangs, not the queue
				l.drop(c, context.Cause(ctx))
				return none, context.Cause(ctx)
			}
			c.mu.Lock()
			c.owes[queue] = l.bounds.Now()
			c.mu.Unlock()
			// It may be answered at some time, and holds a channel until then.
			go func() {
				done((<-answers).channel)
				c.mu.Lock()
				defer c.mu.Unlock()
				delete(c.owes, queue)
			}()
			return none, context.Cause(ctx)
		}
	}
}

// place waits for a channel of the connection; nil is one that is not open yet.
func (l *link) place(ctx context.Context, queue string) (*connection, *amqp.Channel, error) {
	for {
		c, err := l.connect(ctx, queue)
		if err != nil {
			return nil, nil, err
		}
		if c.owing(queue, l.bounds.Now()) {
			return nil, nil, errors.New("it does not answer, though its broker does: look at the queue's state and its leader")
		}
		select {
		case channel := <-c.slots:
			return c, channel, nil
		case <-c.ended: // and gives no more places
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// lostError is that a connection ended while a question was under way.
type lostError struct {
	err error
	// innocent is that another question may be the reason.
	innocent bool
}

func (e *lostError) Error() string { return "the connection was lost: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// lost is told of a question that was under way when its connection ended, and finds out who made the broker close it, so that the others
// do without whoever it was. Alone is that no other question was under way.
func (l *link) lost(ctx context.Context, c *connection, queue string, alone bool, err error) error {
	// The library tells the broker's reason to some of the calls that were under way, and to others only that the connection is closed.
	select {
	case <-c.ended:
	case <-ctx.Done():
	}
	l.mu.Lock()
	l.end(c)
	l.mu.Unlock()
	reason := c.reason()
	if reason == nil {
		if errors.Is(err, amqp.ErrClosed) {
			err = errors.New("it ended without a reason")
		}
		return &lostError{err: err, innocent: c.answers.Load() > 0}
	}
	said := endpoint.Said(reason.Reason, l.uris[0].Password)
	// What it says may be about another queue.
	err = fmt.Errorf("the broker closed it (%d)", reason.Code)
	switch {
	case reason.Code == amqp.ConnectionForced: // an operator's doing
	case tooManyChannels(reason):
		err = fmt.Errorf("the broker allows no more channels: it says %q: raise the limit of the user or the node", said)
	case alone, strings.Contains(reason.Reason, "queue '"+queue+"'"):
		err = fmt.Errorf("asking for it makes the broker close the connection: it says %q (%d)", said, reason.Code)
		l.convict(queue, err)
		return err
	case !l.patient: // any of those that were under way: they are tried one by one
		l.suspect(queue)
	}
	return &lostError{err: err, innocent: true}
}

// reason is what the broker gave for ending the connection, nil if it gave none.
func (c *connection) reason() *amqp.Error {
	select {
	case <-c.ended:
		if c.closedWith != nil && c.closedWith.Server {
			return c.closedWith
		}
	default:
	}
	return nil
}

func tooManyChannels(reason *amqp.Error) bool {
	return strings.Contains(reason.Reason, "number of channels")
}

// end forgets a connection that has ended. The lock is held.
func (l *link) end(c *connection) {
	switch reason, opened := c.reason(), int(c.opened.Load()); {
	case reason != nil && tooManyChannels(reason):
		l.channels = max(1, opened)
		if opened > 0 {
			l.forget(c, nil)
		} else {
			l.forget(c, fmt.Errorf("it allows no channel: it says %q", endpoint.Said(reason.Reason, l.uris[0].Password)))
		}
	case reason != nil && reason.Code != amqp.ConnectionForced && c.questions.ever() > 0: // a question's doing
		l.forget(c, nil)
	case reason != nil:
		l.forget(c, fmt.Errorf("the broker closed it (%d)", reason.Code))
	default:
		l.forget(c, amqp.ErrClosed)
	}
}

// convict leaves a queue alone for a while.
func (l *link) convict(queue string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.bounds.Now()
	for name, g := range l.guilty {
		if now.After(g.until) {
			delete(l.guilty, name)
		}
	}
	l.guilty[queue] = guilt{err, now.Add(l.punish)}
	delete(l.suspects, queue)
}

// verdict is why a queue is left alone, nil if it is not. It is told once.
func (l *link) verdict(queue string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.guilty[queue]
	delete(l.guilty, queue)
	return g.err
}

func (l *link) suspect(queue string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspects[queue] = true
}

func (l *link) suspected(queue string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.suspects[queue]
}

// acquit ends a suspicion, and says whether it was the last.
func (l *link) acquit(queue string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.suspects, queue)
	return len(l.suspects) == 0
}

func (l *link) suspectsAny() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.suspects) > 0
}

// connect returns the connection, or dials, or waits for the dial under way. After a failure it waits before it tries
// again, longer each time, and answers with that failure meanwhile.
func (l *link) connect(ctx context.Context, queue string) (*connection, error) {
	l.mu.Lock()
	now := l.bounds.Now()
	if g, is := l.guilty[queue]; is && now.Before(g.until) && g.until.Sub(now) <= l.punish { // more: the clock was put back
		l.mu.Unlock()
		return nil, g.err
	}
	for c := l.connection; c != nil && c.IsClosed(); c = l.connection {
		l.mu.Unlock()
		select {
		case <-c.ended: // a moment later, with its reason
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", errConnect, context.Cause(ctx))
		}
		l.mu.Lock()
		l.end(c)
	}
	if c := l.connection; c != nil {
		l.mu.Unlock()
		return c, nil
	}
	d := l.dialing
	if d == nil {
		if wait := l.retryAt.Sub(now); wait > 0 && wait <= maxBackoff { // more: the clock was put back
			defer l.mu.Unlock()
			return nil, fmt.Errorf("%w; next attempt in %s", l.failure, wait.Round(100*time.Millisecond))
		}
		d = &dialing{done: make(chan struct{})}
		l.dialing = d
		go l.dial(context.WithoutCancel(ctx), d)
	}
	l.mu.Unlock()
	select {
	case <-d.done:
		return d.connection, d.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errConnect, context.Cause(ctx))
	}
}

// dial tries the hosts in turn, beginning with the one after that which failed last.
func (l *link) dial(ctx context.Context, d *dialing) {
	l.mu.Lock()
	host, allowed := l.host, l.channels
	l.mu.Unlock()
	err := l.bounds.Guard(func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, l.bounds.Timeout, fmt.Errorf("no answer within %s", l.bounds.Timeout))
		defer cancel()
		var err error
		for i := range l.uris {
			uri := l.uris[(host+i)%len(l.uris)]
			var c *amqp.Connection
			if c, err = l.dialHost(ctx, uri); err == nil {
				host += i
				channels := int(c.Config.ChannelMax)
				if allowed > 0 {
					channels = min(channels, allowed)
				}
				d.connection = newConnection(c, channels)
				return nil
			}
			if len(l.uris) > 1 {
				err = fmt.Errorf("%s: %w", uri.Host, err)
			}
		}
		return err
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		d.err = fmt.Errorf("%w: %w", errConnect, err)
		l.host = host + 1
		l.failed(d.err)
	case l.closed:
		go d.connection.Close()
		d.connection, d.err = nil, amqp.ErrClosed
	default:
		l.connection, l.host = d.connection, host
	}
	l.dialing = nil
	close(d.done)
}

func (l *link) dialHost(ctx context.Context, uri amqp.URI) (*amqp.Connection, error) {
	timeout := l.bounds.Timeout / time.Duration(len(l.uris))
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	return dialHost(ctx, uri, l.named, l.tls)
}

// failed puts the next attempt off. The lock is held.
func (l *link) failed(err error) {
	l.failures++
	backoff := min(maxBackoff, 250*time.Millisecond<<min(l.failures, 10))
	l.failure, l.retryAt = err, l.bounds.Now().Add(jitter(backoff))
}

// drop gives a connection up. Err is why.
func (l *link) drop(c *connection, err error) {
	l.mu.Lock()
	l.forget(c, err)
	l.mu.Unlock()
	go c.Close() // may wait for a broker that does not answer
}

// forget is drop with the lock held, of a connection that need not be closed; err is nil if another one will do better. One over which nothing was ever answered is a failed
// attempt, or else a broker that opens connections and closes them would be dialed without a pause.
func (l *link) forget(c *connection, err error) {
	if l.connection != c {
		return
	}
	l.connection = nil
	if c.answers.Load() > 0 || err == nil {
		l.failures = 0
		return
	}
	l.failed(fmt.Errorf("%w: the broker opens a connection and answers nothing: %w", errConnect, err))
}

// rest closes the connection; the next question opens another.
func (l *link) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.connection != nil {
		go l.connection.Close()
		l.connection = nil
	}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.connection != nil {
		go l.connection.Close()
		l.connection = nil
	}
}

// jitter spreads d over its upper half, so that clients of a broker that comes back do not all come at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }
