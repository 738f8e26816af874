package rabbitmq_test

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
)

// tables and arrays are the names of headers that a producer with the changes of depth sends as tables in tables and arrays in arrays.
const tables, arrays = "tables", "arrays"

// depth makes those of what the library sends as bytes.
func depth() *strings.Replacer {
	return strings.NewReplacer("\x06"+tables+"x", "\x06"+tables+"F", "\x06"+arrays+"x", "\x06"+arrays+"A")
}

// nested is what is in the outermost of so many tables in tables, or arrays in arrays. The library would take long, and much memory, to make them.
func nested(kind string, levels int) []byte {
	before := "\x00F" // an empty name, and a type
	if kind == arrays {
		before = "A"
	}
	var b []byte
	for level := levels - 1; level > 0; level-- {
		b = append(b, before...)
		b = binary.BigEndian.AppendUint32(b, uint32((level-1)*(len(before)+4)))
	}
	return b
}

// hostile are messages that a producer may send, each of which once could not be acked, retried or dead-lettered.
func hostile() map[string]amqp.Publishing {
	long := func(n int) string { return strings.Repeat("a", n) }
	random := rand.New(rand.NewPCG(1, 2))
	messages := map[string]amqp.Publishing{
		"90 KB in a header":           {Headers: amqp.Table{"x": long(90_000)}},
		"headers that fill a frame":   {Headers: amqp.Table{"x": long(65_000), "y": long(65_000)}},
		"headers at the limit":        {Headers: amqp.Table{"x": long(65_000)}},
		"many headers":                {Headers: amqp.Table{}},
		"engines without end":         {Headers: amqp.Table{"ebbtide-engines": strings.Repeat("a,", 20_000)}},
		"engines that are no names":   {Headers: amqp.Table{"ebbtide-engines": "\xff,<>"}},
		"a timeout that is none":      {Headers: amqp.Table{"ebbtide-scan-timeout": "soon"}},
		"an id that is no text":       {MessageId: "\xff\x00"},
		"an id of 255 bytes":          {MessageId: long(255), CorrelationId: "\xfe" + long(254)},
		"a date beyond dates":         {Timestamp: time.Unix(1<<55, 0)},
		"counts of the worker's":      {Headers: amqp.Table{"ebbtide-attempt": int64(-1 << 62), "x-delivery-count": int64(-9)}},
		"thousands of headers":        {Headers: amqp.Table{}},
		"headers without any room":    {Headers: amqp.Table{}},
		"tables in tables":            {Headers: amqp.Table{tables: nested(tables, 2_000)}},
		"arrays in arrays":            {Headers: amqp.Table{arrays: nested(arrays, 2_000)}},
		"counts that overflow":        {Headers: amqp.Table{"ebbtide-attempt": int64(1<<63 - 1)}},
		"a copy for its own queue":    {Headers: amqp.Table{"CC": []any{"scans"}}},
		"deaths that it never died":   {Headers: amqp.Table{"x-death": []any{amqp.Table{"queue": "scans", "reason": "expired", "count": int64(9)}}}},
		"every type":                  {Headers: amqp.Table{"a": nil, "b": []any{int8(1), amqp.Table{"c": amqp.Decimal{Scale: 1}}}, "d": []byte{0, 255}, "e": time.Unix(0, 0), "f": float32(1)}},
		"a header's name that is odd": {Headers: amqp.Table{"=\x00\n\xff": "x"}},
		"the worker's own headers":    {Headers: amqp.Table{"ebbtide-reason": long(60_000), "ebbtide-routing-key": long(300), "ebbtide-result": []byte{1}}},
		"every property":              {ContentType: long(255), ContentEncoding: long(255), ReplyTo: long(255), Type: long(255), AppId: long(255), Headers: amqp.Table{"x": long(60_000)}},
	}
	for i := range 300 {
		messages["many headers"].Headers[fmt.Sprint("h", i)] = "x"
	}
	for i := range 7_000 {
		messages["thousands of headers"].Headers[fmt.Sprintf("%04x", i)] = true
	}
	for i := range 18_000 { // 7 bytes each, of 128 KiB
		messages["headers without any room"].Headers[fmt.Sprintf("%04x", i)] = true
	}
	text := func(n int) string {
		b := make([]byte, random.IntN(n))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return string(b)
	}
	for i := range 30 {
		m := amqp.Publishing{MessageId: text(256), CorrelationId: text(256), ContentType: text(256), Timestamp: time.Unix(random.Int64(), 0), Headers: amqp.Table{}}
		for range random.IntN(20) {
			name := []string{text(128), "ebbtide-engines", "ebbtide-attempt", "ebbtide-scan-timeout", "x-delivery-count"}[random.IntN(5)]
			m.Headers[name] = []any{text(1 << random.IntN(15)), random.Int64(), int32(random.Uint32()), text(9), nil}[random.IntN(5)]
		}
		messages[fmt.Sprint("arbitrary ", i)] = m
	}
	return messages
}

