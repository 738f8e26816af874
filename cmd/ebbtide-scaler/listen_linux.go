package main

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endUnacknowledged sets TCP_USER_TIMEOUT (tcp(7)) on a listener, whose connections inherit it.
func endUnacknowledged(after time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
		})
		return errors.Join(err, failed)
	}
}
