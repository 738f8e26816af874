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
	ReserveThreads()
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

// Kill ends a command that was started, with all of its group, and returns how it ended.
func Kill(cmd *exec.Cmd, ended <-chan error) error {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return <-ended
}

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
		_ = Kill(cmd, ended) // that it was killed
		return context.Cause(ctx)
	}
}
