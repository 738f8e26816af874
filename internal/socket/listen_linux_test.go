package socket

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel ends a connection whose peer leaves unanswered what it is sent, once it is told to.
func TestListen(t *testing.T) {
	accepted, _ := pair(t)
	want := map[int]int{unix.TCP_USER_TIMEOUT: int(unacknowledged.Milliseconds()), unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 15}
	for option, want := range want {
		var got int
		var failed error
		err := accepted.(*conn).raw.Control(func(fd uintptr) { got, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option) })
		if err != nil || failed != nil || got != want {
			t.Errorf("option %d of tcp(7) is %d, %v, %v; want %d", option, got, err, failed, want)
		}
	}
}
