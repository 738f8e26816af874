package scans

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Scan is the body of a message: what a scan service would get, and how long this scan is to take.
type Scan struct {
	ID         string  `json:"id"`
	Repository string  `json:"repository"`
	Seconds    float64 `json:"seconds"`
	// ExitCode that the scanner is to end with, and the number of earlier deliveries from which on it succeeds.
	ExitCode   int   `json:"exitCode,omitempty"`
	SucceedsAt int64 `json:"succeedsAt,omitempty"`
	// Published is when the message was sent.
	Published time.Time `json:"published"`
}

// Arrival is a scan and when it is asked for, from the start of the morning.
type Arrival struct {
	After time.Duration
	Scan  Scan
}

// Morning is the load of a demo: a trickle all along, one burst when people arrive and a larger one before noon.
const (
	trickleMessages = 60
	firstBurst      = 60
	secondBurst     = 80
	MorningMessages = trickleMessages + firstBurst + secondBurst

	morningLength    = 75 * time.Second
	firstBurstAfter  = 15 * time.Second
	secondBurstAfter = 50 * time.Second
	burstLength      = 4 * time.Second
)

// morning returns arrivals in the order of time. Scan times are log-normal, median 5 s, with a tail up to 20 s: most
// repositories are small.
func morning(random *rand.Rand) []Arrival {
	arrivals := make([]Arrival, 0, MorningMessages)
	add := func(n int, from, length time.Duration) {
		for range n {
			seconds := min(20, max(1, 5*math.Exp(0.6*random.NormFloat64())))
			arrivals = append(arrivals, Arrival{
				After: from + time.Duration(random.Float64()*float64(length)),
				Scan:  Scan{Seconds: math.Round(seconds*100) / 100},
			})
		}
	}
	add(trickleMessages, 0, morningLength)
	add(firstBurst, firstBurstAfter, burstLength)
	add(secondBurst, secondBurstAfter, burstLength)
	slices.SortFunc(arrivals, func(a, b Arrival) int { return int(a.After - b.After) })
	for i := range arrivals {
		arrivals[i].Scan.ID = fmt.Sprintf("scan-%03d", i)
		arrivals[i].Scan.Repository = fmt.Sprintf("git@code.example:team-%d/service-%d", i%7, i%23)
	}
	return arrivals
}

// The queues of a scan service, and the exchanges that take results and the messages that can't be scanned.
const (
	QueueScans      = "scans"
	QueueResults    = "scan-results"
	QueueDead       = "scan-dead"
	ExchangeResults = "scan-results"
	ExchangeDead    = "scan-dead"
)

// Topology names the queues of a scan service. Those of results and of dead letters have exchanges with the same names.
type Topology struct{ Scans, Results, Dead string }

// DefaultTopology is that of the demo.
var DefaultTopology = Topology{QueueScans, QueueResults, QueueDead}

// Ends are the queues that messages end in, for CollectFrom.
func (t Topology) Ends() map[string]bool { return map[string]bool{t.Results: false, t.Dead: true} }

// Declare makes the queues and exchanges. Scans that fail five times are dead-lettered.
func (t Topology) Declare(uri string) error {
	connection, err := amqp.Dial(uri)
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	quorum := func(more amqp.Table) amqp.Table {
		table := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}
		for key, value := range more {
			table[key] = value
		}
		return table
	}
	for _, queue := range []string{t.Results, t.Dead} {
		if err := channel.ExchangeDeclare(queue, amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
			return err
		}
		if _, err := channel.QueueDeclare(queue, true, false, false, false, quorum(nil)); err != nil {
			return err
		}
		if err := channel.QueueBind(queue, "", queue, false, nil); err != nil {
			return err
		}
	}
	_, err = channel.QueueDeclare(t.Scans, true, false, false, false, quorum(amqp.Table{
		"x-delivery-limit": 5, "x-dead-letter-exchange": t.Dead,
	}))
	return err
}

// Publisher sends scans and counts what the broker confirmed.
type Publisher struct{ channel *amqp.Channel }

// NewPublisher returns a publisher on a channel of its own.
func NewPublisher(connection *amqp.Connection) (*Publisher, error) {
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	return &Publisher{channel}, channel.Confirm(false)
}

// Publish sends a scan to the queue of scans, and returns once the broker has it.
func (p *Publisher) Publish(ctx context.Context, s Scan) error {
	return p.PublishTo(ctx, QueueScans, s)
}

// PublishTo sends a scan to any queue, and returns once the broker has it.
func (p *Publisher) PublishTo(ctx context.Context, queue string, s Scan) error {
	s.Published = time.Now()
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	confirmation, err := p.channel.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, amqp.Publishing{
		ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: s.ID, Timestamp: s.Published, Body: body,
	})
	if err != nil {
		return err
	}
	confirmed, err := confirmation.WaitContext(ctx)
	if err == nil && !confirmed {
		err = fmt.Errorf("the broker refused message %s", s.ID)
	}
	return err
}

// Play publishes arrivals to a queue at their times and reports each.
func (p *Publisher) Play(ctx context.Context, queue string, arrivals []Arrival, published func(Scan)) error {
	start := time.Now()
	for _, a := range arrivals {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Until(start.Add(a.After))):
		}
		if err := p.PublishTo(ctx, queue, a.Scan); err != nil {
			return fmt.Errorf("publish %s: %w", a.Scan.ID, err)
		}
		published(a.Scan)
	}
	return nil
}
