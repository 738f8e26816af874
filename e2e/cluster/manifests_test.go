package cluster_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

// What a user applies with kubectl is what the API server takes.
func TestIntegrationManifests(t *testing.T) {
	c := startControlPlane(t)
	root, err := toolchain.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, overlay := range []string{".", "overlays/minimal", "overlays/local", "overlays/production"} {
		rendered, err := exec.CommandContext(t.Context(), c.Kubectl(), "kustomize", filepath.Join(root, "manifests", overlay)).Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.ApplyYAML(t.Context(), rendered); err != nil {
			t.Errorf("%s: %v", overlay, err)
		}
	}
}
