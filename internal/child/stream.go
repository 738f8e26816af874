package child

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MemoryFile is an anonymous file with a content, at its start: a program may want a file where no file system is writable.
func MemoryFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err = file.Write(content); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// Tail keeps the end of what is written to it.
type Tail struct {
	// Limit is how many bytes it keeps.
	Limit int
	text  []byte
}

// Write implements io.Writer.
func (t *Tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-t.Limit):]
	return len(p), nil
}

// String is what was kept, without what is no UTF-8.
func (t *Tail) String() string { return strings.ToValidUTF8(string(t.text), "") }
