package worker

import (
	"context"
	"errors"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/stay"
)

// State of a worker, as its scheduler sees it.
type State int

// States.
const (
	Busy State = iota
	Idle
	Leaving
)

// Word is what the scheduler last said.
type Word struct {
	// Heard is false while the scheduler can't be heard: then nothing else counts.
	Heard bool
	// Leave at once when there is no message, else after it.
	Leave  bool
	Reason string
	// NodeWorks says that another pod on the worker's node works; LastWork when the last work there ended, the zero time when that is not known.
	NodeWorks bool
	LastWork  time.Time
}

// Scheduler says who had better leave. Its methods do not block.
type Scheduler interface {
	// Say what the worker does. Busy is sent for each message.
	Say(state State)
	// Word is the newest one, and a channel that is closed when there is another.
	Word() (word Word, changed <-chan struct{})
}

// Why a worker stops waiting for a message.
var (
	errIdle    = errors.New("no message came")
	errYielded = errors.New("the scheduler asked the worker to leave")
)

func (s *session) say(state State) {
	if s.config.Scheduler != nil {
		s.config.Scheduler.Say(state)
	}
}

// sentAway reports whether the scheduler wants the worker to leave.
func (s *session) sentAway() bool {
	if s.config.Scheduler == nil {
		return false
	}
	word, _ := s.config.Scheduler.Word()
	return word.Heard && word.Leave
}

// waiting is a context that ends, with the cause, when the worker is not to wait for a message any longer.
func (s *session) waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	idle := s.config.IdleTimeout
	switch {
	case s.config.Scheduler != nil:
		waiting, end := context.WithCancelCause(ctx)
		go s.await(waiting, end, time.Now())
		return waiting, func() { end(nil) }
	case idle > 0:
		return context.WithTimeoutCause(ctx, idle, errIdle)
	default:
		return context.WithCancel(ctx)
	}
}

// await ends the waiting when the scheduler says so, and when the worker has been idle for long enough.
func (s *session) await(waiting context.Context, end context.CancelCauseFunc, since time.Time) {
	for {
		word, changed := s.config.Scheduler.Word()
		if word.Heard && word.Leave {
			end(errYielded)
			return
		}
		var over <-chan time.Time
		if idle := s.config.IdleTimeout; idle > 0 {
			until := since.Add(idle)
			if word.Heard {
				until = stay.Rule{AfterWork: idle, Longest: max(idle, s.config.Stay)}.Until(since, word.LastWork, word.NodeWorks)
			}
			left := time.Until(until)
			if left <= 0 {
				end(errIdle)
				return
			}
			over = time.After(left)
		}
		select {
		case <-waiting.Done():
			return
		case <-changed:
		case <-over: // look once more
		}
	}
}
