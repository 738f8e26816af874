package rabbitmq

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/worker"
)

// The headers that workers add to a message that they send again.
const (
	reasonHeader     = "ebbtide-reason"
	resultHeader     = "ebbtide-result"
	attemptHeader    = "ebbtide-attempt"     // attempts before this one
	routingKeyHeader = "ebbtide-routing-key" // the producer's, which a retry queue replaces
	forwardedHeader  = "ebbtide-forwarded"   // the queue that it was forwarded to, because it ran out of memory
	droppedHeader    = "ebbtide-dropped"     // names of headers that did not fit beside these
)

// brokerHeader reports whether a header is the broker's, which it must not see again: a message that seems to go round in circles is dropped without
// a word, and CC and BCC send it to queues that nobody asked for a second time.
func brokerHeader(name string) bool {
	switch name {
	case "x-delivery-count", "x-acquired-count", "x-death", "CC", "BCC":
		return true
	}
	return strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-")
}

// republished is a delivery as it is sent again, with headers of the worker's. Whatever is in it, it fits into a frame: what is too long
// goes, the result first, then the longest of the producer's headers, whose names stay.
func republished(delivery *amqp.Delivery, added amqp.Table, frame int) amqp.Publishing {
	own := amqp.Table{}
	maps.Copy(own, delivery.Headers)
	maps.DeleteFunc(own, func(name string, value any) bool {
		return brokerHeader(name) || workersHeader(name) || !encodable(value)
	})
	p := amqp.Publishing{
		DeliveryMode: amqp.Persistent, Body: delivery.Body,
		ContentType: delivery.ContentType, ContentEncoding: delivery.ContentEncoding, Priority: delivery.Priority,
		CorrelationId: delivery.CorrelationId, ReplyTo: delivery.ReplyTo, MessageId: delivery.MessageId,
		Timestamp: delivery.Timestamp, Type: delivery.Type, AppId: delivery.AppId,
	}
	// A frame has 8 bytes around a content header, which has 14 before its properties.
	room := frame - 8 - 14 - propertyBytes(&p)
	added = maps.Clone(added)
	if reason, ok := added[reasonHeader].(string); ok && tableBytes(added)+tableBytes(own) > room {
		delete(added, resultHeader)
		if tableBytes(added)+tableBytes(own) > room {
			added[reasonHeader] = strings.ToValidUTF8(reason[:min(len(reason), 500)], "")
		}
	}
	size := tableBytes(own)
	var names []byte
	for _, longest := range longestFirst(own) {
		if size+tableBytes(added) <= room {
			break
		}
		delete(own, longest.name)
		size -= longest.bytes
		if len(names) > 0 {
			names = append(names, ',')
		}
		names = append(names, worker.Identity(longest.name, 64)...)
		names = names[:min(len(names), 500)]
		added[droppedHeader] = string(names)
	}
	maps.Copy(own, added)
	p.Headers = own
	return p
}

type sized struct {
	name  string
	bytes int
}

// longestFirst are the entries of a table. They may be tens of thousands.
func longestFirst(table amqp.Table) []sized {
	entries := make([]sized, 0, len(table))
	for name, value := range table {
		entries = append(entries, sized{name, entryBytes(name, value)})
	}
	slices.SortFunc(entries, func(a, b sized) int { return cmp.Or(cmp.Compare(b.bytes, a.bytes), strings.Compare(a.name, b.name)) })
	return entries
}

// workersHeader reports whether a header of a message that was sent again is this package's, and not the producer's.
func workersHeader(name string) bool {
	switch name {
	case reasonHeader, resultHeader, attemptHeader, routingKeyHeader, droppedHeader, heldHeader:
		return true
	}
	return false
}

// encodable reports whether the client can send a value that it has received.
func encodable(value any) bool { return amqp.Table{"": value}.Validate() == nil }

// propertyBytes is how long the properties of a message are, without its headers.
func propertyBytes(p *amqp.Publishing) int {
	n := 2 + 1 + 1 + 8 // which there are, delivery mode, priority, timestamp
	for _, text := range []string{p.ContentType, p.ContentEncoding, p.CorrelationId, p.ReplyTo, p.MessageId, p.Type, p.AppId} {
		n += 1 + len(text)
	}
	return n
}

func tableBytes(table amqp.Table) int {
	n := 4
	for name, value := range table {
		n += entryBytes(name, value)
	}
	return n
}

func entryBytes(name string, value any) int { return 1 + len(name) + fieldBytes(value) }

// fieldBytes is how long a value is on the wire, its type included.
func fieldBytes(value any) int {
	switch v := value.(type) {
	case nil:
		return 1
	case bool, int8, byte:
		return 2
	case int16, uint16:
		return 3
	case int, int32, uint32, float32:
		return 5
	case amqp.Decimal:
		return 6
	case int64, float64, time.Time:
		return 9
	case string:
		return 5 + len(v)
	case []byte:
		return 5 + len(v)
	case []any:
		n := 5
		for _, element := range v {
			n += fieldBytes(element)
		}
		return n
	case amqp.Table:
		return 1 + tableBytes(v)
	default:
		return 0 // of what can't be sent
	}
}
