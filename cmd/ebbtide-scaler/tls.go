package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// certificates of the gRPC service, which follow their files: a rotation needs no restart. While the files of the pair can't be
// read, the last good pair serves. The clients' CA is read for every connection, so that a CA that was removed is trusted no more.
type certificates struct {
	pair      *certwatcher.CertWatcher // nil: plain text
	clientCAs string                   // file, "" where any client may call
}

// newCertificates reads the files once, so that a wrong one is an error at start.
func newCertificates(certFile, keyFile, clientCAFile string) (*certificates, error) {
	if certFile == "" && keyFile == "" {
		if clientCAFile != "" {
			return nil, errors.New("--tls-client-ca needs --tls-cert and --tls-key")
		}
		return &certificates{}, nil
	}
	pair, err := certwatcher.New(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
	}
	c := &certificates{pair, clientCAFile}
	_, err = c.config()
	return c, err
}

// follow takes up changed files until ctx ends.
func (c *certificates) follow(ctx context.Context) error {
	if c.pair == nil {
		return nil
	}
	if err := c.pair.Start(ctx); ctx.Err() == nil {
		return fmt.Errorf("--tls-cert and --tls-key: %w", err)
	}
	return nil
}

func (c *certificates) credentials() credentials.TransportCredentials {
	if c.pair == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.config() },
	})
}

// config is that of a new connection.
func (c *certificates) config() (*tls.Config, error) {
	config := &tls.Config{GetCertificate: c.pair.GetCertificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	if c.clientCAs == "" {
		return config, nil
	}
	text, err := os.ReadFile(c.clientCAs)
	if err != nil {
		return nil, fmt.Errorf("--tls-client-ca: %w", err)
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--tls-client-ca %s: holds no PEM certificate", c.clientCAs)
	}
	return config, nil
}

// expiry shows until when the certificate that the service presents is valid.
func (c *certificates) expiry() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ebbtide_tls_certificate_expiry_timestamp_seconds",
		Help: "Until when the certificate that the gRPC service presents is valid.",
	}, func() float64 {
		pair, err := c.pair.GetCertificate(nil)
		if err != nil || pair.Leaf == nil {
			return 0
		}
		return float64(pair.Leaf.NotAfter.Unix())
	})
}
