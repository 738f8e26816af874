package scans

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// Settlements records where messages end: among the results, or among the dead letters.
type Settlements struct {
	mu      sync.Mutex
	sent    int
	results map[string][]End // by the scan's id
	waits   []scanWait

	consumers []consumer
	consuming sync.WaitGroup
}

// consumer is one of a queue, known to the channel by its queue's name.
type consumer struct {
	channel *amqp.Channel
	queue   string
}

// scanWait is how long a scan waited.
type scanWait struct {
	id   string
	wait time.Duration
}

// End is one end of a message.
type End struct {
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

// Collect records what arrives in the queues of results and dead letters while the connection is open.
func Collect(connection *amqp.Connection) (*Settlements, error) {
	return CollectFrom(connection, DefaultTopology.Ends())
}

// CollectFrom records what arrives in some queues, of which those that are true hold dead letters.
func CollectFrom(connection *amqp.Connection, queues map[string]bool) (*Settlements, error) {
	s := &Settlements{results: map[string][]End{}}
	return s, s.consume(connection, queues)
}

func (s *Settlements) consume(connection *amqp.Connection, queues map[string]bool) error {
	for queue, dead := range queues {
		channel, err := connection.Channel()
		if err != nil {
			return err
		}
		deliveries, err := channel.Consume(queue, queue, true, false, false, false, nil)
		if err != nil {
			return err
		}
		s.consumers = append(s.consumers, consumer{channel, queue})
		s.consuming.Go(func() {
			for delivery := range deliveries {
				s.settle(delivery, dead)
			}
		})
	}
	return nil
}

// Pause ends the recording with what the broker has sent, so that none of it is lost with the broker.
func (s *Settlements) Pause() error {
	for _, c := range s.consumers {
		if err := c.channel.Cancel(c.queue, false); err != nil {
			return err
		}
	}
	s.consumers = nil
	s.consuming.Wait()
	return nil
}

// Resume records again after Pause, over another connection, from the queues of Collect.
func (s *Settlements) Resume(connection *amqp.Connection) error {
	return s.consume(connection, DefaultTopology.Ends())
}

func (s *Settlements) settle(delivery amqp.Delivery, dead bool) {
	id, e := delivery.MessageId, End{Dead: dead}
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
		s.waits = append(s.waits, scanWait{id, o.Started.Sub(o.Published)})
	}
}

// Published counts a message that was sent.
func (s *Settlements) Published() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
}

// Done is the number of messages that have an end.
func (s *Settlements) Done() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.results)
}

// Open is the number of messages that are neither done nor dead.
func (s *Settlements) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent - len(s.results)
}

// Sent is the number of messages that were published.
func (s *Settlements) Sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// Ends are the ends of each message so far, by its id.
func (s *Settlements) Ends() map[string][]End {
	s.mu.Lock()
	defer s.mu.Unlock()
	ends := make(map[string][]End, len(s.results))
	for id, list := range s.results {
		ends[id] = slices.Clone(list)
	}
	return ends
}

// Waits are the times from the publishing of messages to the starts of their scans, as far as scans told them.
func (s *Settlements) Waits() []time.Duration {
	return s.WaitsOf(func(string) bool { return true })
}

// WaitsOf are the waits of those scans whose ids belong.
func (s *Settlements) WaitsOf(belongs func(id string) bool) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var waits []time.Duration
	for _, w := range s.waits {
		if belongs(w.id) {
			waits = append(waits, w.wait)
		}
	}
	return waits
}
