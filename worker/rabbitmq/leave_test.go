package rabbitmq_test

import (
	"sync"
	"testing"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// hasty is a scheduler that asks a worker to leave as soon as it waits for a message.
type hasty struct {
	mu      sync.Mutex
	word    worker.Word
	changed chan struct{}
}

func (h *hasty) Say(state worker.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if state == worker.Idle && !h.word.Leave {
		h.word = worker.Word{Heard: true, Leave: true, Reason: "a pod needs the room"}
		close(h.changed)
		h.changed = make(chan struct{})
	}
}

func (h *hasty) Word() (worker.Word, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.word, h.changed
}

// Workers are asked to leave while messages are delivered to them: each message is scanned once, at the first attempt.
func leaveWhileMessagesCome(t *testing.T, b *bench) {
	t.Helper()
	bodies := make([]string, 20)
	for i := range bodies {
		bodies[i] = string(rune('a' + i))
	}
	b.publish(t, bodies...)
	scanned := 0
	for range 500 {
		if scanned == len(bodies) {
			break
		}
		j := b.job("cat")
		j.MaxMessages, j.Scheduler = 0, &hasty{word: worker.Word{Heard: true}, changed: make(chan struct{})}
		summary, err := j.run(t.Context())
		if err != nil || summary.Ended != "yielded" || summary.Retried > 0 || summary.Succeeded != summary.Messages {
			t.Fatalf("%+v, %v", summary, err)
		}
		scanned += summary.Messages
	}
	if scanned != len(bodies) {
		t.Errorf("%d messages were scanned, want %d", scanned, len(bodies))
	}
	b.await(t, "scans", 0, 0)
	seen := map[string]bool{}
	for range bodies {
		r := b.result(t)
		if r.GetAttempt() != 1 || seen[r.GetText()] {
			t.Errorf("message %q was scanned before: attempt %d", r.GetText(), r.GetAttempt())
		}
		seen[r.GetText()] = true
	}
}
