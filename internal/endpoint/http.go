package endpoint

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// NewClient returns a client for one server: authorize gives each request its credentials, and only those go out that go to the
// server. A redirect to another server is an error, and so is an answer of more than limit bytes, however much it was compressed.
func NewClient(server *url.URL, config *tls.Config, limit int64, authorize func(*http.Request)) *http.Client {
	transport := &http.Transport{
		TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{
		Transport: &bound{next: transport, limit: limit, origin: origin(server), authorize: authorize},
		CheckRedirect: func(request *http.Request, before []*http.Request) error {
			switch {
			case origin(request.URL) != origin(server):
				return errors.New("it redirects to another server, which gets no credentials: name that server's own address")
			case len(before) > 3:
				return errors.New("it redirects without end")
			}
			return nil
		},
	}
}

// origin is what must be the same of two URLs of one server.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// bound is a transport to one server whose answers are of bounded size.
type bound struct {
	next      *http.Transport
	limit     int64
	origin    string
	authorize func(*http.Request)
}

// RoundTrip implements http.RoundTripper.
func (b *bound) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.URL.User = nil
	if origin(request.URL) == b.origin {
		b.authorize(request)
	}
	response, err := b.next.RoundTrip(request)
	if err == nil {
		response.Body = &limited{response.Body, b.limit, b.limit}
	}
	return response, err
}

// CloseIdleConnections is what http.Client calls.
func (b *bound) CloseIdleConnections() { b.next.CloseIdleConnections() }

// limited is a body that fails past its limit instead of ending there as if it were whole.
type limited struct {
	io.ReadCloser
	left, limit int64
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d MiB", l.limit>>20)
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.ReadCloser.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n - 1, fmt.Errorf("the answer has more than %d MiB", l.limit>>20)
	}
	return n, err
}

// Cause is why a request failed, without its URL, and fit for errors as Said is: it may hold what the server answered.
func Cause(err error, secrets ...string) error {
	var failure *url.Error
	if errors.As(err, &failure) {
		err = failure.Err
	}
	return &cause{Said(err.Error(), secrets...), err}
}

type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

// BasicAuth is what stands behind "Basic " in a request's header: as secret as the password in it.
func BasicAuth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}
