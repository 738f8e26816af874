package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// publishing is a channel on which every message is confirmed by the broker and must reach a queue.
type publishing struct {
	channel  *amqp.Channel
	returned chan amqp.Return
	closed   chan *amqp.Error
	// blocked is true while the broker takes nothing, for an alarm of its memory or disk. It confirms what it has not taken yet once that is over.
	blocked atomic.Bool
	// within is how long a confirmation may take while it is not.
	within time.Duration
	log    *slog.Logger
}

// confirmWithin is how long the broker may take to confirm a message, and confirmTick the unit in which that is counted.
const confirmWithin, confirmTick = 30 * time.Second, 50 * time.Millisecond

// errUnroutable is wrapped by the error of a message that reached no queue.
var errUnroutable = errors.New("no queue")

func newPublishing(connection *amqp.Connection, log *slog.Logger) (*publishing, error) {
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	p := &publishing{
		channel: channel, returned: channel.NotifyReturn(make(chan amqp.Return, 1)), closed: channel.NotifyClose(make(chan *amqp.Error, 1)),
		within: confirmWithin, log: log,
	}
	blockings := connection.NotifyBlocked(make(chan amqp.Blocking, 1))
	go func() {
		for blocking := range blockings { // until the connection ends
			p.blocked.Store(blocking.Active)
			if blocking.Active {
				log.Warn("the broker takes nothing for now; waiting", "reason", blocking.Reason)
			}
		}
	}()
	return p, channel.Confirm(false)
}

// errRefused is wrapped by the error of a message that the broker does not take.
var errRefused = errors.New("the broker refused a message")

// refusedTries is how often a message that is refused is sent, and refusedPause the first pause, which doubles. A queue that was declared just
// now and has no leader yet refuses, as does one that is full: neither need last.
const (
	refusedTries = 6
	refusedPause = 100 * time.Millisecond
)

// publish returns once a queue has the message.
func (p *publishing) publish(ctx context.Context, exchange, key string, message amqp.Publishing) error {
	for try := 1; ; try++ {
		err := p.publishOnce(exchange, key, message)
		if !errors.Is(err, errRefused) || try == refusedTries {
			return err
		}
		p.log.Warn("the broker refuses a message for now; trying again", "exchange", exchange, "routingKey", key, "try", try)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(refusedPause << (try - 1)):
		}
	}
}

func (p *publishing) publishOnce(exchange, key string, message amqp.Publishing) error {
	confirmation, err := p.channel.PublishWithDeferredConfirm(exchange, key, true, false, message)
	if err != nil {
		return err
	}
	confirmed, err := p.await(confirmation)
	if err != nil {
		return err
	}
	// The broker returns an unroutable message before it confirms it.
	select {
	case r, open := <-p.returned:
		if open {
			return fmt.Errorf("exchange %q has %w for routing key %q: %s", r.Exchange, errUnroutable, r.RoutingKey, r.ReplyText)
		}
	default:
	}
	if confirmed {
		return nil
	}
	select {
	case end := <-p.closed:
		if end != nil {
			return fmt.Errorf("the broker closed the channel over a message for exchange %q: %w", exchange, end)
		}
		return fmt.Errorf("publish to exchange %q: %w", exchange, amqp.ErrClosed)
	default:
		return fmt.Errorf("%w for exchange %q: is a queue at its limit?", errRefused, exchange)
	}
}

// await waits for a confirmation. No end of a context comes between a message and that: whether the broker has it would be unknown.
func (p *publishing) await(confirmation *amqp.DeferredConfirmation) (confirmed bool, err error) {
	for waited := time.Duration(0); waited < p.within; {
		select {
		case <-confirmation.Done(): // or the connection is lost
			return confirmation.Acked(), nil
		case <-time.After(confirmTick):
			if !p.blocked.Load() {
				waited += confirmTick
			}
		}
	}
	return false, fmt.Errorf("no confirmation by the broker within %s", p.within)
}

// Publish implements worker.Queue. The message's id is the result's key, its correlation id the scan.
func (q *queue) Publish(ctx context.Context, result worker.Publication) error {
	if q.config.ResultExchange == "" && q.config.ResultRoutingKey == "" {
		return nil
	}
	return q.publishing.publish(ctx, q.config.ResultExchange, q.config.ResultRoutingKey, amqp.Publishing{
		DeliveryMode: amqp.Persistent, MessageId: result.Key, CorrelationId: result.Scan, Type: results.Type,
		ContentType: string(result.ContentType), Timestamp: time.Now(), Body: result.Body,
	})
}

// DeadLetter implements worker.Queue: the message as it was, with the reason in its headers. The count of attempts is not in it: whoever
// sends it again begins at 0.
func (q *queue) DeadLetter(ctx context.Context, _ *worker.Message, letter worker.DeadLetter) error {
	if q.config.DeadLetterExchange == "" {
		return q.settle(func(d *amqp.Delivery) error { return d.Reject(false) })
	}
	delivery := q.delivery()
	key := routingKey(&delivery)
	headers := amqp.Table{reasonHeader: letter.Reason, resultHeader: letter.Result}
	p := republished(&delivery, headers, q.connection.Config.FrameSize)
	if err := q.publishing.publish(ctx, q.config.DeadLetterExchange, key, p); err != nil {
		return fmt.Errorf("publish the dead letter: %w", err)
	}
	return q.ack()
}
