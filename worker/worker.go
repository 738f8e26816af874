package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker/summary"
)

// URIVariable is the environment variable that holds the broker's URI. Commands do not get it.
const URIVariable = "AMQP_URI"

// Config of a worker.
type Config struct {
	// URI of the broker: amqp://user:password@host:port/vhost.
	URI string
	// Queue to consume from.
	Queue string
	// ConsumerTag names the consumer at the broker, best after the pod's Job.
	ConsumerTag string
	// PriorityByAge makes the broker feed older workers first, so that young ones run out of work and leave.
	PriorityByAge bool
	// Command to run on each message.
	Command []string
	// RetryableExitCodes of the command ask for another attempt.
	RetryableExitCodes []int

	// ResultExchange and ResultRoutingKey take the results. With neither, results are dropped.
	ResultExchange, ResultRoutingKey string
	// ResultMaxBytes bounds a result.
	ResultMaxBytes int
	// DeadLetterExchange takes messages that failed, with the reason in their headers. Without it they are rejected, and
	// the queue's own dead-letter exchange takes them without a reason.
	DeadLetterExchange string

	// MaxMessages to take before leaving; 0 is no limit.
	MaxMessages int
	// MaxLifetime after which no further message is taken; 0 is no limit.
	MaxLifetime time.Duration
	// IdleTimeout is how long to wait for a message before leaving; 0 waits for ever.
	IdleTimeout time.Duration
	// GracePeriod is how long a command may go on after the worker was asked to stop.
	GracePeriod time.Duration
	// ConnectTimeout bounds the attempts to reach the broker.
	ConnectTimeout time.Duration

	Log    *slog.Logger
	Stderr io.Writer
}

// Summary is what a worker did.
type Summary = summary.Summary

// ErrGivenBack is wrapped by errors of a worker that left a message unsettled: the broker delivers it again.
var ErrGivenBack = errors.New("the message goes back to the queue")

// connectAttempt is the pause after the first failed attempt to connect; it doubles up to a few seconds.
const connectAttempt = 200 * time.Millisecond

// session is a worker's time with a broker.
type session struct {
	config     *Config
	connection *amqp.Connection
	channel    *amqp.Channel
	publishing *publishing
	deliveries <-chan amqp.Delivery
	closed     chan struct{} // closed once the connection has ended
	closedBy   error         // why, from then on
	begin      time.Time
	consuming  bool
	summary    Summary
}

// Run consumes until a limit, the idle timeout or the end of ctx, and says what it did. Ending ctx asks it to stop: the
// command that runs may finish within the grace period.
func Run(ctx context.Context, config Config) (Summary, error) {
	begin := time.Now()
	connection, err := connect(ctx, &config)
	if err != nil {
		if ctx.Err() != nil {
			return Summary{Ended: "stopped"}, nil
		}
		return Summary{Ended: "error"}, err
	}
	defer connection.Close()
	s := &session{config: &config, connection: connection, begin: begin, closed: make(chan struct{})}
	ends := connection.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		s.closedBy = amqp.ErrClosed // by intent, of which the library says nothing
		if end := <-ends; end != nil {
			s.closedBy = end
		}
		close(s.closed)
	}()
	if err := s.consume(); err != nil {
		return Summary{Ended: "error"}, err
	}
	s.summary.Ended, err = s.loop(ctx)
	return s.summary, err
}

