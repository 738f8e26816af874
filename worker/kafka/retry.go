package kafka

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// passOnEvery is how often a record that is not due is sent to the end of a topic that is no retry topic.
const passOnEvery = time.Second

// due is when a record may be worked on. A producer may write anything there: where workers have retry topics, only what is in one of those waits.
func (q *queue) due(record *kgo.Record) time.Time {
	at, err := time.Parse(time.RFC3339Nano, header(record, notBeforeHeader))
	most := q.config.MaxDelay
	switch {
	case slices.Contains(q.config.RetryTopics, record.Topic):
		most = maxDelay
	case len(q.config.RetryTopics) > 0:
		most = 0
	}
	const clocks = time.Minute // those of machines differ
	if err != nil || most == 0 || at.After(record.Timestamp.Add(most+clocks)) || at.After(time.Now().Add(most+clocks)) {
		return time.Time{}
	}
	return at
}

// maxDelay bounds how long a record may hold up its partition of a retry topic.
const maxDelay = 24 * time.Hour

// park pauses a partition of a retry topic until its first record is due.
func (q *queue) park(record *kgo.Record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.parked[partition{record.Topic, record.Partition}] = record
	q.client.PauseFetchPartitions(map[string][]int32{record.Topic: {record.Partition}})
}

// unpark forgets the records of partitions that go to another member.
func (q *queue) unpark(partitions map[string][]int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for topic, numbers := range partitions {
		for _, number := range numbers {
			delete(q.parked, partition{topic, number})
		}
	}
	q.client.ResumeFetchPartitions(partitions)
}

// unparkDue returns a parked record that is due, as the one that is worked on, or else how long until one is; 0: none is parked.
func (q *queue) unparkDue() (*held, time.Duration) {
	q.mu.Lock()
	var first *kgo.Record
	for _, record := range q.parked {
		if first == nil || q.due(record).Before(q.due(first)) {
			first = record
		}
	}
	var wait time.Duration
	if first != nil {
		wait = max(time.Until(q.due(first)), 0)
	}
	if first == nil || wait > 0 {
		q.mu.Unlock()
		return nil, wait
	}
	delete(q.parked, partition{first.Topic, first.Partition})
	q.mu.Unlock()
	q.client.ResumeFetchPartitions(map[string][]int32{first.Topic: {first.Partition}})
	return q.take(first), 0
}

// passOn sends a record that is not due to the end of its topic.
func (q *queue) passOn(ctx context.Context, current *held, wait time.Duration) error {
	defer q.release()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-current.message.Held.Done():
		return nil // it is another member's
	case <-time.After(min(wait, passOnEvery)):
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	if err := q.client.ProduceSync(ctx, &kgo.Record{
		Topic: current.record.Topic, Key: current.record.Key, Value: current.record.Value, Headers: current.record.Headers,
	}).FirstErr(); err != nil {
		return q.explain(err)
	}
	return q.commit(ctx, current.record, current.record.Offset+1, "")
}

// Retry implements worker.Queue.
func (q *queue) Retry(ctx context.Context, message *worker.Message, again worker.Attempt) error {
	topic := q.current.record.Topic
	if topics := q.config.RetryTopics; len(topics) > 0 {
		topic = topics[min(again.Number, len(topics))-1]
	}
	headers := q.sentAgain(message, again)
	if again.After > 0 {
		headers.set(notBeforeHeader, time.Now().Add(again.After).UTC().Format(time.RFC3339Nano))
	}
	if err := q.resend(ctx, topic, headers, false); err != nil {
		return err
	}
	return q.Ack(ctx, message)
}

// Forward implements worker.Queue.
func (q *queue) Forward(ctx context.Context, message *worker.Message, why worker.Attempt) error {
	larger := q.config.LargerTopic
	if larger == "" || message.Headers[forwardedHeader] == larger {
		return worker.ErrNoLarger
	}
	why.Number = 0
	headers := q.sentAgain(message, why)
	headers.set(forwardedHeader, larger)
	if err := q.resend(ctx, larger, headers, false); err != nil {
		return err
	}
	return q.Ack(ctx, message)
}

// DeadLetter implements worker.Queue. If the record is sent again, its attempts begin at 0.
func (q *queue) DeadLetter(ctx context.Context, message *worker.Message, letter worker.DeadLetter) error {
	if q.config.DeadLetterTopic != "" {
		headers := q.sentAgain(message, worker.Attempt{Reason: letter.Reason})
		headers.set(resultHeader, letter.Result)
		if err := q.resend(ctx, q.config.DeadLetterTopic, headers, true); err != nil {
			return err
		}
	}
	return q.Ack(ctx, message)
}
