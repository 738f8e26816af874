package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

const long = `ebbtide-worker consumes messages of a queue, one at a time, and runs a command on each. By itself it consumes from RabbitMQ;
"ebbtide-worker kafka" does the same on Kafka.

The command gets the message on standard input and as the file $EBBTIDE_MESSAGE_FILE, and its properties as
$EBBTIDE_MESSAGE_ID, $EBBTIDE_CORRELATION_ID, $EBBTIDE_CONTENT_TYPE, $EBBTIDE_ROUTING_KEY, $EBBTIDE_DELIVERY_COUNT (0 at first) and
$EBBTIDE_HEADER_name. How it ends settles the message:

  exit 0                    standard output is published in a result and confirmed, then the message is acknowledged
  exit 75, or a signal      the message gets another attempt, up to --max-attempts or the broker's own limit
  any other exit code       a result with the reason is published and confirmed, then the message is dead-lettered

A result (proto/ebbtide/results) is JSON unless --result-format says otherwise. It comes at least once: a worker that is killed between
the result and the acknowledgement makes the next one publish it again, with the same key.

SIGTERM lets the command finish within --grace-period; after that it is killed and the message goes back.

Exit codes: 0 every message taken was settled, or none came; 75 a message went back to the queue because the worker had
to leave or lost the broker; 1 anything else.`

// runOptions are what a worker is told, whatever its queue.
type runOptions struct {
	worker.Config
	resultFormat, resultStore, summaryFile string
}

func command(begin time.Time) *cobra.Command {
	var o runOptions
	var q rabbitmq.Config
	var uriFile string
	var priorityByAge bool
	cmd := &cobra.Command{
		Use:           "ebbtide-worker --queue QUEUE [flags] -- COMMAND [ARG...]",
		Short:         "Run a command on each message of a queue",
		Long:          long,
		Example:       "  AMQP_URI=amqp://user:password@broker/ ebbtide-worker --queue scans --result-exchange scan-results -- scan.sh",
		Args:          cobra.MinimumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			q.URI = os.Getenv(rabbitmq.URIVariable)
			if uriFile != "" {
				text, err := os.ReadFile(uriFile)
				if err != nil {
					return fmt.Errorf("--uri-file: %w", err)
				}
				q.URI = strings.TrimSpace(string(text))
			}
			switch {
			case q.URI == "":
				return fmt.Errorf("no broker: set $%s or --uri-file", rabbitmq.URIVariable)
			case q.Queue == "":
				return errors.New("--queue: name the queue to consume from")
			}
			q.ConsumerTag, q.Log = o.Name, o.Log
			if priorityByAge {
				q.Priority = rabbitmq.PriorityByAge(begin)
			}
			return o.run(cmd.Context(), begin, func(ctx context.Context) (worker.Queue, error) { return rabbitmq.Open(ctx, q) })
		},
	}
	o.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&uriFile, "uri-file", "", "file with the broker's URI; default: $"+rabbitmq.URIVariable)
	flags.StringVar(&q.Queue, "queue", "", "queue to consume from (required)")
	flags.StringVar(&o.Name, "consumer-tag", o.Name, "name of the consumer at the broker; default: $JOB_NAME, $POD_NAME or the host's name")
	flags.BoolVar(&priorityByAge, "priority-by-age", true,
		"let the broker feed older workers first, so that young ones run out of work and their nodes drain")
	flags.StringVar(&q.ResultExchange, "result-exchange", "", "exchange that results are published to")
	flags.StringVar(&q.ResultRoutingKey, "result-routing-key", "", "routing key of results")
	flags.StringVar(&q.DeadLetterExchange, "dead-letter-exchange", "", "exchange for messages that failed; default: reject them")
	flags.DurationVar(&q.ConnectTimeout, "connect-timeout", time.Minute, "how long to try to reach the broker")
	cmd.AddCommand(kafkaCommand(begin), sourceCommand(), enginesCommand(), installCommand(), pauseCommand(), submitCommand(), topologyCommand())
	return cmd
}

