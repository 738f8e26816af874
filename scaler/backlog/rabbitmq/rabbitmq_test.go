package rabbitmq

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// fresh asks the broker every time.
const fresh = time.Duration(0)

func channel(t *testing.T, b *rabbitmq.Broker) *amqp.Channel {
	t.Helper()
	connection, err := amqp.Dial(b.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	ch, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return ch
}

func declare(t *testing.T, ch *amqp.Channel, queue, kind string) {
	t.Helper()
	if _, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{amqp.QueueTypeArg: kind}); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, ch *amqp.Channel, queue string, n int) {
	t.Helper()
	for range n {
		confirmation, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{DeliveryMode: amqp.Persistent})
		if err != nil {
			t.Fatal(err)
		}
		confirmation.Wait()
	}
}

func open(t *testing.T, maxAge time.Duration, queues Queues) backlog.Source {
	t.Helper()
	source, err := NewBrokers(maxAge, 5*time.Second, time.Now).Open(queues)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSource(t, source) })
	return source
}

func closeSource(t *testing.T, source backlog.Source) {
	t.Helper()
	if err := source.Close(); err != nil {
		t.Error(err)
	}
}

// observe waits until the source sees want, leaving the time aside.
func observe(t *testing.T, source backlog.Source, want target.Observation) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := source.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got.Time = time.Time{}
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("observation (-want +got):\n%s", cmp.Diff(want, got))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestIntegrationObserve(t *testing.T) {
	b := rabbitmq.StartForTest(t)
	ch := channel(t, b)
	for _, kind := range []string{amqp.QueueTypeClassic, amqp.QueueTypeQuorum} {
		t.Run(kind, func(t *testing.T) {
			declare(t, ch, kind, kind)
			declare(t, ch, kind+"-2", kind)
			publish(t, ch, kind, 5)
			publish(t, ch, kind+"-2", 2)
			one := open(t, fresh, Queues{URI: b.AMQPURL("/"), Names: []string{kind}})
			both := open(t, fresh, Queues{
				URI: b.AMQPURL("/"), ManagementURI: b.ManagementURL(), Names: []string{kind, kind + "-2", "not-declared"}, OtherConsumers: 1,
			})
			observe(t, one, target.Observation{Ready: 5})
			observe(t, both, target.Observation{Ready: 7})

			// Two consumers, one of them not the workload's; each holds one message.
			workers := channel(t, b)
			if err := workers.Qos(1, 0, false); err != nil {
				t.Fatal(err)
			}
			held := []amqp.Delivery{consume(t, workers, kind), consume(t, workers, kind)}
			observe(t, one, target.Observation{Ready: 3, Consumers: 2})
			observe(t, both, target.Observation{Ready: 5, Consumers: 1})

			// With nothing left to wait, the management API says how many are busy.
			for _, queue := range []string{kind, kind + "-2"} {
				if _, err := ch.QueuePurge(queue, false); err != nil {
					t.Fatal(err)
				}
			}
			observe(t, one, target.Observation{Consumers: 2})
			observe(t, both, target.Observation{Consumers: 1, Unacknowledged: 2, UnacknowledgedKnown: true})
			for _, delivery := range held {
				if err := delivery.Ack(false); err != nil {
					t.Fatal(err)
				}
			}
		})
	}

	t.Run("missing queue", func(t *testing.T) {
		lenient := open(t, fresh, Queues{URI: b.AMQPURL("/"), Names: []string{"nobody-declared-it"}})
		observe(t, lenient, target.Observation{})
		strict := open(t, fresh, Queues{URI: b.AMQPURL("/"), Names: []string{"nobody-declared-it"}, FailIfMissing: true})
		_, err := strict.Observe(t.Context())
		if err == nil || !strings.Contains(err.Error(), `queue "nobody-declared-it": there is no such queue`) {
			t.Errorf("error %v", err)
		}
		// The failure closed the channel, not the source.
		declare(t, ch, "nobody-declared-it", amqp.QueueTypeClassic)
		observe(t, strict, target.Observation{})
	})

	t.Run("one connection for all", func(t *testing.T) {
		brokers := NewBrokers(fresh, 5*time.Second, time.Now)
		var wait sync.WaitGroup
		for range 20 {
			source, err := brokers.Open(Queues{URI: b.AMQPURL("/"), Names: []string{amqp.QueueTypeClassic}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeSource(t, source) })
			wait.Go(func() {
				if _, err := source.Observe(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if len(brokers.brokers) != 1 {
			t.Errorf("%d connections for one broker and identity", len(brokers.brokers))
		}
	})

	t.Run("fresh samples are shared", func(t *testing.T) {
		source := open(t, time.Hour, Queues{URI: b.AMQPURL("/"), Names: []string{amqp.QueueTypeClassic}})
		first, err := source.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		publish(t, ch, amqp.QueueTypeClassic, 1)
		second, err := source.Observe(t.Context())
		if err != nil || first != second {
			t.Errorf("a fresh sample was taken again: %v, then %v (%v)", first, second, err)
		}
	})

	t.Run("crash and return", func(t *testing.T) {
		source := open(t, fresh, Queues{URI: b.AMQPURL("/"), Names: []string{amqp.QueueTypeQuorum}})
		observe(t, source, target.Observation{})
		b.Crash()
		deadline := time.Now().Add(10 * time.Second)
		for {
			if _, err := source.Observe(t.Context()); err != nil {
				if strings.Contains(err.Error(), "guest:guest") {
					t.Errorf("the error gives the password away: %v", err)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a broker that is gone is still observed")
			}
		}
		if err := b.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := source.Observe(t.Context()); err == nil {
				return
			}
			if time.Now().After(deadline.Add(time.Minute)) {
				t.Fatal("a broker that is back is not observed")
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

func consume(t *testing.T, ch *amqp.Channel, queue string) amqp.Delivery {
	t.Helper()
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case delivery := <-deliveries:
		return delivery
	case <-time.After(10 * time.Second):
		t.Fatal("no delivery")
		return amqp.Delivery{}
	}
}

func TestOpenErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		queues Queues
		want   string
	}{
		"scheme":     {Queues{URI: "http://broker"}, "must look like amqp://user:password@host:5672/vhost"},
		"management": {Queues{URI: "amqp://broker", ManagementURI: "broker:15672"}, "managementURI must look like http://"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewBrokers(fresh, time.Second, time.Now).Open(tc.queues)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// A broker that accepts connections and says nothing costs a caller its timeout, not more.
func TestObserveIsBounded(t *testing.T) {
	address := silentListener(t)
	source, err := NewBrokers(fresh, 300*time.Millisecond, time.Now).Open(Queues{URI: "amqp://u:secret@" + address, Names: []string{"q"}})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err = source.Observe(context.Background())
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}
