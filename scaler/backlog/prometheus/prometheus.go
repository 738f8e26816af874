// Package prometheus takes the value of an instant query as a backlog, for work that is counted by whatever else.
package prometheus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	promapi "github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

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

// maxAnswer bounds an answer, in bytes: the samples of a vector are added up, and a query of ten thousand of them is a mistake.
const maxAnswer = 4 << 20

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
	for _, header := range config.Headers {
		r.secrets = append(r.secrets, header.Value.Value)
	}
	parameters := u.Query()
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
	client, err := promapi.NewClient(promapi.Config{Address: u.String(), Client: r.client})
	if err != nil {
		return nil, errors.New("the server's URL can't be used")
	}
	r.api = promv1.NewAPI(client)
	return r, nil
}

type reader struct {
	config  Config
	host    string
	secrets []string
	api     promv1.API
	client  *http.Client
}

// Read implements backlog.Reader.
func (r *reader) Read(ctx context.Context) (sizing.Observation, error) {
	o := sizing.Observation{Source: "prometheus " + r.host, ReadyHoldsInFlight: true, ConsumersUnknown: true}
	value, warnings, err := r.api.Query(ctx, r.config.Query, time.Time{})
	if err != nil {
		var failure *promv1.Error
		if errors.As(err, &failure) {
			return o, fmt.Errorf("prometheus %s: the query failed: %s", r.host, endpoint.Said(failure.Msg, r.secrets...))
		}
		return o, fmt.Errorf("prometheus %s: %w", r.host, endpoint.Cause(err)) // without the URL, and with it the query
	}
	// What stands behind several servers answers with what it has.
	for _, warning := range warnings {
		if r.config.partial(warning) {
			return o, fmt.Errorf("prometheus %s: the answer is not whole: %s", r.host, endpoint.Said(warning, r.secrets...))
		}
	}
	work, samples, err := sum(value)
	switch {
	case err != nil:
		return o, fmt.Errorf("prometheus %s: %w", r.host, err)
	case samples == 0 && !r.config.ZeroOnNoData:
		return o, fmt.Errorf("prometheus %s: the query has no data: correct it, or set onNoData to Zero", r.host)
	}
	o.Ready = int64(math.Ceil(max(0, work)))
	return o, nil
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

// sum adds up the samples of an instant query.
func sum(value model.Value) (total float64, samples int, err error) {
	switch v := value.(type) {
	case *model.Scalar:
		total, samples = float64(v.Value), 1
	case model.Vector:
		for _, sample := range v {
			total += float64(sample.Value)
		}
		samples = len(v)
	default:
		return 0, 0, fmt.Errorf("the query's value is a %s: it must be a scalar or an instant vector", value.Type())
	}
	if math.IsNaN(total) || math.IsInf(total, 0) {
		return 0, 0, fmt.Errorf("the query's value is %v, which is no amount of work", total)
	}
	return min(total, math.MaxInt32), samples, nil
}

// Close implements backlog.Reader.
func (r *reader) Close() error {
	r.client.CloseIdleConnections()
	return nil
}
