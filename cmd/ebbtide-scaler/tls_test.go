package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// testCA signs certificates for 127.0.0.1 that serve and authenticate.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (ca *testCA) issue(t *testing.T) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Only clients of the CA get an answer, and a rotated certificate serves new connections without a restart.
func TestServerCredentials(t *testing.T) {
	ca, stranger, dir := newTestCA(t), newTestCA(t), t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	rotate := func(by *testCA) {
		cert, key := by.issue(t)
		write(t, file("tls.crt"), cert)
		write(t, file("tls.key"), key)
	}
	rotate(ca)
	write(t, file("ca.crt"), ca.pem)
	serving, err := serverCredentials(file("tls.crt"), file("tls.key"), file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(serving))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	call := func(trusts, presents *testCA) error {
		config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		config.RootCAs.AddCert(trusts.cert)
		if presents != nil {
			pair, err := tls.X509KeyPair(presents.issue(t))
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = healthpb.NewHealthClient(connection).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	}
	if err := call(ca, ca); err != nil {
		t.Errorf("a client of the CA: %v", err)
	}
	for name, client := range map[string]*testCA{"without a certificate": nil, "of another CA": stranger} {
		if err := call(ca, client); status.Code(err) != codes.Unavailable {
			t.Errorf("a client %s: %v, want that it is refused", name, err)
		}
	}
	rotate(stranger)
	if err := call(stranger, ca); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

func TestServerCredentialsErrors(t *testing.T) {
	dir := t.TempDir()
	cert, key := newTestCA(t).issue(t)
	write(t, filepath.Join(dir, "tls.crt"), cert)
	write(t, filepath.Join(dir, "tls.key"), key)
	write(t, filepath.Join(dir, "empty"), nil)
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, tc := range map[string]struct{ cert, key, ca, want string }{
		"client CA alone": {"", "", at("tls.crt"), "--tls-client-ca needs --tls-cert and --tls-key"},
		"no key":          {at("tls.crt"), at("none"), "", "--tls-cert and --tls-key"},
		"no client CA":    {at("tls.crt"), at("tls.key"), at("none"), "--tls-client-ca: open"},
		"empty client CA": {at("tls.crt"), at("tls.key"), at("empty"), "holds no PEM certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := serverCredentials(tc.cert, tc.key, tc.ca); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}
