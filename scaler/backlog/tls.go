package backlog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// TLS is a policy's TLS with its values resolved: PEM texts, empty where unset.
type TLS struct {
	CA, Certificate, Key string
	ServerName           string
}

// ResolveTLS resolves the TLS of a policy; field is its place there. Nil is the zero TLS.
func ResolveTLS(ctx context.Context, values Values, field string, spec *v1alpha1.TLS) (TLS, error) {
	if spec == nil {
		return TLS{}, nil
	}
	t := TLS{ServerName: spec.ServerName}
	for _, value := range []struct {
		name   string
		source *v1alpha1.ValueSource
		text   *string
	}{{"ca", spec.CA, &t.CA}, {"certificate", spec.Certificate, &t.Certificate}, {"key", spec.Key, &t.Key}} {
		var err error
		if *value.text, err = values(ctx, field+"."+value.name, value.source); err != nil {
			return t, err
		}
	}
	return t, nil
}

// Config returns the configuration of a client.
func (t TLS) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, errors.New("tls.ca holds no PEM certificate")
		}
	}
	if t.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(t.Certificate), []byte(t.Key))
		if err != nil {
			return nil, fmt.Errorf("tls.certificate and tls.key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
