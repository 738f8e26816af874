// Package kafka reads the lag of a consumer group: the messages of its topics that it has not committed. It holds both
// what waits and what is worked on, and ends with the commit.
//
// Offsets are not messages: transactions leave markers in a log, compaction leaves gaps, and a topic that was created again begins at 0. So
// where a group lags, what lies between is looked at, batch by batch and without unpacking it, for what a worker would be given.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Config says what to read, with values resolved. It holds credentials.
type Config struct {
	Brokers, Topics []string
	Group           string
	// Latest begins a partition without a committed offset at its end, not at its start.
	Latest bool
	// ReadCommitted leaves out what transactions have not committed, as the group's workers do.
	ReadCommitted bool
	// Mechanism of SASL; empty: none.
	Mechanism          v1alpha1.SASLMechanism
	Username, Password string
	// UseTLS connects with TLS.
	UseTLS bool
	TLS    backlog.TLS
}

// Resolve looks up what a policy refers to.
func Resolve(ctx context.Context, spec *v1alpha1.ScalingPolicySpec, values backlog.Values) (Config, error) {
	k := spec.Backlog.Kafka
	c := Config{
		Brokers: k.Brokers, Topics: k.Topics, Group: k.ConsumerGroup, Latest: k.OnMissingOffset == v1alpha1.MissingOffsetLatest,
		ReadCommitted: k.IsolationLevel == v1alpha1.ReadCommitted, UseTLS: k.TLS != nil,
	}
	const field = "spec.backlog.kafka."
	var err error
	if k.SASL != nil {
		c.Mechanism = k.SASL.Mechanism
		if c.Username, err = values(ctx, field+"sasl.username", &k.SASL.Username); err != nil {
			return c, err
		}
		if c.Password, err = values(ctx, field+"sasl.password", &k.SASL.Password); err != nil {
			return c, err
		}
		c.Username, c.Password = strings.TrimSpace(c.Username), strings.TrimSpace(c.Password)
	}
	c.TLS, err = backlog.ResolveTLS(ctx, values, field+"tls", k.TLS)
	return c, err
}

// Open returns a reader. It does not connect yet.
func Open(config Config) (backlog.Reader, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(config.Brokers...), kgo.ClientID("ebbtide-scaler"), kgo.RetryTimeout(0), kgo.RequestRetries(1),
		kgo.BrokerMaxReadBytes(maxAnswer), kgo.FetchMaxBytes(maxAnswer / 4), kgo.FetchMaxPartitionBytes(lookBytes),
	}
	if config.UseTLS {
		tlsConfig, err := config.TLS.Config()
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.DialTLSConfig(tlsConfig))
	}
	switch config.Mechanism {
	case v1alpha1.SASLPlain:
		options = append(options, kgo.SASL(plain.Auth{User: config.Username, Pass: config.Password}.AsMechanism()))
	case v1alpha1.SASLScramSHA256:
		options = append(options, kgo.SASL(scram.Auth{User: config.Username, Pass: config.Password}.AsSha256Mechanism()))
	case v1alpha1.SASLScramSHA512:
		options = append(options, kgo.SASL(scram.Auth{User: config.Username, Pass: config.Password}.AsSha512Mechanism()))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("kafka %s: %w", strings.Join(config.Brokers, ","), err)
	}
	return &reader{config: config, broker: client, client: kadm.NewClient(client), looked: map[place]look{}}, nil
}

// maxAnswer bounds an answer of a broker, in bytes.
const maxAnswer = 32 << 20

type reader struct {
	config Config
	broker *kgo.Client
	client *kadm.Client
	looked map[place]look // of partitions that lag, since they did
}

// Read implements backlog.Reader.
func (r *reader) Read(ctx context.Context) (sizing.Observation, error) {
	name := "kafka " + strings.Join(r.config.Brokers, ",")
	o, err := r.read(ctx)
	o.Source = name
	if err != nil {
		return o, fmt.Errorf("%s: %w", name, err)
	}
	return o, nil
}

