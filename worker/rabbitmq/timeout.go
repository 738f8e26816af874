package rabbitmq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A broker closes the channel of a consumer that has not acked a message within its consumer_timeout, 30 minutes unless it is told
// otherwise, and gives the message to another. It can't know that the worker is alive and bounds its command itself.
//
// From 3.11.15 on a consumer can say how long it takes. Before that the worker consumes again at once: the broker puts the message back to
// where it was, at the head, and feeds consumers by their priority, so that it usually comes back to the worker that has it, and the
// command runs on.

// consumerTimeout is longer than any scan. The broker's timers hold 49 days.
const consumerTimeout = 30 * 24 * time.Hour

// reclaimWithin is how long it may take until a message is delivered again.
const reclaimWithin = 5 * time.Second

// knowsConsumerTimeout reports whether a broker's consumers can say how long they take.
func knowsConsumerTimeout(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 3 {
		return false
	}
	var n [3]int
	for i, part := range parts {
		digits := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 0 {
			digits = len(part)
		}
		var err error
		if n[i], err = strconv.Atoi(part[:digits]); err != nil {
			return false
		}
	}
	return n[0] > 3 || n[0] == 3 && (n[1] > 11 || n[1] == 11 && n[2] >= 15)
}

var timeoutValue = regexp.MustCompile(`[Tt]imeout value used: (\d+) ms`)

// timedOut reports whether a channel was closed by the consumer_timeout, and how long that is, as far as the broker says.
func timedOut(end *amqp.Error) (limit string, ok bool) {
	if end == nil || end.Code != amqp.PreconditionFailed || !strings.Contains(end.Reason, "timed out") {
		return "", false
	}
	if value := timeoutValue.FindStringSubmatch(end.Reason); value != nil {
		if ms, err := strconv.Atoi(value[1]); err == nil {
			return brief(time.Duration(ms) * time.Millisecond), true
		}
	}
	return "unknown length", true
}

// onChannel runs op, which uses the consumer's channel, with mu. If the channel is closed by then because the consumer_timeout was over,
// op runs once more when the message was taken again.
func (q *queue) onChannel(op func() error) error {
	for {
		q.mu.Lock()
		replaced := q.replaced
		err := op()
		closed := q.channel.IsClosed()
		q.mu.Unlock()
		if err == nil || !closed {
			return err
		}
		select {
		case <-replaced:
		case <-q.held.Done():
			return context.Cause(q.held)
		}
	}
}

// reclaim becomes a consumer again and takes the message that is being worked on.
func (q *queue) reclaim() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.consume(); err != nil {
		return err
	}
	// A message that is not worked on was acked just then. If the broker did not hear of that, the message comes once more.
	if q.working {
		if err := q.takeAgain(); err != nil {
			return err
		}
	} else if q.left {
		if err := q.channel.Cancel(q.config.ConsumerTag, false); err != nil {
			return err
		}
	}
	close(q.replaced)
	q.replaced = make(chan struct{})
	return nil
}

// takeAgain waits for the message that is being worked on.
func (q *queue) takeAgain() error {
	select {
	case delivery, open := <-q.deliveries:
		if !open {
			return errors.New("the broker ended the consumer")
		}
		if delivery.MessageId != q.current.MessageId || !bytes.Equal(delivery.Body, q.current.Body) {
			_ = delivery.Nack(false, true) // lost, and so is the channel soon
			return errors.New("another worker has it")
		}
		q.current = delivery
	case <-time.After(reclaimWithin):
		return fmt.Errorf("it did not come back within %s", reclaimWithin)
	}
	q.config.Log.Info("the broker's consumer_timeout was over; the message was taken again and its scan runs on", "message", q.current.MessageId)
	return nil
}
