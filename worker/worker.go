package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

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
	// RetryableExitCodes of the command ask for another attempt.
	RetryableExitCodes []int
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
	// GracePeriod is how long a command may go on after the worker was asked to stop.
	GracePeriod time.Duration

	Log    *slog.Logger
	Stderr io.Writer
}

// Summary is what a worker did.
type Summary = summary.Summary

// ErrGivenBack is wrapped by errors of a worker that left a message unsettled: the broker delivers it again.
var ErrGivenBack = errors.New("the message goes back to the queue")

// settleWithin bounds what is said to the broker about a message.
const settleWithin = 30 * time.Second

// session is a worker's time with a queue.
type session struct {
	config  *Config
	queue   Queue
	begin   time.Time
	leaving bool
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
	waiting, cancel := ctx, func() {}
	if s.config.IdleTimeout > 0 {
		waiting, cancel = context.WithTimeout(ctx, s.config.IdleTimeout)
	}
	defer cancel()
	message, err = s.queue.Next(waiting)
	if err == nil && message != nil {
		return message, "", nil
	}
	if waiting.Err() == nil {
		return nil, "error", err
	}
	why = "idle"
	if ctx.Err() != nil {
		why = "stopped"
	}
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

// handle runs the command on a message and settles it. Last is not empty when the worker is to leave, and says why.
func (s *session) handle(ctx context.Context, message *Message) (last string, err error) {
	log := s.config.Log.With("message", message.Key, "attempt", message.Attempt)
	log.Info("scan starts")
	begin := time.Now()
	if !message.Queued.IsZero() && message.Attempt == 1 {
		s.summary.WaitSeconds.Add(begin.Sub(message.Queued).Seconds())
	}
	out := &output{inline: s.config.ResultLimit, maximum: s.config.ResultMaxBytes, store: s.config.ResultStore}
	defer out.discard()
	o, err := s.run(ctx, message, out)
	s.summary.ScanSeconds.Add(time.Since(begin).Seconds())
	if err != nil {
		log.Error("scan did not finish", "error", err)
		return "error", s.giveBack(message, err)
	}
	last = s.isLast(ctx)
	if last != "" {
		if err := s.leave(); err != nil {
			return "error", s.giveBack(message, err)
		}
	}
	if err := s.settle(message, o); err != nil {
		log.Error("message is not settled", "error", err)
		return "error", s.giveBack(message, err)
	}
	log.Info("scan ended", "exitCode", exitCode(o), "reason", o.reason, "seconds", o.finished.Sub(o.started).Seconds())
	return last, nil
}

// run runs the command, unless the message has had its attempts.
func (s *session) run(ctx context.Context, message *Message, out *output) (outcome, error) {
	if s.config.MaxAttempts > 0 && message.Attempt > s.config.MaxAttempts {
		now := time.Now()
		return outcome{
			verdict: failed, finished: now,
			reason: fmt.Sprintf("attempt %d of %d ended without an answer: its worker was killed, or lost the broker",
				s.config.MaxAttempts, s.config.MaxAttempts),
		}, nil
	}
	running, kill := context.WithCancelCause(context.Background())
	defer kill(nil)
	stop := s.watch(ctx, running, message.Held, kill)
	o, err := execute(running, s.config, message, out)
	stop()
	if err != nil || o.verdict != succeeded {
		return o.exhausted(message.Attempt, s.config.MaxAttempts), err
	}
	o.output, err = out.keep()
	return o, err
}

// watch ends the command when the message is another's, and once the grace period after a stop is over.
func (s *session) watch(ctx, running, held context.Context, kill context.CancelCauseFunc) (stop func()) {
	done := make(chan struct{})
	go func() {
		stopping := ctx.Done()
		var grace <-chan time.Time
		for {
			select {
			case <-done:
				return
			case <-running.Done():
				return
			case <-held.Done():
				kill(context.Cause(held))
				return
			case <-stopping:
				stopping = nil
				grace = time.After(s.config.GracePeriod)
			case <-grace:
				kill(fmt.Errorf("asked to stop, and %s later the command still ran", s.config.GracePeriod))
			}
		}
	}()
	return func() { close(done) }
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
		return "idle"
	default:
		return ""
	}
}

// settle does with the message what the outcome asks for. A result is with the broker before its message is gone from there.
func (s *session) settle(message *Message, o outcome) error {
	ctx, cancel := context.WithTimeout(context.Background(), settleWithin)
	defer cancel()
	if o.verdict == retry {
		s.summary.Retried++
		return s.queue.Retry(ctx, message)
	}
	result := s.config.result(s.queue.Name(), message, o)
	publication, err := s.config.publication(result, o.output.inline)
	if errors.Is(err, errTooLarge) {
		o.verdict, o.reason = failed, err.Error()
		result = s.config.result(s.queue.Name(), message, o)
		publication, err = s.config.publication(result, nil)
	}
	if err == nil {
		err = s.queue.Publish(ctx, publication)
	}
	if err != nil {
		return fmt.Errorf("publish the result: %w", err)
	}
	if o.verdict == succeeded {
		s.summary.Succeeded++
		return s.queue.Ack(ctx, message)
	}
	s.summary.DeadLettered++
	letter, err := deadLetter(result)
	if err != nil {
		return err
	}
	return s.queue.DeadLetter(ctx, message, letter)
}

// giveBack leaves the message to another worker, and leaves.
func (s *session) giveBack(message *Message, cause error) error {
	s.summary.Retried++
	_ = s.leave() // without a connection the broker has taken the message back by itself
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
