package toolchain

import (
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMayInstall(t *testing.T) {
	missing := []string{"rabbitmq-server", "runc"}
	for name, tc := range map[string]struct {
		debian, root bool
		want         string
	}{
		"root on Debian": {true, true, ""},
		"a user":         {true, false, "sudo sh -c 'apt-get update && apt-get install --no-install-recommends rabbitmq-server runc'"},
		"another system": {false, true, "this is not Debian: install by your system's means what these of its packages hold: rabbitmq-server runc"},
	} {
		t.Run(name, func(t *testing.T) {
			err := mayInstall(missing, tc.debian, tc.root)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// A tool's key changes with the pins of its own module, and with nothing else; the set's key changes with any tool's.
func TestPins(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := pins(dir); err == nil {
		t.Error("a module without pins has a key")
	}
	for _, tool := range tools {
		for _, name := range []string{"go.mod", "go.sum", "main.go"} {
			write(filepath.Join(tool.module, name), "a")
		}
	}
	// changed are the modules whose tools have other keys after a change.
	changed := func(name string) map[string]bool {
		before, set, err := pins(dir)
		if err != nil {
			t.Fatal(err)
		}
		write(name, "b")
		after, newSet, err := pins(dir)
		if err != nil {
			t.Fatal(err)
		}
		modules := map[string]bool{}
		for i, tool := range tools {
			if before[i] != after[i] {
				modules[tool.module] = true
			}
		}
		if (set != newSet) != (len(modules) > 0) {
			t.Errorf("%s: the set's key does not follow its tools'", name)
		}
		return modules
	}
	for name, want := range map[string]map[string]bool{
		"README": {}, "main.go": {}, "go.sum": {"": true}, "charts/go.mod": {"charts": true}, "coredns/main.go": {"coredns": true},
	} {
		if got := changed(name); !maps.Equal(got, want) {
			t.Errorf("a change of %s changes the tools of %v, want %v", name, got, want)
		}
	}
}

// A second holder waits until the first releases the lock.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var progress strings.Builder
	if _, err := lock(ctx, path, &progress); err == nil {
		t.Fatal("two hold the lock")
	}
	if !strings.Contains(progress.String(), "waiting for it") {
		t.Errorf("it waited in silence: %q", progress.String())
	}
	unlock()
	unlock, err = lock(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestRoot(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(Module(root), "go.mod")); err != nil {
		t.Error(err)
	}
	t.Chdir(t.TempDir())
	if _, err := Root(); err == nil || !strings.Contains(err.Error(), "not inside a clone") {
		t.Errorf("error %v outside a clone", err)
	}
}
