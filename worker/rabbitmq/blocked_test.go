package rabbitmq

import (
	"context"
	"log/slog"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	e2e "github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker"
)

// A broker that is short of memory takes nothing for a while. A result is with it after that, and no attempt is lost.
func TestIntegrationBlocked(t *testing.T) {
	broker := e2e.StartForTest(t)
	connection, err := amqp.Dial(broker.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	for _, queue := range []string{"scans", "results"} {
		if _, err := channel.QueueDeclare(queue, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := channel.PublishWithContext(t.Context(), "", "scans", false, false, amqp.Publishing{Body: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(t.Context(), Config{
		URI: broker.AMQPURL("/"), Queue: "scans", ConsumerTag: "worker", ResultRoutingKey: "results", ConnectTimeout: 10 * time.Second,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	q := opened.(*queue)
	message, err := q.Next(t.Context())
	if err != nil || message == nil {
		t.Fatalf("%v, %v", message, err)
	}
	watermark := func(fraction string) error {
		return broker.Control(context.WithoutCancel(t.Context()), "set_vm_memory_high_watermark", fraction)
	}
	if err := watermark("0.00001"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = watermark("0.4") }) // or the connection can't be closed
	q.publishing.within = 5 * time.Second
	stop, ended, published := make(chan struct{}), make(chan error, 1), 0
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if err := q.Publish(t.Context(), worker.Publication{Key: "one"}); err != nil {
				ended <- err
				return
			}
			published++
		}
	}()
	for deadline := time.Now().Add(time.Minute); !q.publishing.blocked.Load(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the broker does not block")
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("a worker does not wait for a broker that takes nothing: %v", err)
	case <-time.After(q.publishing.within + time.Second):
	}
	close(stop)
	if err := watermark("0.4"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := q.Ack(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	if state, err := channel.QueueDeclarePassive("results", true, false, false, false, nil); err != nil || state.Messages != published {
		t.Errorf("%d messages, %v, want %d", state.Messages, err, published)
	}
}
