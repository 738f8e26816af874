package rabbitmq

import (
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/internal/endpoint"
)

var (
	brokerForm = endpoint.Form{
		Name: "the broker's URI", Example: "amqp://user:password@host:5672/vhost", Several: true,
		Otherwise: "use username and password in place of the URI's",
	}
	managementForm = endpoint.Form{
		Name: "managementURI", Example: "https://user:password@host:15671",
		Otherwise: "leave them out where those of uri, or username and password, serve",
	}
)

// address is where a broker is, and who connects to it.
type address struct {
	uris []amqp.URI
	// named is true where the policy names a user. Without one the broker may know a client by its certificate.
	named bool
}

// parseURIs reads a broker's URI with one host or several (amqp://user:password@one:5672,two:5672/vhost).
func parseURIs(text, username, password string) (address, error) {
	uris, err := brokerForm.AMQP(text)
	if err != nil {
		return address{}, err
	}
	parsed, _ := endpoint.Form{Schemes: []string{"amqp", "amqps"}, Several: true}.Parse(text) // as it was just read
	for i := range uris {
		if username != "" {
			uris[i].Username = username
		}
		if password != "" {
			uris[i].Password = password
		}
	}
	return address{uris: uris, named: parsed.User != nil || username != ""}, nil
}
