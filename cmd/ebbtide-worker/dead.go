package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/internal/secret"
	"github.com/ebbtide-dev/ebbtide/worker/dead"
	"github.com/ebbtide-dev/ebbtide/worker/kafka"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
)

const deadLong = `dead reads failed messages from a queue (--queue, RabbitMQ) or a topic (--brokers, --topic, Kafka) of dead letters, and sends them again.

RabbitMQ: while it runs, it holds the letters that it has read, and no other consumer gets them. On a quorum queue, each read counts as a delivery:
RabbitMQ 4 drops a message after 20 deliveries unless the queue has a policy with a larger delivery-limit, such as 1000000.

Kafka: letters stay in their topic. When a letter is sent again, a mark is written to its partition in the same transaction. Marked letters are
skipped.`

// deadOptions are what all of its commands are told.
type deadOptions struct {
	queue, reason, output string
	keys                  []string
	newerThan, olderThan  time.Duration
	limit                 int
	connectTimeout        time.Duration

	brokers  []string
	topic    string
	security kafkaSecurity

	// Where letters are replayed to.
	exchange, routingKey, toTopic string
}

// letters are those of a queue or a topic.
type letters struct {
	each   func(context.Context, func(dead.Letter) (bool, error)) error
	replay func(context.Context) error // the one that is visited
	close  func() error
}

// open connects to the broker that keeps the letters.
func (o *deadOptions) open(ctx context.Context, secrets secret.Values, replay bool) (letters, error) {
	if (o.queue == "") == (o.topic == "") {
		return letters{}, errors.New("name the dead letters: --queue on RabbitMQ, or --brokers and --topic on Kafka")
	}
	if o.queue != "" {
		if replay && o.exchange == "" && o.routingKey == "" {
			return letters{}, errors.New("--exchange: say where to, or the queue with --routing-key alone")
		}
		d, err := rabbitmq.OpenDeadLetters(secrets[rabbitmq.URIVariable], o.queue, o.connectTimeout)
		if err != nil {
			return letters{}, err
		}
		return letters{d.Each, func(ctx context.Context) error { return d.Replay(ctx, o.exchange, o.routingKey) }, d.Close}, nil
	}
	if len(o.brokers) == 0 {
		return letters{}, errors.New("--brokers: name at least one")
	}
	if replay && o.toTopic == "" {
		return letters{}, errors.New("--to: say to which topic")
	}
	config := kafka.DeadConfig{Brokers: o.brokers, Topic: o.topic, ReplayTo: o.toTopic, ConnectTimeout: o.connectTimeout}
	var err error
	if config.SASL, config.TLS, err = o.security.apply(secrets[kafkaPasswordVariable]); err != nil {
		return letters{}, err
	}
	d, err := kafka.OpenDeadLetters(ctx, config)
	if err != nil {
		return letters{}, err
	}
	return letters{d.Each, d.Replay, d.Close}, nil
}

func deadCommand(secrets secret.Values, now func() time.Time) *cobra.Command {
	var o deadOptions
	parent := &cobra.Command{Use: "dead", Short: "List, show and replay failed messages", Long: deadLong}
	list := &cobra.Command{
		Use: "list {--queue QUEUE | --brokers BROKER:PORT --topic TOPIC}", Short: "List failed messages, the oldest first", Args: cobra.NoArgs,
		Example: "  ebbtide-worker dead list --queue scans.dead --reason 'out of memory' -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.each(cmd.Context(), secrets, now(), false, func(_ letters, l dead.Letter) error { return o.print(cmd.OutOrStdout(), l) })
		},
	}
	show := &cobra.Command{
		Use: "show {--queue QUEUE | --brokers BROKER:PORT --topic TOPIC} KEY", Short: "Show a failed message with its body and its result", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.keys = args
			found := false
			err := o.each(cmd.Context(), secrets, now(), false, func(_ letters, l dead.Letter) error {
				found = true
				return showLetter(cmd.OutOrStdout(), l, o.output)
			})
			if err == nil && !found {
				err = fmt.Errorf("%q has no message with key %q", o.queue+o.topic, args[0])
			}
			return err
		},
	}
	var really, incomplete bool
	replay := &cobra.Command{
		Use:   "replay {--queue QUEUE --exchange EXCHANGE | --brokers BROKER:PORT --topic TOPIC --to TOPIC} [--yes]",
		Short: "Send failed messages again",
		Long: `replay sends messages again as their producers sent them, with no attempts counted. It removes each from the queue after another queue has
confirmed it, or marks it in its topic, so a second replay does not find it. Without --yes it only prints what it would do.

It skips messages that lost headers or their body because they were too long together with the reason, unless --incomplete is set.`,
		Example: "  ebbtide-worker dead replay --queue scans.dead --exchange scans --reason 'licence server' --newer-than 2h --yes\n" +
			"  ebbtide-worker dead replay --brokers kafka:9092 --topic scan-dead --to scans --key 7f3c --yes",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sent, skipped := 0, 0
			err := o.each(cmd.Context(), secrets, now(), true, func(from letters, l dead.Letter) error {
				if l.Dropped != "" && !incomplete {
					skipped++
					return nil
				}
				if err := o.print(cmd.OutOrStdout(), l); err != nil {
					return err
				}
				if really {
					if err := from.replay(cmd.Context()); err != nil {
						return fmt.Errorf("replay %q, after %d others: %w", l.Key, sent, err)
					}
				}
				sent++
				return nil
			})
			did := "would be sent again; --yes does it"
			if really {
				did = "sent again"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d messages %s, %d that are not whole were left\n", sent, did, skipped)
			return err
		},
	}
	replay.Flags().StringVar(&o.exchange, "exchange", "", "exchange to send to; default: the default exchange, with a queue as --routing-key")
	replay.Flags().StringVar(&o.routingKey, "routing-key", "", "routing key to send with; default: each message's own")
	replay.Flags().StringVar(&o.toTopic, "to", "", "topic to send to")
	replay.Flags().BoolVar(&really, "yes", false, "send the messages")
	replay.Flags().BoolVar(&incomplete, "incomplete", false, "include messages that lost headers or their body")
	for _, one := range []*cobra.Command{list, show, replay} {
		o.addFlags(one)
		parent.AddCommand(one)
	}
	return parent
}

