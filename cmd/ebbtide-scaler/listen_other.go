//go:build !linux

package main

import (
	"syscall"
	"time"
)

// endUnacknowledged does nothing: TCP_USER_TIMEOUT is Linux's.
func endUnacknowledged(time.Duration) func(network, address string, c syscall.RawConn) error {
	return nil
}
