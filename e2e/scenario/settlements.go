package scenario

import (
	"encoding/json"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// settlements records where messages end: among the results, or among the dead letters.
type settlements struct {
	mu      sync.Mutex
	sent    int
	results map[string][]end // by the scan's id
	waits   []time.Duration
}

// end is one end of a message.
type end struct {
	// Dead is true of a dead letter, false of a result.
	Dead bool
	// Reason that a worker gave for a dead letter; the broker gives none.
	Reason string
	// Deliveries before the one that ended it.
	Deliveries int64
}

// outcome is what a scan prints.
type outcome struct {
	Published time.Time `json:"published"`
	Started   time.Time `json:"started"`
}

// collect records what arrives in the queues of results and dead letters while the connection is open.
func collect(connection *amqp.Connection) (*settlements, error) {
	s := &settlements{results: map[string][]end{}}
	for _, queue := range []string{queueResults, queueDead} {
		channel, err := connection.Channel()
		if err != nil {
			return nil, err
		}
		deliveries, err := channel.Consume(queue, "", true, false, false, false, nil)
		if err != nil {
			return nil, err
		}
		go func() {
			for delivery := range deliveries {
				s.settle(delivery, queue == queueDead)
			}
		}()
	}
	return s, nil
}

func (s *settlements) settle(delivery amqp.Delivery, dead bool) {
	id, e := delivery.MessageId, end{Dead: dead}
	var o outcome
	if dead {
		e.Reason, _ = delivery.Headers["ebbtide-reason"].(string)
	} else {
		result, err := results.Unmarshal(delivery.ContentType, delivery.Body)
		if err != nil {
			id = err.Error() // no scan that anybody waits for
		} else if result.GetStatus() == resultsv1alpha1.Status_STATUS_FAILED {
			return // it is among the dead letters too
		}
		e.Deliveries = int64(result.GetAttempt()) - 1
		_ = json.Unmarshal([]byte(result.GetText()), &o) // without a start there is no wait
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[id] = append(s.results[id], e)
	if !o.Started.IsZero() {
		s.waits = append(s.waits, o.Started.Sub(o.Published))
	}
}

func (s *settlements) published() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
}

// done is the number of messages that have an end.
func (s *settlements) done() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.results)
}

// open is the number of messages that are neither done nor dead.
func (s *settlements) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent - len(s.results)
}
