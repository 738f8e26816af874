package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// CgroupsAvailable reports why this program can't make cgroups, or nil.
func CgroupsAvailable() error {
	_, err := cgroupParents()
	return err
}

// MakeCgroup makes a cgroup of this program's, known to every controller, and returns its path below each controller's root. It goes with
// RemoveCgroups, and inside Contain with the program, whatever ends it.
func MakeCgroup(name string) (string, error) {
	parents, err := cgroupParents()
	if err != nil {
		return "", err
	}
	name = cgroupPrefix(OuterPID()) + name
	for _, parent := range parents {
		path := filepath.Join(parent, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return "", err
		}
		// On cgroup v1 a cpuset is unusable until it has CPUs and memory.
		for _, file := range []string{"cpuset.mems", "cpuset.cpus"} {
			if text, err := os.ReadFile(filepath.Join(parent, file)); err == nil {
				if err := os.WriteFile(filepath.Join(path, file), bytes.TrimSpace(text), 0o644); err != nil {
					return "", fmt.Errorf("%s of %s: %w", file, path, err)
				}
			}
		}
	}
	return name, nil
}

// RemoveCgroups ends what runs in this program's cgroups, and removes them.
func RemoveCgroups() { removeCgroups(OuterPID()) }

// cgroupPrefix begins the names of the cgroups of the program that the machine knows by a process id.
func cgroupPrefix(outerPID int) string { return fmt.Sprintf("ebbtide-%d-", outerPID) }

func removeCgroups(outerPID int) {
	for _, root := range cgroupsOf(outerPID) {
		removeCgroup(root)
	}
}

// cgroupsOf are the folders of a program's cgroups.
func cgroupsOf(outerPID int) []string {
	parents, err := cgroupParents()
	if err != nil {
		return nil // there are no cgroups
	}
	var roots []string
	for _, parent := range parents {
		found, _ := filepath.Glob(filepath.Join(parent, cgroupPrefix(outerPID)+"*"))
		roots = append(roots, found...)
	}
	return roots
}

// removeCgroup kills what is in a cgroup, then removes it from the leaves up. What can't be removed stays: an empty cgroup costs nothing.
func removeCgroup(root string) {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	deadline := time.Now().Add(5 * time.Second)
	for i := len(dirs) - 1; i >= 0; i-- {
		for unix.Rmdir(dirs[i]) != nil && time.Now().Before(deadline) {
			text, err := os.ReadFile(filepath.Join(dirs[i], "cgroup.procs"))
			if err != nil {
				break
			}
			for _, field := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// cgroupParents are the folders in which a cgroup must be made so that every controller knows it.
func cgroupParents() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}, writable(cgroupRoot)
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("no cgroups: %w", err)
	}
	var parents []string
	for _, entry := range entries {
		parent := filepath.Join(cgroupRoot, entry.Name())
		if _, err := os.Stat(filepath.Join(parent, "cgroup.procs")); err == nil && entry.Type()&os.ModeSymlink == 0 {
			parents = append(parents, parent)
		}
	}
	if len(parents) == 0 {
		return nil, errors.New("no cgroups: nothing is mounted under " + cgroupRoot)
	}
	return parents, writable(parents[0])
}

func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("cgroups are read-only (%s): %w", dir, err)
	}
	return nil
}
