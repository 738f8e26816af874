package rabbitmq_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

func (b *bench) publishFor(t *testing.T, tenant string, headers amqp.Table, ids ...string) {
	t.Helper()
	for _, id := range ids {
		all := amqp.Table{"tenant": tenant}
		for name, value := range headers {
			all[name] = value
		}
		confirmation, err := b.channel.PublishWithDeferredConfirm("", "scans", true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: id, Body: []byte(id), Headers: all})
		if err != nil {
			t.Fatal(err)
		}
		confirmation.Wait()
	}
}

func TestIntegrationTenants(t *testing.T) {
	b := newBench(t)
	t.Run("limit", b.tenantLimit)
	t.Run("held back", b.heldBack)
	t.Run("long name", b.longName)
}

// A tenant with many messages has no more scans at a time than it may, and those behind it do not wait for it; held back is no attempt.
func (b *bench) tenantLimit(t *testing.T) {
	const workers, limit, red, blue = 4, 2, 8, 3
	b.declare(t)
	delays := []time.Duration{100 * time.Millisecond, 300 * time.Millisecond}
	for _, delay := range delays { // as the chart does
		if _, err := b.channel.QueueDeclare(rabbitmq.RetryQueue("scans", delay), true, false, false, false, rabbitmq.RetryArguments("scans", delay)); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for i := range red {
		ids = append(ids, fmt.Sprintf("red-%d", i))
	}
	b.publishFor(t, "red", nil, ids...)
	b.publishFor(t, "blue", nil, "blue-0", "blue-1", "blue-2")
	// A red scan fails where more run than may, and ends only when blue has had all of its own: it would wait for ever if blue waited for red.
	folder := t.TempDir()
	script := fmt.Sprintf(`cd %s; tenant=$EBBTIDE_HEADER_TENANT
mkdir run-$EBBTIDE_MESSAGE_ID; ls -d run-$tenant-*
[ $(ls -d run-$tenant-* | wc -l) -le %d ] || exit 9
[ $tenant = blue ] || until [ $(ls -d done-blue-* 2>/dev/null | wc -l) = %d ]; do sleep 0.05; done
touch done-$EBBTIDE_MESSAGE_ID; rmdir run-$EBBTIDE_MESSAGE_ID`, folder, limit, blue)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	for n := range workers {
		j := b.job("sh", "-c", script)
		j.MaxMessages, j.IdleTimeout, j.MaxAttempts, j.GracePeriod = 0, 0, 2, 0
		j.queue.ConsumerTag = fmt.Sprint("worker-", n)
		j.queue.TenantLimit, j.queue.TenantDelays = limit, delays
		running.Go(func() {
			if _, err := j.run(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	for range red + blue {
		var r *resultsv1alpha1.Result
		for r == nil {
			if ctx.Err() != nil {
				done, _ := filepath.Glob(folder + "/*")
				t.Fatalf("not all messages have ended: %q", done)
			}
			delivery, ok, err := b.channel.Get("results", true)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if r, err = results.Unmarshal(delivery.ContentType, delivery.Body); err != nil {
				t.Fatal(err)
			}
		}
		if r.GetStatus() != resultsv1alpha1.Status_STATUS_SUCCEEDED || r.GetAttempt() != 1 {
			t.Errorf("result %v", r)
		}
	}
	stop()
}

// What a message has behind it stays when it is held back: its attempts and their reason.
func (b *bench) heldBack(t *testing.T) {
	b.declare(t)
	// Somebody else's scan of the tenant.
	if _, err := b.channel.QueueDeclare(rabbitmq.TenantQueue("scans", "red"), true, false, false, false, amqp.Table{
		amqp.QueueTypeArg: amqp.QueueTypeClassic, amqp.QueueTTLArg: (10 * time.Minute).Milliseconds(),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.channel.Consume(rabbitmq.TenantQueue("scans", "red"), "other", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	b.publishFor(t, "red", amqp.Table{"ebbtide-attempt": int64(1), "ebbtide-reason": "licence"}, "one")
	b.publishFor(t, "blue", nil, "two")
	j := b.job("sh", "-c", "exit 75")
	j.MaxMessages, j.MaxAttempts, j.IdleTimeout = 0, 2, time.Second
	j.queue.TenantLimit, j.queue.TenantDelays = 1, []time.Duration{10 * time.Minute}
	j.RetryDelays = []time.Duration{10 * time.Minute}
	if got, err := j.run(t.Context()); err != nil || got != (worker.Summary{Messages: 1, Retried: 1, Ended: "idle"}) {
		t.Errorf("%+v, %v", got, err)
	}
	for range 2 {
		waiting := b.take(t, rabbitmq.RetryQueue("scans", 10*time.Minute))
		switch held, attempt := waiting.Headers["ebbtide-held"], waiting.Headers["ebbtide-attempt"]; waiting.MessageId {
		case "one":
			if held != int64(1) || attempt != int64(1) || waiting.Headers["ebbtide-reason"] != "licence" || waiting.Headers["tenant"] != "red" {
				t.Errorf("held back with %v", waiting.Headers)
			}
		case "two":
			if held != nil || attempt != int64(1) {
				t.Errorf("the other tenant's waits with %v", waiting.Headers)
			}
		}
	}
}
