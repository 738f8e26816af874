package engines_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	"github.com/ebbtide-dev/ebbtide/worker/engines"
)

// serve starts a server of a script as engine NAME, and waits until it answers.
func serve(t *testing.T, sockets, name, script string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	socket := filepath.Join(sockets, name, engines.Socket)
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- engines.Server{Command: []string{"sh", "-c", script}, OutputMaxBytes: 1000, Stderr: io.Discard}.Serve(ctx, socket)
	}()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	await(t, "engine "+name, func() bool { return engines.Ping(t.Context(), socket) == nil })
	return stop
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// sockets is a folder with a short path, as that of a socket must be.
func sockets(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "engines-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestCall(t *testing.T) {
	cases := map[string]struct {
		script string // of one engine; the other one succeeds
		want   string // its result
		err    string
		retry  bool
	}{
		"standard input":   {script: "cat", want: "order"},
		"the file twice":   {script: "cat $EBBTIDE_MESSAGE_FILE $EBBTIDE_MESSAGE_FILE", want: "orderorder"},
		"properties":       {script: "echo $EBBTIDE_MESSAGE_ID", want: "m-1\n"},
		"the checkout":     {script: "pwd", want: "/usr\n"},
		"input unread":     {script: ":"},
		"failure":          {script: "echo why >&2; exit 3", err: "engine one: exited with 3: why"},
		"another attempt":  {script: "exit 75", err: "engine one: exited with 75", retry: true},
		"killed":           {script: "kill -9 $$", err: "engine one: killed by signal 9", retry: true},
		"output too large": {script: "yes", err: "engine one: it wrote more to standard output"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dir := sockets(t)
			serve(t, dir, "one", tc.script)
			serve(t, dir, "two", "echo fine")
			got, err := engines.Pod{Sockets: dir}.Call(t.Context(), []string{"two", "one"}, "scan", "key", []byte("order"),
				[]string{"EBBTIDE_MESSAGE_ID=m-1", "EBBTIDE_SOURCE=/usr"})
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || errors.Is(err, engines.ErrRetry) != tc.retry {
					t.Errorf("error %v, want %q, and another attempt: %v", err, tc.err, tc.retry)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			one, two := got.GetResults()[0], got.GetResults()[1]
			if one.GetText() != tc.want || two.GetText() != "fine\n" || one.GetKey() != "key/one" || two.GetScan() != "scan" {
				t.Errorf("results %v", got)
			}
		})
	}
}

// The engines that still scan when one has failed, or nobody waits for them, are ended with what they started.
func TestCallEndsTheOthers(t *testing.T) {
	dir, marks := sockets(t), t.TempDir()
	started, pid := filepath.Join(marks, "started"), filepath.Join(marks, "pid")
	slow := "sleep 1000 & echo $! > " + pid + "; touch " + started + "; wait"
	failing := "until [ -e " + started + " ]; do sleep 0.02; done; exit 1"
	serve(t, dir, "slow", slow)
	serve(t, dir, "failing", failing)
	gone := func() bool {
		text, err := os.ReadFile(pid)
		if err != nil {
			return false
		}
		status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
		return err != nil || strings.Contains(string(status), ") Z ")
	}
	if _, err := (engines.Pod{Sockets: dir}).Call(t.Context(), []string{"slow", "failing"}, "", "", nil, nil); err == nil || !strings.Contains(err.Error(), "engine failing") {
		t.Errorf("error %v, want the failing engine's", err)
	}
	await(t, "the scan is ended", gone)

	if err := os.Remove(started); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := engines.Pod{Sockets: dir}.Call(ctx, []string{"slow"}, "", "", nil, nil)
		result <- err
	}()
	await(t, "the scan starts", func() bool { _, err := os.Stat(started); return err == nil })
	cancel()
	if err := <-result; err == nil {
		t.Error("a call that was given up succeeded")
	}
	await(t, "the scan is ended", gone)
}

