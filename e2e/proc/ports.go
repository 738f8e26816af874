package proc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

// firstPort is above the ports that well-known services use.
const firstPort = 12000

// reservations are abstract sockets, one for each port handed out. They tell the other programs that use FreePorts
// which ports are spoken for in the time between choosing a port and its server binding it, and vanish with this
// process.
var reservations struct {
	sync.Mutex
	held []net.Listener
}

// FreePorts returns n distinct TCP ports that are free on 127.0.0.1 and that no other running program got from
// FreePorts. They lie below the kernel's ephemeral range, so that no outgoing connection takes one first.
func FreePorts(n int) ([]int, error) {
	last, err := lastPort()
	if err != nil {
		return nil, err
	}
	reservations.Lock()
	defer reservations.Unlock()
	ports := make([]int, 0, n)
	for range 100 * (n + 1) {
		if len(ports) == n {
			return ports, nil
		}
		port := firstPort + rand.IntN(last-firstPort)
		lock, err := net.Listen("unix", fmt.Sprintf("@ebbtide/port/%d", port))
		if err != nil {
			continue
		}
		probe, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			lock.Close()
			continue
		}
		probe.Close()
		reservations.held = append(reservations.held, lock)
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("found only %d of %d free ports between %d and %d", len(ports), n, firstPort, last)
}

// lastPort is the port below the ephemeral range.
func lastPort() (int, error) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, err
	}
	low, _, _ := strings.Cut(string(text), "\t")
	port, err := strconv.Atoi(strings.TrimSpace(low))
	if err != nil {
		return 0, fmt.Errorf("ip_local_port_range: %w", err)
	}
	if port <= firstPort+1000 {
		return 0, errors.New("ip_local_port_range leaves no ports below it to choose from")
	}
	return port - 1, nil
}
