// Package rabbitmq is a worker's queue on RabbitMQ.
//
// The worker is a consumer with prefetch 1 for exactly as long as it holds or wants a message, because the scaler counts
// consumers: it stops being one just before it acks its last message, so that none is delivered to it that it would have to
// requeue.
package rabbitmq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/internal/endpoint"
	"github.com/ebbtide-dev/ebbtide/worker"
)

// URIVariable is the environment variable that holds the broker's URI.
const URIVariable = "AMQP_URI"

// Config says where messages come from and where they go.
type Config struct {
	// URI of the broker: amqp://user:password@host:port/vhost.
	URI string
	// Queue to consume from.
	Queue string
	// ConsumerTag names the consumer at the broker, best after the pod's Job.
	ConsumerTag string
	// Priority among the consumers of the queue: the broker feeds higher ones first. PriorityByAge makes one.
	Priority int64

	// ResultExchange and ResultRoutingKey take the results. With neither, results are dropped.
	ResultExchange, ResultRoutingKey string
	// DeadLetterExchange takes messages that failed, with the reason in their headers. Without it they are rejected, and
	// the queue's own dead-letter exchange takes them without a reason.
	DeadLetterExchange string
	// LargerQueue takes messages whose command ran out of memory, to be tried with more.
	LargerQueue string

	// TenantLimit bounds how many messages of a tenant, which a header names, are worked on at a time; 0: nothing does. One that is held back
	// waits for the first of TenantDelays, the next time for the second, and so on; the last one repeats.
	TenantLimit  int
	TenantDelays []time.Duration

	// ConnectTimeout bounds the attempts to reach the broker.
	ConnectTimeout time.Duration
	Log            *slog.Logger
}

// PriorityByAge is the priority of a worker that began at an instant: the earlier, the higher.
func PriorityByAge(begin time.Time) int64 { return -begin.Unix() }

// ParseURI reads a broker's URI. Its errors hold no part of it.
func ParseURI(text string) (amqp.URI, error) {
	uris, err := endpoint.Form{Name: "the broker's URI", Example: "amqp://user:password@host:5672/vhost"}.AMQP(text)
	if err != nil {
		return amqp.URI{}, err
	}
	return uris[0], nil
}

// connectAttempt is the pause after the first failed attempt to connect; it doubles up to a few seconds.
const connectAttempt = 200 * time.Millisecond

// queue is a connection to a broker as a consumer of one of its queues.
type queue struct {
	config     *Config
	connection *amqp.Connection
	publishing *publishing

	// mu guards the fields up to left. It is not held while the worker waits for the broker to take a message.
	mu         sync.Mutex
	channel    *amqp.Channel
	deliveries <-chan amqp.Delivery
	// replaced is closed when another channel takes the place of channel.
	replaced chan struct{}
	// current is the delivery of the message that is being worked on, and working whether there is one.
	current amqp.Delivery
	working bool
	left    bool
	// tenantSlot is what counts the message that is being worked on for its tenant, where that has a limit.
	tenantSlot *amqp.Channel

	// held ends, with the cause, when the message that is being worked on is this worker's no more.
	held context.Context
	lose context.CancelCauseFunc
}

// Open connects and becomes a consumer.
func Open(ctx context.Context, config Config) (worker.Queue, error) {
	connection, err := connect(ctx, &config)
	if err != nil {
		return nil, err
	}
	q := &queue{config: &config, connection: connection, replaced: make(chan struct{})}
	q.held, q.lose = context.WithCancelCause(context.Background())
	if q.publishing, err = newPublishing(connection, config.Log); err != nil {
		connection.Close()
		return nil, fmt.Errorf("open a channel to publish: %w", err)
	}
	if err := q.consume(); err != nil {
		connection.Close()
		return nil, err
	}
	return q, nil
}

