package child_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebbtide-dev/ebbtide/internal/child"
)

// A reaper takes every descendant of its process for the command's: it gets a process of its own. Alone runs this test again in one, where
// inside is called.
func alone(t *testing.T, inside func(*testing.T, *child.Reaper)) {
	t.Helper()
	const variable = "EBBTIDE_TEST_ALONE"
	if os.Getenv(variable) == t.Name() {
		reaper, err := child.NewReaper()
		if err != nil {
			t.Fatal(err)
		}
		inside(t, reaper)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// Whatever a command does to outlive its end, it does not.
func TestNothingIsLeft(t *testing.T) {
	cases := map[string]string{
		"a child":                 `sleep 300 & echo $! > pids`,
		"a session of its own":    `setsid sh -c 'echo $$ > pids; exec sleep 300' >/dev/null 2>&1 & while [ ! -s pids ]; do sleep 0.01; done`,
		"a double fork":           `(setsid sh -c '(sleep 300 & echo $! > pids)' &) ; while [ ! -s pids ]; do sleep 0.01; done`,
		"that ignores signals":    `trap '' TERM INT HUP; (trap '' TERM INT HUP; echo $$; while :; do sleep 1; done) & echo $! > pids`,
		"that holds the pipes":    `setsid sh -c 'echo $$ > pids; sleep 300; echo late' & while [ ! -s pids ]; do sleep 0.01; done`,
		"a name like a stat line": `cp $(command -v sleep) 'x) Z 1 (y'; './x) Z 1 (y' 300 & echo $! > pids`,
		"children that stop":      `sh -c 'echo $$ > pids; kill -STOP $$' & while [ ! -s pids ]; do sleep 0.01; done`,
		"that forks without end": `cat > fork <<'S'
n=$1; [ $n -gt 60 ] && exec sleep 300
sh fork $((n+1)) & sh fork $((n+60)) & exec sleep 300
S
setsid sh fork 0 & echo $! > pids; sleep 0.2`,
	}
	for name, script := range cases {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T, reaper *child.Reaper) {
				cmd := exec.Command("sh", "-c", script)
				cmd.Dir = t.TempDir()
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				begin := time.Now()
				end, err := child.Boundary{Reaper: reaper}.Run(t.Context(), cmd)
				if err != nil || !end.State.Success() || end.Stopped != nil {
					t.Fatalf("%v, %+v\n%s", err, end, out.String())
				}
				if took := time.Since(begin); took > 5*time.Second {
					t.Errorf("it took %s", took)
				}
				pids, err := os.ReadFile(filepath.Join(cmd.Dir, "pids"))
				if err != nil {
					t.Fatal(err)
				}
				for _, pid := range strings.Fields(string(pids)) {
					if _, err := os.Stat("/proc/" + pid); err == nil {
						t.Errorf("process %s is left", pid)
					}
				}
				children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
				if err != nil || len(bytes.TrimSpace(children)) > 0 {
					t.Errorf("children %s are left (%v)", children, err)
				}
			})
		})
	}
}

// Zombies do not pile up while a command runs.
func TestOrphansAreReaped(t *testing.T) {
	alone(t, func(t *testing.T, reaper *child.Reaper) {
		cmd := exec.Command("sh", "-c", `for i in 1 2 3 4 5; do (setsid true &); done; sleep 2.5; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null |
			while read f; do grep -q "^PPid:.$PPID$" $f && echo zombie; done; true`)
		var out bytes.Buffer
		cmd.Stdout = &out
		if _, err := (child.Boundary{Reaper: reaper}).Run(t.Context(), cmd); err != nil || out.Len() > 0 {
			t.Errorf("%v %s", err, out.String())
		}
	})
}

