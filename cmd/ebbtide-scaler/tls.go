package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// serverCredentials are those of the gRPC service. Certificates are read anew for every connection, which KEDA keeps
// for long: a rotated file needs no restart.
func serverCredentials(certFile, keyFile, clientCAFile string) (credentials.TransportCredentials, error) {
	if certFile == "" && keyFile == "" {
		if clientCAFile != "" {
			return nil, errors.New("--tls-client-ca needs --tls-cert and --tls-key")
		}
		return insecure.NewCredentials(), nil
	}
	load := func() (*tls.Config, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
		config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
		if clientCAFile == "" {
			return config, nil
		}
		text, err := os.ReadFile(clientCAFile)
		if err != nil {
			return nil, fmt.Errorf("--tls-client-ca: %w", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--tls-client-ca %s: holds no PEM certificate", clientCAFile)
		}
		return config, nil
	}
	config, err := load()
	if err != nil {
		return nil, err
	}
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return load() }
	return credentials.NewTLS(config), nil
}

// certificateExpiry shows until when a certificate file is good, as it is when it is asked for.
func certificateExpiry(file string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ebbtide_tls_certificate_expiry_timestamp_seconds",
		Help: "Until when the certificate of the gRPC service is good; 0 when its file can't be read.",
	}, func() float64 {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0
		}
		block, _ := pem.Decode(text) // the first one is the service's own
		if block == nil {
			return 0
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return 0
		}
		return float64(certificate.NotAfter.Unix())
	})
}
