package main

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel ends a connection whose peer does not acknowledge what it is sent, or a keep-alive probe.
func TestListen(t *testing.T) {
	listener, err := listen(t.Context(), "127.0.0.1:0")
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
	raw, err := accepted.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]int{unix.TCP_USER_TIMEOUT: int(vanished.Milliseconds()), unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 15}
	for option, want := range want {
		var got int
		var failed error
		err := raw.Control(func(fd uintptr) { got, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option) })
		if err != nil || failed != nil || got != want {
			t.Errorf("option %d of tcp(7) is %d, %v, %v; want %d", option, got, err, failed, want)
		}
	}
}