// connect tries until the broker answers or the time for it is over.
func connect(ctx context.Context, config *Config) (*amqp.Connection, error) {
	if _, err := ParseURI(config.URI); err != nil {
		return nil, err
	}
	deadline, pause := time.Now().Add(config.ConnectTimeout), connectAttempt
	for {
		connection, err := dial(config.URI, amqp.Config{
			Heartbeat:  10 * time.Second,
			Properties: amqp.Table{"connection_name": config.ConsumerTag, "product": "ebbtide-worker"},
		}, 0)
		if err == nil {
			return connection, nil
		}
		var refused *amqp.Error
		if errors.As(err, &refused) && refused.Code == amqp.AccessRefused || time.Now().After(deadline) {
			return nil, fmt.Errorf("connect to the broker: %w", err)
		}
		config.Log.Warn("the broker can't be reached; trying again", "error", err, "pause", pause.String())
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// consume becomes a consumer, on a new channel. Only Open calls it without mu.
func (q *queue) consume() error {
	channel, err := q.connection.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	connectionEnds, channelEnds := q.connection.NotifyClose(make(chan *amqp.Error, 1)), channel.NotifyClose(make(chan *amqp.Error, 1))
	if err := channel.Qos(1, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	args := amqp.Table{}
	if q.config.Priority != 0 {
		args["x-priority"] = q.config.Priority
	}
	if version, _ := q.connection.Properties["version"].(string); knowsConsumerTimeout(version) {
		args["x-consumer-timeout"] = consumerTimeout.Milliseconds()
	}
	deliveries, err := channel.Consume(q.config.Queue, q.config.ConsumerTag, false, false, false, false, args)
	if err != nil {
		return fmt.Errorf("consume from queue %q: %w", q.config.Queue, err)
	}
	q.channel, q.deliveries = channel, deliveries
	go q.watch(connectionEnds, channelEnds)
	return nil
}

// watch loses what is held when the connection or the channel ends, unless it can be reclaimed.
func (q *queue) watch(connectionEnds, channelEnds <-chan *amqp.Error) {
	var end *amqp.Error
	what := "the broker closed the channel"
	select {
	case end = <-connectionEnds:
		what = "the connection to the broker was lost"
	case end = <-channelEnds:
		if limit, timedOut := timedOut(end); timedOut {
			if err := q.reclaim(); err != nil {
				q.lose(fmt.Errorf("the scan ran longer than the broker's consumer_timeout of %s, after which another worker gets the message: "+
					"raise it at the broker, or use RabbitMQ 3.11.15 or later, where the worker does: %w", limit, err))
			}
			return
		}
		// A channel ends with its connection, and then the connection is what matters.
		select {
		case end = <-connectionEnds:
			what = "the connection to the broker was lost"
		case <-time.After(100 * time.Millisecond):
		}
	}
	if end == nil {
		end = amqp.ErrClosed // by intent, of which the library says nothing
	}
	q.lose(fmt.Errorf("%s: %w", what, end))
}

// Name implements worker.Queue.
func (q *queue) Name() string { return q.config.Queue }

// Next implements worker.Queue.
func (q *queue) Next(ctx context.Context) (*worker.Message, error) {
	q.endSlot()
	for {
		delivered, err := q.next(ctx)
		if err != nil || !delivered {
			return nil, err
		}
		delivery := q.delivery()
		admitted, err := q.admit(ctx, &delivery)
		if err != nil {
			return nil, err
		}
		if admitted {
			return q.message(&delivery), nil
		}
	}
}

// next waits for a delivery, and makes it the current one.
func (q *queue) next(ctx context.Context) (delivered bool, err error) {
	for {
		q.mu.Lock()
		deliveries, replaced, left := q.deliveries, q.replaced, q.left
		q.working = false
		q.mu.Unlock()
		select {
		case delivery, open := <-deliveries:
			if open {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.current, q.working = delivery, true
				return true, nil
			}
			if left {
				return false, nil
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		select {
		case <-replaced:
		case <-q.held.Done():
			return false, context.Cause(q.held)
		case <-time.After(time.Second):
			return false, fmt.Errorf("the broker ended the consumer: was queue %q deleted?", q.config.Queue)
		}
	}
}

// delivery is the current one.
func (q *queue) delivery() amqp.Delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.current
}

func (q *queue) message(delivery *amqp.Delivery) *worker.Message {
	m := &worker.Message{
		ID: delivery.MessageId, CorrelationID: delivery.CorrelationId, ContentType: delivery.ContentType,
		RoutingKey: routingKey(delivery), Headers: map[string]string{}, HeaderBytes: headerBytes(delivery.Headers), Body: delivery.Body,
		Queued: delivery.Timestamp, Claimed: number(delivery.Headers[attemptHeader]), Held: q.held,
	}
	if m.Key = worker.Identity(m.ID, worker.MaxIDBytes); m.Key == "" {
		m.Key = hash(q.config.Queue, delivery)
	}
	m.Attempt = 1 + attemptsBefore(delivery)
	m.LastReason, _ = delivery.Headers[reasonHeader].(string)
	for name, value := range delivery.Headers {
		switch value.(type) {
		case string, bool, int8, int16, int32, int64, int, float32, float64:
			m.Headers[name] = fmt.Sprint(value)
		}
	}
	return m
}

// headerBytes is the size of the producer's headers.
func headerBytes(headers amqp.Table) int {
	n := 0
	for name, value := range headers {
		if !brokerHeader(name) && !workersHeader(name) {
			n += entryBytes(name, value)
		}
	}
	return n
}

// hash stands for the id of a message that has none. Two messages that agree in all of this count as one.
func hash(queue string, delivery *amqp.Delivery) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %d\n", queue, routingKey(delivery), delivery.CorrelationId, delivery.Timestamp.Unix())
	h.Write(delivery.Body)
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// number is a count in a header. A producer may write anything there.
func number(value any) int {
	const most = 1 << 20
	switch n := value.(type) {
	case int64:
		return int(min(max(n, 0), most))
	case int32:
		return int(min(max(n, 0), most))
	default:
		return 0
	}
}

// Leave implements worker.Queue: the worker gets no more messages. While it holds one it stays a consumer, because a broker forgets the
// x-consumer-timeout of a consumer that is cancelled, and would apply its own limit to the message.
func (q *queue) Leave() error {
	err := q.onChannel(func() error {
		q.left = true
		if q.working {
			return nil // settle cancels
		}
		return q.channel.Cancel(q.config.ConsumerTag, false)
	})
	if err != nil {
		return fmt.Errorf("stop consuming: %w", err)
	}
	return nil
}

// Ack implements worker.Queue.
func (q *queue) Ack(context.Context, *worker.Message) error { return q.ack() }

// ack tells the broker that the current message is done with.
func (q *queue) ack() error {
	return q.settle(func(d *amqp.Delivery) error { return d.Ack(false) })
}

// putBack has the broker deliver the current message again at once.
func (q *queue) putBack() error {
	return q.settle(func(d *amqp.Delivery) error { return d.Nack(false, true) })
}

// GiveBack implements worker.Queue. If it fails the channel is closed, and the message goes back with it.
func (q *queue) GiveBack(*worker.Message) { _ = q.putBack() }

// settle acks, requeues or rejects the current message at the broker.
func (q *queue) settle(how func(*amqp.Delivery) error) error {
	return q.onChannel(func() error {
		if q.left {
			// No answer is waited for: nothing is delivered before this, and nothing after it.
			if err := q.channel.Cancel(q.config.ConsumerTag, true); err != nil {
				return err
			}
		}
		err := how(&q.current)
		if err == nil {
			q.working = false
		}
		return err
	})
}

// Close implements worker.Queue.
func (q *queue) Close() error { return q.connection.Close() }
