package rabbitmq

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"scans", "scans", true}, {"scans", "scans-2", false}, {"*", "", true}, {"*", "any/thing", true},
		{"scans-*", "scans-", true}, {"scans-*", "scans-a", true}, {"scans-*", "more-scans-a", false}, {"*-scans", "a-scans", true}, {"*-scans", "a-scans-b", false},
		{"a*b*c", "abc", true}, {"a*b*c", "a-b-b-c", true}, {"a*b*c", "acb", false}, {"a*a", "a", false}, {"a**a", "aa", true},
		{"a.c", "abc", false}, {"a[bc]", "ab", false}, {"a?", "ab", false}, {"*b*", "abc", true}, {"*b*b*", "abc", false},
	} {
		if got := matches(strings.Split(tc.pattern, "*"), tc.name); got != tc.want {
			t.Errorf("%q, %q: %v, want %v", tc.pattern, tc.name, got, tc.want)
		}
	}
}

// listing is a management API that lists queues: name -> the rest of its object.
func listing(t *testing.T, queues func() map[string]string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		all := queues()
		if all == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var list []string
		for name, rest := range all {
			list = append(list, fmt.Sprintf(`{"name":%q,"type":"quorum","messages_unacknowledged":0%s}`, name, rest))
		}
		_, _ = io.WriteString(w, "["+strings.Join(list, ",")+"]")
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// Queues that match a pattern are created and deleted; too many, and a list that can't be read, are errors and never an empty backlog.
func TestPattern(t *testing.T) {
	b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 2, 1); return true }}
	uri := "amqp://u:s3cret@" + b.start(t)
	var queues atomic.Pointer[map[string]string]
	list := func(all map[string]string) { queues.Store(&all) }
	management := listing(t, func() map[string]string { return *queues.Load() })
	list(nil)
	brokers := NewBrokers(limits(time.Minute))
	var clock atomic.Int64
	brokers.limits.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	source := open(t, brokers, Config{Identity: at(uri), ManagementURI: management, Pattern: "scans-*"})
	// The clock passes whatever is kept from one observation to the next.
	want := func(title string, ready int64, missing int, failure string) {
		t.Helper()
		eventually(t, func() error {
			clock.Add(6)
			o, err := source.Observe(t.Context(), 0)
			switch {
			case (err == nil) != (failure == "") || err != nil && !strings.Contains(err.Error(), failure):
				return fmt.Errorf("%s: error %w, want %q", title, err, failure)
			case err == nil && (o.Ready != ready || len(o.Missing) != missing || o.Time.IsZero()):
				return fmt.Errorf("%s: %+v, want %d ready, %d missing", title, o, ready, missing)
			}
			return nil
		})
	}
	want("never listed", 0, 0, `queuePattern "scans-*": management API: it answers 503`)
	list(map[string]string{"scans-a": "", "scans-b": "", "others": ""})
	want("two", 4, 0, "")
	list(map[string]string{"scans-a": "", "scans-b": "", "scans-c": ""})
	want("one more", 6, 0, "")
	list(map[string]string{"scans-c": ""})
	want("two less", 2, 0, "")
	list(nil)
	want("the API is away for long", 0, 0, "management API")
	list(map[string]string{"others": ""})
	want("none", 0, 1, "")
	many := map[string]string{}
	for i := range maxMatches + 1 {
		many[fmt.Sprint("scans-", i)] = ""
	}
	list(many)
	want("too many", 0, 0, `queuePattern "scans-*" matches 101 queues, and at most 100 can be read by one policy`)
	delete(many, "scans-0")
	list(many)
	want("as many as can be", 2*maxMatches, 0, "")
	if err := source.Close(); err != nil {
		t.Error(err)
	}
	brokers.mu.Lock()
	defer brokers.mu.Unlock()
	if len(brokers.brokers)+len(brokers.management) > 0 {
		t.Errorf("%d brokers are left", len(brokers.brokers))
	}
}

// A pattern that the API does not list for a moment is read as it was listed last.
func TestPatternWithoutListForAMoment(t *testing.T) {
	b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 2, 1); return true }}
	uri := "amqp://u:s3cret@" + b.start(t)
	var away atomic.Bool
	management := listing(t, func() map[string]string {
		if away.Load() {
			return nil
		}
		return map[string]string{"scans-a": ""}
	})
	brokers := NewBrokers(limits(time.Minute))
	var clock atomic.Int64
	brokers.limits.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	source := open(t, brokers, Config{Identity: at(uri), ManagementURI: management, Pattern: "scans-*"})
	if o, err := source.Observe(t.Context(), 0); err != nil || o.Ready != 2 {
		t.Fatalf("%+v, %v", o, err)
	}
	away.Store(true)
	clock.Add(10)
	if o, err := source.Observe(t.Context(), 0); err != nil || o.Ready != 2 || o.ManagementFailure == "" {
		t.Errorf("%+v, %v; want what was listed, and that the API fails", o, err)
	}
}

