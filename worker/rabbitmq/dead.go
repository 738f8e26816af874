package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/dead"
)

// DeadLetters reads a queue of messages that failed. It holds what it has read, so that no two replay the same letter, until it is closed;
// then what was not replayed is in the queue again.
type DeadLetters struct {
	connection *amqp.Connection
	channel    *amqp.Channel
	publishing *publishing
	queue      string
	current    amqp.Delivery
}

// OpenDeadLetters connects to a broker. The user needs to read the queue, and to write where letters are replayed to.
func OpenDeadLetters(uri, queue string, connectWithin time.Duration) (*DeadLetters, error) {
	if _, err := ParseURI(uri); err != nil {
		return nil, err
	}
	connection, err := dial(uri, amqp.Config{Heartbeat: 10 * time.Second}, connectWithin)
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	d := &DeadLetters{connection: connection, queue: queue}
	if d.channel, err = connection.Channel(); err == nil {
		d.publishing, err = newPublishing(connection, slog.New(slog.DiscardHandler))
	}
	if err != nil {
		connection.Close()
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	return d, nil
}

// Each calls visit with the letters that are in the queue now, the oldest first, until it returns false or an error.
func (d *DeadLetters) Each(ctx context.Context, visit func(dead.Letter) (bool, error)) error {
	state, err := d.channel.QueueDeclarePassive(d.queue, true, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("queue %q: %w", d.queue, err)
	}
	for range state.Messages {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		delivery, ok, err := d.channel.Get(d.queue, false)
		if err != nil {
			return fmt.Errorf("read queue %q: %w", d.queue, err)
		}
		if !ok {
			return nil // others read as well
		}
		d.current = delivery
		more, err := visit(letter(&delivery))
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func letter(delivery *amqp.Delivery) dead.Letter {
	l := dead.Letter{
		Key: worker.Identity(delivery.MessageId, worker.MaxIDBytes), Bytes: len(delivery.Body), Body: delivery.Body, Headers: map[string]string{},
	}
	l.Reason, _ = delivery.Headers[reasonHeader].(string)
	l.Result, _ = delivery.Headers[resultHeader].(string)
	l.Dropped, _ = delivery.Headers[droppedHeader].(string)
	l.Died = dead.Ended(l.Result)
	// A worker's letter has a result, and nothing of the broker's. The reason in another one, which the broker made, is that of an attempt before.
	if why := lastDeath(delivery.Headers); why != "" && l.Result == "" {
		if l.Reason != "" {
			why += "; an attempt before: " + l.Reason
		}
		l.Reason = "dead-lettered by the broker: " + why
	}
	for name, value := range delivery.Headers {
		if !brokerHeader(name) && !workersHeader(name) {
			l.Headers[name] = fmt.Sprint(value)
		}
	}
	return l
}

// lastDeath is why the broker dead-lettered a message last. Brokers before 3.13 say it only in a list, which begins with it.
func lastDeath(headers amqp.Table) string {
	deaths, _ := headers["x-death"].([]any)
	if len(deaths) == 0 {
		return ""
	}
	last, _ := deaths[0].(amqp.Table)
	why, _ := last["reason"].(string)
	return why
}

// Replay sends the letter that visit was called with to an exchange, as the producer sent it, and takes it out of the queue once a queue
// has it. The key is the producer's if it is empty. The end of ctx does not come between the two. A crash does: it leaves the letter in the queue
// though it was sent, and its result then has the same key as the one before.
func (d *DeadLetters) Replay(ctx context.Context, exchange, key string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if key == "" {
		key = routingKey(&d.current)
	}
	p := republished(&d.current, amqp.Table{}, d.connection.Config.FrameSize)
	maps.DeleteFunc(p.Headers, func(name string, _ any) bool { return workersHeader(name) || name == forwardedHeader })
	if err := d.publishing.publish(ctx, exchange, key, p); err != nil {
		return err
	}
	return d.current.Ack(false)
}

// Close ends the connection.
func (d *DeadLetters) Close() error { return d.connection.Close() }