// addFlags adds the flags that all queues have.
func (o *runOptions) addFlags(cmd *cobra.Command) {
	host, _ := os.Hostname() // only a default
	o.Name = cmp.Or(os.Getenv("JOB_NAME"), os.Getenv("POD_NAME"), host)
	flags := cmd.Flags()
	flags.IntSliceVar(&o.RetryableExitCodes, "retryable-exit-codes", []int{75}, "exit codes of the command that ask for another attempt")
	flags.IntVar(&o.MaxAttempts, "max-attempts", 0,
		"a message fails after this many attempts, killed workers included; keep it below the queue's delivery limit; 0: the broker decides")
	flags.StringVar(&o.Engine, "engine", "", "name of this engine in results, where several scan the same source")
	flags.StringSliceVar(&o.Engines, "engines", nil,
		"all engines that make a scan complete, separated by commas; a message's header ebbtide-engines goes before it")
	flags.StringVar(&o.resultFormat, "result-format", "json", "encoding of results: json or protobuf")
	flags.StringVar(&o.ResultContentType, "result-content-type", "", "media type of what the command writes, as results say it")
	flags.IntVar(&o.ResultLimit, "result-limit", 512<<10, "most bytes of a published result; content that does not fit goes to --result-store")
	flags.StringVar(&o.resultStore, "result-store", "",
		"folder on a shared volume for content over --result-limit; default: a result over it fails")
	flags.Int64Var(&o.ResultMaxBytes, "result-max-bytes", 256<<20, "a command that writes more than this fails, store or not")
	flags.IntVar(&o.MaxMessages, "max-messages", 1, "leave after this many messages; 0: no limit")
	flags.DurationVar(&o.MaxLifetime, "max-lifetime", 0, "take no further message after this time; 0: no limit")
	flags.DurationVar(&o.IdleTimeout, "idle-timeout", time.Minute, "leave when no message comes for this long; 0: wait for ever")
	flags.DurationVar(&o.GracePeriod, "grace-period", 25*time.Second,
		"how long the command may go on after SIGTERM; keep it below the pod's terminationGracePeriodSeconds")
	flags.StringVar(&o.summaryFile, "summary-file", "",
		"write what was done to this file as JSON; /dev/termination-log shows it in the pod's status")
}

// complete says what is wrong with the configuration.
func (o *runOptions) complete(args []string) error {
	o.Command, o.Stderr = args, os.Stderr
	o.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	o.HiddenVariables = []string{rabbitmq.URIVariable, kafkaPasswordVariable}
	switch o.resultFormat {
	case "json":
		o.ResultFormat = results.JSON
	case "protobuf":
		o.ResultFormat = results.Protobuf
	default:
		return fmt.Errorf("--result-format %q: json or protobuf", o.resultFormat)
	}
	o.ResultStore = results.Store(o.resultStore)
	if o.resultStore != "" {
		if info, err := os.Stat(o.resultStore); err != nil || !info.IsDir() {
			return fmt.Errorf("--result-store %q: is not a folder: is the volume mounted?", o.resultStore)
		}
	}
	switch {
	case o.MaxMessages < 0:
		return fmt.Errorf("--max-messages %d: must not be negative", o.MaxMessages)
	case o.MaxAttempts < 0:
		return fmt.Errorf("--max-attempts %d: must not be negative", o.MaxAttempts)
	case o.ResultLimit < 16<<10:
		return fmt.Errorf("--result-limit %d: must be at least %d, so that a result without content fits", o.ResultLimit, 16<<10)
	case o.ResultMaxBytes < 1:
		return fmt.Errorf("--result-max-bytes %d: must be at least 1", o.ResultMaxBytes)
	case len(o.Engines) > 0 && !slices.Contains(o.Engines, o.Engine):
		return fmt.Errorf("--engines %s: --engine %q must be one of them", strings.Join(o.Engines, ","), o.Engine)
	}
	return nil
}

// run works on a queue, and says what was done.
func (o *runOptions) run(ctx context.Context, begin time.Time, open func(context.Context) (worker.Queue, error)) error {
	queue, err := open(ctx)
	var summary worker.Summary
	switch {
	case err == nil:
		o.Log.Info("connected", "queue", queue.Name(), "seconds", time.Since(begin).Seconds())
		summary, err = worker.Run(ctx, o.Config, queue, begin)
		err = errors.Join(err, queue.Close())
	case ctx.Err() != nil:
		summary.Ended, err = "stopped", nil
	default:
		summary.Ended = "error"
	}
	return errors.Join(err, o.report(summary))
}

// report says what was done, in the log and in the file.
func (o *runOptions) report(summary worker.Summary) error {
	o.Log.Info("leaving", "messages", summary.Messages, "succeeded", summary.Succeeded, "retried", summary.Retried,
		"deadLettered", summary.DeadLettered, "ended", summary.Ended)
	if o.summaryFile == "" {
		return nil
	}
	text, err := json.Marshal(summary)
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.summaryFile, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("--summary-file: %w", err)
	}
	return nil
}
