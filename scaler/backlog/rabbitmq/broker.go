package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/internal/endpoint"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

const (
	// askMissingAgain is how soon a queue that was missing is asked for again: the broker logs each such question as an
	// error, and closes a channel.
	askMissingAgain = 2 * time.Second
	// emptyFor is how long a queue that was confirmed to be empty counts as empty without another look.
	emptyFor = 5 * time.Second
	// leaderlessFor is how long a queue that has no leader is not asked for one again, and streamFor is the same for a stream.
	leaderlessFor = 5 * time.Second
	streamFor     = time.Minute
	// restAfter is how long the connection for trials is kept without one.
	restAfter = 10 * time.Second
)

// queueState is what a passive declaration tells.
type queueState struct {
	ready, consumers int64
	missing          bool // there is no such queue
	// unproven is that it looks empty, and that the user may not ask its leader.
	unproven bool
}

// queue is sampled for all policies that read it.
type queue struct {
	name    string
	samples *backlog.Cached[backlog.Sample[queueState]]
	users   int // guarded by Brokers.mu
	// classic is that the management API calls it a classic queue, whose own process answers for it: of an empty one nothing else need be asked.
	classic atomic.Bool

	// Of the one question that is under way at a time.
	missingAt time.Time
	emptyAt   time.Time // when it was last made sure that it is empty
	unproven  bool      // that was refused
	doubt     error     // why that could not be made sure
	doubted   time.Time // until when it is not tried again
}

// broker is shared by the policies that read its queues as the same user.
type broker struct {
	name   string // names the broker in errors
	source string // and in observations
	bounds backlog.SampleBounds
	// counts is where queues are asked for their counts. Whether an empty one is really empty is asked over leaders, a connection that
	// is made when it is first needed: some queues can't be asked that without the broker closing the connection.
	counts, leaders *link
	// trials is where queues are asked one after the other of which one made a broker close a connection without saying which. It is
	// open while there are such.
	trials  *link
	inTrial chan struct{} // holds one token

	users  int               // guarded by Brokers.mu
	queues map[string]*queue // guarded by Brokers.mu
}

func newBroker(at address, config *tls.Config, bounds backlog.SampleBounds) *broker {
	hosts := make([]string, len(at.uris))
	for i, uri := range at.uris {
		hosts[i] = net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
	}
	name := strings.Join(hosts, ",")
	leaders := newLink(at, config, bounds)
	leaders.patient, leaders.punish = true, 15*time.Second
	inTrial := make(chan struct{}, 1)
	inTrial <- struct{}{}
	return &broker{
		trials: newLink(at, config, bounds), inTrial: inTrial,
		name: name, source: "rabbitmq " + name, bounds: bounds, queues: map[string]*queue{},
		counts: newLink(at, config, bounds), leaders: leaders,
	}
}

func (b *broker) close() {
	b.counts.close()
	b.leaders.close()
	b.trials.close()
}

