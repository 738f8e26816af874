package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/ebbtide-dev/ebbtide/internal/child"
)

// MessageFile is the path at which the command finds the message: a file in memory that it inherits as MessageDescriptor, so that
// the worker needs no writable file system.
const (
	MessageFile       = "/proc/self/fd/3"
	MessageDescriptor = 3
)

// reasonBytes is how much of the end of standard error goes into the reason of a dead letter.
const reasonBytes = 2 << 10

// errTimeout is the cause of the end of a command that ran for too long.
var errTimeout = errors.New("the scan ran for too long")

// execute runs the command on a message. When ctx ends the command is ended. An error means that the message is to be left to another
// worker: the command could not run at all, or was ended for a reason that is not the message's. What it wrote is in out. With an outcome
// and an error that wraps child.ErrLeft the message ends as that says, and it is the last.
func execute(ctx context.Context, config *Config, queued *Message, out *output) (outcome, error) {
	message, err := child.MemoryFile("message", queued.Body)
	if err != nil {
		return outcome{}, fmt.Errorf("put the message into a file: %w", err)
	}
	defer message.Close()
	scratch, err := newScratch(config)
	if err != nil {
		return outcome{}, err
	}
	stderr := &child.Tail{Limit: reasonBytes}
	passed := &progress{log: config.Log.With("message", queued.Key)}

	cmd := exec.Command(config.Command[0], config.Command[1:]...)
	cmd.Env = environment(os.Environ(), config, queued, scratch)
	cmd.Stdin = bytes.NewReader(queued.Body)
	cmd.Stdout = out
	cmd.Stderr = io.MultiWriter(passed, stderr)
	cmd.ExtraFiles = []*os.File{message}
	boundary := child.Boundary{
		Reaper: config.Reaper, Grace: config.CommandGrace, User: config.User, Confinement: scratch.writable(config.Confinement),
	}
	memory := child.OwnMemory()
	killed := memory.Kills()
	watched, stop := config.ScratchLimit.Watch(ctx, scratch.folders(), config.Reaper)
	end, err := boundary.Run(watched, cmd)
	stop()
	passed.flush()
	elsewhere := readEnding(scratch.ending())
	left := scratch.remove()
	switch {
	case errors.Is(err, child.ErrLeft) && end.State == nil:
		return outcome{}, errors.Join(err, left) // the command itself still runs
	case errors.Is(err, child.ErrLeft):
		left = errors.Join(err, left)
	case err != nil:
		return notStarted(config.Command[0], err), left
	}
	o := outcome{started: end.Started, finished: end.Finished}
	if code := end.State.ExitCode(); code >= 0 {
		o.exitCode = &code
	}
	status := end.State.Sys().(syscall.WaitStatus)
	signal := 0
	if status.Signaled() {
		signal = int(status.Signal())
	}
	succeeded := signal == 0 && status.ExitStatus() == 0
	switch {
	case errors.Is(out.failure, errTooLarge):
		o.verdict, o.reason, o.cause = Fail, out.failure.Error(), causeResult
		return o, left
	case out.failure != nil:
		return outcome{}, errors.Join(out.failure, left)
	case errors.Is(end.Stopped, errTimeout):
		o.verdict, o.reason, o.cause = config.Endings.Timeout, end.Stopped.Error(), causeTimeout
	case errors.Is(end.Stopped, ErrScratch):
		o.verdict, o.reason, o.cause = Fail, end.Stopped.Error(), causeScratch
	case end.Stopped != nil:
		return outcome{}, errors.Join(end.Stopped, left)
	case !succeeded && memory.Kills() > killed:
		o.verdict, o.reason, o.cause = config.Endings.Memory, memory.Reason(), causeMemory
	case !succeeded && elsewhere.Memory != "":
		o.verdict, o.reason, o.cause = config.Endings.Memory, elsewhere.Memory, causeMemory
	case !succeeded && elsewhere.Scratch != "":
		o.verdict, o.reason, o.cause = Fail, elsewhere.Scratch, causeScratch
	case !succeeded && elsewhere.Signal != 0:
		o.verdict, o.reason, o.cause = config.Endings.judge(-1, elsewhere.Signal)
	default:
		o.verdict, o.reason, o.cause = config.Endings.judge(status.ExitStatus(), signal)
	}
	if o.verdict != Succeed {
		o.reason = said(o.reason, stderr.String())
	}
	return o, left
}

// notStarted tells what another attempt may change from what it can't: a machine that is short of something, and a message or a program
// that no worker can start.
func notStarted(program string, err error) outcome {
	for _, passing := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ETXTBSY, syscall.EIO} {
		if errors.Is(err, passing) {
			return outcome{verdict: Retry, cause: causeStart, reason: fmt.Sprintf("the command can't be started now: %v", err)}
		}
	}
	return outcome{verdict: Fail, cause: causeStart, reason: fmt.Sprintf("start %s: %v", program, err)}
}

// environment is the worker's own, less its credentials, with those that are the command's and with the message's properties.
func environment(own []string, config *Config, message *Message, s scratch) []string {
	env := make([]string, 0, len(own)+8)
	for _, variable := range own {
		name, _, _ := strings.Cut(variable, "=")
		if !slices.Contains(config.HiddenVariables, name) && (s.folder == "" || name != "TMPDIR") {
			env = append(env, variable)
		}
	}
	env = append(env, config.Environment...)
	if s.folder != "" {
		env = append(env, "TMPDIR="+s.folder, endingVariable+"="+s.ending())
	}
	add := func(name, value string) {
		if value != "" && !strings.ContainsRune(value, 0) {
			env = append(env, "EBBTIDE_"+name+"="+value)
		}
	}
	add("MESSAGE_FILE", MessageFile)
	add("MESSAGE_ID", message.ID)
	add("CORRELATION_ID", message.CorrelationID)
	add("CONTENT_TYPE", message.ContentType)
	add("ROUTING_KEY", message.RoutingKey)
	add("ENGINE", config.Engine)
	add("DELIVERY_COUNT", fmt.Sprint(message.Attempt-1))
	for name, value := range message.Headers {
		add("HEADER_"+variableName(name), value)
	}
	return env
}

// variableName turns a header's name into the form of environment variables.
func variableName(header string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		default:
			return '_'
		}
	}, header)
}
