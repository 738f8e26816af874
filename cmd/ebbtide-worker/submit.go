package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/internal/secret"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/submit"
)

const submitLong = `submit publishes messages and waits for the complete result of each, which includes every engine.

The file is a JSON array of messages: [{"body": "...", "headers": {...}, "contains": "..."}], where contains is a text in a correct
result. Each message gets a unique id. submit reads results from separate queues, which the broker removes after a minute, so other consumers
miss no results.

It exits with 0 if every message has a correct result, and with 1 if one failed, became a dead letter, or has no result within --timeout.`

func submitCommand(secrets secret.Values) *cobra.Command {
	var exchanges submit.Exchanges
	var path string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "submit --file FILE --exchange EXCHANGE --result-exchange EXCHANGE --dead-letter-exchange EXCHANGE",
		Short:   "Publish messages and wait for their results",
		Long:    submitLong,
		Example: "  ebbtide-worker submit -f messages.json --exchange scans --result-exchange scans.results --dead-letter-exchange scans.dead",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("--file: %w", err)
			}
			defer file.Close()
			messages, err := submit.Read(file)
			if err != nil {
				return fmt.Errorf("--file %s: %w", path, err)
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("--timeout %s is over", timeout))
			defer cancel()
			uri := secrets[rabbitmq.URIVariable]
			if _, err := rabbitmq.ParseURI(uri); err != nil {
				return fmt.Errorf("$%s: %w", rabbitmq.URIVariable, err)
			}
			connection, err := rabbitmq.Dial(uri)
			if err != nil {
				return fmt.Errorf("connect to the broker at $%s: %w", rabbitmq.URIVariable, err)
			}
			defer connection.Close()
			failed := 0
			err = submit.Run(ctx, connection, exchanges, messages, func(o submit.Outcome) {
				said := "succeeded"
				if o.Wrong != "" {
					said = "FAILED: " + o.Wrong
					failed++
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%6.1f s  %-20.20s  %d results  %s\n", o.After.Seconds(), o.Message.Body, len(o.Result.GetResults()), said)
			})
			if err == nil && failed > 0 {
				err = fmt.Errorf("%d of %d messages failed", failed, len(messages))
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&path, "file", "f", "", "file with the messages")
	flags.StringVar(&exchanges.Messages, "exchange", "", "exchange to publish to; default: the default exchange, with a queue as --routing-key")
	flags.StringVar(&exchanges.RoutingKey, "routing-key", "", "routing key to publish with")
	flags.StringVar(&exchanges.Results, "result-exchange", "", "exchange that results are published to")
	flags.StringVar(&exchanges.DeadLetters, "dead-letter-exchange", "", "exchange of failed messages")
	flags.DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait for the results")
	for _, name := range []string{"file", "result-exchange", "dead-letter-exchange"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // there is no such flag
		}
	}
	return cmd
}
