package worker

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// memoryQueue has the messages of a test. One may be on its way when the worker stops to be a consumer.
type memoryQueue struct {
	messages chan *Message
	late     *Message
	log      []string
	left     bool
	ack      func()
}

func (*memoryQueue) Name() string { return "scans" }

func (q *memoryQueue) Next(ctx context.Context) (*Message, error) {
	if q.left {
		m := q.late
		q.late = nil
		return m, nil
	}
	select {
	case m := <-q.messages:
		return m, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (q *memoryQueue) Leave() error {
	q.left, q.log = true, append(q.log, "leave")
	return nil
}

func (q *memoryQueue) Ack(context.Context, *Message) error {
	q.log = append(q.log, "ack")
	if q.ack != nil {
		q.ack()
	}
	return nil
}

func (*memoryQueue) Publish(context.Context, Publication) error             { return nil }
func (*memoryQueue) Retry(context.Context, *Message, Attempt) error         { panic("not expected") }
func (*memoryQueue) Forward(context.Context, *Message, Attempt) error       { panic("not expected") }
func (*memoryQueue) DeadLetter(context.Context, *Message, DeadLetter) error { panic("not expected") }
func (*memoryQueue) GiveBack(*Message)                                      { panic("not expected") }
func (*memoryQueue) Close() error                                           { return nil }
func (q *memoryQueue) send(id string)                                       { q.messages <- sample(id) }
func sample(id string) *Message {
	return &Message{ID: id, Key: id, Attempt: 1, Held: context.Background()}
}
func newQueue() *memoryQueue { return &memoryQueue{messages: make(chan *Message, 10)} }

// script is a scheduler that says what a test wants, and notes what the worker says.
type script struct {
	mu      sync.Mutex
	word    Word
	changed chan struct{}
	said    []State
	onSay   func(State)
}

func newScript(word Word) *script { return &script{word: word, changed: make(chan struct{})} }

func (s *script) Say(state State) {
	s.mu.Lock()
	s.said = append(s.said, state)
	s.mu.Unlock()
	if s.onSay != nil {
		s.onSay(state)
	}
}

func (s *script) Word() (Word, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.word, s.changed
}

func (s *script) says(word Word) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.word = word
	close(s.changed)
	s.changed = make(chan struct{})
}

// How long a worker without a message waits, and why it leaves.
func TestWaiting(t *testing.T) {
	type said struct {
		after time.Duration
		word  Word
	}
	works := Word{Heard: true, NodeWorks: true}
	for name, tc := range map[string]struct {
		none  bool // no scheduler
		idle  time.Duration
		words []said
		want  time.Duration
		why   string
	}{
		"no scheduler":                      {none: true, idle: time.Minute, want: time.Minute, why: "idle"},
		"a scheduler that is not heard":     {idle: 10 * time.Second, want: 10 * time.Second, why: "idle"},
		"while its node works, two minutes": {idle: 10 * time.Second, words: []said{{0, works}}, want: 2 * time.Minute, why: "idle"},
		"ten seconds after the last work on its node": {
			idle: 10 * time.Second, words: []said{{0, works}, {30 * time.Second, Word{Heard: true, LastWork: time.Unix(0, 0)}}}, want: 30 * time.Second, why: "idle",
		},
		"a scheduler that goes away": {
			idle: 10 * time.Second, words: []said{{0, works}, {5 * time.Second, Word{}}}, want: 10 * time.Second, why: "idle",
		},
		"a scheduler that goes away late": {
			idle: 10 * time.Second, words: []said{{0, works}, {time.Minute, Word{}}}, want: time.Minute, why: "idle",
		},
		"asked to leave":                  {idle: 10 * time.Second, words: []said{{0, works}, {40 * time.Second, Word{Heard: true, Leave: true}}}, want: 40 * time.Second, why: "yielded"},
		"asked before it began":           {idle: 10 * time.Second, words: []said{{0, Word{Heard: true, Leave: true}}}, why: "yielded"},
		"it waits for ever, but is asked": {words: []said{{0, works}, {time.Hour, Word{Heard: true, Leave: true}}}, want: time.Hour, why: "yielded"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, scheduler := config("true"), newScript(Word{})
				c.IdleTimeout, c.Stay = tc.idle, 2*time.Minute
				if !tc.none {
					c.Scheduler = scheduler
				}
				for i, said := range tc.words {
					if i == 0 && said.after == 0 {
						scheduler.says(said.word)
						continue
					}
					time.AfterFunc(said.after, func() { scheduler.says(said.word) })
				}
				begin := time.Now()
				summary, err := Run(t.Context(), c, newQueue(), begin)
				if took := time.Since(begin); err != nil || took != tc.want || summary.Ended != tc.why {
					t.Errorf("left after %s, %s, %v; want after %s, %s", took, summary.Ended, err, tc.want, tc.why)
				}
			})
		})
	}
}

// A worker that is asked to leave cancels its consumer before anything else; what was delivered meanwhile is worked on.
func TestNoMessageIsLost(t *testing.T) {
	leave := Word{Heard: true, Leave: true, Reason: "a pod needs the room"}
	t.Run("while it waits", func(t *testing.T) {
		q, scheduler := newQueue(), newScript(leave)
		q.late = sample("late")
		c := config("true")
		c.Scheduler, c.MaxMessages = scheduler, 0
		summary, err := Run(t.Context(), c, q, time.Now())
		if err != nil || summary.Succeeded != 1 || summary.Ended != "yielded" {
			t.Errorf("%+v, %v", summary, err)
		}
		if diff := cmp.Diff([]string{"leave", "ack"}, q.log); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]State{Idle, Leaving, Busy}, scheduler.said); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("while it works", func(t *testing.T) {
		q, scheduler := newQueue(), newScript(Word{Heard: true})
		q.send("first")
		q.send("second") // stays in the queue
		c := config("true")
		c.Scheduler, c.MaxMessages = scheduler, 0
		scheduler.onSay = func(state State) {
			if state == Busy {
				scheduler.says(leave)
			}
		}
		summary, err := Run(t.Context(), c, q, time.Now())
		if err != nil || summary.Messages != 1 || summary.Ended != "yielded" {
			t.Errorf("%+v, %v", summary, err)
		}
		if diff := cmp.Diff([]string{"leave", "ack"}, q.log); diff != "" {
			t.Error(diff) // a consumer until the ack would have been given the second one
		}
	})
	t.Run("taken back while it works", func(t *testing.T) {
		q, scheduler := newQueue(), newScript(Word{Heard: true})
		q.send("first")
		c := config("true")
		c.Scheduler, c.MaxMessages = scheduler, 2
		q.ack = func() {
			if len(q.log) == 1 {
				q.send("second")
			}
		}
		scheduler.onSay = func(state State) {
			if state == Busy {
				scheduler.says(leave)
				scheduler.says(Word{Heard: true})
			}
		}
		summary, err := Run(t.Context(), c, q, time.Now())
		if err != nil || summary.Messages != 2 || summary.Ended != "messages" {
			t.Errorf("%+v, %v", summary, err)
		}
	})
}
