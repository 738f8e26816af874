package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// authorizer makes of --allow-client rules (NAME, or NAME=NAMESPACE,NAMESPACE) a check of who may ask about a namespace.
// The namespace in a request is only the caller's word; the certificate says who calls. No rule: nil, anyone may.
func authorizer(rules []string) (func(ctx context.Context, namespace string) error, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	allowed := map[string][]string{} // by client; no namespaces: all
	for _, rule := range rules {
		name, namespaces, limited := strings.Cut(rule, "=")
		if name == "" || limited && namespaces == "" {
			return nil, fmt.Errorf("--allow-client %q: must be NAME, or NAME=NAMESPACE,NAMESPACE", rule)
		}
		allowed[name] = nil
		if limited {
			allowed[name] = strings.Split(namespaces, ",")
		}
	}
	return func(ctx context.Context, namespace string) error {
		names := clientNames(ctx)
		for _, name := range names {
			namespaces, known := allowed[name]
			if known && (namespaces == nil || slices.Contains(namespaces, namespace)) {
				return nil
			}
		}
		asked := "namespace " + namespace
		if namespace == "" {
			asked = "all namespaces"
		}
		return status.Errorf(codes.PermissionDenied, "client %s may not ask about %s: allow it with --allow-client",
			strings.Join(names, ", "), asked)
	}, nil
}

// clientNames are the names that a caller's certificate proves: its common name and its DNS names.
func clientNames(ctx context.Context) []string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil
	}
	leaf := info.State.VerifiedChains[0][0]
	if leaf.Subject.CommonName == "" {
		return leaf.DNSNames
	}
	return append([]string{leaf.Subject.CommonName}, leaf.DNSNames...)
}
