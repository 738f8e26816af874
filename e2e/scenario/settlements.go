package scenario

import (
	"encoding/json"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
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

// outcome is the body of a result, or of a dead letter, which has no start.
type outcome struct {
	ID        string    `json:"id"`
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
	var o outcome
	if err := json.Unmarshal(delivery.Body, &o); err != nil || o.ID == "" {
		o.ID = delivery.MessageId
	}
	e := end{Dead: dead}
	e.Reason, _ = delivery.Headers["ebbtide-reason"].(string)
	e.Deliveries, _ = delivery.Headers["ebbtide-delivery-count"].(int64)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[o.ID] = append(s.results[o.ID], e)
	if !o.Started.IsZero() {
		s.waits = append(s.waits, o.Started.Sub(o.Published))
	}
}

func (s *settlements) published() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
}

// open is the number of messages that are neither done nor dead.
func (s *settlements) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent - len(s.results)
}
