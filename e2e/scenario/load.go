package scenario

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

// scan is the body of a message: what a scan service would get, and how long this scan is to take.
type scan struct {
	ID         string  `json:"id"`
	Repository string  `json:"repository"`
	Seconds    float64 `json:"seconds"`
	// ExitCode that the scanner is to end with, and the number of earlier deliveries from which on it succeeds.
	ExitCode   int   `json:"exitCode,omitempty"`
	SucceedsAt int64 `json:"succeedsAt,omitempty"`
	// Published is when the message was sent.
	Published time.Time `json:"published"`
}

// arrival is a scan and when it is asked for, from the start of the morning.
type arrival struct {
	after time.Duration
	scan  scan
}

// Morning is the load of a demo: a trickle all along, one burst when people arrive and a larger one before noon.
const (
	trickleMessages = 60
	firstBurst      = 60
	secondBurst     = 80
	morningMessages = trickleMessages + firstBurst + secondBurst

	morningLength    = 75 * time.Second
	firstBurstAfter  = 15 * time.Second
	secondBurstAfter = 50 * time.Second
	burstLength      = 4 * time.Second
)

// morning returns arrivals in the order of time. Scan times are log-normal, median 5 s, with a tail up to 20 s: most
// repositories are small.
func morning(random *rand.Rand) []arrival {
	arrivals := make([]arrival, 0, morningMessages)
	add := func(n int, from, length time.Duration) {
		for range n {
			seconds := min(20, max(1, 5*math.Exp(0.6*random.NormFloat64())))
			arrivals = append(arrivals, arrival{
				after: from + time.Duration(random.Float64()*float64(length)),
				scan:  scan{Seconds: math.Round(seconds*100) / 100},
			})
		}
	}
	add(trickleMessages, 0, morningLength)
	add(firstBurst, firstBurstAfter, burstLength)
	add(secondBurst, secondBurstAfter, burstLength)
	slices.SortFunc(arrivals, func(a, b arrival) int { return int(a.after - b.after) })
	for i := range arrivals {
		arrivals[i].scan.ID = fmt.Sprintf("scan-%03d", i)
		arrivals[i].scan.Repository = fmt.Sprintf("git@code.example:team-%d/service-%d", i%7, i%23)
	}
	return arrivals
}

const (
	queueScans   = "scans"
	queueResults = "scan-results"
	queueDead    = "scan-dead"
	// exchangeResults takes results, exchangeDead the messages that can't be scanned.
	exchangeResults = "scan-results"
	exchangeDead    = "scan-dead"
)

// declareTopology makes the queues and exchanges of a scan service. Scans that fail five times are dead-lettered.
func declareTopology(uri string) error {
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
	for exchange, queue := range map[string]string{exchangeResults: queueResults, exchangeDead: queueDead} {
		if err := channel.ExchangeDeclare(exchange, amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
			return err
		}
		if _, err := channel.QueueDeclare(queue, true, false, false, false, quorum(nil)); err != nil {
			return err
		}
		if err := channel.QueueBind(queue, "", exchange, false, nil); err != nil {
			return err
		}
	}
	_, err = channel.QueueDeclare(queueScans, true, false, false, false, quorum(amqp.Table{
		"x-delivery-limit": 5, "x-dead-letter-exchange": exchangeDead,
	}))
	return err
}

// publisher sends scans and counts what the broker confirmed.
type publisher struct{ channel *amqp.Channel }

func newPublisher(connection *amqp.Connection) (*publisher, error) {
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	return &publisher{channel}, channel.Confirm(false)
}

// publish sends a scan to the queue of scans, and returns once the broker has it.
func (p *publisher) publish(ctx context.Context, s scan) error {
	return p.publishTo(ctx, queueScans, s)
}

func (p *publisher) publishTo(ctx context.Context, queue string, s scan) error {
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

// play publishes arrivals at their times and reports each.
func (p *publisher) play(ctx context.Context, arrivals []arrival, published func(scan)) error {
	start := time.Now()
	for _, a := range arrivals {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Until(start.Add(a.after))):
		}
		if err := p.publish(ctx, a.scan); err != nil {
			return fmt.Errorf("publish %s: %w", a.scan.ID, err)
		}
		published(a.scan)
	}
	return nil
}
