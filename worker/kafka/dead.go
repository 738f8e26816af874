package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/ebbtide-dev/ebbtide/worker/dead"
)

// DeadConfig says where dead letters are and where they may be sent again.
type DeadConfig struct {
	Brokers []string
	Topic   string
	// ReplayTo is the topic that letters are sent to; empty: they are only looked at.
	ReplayTo string

	// ConnectTimeout bounds the attempts to reach a broker.
	ConnectTimeout time.Duration
	// SASL and TLS; nil for none.
	SASL sasl.Mechanism
	TLS  *tls.Config
}

// DeadLetters reads a topic of records that failed.
//
// No letter is sent twice. A letter is sent in a transaction that also writes a mark with the letter's offset to its partition: both are
// there, or neither. All who replay a topic have the same transactional id, so whoever begins stops those who were at it, before it reads
// the marks. A mark is younger than its letter, so retention does not remove it first.
type DeadLetters struct {
	config  DeadConfig
	options []kgo.Opt
	client  *kgo.Client
	current *kgo.Record
	// unsent are the letters of the transaction that is open.
	unsent int
}

// replayedHeader of a mark is the offset of the letter that was sent again.
const replayedHeader = "ebbtide-replayed"

// lettersEach is how many letters a transaction has: what it holds up others for, and what another replay has to do again.
const lettersEach = 100

// OpenDeadLetters connects to the brokers. The user needs Read on the topic; to replay also Write on both topics and on the transactional
// id ebbtide-dead-TOPIC.
func OpenDeadLetters(ctx context.Context, config DeadConfig) (*DeadLetters, error) {
	d := &DeadLetters{config: config, options: []kgo.Opt{kgo.SeedBrokers(config.Brokers...), kgo.ClientID("ebbtide-dead")}}
	if config.SASL != nil {
		d.options = append(d.options, kgo.SASL(config.SASL))
	}
	if config.TLS != nil {
		d.options = append(d.options, kgo.DialTLSConfig(config.TLS))
	}
	options := d.options
	if config.ReplayTo != "" {
		options = slices.Concat(options, []kgo.Opt{
			kgo.TransactionalID("ebbtide-dead-" + config.Topic), kgo.ProducerBatchMaxBytes(produceMaxBytes),
			// A mark goes to the partition of its letter; a letter to that of its key.
			kgo.RecordPartitioner(byMark{marks: config.Topic, other: kgo.StickyKeyPartitioner(nil)}),
		})
	}
	var err error
	if d.client, err = kgo.NewClient(options...); err != nil {
		return nil, explain(config.Brokers, err)
	}
	connecting, cancel := context.WithTimeout(ctx, config.ConnectTimeout)
	defer cancel()
	topics := []string{config.Topic}
	if config.ReplayTo != "" {
		topics = append(topics, config.ReplayTo)
	}
	found, err := kadm.NewClient(d.client).ListTopics(connecting, topics...)
	if err != nil {
		d.client.Close()
		return nil, explain(config.Brokers, err)
	}
	for _, topic := range topics {
		if !found.Has(topic) {
			d.client.Close()
			return nil, fmt.Errorf("topic %q does not exist: correct its name", topic)
		}
	}
	return d, nil
}

// byMark partitions marks as they say, and all else by key.
type byMark struct {
	marks string
	other kgo.Partitioner
}

// ForTopic implements kgo.Partitioner.
func (p byMark) ForTopic(topic string) kgo.TopicPartitioner {
	if topic == p.marks {
		return kgo.ManualPartitioner().ForTopic(topic)
	}
	return p.other.ForTopic(topic)
}

// Each calls visit with the letters that are in the topic now and were not replayed, the oldest of each partition first, until it returns
// false or an error. When it returns without one, what was replayed is sent.
func (d *DeadLetters) Each(ctx context.Context, visit func(dead.Letter) (bool, error)) error {
	if d.config.ReplayTo != "" {
		if _, _, err := d.client.ProducerID(ctx); err != nil {
			return fmt.Errorf("begin to replay: %w", d.explain(err))
		}
	}
	ends, err := kadm.NewClient(d.client).ListCommittedOffsets(ctx, d.config.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("topic %q: %w", d.config.Topic, d.explain(err))
	}
	replayed := map[int32]map[string]bool{}
	if err := d.read(ctx, ends, func(record *kgo.Record) (bool, error) {
		if offset := header(record, replayedHeader); offset != "" {
			if replayed[record.Partition] == nil {
				replayed[record.Partition] = map[string]bool{}
			}
			replayed[record.Partition][offset] = true
		}
		return true, nil
	}); err != nil {
		return err
	}
	err = d.read(ctx, ends, func(record *kgo.Record) (bool, error) {
		if header(record, replayedHeader) != "" || replayed[record.Partition][strconv.FormatInt(record.Offset, 10)] {
			return true, nil
		}
		d.current = record
		return visit(deadLetter(record))
	})
	return d.end(ctx, err)
}

