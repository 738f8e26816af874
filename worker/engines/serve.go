package engines

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	"github.com/ebbtide-dev/ebbtide/worker"
	"github.com/ebbtide-dev/ebbtide/worker/sourcestore"
)

const (
	// messageFile is the path at which a command finds the message, which is its standard input: a file in memory.
	messageFile = "/proc/self/fd/0"
	// saidBytes is how much of the end of standard error is kept.
	saidBytes = 2 << 10
	// closeWithin is how long commands may keep running when the server has to end.
	closeWithin = 5 * time.Second
)

// Server runs a command for each message that it is asked to scan.
type Server struct {
	// Command is run, with the message as its standard input.
	Command []string
	// OutputMaxBytes bounds what it may write to standard output. It is kept in memory.
	OutputMaxBytes int
	// Stderr gets what it writes to standard error.
	Stderr io.Writer
	// Reaper ends what the command leaves behind; nil ends its process group alone. Its process must do nothing else then.
	Reaper *child.Reaper
	// Confinement of the command; nil: none.
	Confinement *child.Confinement
	// Grace is the time between SIGTERM and SIGKILL of a command that is to end before it has. Whoever called may wait for it.
	Grace time.Duration
	// Scratch are folders that belong to the command, emptied before and after each message.
	Scratch []string
	// ScratchLimit bounds what the command may have there.
	ScratchLimit worker.ScratchLimit

	// OwnFolder says that the socket's folder belongs to the server alone: what a command leaves there is removed.
	OwnFolder bool

	// door is where the server is asked.
	door *door
	// left ends the server, when something of a command is left that can't be ended.
	left context.CancelCauseFunc
	// running is held by the one message that is scanned.
	running *sync.Mutex
}

// Serve answers at a socket until ctx ends. What an earlier server left there is removed: after a crash the container starts again.
func (s Server) Serve(ctx context.Context, socket string) error {
	s.running = &sync.Mutex{}
	ctx, s.left = context.WithCancelCause(ctx)
	defer s.left(nil)
	var err error
	if s.door, err = openDoor(ctx, socket, s.OwnFolder); err != nil {
		return err
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ConnContext: withCaller}
	context.AfterFunc(ctx, func() {
		// Kubernetes ends sidecars after the worker, so nobody waits for an answer any more.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	if err := server.Serve(s.door); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	// The next message is for a container that starts again.
	if cause := context.Cause(ctx); errors.Is(cause, child.ErrLeft) {
		return cause
	}
	return nil
}

// ServeHTTP runs the command on a posted message.
func (s Server) ServeHTTP(response http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		response.WriteHeader(http.StatusNoContent)
		return
	}
	if pid := caller(r.Context()); child.IsDescendant(pid) {
		// The command, which would have a scan of its own choice run when its time is over.
		http.Error(response, "a scan can't ask for a scan", http.StatusForbidden)
		return
	}
	var order request
	if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	got, err := s.run(r.Context(), order)
	if errors.Is(err, child.ErrLeft) {
		s.left(err)
	}
	if err != nil {
		http.Error(response, err.Error(), http.StatusInternalServerError)
		return
	}
	response.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(response).Encode(got) // who asked may be gone
}

// run runs the command. When ctx ends it is ended, and in any case what it started is. An error means that it could not be run at all, or
// that something is left of it.
func (s Server) run(ctx context.Context, order request) (answer, error) {
	s.running.Lock() // a worker that was killed may have left the scan before this one
	defer s.running.Unlock()
	if err := cmp.Or(context.Cause(ctx), worker.EmptyScratch(s.Scratch)); err != nil {
		return answer{}, err
	}
	message, err := child.MemoryFile("message", order.Message)
	if err != nil {
		return answer{}, fmt.Errorf("put the message into a file: %w", err)
	}
	defer message.Close()
	stdout, stderr := &bounded{limit: s.OutputMaxBytes}, &child.Tail{Limit: saidBytes}
	cmd := exec.Command(s.Command[0], s.Command[1:]...)
	cmd.Env = append(append(os.Environ(), order.Env...), "EBBTIDE_MESSAGE_FILE="+messageFile)
	for _, variable := range order.Env {
		// Where the worker has made a checkout, on a volume that the containers share, the command runs in it.
		if folder, ok := strings.CutPrefix(variable, "EBBTIDE_SOURCE="); ok {
			cmd.Dir, cmd.Env = folder, sourcestore.CommandEnvironment(cmd.Env)
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = message, stdout, io.MultiWriter(s.Stderr, stderr)
	memory := child.OwnMemory()
	killed := memory.Kills()
	watched, stop := s.ScratchLimit.Watch(ctx, s.Scratch, s.Reaper)
	end, err := child.Boundary{Reaper: s.Reaper, Grace: s.Grace, Confinement: s.Confinement}.Run(watched, cmd)
	stop()
	got := answer{Started: end.Started, Finished: end.Finished}
	if err := errors.Join(err, worker.EmptyScratch(s.Scratch), s.door.restore(context.WithoutCancel(ctx))); err != nil {
		return got, fmt.Errorf("run %s: %w", s.Command[0], err)
	}
	if errors.Is(end.Stopped, worker.ErrScratch) {
		got.Scratch = end.Stopped.Error()
	}
	got.ExitCode = end.State.ExitCode()
	if status := end.State.Sys().(syscall.WaitStatus); status.Signaled() {
		got.Signal = int(status.Signal())
	}
	if memory.Kills() > killed {
		got.Memory = memory.Reason()
	}
	got.Output, got.Full, got.Said = stdout.text, stdout.full, stderr.String()
	return got, nil
}

// bounded keeps what is written to it, up to a limit. It is no bytes.Buffer, whose ReadFrom knows no limit.
type bounded struct {
	text  []byte
	limit int
	full  bool
}

// Write implements io.Writer. Past the limit it fails, which ends a command that keeps writing.
func (b *bounded) Write(p []byte) (int, error) {
	if len(b.text)+len(p) > b.limit {
		b.full = true
		return 0, errors.New("the output is too large")
	}
	b.text = append(b.text, p...)
	return len(p), nil
}
