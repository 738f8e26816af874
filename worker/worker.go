package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker/results"
	"github.com/ebbtide-dev/ebbtide/worker/summary"
)

// Config of a worker.
type Config struct {
	// Name of the worker in results: its Job's, best.
	Name string
	// Command to run on each message.
	Command []string
	// HiddenVariables of the environment hold credentials: commands do not get them.
	HiddenVariables []string
	// Environment is what commands get besides the worker's own: NAME=value.
	Environment []string
	// Endings of the command, and what happens to the message.
	Endings Endings
	// RetryDelays before the second attempt, the third and so on; the last one repeats. None: at once.
	RetryDelays []time.Duration
	// MaxAttempts after which a message fails, those that killed their worker included; 0 is no limit but the broker's.
	MaxAttempts int

	// Engine that this worker is, of the Engines that a scan is complete with. Both may be empty.
	Engine  string
	Engines []string
	// ResultFormat and ResultContentType are the encoding of a result and the media type of what the command writes.
	ResultFormat      results.Format
	ResultContentType string
	// ResultLimit bounds a published result, in bytes. Content that does not fit goes to ResultStore; without one it fails.
	ResultLimit int
	ResultStore results.Store
	// ResultMaxBytes bounds the content of a result, wherever it goes.
	ResultMaxBytes int64

	// MaxMessages to take before leaving; 0 is no limit.
	MaxMessages int
	// MaxLifetime after which no further message is taken; 0 is no limit.
	MaxLifetime time.Duration
	// IdleTimeout is how long to wait for a message before leaving; 0 waits for ever.
	IdleTimeout time.Duration
	// Scheduler that may ask the worker to leave, and says whether its node works; nil: none. While it is heard, the worker waits for a
	// message for as long as its node works, but not longer than Stay, and else for IdleTimeout after the last work on its node.
	Scheduler Scheduler
	Stay      time.Duration
	// GracePeriod is how long a command may keep running after the worker was asked to stop, CommandGrace included.
	GracePeriod time.Duration
	// CommandGrace is how long a command may keep running after SIGTERM.
	CommandGrace time.Duration
	// ScanTimeout bounds a command; 0: nothing does. A message's header may lower it.
	ScanTimeout time.Duration

	// Reaper ends what commands leave behind; nil: what left the command's process group stays.
	Reaper *child.Reaper
	// Confinement and User of commands; nil: none, and the worker's.
	Confinement *child.Confinement
	User        *syscall.Credential
	// Scratch are folders that belong to commands: emptied before and after each. Temporary files are in the first, or in $TMPDIR.
	Scratch []string
	// ScratchLimit bounds what commands may have there.
	ScratchLimit ScratchLimit

	// Metrics are kept where they are not nil.
	Metrics *Metrics
	Log     *slog.Logger
}

// Summary is what a worker did.
type Summary = summary.Summary

// ErrGivenBack is wrapped by errors of a worker that left a message to another: the broker delivers it again.
var ErrGivenBack = errors.New("the message goes back to the queue")

// Why a command is ended that is not at fault.
var (
	errLost    = errors.New("the message is another worker's")
	errStopped = errors.New("the worker stops")
)

// settleWithin bounds how long it may take to ack, retry or dead-letter a message.
const settleWithin = 30 * time.Second

// session is a worker's time with a queue.
type session struct {
	config  *Config
	queue   Queue
	begin   time.Time
	leaving bool
	why     string // it leaves, once it waits no more
	summary Summary
}

// Run takes messages until a limit, the idle timeout or the end of ctx, and says what it did. Ending ctx asks it to stop: the
// command that runs may finish within the grace period. Begin is when the worker started. The queue stays open.
func Run(ctx context.Context, config Config, queue Queue, begin time.Time) (Summary, error) {
	s := &session{config: &config, queue: queue, begin: begin}
	var err error
	s.summary.Ended, err = s.loop(ctx)
	return s.summary, err
}

// leave stops taking messages. One that is on its way arrives nevertheless.
func (s *session) leave() error {
	if s.leaving {
		return nil
	}
	s.leaving = true
	s.say(Leaving)
	return s.queue.Leave()
}

// loop takes messages until it is time to leave, and says why it left.
func (s *session) loop(ctx context.Context) (ended string, err error) {
	for {
		message, why, err := s.next(ctx)
		if err != nil || message == nil {
			return why, err
		}
		s.summary.Messages++
		last, err := s.handle(ctx, message)
		if err != nil || last != "" {
			return last, err
		}
	}
}

