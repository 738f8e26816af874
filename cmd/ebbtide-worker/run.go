package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	"github.com/ebbtide-dev/ebbtide/internal/secret"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/results"
	"github.com/ebbtide-dev/ebbtide/worker/sourcestore"
)

const long = `ebbtide-worker consumes messages of a queue, one at a time, and runs a command on each. By itself it consumes from RabbitMQ;
"ebbtide-worker kafka" does the same on Kafka.

The command gets the message on standard input and as the file $EBBTIDE_MESSAGE_FILE, and its properties as
$EBBTIDE_MESSAGE_ID, $EBBTIDE_CORRELATION_ID, $EBBTIDE_CONTENT_TYPE, $EBBTIDE_ROUTING_KEY, $EBBTIDE_DELIVERY_COUNT (0 at first) and
$EBBTIDE_HEADER_name. Its exit status decides what happens to the message:

  exit 0                    standard output is published in a result and confirmed, then the message is acknowledged
  exit 75, or a signal      the message is retried after a delay, up to --max-attempts or the broker's own limit
  any other exit code       a result with the reason is published and confirmed, then the message is dead-lettered

--on changes that: 69=retry, 3=succeed, 64-78=fail, signal=fail, timeout=retry, memory=larger.

After the command ends, the worker kills everything that it started and removes its $TMPDIR. The command can't read the worker, which
removes its credentials from the environment first. A message's header ebbtide-scan-timeout may lower --scan-timeout.

A result (proto/ebbtide/results) is JSON by default (--result-format). It is published at least once: if a worker is killed between the
result and the acknowledgement, the next worker publishes it again, with the same key.

After SIGTERM the command may finish within --grace-period. It gets SIGTERM --command-grace before the end of that, and SIGKILL at the end. Its
output is then discarded, and the message is requeued.

Exit codes: 0 every message was acknowledged, retried or dead-lettered, or none arrived; 75 a message was requeued because the worker had
to stop or lost the broker; 1 everything else.`

// runOptions are what a worker is told, whatever its queue.
type runOptions struct {
	worker.Config
	resultFormat, resultStore, summaryFile string
	metricsListen                          string
	retryable                              []int
	on                                     []string
	confine, user                          string
	writable                               []string
	// files with credentials, which commands can't read.
	credentialFiles []string
	scheduler       schedulerOptions
}

// secretVariables hold credentials; they are taken out of the environment before anything else happens.
var secretVariables = []string{rabbitmq.URIVariable, managementVariable, kafkaPasswordVariable, sourcestore.TokenVariable, podUIDVariable}

func command(begin time.Time, secrets secret.Values) *cobra.Command {
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
			if uriFile != "" {
				o.credentialFiles = append(o.credentialFiles, uriFile)
			}
			if err := o.complete(args, secrets); err != nil {
				return err
			}
			q.URI = secrets[rabbitmq.URIVariable]
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
			case q.TenantLimit < 0:
				return fmt.Errorf("--tenant-limit %d: must not be negative", q.TenantLimit)
			}
			q.ConsumerTag, q.Log = o.Name, o.Log
			q.TenantDelays = []time.Duration{5 * time.Second, 30 * time.Second} // the first two retry queues by default
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
	flags.StringVar(&o.Name, "consumer-tag", o.Name, "consumer tag at the broker; default: $JOB_NAME, $POD_NAME or the host's name")
	flags.BoolVar(&priorityByAge, "priority-by-age", true,
		"let the broker deliver to older workers first, so that younger ones run out of work and their nodes drain")
	flags.StringVar(&q.ResultExchange, "result-exchange", "", "exchange that results are published to")
	flags.StringVar(&q.ResultRoutingKey, "result-routing-key", "", "routing key of results")
	flags.StringVar(&q.DeadLetterExchange, "dead-letter-exchange", "", "exchange for failed messages; default: reject them")
	flags.StringVar(&q.LargerQueue, "larger-queue", "", "queue of workers with more memory, for --on ENDING=larger")
	flags.IntVar(&q.TenantLimit, "tenant-limit", 0,
		"most messages of one tenant, as the header tenant names it, that all workers of the queue work on at a time; 0: no limit")
	flags.DurationVar(&q.ConnectTimeout, "connect-timeout", time.Minute, "how long to try to reach the broker")
	cmd.AddCommand(kafkaCommand(begin, secrets), sourceCommand(secrets), enginesCommand(), installCommand(), pauseCommand(),
		submitCommand(secrets), topologyCommand(secrets), deadCommand(secrets, time.Now))
	return cmd
}

