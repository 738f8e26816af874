// Package engines lets one message be scanned by several programs that are in different containers of one pod. Beside each of them a
// server runs it on request; the worker's command calls all servers at once and joins what they answer.
//
//	worker ── stdin ──▶ Call ──▶ /engines/secrets/engine.sock ──▶ Serve ──▶ secrets
//	                      └────▶ /engines/licenses/engine.sock ─▶ Serve ──▶ licenses
//
// An engine's container mounts its own folder and no other, so that what runs in one can't answer in another's place: code that is scanned
// is not trusted. Nor is what an engine answers: it is bounded.
//
// The joined result is complete or there is none: the first engine that fails ends the others, and the message fails, or gets another
// attempt, as a whole. It knows no broker.
package engines

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	resultsv1alpha1 "github.com/ebbtide-dev/ebbtide/proto/ebbtide/results/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/worker/results"
)

// request asks an engine's server to scan.
type request struct {
	Message []byte `json:"message"`
	// Env are the message's properties, as NAME=value.
	Env []string `json:"env"`
}

// answer is how an engine's command ended.
type answer struct {
	ExitCode int `json:"exitCode"` // -1 when a signal ended it
	Signal   int `json:"signal"`   // 0 when none did
	// Memory says that the kernel killed it, or what it started, because it ran out of memory; empty when it did not.
	Memory string `json:"memory,omitempty"`
	// Scratch says that it was ended for what it had in its temporary folders; empty when it was not.
	Scratch string `json:"scratch,omitempty"`
	// Output is what it wrote to standard output; Full is true when that was more than is kept.
	Output []byte `json:"output"`
	Full   bool   `json:"full"`
	// Said is the end of what it wrote to standard error.
	Said              string `json:"said"`
	Started, Finished time.Time
}

// exitRetry is the exit code of a command that asks for another attempt: EX_TEMPFAIL.
const exitRetry = 75

// ErrRetry is wrapped by errors of Call after which the same message may succeed.
var ErrRetry = errors.New("another attempt may succeed")

// OutOfMemory is the error of a command that was killed because it ran out of memory: alone, which its server reports, or with its server.
type OutOfMemory string

func (e OutOfMemory) Error() string { return string(e) }

// errContainerKilled is that of a server that does not live to answer. With cgroup v2 the kernel kills all of a container, or nothing.
const errContainerKilled OutOfMemory = "out of memory, by all appearances: its container was killed while it ran"

// Socket is the name of an engine's socket in its folder.
const Socket = "engine.sock"

// Pod is how the engines of a pod are reached.
type Pod struct {
	// Sockets is a folder with one for each engine, by its name, with a socket in it.
	Sockets string
	// StartWithin is how long an engine that is not there yet is waited for.
	StartWithin time.Duration
	// AnswerMaxBytes bounds what an engine may answer, in bytes of JSON; it is kept in memory. 0 is DefaultAnswerMaxBytes.
	AnswerMaxBytes int64
}

// DefaultAnswerMaxBytes holds the output that a server allows by default.
const DefaultAnswerMaxBytes = 32 << 20

// Call scans a message by all engines at once, and joins their results. Scan and key are those of the message, env its properties.
func (p Pod) Call(ctx context.Context, names []string, scan, key string, message []byte, env []string) (*resultsv1alpha1.ScanResult, error) {
	names = slices.Sorted(slices.Values(names))
	joined := &resultsv1alpha1.ScanResult{
		Scan: scan, Status: resultsv1alpha1.Status_STATUS_SUCCEEDED, Results: make([]*resultsv1alpha1.Result, len(names)),
	}
	all, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		all.Go(func() error {
			got, err := p.call(ctx, filepath.Join(p.Sockets, name, Socket), request{message, env})
			if errors.As(err, new(OutOfMemory)) {
				return fmt.Errorf("engine %s: %w", name, err)
			}
			if err != nil && ctx.Err() != nil {
				return fmt.Errorf("engine %s: %w: %w", name, ErrRetry, err)
			}
			if err != nil {
				return fmt.Errorf("engine %s can't be reached: %w: %w", name, ErrRetry, err)
			}
			if err := got.err(); err != nil {
				return fmt.Errorf("engine %s: %w", name, err)
			}
			r := &resultsv1alpha1.Result{
				Key: key + "/" + name, Scan: scan, Engine: name, ExpectedEngines: names, Status: resultsv1alpha1.Status_STATUS_SUCCEEDED,
				ExitCode: proto.Int32(0), StartedTime: timestamppb.New(got.Started), FinishedTime: timestamppb.New(got.Finished),
				Digest: results.Digest(got.Output), Size: int64(len(got.Output)),
			}
			if r.Content = (&resultsv1alpha1.Result_Text{Text: string(got.Output)}); !utf8.Valid(got.Output) {
				r.Content = &resultsv1alpha1.Result_Data{Data: got.Output}
			}
			joined.Results[i] = r
			return nil
		})
	}
	return joined, all.Wait()
}

