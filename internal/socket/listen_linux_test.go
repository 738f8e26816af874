package socket

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A connection ends with what its peer leaves unanswered: the kernel does it, once it is told.
func TestListen(t *testing.T) {
	listener, err := Listen(t.Context(), "127.0.0.1:0", 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialed, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for option, want := range map[int]int{unix.TCP_USER_TIMEOUT: 20_000, unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 15} {
		var got int
		if err := accepted.(*conn).raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || got != want {
			t.Errorf("option %d of tcp(7) is %d, %v; want %d", option, got, err, want)
		}
	}
}