// next waits for a message. Without one it says why.
func (s *session) next(ctx context.Context) (message *Message, why string, err error) {
	s.say(Idle)
	waiting, cancel := s.waiting(ctx)
	defer cancel()
	message, err = s.queue.Next(waiting)
	if err == nil && message != nil {
		return message, "", nil
	}
	if waiting.Err() == nil {
		return nil, "error", err
	}
	why = "idle"
	switch {
	case ctx.Err() != nil:
		why = "stopped"
	case errors.Is(context.Cause(waiting), errYielded):
		why = "yielded"
		word, _ := s.config.Scheduler.Word()
		s.config.Log.Info("the scheduler asks this worker to leave", "reason", word.Reason)
	}
	s.why = why
	// The broker may have sent a message just now: once it knows that the worker leaves, it is here or there is none.
	if err := s.leave(); err != nil {
		return nil, "error", err
	}
	final, cancel := context.WithTimeout(context.Background(), settleWithin)
	defer cancel()
	if message, err = s.queue.Next(final); err != nil {
		why = "error"
	}
	return message, why, err
}

// handle runs the command on a message and acks, retries or dead-letters it. Last is not empty when the worker is to leave, and says why.
func (s *session) handle(ctx context.Context, message *Message) (last string, err error) {
	log := s.config.Log.With("message", message.Key, "attempt", message.Attempt)
	log.Info("scan starts")
	begin := time.Now()
	s.config.Metrics.began(begin)
	defer s.config.Metrics.began(time.Time{})
	s.say(Busy)
	if !message.Queued.IsZero() && message.Attempt == 1 {
		s.summary.WaitSeconds.Add(begin.Sub(message.Queued).Seconds())
		s.config.Metrics.waited(begin.Sub(message.Queued))
	}
	out := &output{inline: s.config.ResultLimit, maximum: s.config.ResultMaxBytes, store: s.config.ResultStore}
	defer out.discard()
	order, err := s.config.admit(message)
	o, left := outcome{verdict: Fail, finished: begin, cause: causeMessage}, error(nil)
	if err != nil {
		o.reason = "the message can't be scanned: " + err.Error()
	} else if o, err = s.run(ctx, message, order, out); errors.Is(err, child.ErrLeft) && !o.finished.IsZero() {
		left, err = err, nil
	} else if err != nil {
		s.ran(time.Since(begin))
		log.Error("scan did not finish", "error", err)
		return "error", s.giveBack(message, err)
	}
	s.ran(time.Since(begin))
	last = s.isLast(ctx)
	if left != nil {
		last = "error"
	}
	if last != "" {
		if err := s.leave(); err != nil {
			return "error", s.giveBack(message, err)
		}
	}
	o = o.exhausted(message.Attempt, s.config.MaxAttempts)
	if err := s.settle(message, order, o); err != nil {
		log.Error("the message was not acked, retried or dead-lettered", "error", err)
		return "error", s.giveBack(message, errors.Join(err, left))
	}
	log.Info("scan ended", "exitCode", exitCode(o), "verdict", o.verdict.String(), "reason", o.reason, "seconds", o.seconds())
	return last, left
}

// run runs the command, unless the message has had its attempts.
func (s *session) run(ctx context.Context, message *Message, order order, out *output) (outcome, error) {
	if s.config.MaxAttempts > 0 && message.Attempt > s.config.MaxAttempts {
		o := outcome{verdict: Fail, cause: causeAttempts, finished: time.Now(), reason: fmt.Sprintf("attempt %d of %d ended without an answer: its worker was killed, "+
			"perhaps because memory ran out, or lost the broker", s.config.MaxAttempts, s.config.MaxAttempts)}
		if message.Claimed >= s.config.MaxAttempts { // as no worker with this limit sends one again
			o.reason = fmt.Sprintf("the message says of itself that it has had %d attempts, of %d", message.Claimed, s.config.MaxAttempts)
		}
		if message.LastReason != "" {
			o.reason += "; an attempt before: " + message.LastReason
		}
		return o, nil
	}
	running, end := context.WithCancelCause(context.Background())
	defer end(nil)
	stop := s.watch(ctx, running, message.Held, order.timeout, end)
	o, err := execute(running, s.config, message, out)
	stop()
	if o.verdict != Succeed || o.finished.IsZero() {
		return o, err
	}
	left := err
	o.output, err = out.keep()
	return o, cmp.Or(err, left)
}

