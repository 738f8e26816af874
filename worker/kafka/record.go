package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// The headers of records. Those of a record that is sent again say what it was.
const (
	idHeader          = "message-id"
	correlationHeader = "correlation-id"
	contentTypeHeader = "content-type"

	attemptHeader   = "ebbtide-attempt" // attempts before this one
	queuedHeader    = "ebbtide-queued"
	notBeforeHeader = "ebbtide-not-before"
	reasonHeader    = "ebbtide-reason"
	resultHeader    = "ebbtide-result"
	forwardedHeader = "ebbtide-forwarded" // the topic that it was forwarded to, because it ran out of memory
	droppedHeader   = "ebbtide-dropped"   // what did not fit beside these: names of headers, or the body
)

// workersHeader reports whether a header is of this package, and replaced when a record is sent again.
func workersHeader(key string) bool {
	switch key {
	case attemptHeader, queuedHeader, notBeforeHeader, reasonHeader, resultHeader, droppedHeader:
		return true
	}
	return false
}

func header(record *kgo.Record, key string) string {
	value := ""
	for _, h := range record.Headers {
		if h.Key == key {
			value = string(h.Value) // the last one counts
		}
	}
	return value
}

// message is a record for the worker.
func message(record *kgo.Record) *worker.Message {
	m := &worker.Message{
		Headers: map[string]string{}, Body: record.Value, RoutingKey: string(record.Key), Queued: record.Timestamp, Attempt: 1,
	}
	for _, h := range record.Headers {
		m.Headers[h.Key] = string(h.Value)
		if !workersHeader(h.Key) {
			m.HeaderBytes += headerBytes(h)
		}
	}
	m.ID, m.CorrelationID, m.ContentType = m.Headers[idHeader], m.Headers[correlationHeader], m.Headers[contentTypeHeader]
	if m.Key = worker.Identity(m.ID, worker.MaxIDBytes); m.Key == "" {
		m.Key = fmt.Sprintf("%s/%d/%d", record.Topic, record.Partition, record.Offset)
	}
	m.Claimed = attempts(m.Headers[attemptHeader])
	m.Attempt += m.Claimed
	m.LastReason = m.Headers[reasonHeader]
	if queued, err := time.Parse(time.RFC3339Nano, m.Headers[queuedHeader]); err == nil {
		m.Queued = queued
	}
	// What is the worker's own tells a command nothing.
	for _, key := range []string{resultHeader, reasonHeader} {
		delete(m.Headers, key)
	}
	return m
}

// headerBytes is how long a header is in a record, at least: one that is empty has two lengths.
func headerBytes(h kgo.RecordHeader) int { return len(h.Key) + len(h.Value) + 2 }

// attempts is a count in a header or in a commit's metadata. Others may write anything there.
func attempts(text string) int {
	const most = 1 << 20
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return min(max(n, 0), most)
}

// added are headers that a record gets when it is sent again, in order.
type added []kgo.RecordHeader

func (a *added) set(key, value string) {
	*a = append(slices.DeleteFunc(*a, func(h kgo.RecordHeader) bool { return h.Key == key }), kgo.RecordHeader{Key: key, Value: []byte(value)})
}

// sentAgain are the headers of every record that is sent again: the time at which it was queued, its key, and why.
func (q *queue) sentAgain(message *worker.Message, again worker.Attempt) (headers added) {
	headers.set(idHeader, message.Key)
	headers.set(queuedHeader, message.Queued.UTC().Format(time.RFC3339Nano))
	if again.Number > 0 {
		headers.set(attemptHeader, strconv.Itoa(again.Number))
	}
	headers.set(reasonHeader, again.Reason)
	return headers
}

// largeHeader is from where on a producer's header is dropped if a record does not fit otherwise.
const largeHeader = 1 << 10

// resend sends the record that is worked on to a topic, as it was, with headers. What a topic takes is known to its broker only. So what
// it refuses is sent with less: without the result, then without the producer's long headers, then without all of them, and where that is
// allowed without the body, which stays where it was.
func (q *queue) resend(ctx context.Context, topic string, headers added, dropBody bool) error {
	old := q.current.record
	record := &kgo.Record{Topic: topic, Key: old.Key, Value: old.Value}
	keep := func(most int) {
		record.Headers = nil
		var dropped []string
		for _, h := range old.Headers {
			replaced := slices.ContainsFunc(headers, func(one kgo.RecordHeader) bool { return one.Key == h.Key })
			switch {
			case replaced || workersHeader(h.Key):
			case headerBytes(h) > most:
				dropped = append(dropped, worker.Identity(h.Key, 64))
			default:
				record.Headers = append(record.Headers, h)
			}
		}
		if names := strings.Join(dropped, ","); names != "" {
			headers.set(droppedHeader, names[:min(len(names), 500)])
		}
		record.Headers = append(record.Headers, headers...)
	}
	steps := []func(){
		func() { keep(produceMaxBytes) },
		func() {
			headers = slices.DeleteFunc(headers, func(h kgo.RecordHeader) bool { return h.Key == resultHeader })
			keep(produceMaxBytes)
		},
		func() { keep(largeHeader) },
		func() { keep(0) },
	}
	if dropBody {
		steps = append(steps, func() {
			headers.set(droppedHeader, fmt.Sprintf("the body of %d bytes, %s: it was at offset %d of partition %d of topic %s",
				len(old.Value), results.Digest(old.Value), old.Offset, old.Partition, old.Topic))
			record.Value = nil
			if len(record.Key) > largeHeader {
				record.Key = nil
			}
			keep(0)
		})
	}
	var err error
	for _, step := range steps {
		step()
		if err = q.produce(ctx, record); !errors.Is(err, kerr.MessageTooLarge) {
			return err
		}
	}
	return worker.TooLarge(err)
}

// produce returns once all in-sync replicas have the record.
func (q *queue) produce(ctx context.Context, record *kgo.Record) error {
	// The client keeps state in a record, which may be sent again with less in it.
	sent := *record
	if err := q.client.ProduceSync(ctx, &sent).FirstErr(); err != nil {
		return fmt.Errorf("send to topic %q: %w", record.Topic, q.explain(err))
	}
	return nil
}

// Publish implements worker.Queue. A record's key is the scan, so that one consumer gets all results of it.
func (q *queue) Publish(ctx context.Context, result worker.Publication) error {
	if q.config.ResultTopic == "" {
		return nil
	}
	err := q.produce(ctx, &kgo.Record{
		Topic: q.config.ResultTopic, Key: []byte(result.Scan), Value: result.Body, Headers: []kgo.RecordHeader{
			{Key: idHeader, Value: []byte(result.Key)},
			{Key: contentTypeHeader, Value: []byte(result.ContentType)},
			{Key: "type", Value: []byte(results.Type)},
		},
	})
	if errors.Is(err, kerr.MessageTooLarge) {
		return worker.TooLarge(fmt.Errorf("topic %q takes no record of %d bytes: lower --result-limit, or raise max.message.bytes",
			q.config.ResultTopic, len(result.Body)))
	}
	return err
}
