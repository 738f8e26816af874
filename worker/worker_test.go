package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/summary"
)

func TestJudge(t *testing.T) {
	cases := map[string]struct {
		exitCode, signal int
		want             verdict
		reason           string
	}{
		"success":   {0, 0, succeeded, ""},
		"retryable": {75, 0, retry, "the command exited with 75, which asks for another attempt"},
		"killed":    {-1, 9, retry, "the command was killed by signal 9"},
		"failure":   {3, 0, failed, "the command exited with 3"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, reason := judge(tc.exitCode, tc.signal, []int{75})
			if got != tc.want || reason != tc.reason {
				t.Errorf("%v, %q; want %v, %q", got, reason, tc.want, tc.reason)
			}
		})
	}
}

func config(command ...string) Config {
	return Config{
		Queue: "scans", ConsumerTag: "test", Command: command, RetryableExitCodes: []int{75}, ResultMaxBytes: 1 << 20,
		MaxMessages: 1, IdleTimeout: 10 * time.Second, GracePeriod: 10 * time.Second, ConnectTimeout: 5 * time.Second,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Stderr: io.Discard,
	}
}

func TestExecute(t *testing.T) {
	delivery := &amqp.Delivery{
		Body: []byte("order"), MessageId: "m-1", CorrelationId: "c-1", RoutingKey: "scans",
		Headers: amqp.Table{"x-delivery-count": int64(2), "team-name": "red", "nested": amqp.Table{}},
	}
	cases := map[string]struct {
		script  string
		want    verdict
		reason  string
		result  string
		maximum int
	}{
		"standard input": {script: "cat", result: "order"},
		"file":           {script: "cat $EBBTIDE_MESSAGE_FILE", result: "order"},
		"properties": {
			script: "echo $EBBTIDE_MESSAGE_ID $EBBTIDE_CORRELATION_ID $EBBTIDE_ROUTING_KEY $EBBTIDE_DELIVERY_COUNT $EBBTIDE_HEADER_TEAM_NAME",
			result: "m-1 c-1 scans 2 red\n",
		},
		"no credentials": {script: "echo [$AMQP_URI]", result: "[]\n"},
		"input unread":   {script: "exit 0"},
		"failure":        {script: "echo why >&2; exit 3", want: failed, reason: "the command exited with 3: why"},
		"retry":          {script: "exit 75", want: retry, reason: "the command exited with 75, which asks for another attempt"},
		"killed":         {script: "kill -9 $$", want: retry, reason: "the command was killed by signal 9"},
		"result too large": {
			script: "yes", maximum: 1000, want: failed, reason: "the result is too large: more than 1000 bytes on standard output",
		},
	}
	t.Setenv(URIVariable, "amqp://user:secret@broker/")
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := config("sh", "-c", tc.script)
			if tc.maximum > 0 {
				c.ResultMaxBytes = tc.maximum
			}
			got, err := execute(t.Context(), &c, delivery)
			if err != nil {
				t.Fatal(err)
			}
			if got.verdict != tc.want || got.reason != tc.reason || tc.want == succeeded && string(got.result) != tc.result {
				t.Errorf("verdict %v, reason %q, result %q; want %v, %q, %q",
					got.verdict, got.reason, got.result, tc.want, tc.reason, tc.result)
			}
		})
	}
	t.Run("no such command", func(t *testing.T) {
		c := config("no-such-scanner")
		if _, err := execute(t.Context(), &c, delivery); err == nil || !strings.Contains(err.Error(), "start no-such-scanner") {
			t.Errorf("error %v", err)
		}
	})
}

