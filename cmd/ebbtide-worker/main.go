// ebbtide-worker takes messages from a RabbitMQ queue and runs a command on each.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// exitGivenBack is EX_TEMPFAIL of sysexits.h: the message went back to the queue.
const exitGivenBack = 75

const long = `ebbtide-worker consumes messages of a RabbitMQ queue, one at a time, and runs a command on each.

The command gets the message on standard input and as the file $EBBTIDE_MESSAGE_FILE, and its properties as
$EBBTIDE_MESSAGE_ID, $EBBTIDE_CORRELATION_ID, $EBBTIDE_CONTENT_TYPE, $EBBTIDE_ROUTING_KEY, $EBBTIDE_DELIVERY_COUNT and
$EBBTIDE_HEADER_name. How it ends settles the message:

  exit 0                    standard output is published as the result and confirmed, then the message is acknowledged
  exit 75, or a signal      the message goes back to the queue; a quorum queue with a delivery limit counts the attempts
  any other exit code       the message is dead-lettered with the reason in the header ebbtide-reason

SIGTERM lets the command finish within --grace-period; after that it is killed and the message goes back.

Exit codes: 0 every message taken was settled, or none came; 75 a message went back to the queue because the worker had
to leave or lost the broker; 1 anything else.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	switch {
	case errors.Is(err, worker.ErrGivenBack):
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(exitGivenBack)
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var config worker.Config
	var uriFile, summaryFile string
	cmd := &cobra.Command{
		Use:           "ebbtide-worker --queue QUEUE [flags] -- COMMAND [ARG...]",
		Short:         "Run a command on each message of a RabbitMQ queue",
		Long:          long,
		Example:       "  AMQP_URI=amqp://user:password@broker/ ebbtide-worker --queue scans --result-exchange scan-results -- scan.sh",
		Args:          cobra.MinimumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			config.Command, config.Stderr = args, os.Stderr
			config.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
			if err := check(&config, uriFile); err != nil {
				return err
			}
			summary, err := worker.Run(cmd.Context(), config)
			return errors.Join(err, report(summary, summaryFile, config.Log))
		},
	}
	name, _ := os.Hostname() // only a default
	flags := cmd.Flags()
	flags.StringVar(&uriFile, "uri-file", "", "file with the broker's URI; default: $"+worker.URIVariable)
	flags.StringVar(&config.Queue, "queue", "", "queue to consume from (required)")
	flags.StringVar(&config.ConsumerTag, "consumer-tag", cmp.Or(os.Getenv("JOB_NAME"), os.Getenv("POD_NAME"), name),
		"name of the consumer at the broker; default: $JOB_NAME, $POD_NAME or the host's name")
	flags.BoolVar(&config.PriorityByAge, "priority-by-age", false, "let the broker feed older workers first, so that young ones run out of work")
	flags.IntSliceVar(&config.RetryableExitCodes, "retryable-exit-codes", []int{75}, "exit codes of the command that ask for another attempt")
	flags.StringVar(&config.ResultExchange, "result-exchange", "", "exchange that results are published to")
	flags.StringVar(&config.ResultRoutingKey, "result-routing-key", "", "routing key of results")
	flags.IntVar(&config.ResultMaxBytes, "result-max-bytes", 16<<20, "a larger result fails the message")
	flags.StringVar(&config.DeadLetterExchange, "dead-letter-exchange", "", "exchange for messages that failed; default: reject them")
	flags.IntVar(&config.MaxMessages, "max-messages", 1, "leave after this many messages; 0: no limit")
	flags.DurationVar(&config.MaxLifetime, "max-lifetime", 0, "take no further message after this time; 0: no limit")
	flags.DurationVar(&config.IdleTimeout, "idle-timeout", time.Minute, "leave when no message comes for this long; 0: wait for ever")
	flags.DurationVar(&config.GracePeriod, "grace-period", 25*time.Second,
		"how long the command may go on after SIGTERM; keep it below the pod's terminationGracePeriodSeconds")
	flags.DurationVar(&config.ConnectTimeout, "connect-timeout", time.Minute, "how long to try to reach the broker")
	flags.StringVar(&summaryFile, "summary-file", "", "write what was done to this file as JSON; /dev/termination-log shows it in the pod's status")
	return cmd
}

// check completes the configuration and says what is wrong with it.
func check(config *worker.Config, uriFile string) error {
	config.URI = os.Getenv(worker.URIVariable)
	if uriFile != "" {
		text, err := os.ReadFile(uriFile)
		if err != nil {
			return fmt.Errorf("--uri-file: %w", err)
		}
		config.URI = strings.TrimSpace(string(text))
	}
	switch {
	case config.URI == "":
		return fmt.Errorf("no broker: set $%s or --uri-file", worker.URIVariable)
	case config.Queue == "":
		return errors.New("--queue: name the queue to consume from")
	case config.MaxMessages < 0:
		return fmt.Errorf("--max-messages %d: must not be negative", config.MaxMessages)
	case config.ResultMaxBytes < 1:
		return fmt.Errorf("--result-max-bytes %d: must be at least 1", config.ResultMaxBytes)
	}
	return nil
}

// report says what was done, in the log and in the file.
func report(summary worker.Summary, path string, log *slog.Logger) error {
	log.Info("leaving", "messages", summary.Messages, "succeeded", summary.Succeeded, "retried", summary.Retried,
		"deadLettered", summary.DeadLettered, "ended", summary.Ended)
	if path == "" {
		return nil
	}
	text, err := json.Marshal(summary)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("--summary-file: %w", err)
	}
	return nil
}
