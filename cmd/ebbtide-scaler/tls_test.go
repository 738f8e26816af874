package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/e2e/testcert"
	"github.com/ebbtide-dev/ebbtide/internal/doctable"
	"github.com/ebbtide-dev/ebbtide/internal/tlsfiles"
	decisions "github.com/ebbtide-dev/ebbtide/proto/ebbtide/decisions/v1alpha1"
)

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Only clients of the CA get an answer, and a rotated certificate serves new connections without a restart.
func TestServerCredentials(t *testing.T) {
	ca, stranger, dir := testcert.New(t), testcert.New(t), t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	rotate := func(by *testcert.Authority) {
		cert, key := by.Issue(t, "client")
		write(t, file("tls.crt"), cert)
		write(t, file("tls.key"), key)
	}
	rotate(ca)
	write(t, file("ca.crt"), ca.PEM)
	serving, err := newCertificates(tlsfiles.Files{Cert: file("tls.crt"), Key: file("tls.key"), CA: file("ca.crt")})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentialsOf(serving)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	call := func(trusts, presents *testcert.Authority) error {
		config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		config.RootCAs.AddCert(trusts.Certificate)
		if presents != nil {
			pair, err := tls.X509KeyPair(presents.Issue(t, "client"))
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
	for name, client := range map[string]*testcert.Authority{"without a certificate": nil, "of another CA": stranger} {
		if err := call(ca, client); status.Code(err) != codes.Unavailable {
			t.Errorf("a client %s: %v, want that it is refused", name, err)
		}
	}
	write(t, file("tls.key"), []byte("half a k"))
	if err := call(ca, ca); err != nil {
		t.Errorf("while the key is half written: %v", err)
	}
	rotate(stranger)
	if err := call(stranger, ca); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	write(t, file("ca.crt"), stranger.PEM)
	if err := call(stranger, stranger); err != nil {
		t.Errorf("after the rotation of the clients' CA: %v", err)
	}
	if err := call(stranger, ca); status.Code(err) != codes.Unavailable {
		t.Errorf("a client of the CA before the rotation: %v, want that it is refused", err)
	}
}

// A client with a certificate asks about the namespaces that it is allowed, and no others.
func TestAllowClient(t *testing.T) {
	ca, dir := testcert.New(t), t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	cert, key := ca.Issue(t, "team-a")
	write(t, file("tls.crt"), cert)
	write(t, file("tls.key"), key)
	write(t, file("ca.crt"), ca.PEM)
	ports, err := proc.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	ctx, stop := context.WithCancel(t.Context())
	cmd := command()
	cmd.SetArgs([]string{
		"--policy-dir", t.TempDir(), "--listen", address, "--metrics-listen", fmt.Sprintf("127.0.0.1:%d", ports[1]), "--log-level", "error",
		"--tls-cert", file("tls.crt"), "--tls-key", file("tls.key"), "--tls-client-ca", file("ca.crt"), "--allow-client", "team-a=a",
	})
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	config.RootCAs.AddCert(ca.Certificate)
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	for namespace, want := range map[string]codes.Code{"a": codes.NotFound, "b": codes.PermissionDenied} {
		ref := &pb.ScaledObjectRef{Namespace: namespace, Name: "job", ScalerMetadata: map[string]string{"policy": "none"}}
		client, wait := pb.NewExternalScalerClient(connection), grpc.WaitForReady(true)
		_, metrics := client.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: ref}, wait)
		_, active := client.IsActive(t.Context(), ref, wait)
		_, explained := decisions.NewDecisionServiceClient(connection).ExplainDecision(t.Context(), &decisions.ExplainDecisionRequest{
			Policy: &decisions.PolicyRef{Namespace: namespace, Name: "none"},
		}, wait)
		for _, err := range []error{metrics, active, explained} {
			if status.Code(err) != want {
				t.Errorf("namespace %s: %v, want %s", namespace, err, want)
			}
		}
	}
}

func TestServerCredentialsErrors(t *testing.T) {
	dir := t.TempDir()
	cert, key := testcert.New(t).Issue(t, "client")
	write(t, filepath.Join(dir, "tls.crt"), cert)
	write(t, filepath.Join(dir, "tls.key"), key)
	write(t, filepath.Join(dir, "empty"), nil)
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, tc := range map[string]struct{ cert, key, ca, want string }{
		"client CA alone": {"", "", at("tls.crt"), "--tls-client-ca needs --tls-cert and --tls-key"},
		"no key":          {at("tls.crt"), at("none"), "", "--tls-client-ca: open"},
		"no client CA":    {at("tls.crt"), at("tls.key"), at("none"), "--tls-client-ca: open"},
		"empty client CA": {at("tls.crt"), at("tls.key"), at("empty"), "holds no PEM certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newCertificates(tlsfiles.Files{Cert: tc.cert, Key: tc.key, CA: tc.ca}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// The expiry that is shown is that of the certificate that clients see, whatever is in the file meanwhile.
func TestCertificateExpiry(t *testing.T) {
	dir := t.TempDir()
	cert, key := testcert.New(t).Issue(t, "server")
	write(t, filepath.Join(dir, "tls.crt"), cert)
	write(t, filepath.Join(dir, "tls.key"), key)
	serving, err := newCertificates(tlsfiles.Files{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(expiry(serving))
	block, _ := pem.Decode(cert)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range [][]byte{cert, []byte("half a certif")} {
		write(t, filepath.Join(dir, "tls.crt"), file)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		if got := families[0].GetMetric()[0].GetGauge().GetValue(); got != float64(certificate.NotAfter.Unix()) {
			t.Errorf("%v, want %s", got, certificate.NotAfter)
		}
	}
	doctable.Metrics(t, "../../docs/reference/metrics.md", "tls metrics", registry, "ebbtide_")
}