// connect tries until the broker answers or the time for it is over.
func connect(ctx context.Context, config *Config) (*amqp.Connection, error) {
	if _, err := amqp.ParseURI(config.URI); err != nil {
		return nil, fmt.Errorf("the broker's URI must look like amqp://user:password@host:5672/vhost: %w", withoutURI(err))
	}
	deadline, pause := time.Now().Add(config.ConnectTimeout), connectAttempt
	for {
		connection, err := amqp.DialConfig(config.URI, amqp.Config{
			Heartbeat:  10 * time.Second,
			Properties: amqp.Table{"connection_name": config.ConsumerTag, "product": "ebbtide-worker"},
		})
		if err == nil {
			return connection, nil
		}
		var refused *amqp.Error
		if errors.As(err, &refused) && refused.Code == amqp.AccessRefused || time.Now().After(deadline) {
			return nil, fmt.Errorf("connect to the broker: %w", withoutURI(err))
		}
		config.Log.Warn("the broker can't be reached; trying again", "error", withoutURI(err), "pause", pause.String())
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// withoutURI drops the URI, and with it the password, from an error of package url.
func withoutURI(err error) error {
	var parse *url.Error
	if errors.As(err, &parse) {
		return parse.Err
	}
	return err
}

func (s *session) consume() error {
	var err error
	if s.channel, err = s.connection.Channel(); err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	if s.publishing, err = newPublishing(s.connection); err != nil {
		return fmt.Errorf("open a channel to publish: %w", err)
	}
	if err := s.channel.Qos(1, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	args := amqp.Table{}
	if s.config.PriorityByAge {
		// Higher goes first: the earlier the start, the higher.
		args["x-priority"] = int32(-s.begin.Unix())
	}
	s.deliveries, err = s.channel.Consume(s.config.Queue, s.config.ConsumerTag, false, false, false, false, args)
	if err != nil {
		return fmt.Errorf("consume from queue %q: %w", s.config.Queue, err)
	}
	s.consuming = true
	return nil
}

// leave stops being a consumer. A message that is on its way arrives nevertheless.
func (s *session) leave() error {
	if !s.consuming {
		return nil
	}
	s.consuming = false
	return s.channel.Cancel(s.config.ConsumerTag, false)
}

// loop takes messages until it is time to leave, and says why it left.
func (s *session) loop(ctx context.Context) (ended string, err error) {
	for {
		delivery, why, err := s.next(ctx)
		if err != nil || delivery == nil {
			return why, err
		}
		s.summary.Messages++
		last, err := s.handle(ctx, delivery)
		if err != nil || last != "" {
			return last, err
		}
	}
}

// next waits for a message. Without one it says why.
func (s *session) next(ctx context.Context) (delivery *amqp.Delivery, why string, err error) {
	var idle <-chan time.Time
	if s.config.IdleTimeout > 0 {
		timer := time.NewTimer(s.config.IdleTimeout)
		defer timer.Stop()
		idle = timer.C
	}
	select {
	case d, open := <-s.deliveries:
		if !open {
			return nil, "error", s.lost()
		}
		return &d, "", nil
	case <-idle:
		why = "idle"
	case <-ctx.Done():
		why = "stopped"
	}
	// The broker may have sent a message just now: after the cancellation is confirmed it is here, or there is none.
	if err := s.leave(); err != nil {
		return nil, "error", s.lost()
	}
	if d, open := <-s.deliveries; open {
		return &d, "", nil
	}
	return nil, why, nil
}

// lost is why the broker stopped delivering.
func (s *session) lost() error {
	select {
	case <-s.closed:
		return fmt.Errorf("the connection to the broker was lost: %w", s.closedBy)
	case <-time.After(100 * time.Millisecond):
	}
	return fmt.Errorf("the broker ended the consumer: was queue %q deleted?", s.config.Queue)
}

// handle runs the command on a message and settles it. Last is not empty when the worker is to leave, and says why.
func (s *session) handle(ctx context.Context, delivery *amqp.Delivery) (last string, err error) {
	log := s.config.Log.With("messageID", delivery.MessageId, "deliveryCount", deliveryCount(delivery))
	log.Info("scan starts")
	begin := time.Now()
	if !delivery.Timestamp.IsZero() && !delivery.Redelivered {
		s.summary.WaitSeconds.Add(begin.Sub(delivery.Timestamp).Seconds())
	}
	running, kill := context.WithCancelCause(context.Background())
	defer kill(nil)
	stop := s.watch(ctx, running, kill)
	o, err := execute(running, s.config, delivery)
	stop()
	s.summary.ScanSeconds.Add(time.Since(begin).Seconds())
	if err != nil {
		log.Error("scan did not finish", "error", err)
		return "error", s.giveBack(delivery, err)
	}
	last = s.isLast(ctx)
	if last != "" {
		if err := s.leave(); err != nil {
			return "error", fmt.Errorf("%w: %w", ErrGivenBack, s.lost())
		}
	}
	if err := s.settle(delivery, o); err != nil {
		log.Error("message is not settled", "error", err)
		return "error", s.giveBack(delivery, err)
	}
	log.Info("scan ended", "exitCode", o.exitCode, "reason", o.reason, "seconds", time.Since(begin).Seconds())
	return last, nil
}

// watch ends the command when the broker is lost, for then its message goes to another worker, and once the grace
// period after a stop is over.
func (s *session) watch(ctx, running context.Context, kill context.CancelCauseFunc) (stop func()) {
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
			case <-s.closed:
				kill(fmt.Errorf("the connection to the broker was lost: %w", s.closedBy))
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
	case !s.consuming:
		return "idle"
	default:
		return ""
	}
}

// settle does with the message what the outcome asks for.
func (s *session) settle(delivery *amqp.Delivery, o outcome) error {
	switch o.verdict {
	case succeeded:
		if s.config.ResultExchange != "" || s.config.ResultRoutingKey != "" {
			if err := s.publishing.publish(s.config.ResultExchange, s.config.ResultRoutingKey, result(delivery, o)); err != nil {
				return fmt.Errorf("publish the result: %w", err)
			}
		}
		s.summary.Succeeded++
		return delivery.Ack(false)
	case retry:
		s.summary.Retried++
		return delivery.Nack(false, true)
	default:
		s.summary.DeadLettered++
		if s.config.DeadLetterExchange == "" {
			return delivery.Reject(false)
		}
		if err := s.publishing.publish(s.config.DeadLetterExchange, delivery.RoutingKey, deadLetter(delivery, o, s.config.Queue)); err != nil {
			return fmt.Errorf("publish the dead letter: %w", err)
		}
		return delivery.Ack(false)
	}
}

// giveBack returns the message to the queue and leaves.
func (s *session) giveBack(delivery *amqp.Delivery, cause error) error {
	s.summary.Retried++
	// Without a connection there is nothing to do: the broker has taken the message back by itself.
	if err := s.leave(); err == nil {
		_ = delivery.Nack(false, true)
	}
	return fmt.Errorf("%w: %w", ErrGivenBack, cause)
}
