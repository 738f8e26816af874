package rabbitmq

import (
	"context"
	"fmt"
	"maps"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// countHeader is where a quorum queue counts deliveries.
const countHeader = "x-delivery-count"

// publishing is a channel on which every message is confirmed by the broker and must reach a queue.
type publishing struct {
	channel  *amqp.Channel
	returned chan amqp.Return
}

func newPublishing(connection *amqp.Connection) (*publishing, error) {
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	p := &publishing{channel: channel, returned: channel.NotifyReturn(make(chan amqp.Return, 1))}
	return p, channel.Confirm(false)
}

// publish returns once a queue has the message.
func (p *publishing) publish(ctx context.Context, exchange, key string, message amqp.Publishing) error {
	confirmation, err := p.channel.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, message)
	if err != nil {
		return err
	}
	confirmed, err := confirmation.WaitContext(ctx)
	if err != nil {
		return fmt.Errorf("no confirmation by the broker: %w", err)
	}
	// The broker returns an unroutable message before it confirms it.
	select {
	case r := <-p.returned:
		return fmt.Errorf("exchange %q has no queue for routing key %q: %s", r.Exchange, r.RoutingKey, r.ReplyText)
	default:
	}
	if !confirmed {
		return fmt.Errorf("the broker refused a message for exchange %q", exchange)
	}
	return nil
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

// DeadLetter implements worker.Queue: the message as it was, with the reason in its headers.
func (q *queue) DeadLetter(ctx context.Context, _ *worker.Message, letter worker.DeadLetter) error {
	if q.config.DeadLetterExchange == "" {
		return q.current.Reject(false)
	}
	dead := q.current
	headers := amqp.Table{}
	maps.Copy(headers, dead.Headers)
	delete(headers, countHeader) // whoever sends it again begins anew
	headers["ebbtide-reason"] = letter.Reason
	headers["ebbtide-result"] = letter.Result
	err := q.publishing.publish(ctx, q.config.DeadLetterExchange, dead.RoutingKey, amqp.Publishing{
		DeliveryMode: amqp.Persistent, Headers: headers, Body: dead.Body,
		ContentType: dead.ContentType, ContentEncoding: dead.ContentEncoding, Priority: dead.Priority,
		CorrelationId: dead.CorrelationId, ReplyTo: dead.ReplyTo, MessageId: dead.MessageId,
		Timestamp: dead.Timestamp, Type: dead.Type, AppId: dead.AppId,
	})
	if err != nil {
		return fmt.Errorf("publish the dead letter: %w", err)
	}
	return dead.Ack(false)
}