// addFlags adds the flags that all of its commands have.
func (o *deadOptions) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.queue, "queue", "", "queue of dead letters, of the broker that $"+rabbitmq.URIVariable+" names")
	flags.StringSliceVar(&o.brokers, "brokers", nil, "Kafka's bootstrap brokers, host:port, separated by commas")
	flags.StringVar(&o.topic, "topic", "", "topic of dead letters")
	o.security.addFlags(flags)
	flags.StringVar(&o.reason, "reason", "", "only those whose reason matches this regular expression")
	flags.StringSliceVar(&o.keys, "key", nil, "only those with these keys, the ids of the messages")
	flags.DurationVar(&o.newerThan, "newer-than", 0, "only those that failed within this time")
	flags.DurationVar(&o.olderThan, "older-than", 0, "only those that failed longer ago than this")
	flags.IntVar(&o.limit, "limit", 0, "most messages to read; 0: all")
	flags.StringVarP(&o.output, "output", "o", "text", "text, or json with one object per line")
	flags.DurationVar(&o.connectTimeout, "connect-timeout", 10*time.Second, "how long to try to reach the broker")
}

// each calls visit with the letters that are asked for.
func (o *deadOptions) each(ctx context.Context, secrets secret.Values, now time.Time, replay bool, visit func(letters, dead.Letter) error) error {
	filter := dead.Filter{Keys: o.keys}
	if o.output != "text" && o.output != "json" {
		return fmt.Errorf("--output %q: must be text or json", o.output)
	}
	if o.reason != "" {
		var err error
		if filter.Reason, err = regexp.Compile(o.reason); err != nil {
			return fmt.Errorf("--reason: %w", err)
		}
	}
	if o.newerThan > 0 {
		filter.Since = now.Add(-o.newerThan)
	}
	if o.olderThan > 0 {
		filter.Until = now.Add(-o.olderThan)
	}
	from, err := o.open(ctx, secrets, replay)
	if err != nil {
		return err
	}
	seen := 0
	err = from.each(ctx, func(l dead.Letter) (bool, error) {
		if !filter.Match(l) {
			return true, nil
		}
		seen++
		return o.limit == 0 || seen < o.limit, visit(from, l)
	})
	return errors.Join(err, from.close())
}

// print writes a letter on a line. What a producer wrote is quoted, so that it can't write to the terminal.
func (o *deadOptions) print(out io.Writer, l dead.Letter) error {
	if o.output == "json" {
		return json.NewEncoder(out).Encode(l)
	}
	died := "-"
	if !l.Died.IsZero() {
		died = l.Died.Format(time.RFC3339)
	}
	reason, _, _ := strings.Cut(l.Reason, "\n")
	_, err := fmt.Fprintf(out, "%-20s  %q  %d bytes  %q\n", died, l.Key, l.Bytes, reason)
	return err
}

// showLetter writes all of a letter: in text the body comes last, as it is.
func showLetter(out io.Writer, l dead.Letter, form string) error {
	if form == "json" {
		return json.NewEncoder(out).Encode(struct {
			dead.Letter
			Body   []byte `json:"body"`
			Result string `json:"result"`
		}{l, l.Body, l.Result})
	}
	fmt.Fprintf(out, "key     %q\nreason  %q\n", l.Key, l.Reason)
	for name, value := range l.Headers {
		fmt.Fprintf(out, "header  %q = %q\n", name, value)
	}
	// JSON of the worker's has none of these; a producer may have written anything there.
	fmt.Fprintf(out, "result  %s\n\n", strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(l.Result, "?")))
	_, err := out.Write(l.Body)
	return err
}
