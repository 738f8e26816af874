package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The scaler is small because it links nothing of the scheduler's side.
func TestLinksNoScheduler(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dependency := range strings.Fields(string(out)) {
		if strings.HasPrefix(dependency, "k8s.io/kubernetes/") || strings.Contains(dependency, "ebbtide/scheduler-plugin") {
			t.Errorf("the scaler links %s", dependency)
		}
	}
}
