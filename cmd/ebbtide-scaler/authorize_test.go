package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// called is the context of a call by a client with these names in its certificate.
func called(commonName string, dnsNames ...string) context.Context {
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: commonName}, DNSNames: dnsNames}
	info := credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}}
	return peer.NewContext(context.Background(), &peer.Peer{AuthInfo: info})
}

func TestAuthorizer(t *testing.T) {
	authorize, err := authorizer([]string{"keda-operator", "team-a.example=a,a-test"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		ctx       context.Context
		namespace string
		allowed   bool
	}{
		"by common name":        {called("keda-operator"), "scan", true},
		"all namespaces":        {called("keda-operator"), "", true},
		"by DNS name":           {called("x", "team-a.example"), "a-test", true},
		"another namespace":     {called("", "team-a.example"), "b", false},
		"all, but limited":      {called("", "team-a.example"), "", false},
		"a stranger":            {called("stranger"), "scan", false},
		"without a certificate": {context.Background(), "scan", false},
	} {
		t.Run(name, func(t *testing.T) {
			err := authorize(tc.ctx, tc.namespace)
			if (err == nil) != tc.allowed || err != nil && status.Code(err) != codes.PermissionDenied {
				t.Errorf("error %v, want allowed: %v", err, tc.allowed)
			}
		})
	}
	if err := authorize(called("stranger"), "scan"); !strings.Contains(err.Error(), "client stranger may not ask about namespace scan: allow it with --allow-client") {
		t.Errorf("error %v", err)
	}
	if none, err := authorizer(nil); none != nil || err != nil {
		t.Errorf("without rules: %v", err)
	}
	for _, rule := range []string{"", "=a", "name="} {
		if _, err := authorizer([]string{rule}); err == nil || !strings.Contains(err.Error(), "must be NAME, or NAME=NAMESPACE,NAMESPACE") {
			t.Errorf("%q: error %v", rule, err)
		}
	}
}
