package worker

import (
	"context"
	"fmt"
	"maps"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// publishWithin bounds the wait for a confirmation.
const publishWithin = 30 * time.Second

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
func (p *publishing) publish(exchange, key string, message amqp.Publishing) error {
	ctx, cancel := context.WithTimeout(context.Background(), publishWithin)
	defer cancel()
	confirmation, err := p.channel.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, message)
	if err != nil {
		return err
	}
	confirmed, err := confirmation.WaitContext(ctx)
	if err != nil {
		return fmt.Errorf("no confirmation within %s: %w", publishWithin, err)
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

// result carries a command's output. Its message id is the order's, so that whoever takes results knows a repeated one.
func result(delivery *amqp.Delivery, o outcome) amqp.Publishing {
	return amqp.Publishing{
		DeliveryMode:  amqp.Persistent,
		MessageId:     delivery.MessageId,
		CorrelationId: delivery.CorrelationId,
		Type:          "ebbtide.scan.result",
		Timestamp:     time.Now(),
		Headers:       amqp.Table{"ebbtide-delivery-count": deliveryCount(delivery)},
		Body:          o.result,
	}
}

// deadLetter carries a message as it was, and why it failed.
func deadLetter(delivery *amqp.Delivery, o outcome, queue string) amqp.Publishing {
	headers := amqp.Table{}
	maps.Copy(headers, delivery.Headers)
	headers["ebbtide-reason"] = o.reason
	headers["ebbtide-exit-code"] = int32(o.exitCode)
	headers["ebbtide-queue"] = queue
	return amqp.Publishing{
		DeliveryMode: amqp.Persistent, Headers: headers, Body: delivery.Body,
		ContentType: delivery.ContentType, ContentEncoding: delivery.ContentEncoding, Priority: delivery.Priority,
		CorrelationId: delivery.CorrelationId, ReplyTo: delivery.ReplyTo, MessageId: delivery.MessageId,
		Timestamp: delivery.Timestamp, Type: delivery.Type, AppId: delivery.AppId,
	}
}
