package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// lookBytes is how much of a partition is looked at in one go; a broker sends at least one batch.
	lookBytes = 64 << 10
	// maxTogether is how many partitions are asked for in one go.
	maxTogether = maxAnswer / 4 / lookBytes
	// lookRounds bounds how often a partition is asked for more in one sample.
	lookRounds = 8
	// countedLag is up to which lag messages are counted one by one, whenever it changes. Of a longer one it is only known that there are
	// some, and markers and gaps in it count.
	countedLag = 500
)

// place is a partition of one making of a topic.
type place struct {
	topic     string
	id        kadm.TopicID
	partition int32
}

// lag is what lies between a group's offset and the end of a partition.
type lag struct {
	place
	leader   int32
	from, to int64
	// messages are those that a worker is given.
	messages int64
}

// look is what was last seen in a partition.
type look struct {
	from, to int64 // the offsets that were asked for
	messages int64 // in them, or those that were seen before the look ended
	last     int64 // offset of the last message seen; -1: none was
	whole    bool  // everything up to the end was looked at
}

// counts says what an earlier look tells of a lag.
func (l look) counts(of lag) (messages int64, known bool) {
	switch {
	case l.whole && of.from == l.from && of.to == l.to:
		return l.messages, true
	case of.from >= l.from && of.from <= l.last && of.to-of.from > countedLag:
		return of.to - of.from, true // a message is left that was seen
	default:
		return 0, false
	}
}

// look fills in how many messages are in lags. Only what changed since the last time is read again.
func (r *reader) look(ctx context.Context, lags []lag) error {
	looked := make(map[place]look, len(lags))
	open := map[int32][]*search{} // by leader
	for i := range lags {
		l := &lags[i]
		before, was := r.looked[l.place]
		if messages, known := before.counts(*l); was && known {
			l.messages, looked[l.place] = messages, before
			continue
		}
		open[l.leader] = append(open[l.leader], &search{lag: l, next: l.from, look: look{from: l.from, to: l.to, last: -1}})
	}
	for leader, searches := range open {
		for round := 0; round < lookRounds && len(searches) > 0; round++ {
			// A broker leaves out what does not fit beside other partitions, so nothing is concluded from what it leaves out until
			// a partition is asked for by itself.
			var together []*search
			for _, s := range searches {
				if s.alone {
					if err := r.fetch(ctx, leader, []*search{s}); err != nil {
						return err
					}
				} else {
					together = append(together, s)
				}
			}
			for some := range slices.Chunk(together, maxTogether) {
				if err := r.fetch(ctx, leader, some); err != nil {
					return err
				}
			}
			searches = slices.DeleteFunc(searches, func(s *search) bool {
				if !s.done() {
					return false
				}
				s.lag.messages, looked[s.lag.place] = s.result(), s.look
				return true
			})
		}
		for _, s := range searches { // nothing but markers so far: there may be messages behind them
			s.lag.messages = s.lag.to - s.lag.from
		}
	}
	r.looked = looked
	return nil
}

// search is a look under way.
type search struct {
	lag  *lag
	next int64 // offset to continue from
	// alone is that an answer for several partitions had nothing of this one.
	alone bool
	look
}

func (s *search) done() bool {
	s.whole = s.next >= s.to
	return s.whole || s.messages > 0 && s.to-s.from > countedLag
}

func (s *search) result() int64 {
	if s.whole {
		return s.messages
	}
	return s.to - s.from
}