// watch ends the command when the message is another's, when its time is over, and when the grace period after a stop leaves just the time
// that a command has after SIGTERM.
func (s *session) watch(ctx, running, held context.Context, timeout time.Duration, end context.CancelCauseFunc) (stop func()) {
	done := make(chan struct{})
	go func() {
		stopping := ctx.Done()
		var grace, over <-chan time.Time
		if timeout > 0 {
			over = time.After(timeout)
		}
		for {
			select {
			case <-done:
				return
			case <-running.Done():
				return
			case <-held.Done():
				end(fmt.Errorf("%w: %w", errLost, context.Cause(held)))
			case <-over:
				end(fmt.Errorf("%w: longer than %s", errTimeout, timeout))
			case <-stopping:
				stopping = nil
				grace = time.After(s.config.GracePeriod - s.config.CommandGrace)
			case <-grace:
				end(fmt.Errorf("%w: asked to, and %s later the command still ran", errStopped, s.config.GracePeriod-s.config.CommandGrace))
			}
		}
	}()
	return func() { close(done) }
}

func (s *session) ran(d time.Duration) {
	s.summary.ScanSeconds.Add(d.Seconds())
	s.config.Metrics.ran(d)
}

func (s *session) isLast(ctx context.Context) string {
	switch {
	case ctx.Err() != nil:
		return "stopped"
	case s.config.MaxMessages > 0 && s.summary.Messages >= s.config.MaxMessages:
		return "messages"
	case s.config.MaxLifetime > 0 && time.Since(s.begin) >= s.config.MaxLifetime:
		return "lifetime"
	case s.leaving:
		return s.why
	case s.sentAway():
		return "yielded"
	default:
		return ""
	}
}

// settle acks, retries or dead-letters the message, as the outcome asks. A result is with the broker before its message is gone from there.
func (s *session) settle(message *Message, order order, o outcome) error {
	ctx, cancel := context.WithTimeout(context.Background(), settleWithin)
	defer cancel()
	again := Attempt{Number: message.Attempt, Reason: printable(o.reason)}
	switch o.verdict {
	case Retry, Larger:
		if delays := s.config.RetryDelays; len(delays) > 0 {
			again.After = delays[min(message.Attempt, len(delays))-1]
		}
		send := s.queue.Retry
		if o.verdict == Larger {
			send = s.queue.Forward
		}
		err := send(ctx, message, again)
		if !errors.Is(err, ErrNoLarger) && !errors.Is(err, errTooLarge) {
			s.summary.Retried++
			if err == nil {
				s.config.Metrics.ended(map[Verdict]string{Retry: outcomeRetried, Larger: outcomeForwarded}[o.verdict], o.cause)
			}
			return err
		}
		o.verdict, o.reason = Fail, o.reason+"; "+err.Error()
	}
	result := s.config.result(s.queue.Name(), message, order.engines, o)
	err := s.publish(ctx, result, o.output.inline)
	if errors.Is(err, errTooLarge) {
		o.verdict, o.reason, o.cause = Fail, err.Error(), causeResult
		result = s.config.result(s.queue.Name(), message, order.engines, o)
		err = s.publish(ctx, result, nil)
	}
	if err != nil {
		return fmt.Errorf("publish the result: %w", err)
	}
	if o.verdict == Succeed {
		s.summary.Succeeded++
		if err = s.queue.Ack(ctx, message); err == nil {
			s.config.Metrics.ended(outcomeSucceeded, causeNone)
		}
		return err
	}
	s.summary.DeadLettered++
	letter, err := deadLetter(result)
	if err != nil {
		return err
	}
	if err = s.queue.DeadLetter(ctx, message, letter); err == nil {
		s.config.Metrics.ended(outcomeDeadLettered, o.cause)
	}
	return err
}

// publish publishes a result, with its content in it or in the store.
func (s *session) publish(ctx context.Context, result *resultsv1alpha1.Result, inline []byte) error {
	publication, err := s.config.publication(result, inline)
	if err != nil {
		return err
	}
	return s.queue.Publish(ctx, publication)
}

// giveBack leaves the message to another worker, and leaves.
func (s *session) giveBack(message *Message, cause error) error {
	s.summary.Retried++
	why := causeWorker
	if errors.Is(cause, errStopped) {
		why = causeStopped
	} else if errors.Is(cause, errLost) {
		why = causeLost
	}
	s.config.Metrics.ended(outcomeReturned, why)
	_ = s.leave() // without a connection the broker has requeued the message by itself
	s.queue.GiveBack(message)
	return fmt.Errorf("%w: %w", ErrGivenBack, cause)
}

// exitCode for the log; -1 when the command did not exit by itself.
func exitCode(o outcome) int {
	if o.exitCode == nil {
		return -1
	}
	return *o.exitCode
}
