// Package topology declares the exchanges, queues, bindings and policies that workers need, by RabbitMQ's management API. Of what exists, it changes
// only policies: a queue with other arguments is an error, and what is not asked for any more
// stays, because messages may be in it.
package topology

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// Definitions are those of RabbitMQ's own export of a virtual host, as far as they concern workers.
type Definitions struct {
	Policies  []Policy   `json:"policies,omitempty"`
	Exchanges []Exchange `json:"exchanges,omitempty"`
	Queues    []Queue    `json:"queues,omitempty"`
	Bindings  []Binding  `json:"bindings,omitempty"`
}

// Policy holds arguments that can be changed while queues are in use.
type Policy struct {
	Name       string         `json:"name"`
	Pattern    string         `json:"pattern"`
	ApplyTo    string         `json:"apply-to"`
	Priority   int            `json:"priority"`
	Definition map[string]any `json:"definition"`
}

// Exchange routes messages to queues.
type Exchange struct {
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Durable    bool           `json:"durable"`
	AutoDelete bool           `json:"auto_delete"`
	Internal   bool           `json:"internal"`
	Arguments  map[string]any `json:"arguments,omitempty"`
}

// Queue holds messages. Its arguments can't be changed.
type Queue struct {
	Name       string         `json:"name"`
	Durable    bool           `json:"durable"`
	AutoDelete bool           `json:"auto_delete"`
	Arguments  map[string]any `json:"arguments,omitempty"`
}

// Binding leads from an exchange to a queue, or to another exchange.
type Binding struct {
	Source          string         `json:"source"`
	Destination     string         `json:"destination"`
	DestinationType string         `json:"destination_type"` // queue or exchange
	RoutingKey      string         `json:"routing_key"`
	Arguments       map[string]any `json:"arguments,omitempty"`
}

// Read reads definitions in JSON. What it does not know is an error, not left out.
func Read(r io.Reader) (Definitions, error) {
	var d Definitions
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return d, fmt.Errorf("the definitions must be JSON with policies, exchanges, queues and bindings: %w", err)
	}
	for i, b := range d.Bindings {
		if b.DestinationType != "queue" && b.DestinationType != "exchange" {
			return d, fmt.Errorf("bindings[%d].destination_type is %q: must be queue or exchange", i, b.DestinationType)
		}
	}
	return d, nil
}

// Broker is the management API of a broker, and a virtual host there.
type Broker struct {
	Client *http.Client
	// Management is the API's base URL with credentials.
	Management *url.URL
	VHost      string
	// Warn is told what the broker does not know and works without; nil: nobody is.
	Warn func(string)
}

// timeoutSetting of a policy is known to brokers from 3.12 on. Those before go by their own configuration.
const timeoutSetting = "consumer-timeout"

// setPolicy declares a policy, without what an older broker does not know.
func (b Broker) setPolicy(ctx context.Context, p Policy) error {
	if len(p.Definition) == 0 {
		return nil
	}
	err := b.send(ctx, http.MethodPut, p, "policies", b.VHost, p.Name)
	if _, has := p.Definition[timeoutSetting]; !has || !Refused(err) || !strings.Contains(err.Error(), "not recognised") {
		return err
	}
	p.Definition = maps.Clone(p.Definition)
	delete(p.Definition, timeoutSetting)
	if err := b.setPolicy(ctx, p); err != nil {
		return err
	}
	if b.Warn != nil {
		b.Warn(fmt.Sprintf("policy %q: the broker is older than 3.12 and knows no %s: set consumer_timeout in its rabbitmq.conf, "+
			"longer than a scan may take; it is 30 minutes else", p.Name, timeoutSetting))
	}
	return nil
}

// Apply declares everything: policies before the queues that they are for, so that no queue is without its limits for a moment. It can
// be repeated.
func (b Broker) Apply(ctx context.Context, d Definitions) error {
	for _, p := range d.Policies {
		if err := b.setPolicy(ctx, p); err != nil {
			return fmt.Errorf("policy %q: %w", p.Name, err)
		}
	}
	for _, e := range d.Exchanges {
		if err := b.send(ctx, http.MethodPut, e, "exchanges", b.VHost, e.Name); err != nil {
			return fmt.Errorf("exchange %q: %w", e.Name, err)
		}
	}
	for _, q := range d.Queues {
		if err := b.send(ctx, http.MethodPut, q, "queues", b.VHost, q.Name); err != nil {
			return fmt.Errorf("queue %q: %w", q.Name, err)
		}
	}
	for _, x := range d.Bindings {
		kind := x.DestinationType[:1] // q or e
		if err := b.send(ctx, http.MethodPost, x, "bindings", b.VHost, "e", x.Source, kind, x.Destination); err != nil {
			return fmt.Errorf("binding of exchange %q to %s %q: %w", x.Source, x.DestinationType, x.Destination, err)
		}
	}
	return nil
}

// errorBytes is how much of an error page is read.
const errorBytes = 4 << 10

func (b Broker) send(ctx context.Context, method string, body any, path ...string) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	target := *b.Management
	target.User = nil
	target = *target.JoinPath("api")
	for _, element := range path {
		// A virtual host is usually named "/", and queues may have one in their names.
		target.RawPath = target.EscapedPath() + "/" + url.PathEscape(element)
		target.Path += "/" + element
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	password, _ := b.Management.User.Password()
	request.SetBasicAuth(b.Management.User.Username(), password)
	response, err := b.Client.Do(request)
	if err != nil {
		return fmt.Errorf("management API: %w", err) // the URL in it has no credentials
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, errorBytes))
	if response.StatusCode < 300 {
		return nil
	}
	var said struct{ Reason any }
	if json.Unmarshal(answer, &said) != nil || said.Reason == nil {
		said.Reason = string(bytes.TrimSpace(answer))
	}
	switch response.StatusCode {
	case http.StatusBadRequest:
		return &refused{fmt.Sprintf("the broker refuses it: %v; if it exists with other arguments, choose another name, or delete it once it is empty", said.Reason)}
	case http.StatusUnauthorized:
		return &refused{fmt.Sprintf("user %q is not let in: check the password, and that the user has the tag policymaker (policies need it)",
			b.Management.User.Username())}
	case http.StatusNotFound:
		return &refused{fmt.Sprintf("virtual host %q, or something that it names, is not there", b.VHost)}
	default:
		return fmt.Errorf("%s: %v", response.Status, said.Reason)
	}
}

// refused is an answer that does not change by asking again.
type refused struct{ why string }

func (r *refused) Error() string { return r.why }

// Refused reports whether an error of Apply will be the same the next time.
func Refused(err error) bool {
	var r *refused
	return errors.As(err, &r)
}
