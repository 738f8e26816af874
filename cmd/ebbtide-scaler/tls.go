package main

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ebbtide-dev/ebbtide/internal/tlsfiles"
)

// newCertificates are those of the gRPC service; nil: plain text.
func newCertificates(files tlsfiles.Files) (*tlsfiles.Server, error) {
	if files.Cert == "" && files.Key == "" {
		if files.CA != "" {
			return nil, errors.New("--tls-client-ca needs --tls-cert and --tls-key")
		}
		return nil, nil
	}
	server, err := tlsfiles.NewServer(files)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key, --tls-client-ca: %w", err)
	}
	return server, nil
}

func credentialsOf(server *tlsfiles.Server) credentials.TransportCredentials {
	if server == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(server.Config())
}

// expiry shows until when the certificate that the service presents is valid.
func expiry(server *tlsfiles.Server) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ebbtide_tls_certificate_expiry_timestamp_seconds",
		Help: "Until when the certificate that the gRPC service presents is valid.",
	}, func() float64 { return float64(server.Certificate().Leaf.NotAfter.Unix()) })
}
