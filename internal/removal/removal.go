// Package removal removes what somebody hostile may have left: folders that forbid it, and folders in folders deeper than files can be open or paths
// can be long.
package removal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// All removes a path and everything below it, whatever the modes of its folders and however deep they are, and follows no link. What is not there is
// removed. It takes a handful of open files.
func All(path string) error {
	if os.RemoveAll(path) == nil { // what nearly everybody leaves
		return nil
	}
	// A root, not paths: a folder that is replaced by a link while this runs leads nowhere else.
	parent, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	name := filepath.Base(path)
	info, err := parent.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return parent.Remove(name)
	}
	if err := parent.Chmod(name, 0o700); err != nil {
		return err
	}
	root, err := parent.OpenRoot(name)
	if err != nil {
		return err
	}
	err = empty(root)
	if err := errors.Join(err, root.Close()); err != nil {
		return err
	}
	return parent.Remove(name)
}

// empty removes what is in a folder. What is below a folder of it is moved up into it first, so that it is never deeper than two.
func empty(root *os.Root) error {
	for moved := 0; ; {
		names, err := list(root, ".")
		if err != nil || len(names) == 0 {
			return err
		}
		for _, entry := range names {
			name := entry.Name()
			if !entry.IsDir() {
				if err := root.Remove(name); err != nil {
					return err
				}
				continue
			}
			if err := root.Chmod(name, 0o700); err != nil {
				return err
			}
			below, err := list(root, name)
			if err != nil {
				return err
			}
			for _, child := range below {
				path := name + "/" + child.Name()
				if !child.IsDir() {
					err = root.Remove(path)
				} else if err = root.Chmod(path, 0o700); err == nil { // which may be moved then
					err = up(root, path, &moved)
				}
				if err != nil {
					return err
				}
			}
			if err := root.Remove(name); err != nil {
				return err
			}
		}
	}
}

// up moves a folder to where nothing has its name.
func up(root *os.Root, path string, moved *int) error {
	for {
		name := "removed-" + strconv.Itoa(*moved)
		*moved++
		if _, err := root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return root.Rename(path, name)
		} else if err != nil {
			return err
		}
	}
}

func list(root *os.Root, name string) ([]fs.DirEntry, error) {
	folder, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	entries, err := folder.ReadDir(-1)
	return entries, errors.Join(err, folder.Close())
}
