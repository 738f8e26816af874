package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// RetryQueue is the name of the queue in which messages of a queue wait for another attempt.
func RetryQueue(queue string, delay time.Duration) string { return queue + ".retry." + brief(delay) }

// brief is a duration as people write it: 5m, not 5m0s.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// RetryArguments are those of a retry queue: a quorum queue with no consumer, whose messages go back to the queue when their time is over.
// All of its messages wait equally long, so none waits behind another, and they leave it only once the queue has them.
func RetryArguments(queue string, delay time.Duration) amqp.Table {
	return amqp.Table{
		amqp.QueueTypeArg: amqp.QueueTypeQuorum, amqp.QueueMessageTTLArg: delay.Milliseconds(),
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue,
		"x-dead-letter-strategy": "at-least-once", amqp.QueueOverflowArg: amqp.QueueOverflowRejectPublish,
	}
}

// Retry implements worker.Queue: the message waits in a retry queue. One that is not there is declared; where the user may not, the
// message goes back at once, and the log says so.
func (q *queue) Retry(ctx context.Context, _ *worker.Message, again worker.Attempt) error {
	if again.After <= 0 {
		return q.putBack() // a quorum queue counts
	}
	delivery := q.delivery()
	waits, err := q.sendToRetry(ctx, &delivery, again.After, amqp.Table{
		attemptHeader: int64(again.Number), reasonHeader: again.Reason, routingKeyHeader: routingKey(&delivery),
	})
	if err != nil || waits {
		return err
	}
	return q.putBack()
}

// sendToRetry lets the current message wait in the retry queue of a delay. Where that is not there and can't be declared it does nothing.
func (q *queue) sendToRetry(ctx context.Context, delivery *amqp.Delivery, delay time.Duration, headers amqp.Table) (waits bool, err error) {
	name := RetryQueue(q.config.Queue, delay)
	p := republished(delivery, headers, q.connection.Config.FrameSize)
	if err = errUnroutable; len(name) <= worker.MaxIDBytes { // a longer one would end the connection
		err = q.publishing.publish(ctx, "", name, p)
	}
	if errors.Is(err, errUnroutable) {
		if err = q.declareRetry(name, delay); err != nil {
			q.config.Log.Warn("a message gets its next attempt at once: its retry queue is not there and can't be declared; "+
				"declare it, or let the user configure queues of this name", "queue", name, "error", err)
			return false, nil
		}
		err = q.publishing.publish(ctx, "", name, p)
	}
	if err != nil {
		return false, fmt.Errorf("send the message to queue %q: %w", name, err)
	}
	return true, q.ack()
}

// declareRetry declares a retry queue, on a channel of its own: the broker closes it when it refuses.
func (q *queue) declareRetry(name string, delay time.Duration) error {
	if len(name) > worker.MaxIDBytes {
		return fmt.Errorf("a queue's name has at most %d bytes", worker.MaxIDBytes)
	}
	channel, err := q.connection.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = channel.Close() }() // the broker may have
	_, err = channel.QueueDeclare(name, true, false, false, false, RetryArguments(q.config.Queue, delay))
	return err
}

// Forward implements worker.Queue.
func (q *queue) Forward(ctx context.Context, _ *worker.Message, why worker.Attempt) error {
	delivery, larger := q.delivery(), q.config.LargerQueue
	if larger == "" || delivery.Headers[forwardedHeader] == larger {
		return worker.ErrNoLarger
	}
	headers := amqp.Table{reasonHeader: why.Reason, forwardedHeader: larger, routingKeyHeader: routingKey(&delivery)}
	if err := q.publishing.publish(ctx, "", larger, republished(&delivery, headers, q.connection.Config.FrameSize)); err != nil {
		return fmt.Errorf("send the message to queue %q: %w", larger, err)
	}
	return q.ack()
}

// routingKey is the producer's.
func routingKey(delivery *amqp.Delivery) string {
	if key, ok := delivery.Headers[routingKeyHeader].(string); ok && len(key) <= worker.MaxIDBytes {
		return key
	}
	return delivery.RoutingKey
}
