package rabbitmq

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// StartForTest starts a broker that ends with the test. The test is skipped in short mode and where RabbitMQ is not
// installed; in CI, where it can be, that is a failure. Config is added to rabbitmq.conf.
func StartForTest(t testing.TB, config ...string) *Broker {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real broker")
	}
	if err := Available(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("in CI this must run: ", err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b, err := Start(ctx, Options{Dir: t.TempDir(), Config: strings.Join(config, "\n")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

// StartClusterForTest starts a cluster that ends with the test, or skips the test where its release is not installed. Options.Dir may be
// empty.
func StartClusterForTest(t testing.TB, n int, options Options) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real brokers")
	}
	if err := options.Release.available(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if options.Dir == "" {
		options.Dir = t.TempDir()
	}
	c, err := StartCluster(ctx, n, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}