func TestCallWithoutServer(t *testing.T) {
	dir := sockets(t)
	stop := serve(t, dir, "one", "cat")
	stop()
	_, err := engines.Pod{Sockets: dir}.Call(t.Context(), []string{"one"}, "", "", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "engine one can't be reached") || !errors.Is(err, engines.ErrRetry) {
		t.Errorf("error %v, want that the engine can't be reached, and another attempt", err)
	}
	// A container that starts again finds the socket of the one before it.
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "two"), 0o700), os.WriteFile(filepath.Join(dir, "two", engines.Socket), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, "two", "cat")
}

// A command that nobody waits for any more, as its worker has to end, gets SIGTERM, and SIGKILL only after the grace.
func TestStopIsPassedOn(t *testing.T) {
	dir, marks := sockets(t), t.TempDir()
	socket := filepath.Join(dir, engines.Socket)
	serving, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	script := "trap 'touch " + marks + "/told; exit 0' TERM; touch " + marks + "/started; sleep 1000 & wait"
	go func() {
		done <- engines.Server{Command: []string{"sh", "-c", script}, OutputMaxBytes: 1000, Stderr: io.Discard, Grace: time.Minute}.Serve(serving, socket)
	}()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := engines.Pod{StartWithin: time.Minute}.Run(ctx, socket, nil, nil)
		ended <- err
	}()
	exists := func(name string) func() bool {
		return func() bool { _, err := os.Stat(filepath.Join(marks, name)); return err == nil }
	}
	await(t, "the scan starts", exists("started"))
	cancel()
	if err := <-ended; err == nil {
		t.Error("a call that was given up succeeded")
	}
	await(t, "the scan is told", exists("told"))
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The worker may be there before its engines are.
func TestCallWaitsForTheServer(t *testing.T) {
	dir := sockets(t)
	result := make(chan error, 1)
	go func() {
		_, err := engines.Pod{Sockets: dir, StartWithin: time.Minute}.Call(t.Context(), []string{"late"}, "", "", nil, nil)
		result <- err
	}()
	time.Sleep(100 * time.Millisecond) // time to look, and to find nothing
	serve(t, dir, "late", "cat")
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// A command in a container of its own ends as it would beside the worker.
func TestRun(t *testing.T) {
	for script, want := range map[string]engines.Ended{
		"cat; echo why >&2; exit 7": {ExitCode: 7, Output: []byte("order"), Said: "why\n"},
		"kill -9 $$":                {ExitCode: -1, Signal: 9},
		"echo $EBBTIDE_MESSAGE_ID":  {Output: []byte("m-1\n")},
	} {
		dir := sockets(t)
		serve(t, dir, "command", script)
		got, err := engines.Pod{}.Run(t.Context(), filepath.Join(dir, "command", engines.Socket), []byte("order"), []string{"EBBTIDE_MESSAGE_ID=m-1"})
		if err != nil || got.ExitCode != want.ExitCode || got.Signal != want.Signal || string(got.Output) != string(want.Output) || got.Said != want.Said {
			t.Errorf("%s: %+v, %v; want %+v", script, got, err, want)
		}
	}
}

// A server that is gone in the middle of a scan was killed with its container, as the kernel does when it runs out of memory: the same happens again.
func TestContainerIsKilled(t *testing.T) {
	dir := sockets(t)
	if err := os.Mkdir(filepath.Join(dir, "one"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "one", engines.Socket)
	for name, said := range map[string]string{"before it answers": "", "while it answers": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"} {
		listener, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				connection, err := listener.Accept()
				if err != nil {
					return
				}
				if _, err := http.ReadRequest(bufio.NewReader(connection)); err == nil {
					_, _ = io.WriteString(connection, said)
				}
				connection.Close()
			}
		}()
		const want = "its container was killed while it ran"
		if got, err := (engines.Pod{}).Run(t.Context(), socket, []byte("order"), nil); err != nil || got.ExitCode == 0 || !strings.Contains(got.Memory, want) {
			t.Errorf("%s: %+v, %v, want memory to be %q", name, got, err, want)
		}
		_, err = engines.Pod{Sockets: dir}.Call(t.Context(), []string{"one"}, "", "", nil, nil)
		if err == nil || errors.Is(err, engines.ErrRetry) || !errors.As(err, new(engines.OutOfMemory)) || !strings.Contains(err.Error(), "engine one: out of memory") {
			t.Errorf("%s: error %v", name, err)
		}
		listener.Close()
	}
}

