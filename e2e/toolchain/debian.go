package toolchain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Packages are the Debian packages of the parts that are not built from source, and the C compiler that Go's race
// detector is linked with.
var Packages = []string{
	"rabbitmq-server", "containerd", "runc", "containernetworking-plugins", "iptables", "iproute2", "prometheus", "chromium", "gcc", "libc6-dev",
}

// denyStarts keeps package scripts from starting services: a broker or a container runtime of the machine's own is
// not what was asked for.
const denyStarts = "/usr/sbin/policy-rc.d"

// EnsurePackages installs the Debian packages that are missing. Where it may not (not Debian, or not root) the error
// names them and the command that installs them.
func EnsurePackages(ctx context.Context, progress io.Writer) error {
	missing := missingPackages(ctx)
	if len(missing) == 0 {
		return nil
	}
	if err := mayInstall(missing, exists("/etc/debian_version"), os.Geteuid() == 0); err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(cache, "ebbtide"), 0o755); err != nil {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "ebbtide", "apt.lock"), progress)
	if err != nil {
		return err
	}
	defer unlock()
	if missing = missingPackages(ctx); len(missing) == 0 {
		return nil
	}
	start := time.Now()
	stop := ticking(progress, "installing "+strings.Join(missing, " "), start)
	defer stop()
	allow, err := withoutServiceStarts()
	if err != nil {
		return err
	}
	defer allow()
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(out))
		}
	}
	fmt.Fprintf(progress, "installed %s in %.0f s\n", strings.Join(missing, " "), time.Since(start).Seconds())
	return nil
}

// mayInstall returns why packages can't be installed here, and how to get them.
func mayInstall(missing []string, debian, root bool) error {
	names := strings.Join(missing, " ")
	switch {
	case !debian:
		return fmt.Errorf("this is not Debian: install by your system's means what these of its packages hold: %s", names)
	case !root:
		return fmt.Errorf("packages are missing, and only root can install them: "+
			"sudo sh -c 'apt-get update && apt-get install --no-install-recommends %s'", names)
	default:
		return nil
	}
}

// missingPackages are those that dpkg does not list as installed.
func missingPackages(ctx context.Context) []string {
	var missing []string
	for _, name := range Packages {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", name).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, name)
		}
	}
	return missing
}

func withoutServiceStarts() (undo func(), err error) {
	file, err := os.OpenFile(denyStarts, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, os.ErrExist) {
		return func() {}, nil // the machine has a rule of its own
	}
	if err != nil {
		return nil, err
	}
	undo = func() { os.Remove(denyStarts) }
	if _, err := file.WriteString("#!/bin/sh\nexit 101\n"); err != nil {
		file.Close()
		undo()
		return nil, err
	}
	return undo, file.Close()
}
