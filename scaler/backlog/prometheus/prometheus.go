// Package prometheus takes the value of an instant query as a backlog, for work that is counted by whatever else.
package prometheus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/endpoint"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Config says what to ask, with values resolved. It holds credentials.
type Config struct {
	URL, Query, BearerToken string
	// Headers and Parameters are added to each request, the parameters to its URL.
	Headers    []v1alpha1.HTTPHeader // with Value.Value resolved
	Parameters []v1alpha1.QueryParameter
	// ZeroOnNoData counts an empty answer as no work; otherwise it is an error.
	ZeroOnNoData bool
	TLS          backlog.TLS
}

// Resolve looks up what a policy refers to.
func Resolve(ctx context.Context, spec *v1alpha1.ScalingPolicySpec, values backlog.Values) (Config, error) {
	p := spec.Backlog.Prometheus
	c := Config{Query: p.Query, ZeroOnNoData: p.OnNoData == v1alpha1.NoDataZero, Parameters: p.QueryParameters}
	const field = "spec.backlog.prometheus."
	var err error
	if c.URL, err = values(ctx, field+"url", &p.URL); err != nil {
		return c, err
	}
	if c.BearerToken, err = values(ctx, field+"bearerToken", p.BearerToken); err != nil {
		return c, err
	}
	for i := range p.Headers {
		header := v1alpha1.HTTPHeader{Name: p.Headers[i].Name}
		at := fmt.Sprintf("%sheaders[%d].value", field, i)
		if header.Value.Value, err = values(ctx, at, &p.Headers[i].Value); err != nil {
			return c, err
		}
		header.Value.Value = strings.TrimSpace(header.Value.Value)
		if strings.ContainsFunc(header.Value.Value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return c, fmt.Errorf("%s: it holds a control character", at)
		}
		c.Headers = append(c.Headers, header)
	}
	c.URL, c.BearerToken = strings.TrimSpace(c.URL), strings.TrimSpace(c.BearerToken)
	c.TLS, err = backlog.ResolveTLS(ctx, values, field+"tls", p.TLS)
	return c, err
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 2 << 20

var form = endpoint.Form{
	Name: "the server's URL", Example: "https://prometheus.example:9090", Otherwise: "use bearerToken or headers",
}

// Open returns a reader. It does not connect yet.
func Open(config Config) (backlog.Reader, error) {
	u, err := form.HTTP(config.URL)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := config.TLS.Config()
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(config.BearerToken, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("bearerToken holds a space or a control character: it must be the token alone")
	}
	r := &reader{config: config, host: u.Host}
	user := u.User
	password, _ := user.Password()
	r.secrets = []string{password, config.BearerToken}
	if user != nil {
		r.secrets = append(r.secrets, endpoint.BasicAuth(user.Username(), password))
	}
	for _, header := range config.Headers {
		r.secrets = append(r.secrets, header.Value.Value)
	}
	parameters := u.Query()
	for _, values := range parameters { // of the URL, which may be a Secret's
		r.secrets = append(r.secrets, values...)
	}
	for _, parameter := range config.Parameters {
		parameters.Add(parameter.Name, parameter.Value)
	}
	u.User, u.RawQuery = nil, ""
	r.client = endpoint.NewClient(u, tlsConfig, maxAnswer, func(request *http.Request) {
		for _, header := range config.Headers {
			request.Header.Set(header.Name, header.Value.Value)
		}
		switch {
		case config.BearerToken != "":
			request.Header.Set("Authorization", "Bearer "+config.BearerToken)
		case user != nil:
			request.SetBasicAuth(user.Username(), password)
		}
		if len(parameters) > 0 {
			query := request.URL.Query() // of a GET, which the query is in
			for name, values := range parameters {
				query[name] = values
			}
			request.URL.RawQuery = query.Encode()
		}
	})
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+queryPath, strings.TrimSuffix(u.RawPath, "/")+queryPath
	r.address = u.String()
	return r, nil
}

const queryPath = "/api/v1/query"

type reader struct {
	config        Config
	host, address string
	secrets       []string
	client        *http.Client
}

// Read implements backlog.Reader.
func (r *reader) Read(ctx context.Context) (sizing.Observation, error) {
	o := sizing.Observation{Source: "prometheus " + r.host, ReadyHoldsInFlight: true, ConsumersUnknown: true}
	work, err := r.query(ctx)
	if err != nil {
		return o, fmt.Errorf("prometheus %s: %w", r.host, err)
	}
	o.Ready = int64(math.Ceil(max(0, work)))
	return o, nil
}

// query asks for the value of the query as it is now.
func (r *reader) query(ctx context.Context) (work float64, err error) {
	response, err := r.send(ctx)
	if err != nil {
		return 0, endpoint.Cause(err, r.secrets...) // without the URL, and with it the query
	}
	defer response.Body.Close()
	said := func(text string) string { return endpoint.Said(text, r.secrets...) }
	a, err := readAnswer(response.Body, r.config.partial)
	switch {
	case a.failure != "" || a.status == "error":
		return 0, fmt.Errorf("the query failed: %s", said(a.failure))
	case response.StatusCode/100 != 2:
		return 0, fmt.Errorf("the query failed: it answers %s", said(response.Status))
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, fmt.Errorf("the query failed: %w", endpoint.Cause(err, r.secrets...))
	case a.status != "success":
		return 0, fmt.Errorf("the query failed: %w", errNoAnswer)
	case a.partial != "": // what stands behind several servers answers with what it has
		return 0, fmt.Errorf("the answer is not whole: %s", said(a.partial))
	}
	if work, err = a.work(); err == nil && a.samples == 0 && !r.config.ZeroOnNoData {
		err = errors.New("the query has no data: correct it, or set onNoData to Zero")
	}
	return work, err
}

// send sends the query in a POST, as it may be long, or in a GET to a server that takes no POST.
func (r *reader) send(ctx context.Context) (*http.Response, error) {
	query := url.Values{"query": {r.config.Query}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.address, strings.NewReader(query))
	if err != nil {
		return nil, errors.New("the server's URL can't be used") // the error holds it
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header["Idempotency-Key"] = nil // it may be sent again where a kept connection turns out to be closed
	response, err := r.client.Do(request)
	if err != nil || response.StatusCode != http.StatusMethodNotAllowed && response.StatusCode != http.StatusNotImplemented {
		return response, err
	}
	response.Body.Close()
	if request, err = http.NewRequestWithContext(ctx, http.MethodGet, r.address+"?"+query, nil); err != nil {
		return nil, errors.New("the server's URL can't be used")
	}
	return r.client.Do(request)
}

// partial reports whether a warning says that some of the data could not be read: a part that is not seen is not empty.
func (c Config) partial(warning string) bool {
	for _, parameter := range c.Parameters {
		if parameter.Name == "partial_response" && parameter.Value == "true" {
			return false // as it was asked for
		}
	}
	// Prometheus marks what it only advises with these words; Thanos and others warn of stores that did not answer.
	return !strings.Contains(warning, "PromQL info:") && !strings.Contains(warning, "PromQL warning:")
}

// Close implements backlog.Reader.
func (r *reader) Close() error {
	r.client.CloseIdleConnections()
	return nil
}
