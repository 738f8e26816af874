// own-worker is a worker of the guide docs/how-to/write-a-worker.md: it consumes one message at a time, acknowledges after the work, and leaves
// when the queue is empty or the pod has to stop.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// idleTimeout is how long the worker waits for a message before it leaves.
const idleTimeout = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := consume(ctx, os.Getenv("AMQP_URI"), os.Getenv("QUEUE"), idleTimeout, work); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// work is where your code goes. It returns when the result is stored.
func work(_ context.Context, body []byte) error {
	_, err := fmt.Printf("worked on %s\n", body)
	return err
}

// consume works on messages until none has come for the idle timeout, or the context ends.
func consume(ctx context.Context, uri, queue string, idle time.Duration, work func(context.Context, []byte) error) error {
	connection, err := amqp.Dial(uri)
	if err != nil {
		return err
	}
	defer connection.Close() // without an ack, the broker delivers the message again
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err := channel.Qos(1, 0, false); err != nil { // one message at a time
		return err
	}
	const tag, autoAck = "worker", false
	messages, err := channel.Consume(queue, tag, autoAck, false, false, false, nil)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done(): // between two messages: nothing is in progress
			return nil
		case <-time.After(idle):
			return nil
		case message, open := <-messages:
			if !open {
				return errors.New("the broker closed the channel")
			}
			if err := work(ctx, message.Body); err != nil {
				// To the dead-letter exchange. Do not requeue in a loop: count attempts, or let a retry queue delay them.
				if err := message.Nack(false, false); err != nil {
					return err
				}
				continue
			}
			if err := message.Ack(false); err != nil { // after the work: the job counts until here
				return err
			}
		}
	}
}
