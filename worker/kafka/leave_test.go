package kafka_test

import (
	"sync"
	"testing"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// sender is a scheduler that asks a worker to leave when it is in a state.
type sender struct {
	when    worker.State
	mu      sync.Mutex
	word    worker.Word
	changed chan struct{}
}

func newSender(when worker.State) *sender {
	return &sender{when: when, word: worker.Word{Heard: true}, changed: make(chan struct{})}
}

func (s *sender) Say(state worker.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == s.when && !s.word.Leave {
		s.word = worker.Word{Heard: true, Leave: true}
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

func (s *sender) Word() (worker.Word, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.word, s.changed
}

// A worker that is asked to leave commits the record that it works on, and leaves the next one to others.
func TestLeave(t *testing.T) {
	b := newBench(t, 1)
	b.produce(t, 0, "one", "two")
	busy := b.job("cat")
	busy.MaxMessages, busy.Scheduler = 0, newSender(worker.Busy)
	busy.mustRun(t, worker.Summary{Messages: 1, Succeeded: 1, Ended: "yielded"})
	if at := b.committed(t, 0); at != 1 {
		t.Errorf("committed %d, want 1", at)
	}
	idle := b.job("cat")
	idle.MaxMessages, idle.Scheduler = 0, newSender(worker.Idle)
	summary, err := idle.run(t.Context())
	if err != nil || summary.Ended != "yielded" || summary.Messages != summary.Succeeded {
		t.Errorf("%+v, %v", summary, err)
	}
	if at := b.committed(t, 0); at != int64(1+summary.Messages) {
		t.Errorf("committed %d after %d more records", at, summary.Messages)
	}
	if summary.Messages == 0 {
		b.job("cat").mustRun(t, worker.Summary{Messages: 1, Succeeded: 1, Ended: "messages"})
	}
	for _, want := range []string{"one", "two"} {
		if r := b.result(t); r.GetText() != want || r.GetAttempt() != 1 {
			t.Errorf("result %q at attempt %d, want %q at the first", r.GetText(), r.GetAttempt(), want)
		}
	}
}