// An empty queue is asked for its leader, unless it is a classic one, whose own process has answered.
func TestEmptyClassicQueue(t *testing.T) {
	for kind, confirmed := range map[string]bool{"classic": false, "quorum": true, "": true} {
		b := &brokenBroker{
			declare: func(w *wire, channel uint16, queue string) bool { w.answer(channel, queue, 0, 0); return true },
			get:     func(*wire, uint16, string) bool { return false }, // no leader: the connection ends
		}
		management := listing(t, func() map[string]string { return map[string]string{"scans": `,"type":"` + kind + `"`} })
		source := open(t, NewBrokers(limits(time.Second)), Config{
			Identity: at("amqp://u:s3cret@" + b.start(t)), ManagementURI: management, Queues: []string{"scans"},
		})
		if _, err := source.Observe(t.Context(), 0); (err != nil) != confirmed {
			t.Errorf("%q: %v; want that a leader is asked: %t", kind, err, confirmed)
		}
	}
}

// A queue with a single active consumer is worth one replica, however much waits in it.
func TestSingleActiveConsumer(t *testing.T) {
	b := &brokenBroker{declare: func(w *wire, channel uint16, queue string) bool {
		if strings.HasPrefix(queue, "empty") {
			w.answer(channel, queue, 0, 0)
		} else {
			w.answer(channel, queue, 50, 3)
		}
		return true
	}}
	uri := "amqp://u:s3cret@" + b.start(t)
	const single = `,"arguments":{"x-single-active-consumer":true}`
	management := listing(t, func() map[string]string {
		return map[string]string{
			"one": single, "two": single, "empty": single, "any": `,"arguments":[]`, "not": `,"arguments":{"x-single-active-consumer":"true","x":1}`,
		}
	})
	brokers := NewBrokers(limits(time.Minute))
	for queues, want := range map[string]int64{
		"one": 1, "one two": 2, "one two empty": 2, "empty": 1, "any": 0, "not": 0,
		"one any": 1 + 53, // the one, and any number for the other
	} {
		source := open(t, brokers, Config{Identity: at(uri), ManagementURI: management, Queues: strings.Fields(queues)})
		if o, err := source.Observe(t.Context(), 0); err != nil || o.Parallelism != want {
			t.Errorf("%s: parallelism %d, %v; want %d", queues, o.Parallelism, err, want)
		}
	}
	source := open(t, brokers, Config{Identity: at(uri), ManagementURI: management, Queues: []string{"one", "any"}, MessagesPerReplica: 10})
	if o, err := source.Observe(t.Context(), 0); err != nil || o.Parallelism != 1+5+3 {
		t.Errorf("parallelism %d, %v; want 9", o.Parallelism, err)
	}
}

func TestIntegrationPattern(t *testing.T) {
	t.Parallel()
	b := rabbitmq.StartForTest(t)
	ch := channel(t, b)
	brokers := NewBrokers(limits(5 * time.Second))
	for _, queue := range []string{"scans-a", "scans-b", "others"} {
		declare(t, ch, queue, amqp.QueueTypeQuorum)
		publish(t, ch, queue, 3)
	}
	matched := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), ManagementURI: b.ManagementURL(), Pattern: "scans-*"})
	wants := func(ready, parallelism int64) {
		t.Helper()
		eventually(t, func() error {
			o, err := matched.Observe(t.Context(), 0)
			if err == nil && (o.Ready != ready || o.Parallelism != parallelism) {
				err = fmt.Errorf("%+v, want %d ready, parallelism %d", o, ready, parallelism)
			}
			return err
		})
	}
	wants(6, 0)
	declare(t, ch, "scans-c", amqp.QueueTypeClassic)
	publish(t, ch, "scans-c", 1)
	wants(7, 0)
	if _, err := ch.QueueDelete("scans-a", false, false, false); err != nil {
		t.Fatal(err)
	}
	wants(4, 0)
	single := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-single-active-consumer": true}
	if _, err := ch.QueueDeclare("scans-single", true, false, false, false, single); err != nil {
		t.Fatal(err)
	}
	publish(t, ch, "scans-single", 9)
	wants(13, 4+1)
	one := open(t, brokers, Config{Identity: at(b.AMQPURL("/")), ManagementURI: b.ManagementURL(), Queues: []string{"scans-single"}})
	observe(t, one, sizing.Observation{Ready: 9, Parallelism: 1})
	declare(t, ch, "scans-stream", amqp.QueueTypeStream)
	eventually(t, func() error {
		if _, err := matched.Observe(t.Context(), 0); err == nil || !strings.Contains(err.Error(), `queue "scans-stream": it is a stream`) {
			return fmt.Errorf("error %w", err)
		}
		return nil
	})
}
