// Package kafka reads the lag of a consumer group: the messages of its topics that it has not committed. It holds both
// what waits and what is worked on, and ends with the commit.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
	// Latest counts a partition without a committed offset as empty, not as full.
	Latest bool
	// Mechanism of SASL; empty: none.
	Mechanism          v1alpha1.SASLMechanism
	Username, Password string
	// UseTLS connects with TLS.
	UseTLS bool
	TLS    backlog.TLS
}

// Equal reports whether two configurations read the same in the same way.
func (c Config) Equal(other Config) bool {
	return slices.Equal(c.Brokers, other.Brokers) && slices.Equal(c.Topics, other.Topics) && c.Group == other.Group &&
		c.Latest == other.Latest && c.Mechanism == other.Mechanism && c.Username == other.Username &&
		c.Password == other.Password && c.UseTLS == other.UseTLS && c.TLS == other.TLS
}

// Resolve looks up what a policy refers to.
func Resolve(ctx context.Context, spec *v1alpha1.ScalingPolicySpec, values backlog.Values) (Config, error) {
	k := spec.Backlog.Kafka
	c := Config{
		Brokers: k.Brokers, Topics: k.Topics, Group: k.ConsumerGroup, Latest: k.OnMissingOffset == v1alpha1.MissingOffsetLatest,
		UseTLS: k.TLS != nil,
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
	options := []kgo.Opt{kgo.SeedBrokers(config.Brokers...), kgo.ClientID("ebbtide-scaler"), kgo.RetryTimeout(0), kgo.RequestRetries(1)}
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
	return &reader{config: config, client: kadm.NewClient(client)}, nil
}

type reader struct {
	config Config
	client *kadm.Client
}

// Read implements backlog.Reader.
func (r *reader) Read(ctx context.Context) (sizing.Observation, error) {
	name := "kafka " + strings.Join(r.config.Brokers, ",")
	o := sizing.Observation{Source: name, ReadyHoldsInFlight: true, Finished: map[string]int64{}}
	starts, err := r.offsets(r.client.ListStartOffsets(ctx, r.config.Topics...))
	if err != nil {
		return o, fmt.Errorf("%s: %w", name, err)
	}
	ends, err := r.offsets(r.client.ListEndOffsets(ctx, r.config.Topics...))
	if err != nil {
		return o, fmt.Errorf("%s: %w", name, err)
	}
	committed, err := r.client.FetchOffsets(ctx, r.config.Group)
	if err == nil {
		err = committed.Error()
	}
	// A group that never was has nothing committed.
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return o, fmt.Errorf("%s: committed offsets of group %q: %w", name, r.config.Group, explain(err))
	}
	ends.Each(func(end kadm.ListedOffset) {
		o.Parallelism++
		start := end.Offset
		if listed, ok := starts.Lookup(end.Topic, end.Partition); ok {
			start = listed.Offset
		}
		commit, ok := committed.Lookup(end.Topic, end.Partition)
		switch {
		case ok && commit.At >= 0:
			o.Finished[fmt.Sprintf("%s/%d", end.Topic, end.Partition)] = commit.At
			// What retention deleted can't be worked on any more.
			o.Ready += max(0, end.Offset-max(commit.At, start))
		case !r.config.Latest:
			o.Ready += end.Offset - start
		}
	})
	groups, err := r.client.DescribeGroups(ctx, r.config.Group)
	if err == nil {
		o.Consumers = int64(len(groups[r.config.Group].Members))
	}
	return o, nil
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