// bench is a broker with the queues of a scan service.
type bench struct {
	broker  *rabbitmq.Broker
	channel *amqp.Channel
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{broker: rabbitmq.StartForTest(t)}
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

// take returns the next message of a queue, within some seconds.
func (b *bench) take(t *testing.T, queue string) amqp.Delivery {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
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
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
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

func (b *bench) config(command ...string) Config {
	c := config(command...)
	c.URI, c.ResultExchange, c.DeadLetterExchange = b.broker.AMQPURL("/"), "results", "dead"
	return c
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

// untimed is a summary without how long things took.
func untimed(s Summary) Summary {
	s.WaitSeconds, s.ScanSeconds = summary.Histogram{}, summary.Histogram{}
	return s
}

func TestIntegrationRun(t *testing.T) {
	b := newBench(t)
	run := func(t *testing.T, c Config, want Summary) {
		t.Helper()
		got, err := Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, untimed(got)); diff != "" {
			t.Errorf("summary (-want +got):\n%s", diff)
		}
	}
	cases := map[string]func(*testing.T){
		"a result": func(t *testing.T) {
			b.publish(t, "one", "two")
			run(t, b.config("tr", "a-z", "A-Z"), Summary{Messages: 1, Succeeded: 1, Ended: "messages"})
			if result := b.take(t, "results"); string(result.Body) != "ONE" || result.MessageId != "id-one" {
				t.Errorf("result %q of %q", result.Body, result.MessageId)
			}
			// The second message was never delivered to the worker that took one only.
			if rest := b.take(t, "scans"); string(rest.Body) != "two" || rest.Redelivered {
				t.Errorf("left %q, redelivered %v", rest.Body, rest.Redelivered)
			}
		},
		"as long as there is work": func(t *testing.T) {
			b.publish(t, "one", "two", "three")
			c := b.config("cat")
			c.MaxMessages, c.IdleTimeout = 0, 300*time.Millisecond
			run(t, c, Summary{Messages: 3, Succeeded: 3, Ended: "idle"})
			b.await(t, "results", 3, 0)
		},
		"how long messages waited and scans ran": func(t *testing.T) {
			b.publish(t, "no-timestamp")
			err := b.channel.PublishWithContext(t.Context(), "", "scans", true, false, amqp.Publishing{Timestamp: time.Now().Add(-45 * time.Minute)})
			if err != nil {
				t.Fatal(err)
			}
			c := b.config("sh", "-c", "exit 75") // comes again, which is no wait
			c.MaxMessages = 4
			got, err := Run(t.Context(), c)
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
			c := b.config("cat")
			c.IdleTimeout = 200 * time.Millisecond
			run(t, c, Summary{Ended: "idle"})
			b.await(t, "scans", 0, 0)
		},
		"lifetime": func(t *testing.T) {
			b.publish(t, "one", "two")
			c := b.config("sleep", "0.3")
			c.MaxMessages, c.MaxLifetime = 0, 100*time.Millisecond
			run(t, c, Summary{Messages: 1, Succeeded: 1, Ended: "lifetime"})
			b.await(t, "scans", 1, 0)
		},
		"a failure": func(t *testing.T) {
			b.publish(t, "one")
			run(t, b.config("sh", "-c", "echo broken >&2; exit 4"), Summary{Messages: 1, DeadLettered: 1, Ended: "messages"})
			dead := b.take(t, "dead")
			if string(dead.Body) != "one" || dead.Headers["ebbtide-reason"] != "the command exited with 4: broken" ||
				dead.Headers["ebbtide-exit-code"] != int32(4) || dead.Headers["ebbtide-queue"] != "scans" {
				t.Errorf("dead letter %q with %v", dead.Body, dead.Headers)
			}
		},
		"a failure without an exchange of its own": func(t *testing.T) {
			b.publish(t, "one")
			c := b.config("false")
			c.DeadLetterExchange = ""
			run(t, c, Summary{Messages: 1, DeadLettered: 1, Ended: "messages"})
			if dead := b.take(t, "dead"); string(dead.Body) != "one" {
				t.Errorf("dead letter %q", dead.Body)
			}
		},
		"the delivery limit": func(t *testing.T) {
			b.publish(t, "one")
			c := b.config("sh", "-c", "exit 75")
			c.MaxMessages = 3 // the first delivery and two more
			run(t, c, Summary{Messages: 3, Retried: 3, Ended: "messages"})
			b.take(t, "dead")
			b.await(t, "scans", 0, 0)
		},
		"an unroutable result": func(t *testing.T) {
			b.publish(t, "one")
			c := b.config("cat")
			c.ResultExchange, c.ResultRoutingKey = "", "no-such-queue"
			got, err := Run(t.Context(), c)
			if !errors.Is(err, ErrGivenBack) || !strings.Contains(err.Error(), `no queue for routing key "no-such-queue"`) {
				t.Errorf("error %v", err)
			}
			if want := (Summary{Messages: 1, Retried: 1, Ended: "error"}); untimed(got) != want {
				t.Errorf("summary %+v, want %+v", got, want)
			}
			b.await(t, "scans", 1, 0)
		},
		"asked to stop while idle": func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			time.AfterFunc(200*time.Millisecond, stop)
			got, err := Run(ctx, b.config("cat"))
			if want := (Summary{Ended: "stopped"}); err != nil || untimed(got) != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
		},
		"asked to stop, and the scan finishes": func(t *testing.T) {
			b.publish(t, "one", "two")
			ctx, stop := context.WithCancel(t.Context())
			c := b.config(onceStarted(t, "1", stop)...)
			c.MaxMessages = 0
			got, err := Run(ctx, c)
			if want := (Summary{Messages: 1, Succeeded: 1, Ended: "stopped"}); err != nil || untimed(got) != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
			b.await(t, "scans", 1, 0)
		},
		"asked to stop, and the scan does not finish": func(t *testing.T) {
			b.publish(t, "one")
			ctx, stop := context.WithCancel(t.Context())
			c := b.config(onceStarted(t, "60", stop)...)
			c.GracePeriod = 200 * time.Millisecond
			_, err := Run(ctx, c)
			if !errors.Is(err, ErrGivenBack) || !strings.Contains(err.Error(), "200ms later the command still ran") {
				t.Errorf("error %v", err)
			}
			b.await(t, "scans", 1, 0)
		},
		"a consumer while it works": func(t *testing.T) {
			b.publish(t, "one")
			done := make(chan error, 1)
			finish := filepath.Join(t.TempDir(), "finish")
			command := []string{"sh", "-c", "until [ -e " + finish + " ]; do sleep 0.05; done"}
			go func() { _, err := Run(t.Context(), b.config(command...)); done <- err }()
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
			c := b.config("cat")
			c.Queue = "nobody-declared-it"
			if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), `consume from queue "nobody-declared-it"`) {
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

	// Last: it takes the broker away.
	t.Run("the broker goes away", func(t *testing.T) {
		b.declare(t)
		b.publish(t, "one")
		begin := time.Now()
		_, err := Run(t.Context(), b.config(onceStarted(t, "60", b.broker.Crash)...))
		if !errors.Is(err, ErrGivenBack) || !strings.Contains(err.Error(), "the connection to the broker was lost") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("the scan went on for %s", took)
		}
	})
}

func TestNoBroker(t *testing.T) {
	c := config("cat")
	c.URI, c.ConnectTimeout = "amqp://user:secret@127.0.0.1:1/", 300*time.Millisecond
	var log bytes.Buffer
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	_, err := Run(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
	if strings.Contains(err.Error()+log.String(), "secret") {
		t.Errorf("the password is shown: %v\n%s", err, log.String())
	}
}

// A command does not outlive a worker that is killed.
func TestCommandDiesWithWorker(t *testing.T) {
	if os.Getenv("EBBTIDE_TEST_VICTIM") != "" {
		c := config("sh", "-c", "echo $$ >&2; exec sleep 60")
		c.Stderr = os.Stderr
		_, _ = execute(context.Background(), &c, &amqp.Delivery{})
		return
	}
	victim := exec.Command(os.Args[0], "-test.run=^TestCommandDiesWithWorker$")
	victim.Env = append(os.Environ(), "EBBTIDE_TEST_VICTIM=1")
	stderr, err := victim.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 16)
	n, err := stderr.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	scanner := strings.TrimSpace(string(line[:n]))
	if _, err := os.Stat("/proc/" + scanner); err != nil {
		t.Fatalf("the command does not run: %v", err)
	}
	if err := victim.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // killed
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if status, err := os.ReadFile("/proc/" + scanner + "/stat"); err != nil || bytes.Contains(status, []byte(") Z ")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the command outlives its worker")
		}
	}
}
