package rabbitmq_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
	"google.golang.org/protobuf/proto"

	e2e "github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// bench is a broker with the queues of a scan service.
type bench struct {
	broker  *e2e.Broker
	channel *amqp.Channel
}

func newBench(t *testing.T, config ...string) *bench {
	t.Helper()
	return benchOf(t, e2e.StartForTest(t, config...))
}

func benchOf(t *testing.T, broker *e2e.Broker) *bench {
	t.Helper()
	b := &bench{broker: broker}
	connection, err := amqp.Dial(b.broker.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	if b.channel, err = connection.Channel(); err != nil {
		t.Fatal(err)
	}
	if err := b.channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return b
}

// declare makes a fresh quorum queue scans with a delivery limit of 2, and queues for results and dead letters.
func (b *bench) declare(t *testing.T) {
	t.Helper()
	for _, queue := range []string{"scans", "results", "dead"} {
		if _, err := b.channel.QueueDelete(queue, false, false, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, exchange := range []string{"results", "dead"} {
		err := errors.Join(
			b.channel.ExchangeDeclare(exchange, amqp.ExchangeFanout, true, false, false, false, nil),
			func() error { _, err := b.channel.QueueDeclare(exchange, true, false, false, false, nil); return err }(),
			b.channel.QueueBind(exchange, "", exchange, false, nil))
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.channel.QueueDeclare("scans", true, false, false, false, amqp.Table{
		amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-delivery-limit": 2, "x-dead-letter-exchange": "dead",
	}); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) publish(t *testing.T, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		confirmation, err := b.channel.PublishWithDeferredConfirm("", "scans", true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: "id-" + body, Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		confirmation.Wait()
	}
}

// within is how long to wait for what comes in a moment, on any machine.
const within = time.Minute

// take returns the next message of a queue.
func (b *bench) take(t *testing.T, queue string) amqp.Delivery {
	t.Helper()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		delivery, ok, err := b.channel.Get(queue, true)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return delivery
		}
	}
	t.Fatalf("nothing in queue %s", queue)
	return amqp.Delivery{}
}

// await waits until a queue has so many ready messages and consumers.
func (b *bench) await(t *testing.T, queue string, messages, consumers int) {
	t.Helper()
	var state amqp.Queue
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if state, err = b.channel.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		if state.Messages == messages && state.Consumers == consumers {
			return
		}
	}
	t.Fatalf("queue %s has %d messages and %d consumers, want %d and %d", queue, state.Messages, state.Consumers, messages, consumers)
}

// job is a worker on the bench's queue.
type job struct {
	worker.Config
	queue rabbitmq.Config
}

func (b *bench) job(command ...string) job {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	return job{
		Config: worker.Config{
			Name: "test", Command: command, Endings: worker.DefaultEndings(), ResultFormat: results.JSON, ResultLimit: 1 << 20, ResultMaxBytes: 1 << 20,
			MaxMessages: 1, IdleTimeout: within, GracePeriod: 10 * time.Second, Log: log,
		},
		queue: rabbitmq.Config{
			URI: b.broker.AMQPURL("/"), Queue: "scans", ConsumerTag: "test", ResultExchange: "results", DeadLetterExchange: "dead",
			ConnectTimeout: 5 * time.Second, Log: log,
		},
	}
}

// run says what the worker did, but not how long it took.
func (j job) run(ctx context.Context) (worker.Summary, error) {
	summary, err := j.timed(ctx)
	return summary.Untimed(), err
}

func (j job) timed(ctx context.Context) (worker.Summary, error) {
	queue, err := rabbitmq.Open(ctx, j.queue)
	if err != nil {
		return worker.Summary{}, err
	}
	defer func() { _ = queue.Close() }() // the broker may be gone
	return worker.Run(ctx, j.Config, queue, time.Now())
}

// runUntil runs a worker until a queue has so many messages, and has it stop then. It fails if none comes for minutes; a worker that ends when it
// has been idle would end early on a slow machine.
func (b *bench) runUntil(t *testing.T, j job, queue string, messages int) (got worker.Summary) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	j.MaxMessages, j.IdleTimeout = 0, time.Hour
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		got, err = j.run(ctx)
	}()
	for last, since := -1, time.Now(); ; {
		state, wrong := b.channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		if wrong != nil {
			t.Fatal(wrong)
		}
		if state.Messages >= messages {
			break
		}
		if state.Messages != last {
			last, since = state.Messages, time.Now()
		}
		if time.Since(since) > 3*time.Minute {
			t.Fatalf("queue %s has %d messages, and no more come; want %d", queue, last, messages)
		}
		select {
		case <-ended:
			t.Fatalf("queue %s has %d messages, want %d, and the worker ended: %+v, %v", queue, last, messages, got, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	stop()
	if <-ended; err != nil || got.Ended != "stopped" {
		t.Fatalf("%+v, %v", got, err)
	}
	return got
}

// result takes a result.
func (b *bench) result(t *testing.T) *resultsv1alpha1.Result {
	t.Helper()
	message := b.take(t, "results")
	result, err := results.Unmarshal(message.ContentType, message.Body)
	if err != nil {
		t.Fatal(err)
	}
	if message.MessageId != result.GetKey() || message.Type != results.Type || message.CorrelationId != result.GetScan() {
		t.Errorf("message %q of type %q, correlation %q, holds result %v", message.MessageId, message.Type, message.CorrelationId, result)
	}
	return result
}

// onceStarted is a command that sleeps, and calls f once it runs: a fixed delay would race with a busy machine.
func onceStarted(t *testing.T, seconds string, f func()) []string {
	t.Helper()
	started := filepath.Join(t.TempDir(), "started")
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	go func() {
		defer close(done)
		for t.Context().Err() == nil {
			if _, err := os.Stat(started); err == nil {
				f()
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return []string{"sh", "-c", "touch " + started + "; exec sleep " + seconds}
}

func TestIntegrationRun(t *testing.T) {
	b := newBench(t)
	run := func(t *testing.T, c job, want worker.Summary) {
		t.Helper()
		got, err := c.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("summary (-want +got):\n%s", diff)
		}
	}
	cases := map[string]func(*testing.T){
		"a result": func(t *testing.T) {
			b.publish(t, "one", "two")
			run(t, b.job("tr", "a-z", "A-Z"), worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"})
			if r := b.result(t); r.GetText() != "ONE" || r.GetKey() != "id-one" || r.GetScan() != "id-one" || r.GetAttempt() != 1 || r.GetQueue() != "scans" {
				t.Errorf("result %v", r)
			}
			// The second message was never delivered to the worker that took one only.
			if rest := b.take(t, "scans"); string(rest.Body) != "two" || rest.Redelivered {
				t.Errorf("left %q, redelivered %v", rest.Body, rest.Redelivered)
			}
		},
		"as long as there is work": func(t *testing.T) {
			b.publish(t, "one", "two", "three")
			c := b.job("cat")
			c.MaxMessages, c.IdleTimeout = 0, 300*time.Millisecond
			run(t, c, worker.Summary{Messages: 3, Succeeded: 3, Ended: "idle"})
			b.await(t, "results", 3, 0)
		},
		"how long messages waited and scans ran": func(t *testing.T) {
			b.publish(t, "no-timestamp")
			if err := b.channel.PublishWithContext(t.Context(), "", "scans", true, false,
				amqp.Publishing{Timestamp: time.Now().Add(-45 * time.Minute)}); err != nil {
				t.Fatal(err)
			}
			c := b.job("sh", "-c", "exit 75") // comes again, which is no wait
			c.MaxMessages = 4
			got, err := c.timed(t.Context())
			if err != nil || got.ScanSeconds.Count() != 4 {
				t.Errorf("%d scans were timed (%v), want 4", got.ScanSeconds.Count(), err)
			}
			if waited := got.WaitSeconds; waited.Count() != 1 || waited.Sum < 45*60 || waited.Sum > 50*60 {
				t.Errorf("waits %+v, want one of 45 minutes", waited)
			}
			if _, err := b.channel.QueuePurge("scans", false); err != nil {
				t.Fatal(err)
			}
		},
		"idle": func(t *testing.T) {
			c := b.job("cat")
			c.IdleTimeout = 200 * time.Millisecond
			run(t, c, worker.Summary{Ended: "idle"})
			b.await(t, "scans", 0, 0)
		},
		"lifetime": func(t *testing.T) {
			b.publish(t, "one", "two")
			c := b.job("sleep", "0.3")
			c.MaxMessages, c.MaxLifetime = 0, 100*time.Millisecond
			run(t, c, worker.Summary{Messages: 1, Succeeded: 1, Ended: "lifetime"})
			b.await(t, "scans", 1, 0)
		},
		"a failure": func(t *testing.T) {
			b.publish(t, "one")
			run(t, b.job("sh", "-c", "echo broken >&2; exit 4"), worker.Summary{Messages: 1, DeadLettered: 1, Ended: "messages"})
			dead := b.take(t, "dead")
			if string(dead.Body) != "one" || dead.Headers["ebbtide-reason"] != "the command exited with 4: broken" {
				t.Errorf("dead letter %q with %v", dead.Body, dead.Headers)
			}
			said, err := results.Unmarshal(string(results.JSON), []byte(dead.Headers["ebbtide-result"].(string)))
			if r := b.result(t); err != nil || !proto.Equal(r, said) || r.GetStatus() != resultsv1alpha1.Status_STATUS_FAILED ||
				r.GetExitCode() != 4 || r.GetReason() != "the command exited with 4: broken" {
				t.Errorf("result %v; the dead letter says %v, %v", r, said, err)
			}
		},
		"a failure without an exchange of its own": func(t *testing.T) {
			b.publish(t, "one")
			c := b.job("false")
			c.queue.DeadLetterExchange = ""
			run(t, c, worker.Summary{Messages: 1, DeadLettered: 1, Ended: "messages"})
			if dead := b.take(t, "dead"); string(dead.Body) != "one" {
				t.Errorf("dead letter %q", dead.Body)
			}
		},
		"the delivery limit": func(t *testing.T) {
			b.publish(t, "one")
			c := b.job("sh", "-c", "exit 75")
			c.MaxMessages = 3 // the first delivery and two more
			run(t, c, worker.Summary{Messages: 3, Retried: 3, Ended: "messages"})
			b.take(t, "dead")
			b.await(t, "scans", 0, 0)
		},
		"the last attempt": func(t *testing.T) {
			b.publish(t, "one")
			c := b.job("sh", "-c", "exit 75")
			c.MaxMessages, c.MaxAttempts = 2, 2
			run(t, c, worker.Summary{Messages: 2, Retried: 1, DeadLettered: 1, Ended: "messages"})
			if r := b.result(t); r.GetAttempt() != 2 || !strings.HasSuffix(r.GetReason(), "it was attempt 2 of 2") {
				t.Errorf("result %v", r)
			}
			// A dead letter that is sent again begins at 0 attempts.
			if dead := b.take(t, "dead"); string(dead.Body) != "one" || dead.Headers["x-delivery-count"] != nil {
				t.Errorf("dead letter %q with %v", dead.Body, dead.Headers)
			}
		},
		"attempts that killed their workers": func(t *testing.T) {
			b.publish(t, "one")
			c := b.job("cat")
			c.MaxAttempts = 1
			holder, err := rabbitmq.Open(t.Context(), c.queue)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := holder.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := holder.Close(); err != nil { // as a killed worker does
				t.Fatal(err)
			}
			run(t, c, worker.Summary{Messages: 1, DeadLettered: 1, Ended: "messages"})
			if r := b.result(t); r.GetStartedTime() != nil || r.ExitCode != nil || !strings.Contains(r.GetReason(), "its worker was killed") {
				t.Errorf("result %v", r)
			}
		},
		"a result too large for a message": func(t *testing.T) {
			b.publish(t, "one")
			c := b.job("sh", "-c", "seq 20000")
			c.ResultStore, c.ResultLimit, c.ResultFormat = results.Store(t.TempDir()), 16<<10, results.Protobuf
			run(t, c, worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"})
			r := b.result(t)
			content, err := c.ResultStore.Open(r)
			if err != nil {
				t.Fatal(err)
			}
			defer content.Close()
			if text, err := io.ReadAll(content); err != nil || !strings.HasSuffix(string(text), "\n20000\n") || r.GetSize() != int64(len(text)) {
				t.Errorf("result %v, %d bytes, %v", r, len(text), err)
			}
		},
		"older workers first": func(t *testing.T) {
			young, old := b.job("cat"), b.job("cat")
			now := time.Now()
			young.queue.Priority, young.queue.ConsumerTag = rabbitmq.PriorityByAge(now), "young"
			old.queue.Priority, old.queue.ConsumerTag = rabbitmq.PriorityByAge(now.Add(-time.Second)), "old"
			young.IdleTimeout, young.MaxMessages = time.Second, 0
			ended := make(chan worker.Summary, 1)
			go func() { summary, _ := young.run(t.Context()); ended <- summary }()
			b.await(t, "scans", 0, 1)
			done := make(chan worker.Summary, 1)
			go func() { summary, _ := old.run(t.Context()); done <- summary }()
			b.await(t, "scans", 0, 2)
			b.publish(t, "one") // without priorities it is the turn of the consumer that came first
			if summary := <-done; summary.Succeeded != 1 {
				t.Errorf("the old worker did %+v", summary)
			}
			if want := (worker.Summary{Ended: "idle"}); <-ended != want {
				t.Error("the young worker got a message, or did not leave")
			}
		},
		"an unroutable result": func(t *testing.T) {
			b.publish(t, "one")
			c := b.job("cat")
			c.queue.ResultExchange, c.queue.ResultRoutingKey = "", "no-such-queue"
			got, err := c.run(t.Context())
			if !errors.Is(err, worker.ErrGivenBack) || !strings.Contains(err.Error(), `no queue for routing key "no-such-queue"`) {
				t.Errorf("error %v", err)
			}
			if want := (worker.Summary{Messages: 1, Retried: 1, Ended: "error"}); got != want {
				t.Errorf("summary %+v, want %+v", got, want)
			}
			b.await(t, "scans", 1, 0)
		},
		"asked to stop while idle": func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			time.AfterFunc(200*time.Millisecond, stop)
			got, err := b.job("cat").run(ctx)
			if want := (worker.Summary{Ended: "stopped"}); err != nil || got != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
		},
		"asked to stop, and the scan finishes": func(t *testing.T) {
			b.publish(t, "one", "two")
			ctx, stop := context.WithCancel(t.Context())
			c := b.job(onceStarted(t, "1", stop)...)
			c.MaxMessages = 0
			got, err := c.run(ctx)
			if want := (worker.Summary{Messages: 1, Succeeded: 1, Ended: "stopped"}); err != nil || got != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
			b.await(t, "scans", 1, 0)
		},
		"asked to stop, and the scan does not finish": func(t *testing.T) {
			b.publish(t, "one")
			ctx, stop := context.WithCancel(t.Context())
			c := b.job(onceStarted(t, "60", stop)...)
			c.GracePeriod = 200 * time.Millisecond
			_, err := c.run(ctx)
			if !errors.Is(err, worker.ErrGivenBack) || !strings.Contains(err.Error(), "200ms later the command still ran") {
				t.Errorf("error %v", err)
			}
			b.await(t, "scans", 1, 0)
		},
		"a consumer while it works": func(t *testing.T) {
			b.publish(t, "one")
			done := make(chan error, 1)
			finish := filepath.Join(t.TempDir(), "finish")
			command := []string{"sh", "-c", "until [ -e " + finish + " ]; do sleep 0.05; done"}
			go func() { _, err := b.job(command...).run(t.Context()); done <- err }()
			b.await(t, "scans", 0, 1)
			if err := os.WriteFile(finish, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			b.await(t, "scans", 0, 0)
		},
		"no such queue": func(t *testing.T) {
			c := b.job("cat")
			c.queue.Queue = "nobody-declared-it"
			if _, err := c.run(t.Context()); err == nil || !strings.Contains(err.Error(), `consume from queue "nobody-declared-it"`) {
				t.Errorf("error %v", err)
			}
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			b.declare(t)
			test(t)
		})
	}

	t.Run("asked to leave while messages are delivered", func(t *testing.T) {
		b.declare(t)
		leaveWhileMessagesCome(t, b)
	})

	// Last: it takes the broker away.
	t.Run("the broker goes away", func(t *testing.T) {
		b.declare(t)
		b.publish(t, "one")
		begin := time.Now()
		_, err := b.job(onceStarted(t, "60", b.broker.Crash)...).run(t.Context())
		if !errors.Is(err, worker.ErrGivenBack) || !strings.Contains(err.Error(), "the connection to the broker was lost") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("the scan went on for %s", took)
		}
	})
}

func TestNoBroker(t *testing.T) {
	var log bytes.Buffer
	_, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
		URI: "amqp://user:secret@127.0.0.1:1/", Queue: "scans", ConnectTimeout: 300 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
	if strings.Contains(err.Error()+log.String(), "secret") {
		t.Errorf("the password is shown: %v\n%s", err, log.String())
	}
}
