package worker

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/worker/results"
)

func TestJudge(t *testing.T) {
	endings := DefaultEndings()
	for _, rule := range []string{"3=succeed", "64-70=retry", "66=fail", "memory=larger"} {
		if err := endings.Set(rule); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]struct {
		exitCode, signal int
		want             Verdict
		reason           string
	}{
		"success":                 {0, 0, Succeed, ""},
		"named success":           {3, 0, Succeed, ""},
		"retryable":               {75, 0, Retry, "the command exited with 75, which asks for another attempt"},
		"of a range":              {70, 0, Retry, "the command exited with 70, which asks for another attempt"},
		"of a range, named after": {66, 0, Fail, "the command exited with 66"},
		"killed":                  {-1, 9, Retry, "the command was killed by signal 9"},
		"failure":                 {4, 0, Fail, "the command exited with 4"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, reason, _ := endings.judge(tc.exitCode, tc.signal)
			if got != tc.want || reason != tc.reason {
				t.Errorf("%v, %q; want %v, %q", got, reason, tc.want, tc.reason)
			}
		})
	}
	if endings.Memory != Larger {
		t.Errorf("memory is %v", endings.Memory)
	}
	for _, wrong := range []string{"", "75", "75=again", "256=fail", "9-3=fail", "x=fail", "-1=fail"} {
		if err := endings.Set(wrong); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

func config(command ...string) Config {
	return Config{
		Name: "test", Command: command, Endings: DefaultEndings(), ResultFormat: results.JSON, ResultLimit: 1 << 20,
		ResultMaxBytes: 1 << 20, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func TestExecute(t *testing.T) {
	message := &Message{
		Body: []byte("order"), ID: "m-1", CorrelationID: "c-1", RoutingKey: "scans", Attempt: 3, Headers: map[string]string{"team-name": "red"},
	}
	cases := map[string]struct {
		script  string
		want    Verdict
		reason  string
		result  string
		maximum int64
	}{
		"standard input": {script: "cat", result: "order"},
		"file":           {script: "cat $EBBTIDE_MESSAGE_FILE", result: "order"},
		"properties": {
			script: "echo $EBBTIDE_MESSAGE_ID $EBBTIDE_CORRELATION_ID $EBBTIDE_ROUTING_KEY $EBBTIDE_DELIVERY_COUNT $EBBTIDE_HEADER_TEAM_NAME",
			result: "m-1 c-1 scans 2 red\n",
		},
		"no credentials": {script: "echo [$SECRET]", result: "[]\n"},
		"input unread":   {script: "exit 0"},
		"failure":        {script: "echo why >&2; exit 3", want: Fail, reason: "the command exited with 3: why"},
		"retry":          {script: "exit 75", want: Retry, reason: "the command exited with 75, which asks for another attempt"},
		"killed":         {script: "kill -9 $$", want: Retry, reason: "the command was killed by signal 9"},
		"result too large": {
			script: "yes", maximum: 1000, want: Fail, reason: "the result is too large: more than 1000 bytes on standard output",
		},
	}
	t.Setenv("SECRET", "amqp://user:secret@broker/")
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := config("sh", "-c", tc.script)
			c.HiddenVariables = []string{"SECRET"}
			out := &output{inline: c.ResultLimit, maximum: cmp.Or(tc.maximum, c.ResultMaxBytes)}
			got, err := execute(t.Context(), &c, message, out)
			if err != nil {
				t.Fatal(err)
			}
			if got.verdict != tc.want || got.reason != tc.reason || tc.want == Succeed && string(out.memory) != tc.result {
				t.Errorf("verdict %v, reason %q, result %q; want %v, %q, %q",
					got.verdict, got.reason, out.memory, tc.want, tc.reason, tc.result)
			}
		})
	}
	t.Run("no such command", func(t *testing.T) {
		c := config("no-such-scanner")
		got, err := execute(t.Context(), &c, message, &output{})
		if err != nil || got.verdict != Fail || !strings.Contains(got.reason, "start no-such-scanner") {
			t.Errorf("%+v, error %v: want a failure that stays", got, err)
		}
	})
}

