package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roleEnv makes the test binary a program that a test runs.
const roleEnv = "EBBTIDE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "contained":
		contained()
	case "group":
		group()
	default:
		os.Exit(m.Run())
	}
}

// contained is a program in namespaces of its own, with a child that left its process group and a mount.
func contained() {
	if err := Contain(); err != nil {
		fmt.Println("error", err)
		os.Exit(3)
	}
	dir := os.Getenv("EBBTIDE_TEST_DIR")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		fmt.Println("error", err)
		os.Exit(3)
	}
	if CgroupsAvailable() == nil {
		if err := joinCgroup("test"); err != nil {
			fmt.Println("error", err)
			os.Exit(3)
		}
	}
	runaway := exec.Command("setsid", "--fork", "sleep", os.Getenv("EBBTIDE_TEST_SLEEP"))
	if err := runaway.Run(); err != nil {
		fmt.Println("error", err)
		os.Exit(3)
	}
	fmt.Println("up", OuterPID())
	if os.Getenv("EBBTIDE_TEST_EXIT") != "" {
		os.Exit(7)
	}
	_ = syscall.Pause() // until a signal
}

// joinCgroup moves this program into a new cgroup, where its children will be too.
func joinCgroup(name string) error {
	if _, err := MakeCgroup(name); err != nil {
		return err
	}
	for _, dir := range cgroupsOf(OuterPID()) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil { // 0 is who writes it
			return err
		}
	}
	return nil
}

func awaitNoCgroups(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := cgroupsOf(pid)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("cgroups left: %v", left)
		}
	}
}

// group is a program with a child in a group.
func group() {
	g := NewGroup(os.Getenv("EBBTIDE_TEST_DIR"))
	if _, err := g.Start(context.Background(), Spec{Name: "child", Path: "sleep", Args: []string{os.Getenv("EBBTIDE_TEST_SLEEP")}}); err != nil {
		fmt.Println("error", err)
		os.Exit(3)
	}
	fmt.Println("up", os.Getpid())
	_ = syscall.Pause() // until a signal
}

// play starts the test binary in a role and waits until it is up. The returned word is the argument by which its
// descendants can be told from all other processes.
func play(t *testing.T, role, dir string, env ...string) (cmd *exec.Cmd, mark string) {
	t.Helper()
	mark = fmt.Sprintf("%d.%d", 1000+os.Getpid(), time.Now().UnixNano())
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role, "EBBTIDE_TEST_DIR="+dir, "EBBTIDE_TEST_SLEEP="+mark), env...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != fmt.Sprintf("up %d\n", cmd.Process.Pid) {
		t.Fatalf("%s says %q (%v), want that it is up as process %d", role, line, err, cmd.Process.Pid)
	}
	return cmd, mark
}

// survivors are the processes with the mark among their arguments.
func survivors(t *testing.T, mark string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), mark) {
			found = append(found, path)
		}
	}
	return found
}

func awaitNoSurvivors(t *testing.T, mark string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := survivors(t, mark)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left running: %v", left)
		}
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
}

func TestContain(t *testing.T) {
	needsRoot(t)
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			dir := t.TempDir()
			cmd, mark := play(t, "contained", dir)
			if len(survivors(t, mark)) == 0 {
				t.Fatal("the runaway child does not run, so its end would prove nothing")
			}
			if CgroupsAvailable() == nil && len(cgroupsOf(cmd.Process.Pid)) == 0 {
				t.Fatal("there is no cgroup, so that none is left would prove nothing")
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // its status is the signal's
			awaitNoSurvivors(t, mark)
			awaitNoCgroups(t, cmd.Process.Pid)
			mounts, err := os.ReadFile("/proc/self/mounts")
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(mounts), dir) {
				t.Error("its mount is left")
			}
		})
	}
	t.Run("exit code", func(t *testing.T) {
		cmd, mark := play(t, "contained", t.TempDir(), "EBBTIDE_TEST_EXIT=1")
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("ended with %v, want exit code 7", err)
		}
		awaitNoSurvivors(t, mark)
	})
}

func TestChildrenDieWithParent(t *testing.T) {
	cmd, mark := play(t, "group", t.TempDir())
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	awaitNoSurvivors(t, mark)
}

func TestGroup(t *testing.T) {
	t.Run("not ready", func(t *testing.T) {
		g := NewGroup(t.TempDir())
		defer g.Stop()
		_, err := g.Start(t.Context(), Spec{
			Name: "broken", Path: "sh", Args: []string{"-c", "echo the disk is full; exit 3"},
			Ready: func(context.Context) error { return errors.New("nothing listens") },
		})
		for _, want := range []string{"broken is not ready", "exit status 3", "the disk is full"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %q", err, want)
			}
		}
	})
	t.Run("deadline", func(t *testing.T) {
		g := NewGroup(t.TempDir())
		defer g.Stop()
		_, err := g.Start(t.Context(), Spec{
			Name: "slow", Path: "sleep", Args: []string{"60"}, ReadyWithin: 200 * time.Millisecond,
			Ready: func(context.Context) error { return errors.New("nothing listens") },
		})
		if err == nil || !strings.Contains(err.Error(), "no answer within 200ms: last check: nothing listens") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("stop is stubborn", func(t *testing.T) {
		g, dir := NewGroup(t.TempDir()), t.TempDir()
		p, err := g.Start(t.Context(), Spec{
			Name: "stubborn", Path: "sh", Args: []string{"-c", "trap '' TERM; touch " + dir + "/trapped; sleep 60 & wait; sleep 60"},
			StopWithin: 200 * time.Millisecond,
			Ready:      func(context.Context) error { _, err := os.Stat(dir + "/trapped"); return err },
		})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		g.Stop()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
		select {
		case <-p.Done():
		default:
			t.Error("it still runs")
		}
		if _, err := g.Start(t.Context(), Spec{Name: "late", Path: "true"}); err == nil {
			t.Error("a stopped group starts children")
		}
	})
}

func TestFreePorts(t *testing.T) {
	seen := map[int]bool{}
	for range 20 {
		ports, err := FreePorts(10)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range ports {
			if seen[port] {
				t.Fatalf("port %s handed out twice", strconv.Itoa(port))
			}
			seen[port] = true
		}
	}
}
