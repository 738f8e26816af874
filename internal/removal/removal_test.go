package removal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebbtide-dev/ebbtide/internal/removal"
)

// Whatever is there is removed, and only that.
func TestAll(t *testing.T) {
	outside := t.TempDir()
	kept := filepath.Join(outside, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"nothing":            "true",
		"a file":             "echo x > it",
		"a link":             "ln -s " + outside + " it",
		"a pipe":             "mkfifo it",
		"folders closed":     "mkdir -p it/a/b/c it/d; touch it/a/b/c/x; chmod 000 it/a/b/c it/a/b it/a it",
		"links to outside":   "mkdir -p it/a; ln -s " + outside + " it/a/l; ln -s " + kept + " it/a/m; chmod 000 it/a it",
		"names of the moved": "mkdir -p it/removed-0/removed-1/removed-0 it/removed-2; chmod 000 it/removed-0",
		"many files":         "mkdir -p it/a/b; cd it/a/b; seq 3000 | xargs touch; chmod 000 ..",
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			cmd := exec.Command("sh", "-c", script)
			cmd.Dir = folder
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			if err := removal.All(filepath.Join(folder, "it")); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
				t.Errorf("%v are left, %v", left, err)
			}
		})
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error("what is outside is gone: ", err)
	}
}

// Folders in folders, deeper than this process may have files open, and than a path may be long.
func TestAllThatIsDeep(t *testing.T) {
	folder := t.TempDir()
	deep := filepath.Join(folder, "it")
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := "it"
	for range 3000 {
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			t.Fatal(err)
		}
		below, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		fd, name = below, "d"
	}
	_ = unix.Close(fd)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 200
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err = removal.All(deep)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(deep); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
}