func TestBoundaryStops(t *testing.T) {
	stopped := errors.New("stopped")
	cases := map[string]struct {
		script string
		grace  time.Duration
		want   string
		within time.Duration
	}{
		"the command gets SIGTERM":         {`trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.01; done`, 20 * time.Second, "ready\ntold\n", 10 * time.Second},
		"and SIGKILL when it ignores that": {`trap '' TERM; echo ready; while :; do sleep 0.01; done`, 200 * time.Millisecond, "ready\n", 10 * time.Second},
		"what it started gets SIGTERM too": {`trap : TERM; sh -c 'trap "echo told; exit" TERM; echo ready; while :; do sleep 0.01; done'`, 20 * time.Second, "ready\ntold\n", 10 * time.Second},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancelCause(t.Context())
			cmd := exec.Command("sh", "-c", tc.script)
			out := &stopAt{text: "ready\n", stop: func() { stop(stopped) }}
			cmd.Stdout = out
			begin := time.Now()
			end, err := child.Boundary{Grace: tc.grace}.Run(ctx, cmd)
			if err != nil || !errors.Is(end.Stopped, stopped) || end.State == nil {
				t.Errorf("%v, %+v", err, end)
			}
			if got := string(out.written); got != tc.want || time.Since(begin) > tc.within {
				t.Errorf("%q after %s, want %q within %s", got, time.Since(begin), tc.want, tc.within)
			}
		})
	}
}

// stopAt calls stop when a text was written.
type stopAt struct {
	written []byte
	text    string
	stop    func()
}

func (s *stopAt) Write(p []byte) (int, error) {
	s.written = append(s.written, p...)
	if string(s.written) == s.text {
		s.stop()
	}
	return len(p), nil
}

// full takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("full") }

// A command whose output nobody takes is ended, though it ignores the broken pipe.
func TestOutputFails(t *testing.T) {
	cmd := exec.Command("sh", "-c", "trap '' PIPE; echo x; exec sleep 300")
	cmd.Stdout = full{}
	end, err := child.Boundary{Grace: time.Second}.Run(t.Context(), cmd)
	if err != nil || end.Stopped == nil || end.Stopped.Error() != "full" {
		t.Errorf("%v, %+v", err, end)
	}
}

// TestMain runs what TestForksWithoutEnd asks for, or a command from the process's first thread for TestConfinedFromTheFirstThread: no test is called
// there.
func TestMain(m *testing.M) {
	if os.Getenv(survives) != "" {
		if err := survive(); err != nil {
			panic(err)
		}
		fmt.Println("survived")
		os.Exit(0)
	}
	script := os.Getenv(onFirstThread)
	if script == "" {
		os.Exit(m.Run())
	}
	runtime.GOMAXPROCS(1) // what is started runs here as soon as this waits
	cmd := exec.Command("sh", "-c", script)
	cmd.Stdout = os.Stdout
	if _, err := (child.Boundary{Confinement: &child.Confinement{}}).Run(context.Background(), cmd); err != nil {
		panic(err)
	}
	os.Exit(0)
}

const onFirstThread = "EBBTIDE_TEST_ON_FIRST_THREAD"

// The kernel takes the first thread for the process: were it confined too, a command could kill its worker.
func TestConfinedFromTheFirstThread(t *testing.T) {
	if err := child.CanConfine(); err != nil {
		t.Skip(err)
	}
	for range 20 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), onFirstThread+"=kill -0 $PPID 2>/dev/null && echo reached; echo ran")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ran\n" {
			t.Fatalf("%v, %q, want only that it ran", err, out)
		}
	}
}

// systemCall is a command that tries one with which it would reach another process, or leave something, and says whether it was refused.
func systemCall(name string) string {
	number := map[string]int{
		"process_vm_readv": unix.SYS_PROCESS_VM_READV, "ptrace": unix.SYS_PTRACE, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "add_key": unix.SYS_ADD_KEY,
		"keyctl": unix.SYS_KEYCTL, "mq_open": unix.SYS_MQ_OPEN, "io_uring_setup": unix.SYS_IO_URING_SETUP,
	}
	arguments := map[string]string{
		// The address is that of the stack, which is in use: only the right to read it is missing.
		"process_vm_readv": `$p, pack("QQ", unpack("Q", pack("p", $buffer)), 8), 1, pack("QQ", $address, 8), 1, 0`,
		"ptrace":           `16, $p, 0, 0`, // attach
		"pidfd_getfd":      `syscall(` + fmt.Sprint(unix.SYS_PIDFD_OPEN) + `, $p, 0), 0, 0`,
		"add_key":          `$type, $left, $secret, 6, -4`,
		"keyctl":           `0, -4, 1`,
		"mq_open":          `$left, 0102, 0600, 0`,
		"io_uring_setup":   `1, $buffer`,
	}
	program := `$p = getppid; $buffer = "\0" x 4096; ($type, $left, $secret) = ("user", "left", "secret"); ` +
		`open my $stat, "<", "/proc/$p/stat"; $address = (split / /, (<$stat> =~ s/.*\) //r))[25]; ` + // where the stack begins, if that is told
		fmt.Sprintf(`print syscall(%d, %s) < 0 ? "refused\n" : "done\n"`, number[name], arguments[name])
	return "exec perl -e '" + program + "'"
}

