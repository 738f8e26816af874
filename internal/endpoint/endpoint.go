// Package endpoint parses the addresses of brokers and servers, which may hold a password, and speaks HTTP with such servers.
//
// A character in a password that is not percent-encoded moves the borders between the parts of an address, so any part may be the
// password then: the host, the port, the path. An address is therefore read strictly, before anything is dialed or looked up, and
// an error says what is wrong and never shows a part of the text.
package endpoint

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Form is what an address must look like.
type Form struct {
	// Name of the address for errors, "the broker's URI", and an example of it.
	Name, Example string
	// Schemes that it may have.
	Schemes []string
	// Several hosts may be named, separated by commas.
	Several bool
	// Way out of percent-encoding, for errors: "use username and password". Empty: there is none.
	Otherwise string
}

// Address is a parsed address.
type Address struct {
	Scheme string
	// User is nil where the address names none.
	User  *url.Userinfo
	Hosts []Host
	// Path and Query are as they were written, percent-encoded.
	Path, Query string
}

// Host of an address.
type Host struct {
	Name string
	// Port is 0 where none is stated.
	Port int
}

// Parse reads an address. Its errors hold no part of the text.
func (f Form) Parse(text string) (Address, error) {
	var a Address
	scheme, rest, ok := strings.Cut(text, "://")
	if a.Scheme = strings.ToLower(scheme); !ok || !slices.Contains(f.Schemes, a.Scheme) {
		return a, f.wrong("it must begin with " + strings.Join(f.Schemes, ":// or ") + "://")
	}
	for _, r := range text {
		if r <= ' ' || r == 0x7f || r == utf8.RuneError {
			return a, f.special("it holds a space or a control character")
		}
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	// An address has no fragment, and an @ behind the host means that the host was cut short.
	if strings.ContainsAny(tail, "#@") {
		return a, f.special("it holds one of the characters # / ? @ where it may be part of a password")
	}
	a.Path, a.Query, _ = strings.Cut(tail, "?")
	if _, err := url.PathUnescape(a.Path); err != nil {
		return a, f.special("a % in its path begins no percent-encoded character")
	}
	if _, err := url.ParseQuery(a.Query); err != nil {
		return a, f.special("its parameters are not well-formed")
	}
	hosts := authority
	if user, after, named := strings.Cut(authority, "@"); named {
		hosts = after
		var err error
		if a.User, err = f.user(user); err != nil {
			return a, err
		}
	}
	if strings.Contains(hosts, "@") {
		return a, f.special("it holds a second @")
	}
	names := []string{hosts}
	if f.Several {
		names = strings.Split(hosts, ",")
	}
	for _, name := range names {
		host, err := f.host(name)
		if err != nil {
			return a, err
		}
		a.Hosts = append(a.Hosts, host)
	}
	return a, nil
}

func (f Form) user(text string) (*url.Userinfo, error) {
	for _, r := range text {
		// RFC 3986, section 3.2.1: unreserved and sub-delims, escapes, and the colon between user and password.
		if !isAlphanumeric(r) && !strings.ContainsRune("-._~!$&'()*+,;=%:", r) {
			return nil, f.special("the user or the password holds a character that must be percent-encoded")
		}
	}
	name, password, hasPassword := strings.Cut(text, ":")
	user, err := url.PathUnescape(name)
	if err != nil {
		return nil, f.special("a % in the user begins no percent-encoded character")
	}
	secret, err := url.PathUnescape(password)
	if err != nil {
		return nil, f.special("a % in the password begins no percent-encoded character")
	}
	if !hasPassword {
		return url.User(user), nil
	}
	return url.UserPassword(user, secret), nil
}

func (f Form) host(text string) (Host, error) {
	name, port := text, ""
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if name, port, ok = strings.Cut(rest, "]"); !ok || port != "" && port[0] != ':' {
			return Host{}, f.special("a host's address in brackets is not well-formed")
		}
		if _, err := netip.ParseAddr(strings.Replace(name, "%25", "%", 1)); err != nil {
			return Host{}, f.special("what stands in brackets is not an IPv6 address")
		}
		name = strings.Replace(name, "%25", "%", 1)
	} else {
		if i := strings.IndexByte(text, ':'); i >= 0 {
			name, port = text[:i], text[i:]
		}
		for _, r := range name {
			if !isAlphanumeric(r) && !strings.ContainsRune("-._", r) {
				return Host{}, f.special("a host's name holds a character that none may have")
			}
		}
	}
	if name == "" {
		return Host{}, f.wrong("a host is missing")
	}
	if port == "" {
		return Host{Name: name}, nil
	}
	number, err := strconv.ParseUint(port[1:], 10, 16)
	if err != nil || number == 0 {
		return Host{}, f.special("a port is not a number from 1 to 65535")
	}
	return Host{Name: name, Port: int(number)}, nil
}

