package sourcestore

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// ErrUnavailable is wrapped by errors after which the same request may succeed: nothing is wrong with what was asked for.
var ErrUnavailable = errors.New("the source is not available now")

// ErrFull is wrapped, beside ErrUnavailable, by errors of a volume or a disk that is full.
var ErrFull = errors.New("the disk is full")

// emptied is the error of a request whose store was emptied while it ran.
func emptied(err error) error {
	return fmt.Errorf("%w: somebody emptied the store: %w", ErrUnavailable, err)
}

// classify tells failures of this machine and its volume, which the message that is worked on is not to blame for, from all others.
func classify(err error) error {
	var errno syscall.Errno
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, ErrUnavailable):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), says(err, "No space left on device", "Disk quota exceeded"):
		return fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrFull, err)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return err // the repository's
	case errors.As(err, &errno), errors.Is(err, exec.ErrNotFound), says(err, "Input/output error", "Stale file handle",
		"Read-only file system", "Permission denied", "Cannot allocate memory", "out of memory", "Too many open files", "unable to write file"):
		return fmt.Errorf("%w: this machine or the store's volume failed: %w", ErrUnavailable, err)
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return fmt.Errorf("%w: git was killed, perhaps because memory ran out: %w", ErrUnavailable, err)
	default:
		return err
	}
}

// says reports whether an error of git has one of the texts that the C library has for a failure.
func says(err error, texts ...string) bool {
	var failed *gitError
	if !errors.As(err, &failed) {
		return false
	}
	for _, text := range texts {
		if strings.Contains(failed.said, text) {
			return true
		}
	}
	return false
}