// read calls visit with the records of the topic before the ends, until it returns false or an error.
func (d *DeadLetters) read(ctx context.Context, ends kadm.ListedOffsets, visit func(*kgo.Record) (bool, error)) error {
	starts, err := kadm.NewClient(d.client).ListStartOffsets(ctx, d.config.Topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("topic %q: %w", d.config.Topic, d.explain(err))
	}
	left, from := map[int32]int64{}, map[int32]kgo.Offset{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok && start.Offset < end.Offset {
			left[end.Partition], from[end.Partition] = end.Offset, kgo.NewOffset().AtStart()
		}
	})
	if len(left) == 0 {
		return nil
	}
	client, err := kgo.NewClient(slices.Concat(d.options, []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{d.config.Topic: from}),
		// The last offset of a partition may be that of a transaction's end.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
	})...)
	if err != nil {
		return d.explain(err)
	}
	defer client.Close()
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read topic %q: %w", d.config.Topic, d.explain(err))
		}
		for iterator := fetches.RecordIter(); !iterator.Done(); {
			record := iterator.Next()
			end, ok := left[record.Partition]
			if !ok {
				continue
			}
			if record.Offset < end && !record.Attrs.IsControl() {
				if more, err := visit(record); err != nil || !more {
					return err
				}
			}
			if record.Offset+1 >= end {
				delete(left, record.Partition)
			}
		}
	}
	return nil
}

// deadLetter is a record as a letter.
func deadLetter(record *kgo.Record) dead.Letter {
	l := dead.Letter{
		Key: message(record).Key, Reason: header(record, reasonHeader), Dropped: header(record, droppedHeader), Result: header(record, resultHeader),
		Bytes: len(record.Value), Body: record.Value, Headers: map[string]string{},
		Position: fmt.Sprintf("%d/%d", record.Partition, record.Offset),
	}
	if l.Died = dead.Ended(l.Result); l.Died.IsZero() {
		l.Died = record.Timestamp
	}
	for _, h := range record.Headers {
		if !workersHeader(h.Key) {
			l.Headers[h.Key] = string(h.Value)
		}
	}
	return l
}

// Replay sends the letter that visit was called with as its producer sent it. It is sent for good once Each has returned without an error.
func (d *DeadLetters) Replay(ctx context.Context) error {
	if d.unsent == 0 {
		if err := d.client.BeginTransaction(); err != nil {
			return d.explain(err)
		}
	}
	d.unsent++
	letter := &kgo.Record{Topic: d.config.ReplayTo, Key: d.current.Key, Value: d.current.Value}
	for _, h := range d.current.Headers {
		if !workersHeader(h.Key) && h.Key != forwardedHeader {
			letter.Headers = append(letter.Headers, h)
		}
	}
	offset := strconv.FormatInt(d.current.Offset, 10)
	mark := &kgo.Record{
		Topic: d.config.Topic, Partition: d.current.Partition,
		// Of its own, as a topic that is compacted keeps one record of each key.
		Key: []byte(replayedHeader + "/" + offset), Headers: []kgo.RecordHeader{{Key: replayedHeader, Value: []byte(offset)}},
	}
	if err := d.client.ProduceSync(ctx, letter, mark).FirstErr(); err != nil {
		return d.end(ctx, d.explain(err))
	}
	if d.unsent < lettersEach {
		return nil
	}
	return d.end(ctx, nil)
}

// end commits the transaction that is open, if there is one; after an error it aborts it.
func (d *DeadLetters) end(ctx context.Context, failure error) error {
	if d.unsent == 0 {
		return failure
	}
	letters := d.unsent
	d.unsent = 0
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	if failure == nil {
		if failure = d.client.EndTransaction(ctx, kgo.TryCommit); failure == nil {
			return nil
		}
		failure = d.explain(failure)
	} else if err := d.client.EndTransaction(ctx, kgo.TryAbort); err != nil {
		failure = errors.Join(failure, d.explain(err))
	}
	return fmt.Errorf("the last %d letters are not sent: %w", letters, failure)
}

// Close ends the connections. What was not sent for good is not sent.
func (d *DeadLetters) Close() error {
	d.client.Close()
	return nil
}

func (d *DeadLetters) explain(err error) error {
	switch {
	case errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.ProducerFenced):
		return fmt.Errorf("another replay of topic %q has begun, and this one ends: %w", d.config.Topic, err)
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return fmt.Errorf("the user needs the permission Write on the transactional id %q: %w", "ebbtide-dead-"+d.config.Topic, err)
	}
	return explain(d.config.Brokers, err)
}
