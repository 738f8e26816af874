package scenario

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/compat"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// The oldest API server that the scheduler runs with. make compat runs the rest.
func TestCompat(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	root, tools, err := cluster.Prepare(ctx, scans.Programs...)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ebbtide-compat-")
	if err != nil {
		t.Fatal(err)
	}
	if err := compat.Play(ctx, compat.Quick(), root, tools, dir, os.Stderr, "packing", "leader change", "RBAC", "charts"); err != nil {
		t.Fatalf("%v (logs are in %s)", err, dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Log("remove the cluster's folder:", err)
	}
}
