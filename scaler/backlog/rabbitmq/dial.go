package rabbitmq

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/internal/endpoint"
)

// dialHost opens a connection to one host of a broker, as the user that the policy names.
func dialHost(ctx context.Context, uri amqp.URI, named bool, config *tls.Config) (*amqp.Connection, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port)))
	if err != nil {
		return nil, err
	}
	// Bounds the handshake; the library clears it afterwards.
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	if uri.Scheme == "amqps" {
		config = config.Clone()
		if config.ServerName == "" {
			config.ServerName = uri.Host
		}
		secured := tls.Client(raw, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, explainTLS(ctx, err, config)
		}
		raw = secured
	}
	h := &handshake{Conn: newFrames(raw)}
	properties := amqp.Table{"connection_name": "ebbtide-scaler", "product": "ebbtide"}
	c, err := amqp.Open(h, amqp.Config{
		Heartbeat: heartbeat, FrameSize: maxFrame, Vhost: uri.Vhost, Locale: "en_US", Properties: properties,
		SASL: mechanisms(uri, named, len(config.Certificates) > 0, properties),
	})
	if err != nil {
		raw.Close()
		return nil, h.explain(ctx, c, uri, err, len(config.Certificates) > 0)
	}
	h.end()
	return c, nil
}

// mechanisms are how a client proves who it is, the best first: as the URI's auth_mechanism says, else by its certificate where it has
// one and no user is named, else by its password.
func mechanisms(uri amqp.URI, named, certificate bool, properties amqp.Table) []amqp.Authentication {
	candidates := uri.AuthMechanism
	if len(candidates) == 0 {
		switch {
		case certificate && named:
			candidates = []string{"PLAIN", "EXTERNAL"}
		case certificate:
			candidates = []string{"EXTERNAL", "PLAIN"}
		default:
			candidates = []string{"PLAIN"}
		}
	}
	var all []amqp.Authentication
	for _, name := range candidates {
		var mechanism amqp.Authentication
		switch strings.ToUpper(name) {
		case "EXTERNAL":
			mechanism = &amqp.ExternalAuth{}
		case "AMQPLAIN":
			mechanism = uri.AMQPlainAuth()
		default:
			mechanism = uri.PlainAuth()
		}
		all = append(all, candid{mechanism, properties})
	}
	return all
}

// candid is a mechanism that also asks the broker to say so when it refuses the user. Otherwise it cuts the connection seconds later,
// which looks like a network that fails. The client library sets the capabilities itself, just before it asks for the response.
type candid struct {
	amqp.Authentication
	properties amqp.Table
}

const failureClose = "authentication_failure_close"

// Response implements amqp.Authentication.
func (c candid) Response() string {
	if capabilities, ok := c.properties["capabilities"].(amqp.Table); ok {
		capabilities[failureClose] = true
	}
	return c.Authentication.Response()
}

// handshake remembers what a broker says until the connection is open. The library reports any failure after the credentials as a
// wrong password, and any after that as a missing virtual host.
type handshake struct {
	net.Conn

	mu    sync.Mutex
	ended bool
	said  []byte
	err   error // why the last read failed
}

// maxHandshake is more than a broker needs to say who it is and what it refuses.
const maxHandshake = 64 << 10

// Read implements net.Conn.
func (h *handshake) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.said = append(h.said, p[:min(n, maxHandshake-len(h.said))]...)
		h.err = err
	}
	return n, err
}

func (h *handshake) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended, h.said = true, nil
}

// refusal is a connection.close of the broker.
type refusal struct {
	code int
	text string
}