// err is nil if the command succeeded.
func (a answer) err() error {
	said := strings.TrimSpace(a.Said[max(0, len(a.Said)-saidBytes):])
	if said != "" {
		said = ": " + said
	}
	switch {
	case a.Full:
		return errors.New("it wrote more to standard output than --output-max-bytes of its server allows, or than is taken from it")
	case a.Scratch != "":
		return fmt.Errorf("%s%s", a.Scratch, said)
	case a.Memory != "" && (a.Signal != 0 || a.ExitCode != 0):
		return fmt.Errorf("%w%s", OutOfMemory(a.Memory), said)
	case a.Signal != 0:
		return fmt.Errorf("killed by signal %d: %w%s", a.Signal, ErrRetry, said)
	case a.ExitCode == exitRetry:
		return fmt.Errorf("exited with %d: %w%s", a.ExitCode, ErrRetry, said)
	case a.ExitCode != 0:
		return fmt.Errorf("exited with %d%s", a.ExitCode, said)
	}
	return nil
}

// Ended is how a command ended that runs in another container.
type Ended struct {
	// ExitCode is -1 when a signal ended it, which is Signal then.
	ExitCode, Signal int
	Output           []byte
	// Memory is why the kernel killed it, if it ran out of memory.
	Memory string
	// Scratch is why it was ended, where that was for what it had in its temporary folders.
	Scratch string
	// Said is the end of what it wrote to standard error.
	Said string
}

// Run runs the command of one server, at a socket. With an error it says what the command said, if it was ended as ctx did.
func (p Pod) Run(ctx context.Context, socket string, message []byte, env []string) (Ended, error) {
	got, err := p.call(ctx, socket, request{message, env})
	if err == nil && got.Full {
		err = got.err()
	}
	var memory OutOfMemory
	if errors.As(err, &memory) {
		return Ended{ExitCode: -1, Signal: int(syscall.SIGKILL), Memory: string(memory)}, nil
	}
	end := Ended{ExitCode: got.ExitCode, Signal: got.Signal, Output: got.Output, Scratch: got.Scratch[:min(len(got.Scratch), saidBytes)], Said: got.Said}
	if got.ExitCode != 0 {
		end.Memory = got.Memory[:min(len(got.Memory), saidBytes)]
	}
	return end, err
}

func (p Pod) call(ctx context.Context, socket string, order request) (answer, error) {
	var got answer
	body, err := json.Marshal(order)
	if err != nil {
		return got, err
	}
	response, err := p.ask(ctx, socket, http.MethodPost, body)
	if err != nil {
		return got, err
	}
	defer response.Body.Close()
	limit := cmp.Or(p.AnswerMaxBytes, DefaultAnswerMaxBytes)
	text := &io.LimitedReader{R: response.Body, N: limit + 1}
	err = json.NewDecoder(text).Decode(&got)
	switch {
	case text.N <= 0:
		return answer{Full: true}, nil
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return got, errContainerKilled
	case err != nil:
		return got, fmt.Errorf("its answer can't be read: %w", err)
	}
	return got, ended(ctx)
}

// ended is the error of a call that was given up: what its command wrote is not the whole.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("it was ended: %w", context.Cause(ctx))
}

// Ping returns nil if an engine's server answers at a socket.
func Ping(ctx context.Context, socket string) error {
	response, err := Pod{}.ask(ctx, socket, http.MethodGet, nil)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// connectPause is how long it is before a server that was not there is looked for again.
const connectPause = 20 * time.Millisecond

// endWithin is how long a server may take to end a command. One that scanned code has taken over may never say that it has.
const endWithin = time.Minute

// dial connects to the server at a socket, once it is there.
func (p Pod) dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	begin := time.Now()
	for {
		connection, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			return connection.(*net.UnixConn), nil
		}
		absent := errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
		if !absent || time.Since(begin) >= p.StartWithin {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(connectPause):
		}
	}
}

// ask sends a request to the server at a socket. When ctx ends it is the server that ends what it was asked for, and says when that is done. It
// notices by a connection on which nothing more comes. So no command runs on when this returns, unless this process is killed.
func (p Pod) ask(ctx context.Context, socket, method string, body []byte) (*http.Response, error) {
	connection, err := p.dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() {
		_ = connection.CloseWrite() // it may have ended
		time.AfterFunc(endWithin, func() { _ = connection.Close() })
	})
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return connection, nil },
	}}
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), method, "http://engine/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil && ctx.Err() != nil {
		return nil, ended(ctx)
	}
	// It was there, and is gone.
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return nil, errContainerKilled
	}
	if err != nil {
		return nil, errors.Unwrap(err) // without the URL, which means nothing
	}
	if response.StatusCode >= 300 {
		said, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		response.Body.Close()
		return nil, fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(said))
	}
	return response, nil
}