func TestConfined(t *testing.T) {
	if err := child.CanConfine(); err != nil {
		t.Skip(err)
	}
	folder := t.TempDir()
	other := t.TempDir()
	secret := filepath.Join(folder, "uri")
	for path, text := range map[string]string{secret: "amqp", filepath.Join(folder, "beside"): "open"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("uri", filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		confinement child.Confinement
		script      string
		want        string
	}{
		// The test's process is dumpable, and runs as the same user.
		"the worker's environment": {script: "cat /proc/$PPID/environ >/dev/null 2>&1 && echo read", want: ""},
		"its memory and files":     {script: "cat /proc/$PPID/mem /proc/$PPID/maps /proc/$PPID/fd/0 2>/dev/null | head -c 1", want: ""},
		"its threads":              {script: "cat /proc/$PPID/task/*/environ /proc/$PPID/task/*/maps 2>/dev/null | head -c 1", want: ""},
		"its folders":              {script: "ls /proc/$PPID/root/ /proc/$PPID/cwd/ 2>/dev/null; readlink /proc/$PPID/exe /proc/$PPID/fd/* /proc/$PPID/map_files/*", want: ""},
		"its memory, by a call":    {script: systemCall("process_vm_readv"), want: "refused\n"},
		"its threads, traced":      {script: systemCall("ptrace"), want: "refused\n"}, // a test that fails here is stopped
		"its files, by a call":     {script: systemCall("pidfd_getfd"), want: "refused\n"},
		"a namespace of its own":   {script: "unshare -Ur cat /proc/$PPID/environ 2>/dev/null | head -c 1", want: ""},
		"keys":                     {script: systemCall("add_key"), want: "refused\n"},
		"keyrings":                 {script: systemCall("keyctl"), want: "refused\n"},
		"POSIX message queues":     {script: systemCall("mq_open"), want: "refused\n"},
		"rings of requests":        {script: systemCall("io_uring_setup"), want: "refused\n"},
		"capabilities of root":     {script: `perl -ne '/^Cap(Prm|Eff|Bnd):\s+(\w+)/ && hex($2) & (1<<9|1<<16|1<<17|1<<19|1<<21|1<<38|1<<39|1<<40) && print' /proc/self/status`, want: ""},
		"its own":                  {script: "cat /proc/self/environ >/dev/null && echo read", want: "read\n"},
		"the worker's life":        {script: "kill -0 $PPID 2>/dev/null && echo reached; sleep 300 & kill $! && echo own", want: "own\n"},
		"the message's file":       {script: "cat /proc/self/fd/3; cat <&3", want: "orderorder"},
		"moving files":             {script: "mkdir a b; echo x > a/f; mv a/f b/f && cat b/f", want: "x\n"},
		"a hidden file": {
			confinement: child.Confinement{Hidden: []string{filepath.Join(folder, "link")}},
			script:      "cat " + secret + " " + folder + "/link 2>/dev/null; cat " + folder + "/beside; cat /proc/self/fd/3", want: "openorder",
		},
		"where to write": {
			confinement: child.Confinement{Writable: []string{folder}},
			script:      "(echo x > " + other + "/f) 2>/dev/null || echo refused; echo y > " + folder + "/f; cat " + folder + "/f; echo z > /dev/null && echo null",
			want:        "refused\ny\nnull\n",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			message, err := child.MemoryFile("message", []byte("order"))
			if err != nil {
				t.Fatal(err)
			}
			defer message.Close()
			cmd := exec.Command("sh", "-c", tc.script)
			var out bytes.Buffer
			cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = t.TempDir(), &out, os.Stderr, []*os.File{message}
			if _, err := (child.Boundary{Confinement: &tc.confinement}).Run(t.Context(), cmd); err != nil {
				t.Fatal(err)
			}
			if out.String() != tc.want {
				t.Errorf("%q, want %q", out.String(), tc.want)
			}
		})
	}
}
