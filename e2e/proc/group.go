package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Spec describes one child process.
type Spec struct {
	// Name of the component; its log is Name.log in the group's directory.
	Name string
	// Path of the binary, then its arguments.
	Path string
	Args []string
	// Env is added to the parent's environment.
	Env []string
	// Dir is the working directory; the parent's when empty.
	Dir string
	// Stdin is given to the child; nil is /dev/null.
	Stdin io.Reader
	// Ready reports nil once the component answers its own health endpoint. Nil means ready once started.
	Ready func(context.Context) error
	// ReadyWithin bounds the wait for Ready. Default: one minute.
	ReadyWithin time.Duration
	// StopWithin is how long the child may take after SIGTERM before it gets SIGKILL. Default: ten seconds.
	StopWithin time.Duration
}

// Group starts children and stops them all. The zero value is not usable; see NewGroup.
type Group struct {
	logDir string

	mu       sync.Mutex
	children []*Process
	stopping bool
}

// NewGroup returns a group that writes its children's logs to logDir.
func NewGroup(logDir string) *Group { return &Group{logDir: logDir} }

// Process is one started child.
type Process struct {
	Name string
	// Log is the path of the file that holds the child's output.
	Log string

	spec Spec
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// PID of the child.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode is the child's exit code once Done is closed; -1 when a signal ended it.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Signal sends sig to the child alone, not to its process group.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Start starts a child and waits until it is ready. On failure the error holds the last lines of the child's log, and
// the child is stopped.
func (g *Group) Start(ctx context.Context, spec Spec) (*Process, error) {
	p, err := g.launch(spec)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	if spec.Ready == nil {
		return p, nil
	}
	if err := p.waitReady(ctx); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s is not ready: %w\n%s", spec.Name, err, p.explain())
	}
	return p, nil
}

func (g *Group) launch(spec Spec) (*Process, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		return nil, errors.New("the group is stopping")
	}
	if err := os.MkdirAll(g.logDir, 0o755); err != nil {
		return nil, err
	}
	logPath := filepath.Join(g.logDir, spec.Name+".log")
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()

	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.Dir = spec.Dir
	cmd.Stdin = spec.Stdin
	cmd.Stdout, cmd.Stderr = logFile, logFile
	p := &Process{Name: spec.Name, Log: logPath, spec: spec, cmd: cmd, done: make(chan struct{})}
	if err := startBound(cmd); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	g.children = append(g.children, p)
	return p, nil
}

// Restart starts a child again, as it was started before, once it has ended.
func (g *Group) Restart(ctx context.Context, p *Process) (*Process, error) {
	return g.Start(ctx, p.spec)
}

// Stop ends every child in the reverse order of its start and returns when none is left.
func (g *Group) Stop() {
	g.mu.Lock()
	g.stopping = true
	children := g.children
	g.mu.Unlock()
	for i := len(children) - 1; i >= 0; i-- {
		children[i].stop()
	}
}

// Children lists the children in the order of their start, ended ones included.
func (g *Group) Children() []*Process {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*Process(nil), g.children...)
}

func (p *Process) waitReady(ctx context.Context) error {
	within := p.spec.ReadyWithin
	if within == 0 {
		within = time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("no answer within %s", within))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		attempt, cancelAttempt := context.WithTimeout(ctx, 2*time.Second)
		last := p.spec.Ready(attempt)
		cancelAttempt()
		if last == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it exited: %w", exitError(p))
		case <-ctx.Done():
			return fmt.Errorf("%w: last check: %w", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

func exitError(p *Process) error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// Stop ends this child: SIGTERM to its process group, SIGKILL once its time is over.
func (p *Process) Stop() { p.stop() }

func (p *Process) stop() {
	within := p.spec.StopWithin
	if within == 0 {
		within = 10 * time.Second
	}
	_ = syscall.Kill(-p.PID(), syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(within):
	}
	// Also after a clean exit: what the child left in its process group ends with it.
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	<-p.done
}

const explainLines = 15

// explain returns the end of the child's log, which tells more of a failed start than its exit status.
func (p *Process) explain() string {
	tail, err := Tail(p.Log, 64<<10)
	if err != nil {
		return fmt.Sprintf("its log can't be read: %v", err)
	}
	lines := strings.Split(strings.TrimRight(string(tail), "\n"), "\n")
	if len(lines) > explainLines {
		lines = lines[len(lines)-explainLines:]
	}
	return fmt.Sprintf("the last lines of %s:\n  %s", p.Log, strings.Join(lines, "\n  "))
}

// Tail returns at most limit bytes from the end of a file.
func Tail(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		if _, err := f.Seek(-limit, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	tail, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		if _, rest, ok := bytes.Cut(tail, []byte("\n")); ok {
			tail = rest
		}
	}
	return tail, nil
}

// startBound starts cmd as the leader of a process group, to be killed when this process ends. The kernel sends the
// parent-death signal when the *thread* that started the child ends, so one thread that never ends starts them all.
func startBound(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	starterOnce.Do(func() {
		go func() {
			runtime.LockOSThread()
			for start := range starter {
				start.result <- start.cmd.Start()
			}
		}()
	})
	request := startRequest{cmd: cmd, result: make(chan error, 1)}
	starter <- request
	return <-request.result
}

type startRequest struct {
	cmd    *exec.Cmd
	result chan error
}

var (
	starterOnce sync.Once
	starter     = make(chan startRequest)
)
