package rabbitmq

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Release is a release of RabbitMQ: that of the Debian package that the machine has installed, or that of another Debian, in a
// folder of its own.
type Release struct {
	// Suite is the name of the Debian release. Empty: the machine's own.
	Suite string
}

// Releases are those that the scaler is tested with: Debian 12's 3.10, Debian 13's 4.0, and 4.3 of the Debian after that.
var Releases = []Release{{}, {"trixie"}, {"forky"}}

func (r Release) String() string {
	if r.Suite == "" {
		return "installed"
	}
	return r.Suite
}

// root is the folder that holds the release's system.
func (r Release) root() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "ebbtide", "chroots", r.Suite), err
}

func (r Release) available() error {
	if r.Suite == "" {
		return Available()
	}
	root, err := r.root()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, server)); err != nil {
		return fmt.Errorf("RabbitMQ of Debian %s is not installed: make rabbitmq-releases", r.Suite)
	}
	if os.Geteuid() != 0 {
		return errors.New("a release of another Debian needs root to run")
	}
	return nil
}

// command is what runs a program of the release, which sees the folder dir under the same name. The mounts for it end with it.
func (r Release) command(dir, program string, args ...string) (path string, all []string) {
	if r.Suite == "" {
		return program, args
	}
	root, err := r.root()
	if err != nil {
		return program, args // available has told
	}
	const script = `set -e
mkdir -p "$1$2"
mount --bind "$2" "$1$2"
mount -t proc proc "$1/proc"
root=$1
shift 2
exec chroot "$root" "$@"`
	return "unshare", append([]string{"--mount", "sh", "-c", script, "sh", root, dir, program}, args...)
}

// Install installs a release of another Debian from the machine's own mirror, with debootstrap. It takes some 370 MB, and a minute.
func (r Release) Install(ctx context.Context, progress io.Writer) error {
	if r.Suite == "" || r.available() == nil {
		return r.available()
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can install a release of another Debian")
	}
	mirror, err := mirror()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		if err := run(ctx, progress, "apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-q", "-y", "--no-install-recommends", "debootstrap"); err != nil {
			return err
		}
	}
	root, err := r.root()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return err
	}
	half, err := os.MkdirTemp(filepath.Dir(root), r.Suite+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(half)
	fmt.Fprintf(progress, "installing RabbitMQ of Debian %s\n", r.Suite)
	// A debootstrap that is older than the release has no script of its own for it; all are sid's.
	if err := run(ctx, progress, "debootstrap", "--variant=minbase", "--include=rabbitmq-server", r.Suite, half, mirror,
		"/usr/share/debootstrap/scripts/sid"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(half, "etc", "hosts"), []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(half, root)
}

// mirror is the first that the machine installs packages from.
func mirror() (string, error) {
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*.sources")
	lists, _ := filepath.Glob("/etc/apt/sources.list.d/*.list")
	for _, file := range append(append(files, lists...), "/etc/apt/sources.list") {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			for i, name := range fields {
				if (i == 1 && fields[0] == "URIs:" || i > 0 && fields[0] == "deb") && strings.Contains(name, "://") {
					return name, nil
				}
			}
		}
	}
	return "", errors.New("apt's sources name no mirror")
}

func run(ctx context.Context, progress io.Writer, name string, args ...string) error {
	command := exec.CommandContext(ctx, name, args...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		text := out.String()
		fmt.Fprintln(progress, text[max(0, len(text)-2000):])
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
