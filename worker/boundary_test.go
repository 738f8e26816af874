package worker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A message's header may lower the scan timeout, and never raise it.
func TestScanTimeout(t *testing.T) {
	for name, tc := range map[string]struct {
		told   time.Duration
		header string
		want   time.Duration
		err    bool
	}{
		"neither":          {0, "", 0, false},
		"told":             {time.Minute, "", time.Minute, false},
		"lowered":          {time.Minute, "10s", 10 * time.Second, false},
		"not raised":       {time.Minute, "1h", time.Minute, false},
		"by the message":   {0, "1h", time.Hour, false},
		"nothing":          {time.Minute, "0s", 0, true},
		"less":             {time.Minute, "-1s", 0, true},
		"no duration":      {time.Minute, "90", 0, true},
		"more than fits":   {time.Minute, "9999999999h", 0, true},
		"text of any kind": {time.Minute, strings.Repeat("x", 1000), 0, true},
	} {
		c := config("true")
		c.ScanTimeout = tc.told
		o, err := c.admit(&Message{Headers: map[string]string{timeoutHeader: tc.header}})
		if (err != nil) != tc.err || err == nil && o.timeout != tc.want || err != nil && len(err.Error()) > 200 {
			t.Errorf("%s: %s, %v; want %s", name, o.timeout, err, tc.want)
		}
	}
}

// A scan that runs for too long gets SIGTERM, then SIGKILL, and that is its reason.
func TestScanThatRunsForTooLong(t *testing.T) {
	for script, said := range map[string]string{
		`trap 'echo goodbye >&2; exit 0' TERM; echo ready >&2; sleep 60 & wait`: ": ready\ngoodbye",
		`trap '' TERM; echo ready >&2; while :; do sleep 1; done`:               ": ready",
	} {
		c := config("sh", "-c", script)
		c.CommandGrace = 500 * time.Millisecond
		ctx, end := context.WithCancelCause(t.Context())
		c.Log = slog.New(slog.NewTextHandler(writer(func(text []byte) {
			if bytes.Contains(text, []byte("ready")) {
				end(errTimeout)
			}
		}), nil))
		if o, err := execute(ctx, &c, &Message{}, &output{inline: 1000, maximum: 1000}); err != nil || o.verdict != Fail || o.reason != errTimeout.Error()+said || o.cause != causeTimeout {
			t.Errorf("verdict %v, reason %q, error %v, want %q", o.verdict, o.reason, err, errTimeout.Error()+said)
		}
	}
}

// writer is called with what is written to it.
type writer func([]byte)

func (w writer) Write(text []byte) (int, error) {
	w(text)
	return len(text), nil
}

// Whatever a command makes of its folders, they are empty after it and there for the next one.
func TestScratch(t *testing.T) {
	outside := t.TempDir()
	kept := filepath.Join(outside, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"files":              "touch $TMPDIR/x x",
		"folders read-only":  "mkdir -p a/b/c; touch a/b/c/x; chmod 000 a/b/c a/b a; chmod 555 .",
		"its own is removed": "rm -rf $TMPDIR",
		"its own is a link":  "rm -rf $TMPDIR; ln -s " + outside + " $TMPDIR",
		"links to outside":   "ln -s " + outside + " x; mkdir y; ln -s " + kept + " y/z; chmod 000 y",
		"names":              `touch -- -rf '*' "$(printf 'a\nb')" ' '`,
		"deep":               `i=0; while [ $i -lt 300 ]; do mkdir d; cd d; i=$((i+1)); done`,
		"a pipe":             "mkfifo x $TMPDIR/x",
		"deep and closed":    `perl -e 'for (1 .. 3000) { mkdir "d"; chdir "d" } chmod 0, "."'`,
	} {
		folder := t.TempDir()
		for range 2 {
			c := config("sh", "-c", "cd "+folder+"; "+script)
			c.Scratch = []string{folder}
			if o, err := execute(t.Context(), &c, &Message{}, &output{inline: 1000, maximum: 1000}); err != nil || o.verdict != Succeed {
				t.Errorf("%s: %v, %q, %v", name, o.verdict, o.reason, err)
			}
			if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
				t.Errorf("%s: %v are left, %v", name, left, err)
			}
		}
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error("what is outside is gone: ", err)
	}
}

// A command of another user can't read what is the worker's, and can use its own folder.
func TestRunAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to run a command as another user")
	}
	// The path to it is for everybody.
	folder, err := os.MkdirTemp("/tmp", "ebbtide-run-as-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := errors.Join(os.Chmod(folder, 0o755), os.WriteFile(filepath.Join(folder, "mine"), nil, 0o600), os.Mkdir(filepath.Join(folder, "scratch"), 0o755)); err != nil {
		t.Fatal(err)
	}
	c := config("sh", "-c", "id -u; id -g; cat "+folder+"/mine && echo read; cat /proc/$PPID/environ >/dev/null && echo read; "+
		"touch $TMPDIR/x && echo written; cat $EBBTIDE_MESSAGE_FILE; kill -0 $PPID && echo signalled; true")
	c.Scratch = []string{filepath.Join(folder, "scratch")}
	c.User = &syscall.Credential{Uid: 65534, Gid: 65533}
	out := &output{inline: 1000, maximum: 1000}
	if o, err := execute(t.Context(), &c, &Message{Body: []byte("order")}, out); err != nil || o.verdict != Succeed || string(out.memory) != "65534\n65533\nwritten\norder" {
		t.Errorf("%v, %q, %v: %q", o.verdict, o.reason, err, out.memory)
	}
	if left, err := os.ReadDir(c.Scratch[0]); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}