// use returns a queue, to be left by leave. Brokers.mu is held, as it is for leave.
func (b *broker) use(name string) *queue {
	q := b.queues[name]
	if q == nil {
		q = &queue{name: name}
		q.samples = backlog.NewSampler(b.bounds, func(ctx context.Context) (queueState, error) {
			state, err := b.inspect(ctx, q)
			if err != nil && !errors.Is(err, errConnect) {
				err = fmt.Errorf("queue %q: %w", name, err)
			}
			return state, err
		})
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

// inspect asks for a queue's ready messages and consumers, or whether there is none.
func (b *broker) inspect(ctx context.Context, q *queue) (queueState, error) {
	now := b.bounds.Now()
	if now.Sub(q.missingAt).Abs() < askMissingAgain {
		return queueState{missing: true}, nil
	}
	q.missingAt = time.Time{}
	state, err := b.declare(ctx, q.name)
	switch {
	case err != nil:
	case state.missing:
		q.missingAt = now
		q.classic.Store(false) // it may be declared again as another kind
	case state.ready > 0 || state.consumers > 0:
		q.emptyAt, q.doubted = time.Time{}, time.Time{}
	case !q.classic.Load():
		return b.confirmEmpty(ctx, q)
	}
	return state, err
}

// declare asks the node that it is connected to.
func (b *broker) declare(ctx context.Context, name string) (queueState, error) {
	question := func(channel *amqp.Channel) (amqp.Queue, error) {
		return channel.QueueDeclarePassive(name, false, false, false, false, nil)
	}
	var lost *lostError
	declared, err := ask(ctx, b.counts, name, question)
	if errors.As(err, &lost) && b.counts.suspected(name) {
		declared, err = b.try(ctx, name, question)
	}
	if err != nil {
		return b.explain(name, err)
	}
	return queueState{ready: int64(declared.Messages), consumers: int64(declared.Consumers)}, nil
}

// try asks while no other queue is asked, so that what comes of it is that queue's doing.
func (b *broker) try(ctx context.Context, name string, question func(*amqp.Channel) (amqp.Queue, error)) (amqp.Queue, error) {
	select {
	case <-b.inTrial:
	case <-ctx.Done():
		return amqp.Queue{}, context.Cause(ctx)
	}
	defer func() { b.inTrial <- struct{}{} }()
	declared, err := askOnce(ctx, b.trials, name, question)
	if guilty := b.trials.verdict(name); guilty != nil {
		b.counts.convict(name, guilty)
		return declared, guilty
	}
	if b.counts.acquit(name) {
		time.AfterFunc(restAfter, b.restTrials)
	}
	return declared, err
}

// restTrials closes the connection for trials, unless one is under way or to come.
func (b *broker) restTrials() {
	select {
	case <-b.inTrial:
		if !b.counts.suspectsAny() {
			b.trials.rest()
		}
		b.inTrial <- struct{}{}
	default:
	}
}

// confirmEmpty makes sure that a queue really has no messages and no consumers when the broker says so. Of a quorum queue without a leader,
// or without a majority, a broker says the same. A basic.get must go to the leader, and finds nothing in an empty queue; should a message
// have come just now, it goes back.
func (b *broker) confirmEmpty(ctx context.Context, q *queue) (queueState, error) {
	now := b.bounds.Now()
	if now.Sub(q.emptyAt).Abs() < emptyFor {
		return queueState{unproven: q.unproven}, nil
	}
	if now.Before(q.doubted) && q.doubted.Sub(now) <= streamFor { // more: the clock was put back
		return queueState{}, q.doubt
	}
	q.doubted = now.Add(leaderlessFor)
	within, cancel := context.WithTimeoutCause(ctx, b.bounds.Timeout/2, fmt.Errorf("no answer within %s", b.bounds.Timeout/2))
	defer cancel()
	found, err := ask(within, b.leaders, q.name, func(channel *amqp.Channel) (bool, error) {
		message, found, err := channel.Get(q.name, false)
		if found {
			err = message.Nack(false, true)
		}
		return found, err
	})
	var failure *amqp.Error
	errors.As(err, &failure)
	switch {
	case found:
		q.doubted = time.Time{}
		return b.declare(ctx, q.name)
	case err == nil, failure != nil && failure.Code == amqp.AccessRefused, failure != nil && failure.Code == amqp.ResourceLocked,
		errors.Is(err, errConnectionLimit):
		// Empty; or a user who may not read it, or connect twice: the broker's word is all that there is here.
		q.emptyAt, q.doubted, q.unproven = now, time.Time{}, err != nil
		return queueState{unproven: q.unproven}, nil
	case isMissing(q.name, failure):
		q.missingAt, q.doubted = now, time.Time{}
		return queueState{missing: true}, nil
	case strings.Contains(err.Error(), "stream"):
		q.doubt, q.doubted = errStream, now.Add(streamFor)
	case errors.Is(err, errConnect):
		q.doubt = fmt.Errorf("it looks empty, and its leader can't be asked: %w", err)
	default:
		q.doubt = fmt.Errorf("it looks empty, but no leader says so: a quorum queue without a leader, or without a majority of its nodes: "+
			"look at the broker's nodes, and at rabbitmq-queues quorum_status: %w", err)
	}
	return queueState{}, q.doubt
}

var errStream = errors.New("it is a stream, whose length is not a backlog: consume from a classic or quorum queue, or scale on the " +
	"consumers' offset lag with the source prometheus")

// isMissing says whether the broker said that there is no queue of that name. It has the same code for a queue that it can't reach.
func isMissing(name string, failure *amqp.Error) bool {
	if failure == nil || failure.Code != amqp.NotFound {
		return false
	}
	said, ok := strings.CutPrefix(failure.Reason, "NOT_FOUND - no queue '")
	want := name + "' in vhost '"
	// A broker cuts what it says at 255 bytes.
	cut, isCut := strings.CutSuffix(said, "...")
	return ok && (strings.HasPrefix(said, want) || isCut && strings.HasPrefix(want, cut))
}

// explain turns a failed declaration into a state, or an error for a person.
func (b *broker) explain(name string, err error) (queueState, error) {
	var failure *amqp.Error
	var lost *lostError
	if !errors.As(err, &failure) || !failure.Server || errors.As(err, &lost) {
		return queueState{}, err
	}
	said := endpoint.Said(failure.Reason, b.counts.uris[0].Password)
	switch {
	case isMissing(name, failure):
		return queueState{missing: true}, nil
	case failure.Code == amqp.NotFound:
		return queueState{}, fmt.Errorf("it exists and can't be reached: the broker says %q", said)
	case failure.Code == amqp.AccessRefused:
		return queueState{}, fmt.Errorf("the broker refuses access: give the user the read permission on it: the broker says %q", said)
	case failure.Code == amqp.ResourceLocked:
		return queueState{}, errors.New("it is exclusive to another connection and can't be scaled on")
	default:
		return queueState{}, fmt.Errorf("the broker says %q (%d)", said, failure.Code)
	}
}