// What scanned code makes of an engine's server can't fill the worker's memory.
func TestAnswerIsBounded(t *testing.T) {
	dir := sockets(t)
	if err := os.Mkdir(filepath.Join(dir, "evil"), 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "evil", engines.Socket))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, `{"said": "`)
		for err == nil {
			_, err = io.WriteString(w, strings.Repeat("x", 1<<16))
		}
	})}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	_, err = engines.Pod{Sockets: dir, AnswerMaxBytes: 1 << 20}.Call(t.Context(), []string{"evil"}, "", "", nil, nil)
	if err == nil || errors.Is(err, engines.ErrRetry) || !strings.Contains(err.Error(), "it wrote more") {
		t.Errorf("error %v", err)
	}
}

// What a scan leaves behind is gone before the next one: processes of sessions of their own that hold its output, and files.
func TestServerEndsWhatIsLeft(t *testing.T) {
	reaper, err := child.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	dir, scratch := sockets(t), t.TempDir()
	socket := filepath.Join(dir, engines.Socket)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	script := "setsid sleep 1000 & touch " + scratch + "/left; echo $!"
	go func() {
		done <- engines.Server{
			Command: []string{"sh", "-c", script}, OutputMaxBytes: 1000, Stderr: io.Discard, Reaper: reaper, Scratch: []string{scratch},
		}.Serve(ctx, socket)
	}()
	begin := time.Now()
	got, err := engines.Pod{StartWithin: time.Minute}.Run(t.Context(), socket, nil, nil)
	if err != nil || got.ExitCode != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the answer took %s: it waited for what was left", took)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(got.Output))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the process %s is left, %v", got.Output, err)
	}
	if files, err := os.ReadDir(scratch); len(files) > 0 || err != nil {
		t.Errorf("%v are left, %v", files, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A scan that is ended has ended when the call returns, though it takes its time; what it says last is passed on, and the next scan begins after it.
func TestGraceOfTheOtherContainer(t *testing.T) {
	dir, marks := sockets(t), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "one"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "one", engines.Socket)
	serving, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	// Told to end, it waits until the test lets it.
	script := "case $EBBTIDE_MESSAGE_ID in slow) trap 'touch " + marks + "/told; until [ -e " + marks + "/go ]; do sleep 0.01; done; echo bye >&2; touch " + marks +
		"/over; exit 0' TERM; touch " + marks + "/started; sleep 1000 & wait;; *) ls " + marks + "/over;; esac"
	go func() {
		done <- engines.Server{Command: []string{"sh", "-c", script}, OutputMaxBytes: 1000, Stderr: io.Discard, Grace: time.Minute}.Serve(serving, socket)
	}()
	exists := func(name string) bool { _, err := os.Stat(filepath.Join(marks, name)); return err == nil }
	for name, call := range map[string]func(context.Context) (string, error){
		"one command": func(ctx context.Context) (string, error) {
			got, err := engines.Pod{StartWithin: time.Minute}.Run(ctx, socket, nil, []string{"EBBTIDE_MESSAGE_ID=slow"})
			return got.Said, err
		},
		"several engines": func(ctx context.Context) (string, error) {
			_, err := engines.Pod{Sockets: dir, StartWithin: time.Minute}.Call(ctx, []string{"one"}, "", "", nil, []string{"EBBTIDE_MESSAGE_ID=slow"})
			return "bye\n", err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			said, err := call(ctx)
			if err == nil || !strings.HasSuffix(said, "bye\n") || !exists("over") { // the shell may say that what it waits for was ended
				err = fmt.Errorf("error %w, said %q, and it has ended: %v", err, said, exists("over"))
			} else {
				err = nil
			}
			ended <- err
		}()
		await(t, "the scan starts", func() bool { return exists("started") })
		cancel()
		await(t, "the scan is told", func() bool { return exists("told") })
		// Another one asks meanwhile, as the next worker of a pod whose first was killed does.
		next := make(chan engines.Ended, 1)
		go func() {
			got, _ := engines.Pod{}.Run(t.Context(), socket, nil, []string{"EBBTIDE_MESSAGE_ID=next"})
			next <- got
		}()
		if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := <-next; got.ExitCode != 0 || string(got.Output) != marks+"/over\n" {
			t.Errorf("%s: the next scan: %+v", name, got)
		}
		for _, mark := range []string{"started", "told", "go", "over"} {
			if err := os.Remove(filepath.Join(marks, mark)); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Whatever a command does to its server's socket, the next message reaches the server, and finds no file of the one before.
func TestSocketIsRestored(t *testing.T) {
	for name, attack := range map[string]string{
		"removed":           "rm -f $SOCKET",
		"a folder":          "rm -f $SOCKET; mkdir -p $SOCKET/a/b; chmod 000 $SOCKET/a",
		"a file":            "rm -f $SOCKET; echo x > $SOCKET",
		"a link":            "rm -f $SOCKET; ln -s /dev/null $SOCKET",
		"another's":         `rm -f $SOCKET; perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Local => $ENV{SOCKET}, Listen => 9) or die'`,
		"moved":             "mv $SOCKET $SOCKET.old",
		"closed":            "chmod 000 $SOCKET",
		"files beside it":   "mkdir -p $FOLDER/a/b; echo secret > $FOLDER/a/b/c; chmod 000 $FOLDER/a",
		"a folder's rights": "chmod 700 $FOLDER; rm -f $SOCKET; chmod 000 $FOLDER",
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(sockets(t), "e")
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(folder, engines.Socket)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				script := fmt.Sprintf("SOCKET=%s FOLDER=%s; export SOCKET; ", socket, folder) +
					`if [ "$(cat)" = evil ]; then ` + attack + `; fi; find $FOLDER | wc -l`
				done <- engines.Server{Command: []string{"sh", "-c", script}, OutputMaxBytes: 1000, Stderr: io.Discard, OwnFolder: true}.Serve(ctx, socket)
			}()
			pod := engines.Pod{StartWithin: 20 * time.Second}
			for range 2 {
				if _, err := pod.Run(t.Context(), socket, []byte("evil"), nil); err != nil {
					t.Fatal(err)
				}
				end, err := engines.Pod{}.Run(t.Context(), socket, []byte("next"), nil)
				if err != nil || strings.TrimSpace(string(end.Output)) != "2" {
					t.Errorf("the next message: %+v, %v; want the folder and its socket", end, err)
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("the folder is %v, %v", info.Mode(), err)
			}
		})
	}
}

// A command can't have its server run something, neither now nor when its own time is over.
func TestCommandsAskForNothing(t *testing.T) {
	folder := sockets(t)
	socket := filepath.Join(folder, engines.Socket)
	mark := filepath.Join(folder, "mark")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	// More than the request is sent, so that the server does not see that the connection has ended.
	const ask = `use IO::Socket::UNIX; $s = IO::Socket::UNIX->new(Peer => $ENV{SOCKET}) or die; $b = "{\"message\":\"bWFyaw==\"}";
		print $s "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: " . length($b) . "\r\n\r\n$b" . "POST " x 9; $s->flush; sysread($s, $a, 12); print "$a\n"`
	go func() {
		script := `case "$(cat)" in evil) timeout 2 perl -e "$ASK" & sleep 2.5;; mark) touch ` + mark + `;; esac`
		done <- engines.Server{Command: []string{"env", "SOCKET=" + socket, "ASK=" + ask, "sh", "-c", script}, OutputMaxBytes: 1000, Stderr: os.Stderr}.Serve(ctx, socket)
	}()
	end, err := engines.Pod{StartWithin: 20 * time.Second}.Run(t.Context(), socket, []byte("evil"), nil)
	if err != nil || strings.TrimSpace(string(end.Output)) != "HTTP/1.1 403" {
		t.Errorf("%+v, %v", end, err)
	}
	if end, err := (engines.Pod{}).Run(t.Context(), socket, []byte("next"), nil); err != nil || end.ExitCode != 0 {
		t.Errorf("the next message: %+v, %v", end, err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("what the command asked for was run")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