// A command that only calls another one says how that ended. What else it leaves in the place for that counts for nothing.
func TestEnding(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		want   Verdict
		reason string
	}{
		"memory":                 {`echo '{"memory":"out of memory: 64 MiB"}' > $EBBTIDE_ENDING_FILE; exit 75`, Fail, "out of memory: 64 MiB"},
		"a signal":               {`echo '{"signal":11}' > $EBBTIDE_ENDING_FILE; exit 75`, Retry, "the command was killed by signal 11"},
		"of one that succeeded":  {`echo '{"signal":11}' > $EBBTIDE_ENDING_FILE`, Succeed, ""},
		"a signal that is none":  {`echo '{"signal":-11}' > $EBBTIDE_ENDING_FILE; exit 3`, Fail, "the command exited with 3"},
		"nothing":                {`exit 3`, Fail, "the command exited with 3"},
		"not JSON":               {`echo memory > $EBBTIDE_ENDING_FILE; exit 3`, Fail, "the command exited with 3"},
		"more than is read":      {`(echo '{"memory":"'; yes | head -c 100000; echo '"}') > $EBBTIDE_ENDING_FILE; exit 3`, Fail, "the command exited with 3"},
		"a pipe":                 {`mkfifo $EBBTIDE_ENDING_FILE; exit 3`, Fail, "the command exited with 3"},
		"a folder":               {`mkdir $EBBTIDE_ENDING_FILE; exit 3`, Fail, "the command exited with 3"},
		"a link":                 {`echo '{"signal":11}' > $TMPDIR/x; ln -s $TMPDIR/x $EBBTIDE_ENDING_FILE; exit 3`, Fail, "the command exited with 3"},
		"a link to what is long": {`ln -s /dev/zero $EBBTIDE_ENDING_FILE; exit 3`, Fail, "the command exited with 3"},
	} {
		c := config("sh", "-c", tc.script)
		got, err := execute(t.Context(), &c, &Message{}, &output{inline: 1000, maximum: 1000})
		if err != nil || got.verdict != tc.want || got.reason != tc.reason {
			t.Errorf("%s: verdict %v, reason %q, error %v; want %v, %q", name, got.verdict, got.reason, err, tc.want, tc.reason)
		}
	}
}

// The kernel ends a command that runs out of memory, in a cgroup with a limit, and the message says so.
func TestMemoryKill(t *testing.T) {
	const variable = "EBBTIDE_TEST_MEMORY"
	if group := os.Getenv(variable); group != "" {
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := config("sh", "-c", "echo begin >&2; tail /dev/zero")
		got, err := execute(t.Context(), &c, &Message{}, &output{})
		want := "out of memory: the kernel killed the command at the container's limit of 64 MiB: begin"
		if err != nil || got.verdict != Fail || !strings.HasPrefix(got.reason, want) || got.cause != causeMemory {
			t.Errorf("verdict %v, reason %q, error %v, want %q", got.verdict, got.reason, err, want)
		}
		return
	}
	group, err := memoryGroup()
	if err != nil {
		t.Skip("no memory cgroup can be made here: ", err)
	}
	t.Cleanup(func() { _ = os.Remove(group) })
	cmd := exec.Command(os.Args[0], "-test.run=^TestMemoryKill$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+group)
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// memoryGroup makes a cgroup, of either version, with a limit of 64 MiB.
func memoryGroup() (string, error) {
	const limit = 64 << 20
	parent, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		parent, file = "/sys/fs/cgroup", "memory.max"
		if err := os.WriteFile(parent+"/cgroup.subtree_control", []byte("+memory"), 0o600); err != nil {
			return "", err
		}
	}
	group, err := os.MkdirTemp(parent, "ebbtide-test-")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(group, file), []byte(strconv.Itoa(limit)), 0o600); err != nil {
		return "", errors.Join(err, os.Remove(group))
	}
	return group, nil
}

// A command does not outlive a worker that is killed.
func TestCommandDiesWithWorker(t *testing.T) {
	if os.Getenv("EBBTIDE_TEST_VICTIM") != "" {
		c := config("sh", "-c", "echo $$ >&2; exec sleep 60")
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		_, _ = execute(context.Background(), &c, &Message{}, &output{})
		return
	}
	victim := exec.Command(os.Args[0], "-test.run=^TestCommandDiesWithWorker$")
	victim.Env = append(os.Environ(), "EBBTIDE_TEST_VICTIM=1")
	stderr, err := victim.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, scanner, _ := strings.Cut(strings.TrimSpace(line), "line=")
	if _, err := os.Stat("/proc/" + scanner); err != nil {
		t.Fatalf("the command does not run: %v", err)
	}
	if err := victim.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // killed
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if status, err := os.ReadFile("/proc/" + scanner + "/stat"); err != nil || bytes.Contains(status, []byte(") Z ")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the command outlives its worker")
		}
	}
}
