// Package child runs programs that do not outlive this one, not even when it is killed.
package child

import (
	"context"
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a command in a process group of its own, and sends what its Wait returns.
func Start(cmd *exec.Cmd) (ended <-chan error, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, end := make(chan error, 1), make(chan error, 1)
	go func() {
		// The parent-death signal comes when this thread ends, so it stays until the command has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			end <- cmd.Wait()
		}
	}()
	return end, <-started
}

// Kill ends a command that was started, with all of its group.
func Kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// Run runs a command to its end, or until ctx ends; then the error is the cause.
func Run(ctx context.Context, cmd *exec.Cmd) error {
	ended, err := Start(cmd)
	if err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		Kill(cmd)
		<-ended //nolint:errcheck // it was killed
		return context.Cause(ctx)
	}
}
