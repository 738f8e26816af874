package rabbitmq_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker/dead"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
)

// Letters are read without being taken, and replayed once, as their producers sent them.
func TestIntegrationDeadLetters(t *testing.T) {
	b := newBench(t)
	b.declare(t)
	if err := b.channel.PublishWithContext(t.Context(), "", "scans", true, false, amqp.Publishing{
		MessageId: "id-one", Headers: amqp.Table{"team": "red"}, Body: []byte("one"),
	}); err != nil {
		t.Fatal(err)
	}
	b.publish(t, "two")
	j := b.job("sh", "-c", "echo broken $EBBTIDE_MESSAGE_ID >&2; exit 4")
	j.MaxMessages = 2
	if got, err := j.run(t.Context()); err != nil || got.DeadLettered != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	b.await(t, "dead", 2, 0)
	read := func(replay string) (keys []string) {
		t.Helper()
		letters, err := rabbitmq.OpenDeadLetters(b.broker.AMQPURL("/"), "dead", 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		err = letters.Each(t.Context(), func(l dead.Letter) (bool, error) {
			keys = append(keys, l.Key)
			if time.Since(l.Died) > time.Minute || l.Reason != "the command exited with 4: broken "+l.Key || l.Bytes != 3 || len(l.Headers) > 1 {
				t.Errorf("letter %+v", l)
			}
			if l.Key == replay {
				return true, letters.Replay(t.Context(), "", "scans")
			}
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := letters.Close(); err != nil {
			t.Fatal(err)
		}
		return keys
	}
	for range 2 { // looking takes nothing away
		if keys := read(""); len(keys) != 2 {
			t.Fatalf("letters %v", keys)
		}
		b.await(t, "dead", 2, 0)
	}
	read("id-one")
	b.await(t, "dead", 1, 0)
	if keys := read("id-one"); len(keys) != 1 || keys[0] != "id-two" {
		t.Errorf("letters %v are left", keys)
	}
	b.await(t, "scans", 1, 0)
	again := b.take(t, "scans")
	delete(again.Headers, "x-delivery-count") // the queue's own
	if string(again.Body) != "one" || again.MessageId != "id-one" || again.Headers["team"] != "red" || len(again.Headers) != 1 {
		t.Errorf("replayed %q with %v", again.Body, again.Headers)
	}
	t.Run("interrupted", b.replayIsInterrupted)
}

// endsMidway is a context that ends right after it was asked whether it has.
type endsMidway struct{ context.Context }

func (endsMidway) Err() error { return nil }

// A replay that is interrupted has sent a letter and taken it out of the queue, or neither: the next one does not send it twice.
func (b *bench) replayIsInterrupted(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx        context.Context
		sent, left int
	}{"before": {over, 0, 1}, "midway": {endsMidway{over}, 1, 0}} {
		b.declare(t)
		if err := b.channel.PublishWithContext(t.Context(), "dead", "", true, false, amqp.Publishing{MessageId: "one"}); err != nil {
			t.Fatal(err)
		}
		b.await(t, "dead", 1, 0)
		letters, err := rabbitmq.OpenDeadLetters(b.broker.AMQPURL("/"), "dead", 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		err = letters.Each(t.Context(), func(dead.Letter) (bool, error) { return true, letters.Replay(tc.ctx, "", "scans") })
		if errors.Is(err, context.Canceled) != (tc.sent == 0) || err != nil && tc.sent == 1 {
			t.Errorf("%s: %v", name, err)
		}
		if err := letters.Close(); err != nil {
			t.Fatal(err)
		}
		b.await(t, "scans", tc.sent, 0)
		b.await(t, "dead", tc.left, 0)
	}
}

func TestDeadLettersHideThePassword(t *testing.T) {
	for _, uri := range []string{"amqp://user:secr#et@127.0.0.1:1/", "amqp://user:s3cret@127.0.0.1:1/", "amqp://user:s3cret%zz@h/", "s3cret"} {
		_, err := rabbitmq.OpenDeadLetters(uri, "dead", time.Second)
		if err == nil || strings.Contains(err.Error(), "secr") || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "%zz") {
			t.Errorf("%v", err)
		}
	}
}
