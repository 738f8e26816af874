package child_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebbtide-dev/ebbtide/internal/child"
)

// survives tells this program, started again, that it is to outlive the bomb of TestForksWithoutEnd.
const survives = "EBBTIDE_TEST_SURVIVES"

// bomb starts processes as fast as it can, for ever, also when there can be no more. A shell would end then.
const bomb = "$SIG{TERM} = 'IGNORE'; while (1) { my $child = fork; if (defined $child && !$child) { sleep 300; exit } }"

// survive runs a bomb where there may be 60 processes and threads, as in a container with a limit, and ends it.
func survive() error {
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 60, Max: 60}); err != nil {
		return err
	}
	reaper, err := child.NewReaper()
	if err != nil {
		return err
	}
	for range 3 { // the next command starts as the first
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		cmd := exec.Command("perl", "-e", bomb)
		cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
		end, err := child.Boundary{Reaper: reaper, Grace: 100 * time.Millisecond}.Run(ctx, cmd)
		cancel()
		if err != nil {
			return err
		}
		if end.Stopped == nil {
			return fmt.Errorf("the bomb ended by itself: %v", end.State)
		}
	}
	return nil
}

// A command that forks until there can be no more processes, and keeps trying, does not take its worker with it.
func TestForksWithoutEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to have a limit of processes of its own")
	}
	if _, err := exec.LookPath("perl"); err != nil {
		t.Skip(err)
	}
	folder, err := os.MkdirTemp("/tmp", "ebbtide-forks-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "test")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	// Another user than any that has processes.
	user := uint32(100_000 + os.Getpid()) //nolint:gosec // ids of processes are not negative
	as := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	t.Cleanup(func() { // where the worker did not survive
		cmd := exec.Command("sh", "-c", "kill -KILL -1")
		cmd.SysProcAttr = as
		_ = cmd.Run() // killed
	})
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), survives+"=yes")
	cmd.SysProcAttr = as
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Equal(out, []byte("survived\n")) {
		t.Errorf("%v\n%.3000s", err, out)
	}
}