func (r *reader) read(ctx context.Context) (sizing.Observation, error) {
	o := sizing.Observation{ReadyHoldsInFlight: true, Finished: map[string]int64{}}
	topics, err := r.client.ListTopics(ctx, r.config.Topics...)
	if err != nil {
		return o, explain(err)
	}
	starts, err := r.offsets(r.client.ListStartOffsets(ctx, r.config.Topics...))
	if err != nil {
		return o, err
	}
	ends, err := r.offsets(r.client.ListEndOffsets(ctx, r.config.Topics...))
	if err != nil {
		return o, err
	}
	readable := ends
	if r.config.ReadCommitted {
		if readable, err = r.offsets(r.client.ListCommittedOffsets(ctx, r.config.Topics...)); err != nil {
			return o, err
		}
	}
	committed, err := r.client.FetchOffsets(ctx, r.config.Group)
	if err == nil {
		err = committed.Error()
	}
	// A group that never was has nothing committed.
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return o, fmt.Errorf("committed offsets of group %q: %w", r.config.Group, explain(err))
	}
	var lags []lag
	// anyCommit is whether a worker ever committed anything; skipped, whether there are messages that one may have left out.
	anyCommit, skipped := false, false
	var failed error
	ends.Each(func(end kadm.ListedOffset) {
		start, hasStart := starts.Lookup(end.Topic, end.Partition)
		last, hasLast := readable.Lookup(end.Topic, end.Partition)
		if !hasStart || !hasLast {
			failed = fmt.Errorf("topic %q, partition %d: the broker does not tell its offsets", end.Topic, end.Partition)
			return
		}
		from := start.Offset
		commit, ok := committed.Lookup(end.Topic, end.Partition)
		ok = ok && commit.At >= 0
		anyCommit = anyCommit || ok
		switch {
		// An offset that the partition does not have is of a topic that was created again, or of messages that were deleted: workers begin
		// there as if nothing was committed.
		case ok && commit.At >= start.Offset && commit.At <= end.Offset && (end.LeaderEpoch < 0 || commit.LeaderEpoch <= end.LeaderEpoch):
			o.Finished[fmt.Sprintf("%s/%d", end.Topic, end.Partition)] = commit.At
			from = commit.At
		case r.config.Latest:
			skipped = skipped || end.Offset > start.Offset
			return
		}
		if from < last.Offset {
			detail := topics[end.Topic]
			lags = append(lags, lag{
				place: place{end.Topic, detail.ID, end.Partition}, leader: detail.Partitions[end.Partition].Leader, from: from, to: last.Offset,
			})
		}
	})
	if failed != nil {
		return o, failed
	}
	if err := r.look(ctx, lags); err != nil {
		return o, explain(err)
	}
	for _, l := range lags {
		if l.messages > 0 {
			o.Ready += l.messages
			o.Parallelism++
		}
	}
	// Messages that come before a first worker commits are counted by nobody: where a group begins at the end, it takes a worker to know
	// from where on.
	if r.config.Latest && o.Ready == 0 && (skipped || !anyCommit) {
		o.Ready, o.Parallelism = 1, 1
	}
	if consumers, err := r.consumers(ctx); err == nil {
		o.Consumers = consumers
	} else {
		o.ConsumersUnknown = true
		o.Finished = nil // how long a message takes can't be told without those who work on it
	}
	return o, nil
}

// consumers is how many members the group has, whichever protocol it speaks.
func (r *reader) consumers(ctx context.Context) (int64, error) {
	groups, err := r.client.DescribeGroups(ctx, r.config.Group)
	if err != nil {
		return 0, err
	}
	group := groups[r.config.Group]
	if len(group.Members) > 0 {
		return int64(len(group.Members)), nil
	}
	if newer, err := r.client.DescribeConsumerGroups(ctx, r.config.Group); err == nil {
		return int64(len(newer[r.config.Group].Members)), nil
	}
	if group.Err != nil && !errors.Is(group.Err, kerr.GroupIDNotFound) {
		return 0, group.Err
	}
	return 0, nil
}

// offsets are those of the topics, every partition of them.
func (r *reader) offsets(offsets kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err != nil {
		return nil, explain(err)
	}
	for _, topic := range r.config.Topics {
		if len(offsets[topic]) == 0 {
			return nil, fmt.Errorf("topic %q does not exist: create it, or correct topics", topic)
		}
	}
	var failed error
	offsets.Each(func(o kadm.ListedOffset) {
		if errors.Is(o.Err, kerr.UnknownTopicOrPartition) {
			failed = fmt.Errorf("topic %q does not exist: create it, or correct topics", o.Topic)
		} else if o.Err != nil {
			failed = fmt.Errorf("topic %q, partition %d: %w", o.Topic, o.Partition, o.Err)
		}
	})
	return offsets, failed
}

// explain turns an error into one for a person.
func explain(err error) error {
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return errors.New("the broker refuses the user: correct sasl.username or sasl.password")
	case errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.TopicAuthorizationFailed):
		return fmt.Errorf("the user needs the permission Describe: %w", err)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the broker closes the connection: check sasl, and whether this port speaks TLS: %w", err)
	default:
		return err
	}
}

// Close implements backlog.Reader.
func (r *reader) Close() error {
	r.client.Close()
	return nil
}
