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
	"time"

	promapi "github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Config says what to ask, with values resolved. It holds credentials.
type Config struct {
	URL, Query, BearerToken string
	// ZeroOnNoData counts an empty answer as no work; otherwise it is an error.
	ZeroOnNoData bool
	TLS          backlog.TLS
}

// Equal reports whether two configurations ask the same in the same way.
func (c Config) Equal(other Config) bool { return c == other }

// Resolve looks up what a policy refers to.
func Resolve(ctx context.Context, spec *v1alpha1.ScalingPolicySpec, values backlog.Values) (Config, error) {
	p := spec.Backlog.Prometheus
	c := Config{Query: p.Query, ZeroOnNoData: p.OnNoData == v1alpha1.NoDataZero}
	const field = "spec.backlog.prometheus."
	var err error
	if c.URL, err = values(ctx, field+"url", &p.URL); err != nil {
		return c, err
	}
	if c.BearerToken, err = values(ctx, field+"bearerToken", p.BearerToken); err != nil {
		return c, err
	}
	c.URL, c.BearerToken = strings.TrimSpace(c.URL), strings.TrimSpace(c.BearerToken)
	c.TLS, err = backlog.ResolveTLS(ctx, values, field+"tls", p.TLS)
	return c, err
}

// Open returns a reader. It does not connect yet.
func Open(config Config) (backlog.Reader, error) {
	u, err := url.Parse(config.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("the server's URL must look like https://prometheus.example:9090")
	}
	tlsConfig, err := config.TLS.Config()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 1, TLSClientConfig: tlsConfig, Proxy: http.ProxyFromEnvironment}
	client, err := promapi.NewClient(promapi.Config{
		Address: config.URL, RoundTripper: &authorized{next: transport, user: u.User, token: config.BearerToken},
	})
	if err != nil {
		return nil, errors.New("the server's URL must look like https://prometheus.example:9090")
	}
	return &reader{config: config, host: u.Host, api: promv1.NewAPI(client), transport: transport}, nil
}

// authorized adds credentials to requests.
type authorized struct {
	next  http.RoundTripper
	user  *url.Userinfo
	token string
}

func (a *authorized) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	switch password, _ := a.user.Password(); {
	case a.token != "":
		request.Header.Set("Authorization", "Bearer "+a.token)
	case a.user != nil:
		request.SetBasicAuth(a.user.Username(), password)
	}
	request.URL.User = nil
	return a.next.RoundTrip(request)
}

type reader struct {
	config    Config
	host      string
	api       promv1.API
	transport *http.Transport
}

// Read implements backlog.Reader.
func (r *reader) Read(ctx context.Context) (sizing.Observation, error) {
	o := sizing.Observation{Source: "prometheus " + r.host, ReadyHoldsInFlight: true}
	value, _, err := r.api.Query(ctx, r.config.Query, time.Time{})
	if err != nil {
		var failure *promv1.Error
		if errors.As(err, &failure) {
			return o, fmt.Errorf("prometheus %s: the query failed: %s", r.host, failure.Msg)
		}
		var transport *url.Error // its text holds the URL, and with it the query
		if errors.As(err, &transport) {
			err = transport.Err
		}
		return o, fmt.Errorf("prometheus %s: %w", r.host, err)
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
	r.transport.CloseIdleConnections()
	return nil
}
