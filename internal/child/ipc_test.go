package child_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebbtide-dev/ebbtide/internal/child"
)

// What a command leaves of System V objects is gone, in a container, and what processes of other containers of the pod have made is left alone.
func TestSharedMemoryIsRemoved(t *testing.T) {
	const variable = "EBBTIDE_TEST_IPC"
	objects := func() (n int) {
		for _, kind := range []string{"shm", "msg", "sem"} {
			text, err := os.ReadFile("/proc/sysvipc/" + kind)
			if err != nil {
				t.Fatal(err)
			}
			n += strings.Count(string(text), "\n") - 1
		}
		return n
	}
	perl := func(program string) *exec.Cmd {
		return exec.Command("perl", "-e", "my $create = 01600; "+program)
	}
	const (
		memory = `defined shmget(0, 4096, $create) or die "shmget: $!"; `
		queue  = `my $q = msgget(0, $create); defined $q && msgsnd($q, pack("l! a*", 1, "secret"), 0) or die "msgsnd: $!"; `
		sem    = `my $s = semget(0, 3, $create); defined $s && semop($s, pack("s!3", 2, 1, 0)) or die "semop: $!"; `
	)
	switch os.Getenv(variable) {
	case "pod": // of which this is a process in another container
		if out, err := perl(memory + queue + sem).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestSharedMemoryIsRemoved$", "-test.v")
		cmd.Env = append(os.Environ(), variable+"=container")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	case "container":
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			t.Fatal(err)
		}
		reaper, err := child.NewReaper()
		if err != nil {
			t.Fatal(err)
		}
		cmd := perl(memory + memory + queue + sem + "print 'made'")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if _, err := (child.Boundary{Reaper: reaper}).Run(context.Background(), cmd); err != nil || out.String() != "made" {
			t.Fatalf("%v %s", err, out.String())
		}
		if n := objects(); n != 3 {
			t.Errorf("%d objects are there, want the 3 of another container", n)
		}
		return
	}
	if _, err := exec.LookPath("perl"); err != nil || os.Geteuid() != 0 {
		t.Skip("it takes root, and perl: ", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSharedMemoryIsRemoved$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"=pod")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWIPC}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
}
