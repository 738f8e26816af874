package rabbitmq_test

import (
	"context"
	"flag"
	"net/http"
	"net/url"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	e2e "github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/dead"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/topology"
)

// releases makes the tests of each release run, which take minutes: make rabbitmq-releases.
var releases = flag.Bool("releases", false, "test with each release of RabbitMQ that is installed")

// What a worker asks of a broker is the same with each release: long scans, retry queues, limits of tenants, dead letters that are
// looked at often. So is what an operator's policies, and a producer's messages, can do to it.
func TestReleases(t *testing.T) {
	if !*releases {
		t.Skip("make rabbitmq-releases")
	}
	for _, release := range e2e.Releases {
		t.Run(release.String(), func(t *testing.T) {
			c := e2e.StartClusterForTest(t, 1, e2e.Options{Release: release, Config: "consumer_timeout = 2000"})
			b := benchOf(t, c.Nodes[0])
			t.Run("consumer timeout", b.consumerTimeout)
			t.Run("retry delays", b.retryDelays)
			t.Run("tenant limit", b.tenantLimit)
			t.Run("held back", b.heldBack)
			t.Run("attempts after the default limit", b.moreAttemptsThanTheDefault)
			t.Run("dead letters", b.deadLettersStay)
			t.Run("policies of operators", b.policies)
			t.Run("hostile messages", b.everyMessageEnds)
		})
	}
}

// No default limit of the broker cuts attempts short, where the queue has none.
func (b *bench) moreAttemptsThanTheDefault(t *testing.T) {
	const attempts = 25
	b.declare(t)
	if _, err := b.channel.QueueDelete("scans", false, false, false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.channel.QueueDeclare("scans", true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}); err != nil {
		t.Fatal(err)
	}
	b.publish(t, "one")
	j := b.job("sh", "-c", "exit 75")
	j.MaxAttempts, j.MaxMessages, j.RetryDelays = attempts, attempts, []time.Duration{50 * time.Millisecond}
	if got, err := j.run(t.Context()); err != nil || got != (worker.Summary{Messages: attempts, Retried: attempts - 1, DeadLettered: 1, Ended: "messages"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// With the policy of the chart a dead letter can be looked at as often as anybody likes.
func (b *bench) deadLettersStay(t *testing.T) {
	management, err := url.Parse(b.broker.ManagementURL())
	if err != nil {
		t.Fatal(err)
	}
	if err := (topology.Broker{Client: http.DefaultClient, Management: management, VHost: "/"}).Apply(t.Context(), topology.Definitions{
		Policies: []topology.Policy{{
			Name: "letters", Pattern: "^letters$", ApplyTo: "queues", Definition: map[string]any{"delivery-limit": 1_000_000},
		}},
		Queues: []topology.Queue{{Name: "letters", Durable: true, Arguments: map[string]any{"x-queue-type": "quorum"}}},
	}); err != nil {
		t.Fatal(err)
	}
	confirmation, err := b.channel.PublishWithDeferredConfirm("", "letters", true, false, amqp.Publishing{MessageId: "one", DeliveryMode: amqp.Persistent})
	if err != nil {
		t.Fatal(err)
	}
	confirmation.Wait()
	for look := range 25 {
		b.await(t, "letters", 1, 0)
		letters, err := rabbitmq.OpenDeadLetters(b.broker.AMQPURL("/"), "letters", 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err = letters.Each(ctx, func(dead.Letter) (bool, error) { found++; return true, nil })
		cancel()
		if err != nil || found != 1 || letters.Close() != nil {
			t.Fatalf("look %d found %d letters, %v", look+1, found, err)
		}
	}
}
