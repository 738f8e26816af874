// Package kafka is a worker's queue on Kafka: the topics of a consumer group, one record at a time.
//
//	a record is done      its result is in the result topic, then the offset after it is committed
//	another attempt       the record is sent again, to a retry topic or to where it came from, then committed
//	it failed             it is sent to the dead-letter topic, then committed
//	its worker is killed  nothing is committed: the next member that gets the partition begins with it
//
// A record that is sent again says when it is due. All records of a retry topic wait equally long, so none waits behind another that is due
// later: its partition is paused until its first record is, and the worker continues with others. Without retry topics a record that is not
// due is passed on to the end of its topic, at most one a second, because a pause would hold up what is behind it.
//
// Kafka does not count deliveries, so the worker does: before a command starts, the offset of its record is committed as it is,
// with the attempt in the commit's metadata. A record that kills its worker reaches its limit too.
//
// The client sends heartbeats while a command runs, however long that takes, and there is no max.poll.interval. When a rebalance
// takes the partition of the record that is being worked on, the member holds on to it until the record is done, for at most
// nine tenths of the rebalance timeout; then the command is killed and the record is another's. Balancing is cooperative: members
// whose partitions stay keep consuming. But a group of the classic protocol begins no further rebalance until then, and nobody commits while one
// waits to begin: commits, and those who want to leave, wait too. Groups of the newer protocol, which the brokers balance, do not.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// Config says where records come from and where they go.
type Config struct {
	Brokers []string
	// Topics that the group consumes; with RetryTopics, those as well.
	Topics []string
	Group  string
	// ClientID names the member, best after the pod's Job.
	ClientID string

	// ResultTopic takes the results; without one they are dropped. DeadLetterTopic takes records that failed; without one they are
	// passed over. LargerTopic takes records whose command ran out of memory.
	ResultTopic, DeadLetterTopic, LargerTopic string
	// RetryTopics take records that get another attempt, one topic for each delay; what has no topic of its own goes to the last one. Without
	// any they go to the end of the topic that they came from.
	RetryTopics []string

	// MaxDelay is the longest that a worker of the topics lets a record wait for its next attempt. Without retry topics a record that says of itself that it
	// is to wait longer is not believed.
	MaxDelay time.Duration

	// SessionTimeout after which the group gives up a member that is silent.
	SessionTimeout time.Duration
	// RebalanceTimeout bounds how long a rebalance waits for a member: longer than most commands run.
	RebalanceTimeout time.Duration
	// ConnectTimeout bounds the attempts to reach a broker.
	ConnectTimeout time.Duration

	// ServerSide lets the brokers assign partitions, member by member (Kafka 4.3 and later): a command that holds on to its partition
	// then holds up nobody else. SessionTimeout is the brokers' then.
	ServerSide bool

	// SASL and TLS; nil for none.
	SASL sasl.Mechanism
	TLS  *tls.Config
	Log  *slog.Logger
}

// attemptsMetadataKey begins a commit's metadata.
const attemptsMetadataKey = "ebbtide-attempts="

// settleWithin bounds a question to the brokers, leaveWithin the wait for their goodbye.
const settleWithin, leaveWithin = 30 * time.Second, 5 * time.Second

// produceMaxBytes is what a broker reads as one request, less some room: socket.request.max.bytes is 100 MiB.
const produceMaxBytes = 64 << 20

// heldOn is how much of the rebalance timeout a record may hold its partition.
func heldOn(timeout time.Duration) time.Duration { return timeout * 9 / 10 }

type queue struct {
	config *Config
	client *kgo.Client
	admin  *kadm.Client
	left   bool

	mu      sync.Mutex
	current *held
	// parked are the first records of paused partitions, which are not due.
	parked map[partition]*kgo.Record
}

// partition of a topic.
type partition struct {
	topic  string
	number int32
}

// held is the record that is being worked on.
type held struct {
	record  *kgo.Record
	message *worker.Message
	lose    context.CancelCauseFunc
	settled chan struct{}
}