// Whatever is in a message, it ends within its attempts, and the message behind it is processed, however commands end.
func TestIntegrationEveryMessageEnds(t *testing.T) { newBench(t).everyMessageEnds(t) }

func (b *bench) everyMessageEnds(t *testing.T) {
	producer := b.producer(t, depth())
	for _, script := range []string{"cat", "exit 75", "printf '\\001\\377\\\"' >&2; head -c 3000 /dev/zero >&2; exit 3"} {
		t.Run(script, func(t *testing.T) {
			b.declare(t)
			messages := hostile()
			for name, m := range messages {
				m.Body = []byte(name)
				if m.MessageId == "" {
					m.MessageId = name
				}
				confirmation, err := producer.PublishWithDeferredConfirm("", "scans", true, false, m)
				if err != nil || !confirmation.Wait() {
					t.Fatalf("%s: %v", name, err)
				}
			}
			b.publish(t, "victim")
			j := b.job("sh", "-c", script)
			j.MaxAttempts, j.RetryDelays, j.ResultLimit = 2, []time.Duration{200 * time.Millisecond}, 16<<10
			got := b.runUntil(t, j, "results", len(messages)+1)
			b.await(t, "scans", 0, 0)
			if want := len(messages) + 1; got.Succeeded+got.DeadLettered != want {
				t.Errorf("%+v, want %d ends", got, want)
			}
			ended := map[string]string{}
			for range got.DeadLettered {
				dead := b.take(t, "dead")
				reason, _ := dead.Headers["ebbtide-reason"].(string)
				if ended[string(dead.Body)] = reason; reason == "" || strings.Contains(reason, "worker was killed") && !strings.HasPrefix(string(dead.Body), "arbitrary") {
					t.Errorf("%s: reason %q", dead.Body, reason)
				}
			}
			for range got.Succeeded + got.DeadLettered {
				b.result(t)
			}
			for name, want := range map[string]string{
				"90 KB in a header":      "its headers have 9000",
				"engines without end":    "header ebbtide-engines names 20001 engines: at most 64",
				"a timeout that is none": "want a duration over 0, such as 90s",
			} {
				if !strings.Contains(ended[name], want) && !strings.Contains(ended[name], "its headers have") {
					t.Errorf("%s: reason %q, want one with %q", name, ended[name], want)
				}
			}
			for _, name := range []string{"victim", "tables in tables", "arrays in arrays"} {
				if reason, failed := ended[name]; failed != (script != "cat") || failed && !strings.Contains(reason, "the command exited with") {
					t.Errorf("%s: reason %q", name, reason)
				}
			}
			if script == "cat" && got.Succeeded < 10 {
				t.Errorf("%+v: hardly anything was scanned", got)
			}
		})
	}
}

