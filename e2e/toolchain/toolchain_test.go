package toolchain

import (
	"context"
	"io"
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

// The key changes with the pins, and with nothing else.
func TestPins(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "charts"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := func() string {
		k, err := pins(dir)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if _, err := pins(dir); err == nil {
		t.Error("a module without pins has a key")
	}
	write("go.mod", "module tools")
	write("go.sum", "a")
	write("charts/go.mod", "module charts")
	write("charts/go.sum", "a")
	first := key()
	write("README", "x")
	if key() != first {
		t.Error("the key depends on what pins nothing")
	}
	write("go.sum", "b")
	second := key()
	if second == first {
		t.Error("the key is the same for other pins")
	}
	write("charts/go.sum", "b")
	if key() == second {
		t.Error("the key is the same for other pins of a module in a folder")
	}
}

// A second holder waits until the first gives the lock back.
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