// Open connects and joins the group.
func Open(ctx context.Context, config Config) (worker.Queue, error) {
	q := &queue{config: &config, parked: map[partition]*kgo.Record{}}
	topics := slices.Concat(config.Topics, config.RetryTopics)
	slices.Sort(topics)
	topics = slices.Compact(topics)
	options := []kgo.Opt{
		kgo.SeedBrokers(config.Brokers...), kgo.ClientID(config.ClientID),
		kgo.ConsumerGroup(config.Group), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(config.SessionTimeout), kgo.HeartbeatInterval(min(3*time.Second, config.SessionTimeout/3)),
		kgo.RebalanceTimeout(config.RebalanceTimeout), kgo.OnPartitionsRevoked(q.revoked), kgo.OnPartitionsLost(q.lost),
		// One record is worked on at a time: more than a few in memory are of no use.
		kgo.FetchMaxBytes(1 << 20), kgo.FetchMaxPartitionBytes(1 << 20), kgo.MaxConcurrentFetches(1),
		// A partition that is assigned during a fetch waits for its end.
		kgo.FetchMaxWait(500 * time.Millisecond),
		// What a producer's transaction has aborted is no message.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// A topic's max.message.bytes is what bounds a record, and its broker says so.
		kgo.ProducerBatchMaxBytes(produceMaxBytes),
	}
	if config.ServerSide {
		options = append(options, kgo.ServerSideBalancer())
	}
	if config.SASL != nil {
		options = append(options, kgo.SASL(config.SASL))
	}
	if config.TLS != nil {
		options = append(options, kgo.DialTLSConfig(config.TLS))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, q.explain(err)
	}
	q.client, q.admin = client, kadm.NewClient(client)
	connecting, cancel := context.WithTimeout(ctx, config.ConnectTimeout)
	defer cancel()
	if err := q.check(connecting, append(topics, config.ResultTopic, config.DeadLetterTopic, config.LargerTopic)); err != nil {
		client.CloseAllowingRebalance()
		return nil, err
	}
	return q, nil
}

// check waits until a broker answers, and says which topic is not there.
func (q *queue) check(ctx context.Context, topics []string) error {
	topics = slices.DeleteFunc(topics, func(topic string) bool { return topic == "" })
	for {
		found, err := q.admin.ListTopics(ctx, topics...)
		if err == nil {
			for _, topic := range topics {
				if !found.Has(topic) {
					return fmt.Errorf("topic %q does not exist: create it, or correct its name", topic)
				}
			}
			return nil
		}
		q.config.Log.Warn("the brokers can't be reached; trying again", "error", err)
		select {
		case <-ctx.Done():
			return q.explain(err)
		case <-time.After(time.Second):
		}
	}
}

// revoked is called when a rebalance takes partitions, and may take its time.
func (q *queue) revoked(ctx context.Context, _ *kgo.Client, partitions map[string][]int32) {
	q.unpark(partitions)
	current := q.holds(partitions)
	if current == nil {
		return
	}
	patience := heldOn(q.config.RebalanceTimeout)
	select {
	case <-current.settled:
	case <-ctx.Done():
	case <-time.After(patience):
		current.lose(fmt.Errorf(
			"a rebalance of group %q takes partition %d of topic %q, and %s later the command still ran: raise --rebalance-timeout",
			q.config.Group, current.record.Partition, current.record.Topic, patience))
	}
}

// lost is called when partitions are another's already.
func (q *queue) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	q.unpark(partitions)
	if current := q.holds(partitions); current != nil {
		current.lose(fmt.Errorf("group %q gave partition %d of topic %q to another member: this one was not heard of for %s",
			q.config.Group, current.record.Partition, current.record.Topic, q.config.SessionTimeout))
	}
}

// holds returns the record that is being worked on if it is of one of the partitions.
func (q *queue) holds(partitions map[string][]int32) *held {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.current == nil || !slices.Contains(partitions[q.current.record.Topic], q.current.record.Partition) {
		return nil
	}
	return q.current
}

// Name implements worker.Queue.
func (q *queue) Name() string {
	if current := q.current; current != nil {
		return current.record.Topic
	}
	return strings.Join(q.config.Topics, ",")
}

// Next implements worker.Queue.
func (q *queue) Next(ctx context.Context) (*worker.Message, error) {
	for !q.left {
		current, err := q.poll(ctx)
		if err != nil {
			return nil, err
		}
		if current == nil {
			continue
		}
		if wait := time.Until(q.due(current.record)); wait > 0 {
			if err := q.passOn(ctx, current, wait); err != nil {
				return nil, err
			}
			continue
		}
		err = q.count(ctx, current)
		if err == nil {
			return current.message, nil
		}
		q.release()
		if current.message.Held.Err() == nil {
			return nil, fmt.Errorf("count the attempt at offset %d of topic %q: %w",
				current.record.Offset, current.record.Topic, q.explain(err))
		}
		// The partition went to another member, and the record with it.
	}
	return nil, nil
}