// What is in a message costs the worker its bytes, and not the square of them.
func TestIntegrationDepthIsCheap(t *testing.T) {
	b := newBench(t)
	b.declare(t)
	confirmation, err := b.producer(t, depth()).PublishWithDeferredConfirm("", "scans", true, false, amqp.Publishing{
		Headers: amqp.Table{tables: nested(tables, 5_000)}, MessageId: "one",
	})
	if err != nil || !confirmation.Wait() {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if got, err := b.job("cat").run(t.Context()); err != nil || got.Succeeded != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	runtime.ReadMemStats(&after)
	if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 20 {
		t.Errorf("%d MiB were allocated for a message of 30 KB", allocated)
	}
}

// patched is a connection on which something else is sent, of the same length.
type patched struct {
	net.Conn
	changes *strings.Replacer
}

func (p patched) Write(b []byte) (int, error) {
	return p.Conn.Write([]byte(p.changes.Replace(string(b))))
}

// producer is a client that sends what this library does not.
func (b *bench) producer(t *testing.T, changes *strings.Replacer) *amqp.Channel {
	t.Helper()
	connection, err := amqp.DialConfig(b.broker.AMQPURL("/"), amqp.Config{Dial: func(network, address string) (net.Conn, error) {
		connection, err := amqp.DefaultDial(10*time.Second)(network, address)
		return patched{connection, changes}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return channel
}

// A number of the type that other clients write, and this library does not read, ends no connection: a classic queue delivers it as it was sent, each time.
func TestIntegrationTypesOfOthers(t *testing.T) {
	b := newBench(t)
	b.declare(t)
	if _, err := b.channel.QueueDeclare("classic", true, false, false, false, amqp.Table{"x-dead-letter-exchange": "dead"}); err != nil {
		t.Fatal(err)
	}
	channel := b.producer(t, strings.NewReplacer("\x03oddl", "\x03oddL"))
	every := amqp.Table{
		"odd": int64(1 << 40), "a": nil, "b": []any{int8(1), amqp.Table{"odd": int64(7), "c": amqp.Decimal{Scale: 1}}, "text"}, "d": []byte{0, 'L'}, "e": time.Unix(0, 0),
		"f": float32(1), "g": 1.5, "h": true, "i": byte(1), "j": int16(1), "k": uint16(1), "l": int32(1), "m": uint32(1), "n": amqp.Table{}, "LL": "lL",
	}
	confirmation, err := channel.PublishWithDeferredConfirm("", "classic", true, false, amqp.Publishing{
		ContentType: "text/plain", ContentEncoding: "L", Headers: every, MessageId: "one", Body: []byte("one"),
	})
	if err != nil || !confirmation.Wait() {
		t.Fatal(err)
	}
	j := b.job("sh", "-c", "echo $EBBTIDE_HEADER_ODD $EBBTIDE_HEADER_LL $EBBTIDE_MESSAGE_ID >&2; exit 3")
	j.queue.Queue = "classic"
	if got, err := j.run(t.Context()); err != nil || got.DeadLettered != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	letter := b.take(t, "dead")
	if reason := letter.Headers["ebbtide-reason"]; reason != "the command exited with 3: 1099511627776 lL one" {
		t.Errorf("reason %q", reason)
	}
	for name, want := range every {
		if got := letter.Headers[name]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("header %s is %v, want %v", name, got, want)
		}
	}
}

// Attempts are apart by a delay that grows, others are not held up meanwhile, and the dead letter says what the last one said.
func TestIntegrationRetryDelays(t *testing.T) { newBench(t).retryDelays(t) }

func (b *bench) retryDelays(t *testing.T) {
	b.declare(t)
	b.publish(t, "one")
	begin := time.Now()
	j := b.job("sh", "-c", `[ $EBBTIDE_MESSAGE_ID = id-two ] && exit 0; echo "licence server down at $EBBTIDE_ROUTING_KEY $EBBTIDE_DELIVERY_COUNT" >&2; exit 75`)
	j.MaxMessages, j.MaxAttempts, j.IdleTimeout = 4, 3, 20*time.Second
	j.RetryDelays = []time.Duration{time.Second, 3 * time.Second}
	time.AfterFunc(500*time.Millisecond, func() { b.publish(t, "two") })
	got, err := j.run(t.Context())
	if want := (worker.Summary{Messages: 4, Succeeded: 1, Retried: 2, DeadLettered: 1, Ended: "messages"}); err != nil || got != want {
		t.Fatalf("%+v, %v; want %+v", got, err, want)
	}
	if took := time.Since(begin); took < 4*time.Second {
		t.Errorf("three attempts took %s, want more than 4 s", took)
	}
	dead := b.take(t, "dead")
	if reason := dead.Headers["ebbtide-reason"]; reason !=
		"the command exited with 75, which asks for another attempt: licence server down at scans 2; it was attempt 3 of 3" {
		t.Errorf("reason %q", reason)
	}
	if dead.MessageId != "id-one" || dead.RoutingKey != "scans" || dead.Headers["x-death"] != nil || dead.Headers["ebbtide-attempt"] != nil {
		t.Errorf("dead letter %q, routing key %q, headers %v", dead.MessageId, dead.RoutingKey, dead.Headers)
	}
}

// A retry queue that takes nothing for a moment, as one that is full or has no leader yet, costs the worker nothing.
func TestIntegrationRefusedForAMoment(t *testing.T) {
	b := newBench(t)
	b.declare(t)
	retry := rabbitmq.RetryQueue("scans", time.Hour)
	if _, err := b.channel.QueueDeclare(retry, true, false, false, false, amqp.Table{
		amqp.QueueMaxLenArg: 1, amqp.QueueOverflowArg: amqp.QueueOverflowRejectPublish,
	}); err != nil {
		t.Fatal(err)
	}
	confirmation, err := b.channel.PublishWithDeferredConfirm("", retry, true, false, amqp.Publishing{Body: []byte("full")})
	if err != nil || !confirmation.Wait() {
		t.Fatal(err)
	}
	b.publish(t, "one")
	j := b.job("sh", "-c", "exit 75")
	j.RetryDelays = []time.Duration{time.Hour}
	refused := 0
	j.queue.Log = slog.New(slog.NewTextHandler(writer(func(line string) {
		if !strings.Contains(line, "the broker refuses a message for now") {
			return
		}
		if refused++; refused == 2 { // the worker waits for this
			if _, err := b.channel.QueuePurge(retry, false); err != nil {
				t.Error(err)
			}
		}
	}), nil))
	if got, err := j.run(t.Context()); err != nil || refused != 2 || got != (worker.Summary{Messages: 1, Retried: 1, Ended: "messages"}) {
		t.Errorf("%+v, %v, refused %d times", got, err, refused)
	}
	if waiting := b.take(t, retry); string(waiting.Body) != "one" {
		t.Errorf("%q waits", waiting.Body)
	}
}

// A queue whose name leaves no room for those of its retry queue, and of its tenants, works without delays and with the limit.
func (b *bench) longName(t *testing.T) {
	b.declare(t)
	name := strings.Repeat("q", 254)
	if _, err := b.channel.QueueDeclare(name, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}); err != nil {
		t.Fatal(err)
	}
	confirmation, err := b.channel.PublishWithDeferredConfirm("", name, true, false, amqp.Publishing{Body: []byte("one")})
	if err != nil || !confirmation.Wait() {
		t.Fatal(err)
	}
	j := b.job("sh", "-c", "exit 75")
	j.queue.Queue, j.queue.TenantLimit, j.queue.TenantDelays = name, 1, []time.Duration{time.Hour}
	j.MaxAttempts, j.MaxMessages, j.RetryDelays = 2, 2, []time.Duration{time.Hour}
	if got, err := j.run(t.Context()); err != nil || got != (worker.Summary{Messages: 2, Retried: 1, DeadLettered: 1, Ended: "messages"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// writer is called with what is written to it.
type writer func(string)

func (w writer) Write(text []byte) (int, error) {
	w(string(text))
	return len(text), nil
}

// A message whose command needs more memory goes to those who have it, once.
func TestIntegrationLarger(t *testing.T) {
	b := newBench(t)
	b.declare(t)
	if _, err := b.channel.QueueDeclare("large", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	b.publish(t, "one")
	j := b.job("sh", "-c", "exit 9")
	j.Endings.Codes[9], j.queue.LargerQueue = worker.Larger, "large"
	if got, err := j.run(t.Context()); err != nil || got.Retried != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	large := b.job("sh", "-c", "exit 9")
	large.Endings.Codes[9], large.queue.LargerQueue, large.queue.Queue = worker.Larger, "large", "large"
	if got, err := large.run(t.Context()); err != nil || got.DeadLettered != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if dead := b.take(t, "dead"); dead.Headers["ebbtide-reason"] != "the command exited with 9; no workers with more memory are set" {
		t.Errorf("dead letter %v", dead.Headers)
	}
}

// A scan that is longer than the broker's consumer_timeout runs to its end, once. Debian 12's broker does not know x-consumer-timeout.
func TestIntegrationConsumerTimeout(t *testing.T) {
	newBench(t, "consumer_timeout = 2000").consumerTimeout(t)
}

func (b *bench) consumerTimeout(t *testing.T) {
	b.declare(t)
	// How often channels look; a minute otherwise.
	if err := b.broker.Control(t.Context(), "eval", "application:set_env(rabbit, channel_tick_interval, 1000)."); err != nil {
		t.Fatal(err)
	}
	b.publish(t, "long", "after")
	starts := t.TempDir() + "/starts"
	j := b.job("sh", "-c", "echo x >> "+starts+"; sleep 5; wc -l < "+starts)
	j.MaxAttempts, j.MaxMessages = 3, 1
	got, err := j.run(t.Context())
	if want := (worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if r := b.result(t); strings.TrimSpace(r.GetText()) != "1" || r.GetKey() != "id-long" {
		t.Errorf("result %v: want one start", r)
	}
	b.await(t, "scans", 1, 0)
}