// addFlags adds the flags that all queues have.
func (o *runOptions) addFlags(cmd *cobra.Command) {
	host, _ := os.Hostname() // only a default
	o.Name = cmp.Or(os.Getenv("JOB_NAME"), os.Getenv("POD_NAME"), host)
	flags := cmd.Flags()
	flags.IntSliceVar(&o.retryable, "retryable-exit-codes", []int{75}, "exit codes of the command that retry the message")
	flags.StringSliceVar(&o.on, "on", nil,
		"what happens to a message, ENDING=VERDICT: an exit code, a range of them, signal, timeout (default: fail) or memory (default: fail); "+
			"succeed, retry, fail, or larger for workers with more memory")
	flags.DurationSliceVar(&o.RetryDelays, "retry-delays", []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute},
		"delays before the second attempt, the third and so on; the last one repeats; 0s: at once")
	flags.IntVar(&o.MaxAttempts, "max-attempts", 5,
		"a message fails after this many attempts, including those of killed workers; keep it below the queue's delivery limit; "+
			"0: the broker decides, which takes --retry-delays 0s, as it does not count attempts after a delay")
	flags.StringVar(&o.Engine, "engine", "", "name of this engine in results, if several engines scan the same source")
	flags.StringSliceVar(&o.Engines, "engines", nil,
		"all engines of a complete scan, separated by commas; a message's header ebbtide-engines takes precedence")
	flags.StringVar(&o.resultFormat, "result-format", "json", "encoding of results: json or protobuf")
	flags.StringVar(&o.ResultContentType, "result-content-type", "", "media type of the command's output, for results")
	flags.IntVar(&o.ResultLimit, "result-limit", 512<<10, "limit of a published result in bytes; larger content goes to --result-store")
	flags.StringVar(&o.resultStore, "result-store", "",
		"folder on a shared volume for content over --result-limit; default: such a result fails")
	flags.Int64Var(&o.ResultMaxBytes, "result-max-bytes", 256<<20, "limit of a command's output in bytes; a command that writes more fails")
	flags.IntVar(&o.MaxMessages, "max-messages", 1, "exit after this many messages; 0: no limit")
	flags.DurationVar(&o.MaxLifetime, "max-lifetime", 0, "take no further message after this time; 0: no limit")
	flags.DurationVar(&o.IdleTimeout, "idle-timeout", time.Minute, "exit after this time without a message; 0: never")
	o.scheduler.addFlags(flags, &o.Stay)
	flags.DurationVar(&o.GracePeriod, "grace-period", 25*time.Second,
		"how long the command may continue after SIGTERM; keep it below the pod's terminationGracePeriodSeconds")
	flags.DurationVar(&o.CommandGrace, "command-grace", 5*time.Second,
		"how long the command has between SIGTERM and SIGKILL; at most half of --grace-period")
	flags.DurationVar(&o.ScanTimeout, "scan-timeout", 0, "time limit of a command; a message may lower it; 0: no limit")
	flags.StringSliceVar(&o.Scratch, "scratch", nil,
		"folders of commands, emptied before and after each: /tmp,/dev/shm in a container; the first contains $TMPDIR")
	scratchLimitFlags(flags, &o.ScratchLimit)
	flags.StringVar(&o.confine, "confine", "auto", confineUsage)
	flags.StringSliceVar(&o.writable, "writable", nil,
		"folders that commands may write to, in addition to --scratch, $TMPDIR and devices; requires Landlock; default: all folders that permissions allow")
	flags.StringVar(&o.user, "run-as", "",
		"UID:GID of commands; the worker needs the capabilities SETUID, SETGID, KILL, CHOWN and DAC_OVERRIDE; default: the worker's")
	flags.StringVar(&o.metricsListen, "metrics-listen", "", "address of /metrics, such as :9092; default: none, because most workers end before they are scraped")
	flags.StringVar(&o.summaryFile, "summary-file", "",
		"write a summary to this file as JSON; /dev/termination-log adds it to the pod's status")
}

// complete says what is wrong with the configuration.
func (o *runOptions) complete(args []string, secrets secret.Values) error {
	o.Command = args
	// A program that is not there is no message's fault: better to take none.
	if _, err := exec.LookPath(args[0]); err != nil {
		return fmt.Errorf("the command can't be run: %w", err)
	}
	o.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	o.HiddenVariables = secretVariables
	if token, ok := secrets[sourcestore.TokenVariable]; ok {
		if isThisProgram(args[0]) { // whose "source get" hides it from what it runs
			o.Environment = append(o.Environment, sourcestore.TokenVariable+"="+token)
		} else {
			o.Log.Warn("the command does not get $" + sourcestore.TokenVariable + ", which the scanned code could read there: " +
				"let ebbtide-worker source get run it")
		}
	}
	if err := o.setEndings(); err != nil {
		return err
	}
	hidden, err := o.scheduler.complete(o.Stay, secrets)
	if err != nil {
		return err
	}
	o.credentialFiles = append(o.credentialFiles, hidden...)
	if err := o.setBoundary(); err != nil {
		return err
	}
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
	case o.MaxAttempts == 0 && slices.ContainsFunc(o.RetryDelays, func(delay time.Duration) bool { return delay > 0 }):
		return errors.New("--max-attempts 0: the broker does not count attempts after a delay, so a message might never end: " +
			"set a number, or --retry-delays 0s")
	case o.Engine != "" && !worker.ValidEngine(o.Engine):
		return fmt.Errorf("--engine %q: up to 63 letters, digits, points, hyphens and underscores", o.Engine)
	case len(o.ResultContentType) > worker.MaxIDBytes:
		return fmt.Errorf("--result-content-type: has more than %d characters", worker.MaxIDBytes)
	case o.ResultLimit < 16<<10:
		return fmt.Errorf("--result-limit %d: must be at least %d, so that a result without content fits", o.ResultLimit, 16<<10)
	case o.ResultMaxBytes < 1:
		return fmt.Errorf("--result-max-bytes %d: must be at least 1", o.ResultMaxBytes)
	case len(o.Engines) > 0 && !slices.Contains(o.Engines, o.Engine):
		return fmt.Errorf("--engines %s: --engine %q must be one of them", strings.Join(o.Engines, ","), o.Engine)
	}
	return nil
}

