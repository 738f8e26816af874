package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
)

// The worker holds one message at a time, acknowledges after the work, dead-letters what fails, and leaves when the queue is empty.
func TestIntegrationConsume(t *testing.T) {
	broker := rabbitmq.StartForTest(t)
	connection, err := amqp.Dial(broker.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	for _, queue := range []string{"scans", "dead"} {
		if _, err := channel.QueueDeclare(queue, true, false, false, false, amqp.Table{
			"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead",
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"a", "bad", "c"} {
		confirmed, err := channel.PublishWithDeferredConfirm("", "scans", false, false, amqp.Publishing{Body: []byte(body)})
		if err != nil || !confirmed.Wait() {
			t.Fatal(body, err)
		}
	}

	ready := func(queue string) int {
		state, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			t.Error(err)
		}
		return state.Messages
	}
	var worked []string
	var waiting []int
	err = consume(t.Context(), broker.AMQPURL("/"), "scans", time.Second, func(_ context.Context, body []byte) error {
		worked, waiting = append(worked, string(body)), append(waiting, ready("scans"))
		if string(body) == "bad" {
			return errors.New("can't be scanned")
		}
		return nil
	})
	if err != nil || !slices.Equal(worked, []string{"a", "bad", "c"}) || !slices.Equal(waiting, []int{2, 1, 0}) {
		t.Errorf("worked on %q with %v waiting: %v", worked, waiting, err)
	}
	letters, err := channel.Consume("dead", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if letter := <-letters; string(letter.Body) != "bad" {
		t.Errorf("dead letter %q", letter.Body)
	}
}
