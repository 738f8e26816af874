package rabbitmq

import (
	"log/slog"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	e2e "github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
)

// The consumer_timeout may be over at any moment, also while the worker acks its message. Nothing is told
// to the channel that was closed.
func TestIntegrationConsumerTimeoutWhileSettling(t *testing.T) {
	broker := e2e.StartForTest(t, "consumer_timeout = 1000")
	if err := broker.Control(t.Context(), "eval", "application:set_env(rabbit, channel_tick_interval, 1000)."); err != nil {
		t.Fatal(err)
	}
	connection, err := amqp.Dial(broker.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channel.QueueDeclare("scans", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(t.Context(), Config{
		URI: broker.AMQPURL("/"), Queue: "scans", ConsumerTag: "worker", ConnectTimeout: 10 * time.Second, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	q := opened.(*queue)
	next := func(body string) {
		t.Helper()
		if err := channel.Publish("", "scans", false, false, amqp.Publishing{Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
		if message, err := q.Next(t.Context()); err != nil || message == nil || string(message.Body) != body {
			t.Fatalf("%v, %v", message, err)
		}
	}
	// closed waits, as a worker does that is not scheduled for a while, until the broker has closed the channel.
	closed := func() {
		for !q.channel.IsClosed() {
			time.Sleep(10 * time.Millisecond)
		}
	}
	late := func(settle func(*amqp.Delivery) error) error {
		first := true
		return q.settle(func(d *amqp.Delivery) error {
			if first {
				closed()
			}
			first = false
			return settle(d)
		})
	}

	next("acknowledged late")
	if err := late(func(d *amqp.Delivery) error { return d.Ack(false) }); err != nil {
		t.Error(err)
	}
	next("put back late")
	if err := late(func(d *amqp.Delivery) error { return d.Nack(false, true) }); err != nil {
		t.Error(err)
	}
	if message, err := q.Next(t.Context()); err != nil || message == nil || string(message.Body) != "put back late" {
		t.Fatalf("%v, %v", message, err)
	}
	if err := q.Leave(); err != nil {
		t.Error(err)
	}
	// A later broker forgets a consumer's own limit with the consumer.
	if state, err := channel.QueueDeclarePassive("scans", true, false, false, false, nil); err != nil || state.Consumers != 1 {
		t.Errorf("%+v, %v: want a consumer until the message is settled", state, err)
	}
	if err := late(func(d *amqp.Delivery) error { return d.Ack(false) }); err != nil {
		t.Error(err)
	}
	if message, err := q.Next(t.Context()); err != nil || message != nil {
		t.Errorf("after it has left: %v, %v", message, err)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	if state, err := channel.QueueDeclarePassive("scans", true, false, false, false, nil); err != nil || state.Messages != 0 || state.Consumers != 0 {
		t.Errorf("%+v, %v: want no message and no consumer", state, err)
	}
}
