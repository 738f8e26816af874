package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/child"
)

// ScratchLimit bounds what a command may have in its folders at a time. 0 bounds nothing.
//
// What is there is counted while the command runs, so a command can exceed the limit for a moment. Files that it has deleted and still holds open count,
// unless it closes its part of /proc to the worker. No process can set a bound for its own files that the kernel keeps: that takes a file system of the
// folder's own, such as an emptyDir in memory.
type ScratchLimit struct {
	Bytes int64
	// Files, folders included.
	Files int
}

// ErrScratch is the cause of the end of a command that has more in its folders than it may.
var ErrScratch = errors.New("the scan has too much in its temporary folders")

// scratchEvery is the pause between two counts. It is longer where counting takes long, so that it takes a tenth of a processor at most.
const scratchEvery = time.Second

// Watch returns a context that ends, with a cause that wraps ErrScratch, once the folders hold more than they may. Stop ends the watch.
func (l ScratchLimit) Watch(ctx context.Context, folders []string, reaper *child.Reaper) (watched context.Context, stop func()) {
	watched, end := context.WithCancelCause(ctx)
	if l == (ScratchLimit{}) || len(folders) == 0 {
		return watched, func() { end(nil) }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause := scratchEvery; ; {
			select {
			case <-watched.Done():
				return
			case <-time.After(pause):
			}
			begin := time.Now()
			if err := l.check(folders, reaper); err != nil {
				end(err)
				return
			}
			pause = max(scratchEvery, 9*time.Since(begin))
		}
	}()
	return watched, func() {
		end(nil)
		<-done
	}
}

// inode is a file, whatever names it has.
type inode struct{ device, number uint64 }

// usage is what was counted.
type usage struct {
	limit ScratchLimit
	bytes int64
	files int
	// several are files with several names.
	several map[inode]bool
	devices map[uint64]bool
}

// check counts what is in folders, and returns an error once that is too much.
func (l ScratchLimit) check(folders []string, reaper *child.Reaper) error {
	u := usage{limit: l, several: map[inode]bool{}, devices: map[uint64]bool{}}
	for _, folder := range folders {
		root, err := os.OpenRoot(folder)
		if err != nil {
			continue // the command has removed it, say
		}
		err = u.folder(root)
		_ = root.Close()
		if err != nil {
			return err
		}
	}
	for _, file := range reaper.Unlinked() {
		if stat := file.Sys().(*syscall.Stat_t); u.devices[stat.Dev] {
			if err := u.add(stat, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *usage) folder(root *os.Root) error {
	info, err := root.Stat(".")
	if err != nil {
		return nil
	}
	u.devices[info.Sys().(*syscall.Stat_t).Dev] = true
	folder, err := root.Open(".")
	if err != nil {
		return nil
	}
	defer func() { _ = folder.Close() }()
	for {
		entries, err := folder.ReadDir(256)
		for _, entry := range entries {
			if err := u.entry(root, entry); err != nil {
				return err
			}
		}
		if err != nil || len(entries) == 0 {
			return nil // io.EOF, or the command removes it
		}
	}
}

func (u *usage) entry(root *os.Root, entry fs.DirEntry) error {
	info, err := root.Lstat(entry.Name())
	if err != nil {
		return nil
	}
	stat := info.Sys().(*syscall.Stat_t)
	if err := u.add(stat, !info.IsDir() && stat.Nlink > 1); err != nil || !info.IsDir() {
		return err
	}
	// A folder that nobody may read hides nothing.
	if info.Mode().Perm()&0o500 != 0o500 {
		_ = root.Chmod(entry.Name(), info.Mode().Perm()|0o500)
	}
	below, err := root.OpenRoot(entry.Name())
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w: folders in folders deeper than can be counted", ErrScratch)
	case err != nil:
		return nil
	}
	defer func() { _ = below.Close() }()
	return u.folder(below)
}

// add counts a file, once if it may come again.
func (u *usage) add(stat *syscall.Stat_t, again bool) error {
	if again {
		id := inode{stat.Dev, stat.Ino}
		if u.several[id] {
			return nil
		}
		u.several[id] = true
	}
	const blockBytes = 512
	u.files++
	u.bytes += stat.Blocks * blockBytes
	switch {
	case u.limit.Files > 0 && u.files > u.limit.Files:
		return fmt.Errorf("%w: more than %d files", ErrScratch, u.limit.Files)
	case u.limit.Bytes > 0 && u.bytes > u.limit.Bytes:
		return fmt.Errorf("%w: more than %d bytes", ErrScratch, u.limit.Bytes)
	}
	return nil
}
