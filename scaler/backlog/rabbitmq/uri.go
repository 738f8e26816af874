package rabbitmq

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// parseURIs reads a broker's URI with one host or several (amqp://user:password@one:5672,two:5672/vhost). Errors hold no
// part of the URI, as that may be the password.
func parseURIs(text, username, password string) ([]amqp.URI, error) {
	const form = "the broker's URI must look like amqp://user:password@host:5672/vhost"
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, errors.New(form)
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	user, hosts := "", authority
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		user, hosts = authority[:i+1], authority[i+1:]
	}
	var uris []amqp.URI
	for _, host := range strings.Split(hosts, ",") {
		uri, err := amqp.ParseURI(scheme + "://" + user + strings.TrimSpace(host) + path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", form, withoutURI(err))
		}
		if host == "" {
			return nil, fmt.Errorf("%s: a host is missing", form)
		}
		if username != "" {
			uri.Username = username
		}
		if password != "" {
			uri.Password = password
		}
		uris = append(uris, uri)
	}
	return uris, nil
}

// withoutURI drops the URI, and with it the password, from an error of package url.
func withoutURI(err error) error {
	var parse *url.Error
	if errors.As(err, &parse) {
		return parse.Err
	}
	return err
}
