package topology_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/worker/topology"
)

const definitions = `{
  "policies": [{"name": "scans", "pattern": "^scans$", "apply-to": "queues", "priority": 10,
    "definition": {"delivery-limit": 1, "dead-letter-exchange": "scans.dead"}}],
  "exchanges": [{"name": "scans", "type": "fanout", "durable": true}, {"name": "scans.dead", "type": "fanout", "durable": true}],
  "queues": [
    {"name": "scans", "durable": true, "arguments": {"x-queue-type": "quorum"}},
    {"name": "scans.dead", "durable": true, "arguments": {"x-queue-type": "quorum"}}],
  "bindings": [
    {"source": "scans", "destination": "scans", "destination_type": "queue"},
    {"source": "scans.dead", "destination": "scans.dead", "destination_type": "queue"}]
}`

func TestRead(t *testing.T) {
	for text, want := range map[string]string{
		definitions:          "",
		`{"queue": []}`:      `unknown field "queue"`,
		`{"bindings": [{}]}`: `bindings[0].destination_type is ""`,
	} {
		_, err := topology.Read(strings.NewReader(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

// What is declared works, in a virtual host with a slash as its name: a message that is requeued too often becomes a dead letter.
func TestIntegrationApply(t *testing.T) {
	b := rabbitmq.StartForTest(t)
	management, err := url.Parse(b.ManagementURL())
	if err != nil {
		t.Fatal(err)
	}
	broker := topology.Broker{Client: http.DefaultClient, Management: management, VHost: "/"}
	apply := func(text string) error {
		t.Helper()
		d, err := topology.Read(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return broker.Apply(t.Context(), d)
	}
	for range 2 {
		if err := apply(definitions); err != nil {
			t.Fatal(err)
		}
	}
	// What the broker is too old for is left out, and said. Debian's is.
	var warned string
	broker.Warn = func(text string) { warned = text }
	if err := apply(strings.Replace(definitions, `"delivery-limit": 1`, `"consumer-timeout": 7800000, "delivery-limit": 1`, 1)); err != nil {
		t.Error(err)
	}
	if warned != "" && !strings.Contains(warned, "set consumer_timeout in its rabbitmq.conf") {
		t.Errorf("warning %q", warned)
	}
	// A limit that nobody reaches is one that every broker takes; -1, for none, is not.
	if err := apply(strings.Replace(definitions, `"delivery-limit": 1`, `"delivery-limit": 1000000`, 1)); err != nil {
		t.Error(err)
	}
	if err := apply(strings.Replace(definitions, `"delivery-limit": 1`, `"no-such-setting": 1`, 1)); !topology.Refused(err) {
		t.Errorf("error %v of a policy that no broker knows", err)
	}
	if err := apply(definitions); err != nil {
		t.Fatal(err)
	}
	connection, err := amqp.Dial(b.AMQPURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	dead, err := channel.Consume("scans.dead", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := channel.Consume("scans", "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := channel.PublishWithContext(t.Context(), "scans", "", true, false, amqp.Publishing{Body: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first delivery, and the one that the limit allows
		if err := (<-deliveries).Nack(false, true); err != nil {
			t.Fatal(err)
		}
	}
	if letter := <-dead; string(letter.Body) != "one" {
		t.Errorf("dead letter %q", letter.Body)
	}

	for text, want := range map[string]string{
		strings.Replace(definitions, `"delivery-limit": 1`, `"delivery-limit": 7`, 1):        "", // changed in use
		strings.Replace(definitions, `"quorum"}},`, `"classic"}},`, 1):                       `queue "scans": the broker refuses it: inequivalent arg 'x-queue-type'`,
		strings.Replace(definitions, `"type": "fanout"`, `"type": "topic"`, 1):               `exchange "scans": the broker refuses it: inequivalent arg 'type'`,
		strings.Replace(definitions, `"destination": "scans",`, `"destination": "lost",`, 1): `binding of exchange "scans" to queue "lost": virtual host "/", or something that it names, is not there`,
		strings.Replace(definitions, `"delivery-limit": 1`, `"delivery-limit": "many"`, 1):   `policy "scans": the broker refuses it`,
	} {
		if err := apply(text); (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !topology.Refused(err)) {
			t.Errorf("error %v, want one that stays: %q", err, want)
		}
	}
	broker.Management.User = url.UserPassword("guest", "secret")
	if err := apply(definitions); err == nil || !strings.Contains(err.Error(), `user "guest" is not let in`) || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v, want that the user is not let in, without the password", err)
	}
}
