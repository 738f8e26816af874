package rabbitmq_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker/dead"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/topology"
)

func TestIntegrationPolicies(t *testing.T) { newBench(t).policies(t) }

// Operators have their own policies for queues, and RabbitMQ 4 has a delivery limit without any. In all cases, a message that fails is among the dead
// letters, once, with the reason of its last attempt, or with what the broker says.
func (b *bench) policies(t *testing.T) {
	const (
		delay     = 50 * time.Millisecond
		exited    = "the command exited with 75, which asks for another attempt"
		byLimit   = "dead-lettered by the broker: delivery_limit"
		byCommand = exited + "; it was attempt "
	)
	retry := rabbitmq.RetryQueue("scans", delay)
	management, err := url.Parse(b.broker.ManagementURL())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		pattern string // of the policy's queues; empty: there is no policy
		policy  map[string]any
		dead    bool // the queue itself has a dead-letter exchange
		setup   func(*job)
		// lost is how many workers die with the message after its first attempt.
		lost int
		// want is the beginning of the reason: one of these.
		want []string
	}{
		"a limit, and attempts with delays": {
			pattern: "^scans$", policy: map[string]any{"delivery-limit": 2}, want: []string{byCommand + "5 of 5"},
			setup: func(j *job) { j.MaxAttempts, j.RetryDelays = 5, []time.Duration{delay} },
		},
		"a limit and dead letters, and attempts without delays": {
			// RabbitMQ 4.3 does not count what a worker requeues.
			pattern: "^scans$", policy: map[string]any{"delivery-limit": 2, "dead-letter-exchange": "dead"}, want: []string{byLimit, byCommand + "5 of 5"},
			setup: func(j *job) { j.MaxAttempts = 5 },
		},
		"a limit, dead letters and a routing key for all queues, retry queues too": {
			pattern: ".*", policy: map[string]any{"delivery-limit": 2, "dead-letter-exchange": "others", "dead-letter-routing-key": "others"},
			want:  []string{byCommand + "5 of 5"},
			setup: func(j *job) { j.MaxAttempts, j.RetryDelays = 5, []time.Duration{delay} },
		},
		"dead letters, and a worker that has no exchange for them": {
			pattern: "^scans$", policy: map[string]any{"dead-letter-exchange": "dead"}, want: []string{"dead-lettered by the broker: rejected"},
			setup: func(j *job) { j.MaxAttempts, j.queue.DeadLetterExchange = 1, "" },
		},
		"a limit and dead letters, and workers that die": {
			pattern: "^scans$", policy: map[string]any{"delivery-limit": 2, "dead-letter-exchange": "dead"}, lost: 3,
			want:  []string{byLimit + "; an attempt before: " + exited, "attempt 4 of 4 ended without an answer"},
			setup: func(j *job) { j.MaxAttempts, j.RetryDelays = 4, []time.Duration{delay} },
		},
		"no policy, and more attempts than the default limit": {
			dead: true, want: []string{byLimit, byCommand + "25 of 25"}, setup: func(j *job) { j.MaxAttempts = 25 },
		},
		"no policy, and more attempts with delays than the default limit": {
			want:  []string{byCommand + "25 of 25"},
			setup: func(j *job) { j.MaxAttempts, j.RetryDelays = 25, []time.Duration{delay} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			b.declare(t)
			for _, queue := range []string{"scans", retry, "others"} {
				if _, err := b.channel.QueueDelete(queue, false, false, false); err != nil {
					t.Fatal(err)
				}
			}
			if c.pattern != "" {
				policy := topology.Policy{Name: "operators", Pattern: c.pattern, ApplyTo: "queues", Definition: c.policy}
				broker := topology.Broker{Client: http.DefaultClient, Management: management, VHost: "/"}
				if err := broker.Apply(t.Context(), topology.Definitions{Policies: []topology.Policy{policy}}); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := b.broker.Control(t.Context(), "clear_policy", "operators"); err != nil {
						t.Error(err)
					}
				}()
			}
			arguments := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}
			if c.dead {
				arguments["x-dead-letter-exchange"] = "dead"
			}
			for queue, arguments := range map[string]amqp.Table{"scans": arguments, retry: rabbitmq.RetryArguments("scans", delay), "others": nil} {
				if _, err := b.channel.QueueDeclare(queue, true, false, false, false, arguments); err != nil {
					t.Fatal(err)
				}
			}
			err := errors.Join(
				b.channel.ExchangeDeclare("others", amqp.ExchangeFanout, true, false, false, false, nil),
				b.channel.QueueBind("others", "", "others", false, nil))
			if err != nil {
				t.Fatal(err)
			}
			b.publish(t, "one")

			j := b.job("sh", "-c", "exit 75")
			c.setup(&j)
			if c.lost > 0 {
				if got, err := j.run(t.Context()); err != nil || got.Retried != 1 {
					t.Fatalf("%+v, %v", got, err)
				}
			}
			for range c.lost {
				b.lose(t, j)
			}
			b.runUntil(t, j, "dead", 1)
			for _, queue := range []string{"scans", retry, "others"} {
				b.await(t, queue, 0, 0)
			}
			letter := b.onlyLetter(t)
			if letter.Key != "id-one" || !slices.ContainsFunc(c.want, func(beginning string) bool { return strings.HasPrefix(letter.Reason, beginning) }) {
				t.Errorf("letter %+v, want a reason of %q", letter, c.want)
			}
		})
	}
}

// lose has a worker die that has a message.
func (b *bench) lose(t *testing.T, j job) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	queue, err := rabbitmq.Open(ctx, j.queue)
	if err != nil {
		t.Fatal(err)
	}
	message, err := queue.Next(ctx)
	if err != nil || message == nil {
		t.Fatalf("%v, %v", message, err)
	}
	if err := queue.Close(); err != nil {
		t.Fatal(err)
	}
}

// onlyLetter is what is among the dead letters.
func (b *bench) onlyLetter(t *testing.T) (letter dead.Letter) {
	t.Helper()
	letters, err := rabbitmq.OpenDeadLetters(b.broker.AMQPURL("/"), "dead", within)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	err = letters.Each(t.Context(), func(l dead.Letter) (bool, error) { letter = l; found++; return true, nil })
	if err = errors.Join(err, letters.Close()); err != nil || found != 1 {
		t.Fatalf("%d dead letters, %v; want 1", found, err)
	}
	return letter
}
