package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sweepWithin bounds the end of what a command left behind. The kernel ends a process at once, unless it hangs in a file system.
	sweepWithin = 10 * time.Second
	// pipesWithin is how long the last output of a command that has ended is waited for. Only a process that was handed the pipe and is
	// no descendant can hold it open then.
	pipesWithin = time.Second
	// orphansEvery is how often zombies are reaped while a command runs.
	orphansEvery = time.Second
)

// Boundary is what one command runs in. When Run returns, nothing that the command started runs any more and nobody waits for its pipes.
type Boundary struct {
	// Reaper ends what left the command's process group. Nil ends the group alone: for a process that has other children.
	Reaper *Reaper
	// Grace is the time between SIGTERM and SIGKILL.
	Grace time.Duration
	// User that the command runs as; nil: this process's. It takes CAP_SETUID, CAP_SETGID and CAP_KILL.
	User *syscall.Credential
	// Confinement of the command; nil: none.
	Confinement *Confinement
}

// End is how a command ended.
type End struct {
	State             *os.ProcessState
	Started, Finished time.Time
	// Stopped is why it was told to end, if it was before it ended by itself. What it wrote is not the whole then.
	Stopped error
}

// Run runs a command. When ctx ends, or what it writes can't be taken, the command gets SIGTERM and, after the grace, SIGKILL. The error is
// one of Start, or wraps ErrLeft.
func (b Boundary) Run(ctx context.Context, cmd *exec.Cmd) (End, error) {
	if b.Reaper != nil {
		b.Reaper.mu.Lock()
		defer b.Reaper.mu.Unlock()
	}
	pipes, err := connect(cmd)
	if err != nil {
		return End{}, err
	}
	defer pipes.close()
	exited, err := b.start(cmd)
	pipes.started()
	if err != nil {
		return End{}, err
	}
	end := End{Started: time.Now()}
	end.Stopped = b.await(ctx, cmd, exited, pipes.failed)
	if end.Stopped != nil {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGTERM) // it may have ended meanwhile
		select {
		case <-exited:
		case <-time.After(b.Grace):
		}
	}
	// The group of a process that is not reaped is nobody else's.
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	select {
	case <-exited:
	case <-time.After(sweepWithin):
		return end, fmt.Errorf("%w: the command can't be ended within %s: does it hang in a file system?", ErrLeft, sweepWithin)
	}
	end.Finished = time.Now()
	if end.State, err = cmd.Process.Wait(); err != nil {
		return end, err
	}
	if b.Reaper != nil {
		err = errors.Join(b.Reaper.sweep(sweepWithin), removeIPC())
	}
	pipes.drain(pipesWithin)
	return end, err
}

// await waits for the end of the command, or for a reason to end it.
func (b Boundary) await(ctx context.Context, cmd *exec.Cmd, exited <-chan struct{}, failed <-chan error) error {
	var tick <-chan time.Time
	if b.Reaper != nil {
		ticker := time.NewTicker(orphansEvery)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-exited:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-failed:
			return err
		case <-tick:
			b.Reaper.reapOrphans(cmd.Process.Pid)
		}
	}
}

// start starts the command. Exited is closed when it has ended; it is not reaped by that.
func (b Boundary) start(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: b.User}
	ReserveThreads()
	started, end := make(chan error, 1), make(chan struct{})
	go onThreadOfItsOwn(func() {
		// The parent-death signal comes when this thread ends, so it stays until the command has ended. A command inherits the
		// confinement of the thread that starts it.
		err := b.Confinement.apply()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err != nil {
			return
		}
		for {
			err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		close(end)
	})
	return end, <-started
}

// onThreadOfItsOwn runs f on a thread that is never used for anything else, and is not the process's first: that one stands for the process
// when a command sends it a signal, which the kernel allows within one confinement.
func onThreadOfItsOwn(f func()) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	defer runtime.UnlockOSThread()
	other := make(chan struct{})
	go func() {
		runtime.LockOSThread() // another one, as this goroutine holds the first
		close(other)
		f()
	}()
	<-other
}

// pipes lead to and from a command. They are not those of os/exec, which waits for them before it says that the command has ended.
type pipes struct {
	theirs, ours []*os.File
	copies       int
	done         chan struct{}
	failed       chan error
	copying      []func() error
}

// connect puts pipes in place of a command's readers and writers.
func connect(cmd *exec.Cmd) (*pipes, error) {
	p := &pipes{done: make(chan struct{}, 3), failed: make(chan error, 3)}
	if _, file := cmd.Stdin.(*os.File); cmd.Stdin != nil && !file {
		in := cmd.Stdin
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		p.theirs, p.ours = append(p.theirs, r), append(p.ours, w)
		p.copying = append(p.copying, func() error {
			_, _ = io.Copy(w, in) // a command need not read its input
			w.Close()
			return nil
		})
		cmd.Stdin = r
	}
	streams := []*io.Writer{&cmd.Stdout, &cmd.Stderr}
	if same(cmd.Stdout, cmd.Stderr) { // two copies would write to it at the same time
		streams = streams[:1]
		defer func() { cmd.Stderr = cmd.Stdout }()
	}
	for _, stream := range streams {
		out := *stream
		if _, ok := out.(*os.File); out == nil || ok {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			p.started()
			p.close()
			return nil, err
		}
		p.theirs, p.ours = append(p.theirs, w), append(p.ours, r)
		p.copying = append(p.copying, func() error {
			_, err := io.Copy(out, r)
			if errors.Is(err, os.ErrClosed) {
				return nil // by drain
			}
			return err
		})
		*stream = w
	}
	return p, nil
}

// same reports whether two writers are one.
func same(a, b io.Writer) bool {
	return a != nil && b != nil && reflect.TypeOf(a).Comparable() && reflect.TypeOf(b).Comparable() && a == b
}

// started closes the command's ends, and begins to copy.
func (p *pipes) started() {
	for _, file := range p.theirs {
		file.Close()
	}
	p.copies = len(p.copying)
	for _, transfer := range p.copying {
		go func() {
			if err := transfer(); err != nil {
				p.failed <- err
			}
			p.done <- struct{}{}
		}()
	}
	p.copying = nil
}

// drain waits for the last output, for a bounded time.
func (p *pipes) drain(within time.Duration) {
	over := time.After(within)
	for p.copies > 0 {
		select {
		case <-p.done:
			p.copies--
		case <-over:
			p.close()
			over = nil
		}
	}
}

// close ends all copies.
func (p *pipes) close() {
	for _, file := range p.ours {
		file.Close()
	}
}
