package engines

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ebbtide-dev/ebbtide/internal/child"
	"github.com/ebbtide-dev/ebbtide/internal/removal"
)

// door is the socket of a server. The server's command runs as the same user and can remove it, or put another in its place: then it is made again, before
// the next message can go there.
type door struct {
	path string
	// alone: nothing else belongs into its folder.
	alone bool
	mode  os.FileMode // of its folder

	mu     sync.Mutex
	open   *net.UnixListener
	info   os.FileInfo
	closed bool
}

// openDoor listens at a path. What is there is removed: an earlier server's, after a crash.
func openDoor(ctx context.Context, path string, alone bool) (*door, error) {
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	d := &door{path: path, alone: alone, mode: folder.Mode().Perm()}
	return d, d.listen(ctx)
}

func (d *door) listen(ctx context.Context) error {
	if err := removal.All(d.path); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", d.path)
	if err != nil {
		return err
	}
	open := listener.(*net.UnixListener)
	open.SetUnlinkOnClose(false) // at its path may be another one then
	info, err := os.Lstat(d.path)
	if err != nil {
		return errors.Join(err, open.Close())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed { // meanwhile
		return errors.Join(open.Close(), os.Remove(d.path))
	}
	if d.open != nil {
		_ = d.open.Close() // nobody finds it any more
	}
	d.open, d.info = open, info
	return nil
}

// restore makes the socket and its folder what they were. The command has ended. An error wraps child.ErrLeft.
func (d *door) restore(ctx context.Context) error {
	err := d.clear()
	if info, statErr := os.Lstat(d.path); err == nil && (statErr != nil || !os.SameFile(info, d.info) || info.Mode() != d.info.Mode()) {
		err = d.listen(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: the server's socket %s can't be made again: %w", child.ErrLeft, d.path, err)
	}
	return nil
}

// clear removes what does not belong into the folder.
func (d *door) clear() error {
	folder := filepath.Dir(d.path)
	if info, err := os.Stat(folder); err == nil && info.Mode().Perm() != d.mode {
		if err := os.Chmod(folder, d.mode); err != nil {
			return err
		}
	}
	if !d.alone {
		return nil
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if path := filepath.Join(folder, entry.Name()); path != filepath.Clean(d.path) {
			if err := removal.All(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *door) listener() *net.UnixListener {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		open := d.listener()
		connection, err := open.Accept()
		if err == nil || open == d.listener() {
			return connection, err
		}
	}
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	err := os.Remove(d.path)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(d.open.Close(), err)
}

// Addr implements net.Listener.
func (d *door) Addr() net.Addr { return d.listener().Addr() }

type callerKey struct{}

// withCaller puts into a connection's context which process has opened it, as the kernel says: 0 for one of another container.
func withCaller(ctx context.Context, connection net.Conn) context.Context {
	raw, err := connection.(*net.UnixConn).SyscallConn()
	if err != nil {
		return ctx
	}
	var peer *unix.Ucred
	if controlErr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); controlErr != nil || err != nil {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, int(peer.Pid))
}

func caller(ctx context.Context) int {
	pid, _ := ctx.Value(callerKey{}).(int)
	return pid
}
