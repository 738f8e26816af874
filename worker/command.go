package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sys/unix"
)

// messageFile is the path at which the command finds the message: a file in memory that it inherits, so that the worker
// needs no writable file system.
const messageFile = "/proc/self/fd/3"

// reasonBytes is how much of the end of standard error goes into the reason of a dead letter.
const reasonBytes = 2 << 10

var errTooLarge = errors.New("the result is too large")

// execute runs the command on a message. When ctx ends the command's process group is killed. An error means that the
// command could not be run at all, not that it failed.
func execute(ctx context.Context, config *Config, delivery *amqp.Delivery) (outcome, error) {
	message, err := memoryFile(delivery.Body)
	if err != nil {
		return outcome{}, fmt.Errorf("put the message into a file: %w", err)
	}
	defer message.Close()
	stdout := &bounded{limit: config.ResultMaxBytes}
	stderr := &tail{limit: reasonBytes}

	cmd := exec.Command(config.Command[0], config.Command[1:]...)
	cmd.Env = environment(os.Environ(), delivery)
	cmd.Stdin = bytes.NewReader(delivery.Body)
	cmd.Stdout = stdout
	cmd.Stderr = io.MultiWriter(config.Stderr, stderr)
	cmd.ExtraFiles = []*os.File{message}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The parent-death signal comes when this thread ends, so it stays until the command has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		startErr := cmd.Start()
		started <- startErr
		if startErr == nil {
			err = cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return outcome{}, fmt.Errorf("start %s: %w", config.Command[0], err)
	}
	select {
	case <-ended:
	case <-ctx.Done():
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		return outcome{}, context.Cause(ctx)
	}
	var exit *exec.ExitError
	if stdout.full {
		return outcome{
			verdict: failed, exitCode: cmd.ProcessState.ExitCode(),
			reason: fmt.Sprintf("%v: more than %d bytes on standard output", errTooLarge, config.ResultMaxBytes),
		}, nil
	}
	if err != nil && !errors.As(err, &exit) {
		return outcome{}, fmt.Errorf("run %s: %w", config.Command[0], err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	signal := 0
	if status.Signaled() {
		signal = int(status.Signal())
	}
	o := outcome{exitCode: cmd.ProcessState.ExitCode(), result: stdout.text}
	o.verdict, o.reason = judge(o.exitCode, signal, config.RetryableExitCodes)
	if said := strings.TrimSpace(stderr.String()); o.verdict != succeeded && said != "" {
		o.reason += ": " + said
	}
	return o, nil
}

// memoryFile is an anonymous file with a content, at its start.
func memoryFile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "message")
	if _, err = file.Write(content); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// environment is the worker's own, less the broker's credentials, with the message's properties.
func environment(own []string, delivery *amqp.Delivery) []string {
	env := make([]string, 0, len(own)+8)
	for _, variable := range own {
		if !strings.HasPrefix(variable, URIVariable+"=") {
			env = append(env, variable)
		}
	}
	add := func(name, value string) {
		if value != "" && !strings.ContainsRune(value, 0) {
			env = append(env, "EBBTIDE_"+name+"="+value)
		}
	}
	add("MESSAGE_FILE", messageFile)
	add("MESSAGE_ID", delivery.MessageId)
	add("CORRELATION_ID", delivery.CorrelationId)
	add("CONTENT_TYPE", delivery.ContentType)
	add("ROUTING_KEY", delivery.RoutingKey)
	add("DELIVERY_COUNT", fmt.Sprint(deliveryCount(delivery)))
	for name, value := range delivery.Headers {
		switch value.(type) {
		case string, bool, int8, int16, int32, int64, int, float32, float64:
			add("HEADER_"+variableName(name), fmt.Sprint(value))
		}
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

// deliveryCount is how often a quorum queue has delivered the message before.
func deliveryCount(delivery *amqp.Delivery) int64 {
	switch n := delivery.Headers["x-delivery-count"].(type) {
	case int64:
		return n
	case int32:
		return int64(n)
	default:
		return 0
	}
}

// bounded keeps what is written to it, up to a limit. It is no bytes.Buffer, whose ReadFrom knows no limit.
type bounded struct {
	text  []byte
	limit int
	full  bool
}

// Write implements io.Writer. Past the limit it fails, which ends a command that goes on writing.
func (b *bounded) Write(p []byte) (int, error) {
	if len(b.text)+len(p) > b.limit {
		b.full = true
		return 0, errTooLarge
	}
	b.text = append(b.text, p...)
	return len(p), nil
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	text  []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if len(t.text) > t.limit {
		t.text = t.text[len(t.text)-t.limit:]
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.ToValidUTF8(string(t.text), "") }
