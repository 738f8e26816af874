package secret_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebbtide-dev/ebbtide/internal/secret"
)

// TestMain is a program with secrets, when it is told to be: it says what it got, and lets another of its user look at it.
func TestMain(m *testing.M) {
	if os.Getenv("EBBTIDE_TEST_SECRETS") == "" {
		os.Exit(m.Run())
	}
	values, err := secret.Take("A_URI", "EMPTY", "A_TOKEN", "NOT_SET")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	environment, err := os.ReadFile("/proc/self/environ")
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	fmt.Printf("%q dumpable %d error %v\n", map[string]string(values), dumpable, err)
	fmt.Printf("%s\n", bytes.ReplaceAll(environment, []byte{0}, []byte{'\n'}))
	descriptors, _ := os.ReadDir("/proc/self/fd")
	for _, d := range descriptors {
		to, _ := os.Readlink("/proc/self/fd/" + d.Name())
		fmt.Println("open:", to)
	}
	child := exec.Command("sh", "-c", "env; readlink /proc/self/fd/*")
	child.Stdout = os.Stdout
	fmt.Println(child.Run())
}

func TestTake(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{"EBBTIDE_TEST_SECRETS=1", "A_URI=amqp://u:p=a\xff\"ss\n@h/", "PATH=" + os.Getenv("PATH"), "EMPTY=", "A_TOKEN=t0ken"}
	inherited, err := os.Create(filepath.Join(t.TempDir(), "inherited"))
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	cmd.ExtraFiles = []*os.File{nil, inherited} // as a shell may have left one open
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "/inherited"); n != 1 {
		t.Errorf("an inherited file is open %d times, want in the program and not in its command:\n%s", n, out)
	}
	first, rest, _ := strings.Cut(string(out), "\n")
	if want := `map["A_TOKEN":"t0ken" "A_URI":"amqp://u:p=a\xff\"ss\n@h/" "EMPTY":""] dumpable 0 error <nil>`; first != want {
		t.Errorf("%s, want %s", first, want)
	}
	for _, secret := range []string{"t0ken", "A_URI", "A_TOKEN", "memfd"} {
		if strings.Contains(rest, secret) {
			t.Errorf("%s is still there:\n%s", secret, rest)
		}
	}
	if !strings.Contains(rest, "EBBTIDE_TEST_SECRETS=1\n") {
		t.Errorf("the rest of the environment is gone:\n%s", rest)
	}
}
