package socket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// unacknowledged is how long a peer may be silent in these tests.
const unacknowledged = 20 * time.Second

// pair returns the two ends of a connection.
func pair(t *testing.T) (one, other net.Conn) {
	t.Helper()
	listener, err := Listen(t.Context(), "127.0.0.1:0", unacknowledged)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialed, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return accepted, Wrap(dialed)
}

// More than a socket's buffers hold goes through whole, however the kernel cuts it.
func TestLarge(t *testing.T) {
	one, other := pair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		if n, err := one.Write(sent); n != len(sent) || err != nil {
			t.Errorf("wrote %d of %d, %v", n, len(sent), err)
		}
		one.Close()
	}()
	received, err := io.ReadAll(other)
	if err != nil || !bytes.Equal(received, sent) {
		t.Errorf("%d bytes of %d came, or others, %v", len(received), len(sent), err)
	}
}

func TestErrors(t *testing.T) {
	one, other := pair(t)
	buffer := make([]byte, 1)
	if n, err := one.Read(nil); n != 0 || err != nil {
		t.Errorf("an empty read: %d, %v", n, err)
	}
	if n, err := one.Write(nil); n != 0 || err != nil {
		t.Errorf("an empty write: %d, %v", n, err)
	}
	if err := one.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Read(buffer); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v past the deadline", err)
	}
	large := make([]byte, 64<<20)
	if err := one.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := one.Write(large); n == 0 || n == len(large) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote %d bytes that nobody reads, error %v", n, err)
	}
	other.Close() // with bytes unread, which resets the connection
	_ = one.SetDeadline(time.Time{})
	if _, err := io.ReadAll(one); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error %v of a connection that was reset", err)
	}
	if _, err := one.Write(buffer); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("error %v of a write to a connection that is gone", err)
	}
	waiting, _ := pair(t)
	time.AfterFunc(time.Millisecond, func() { waiting.Close() })
	if _, err := waiting.Read(buffer); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v of a read during which the connection was closed", err)
	}
	var network net.Error
	_ = other.Close()
	if _, err := other.Read(buffer); !errors.Is(err, net.ErrClosed) || !errors.As(err, &network) {
		t.Errorf("error %v of a closed connection", err)
	}
}
