package worker

import (
	"context"
	"errors"
	"time"

	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// Message is what a queue delivers.
type Message struct {
	// Key tells the message from all others, and is the same each time it is delivered: the producer's id for it where there is one.
	Key string
	// ID, CorrelationID, ContentType and RoutingKey are the producer's. Any may be empty.
	ID, CorrelationID, ContentType, RoutingKey string
	// Headers that have a value which can be printed. HeaderBytes is the size of all.
	Headers     map[string]string
	HeaderBytes int
	Body        []byte
	// Queued is when the message was sent, as far as it says.
	Queued time.Time
	// Attempt is 1 when the message is delivered for the first time. An attempt counts however it ended, be it with a killed worker.
	Attempt int
	// Claimed attempts are those of Attempt that the message's own header says, which anybody can write.
	Claimed int
	// LastReason is why the attempt before this one failed, where that is known.
	LastReason string
	// Held ends, with the cause, when the message is no longer this worker's: the broker will give it to another.
	Held context.Context
}

// Publication is a result, ready to be sent.
type Publication struct {
	// Key of the result, and the scan that it belongs to.
	Key, Scan   string
	ContentType results.Format
	Body        []byte
}

// DeadLetter says why a message failed.
type DeadLetter struct {
	// Reason is for a person; Result the whole result in JSON, without content.
	Reason, Result string
}

// Attempt is another one that is asked for.
type Attempt struct {
	// Number of the attempt that failed, from 1, and why it did.
	Number int
	Reason string
	// After is how long to wait. A queue that has no place to wait in does what it can.
	After time.Duration
}

// ErrNoLarger is the error of a message that nobody with more memory takes.
var ErrNoLarger = errors.New("no workers with more memory are set")

// Queue delivers messages, one at a time, and acks, retries or dead-letters them. Each of the packages under this one knows one kind of broker.
//
// One of Ack, Retry, DeadLetter and GiveBack is called for a message that Next returned before Next is called again. Next and
// these are called by one goroutine at a time. Each error tells a person what to do, and holds no credentials.
type Queue interface {
	// Name of the queue or topic, for people.
	Name() string
	// Next waits for a message. It returns neither message nor error once Leave was called and no message is on its way.
	Next(ctx context.Context) (*Message, error)
	// Leave says that no message is wanted any more. One that is on its way arrives by Next nevertheless.
	Leave() error
	// Publish returns once the broker has the result for good. The error of one that the broker takes at no size like this is TooLarge.
	Publish(ctx context.Context, result Publication) error
	// Ack says that the message is done.
	Ack(ctx context.Context, message *Message) error
	// Retry asks for another attempt, and is done with this one.
	Retry(ctx context.Context, message *Message, again Attempt) error
	// Forward hands the message to workers with more memory, with its attempts counted from 0. ErrNoLarger is the error where there are none,
	// or where these are those: then nothing has happened to the message.
	Forward(ctx context.Context, message *Message, why Attempt) error
	// DeadLetter puts the message, as it was, where failed ones are kept, and is done with it. What it adds is cut so that it fits.
	DeadLetter(ctx context.Context, message *Message, letter DeadLetter) error
	// GiveBack leaves the message to another worker, unless the broker has requeued it by itself.
	GiveBack(message *Message)
	// Close ends the connection.
	Close() error
}
