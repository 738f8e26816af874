package demoscanner_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/examples/demo-scanner"
)

// The command of values-test.yaml finds in each repository what is in it, with nothing but what is in the image and as another user than
// root; a repository that is not there is an error.
func TestImage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds gitleaks")
	}
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	root := unpack(t)
	text, err := os.ReadFile("../../charts/scan-jobs/values-test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		Command []string
		Env     []struct{ Name, Value string }
		Test    struct {
			Messages []struct{ Body, Contains string }
		}
	}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	run := func(message string, command ...string) (string, error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join("/usr/local/bin", command[0]), command[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/local/bin", "GIT_CONFIG_NOSYSTEM=1"}
		cmd.Stdin = strings.NewReader(message)
		out, err := cmd.Output()
		if exit, failed := errors.AsType[*exec.ExitError](err); failed {
			t.Logf("%s: %v: %s", message, err, exit.Stderr)
		}
		return string(out), err
	}
	scan := func(message string) (string, error) { return run(message, values.Command...) }
	for name, want := range demoscanner.Repositories() {
		out, err := scan(name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var findings []struct{ RuleID string }
		if err := json.Unmarshal([]byte(out), &findings); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		var got []string
		for _, f := range findings {
			got = append(got, f.RuleID)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: found %v, want %v", name, got, want)
		}
	}
	for _, m := range values.Test.Messages {
		if out, err := scan(m.Body); err != nil || !strings.Contains(out, m.Contains) {
			t.Errorf("values-test.yaml: %s gives %v and %s, want %q in it", m.Body, err, out, m.Contains)
		}
	}
	begin := time.Now()
	if out, err := scan("payments 1"); err != nil || !strings.Contains(out, "aws-access-token") || time.Since(begin) < time.Second {
		t.Errorf("a scan that takes a second: %v after %s, %s", err, time.Since(begin), out)
	}
	var exit *exec.ExitError
	if out, err := scan("payments soon"); !errors.As(err, &exit) || exit.ExitCode() != 65 {
		t.Errorf("a scan whose time is no number: %v, %s", err, out)
	}
	// As the source store does.
	if err := errors.Join(os.Mkdir(filepath.Join(root, "tmp"), 0o755), os.Chmod(filepath.Join(root, "tmp"), 0o777)); err != nil {
		t.Fatal(err)
	}
	if out, err := run("", "git", "clone", "--quiet", "--mirror", "file:///repositories/payments.git", "/tmp/mirror"); err != nil {
		t.Errorf("fetch a repository: %v, %s", err, out)
	}
	if out, err := scan("no-such-repository"); !errors.As(err, &exit) || exit.ExitCode() != 128 {
		t.Errorf("a repository that is not there: %v, %s", err, out)
	}
}

// unpack builds the image and puts its files into a folder.
func unpack(t *testing.T) string {
	t.Helper()
	image, err := demoscanner.Build(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	// What a test's folder is in, others may not enter.
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A container runtime makes the devices.
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]int{"null": 3, "urandom": 9} {
		device := filepath.Join(root, "dev", name)
		if err := errors.Join(syscall.Mknod(device, syscall.S_IFCHR, 1<<8|minor), os.Chmod(device, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	files := mutate.Extract(image)
	defer files.Close()
	for reader := tar.NewReader(files); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return root
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, header.Name)
		if header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else {
			var content []byte
			content, err = io.ReadAll(reader)
			err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, header.FileInfo().Mode().Perm()))
		}
		if err := errors.Join(err, os.Chown(path, header.Uid, header.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}
