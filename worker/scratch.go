package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	"github.com/ebbtide-dev/ebbtide/internal/removal"
)

// scratch is where a command may leave files: a fresh folder for each message, and whole folders that are emptied after each.
type scratch struct {
	// folder of the message; empty where no file system can be written to.
	folder string
	// emptied are the folders that belong to commands.
	emptied []string
}

// newScratch makes the folder, owned by the command's user. Where nothing can be written there is none: a worker may have no disk.
func newScratch(config *Config) (scratch, error) {
	s := scratch{emptied: config.Scratch}
	if err := s.empty(); err != nil { // what somebody left before this worker began
		return s, err
	}
	parent := os.TempDir()
	if len(config.Scratch) > 0 {
		parent = config.Scratch[0]
	}
	folder, err := os.MkdirTemp(parent, "scan-")
	switch {
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return s, nil
	case err != nil:
		return s, fmt.Errorf("make a temporary folder: %w", err)
	}
	s.folder = folder
	if config.User != nil {
		if err := os.Chown(folder, int(config.User.Uid), int(config.User.Gid)); err != nil {
			return s, errors.Join(fmt.Errorf("give the temporary folder to the command's user: %w", err), s.remove())
		}
	}
	return s, nil
}

// ending is the path at which a command may say how it ended elsewhere; empty where it can't.
func (s scratch) ending() string {
	if s.folder == "" {
		return ""
	}
	return filepath.Join(s.folder, ".ending")
}

// folders are all of them.
func (s scratch) folders() []string {
	if s.folder != "" && len(s.emptied) == 0 { // else it is in one of those
		return []string{s.folder}
	}
	return s.emptied
}

// writable adds the folders to what a confined command may write to.
func (s scratch) writable(confinement *child.Confinement) *child.Confinement {
	if confinement == nil || confinement.Writable == nil {
		return confinement
	}
	c := *confinement
	c.Writable = slices.Concat(c.Writable, s.emptied, []string{s.folder})
	return &c
}

// remove removes what the command left.
func (s scratch) remove() error {
	if s.folder != "" {
		if err := removal.All(s.folder); err != nil {
			return fmt.Errorf("%w: its temporary folder can't be removed: %w", child.ErrLeft, err)
		}
	}
	return s.empty()
}

// EmptyScratch removes what commands left in folders that belong to them. Its errors wrap child.ErrLeft.
func EmptyScratch(folders []string) error { return scratch{emptied: folders}.empty() }

func (s scratch) empty() error {
	for _, folder := range s.emptied {
		entries, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: --scratch %s can't be read: %w", child.ErrLeft, folder, err)
		}
		for _, entry := range entries {
			if err := removal.All(filepath.Join(folder, entry.Name())); err != nil {
				return fmt.Errorf("%w: --scratch %s can't be emptied: %w", child.ErrLeft, folder, err)
			}
		}
	}
	return nil
}
