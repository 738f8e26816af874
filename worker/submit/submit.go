// Package submit publishes messages for workers and waits for the complete result of each: it tries a scan queue from end to end.
package submit

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// Message to publish.
type Message struct {
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers,omitempty"`
	// Contains is a part that the content of a result must have; empty: any result is right.
	Contains string `json:"contains,omitempty"`
}

// Read reads messages: a JSON array.
func Read(r io.Reader) ([]Message, error) {
	var messages []Message
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&messages); err != nil {
		return nil, fmt.Errorf(`messages must be a JSON array such as [{"body": "...", "contains": "..."}]: %w`, err)
	}
	if len(messages) == 0 {
		return nil, errors.New("there is no message")
	}
	return messages, nil
}

// Exchanges of a scan queue.
type Exchanges struct {
	// Messages is where messages are published, with the RoutingKey.
	Messages, RoutingKey string
	// Results and DeadLetters are where workers publish.
	Results, DeadLetters string
}

// Outcome is how a message ended.
type Outcome struct {
	ID      string
	Message Message
	// Result of all engines; nil for a message that the broker gave up without one.
	Result *resultsv1alpha1.ScanResult
	// Wrong says why it is not as it should be; empty: it is.
	Wrong string
	// After is the time from its publishing to its end.
	After time.Duration
}

// Run publishes the messages and waits until each has ended. Done is called with each outcome as it comes. An error means that some have
// not ended.
func Run(ctx context.Context, connection *amqp.Connection, exchanges Exchanges, messages []Message, done func(Outcome)) error {
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = channel.Close() }()
	if err := channel.Confirm(false); err != nil {
		return err
	}
	name, begin := "submit-"+rand.Text(), time.Now()
	ends, stop, err := listen(channel, name+".results", exchanges.Results)
	if err != nil {
		return fmt.Errorf("listen to exchange %q: %w", exchanges.Results, err)
	}
	defer stop()
	dead, stop, err := listen(channel, name+".dead", exchanges.DeadLetters)
	if err != nil {
		return fmt.Errorf("listen to exchange %q: %w", exchanges.DeadLetters, err)
	}
	defer stop()
	open := map[string]Message{}
	for i, m := range messages {
		id := fmt.Sprintf("%s-%d", name, i)
		open[id] = m
		if err := publish(ctx, channel, exchanges, id, m); err != nil {
			return fmt.Errorf("publish to exchange %q: %w", exchanges.Messages, err)
		}
	}
	var join results.Join
	for len(open) > 0 {
		var o Outcome
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %d of %d messages have no complete result", context.Cause(ctx), len(open), len(messages))
		case d, ok := <-ends:
			if !ok {
				return errLost
			}
			r, err := results.Unmarshal(d.ContentType, d.Body)
			if err != nil {
				return err
			}
			if o.Result = join.Add(time.Now(), r); o.Result == nil {
				continue // not complete
			}
			o.ID = o.Result.GetScan()
			o.Wrong = wrong(o.Result, open[o.ID])
		case d, ok := <-dead:
			if !ok {
				return errLost
			}
			reason, _ := d.Headers["ebbtide-reason"].(string)
			o.ID, o.Wrong = d.MessageId, "it is a dead letter: "+cmp.Or(reason, "delivered too often")
		}
		var ours bool
		if o.Message, ours = open[o.ID]; !ours {
			continue // somebody else's, or one that has ended
		}
		delete(open, o.ID)
		o.After = time.Since(begin)
		done(o)
	}
	return nil
}

var errLost = errors.New("the connection to the broker was lost")

// wrong says what is wrong with the result of a message.
func wrong(scan *resultsv1alpha1.ScanResult, m Message) string {
	var content []string
	for _, r := range scan.GetResults() {
		if r.GetStatus() != resultsv1alpha1.Status_STATUS_SUCCEEDED {
			return strings.TrimPrefix(fmt.Sprintf("engine %s: %s", r.GetEngine(), r.GetReason()), "engine : ")
		}
		content = append(content, r.GetText()+string(r.GetData()))
	}
	if !strings.Contains(strings.Join(content, "\n"), m.Contains) {
		return fmt.Sprintf("%q is not in its result", m.Contains)
	}
	return ""
}

// listen takes what an exchange gets from now on, until stop. The queue for it is removed by the broker when it was not used for a while,
// and not at once: a queue that goes while a worker publishes makes the broker refuse what is published, and the worker scan again.
func listen(channel *amqp.Channel, queue, exchange string) (deliveries <-chan amqp.Delivery, stop func(), err error) {
	if _, err := channel.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-expires": time.Minute.Milliseconds()}); err != nil {
		return nil, nil, err
	}
	if err := channel.QueueBind(queue, "#", exchange, false, nil); err != nil {
		return nil, nil, err
	}
	stop = func() { _ = channel.QueueUnbind(queue, "#", exchange, nil) } // without a connection there is nothing to do
	deliveries, err = channel.Consume(queue, "", true, true, false, false, nil)
	return deliveries, stop, err
}

// publish returns once a queue has the message.
func publish(ctx context.Context, channel *amqp.Channel, exchanges Exchanges, id string, m Message) error {
	headers := amqp.Table{}
	for name, value := range m.Headers {
		headers[name] = value
	}
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, exchanges.Messages, exchanges.RoutingKey, true, false, amqp.Publishing{
		DeliveryMode: amqp.Persistent, MessageId: id, CorrelationId: id, Timestamp: time.Now(), Headers: headers, Body: []byte(m.Body),
	})
	if err != nil {
		return err
	}
	confirmed, err := confirmation.WaitContext(ctx)
	if err != nil {
		return err
	}
	select {
	case <-returned: // before the confirmation
		return errors.New("no queue is bound to it: was the topology applied?")
	default:
	}
	if !confirmed {
		return errors.New("the broker refuses it: is a queue at its limit?")
	}
	return nil
}
