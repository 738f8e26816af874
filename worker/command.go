package worker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

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

// execute runs the command on a message. When ctx ends the command's process group is killed. An error means that the
// command could not be run at all, not that it failed. What it wrote is in out.
func execute(ctx context.Context, config *Config, queued *Message, out *output) (outcome, error) {
	message, err := child.MemoryFile("message", queued.Body)
	if err != nil {
		return outcome{}, fmt.Errorf("put the message into a file: %w", err)
	}
	defer message.Close()
	stderr := &child.Tail{Limit: reasonBytes}

	cmd := exec.Command(config.Command[0], config.Command[1:]...)
	cmd.Env = environment(os.Environ(), config, queued)
	cmd.Stdin = bytes.NewReader(queued.Body)
	cmd.Stdout = out
	cmd.Stderr = io.MultiWriter(config.Stderr, stderr)
	cmd.ExtraFiles = []*os.File{message}
	o := outcome{started: time.Now()}
	ended, err := child.Start(cmd)
	if err != nil {
		return outcome{}, fmt.Errorf("start %s: %w", config.Command[0], err)
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = child.Kill(cmd, ended) // that it was killed
		return outcome{}, context.Cause(ctx)
	}
	o.finished = time.Now()
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		o.exitCode = &code
	}
	if errors.Is(out.failure, errTooLarge) {
		o.verdict, o.reason = failed, out.failure.Error()
		return o, nil
	}
	var exit *exec.ExitError
	if err := cmp.Or(out.failure, err); err != nil && !errors.As(err, &exit) {
		return outcome{}, fmt.Errorf("run %s: %w", config.Command[0], err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	signal := 0
	if status.Signaled() {
		signal = int(status.Signal())
	}
	o.verdict, o.reason = judge(status.ExitStatus(), signal, config.RetryableExitCodes)
	if said := strings.TrimSpace(stderr.String()); o.verdict != succeeded && said != "" {
		o.reason += ": " + said
	}
	return o, nil
}

// environment is the worker's own, less its credentials, with the message's properties.
func environment(own []string, config *Config, message *Message) []string {
	env := make([]string, 0, len(own)+8)
	for _, variable := range own {
		if name, _, _ := strings.Cut(variable, "="); !slices.Contains(config.HiddenVariables, name) {
			env = append(env, variable)
		}
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