func isAlphanumeric(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

func (f Form) wrong(what string) error {
	return fmt.Errorf("%s must look like %s: %s", f.Name, f.Example, what)
}

// special is wrong for what is likely a special character in a password.
func (f Form) special(what string) error {
	way := "percent-encode special characters of the user and the password"
	if f.Otherwise != "" {
		way += ", or " + f.Otherwise
	}
	return f.wrong(what + ": " + way)
}

// maxShortString is the longest string, in bytes, that AMQP 0-9-1 has for names.
const maxShortString = 255

// AMQP reads a broker's URI, amqp:// or amqps://, and returns one URI for each of its hosts. It knows the parameters of RabbitMQ's
// URIs (https://www.rabbitmq.com/docs/uri-query-parameters).
func (f Form) AMQP(text string) ([]amqp.URI, error) {
	f.Schemes = []string{"amqp", "amqps"}
	a, err := f.Parse(text)
	if err != nil {
		return nil, err
	}
	user := ""
	if a.User != nil {
		user = a.User.String() + "@"
	}
	var uris []amqp.URI
	for _, host := range a.Hosts {
		address := a.Scheme + "://" + user + bracketed(host.Name)
		if host.Port != 0 {
			address += ":" + strconv.Itoa(host.Port)
		}
		address += a.Path
		if a.Query != "" {
			address += "?" + a.Query
		}
		uri, err := amqp.ParseURI(address)
		if err != nil { // of its parameters: the rest was read above
			return nil, f.wrong("heartbeat, connection_timeout and channel_max are numbers")
		}
		if len(uri.Vhost) > maxShortString {
			return nil, f.wrong(fmt.Sprintf("a virtual host's name has at most %d bytes", maxShortString))
		}
		for _, mechanism := range uri.AuthMechanism {
			if !slices.Contains([]string{"PLAIN", "AMQPLAIN", "EXTERNAL"}, strings.ToUpper(mechanism)) {
				return nil, f.wrong("auth_mechanism must be plain, amqplain or external")
			}
		}
		uris = append(uris, uri)
	}
	return uris, nil
}

// HTTP reads the base URL of a server, http:// or https://.
func (f Form) HTTP(text string) (*url.URL, error) {
	f.Schemes = []string{"https", "http"}
	a, err := f.Parse(text)
	if err != nil {
		return nil, err
	}
	u := &url.URL{Scheme: a.Scheme, User: a.User, Host: bracketed(a.Hosts[0].Name), RawQuery: a.Query}
	if port := a.Hosts[0].Port; port != 0 {
		u.Host = net.JoinHostPort(a.Hosts[0].Name, strconv.Itoa(port))
	}
	u.RawPath = a.Path
	u.Path, _ = url.PathUnescape(a.Path) // was tried above
	return u, nil
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + strings.Replace(host, "%", "%25", 1) + "]"
	}
	return host
}

const (
	maxSaid = 300
	// leastSecret is the length, in bytes, from which on a secret can be told from the words that it may be part of.
	leastSecret = 4
)

// Said makes the text of a broker or a server fit for errors and logs: on one line, short, and without any of the secrets, should it
// repeat one, be it quoted, percent-encoded or cut off at the end. A secret of less than four bytes is in too many words to be told from them.
func Said(text string, secrets ...string) string {
	for _, secret := range secrets {
		if len(secret) < leastSecret {
			continue
		}
		quoted := strconv.Quote(secret)
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), quoted[1 : len(quoted)-1]} {
			text = strings.ReplaceAll(text, form, "(secret)")
			text = withoutCut(text, form)
		}
	}
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), unprintable), " ")
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "") + "..."
	}
	return text
}

// unprintable are control characters, line breaks, and what changes the order in which a line is shown.
func unprintable(r rune) bool { return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) }

// withoutCut replaces the beginning of a secret at the end of a text that was cut there.
func withoutCut(text, secret string) string {
	body := strings.TrimSuffix(text, "...")
	for n := min(len(secret)-1, len(body)); n >= leastSecret; n-- {
		if strings.HasSuffix(body, secret[:n]) {
			return body[:len(body)-n] + "(secret)..."
		}
	}
	return text
}
