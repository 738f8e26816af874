package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// endUnacknowledged sets tcp(7)'s TCP_USER_TIMEOUT, which accepted connections have of their listener.
func endUnacknowledged(after time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
		})
		return errors.Join(err, failed)
	}
}

// Wrap returns a TCP connection as one of this package, and any other as it is.
func Wrap(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	return &conn{Conn: c, raw: raw}
}

type conn struct {
	net.Conn
	raw syscall.RawConn
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = c.raw.Read(func(fd uintptr) bool {
		n, errno = call(syscall.SYS_READ, fd, b)
		return errno != syscall.EAGAIN
	})
	if err = c.explain("read", err, errno); err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (n int, err error) {
	var errno syscall.Errno
	err = c.raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			var written int
			if written, errno = call(syscall.SYS_WRITE, fd, b[n:]); errno != 0 {
				return errno != syscall.EAGAIN
			}
			n += written
		}
		return true
	})
	return n, c.explain("write", err, errno)
}

// call reads or writes once.
func call(number, fd uintptr, b []byte) (n int, errno syscall.Errno) {
	for {
		r, _, errno := syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return int(r), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// explain makes of the poller's error, or else of the kernel's, what other connections return.
func (c *conn) explain(operation string, err error, errno syscall.Errno) error {
	var failure *net.OpError
	switch {
	case errors.As(err, &failure):
		failure.Op = operation // not raw-read, raw-write
	case err == nil && errno != 0:
		err = &net.OpError{
			Op: operation, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(operation, errno),
		}
	}
	return err
}
