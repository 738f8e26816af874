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

const projectModule = "module github.com/ebbtide-dev/ebbtide\n"

// Root is the project's folder: the nearest one above the working directory that holds its go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(text, []byte(projectModule)) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside a clone of ebbtide: run this in the cloned folder")
		}
	}
}

// Module is the folder of the module that pins the tools.
func Module(root string) string { return filepath.Join(root, "e2e", "tools") }

// BuildProject builds packages of the project, given relative to root (./cmd/ebbtide-scaler), into the folder bin.
func BuildProject(ctx context.Context, root, bin string, progress io.Writer, packages ...string) error {
	start := time.Now()
	stop := ticking(progress, "building "+strings.Join(packages, " "), start)
	defer stop()
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	args := append([]string{"build", "-o", bin + string(filepath.Separator)}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
