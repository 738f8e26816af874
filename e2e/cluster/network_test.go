package cluster

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

// networkDirEnv makes the test binary a program that makes a network in a folder.
const networkDirEnv = "EBBTIDE_TEST_NETWORK"

func TestMain(m *testing.M) {
	dir := os.Getenv(networkDirEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := holdNetwork(dir); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("up")
	_ = syscall.Pause() // until a signal
}

// holdNetwork makes a network of two nodes and tries its ways.
func holdNetwork(dir string) error {
	if err := proc.Contain(); err != nil {
		return err
	}
	if err := privateMounts(filepath.Join(dir, "scratch")); err != nil {
		return err
	}
	if err := os.WriteFile("/run/ebbtide-test", nil, 0o644); err != nil {
		return err
	}
	w, err := newNetwork(filepath.Join(dir, "network"))
	if err != nil {
		return err
	}
	first, _, err := w.addNode()
	if err != nil {
		return err
	}
	second, number, err := w.addNode()
	if err != nil {
		return err
	}
	machine, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := w.forward(machine.Addr().(*net.TCPAddr).Port); err != nil {
		return err
	}
	var node net.Listener
	if err := second.do(func() (err error) {
		node, err = net.Listen("tcp", nodeAddress(number)+":0")
		return err
	}); err != nil {
		return err
	}
	greet(machine, "machine")
	greet(node, "node")
	gateway := fmt.Sprintf("%s:%d", gatewayAddress, machine.Addr().(*net.TCPAddr).Port)
	for _, way := range []struct {
		from, want, address string
		dial                func(context.Context, string) (net.Conn, error)
	}{
		{"a node to the machine", "machine", gateway, first.dial},
		{"another node to the machine", "machine", gateway, second.dial},
		{"a node to another", "node", node.Addr().String(), first.dial},
		{"the harness to a node", "node", node.Addr().String(), w.dial},
		{"the API server to a node", "node", node.Addr().String(), w.dialEgress},
	} {
		if got, err := greeting(way.dial, way.address); err != nil || got != way.want {
			return fmt.Errorf("%s: %q, %w", way.from, got, err)
		}
	}
	return nil
}

func greet(listener net.Listener, name string) {
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(connection, name)
			connection.Close()
		}
	}()
}

func greeting(dial func(context.Context, string) (net.Conn, error), address string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	connection, err := dial(ctx, address)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	line, err := bufio.NewReader(connection).ReadString('\n')
	return strings.TrimSpace(line), err
}

// dialEgress connects as an API server does.
func (w *network) dialEgress(ctx context.Context, address string) (net.Conn, error) {
	connection, err := new(net.Dialer).DialContext(ctx, "unix", w.egress)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(connection, "CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", address)
	var answer []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(answer), "\r\n\r\n"); answer = append(answer, one...) {
		if _, err := connection.Read(one); err != nil {
			return nil, err
		}
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		return nil, fmt.Errorf("the egress proxy answers %s", answer)
	}
	return connection, nil
}

// Two networks with the same addresses live side by side, and nothing of them is on the machine, neither while they live nor when they
// were killed.
func TestNetwork(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	before := machineNetwork(t)
	dir := t.TempDir()
	var programs []*exec.Cmd
	for i := range 2 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s/%d", networkDirEnv, dir, i))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		programs = append(programs, cmd)
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
			t.Fatalf("network %d: %q, %v", i, line, err)
		}
	}
	if after := machineNetwork(t); after != before {
		t.Errorf("while the networks live the machine has\n%s\nbefore\n%s", after, before)
	}
	for _, cmd := range programs {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
	}
	if after := machineNetwork(t); after != before {
		t.Errorf("after the networks' end the machine has\n%s\nbefore\n%s", after, before)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left: %s, %v", mounts, err)
	}
	if _, err := os.Stat("/run/ebbtide-test"); err == nil {
		t.Error("what was written to /run is on the machine")
	}
}

// machineNetwork is what a network could leave on the machine.
func machineNetwork(t *testing.T) string {
	t.Helper()
	all := ""
	for _, command := range [][]string{{"ip", "-br", "link"}, {"ip", "-br", "address"}, {"ip", "route"}, {"ip", "netns"}} {
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
		all += string(out)
	}
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	return all + string(forward)
}
