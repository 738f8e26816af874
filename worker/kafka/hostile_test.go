package kafka_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// hostile are records that a producer may send, each of which once blocked its partition.
func hostile() map[string]*kgo.Record {
	random := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string { // which no compression makes smaller
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return string(b)
	}
	one := func(key, value string) *kgo.Record {
		return &kgo.Record{Headers: []kgo.RecordHeader{{Key: key, Value: []byte(value)}}}
	}
	records := map[string]*kgo.Record{
		"header of 200 KB":           one("x", strings.Repeat("a", 200_000)),
		"engines of 600 KB":          one("ebbtide-engines", strings.Repeat("a,", 60_000)+strings.Repeat("<,", 200_000)),
		"headers that fill a record": one("x", text(990_000)),
		"a body that fills a record": {Value: []byte(text(990_000))},
		"a key that fills a record":  {Key: []byte(text(990_000))},
		"an id without end":          one("message-id", text(60_000)),
		"an id that is no text":      one("message-id", "\xff\x00"),
		"a scan that is no text":     one("correlation-id", "\xff"+text(300)),
		"a date beyond dates":        {Timestamp: time.UnixMilli(1 << 52)},
		"a date before dates":        one("ebbtide-queued", "0000-01-01T00:00:00Z"),
		"attempts below nothing":     one("ebbtide-attempt", "-9000000000000000000"),
		"attempts beyond numbers":    one("ebbtide-attempt", "9000000000000000000"),
		"not before the next age":    one("ebbtide-not-before", "9999-01-01T00:00:00Z"),
		"the worker's own headers":   one("ebbtide-reason", text(60_000)),
		"a name that is odd":         one("=\x00\n\xff", "x"),
		"nothing at all":             {},
		"headers of nothing":         {Headers: make([]kgo.RecordHeader, 495_000)},
		"thousands of headers":       {},
	}
	for range 60_000 {
		small := kgo.RecordHeader{Key: text(7), Value: []byte(text(7))}
		records["thousands of headers"].Headers = append(records["thousands of headers"].Headers, small)
	}
	for i := range 40 {
		r := &kgo.Record{Value: []byte(text(random.IntN(2000)))}
		for range random.IntN(20) {
			names := []string{text(random.IntN(100)), "message-id", "ebbtide-engines", "ebbtide-attempt", "ebbtide-queued", "ebbtide-scan-timeout"}
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: names[random.IntN(len(names))], Value: []byte(text(1 << random.IntN(15)))})
		}
		records[fmt.Sprint("arbitrary ", i)] = r
	}
	return records
}

// Whatever is in a record, it ends within its attempts, and the record behind it is processed, however commands end.
func TestEveryRecordEnds(t *testing.T) {
	for _, script := range []string{"cat", "exit 75", "printf '\\001\\377\\\"' >&2; head -c 3000 /dev/zero >&2; exit 3"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 1)
			records := hostile()
			for name, r := range records {
				r.Topic = scansTopic
				if err := b.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			b.produce(t, 0, "victim")
			j := b.job("sh", "-c", script)
			j.MaxMessages, j.MaxAttempts, j.IdleTimeout = 0, 2, 15*time.Second // a slow machine may fetch nothing for seconds
			j.ResultLimit = 16 << 10
			j.queue.SessionTimeout = time.Minute
			j.queue.RetryTopics, j.RetryDelays = []string{retryTopic}, []time.Duration{200 * time.Millisecond}
			got, err := j.run(t.Context())
			if err != nil || got.Ended != "idle" {
				t.Fatalf("%+v, %v", got, err)
			}
			if want := len(records) + 1; got.Succeeded+got.DeadLettered != want || b.committed(t, 0) != int64(want) {
				t.Errorf("%+v, committed %d; want %d ends", got, b.committed(t, 0), want)
			}
			reasons := map[string]int{}
			for range got.DeadLettered {
				dead := b.take(t, deadTopic)
				reason := header(dead, "ebbtide-reason")
				if reason == "" || strings.Contains(reason, "worker was killed") {
					t.Errorf("dead letter %q: reason %q", header(dead, "message-id"), reason)
				}
				for _, part := range []string{"its headers have", "its key has", "names", "want a duration"} {
					if strings.Contains(reason, part) {
						reasons[part]++
					}
				}
			}
			if reasons["its headers have"] < 5 || reasons["its key has"] != 1 || reasons["want a duration"] == 0 {
				t.Errorf("reasons %v", reasons)
			}
			for range got.Succeeded + got.DeadLettered {
				b.result(t)
			}
			if script == "cat" && got.Succeeded < 10 {
				t.Errorf("%+v: hardly anything was scanned", got)
			}
		})
	}
}

// Attempts are apart by a delay that grows, with and without retry topics, and what comes behind is not held up.
func TestRetryDelays(t *testing.T) {
	for name, topics := range map[string][]string{"retry topics": {retryTopic}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 1)
			b.produce(t, 0, "one", "two")
			j := b.job("sh", "-c", "[ $EBBTIDE_MESSAGE_ID = id-two ] && exit 0; echo licence server down $EBBTIDE_DELIVERY_COUNT >&2; exit 75")
			j.MaxMessages, j.MaxAttempts, j.IdleTimeout = 4, 3, 20*time.Second
			j.queue.RetryTopics, j.RetryDelays = topics, []time.Duration{time.Second, 2 * time.Second}
			j.queue.MaxDelay = 2 * time.Second
			begin := time.Now()
			j.mustRun(t, worker.Summary{Messages: 4, Succeeded: 1, Retried: 2, DeadLettered: 1, Ended: "messages"})
			if took := time.Since(begin); took < 3*time.Second || took > 12*time.Second {
				t.Errorf("three attempts took %s, want 3 s and a little", took)
			}
			if r := b.result(t); r.GetKey() != "id-two" {
				t.Errorf("the first result is %v: two was held up", r)
			}
			if reason := header(b.take(t, deadTopic), "ebbtide-reason"); reason !=
				"the command exited with 75, which asks for another attempt: licence server down 2; it was attempt 3 of 3" {
				t.Errorf("reason %q", reason)
			}
		})
	}
}

// Records that say of themselves that they are to wait hold up nobody.
func TestForgedDelays(t *testing.T) {
	for name, topics := range map[string][]string{"retry topics": {retryTopic}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 1)
			const forged = 20
			for range forged {
				if err := b.client.ProduceSync(t.Context(), &kgo.Record{Topic: scansTopic, Value: []byte("x"), Headers: []kgo.RecordHeader{
					{Key: "ebbtide-not-before", Value: []byte(time.Now().Add(23 * time.Hour).UTC().Format(time.RFC3339Nano))},
				}}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			b.produce(t, 0, "victim")
			j := b.job("cat")
			j.MaxMessages, j.queue.RetryTopics, j.queue.MaxDelay = forged+1, topics, 10*time.Minute
			j.mustRun(t, worker.Summary{Messages: forged + 1, Succeeded: forged + 1, Ended: "messages"})
		})
	}
}