// poll returns the next record, if there is one, as the one that is worked on. One of a retry topic is due.
func (q *queue) poll(ctx context.Context) (*held, error) {
	parked, wait := q.unparkDue()
	if parked != nil {
		return parked, nil
	}
	polling, cancel := ctx, func() {}
	if wait > 0 {
		polling, cancel = context.WithTimeout(ctx, wait)
	}
	defer cancel()
	fetches := q.client.PollRecords(polling, 1)
	defer q.client.AllowRebalance()
	if records := fetches.Records(); len(records) > 0 {
		if record := records[0]; time.Until(q.due(record)) > 0 && slices.Contains(q.config.RetryTopics, record.Topic) {
			q.park(record)
			return nil, nil
		}
		// Before a rebalance may happen, so that it finds what is held.
		return q.take(records[0]), nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if polling.Err() != nil {
		return nil, nil
	}
	if err := fetches.Err(); putOut(err) {
		q.config.Log.Warn("the group had given up this worker, which joins it again: raise --session-timeout, or the worker's CPU, if this happens often",
			"group", q.config.Group, "error", err)
	} else if err != nil {
		return nil, q.explain(err)
	}
	return nil, nil
}

// putOut says whether a group has given up this member, which the client joins to it again by itself. The record that was being worked on
// is lost.
func putOut(err error) bool {
	var session *kgo.ErrGroupSession
	return errors.As(err, &session) &&
		(errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.FencedMemberEpoch))
}

// take makes a record the one that is worked on.
func (q *queue) take(record *kgo.Record) *held {
	m := message(record)
	held := &held{record: record, message: m, settled: make(chan struct{})}
	m.Held, held.lose = context.WithCancelCause(context.Background())
	q.mu.Lock()
	defer q.mu.Unlock()
	q.current = held
	return held
}

// release lets go of the record that was worked on.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.current != nil {
		close(q.current.settled)
		q.current = nil
	}
}

// count adds the attempts that killed their worker, and writes this one down.
func (q *queue) count(ctx context.Context, current *held) error {
	record := current.record
	committed, err := q.admin.FetchOffsetsForTopics(ctx, q.config.Group, record.Topic)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return err
	}
	before := 0
	if commit, ok := committed.Lookup(record.Topic, record.Partition); ok && commit.At == record.Offset {
		if text, ok := strings.CutPrefix(commit.Metadata, attemptsMetadataKey); ok {
			before = attempts(text)
		}
	}
	current.message.Attempt += before
	return q.commit(ctx, record, record.Offset, attemptsMetadataKey+strconv.Itoa(before+1))
}

// commit commits an offset of a record's partition. A rebalance that waits for another member's command holds it up.
func (q *queue) commit(ctx context.Context, record *kgo.Record, offset int64, metadata string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.config.RebalanceTimeout+settleWithin)
	defer cancel()
	ctx = kgo.PreCommitFnContext(ctx, func(request *kmsg.OffsetCommitRequest) error {
		for _, topic := range request.Topics {
			for i := range topic.Partitions {
				topic.Partitions[i].Metadata = &metadata
			}
		}
		return nil
	})
	offsets := map[string]map[int32]kgo.EpochOffset{record.Topic: {record.Partition: {Epoch: record.LeaderEpoch, Offset: offset}}}
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		var failed error
		q.client.CommitOffsetsSync(ctx, offsets, func(
			_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error,
		) {
			if failed = err; err != nil {
				return
			}
			for _, topic := range response.Topics {
				for _, partition := range topic.Partitions {
					failed = errors.Join(failed, kerr.ErrorForCode(partition.ErrorCode))
				}
			}
		})
		if !errors.Is(failed, kerr.RebalanceInProgress) {
			return failed
		}
		select {
		case <-ctx.Done():
			return failed
		case <-time.After(min(pause, time.Second)):
		}
	}
}

// Leave implements worker.Queue. Records that the client has read ahead stay in the topic.
func (q *queue) Leave() error {
	q.left = true
	return nil
}

// Ack implements worker.Queue.
func (q *queue) Ack(ctx context.Context, _ *worker.Message) error {
	record := q.current.record
	if err := q.commit(ctx, record, record.Offset+1, ""); err != nil {
		return fmt.Errorf("commit offset %d of topic %q: %w", record.Offset+1, record.Topic, q.explain(err))
	}
	q.release()
	return nil
}

// GiveBack implements worker.Queue: without a commit the record is the next member's.
func (q *queue) GiveBack(*worker.Message) { q.release() }

// Close implements worker.Queue: it leaves the group, so that others get its partitions at once. A rebalance that waits for somebody's
// command would make it wait as well; then it just goes, and is missed after the session timeout.
func (q *queue) Close() error {
	closed := make(chan struct{})
	go func() {
		q.client.CloseAllowingRebalance()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(leaveWithin):
		q.config.Log.Warn("the group has not let go of this worker", "within", leaveWithin.String())
	}
	return nil
}

func (q *queue) explain(err error) error { return explain(q.config.Brokers, err) }

// explain turns an error into one for a person.
func explain(brokers []string, err error) error {
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		err = errors.New("the broker refuses the user: correct --sasl-username or $KAFKA_PASSWORD")
	case errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.TopicAuthorizationFailed):
		err = fmt.Errorf("the user needs the permissions Read on the group and its topics, and Write on the others: %w", err)
	}
	return fmt.Errorf("kafka %s: %w", strings.Join(brokers, ","), err)
}
