package rabbitmq

import (
	"context"
	"os"
	"testing"
	"time"
)

// StartForTest starts a broker that ends with the test. The test is skipped in short mode and where RabbitMQ is not
// installed; in CI, where it can be, that is a failure.
func StartForTest(t testing.TB) *Broker {
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
	b, err := Start(ctx, Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}
