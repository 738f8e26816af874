package sourcestore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"reflect"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked is returned by those who do not wait for a lock.
var errLocked = errors.New("locked")

// lockPoll is the mean pause between attempts to get a lock. An NFS client that blocks in the kernel polls the server too, up to half a
// minute apart.
const lockPoll = 100 * time.Millisecond

// lock is held until it is closed, by this process and by those that inherit its file, or until the last of them has died.
type lock struct{ file *os.File }

// shared and exclusive are how a lock is held.
const (
	shared    = unix.LOCK_SH
	exclusive = unix.LOCK_EX
)

// tryLock gets the lock of a file, or errLocked.
func tryLock(path string, how int) (*lock, error) {
	// On NFS an exclusive lock needs a file that is open for writing.
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	err = flock(file, how|unix.LOCK_NB)
	if err == nil && !isAt(file, path) {
		err = errLocked // it was removed meanwhile, by one that had the lock
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &lock{file}, nil
}

// awaitLock makes the file if there is none, and waits for its lock.
func awaitLock(ctx context.Context, path string, how int) (*lock, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o660)
		if err != nil {
			return nil, err
		}
		file.Close()
		l, err := tryLock(path, how)
		if err == nil || !errors.Is(err, errLocked) && !errors.Is(err, os.ErrNotExist) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", path, context.Cause(ctx))
		case <-time.After(lockPoll/2 + rand.N(lockPoll)):
		}
	}
}

// flock is the system call, whatever interrupts it.
func flock(file *os.File, how int) error {
	for {
		err := unix.Flock(int(file.Fd()), how)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return errLocked
		case err != nil:
			return fmt.Errorf("lock %s: %w: the volume must have locks (NFS 4, or mounted without nolock)", file.Name(), err)
		default:
			return nil
		}
	}
}

// isAt reports whether an open file is still what its path names. It opens the path, because what an NFS client knows of a path may be
// old; what it opens is not.
func isAt(file *os.File, path string) bool {
	named, err := os.Open(path)
	if err != nil {
		return false
	}
	defer named.Close()
	a, aErr := file.Stat()
	b, bErr := named.Stat()
	return aErr == nil && bErr == nil && os.SameFile(a, b)
}

// recordBytes is the size of a record: one page, which is written at once.
const recordBytes = 4096

// read reads the record in the lock's file into a value, which stays as it is where there is none.
func (l *lock) read(value any) error { return readRecord(l.file, value) }

// write replaces the record.
func (l *lock) write(value any) error {
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	encoder.SetEscapeHTML(false) // which makes six bytes of one
	if err := encoder.Encode(value); err != nil {
		return err
	}
	text := bytes.TrimSpace(encoded.Bytes())
	if len(text) >= recordBytes {
		return fmt.Errorf("record of %d bytes in %s: at most %d", len(text), l.file.Name(), recordBytes)
	}
	text = append(text, bytes.Repeat([]byte(" "), recordBytes-1-len(text))...)
	if _, err := l.file.WriteAt(append(text, '\n'), 0); err != nil {
		return err
	}
	return l.file.Sync()
}

// readRecord reads a record. One that can't be read counts as none: a volume that was full may have half of one, and whoever may write to the volume may
// have written anything.
func readRecord(file *os.File, value any) error {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, recordBytes))
	if err != nil || len(text) == 0 {
		return err
	}
	read := reflect.New(reflect.TypeOf(value).Elem())
	if json.Unmarshal(text, read.Interface()) == nil { // all of it or nothing
		reflect.ValueOf(value).Elem().Set(read.Elem())
	}
	return nil
}

// lost reports whether the lock's file was removed while the lock was held, which none that knows of locks does.
func (l *lock) lost() bool { return !isAt(l.file, l.file.Name()) }

func (l *lock) close() { l.file.Close() }
