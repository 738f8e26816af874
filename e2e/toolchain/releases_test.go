package toolchain

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every release has its checksums.
func TestReleaseSums(t *testing.T) {
	for name, releases := range Releases {
		for _, r := range releases {
			if pins := r.pins(); !strings.Contains(pins, parts[name].module+" v"+r.Version+" h1:") || parts[name].staging && strings.Count(pins, "\n") < 40 {
				t.Errorf("%s: releases.sum has\n%s", r, pins)
			}
		}
	}
}

// The go.mod of a release of Kubernetes has its published modules in the place of the folders of its repository.
func TestWriteModule(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", `module k8s.io/kubernetes

require (
	github.com/spf13/cobra v1.9.1
	k8s.io/api v0.0.0
	k8s.io/klog/v2 v2.130.1
	k8s.io/utils v0.0.0-20250604170112-4c0f3b243397
	k8s.io/sample-cli-plugin v0.0.0
	k8s.io/client-go v0.0.0 // indirect
)

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	k8s.io/sample-cli-plugin => ./staging/src/k8s.io/sample-cli-plugin
)
`)
	write("go.sum", "github.com/spf13/cobra v1.9.1 h1:x\n")
	modfile := filepath.Join(t.TempDir(), "go.mod")
	if err := (Release{"kubernetes", "1.34.3"}).writeModule(dir, modfile); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(modfile)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\tk8s.io/api v0.34.3\n", "\tk8s.io/client-go v0.34.3\n", "\tk8s.io/klog/v2 v2.130.1\n", "\tk8s.io/utils v0.0.0-20250604170112-4c0f3b243397\n", "\tk8s.io/api => k8s.io/api v0.34.3\n"} {
		if !strings.Contains(string(mod), want) {
			t.Errorf("no %q in\n%s", want, mod)
		}
	}
	if strings.Contains(string(mod), "sample") || strings.Contains(string(mod), "staging") {
		t.Errorf("what is not published is still there:\n%s", mod)
	}
	sum, err := os.ReadFile(strings.TrimSuffix(modfile, ".mod") + ".sum")
	if err != nil || !strings.HasPrefix(string(sum), "github.com/spf13/cobra v1.9.1 h1:x\n") || !strings.Contains(string(sum), "\nk8s.io/api v0.34.3 h1:") {
		t.Errorf("%v\n%s", err, sum)
	}
}
