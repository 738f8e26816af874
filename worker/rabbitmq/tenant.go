package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// Tenants are held back without a coordinator: the broker counts. A worker that has a message of a tenant first consumes from the tenant's
// queue, which never has a message, and then asks how many consumers that queue has. A worker that sees no more than the limit runs the scan, and
// stays a consumer until the message is acked. The last of those to begin saw all the others, so they are never more than the limit; two that
// begin at once may both step back. A worker that dies is no longer a consumer. Scans run uncounted only if the broker loses the queue with its node.
//
// A message that is held back waits in a retry queue and comes again behind what waits; it is no attempt, and no message of a worker's.

// tenantHeader names whose message it is.
const tenantHeader = "tenant"

// heldHeader counts how often a message was held back.
const heldHeader = "ebbtide-held"

// tenantQueueExpires is after how long without consumers the broker removes a tenant's queue.
const tenantQueueExpires = 10 * time.Minute

// tenantName is what a tenant's queue can be named after.
var tenantName = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._]{0,62}$`)

// TenantQueue is the name of the queue whose consumers are the scans of a tenant; a hash where that is longer than a name may be.
func TenantQueue(queue, tenant string) string {
	return worker.Identity(queue+".tenant."+tenant, worker.MaxIDBytes)
}

// tenant of a message. All that name none, or what is no name, have one limit together.
func tenant(delivery *amqp.Delivery) string {
	name, _ := delivery.Headers[tenantHeader].(string)
	if !tenantName.MatchString(name) {
		return "none"
	}
	return name
}

// tenantArguments are those of a tenant's queue. It is a classic one, which is there as soon as it is declared: a quorum queue has no leader for a
// moment, and the broker ends the connection of a client that asks meanwhile.
func tenantArguments() amqp.Table {
	return amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic, amqp.QueueTTLArg: tenantQueueExpires.Milliseconds()}
}

// slot makes the worker one of those that scan for a tenant, and returns the channel that keeps it one; nil when the limit is reached.
func (q *queue) slot(tenant string) (*amqp.Channel, error) {
	channel, err := q.connection.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	name := TenantQueue(q.config.Queue, tenant)
	state, err := channel.QueueDeclare(name, true, false, false, false, tenantArguments())
	if err == nil {
		_, err = channel.Consume(name, q.config.ConsumerTag, true, false, false, false, nil)
	}
	if err == nil {
		state, err = channel.QueueDeclarePassive(name, true, false, false, false, nil)
	}
	if err != nil || state.Consumers > q.config.TenantLimit {
		_ = channel.Close() // the broker may have
		return nil, err
	}
	return channel, nil
}

// admit reports whether the current message may be worked on now. If its tenant has as many scans as it may, the message is held back.
func (q *queue) admit(ctx context.Context, delivery *amqp.Delivery) (bool, error) {
	if q.config.TenantLimit == 0 {
		return true, nil
	}
	slot, err := q.slot(tenant(delivery))
	var refused *amqp.Error
	if errors.As(err, &refused) && !q.connection.IsClosed() {
		// Better without the limit than not at all.
		q.config.Log.Warn("the limit of a tenant is not kept: its queue can't be used; let the user configure, write and read queues of this name",
			"queue", TenantQueue(q.config.Queue, tenant(delivery)), "error", err)
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask how many scans tenant %q has: %w", tenant(delivery), err)
	}
	if slot != nil {
		q.tenantSlot = slot
		return true, nil
	}
	held := number(delivery.Headers[heldHeader])
	delay := q.config.TenantDelays[min(held, len(q.config.TenantDelays)-1)]
	headers := amqp.Table{heldHeader: int64(held + 1), routingKeyHeader: routingKey(delivery)}
	if before := attemptsBefore(delivery); before > 0 {
		headers[attemptHeader] = int64(before)
	}
	if reason, ok := delivery.Headers[reasonHeader].(string); ok {
		headers[reasonHeader] = reason
	}
	q.config.Log.Info("a message is held back: its tenant has as many scans as it may", "message", delivery.MessageId, "delay", delay.String())
	if waits, err := q.sendToRetry(ctx, delivery, delay, headers); err != nil || waits {
		return false, err
	}
	return true, nil // it has no place to wait in, and the log says so
}

// endSlot ends what admit began.
func (q *queue) endSlot() {
	if q.tenantSlot != nil {
		// Closing alone lets go of it some time later. What fails here has ended already.
		_ = q.tenantSlot.Cancel(q.config.ConsumerTag, false)
		_ = q.tenantSlot.Close()
		q.tenantSlot = nil
	}
}

// attemptsBefore are those that a message has had.
func attemptsBefore(delivery *amqp.Delivery) int {
	n := number(delivery.Headers[attemptHeader])
	if delivery.Redelivered {
		// The queue says how often it has delivered the message since it was sent last. At first it may be the producer who says so.
		n += max(number(delivery.Headers["x-delivery-count"]), number(delivery.Headers["x-acquired-count"]))
	}
	return n
}
