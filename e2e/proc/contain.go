package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
)

// containEnv tells a program which of Contain's stages it is in.
const containEnv = "EBBTIDE_CONTAINED"

// outerPIDEnv holds the process id of the outermost stage, by which the rest of the machine knows the program.
const outerPIDEnv = "EBBTIDE_OUTER_PID"

const (
	stageInit    = "init"    // process 1 of the PID namespace
	stageProgram = "program" // the program itself
	stageJanitor = "janitor" // outside of the namespace: it removes what the kernel leaves
)

// Contained reports whether this program runs inside Contain's namespaces.
func Contained() bool { return os.Getenv(containEnv) == stageProgram }

// OuterPID is the process id by which the rest of the machine knows this program.
func OuterPID() int {
	if pid, err := strconv.Atoi(os.Getenv(outerPIDEnv)); err == nil && Contained() {
		return pid
	}
	return os.Getpid()
}

// Contain moves the program into a PID and a mount namespace of its own, by running it again there, and never returns
// in the outer process: it ends with the inner program's exit code. When the outer process is killed, even by SIGKILL,
// the kernel kills every process in the namespace, whatever group or session it has moved to (container shims, say),
// and its mounts go with it. Call it first thing in main or TestMain. In the inner program, and where namespaces can't
// be made (no root), it returns; the error then says why.
//
// There are three stages: the outer process waits; process 1 of the namespace reaps orphans, which a Go program that
// uses os/exec can't do itself; its child is the program. Beside them a janitor waits for the outer process to end,
// removes the program's cgroups, which nothing in the kernel ties to a process, and ends.
func Contain() error {
	switch os.Getenv(containEnv) {
	case stageProgram:
		return nil
	case stageInit:
		os.Exit(runInit())
	case stageJanitor:
		runJanitor()
		os.Exit(0)
	}
	if os.Geteuid() != 0 {
		return errors.New("a PID namespace needs root")
	}
	janitor, err := startJanitor()
	if err != nil {
		return fmt.Errorf("start a process that cleans up: %w", err)
	}
	cmd := again(stageInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := startBound(cmd); err != nil {
		signal.Reset()
		return fmt.Errorf("make a PID namespace: %w", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	janitor.Close() // as the kernel does when this process is killed
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(exitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)))
	return nil
}

// runInit is process 1: it mounts a /proc that fits the namespace, runs the program, forwards signals and reaps.
func runInit() int {
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		fmt.Fprintln(os.Stderr, "mount /proc:", err)
		return 1
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	cmd := again(stageProgram)
	if err := startBound(cmd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "wait:", err)
			return 1
		}
		if pid == cmd.Process.Pid && (status.Exited() || status.Signaled()) {
			return exitStatus(status)
		}
	}
}

// startJanitor starts a process that waits for the end of its input, of which this one alone holds the other end.
func startJanitor() (*os.File, error) {
	input, output, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer input.Close()
	cmd := again(stageJanitor)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, nil, nil
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return output, cmd.Start()
}

func runJanitor() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	if pid, err := strconv.Atoi(os.Getenv(outerPIDEnv)); err == nil {
		removeCgroups(pid)
	}
}

// again is the command that runs this program once more as a later stage.
func again(stage string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), containEnv+"="+stage)
	if stage != stageProgram {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", outerPIDEnv, os.Getpid()))
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// exitStatus is what a shell reports: the exit code, or 128 and the signal's number.
func exitStatus(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