// read returns the broker's refusal, nil if it did not send one, and whether it had accepted the user before.
func (h *handshake) read() (refused *refusal, accepted bool) {
	// A frame is its type, channel, size, payload and an end mark; a method's payload begins with its class and number.
	const header, end = 7, 1
	const connectionClass, tune, closing = 10, 30, 50
	h.mu.Lock()
	defer h.mu.Unlock()
	for said := h.said; len(said) >= header; {
		size := int(binary.BigEndian.Uint32(said[3:]))
		if size < 4 || len(said) < header+size+end {
			break
		}
		method := said[header : header+size]
		said = said[header+size+end:]
		if binary.BigEndian.Uint16(method) != connectionClass {
			continue
		}
		switch binary.BigEndian.Uint16(method[2:]) {
		case tune:
			accepted = true
		case closing: // code, length of the text, text
			if len(method) < 7 || len(method) < 7+int(method[6]) {
				return nil, accepted
			}
			return &refusal{int(binary.BigEndian.Uint16(method[4:])), string(method[7 : 7+int(method[6])])}, accepted
		}
	}
	return nil, accepted
}

// errConnectionLimit is that the broker takes no further connection.
var errConnectionLimit = errors.New("a limit of connections is reached")

// explain turns a failed handshake into an error for a person.
func (h *handshake) explain(ctx context.Context, c *amqp.Connection, uri amqp.URI, err error, certificate bool) error {
	refused, accepted := h.read()
	if refused != nil {
		said := endpoint.Said(refused.text, uri.Password)
		switch text := strings.ToLower(refused.text); {
		case strings.Contains(text, "limit"):
			return fmt.Errorf("%w: the broker says %q: close connections, or raise the limit of the node, the virtual host or the user", errConnectionLimit, said)
		case refused.code == amqp.AccessRefused && !accepted:
			if len(uri.AuthMechanism) > 0 || certificate {
				return fmt.Errorf("the broker refuses user %q, or the client's certificate: correct the user, the password or tls.certificate: it says %q", uri.Username, said)
			}
			return fmt.Errorf("the broker refuses user %q: correct the user or the password", uri.Username)
		case strings.Contains(text, "vhost") && strings.Contains(text, "is down"):
			return fmt.Errorf("virtual host %q is down: the broker says %q", uri.Vhost, said)
		case strings.Contains(text, "vhost"):
			return fmt.Errorf("virtual host %q does not exist, or user %q may not use it: the broker says %q", uri.Vhost, uri.Username, said)
		default:
			return fmt.Errorf("the broker refuses the connection: it says %q (%d)", said, refused.code)
		}
	}
	if errors.Is(err, amqp.ErrSASL) {
		return errors.New("the broker offers none of the ways to log in that are configured: for EXTERNAL set tls.certificate and tls.key, " +
			"for PLAIN name a user and a password, and leave out auth_mechanism or correct it")
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the broker does not end the handshake: %w", context.Cause(ctx))
	}
	h.mu.Lock()
	cause := h.err
	h.mu.Unlock()
	if cause == nil {
		cause = err
	}
	var code *amqp.Error
	if errors.As(cause, &code) { // the library's guess
		cause = errors.New("it answers what is not AMQP")
	}
	when := "before it greeted"
	switch greeted := c != nil && c.Properties != nil; {
	case accepted:
		when = "while the virtual host was opened"
	case greeted:
		when = "while the user was checked"
		if capabilities, _ := c.Properties["capabilities"].(amqp.Table); capabilities[failureClose] != true {
			when += " (a broker of this kind does the same for a wrong password)"
		}
	}
	hint := ""
	if uri.Scheme == "amqps" && !certificate {
		hint = " (the broker may ask for a client certificate: tls.certificate, tls.key)"
	}
	return fmt.Errorf("the connection was cut %s: %w%s", when, cause, hint)
}

// explainTLS turns a failed TLS handshake into an error for a person.
func explainTLS(ctx context.Context, err error, config *tls.Config) error {
	var mismatch *tls.CertificateVerificationError
	switch {
	case errors.As(err, &mismatch):
		return fmt.Errorf("the broker's certificate is not trusted (set tls.ca, or tls.serverName): %w", mismatch.Err)
	case ctx.Err() != nil:
		return fmt.Errorf("the broker does not end the TLS handshake: %w", context.Cause(ctx))
	case len(config.Certificates) == 0:
		return fmt.Errorf("%w (the broker may ask for a client certificate: tls.certificate, tls.key)", err)
	default:
		return err
	}
}
