package rabbitmq

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A node keeps what it confirmed through a crash, and two nodes do not meet.
func TestIntegrationBroker(t *testing.T) {
	first, second := StartForTest(t), StartForTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	publish(t, first, "kept")
	// The broker writes its metadata a moment after it says that a queue is declared.
	if err := first.Control(ctx, "eval", "mnesia:sync_log()."); err != nil {
		t.Fatal(err)
	}
	if got := depth(t, second, "kept"); got != -1 {
		t.Errorf("the second broker has the first one's queue, with %d messages", got)
	}
	first.Crash()
	if err := first.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if got := depth(t, first, "kept"); got != 1 {
		t.Errorf("%d messages after a crash, want 1", got)
	}
}

func publish(t *testing.T, b *Broker, queue string) {
	t.Helper()
	channel := open(t, b)
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	if _, err := channel.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	confirm, err := channel.PublishWithDeferredConfirm("", queue, true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	if !confirm.Wait() {
		t.Fatal("the broker refused the message")
	}
}

// depth is the number of ready messages, or -1 when the queue does not exist.
func depth(t *testing.T, b *Broker, queue string) int {
	t.Helper()
	state, err := open(t, b).QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Log(err)
		return -1
	}
	return state.Messages
}

func open(t *testing.T, b *Broker) *amqp.Channel {
	t.Helper()
	connection, err := amqp.Dial(b.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return channel
}