// isThisProgram reports whether a program is this one.
func isThisProgram(name string) bool {
	path, err := exec.LookPath(name)
	if err != nil {
		return false
	}
	program, err := os.Stat(path)
	self, selfErr := os.Stat("/proc/self/exe")
	return err == nil && selfErr == nil && os.SameFile(program, self)
}

// setEndings reads what happens to messages.
func (o *runOptions) setEndings() error {
	o.Endings = worker.DefaultEndings()
	o.Endings.Codes = map[int]worker.Verdict{}
	for _, code := range o.retryable {
		o.Endings.Codes[code] = worker.Retry
	}
	for _, rule := range o.on {
		if err := o.Endings.Set(rule); err != nil {
			return fmt.Errorf("--on: %w", err)
		}
	}
	for _, delay := range o.RetryDelays {
		if delay < 0 || delay > 24*time.Hour || delay%time.Millisecond != 0 {
			return fmt.Errorf("--retry-delays %s: must be from 0s to 24h, in whole milliseconds", delay)
		}
	}
	return nil
}

// setBoundary makes what commands run in.
func (o *runOptions) setBoundary() error {
	var err error
	if o.Reaper, err = child.NewReaper(); err != nil {
		return err
	}
	if o.ScratchLimit.Bytes < 0 || o.ScratchLimit.Files < 0 {
		return errors.New("--scratch-max-bytes and --scratch-max-files must not be negative")
	}
	if o.GracePeriod < 0 || o.CommandGrace < 0 || o.ScanTimeout < 0 {
		return errors.New("--grace-period, --command-grace and --scan-timeout must not be negative")
	}
	o.CommandGrace = min(o.CommandGrace, o.GracePeriod/2)
	for _, folder := range o.Scratch {
		if !filepath.IsAbs(folder) || filepath.Clean(folder) == "/" {
			return fmt.Errorf("--scratch %q: must be the absolute path of a folder that belongs to commands alone", folder)
		}
	}
	var shared []string
	if o.Scratch, shared = ownScratch(os.Getpid(), o.Scratch); len(shared) > 0 {
		o.Log.Warn("folders are not emptied: this is not the first process of a container, and others may use them", "folders", shared)
	}
	if o.user != "" {
		o.User = &syscall.Credential{}
		if n, err := fmt.Sscanf(o.user+"\n", "%d:%d\n", &o.User.Uid, &o.User.Gid); n != 2 || err != nil {
			return fmt.Errorf("--run-as %q: must be UID:GID, two numbers", o.user)
		}
	}
	o.Confinement, err = confinement(o.confine, o.credentialFiles, o.writable, func(reason error) {
		o.Log.Warn("commands are confined in part", "reason", reason)
	})
	return err
}

const confineUsage = "confine commands: no system calls for what outlives them, no capabilities to look into processes, no setuid programs, and Landlock: " +
	"auto (Landlock if the kernel supports it), on (fail otherwise), off (for commands that mount or use sudo)"

// confinement is what --confine asks for. Warn is told why it is less than it could be.
func confinement(mode string, hidden, writable []string, warn func(error)) (*child.Confinement, error) {
	can := child.CanConfine()
	switch {
	case mode == "off" && len(writable) > 0:
		return nil, errors.New("--writable: not with --confine=off")
	case mode == "off":
		return nil, nil
	case mode != "auto" && mode != "on":
		return nil, fmt.Errorf("--confine %q: must be auto, on or off", mode)
	case can != nil && (mode == "on" || len(writable) > 0):
		return nil, fmt.Errorf("commands can't be confined: %w", can)
	case can != nil:
		warn(can)
		return &child.Confinement{}, nil
	}
	return &child.Confinement{Hidden: hidden, Writable: writable}, nil
}

// run works on a queue, and says what was done.
func (o *runOptions) run(ctx context.Context, begin time.Time, open func(context.Context) (worker.Queue, error)) error {
	stop, err := o.serveMetrics(ctx)
	if err != nil {
		return err
	}
	defer stop()
	leave, err := o.attend()
	if err != nil {
		return err
	}
	defer leave()
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
