package worker

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	"github.com/ebbtide-dev/ebbtide/internal/removal"
)

// A command that fills its folders is ended, and that is its reason, at once and without another attempt.
func TestScratchIsFilled(t *testing.T) {
	for name, limit := range map[string]ScratchLimit{"bytes": {Bytes: 1 << 20}, "files": {Files: 100}} {
		c := config("sh", "-c", "echo begin >&2; cd $TMPDIR; head -c 3000000 /dev/zero > large; i=0; while [ $i -lt 300 ]; do : > $i; i=$((i+1)); done; exec sleep 300")
		c.Scratch, c.ScratchLimit = []string{t.TempDir()}, limit
		o, err := execute(t.Context(), &c, &Message{}, &output{inline: 1000, maximum: 1000})
		want := "the scan has too much in its temporary folders: more than " + map[string]string{"bytes": "1048576 bytes", "files": "100 files"}[name] + ": begin"
		if err != nil || o.verdict != Fail || o.reason != want || o.cause != causeScratch {
			t.Errorf("%s: %v, %q, %v; want %q", name, o.verdict, o.reason, err, want)
		}
		if left, err := os.ReadDir(c.Scratch[0]); err != nil || len(left) > 0 {
			t.Errorf("%s: %v are left, %v", name, left, err)
		}
	}
}

// What is in the folders is counted wherever it hides, and nothing twice.
func TestScratchIsCounted(t *testing.T) {
	reaper, err := child.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	const mebibyte = "head -c 1048576 /dev/zero > x; "
	for name, tc := range map[string]struct {
		script string
		limit  ScratchLimit
		over   string // empty: it is not
	}{
		"at the limit":                {mebibyte, ScratchLimit{Bytes: 1<<20 + 8<<10}, ""},
		"over it":                     {mebibyte + "echo x > y", ScratchLimit{Bytes: 1 << 20}, "more than 1048576 bytes"},
		"no limit":                    {mebibyte, ScratchLimit{}, ""},
		"a file of several names":     {mebibyte + "ln x y; ln x z", ScratchLimit{Bytes: 2 << 20, Files: 1}, ""},
		"holes":                       {"truncate -s 1T x", ScratchLimit{Bytes: 1 << 20}, ""},
		"empty files":                 {"touch a b c d", ScratchLimit{Files: 3}, "more than 3 files"},
		"folders":                     {"mkdir -p a/b/c/d", ScratchLimit{Files: 3}, "more than 3 files"},
		"a folder nobody may read":    {"mkdir a; cd a; " + mebibyte + "chmod 000 .", ScratchLimit{Bytes: 1 << 19}, "more than 524288 bytes"},
		"a link to elsewhere":         {"ln -s / a; ln -s . b", ScratchLimit{Files: 2}, ""},
		"deeper than a path may be":   {"deep", ScratchLimit{Bytes: 1 << 20}, "more than 1048576 bytes"},
		"a deleted file that is open": {"exec 3> x; head -c 1048576 /dev/zero >&3; rm x", ScratchLimit{Bytes: 1 << 19}, "more than 524288 bytes"},
		"a deleted file of another's": {"exec 3> " + filepath.Join("/dev/shm", "ebbtide-test"), ScratchLimit{Files: 1}, ""},
	} {
		folder := t.TempDir()
		if tc.script == "deep" {
			deep(t, folder)
			tc.script = ":"
		}
		if strings.Contains(name, "another") {
			if _, err := os.Stat("/dev/shm"); err != nil {
				continue
			}
			tc.script += "; rm /dev/shm/ebbtide-test"
		}
		cmd := exec.Command("sh", "-c", tc.script+"\necho ready; exec cat")
		cmd.Dir = folder
		in, inErr := cmd.StdinPipe()
		out, outErr := cmd.StdoutPipe()
		if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err := tc.limit.check([]string{folder}, reaper)
		if (err != nil) != (tc.over != "") || err != nil && (!errors.Is(err, ErrScratch) || !strings.Contains(err.Error(), tc.over)) {
			t.Errorf("%s: %v, want %q", name, err, tc.over)
		}
		if err := errors.Join(in.Close(), cmd.Wait(), removal.All(folder)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// deep puts a mebibyte below folders whose path is longer than any system call takes.
func deep(t *testing.T, folder string) {
	t.Helper()
	at, err := os.OpenRoot(folder)
	for range 30 {
		if err == nil {
			name := strings.Repeat("d", 200)
			err = at.Mkdir(name, 0o700)
			below, openErr := at.OpenRoot(name)
			err = errors.Join(err, openErr, at.Close())
			at = below
		}
	}
	if err == nil {
		err = errors.Join(at.WriteFile("x", make([]byte, 1<<20), 0o600), at.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