// fetch reads on in partitions that a broker leads.
func (r *reader) fetch(ctx context.Context, leader int32, searches []*search) error {
	request := kmsg.NewPtrFetchRequest()
	request.ReplicaID, request.MaxBytes, request.SessionEpoch = -1, maxAnswer/4, -1
	if r.config.ReadCommitted {
		request.IsolationLevel = 1
	}
	byPlace := map[place]*search{}
	for _, s := range searches {
		byPlace[s.lag.place] = s
		i := slices.IndexFunc(request.Topics, func(t kmsg.FetchRequestTopic) bool { return t.Topic == s.lag.topic })
		if i < 0 {
			topic := kmsg.NewFetchRequestTopic()
			topic.Topic, topic.TopicID = s.lag.topic, s.lag.id
			i, request.Topics = len(request.Topics), append(request.Topics, topic)
		}
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.Partition, partition.FetchOffset, partition.PartitionMaxBytes = s.lag.partition, s.next, lookBytes
		request.Topics[i].Partitions = append(request.Topics[i].Partitions, partition)
	}
	answer, err := r.broker.Broker(int(leader)).Request(ctx, request)
	if err != nil {
		return err
	}
	response := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return err
	}
	for _, topic := range response.Topics {
		for _, partition := range topic.Partitions {
			var s *search
			for at, candidate := range byPlace {
				if at.partition == partition.Partition && (at.topic == topic.Topic || topic.Topic == "" && at.id == topic.TopicID) {
					s = candidate
				}
			}
			if s == nil {
				continue
			}
			if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
				return fmt.Errorf("topic %q, partition %d: %w", s.lag.topic, s.lag.partition, err)
			}
			before := s.next
			s.scan(partition.RecordBatches, partition.AbortedTransactions)
			switch {
			case s.next > before:
				s.alone = false
			case !s.alone:
				s.alone = true
			case len(partition.RecordBatches) == 0:
				s.next = s.to // there is no batch up to the end: what was there was compacted
			default: // of a kind that is not known
				s.found(s.to-s.next, s.to-1)
				s.next = s.to
			}
		}
	}
	return nil
}

// Fields of a record batch, version 2 (https://kafka.apache.org/documentation/#recordbatch).
const (
	atLength, atMagic, atAttributes, atLastDelta, atProducer, atCount, batchHeader = 8, 16, 21, 23, 43, 57, 61
	compressionBits, transactionalBit, controlBit                                  = 0x07, 0x10, 0x20
)

// scan counts the messages of batches that a worker is given, from their headers.
func (s *search) scan(batches []byte, aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction) {
	left := map[int64]bool{} // producers in an aborted transaction
	for len(batches) > atMagic {
		base := int64(binary.BigEndian.Uint64(batches))
		size := int(int32(binary.BigEndian.Uint32(batches[atLength:]))) + atLength + 4
		if size < batchHeader || size > len(batches) {
			return // cut off, or older than transactions
		}
		batch := batches[:size]
		batches = batches[size:]
		if batch[atMagic] != 2 {
			s.found(s.to-s.next, s.to-1)
			s.next = s.to
			return
		}
		attributes, producer := binary.BigEndian.Uint16(batch[atAttributes:]), int64(binary.BigEndian.Uint64(batch[atProducer:]))
		end := base + int64(int32(binary.BigEndian.Uint32(batch[atLastDelta:]))) + 1
		for len(aborted) > 0 && aborted[0].FirstOffset <= base {
			left[aborted[0].ProducerID], aborted = true, aborted[1:]
		}
		control, count := attributes&controlBit != 0, int64(int32(binary.BigEndian.Uint32(batch[atCount:])))
		switch {
		case base >= s.to:
			s.next = s.to
			return
		case control:
			delete(left, producer)
		case end <= s.next || attributes&transactionalBit != 0 && left[producer]:
		case base >= s.next && end <= s.to:
			s.found(count, end-1)
		default: // the group's offset, or the last one readable, is inside of it
			s.found(inside(batch[batchHeader:], attributes, base, end, count, s.next, s.to), min(end, s.to)-1)
		}
		s.next = max(s.next, min(end, s.to))
	}
}

func (s *search) found(messages, last int64) {
	if messages > 0 {
		s.messages += messages
		s.last = last
	}
}

// inside is how many records of a batch are from one offset to another. Of one that is compressed and was compacted it is the most that
// there can be.
func inside(records []byte, attributes uint16, base, end, count, from, to int64) int64 {
	span := min(end, to) - max(base, from)
	if count == end-base || attributes&compressionBits != 0 {
		return min(span, count)
	}
	var n int64
	for range count {
		size, width := binary.Varint(records)
		if width <= 0 || size <= 0 || size > int64(len(records)-width) {
			return min(span, count) // not what it should be
		}
		record := records[width : width+int(size)]
		records = records[width+int(size):]
		_, timestamp := binary.Varint(record[1:])
		if timestamp <= 0 {
			return min(span, count)
		}
		delta, width := binary.Varint(record[1+timestamp:])
		if width <= 0 {
			return min(span, count)
		}
		if offset := base + delta; offset >= from && offset < to {
			n++
		}
	}
	return n
}
