package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/ebbtide-dev/ebbtide/internal/secret"
	"github.com/ebbtide-dev/ebbtide/internal/tlsfiles"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/kafka"
)

// kafkaPasswordVariable is the environment variable that holds the password for SASL.
const kafkaPasswordVariable = "KAFKA_PASSWORD"

func kafkaCommand(begin time.Time, secrets secret.Values) *cobra.Command {
	var o runOptions
	var q kafka.Config
	var security kafkaSecurity
	var protocol string
	cmd := &cobra.Command{
		Use:   "kafka --brokers BROKER:PORT --topics TOPIC --group GROUP [flags] -- COMMAND [ARG...]",
		Short: "Run a command on each record of Kafka topics",
		Long: `Consumes topics as a member of a group, one record at a time, and runs a command on each, as ebbtide-worker does on RabbitMQ. An
offset is committed when the record's result is published.

A record's headers message-id, correlation-id and content-type are the message's properties, its key is $EBBTIDE_ROUTING_KEY. A record
without message-id is identified by its topic, partition and offset. A record that is retried is sent to one of --retry-topics, or to its
original topic. At most one worker per partition has work.`,
		Example: "  ebbtide-worker kafka --brokers kafka:9092 --topics scans --group scans --result-topic scan-results \\\n" +
			"    --dead-letter-topic scan-dead --max-attempts 3 -- scan.sh",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args, secrets); err != nil {
				return err
			}
			if q.ResultTopic == "" && q.DeadLetterTopic == "" {
				return errors.New("--result-topic: without it and --dead-letter-topic nobody would know of records that fail")
			}
			if protocol != "classic" && protocol != "consumer" {
				return fmt.Errorf("--group-protocol %q: must be classic or consumer", protocol)
			}
			for _, delay := range o.RetryDelays {
				q.MaxDelay = max(q.MaxDelay, delay)
			}
			q.ClientID, q.Log, q.ServerSide = o.Name, o.Log, protocol == "consumer"
			var err error
			if q.SASL, q.TLS, err = security.apply(secrets[kafkaPasswordVariable]); err != nil {
				return err
			}
			return o.run(cmd.Context(), begin, func(ctx context.Context) (worker.Queue, error) { return kafka.Open(ctx, q) })
		},
	}
	o.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringSliceVar(&q.Brokers, "brokers", nil, "bootstrap brokers, host:port, separated by commas (required)")
	flags.StringSliceVar(&q.Topics, "topics", nil, "topics to consume, separated by commas (required)")
	flags.StringVar(&q.Group, "group", "", "consumer group, the same as in the ScalingPolicy (required)")
	flags.StringVar(&q.ResultTopic, "result-topic", "", "topic for results")
	flags.StringVar(&q.DeadLetterTopic, "dead-letter-topic", "", "topic for failed records; default: only their results say so")
	flags.StringSliceVar(&q.RetryTopics, "retry-topics", nil,
		"topics for retried records, one for each of --retry-delays, which are consumed too; default: their original topic")
	flags.StringVar(&q.LargerTopic, "larger-topic", "", "topic of workers with more memory, for --on ENDING=larger")
	flags.StringVar(&protocol, "group-protocol", "classic",
		"classic, or consumer with Kafka 4.3 and later, where a long scan does not delay other workers during a rebalance")
	flags.DurationVar(&q.SessionTimeout, "session-timeout", 45*time.Second, "time after which the group assigns a silent worker's records to another worker")
	flags.DurationVar(&q.RebalanceTimeout, "rebalance-timeout", 5*time.Minute,
		"how long a rebalance waits for a worker's command; set it longer than a scan")
	flags.DurationVar(&q.ConnectTimeout, "connect-timeout", time.Minute, "how long to try to reach a broker")
	security.addFlags(flags)
	for _, required := range []string{"brokers", "topics", "group"} {
		if err := cmd.MarkFlagRequired(required); err != nil {
			panic(err) // of a flag that is not there
		}
	}
	return cmd
}

// kafkaSecurity is how a worker proves who it is.
type kafkaSecurity struct {
	mechanism, username, ca string
	tls                     bool
}

func (s *kafkaSecurity) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&s.mechanism, "sasl-mechanism", "", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, with $"+kafkaPasswordVariable)
	flags.StringVar(&s.username, "sasl-username", "", "user for SASL")
	flags.BoolVar(&s.tls, "tls", false, "connect with TLS")
	flags.StringVar(&s.ca, "tls-ca", "", "file with the authority of the brokers' certificates; default: the system's")
}

func (s *kafkaSecurity) apply(password string) (mechanism sasl.Mechanism, config *tls.Config, err error) {
	switch s.mechanism {
	case "":
	case "PLAIN":
		mechanism = plain.Auth{User: s.username, Pass: password}.AsMechanism()
	case "SCRAM-SHA-256":
		mechanism = scram.Auth{User: s.username, Pass: password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		mechanism = scram.Auth{User: s.username, Pass: password}.AsSha512Mechanism()
	default:
		return nil, nil, fmt.Errorf("--sasl-mechanism %q: must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", s.mechanism)
	}
	if !s.tls {
		return mechanism, nil, nil
	}
	config = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.ca == "" {
		return mechanism, config, nil
	}
	if config.RootCAs, err = tlsfiles.Authorities(s.ca); err != nil {
		return nil, nil, fmt.Errorf("--tls-ca: %w", err)
	}
	return mechanism, config, nil
}
