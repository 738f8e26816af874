package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

// network is where real nodes live: network namespaces of the harness's own, so that the machine's interfaces, routes and packet filter
// stay as they are, clusters side by side use the same addresses, and the kernel removes it all with the last process in it.
//
//	node-1 172.18.0.2, pods 10.244.1.0/24 ─┐
//	                                       ├─ gateway 172.18.0.1 ┄┄ forwarded ports ┄┄ 127.0.0.1 of the machine
//	node-2 172.18.0.3, pods 10.244.2.0/24 ─┘
//
// The gateway routes between nodes and pods. The control plane and the broker stay on the machine's loopback: nodes and pods reach them by
// the gateway's address on the same port, and the API server reaches kubelets, Services and pods through an egress proxy. Nothing leads
// from a pod to the world outside.
type network struct {
	dir     string
	gateway namespace
	egress  string // socket of the egress proxy

	mu      sync.Mutex
	nodes   []namespace
	closers []io.Closer
}

const (
	gatewayAddress = "172.18.0.1"
	podRange       = "10.244.0.0/16"
)

// Addresses of the node with a number from 1 on.
func nodeAddress(number int) string { return fmt.Sprintf("172.18.0.%d", number+1) }
func nodePodRange(number int) string {
	return fmt.Sprintf("10.244.%d.0/24", number)
}

func newNetwork(dir string) (*network, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	w := &network{dir: dir, gateway: namespace(filepath.Join(dir, "gateway")), egress: filepath.Join(dir, "egress.sock")}
	if err := w.gateway.make(); err != nil {
		return nil, err
	}
	if err := w.gateway.route("link set lo up", "addr add "+gatewayAddress+"/32 dev lo"); err != nil {
		w.close()
		return nil, err
	}
	if err := w.serveEgress(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// addNode makes the namespace of the next node, and returns it with the node's number.
func (w *network) addNode() (namespace, int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	number := len(w.nodes) + 1
	node, address, link := namespace(filepath.Join(w.dir, fmt.Sprintf("node-%d", number))), nodeAddress(number), fmt.Sprintf("node-%d", number)
	if err := node.make(); err != nil {
		return "", 0, err
	}
	w.nodes = append(w.nodes, node)
	if err := w.gateway.route(
		"link add "+link+" type veth peer name eth0 netns "+string(node), "link set "+link+" up",
		"route add "+address+" dev "+link, "route add "+nodePodRange(number)+" via "+address+" dev "+link,
	); err != nil {
		return "", 0, err
	}
	return node, number, node.route("link set lo up", "addr add "+address+"/32 dev eth0", "link set eth0 up",
		"route add "+gatewayAddress+" dev eth0", "route add default via "+gatewayAddress)
}

// dial connects to an address of a node, a Service or a pod, as the first node does.
func (w *network) dial(ctx context.Context, address string) (net.Conn, error) {
	w.mu.Lock()
	nodes := w.nodes
	w.mu.Unlock()
	if len(nodes) == 0 {
		return nil, errors.New("the cluster has no node to dial from")
	}
	return nodes[0].dial(ctx, address)
}

// forward makes a port of the machine's loopback answer on the gateway's address.
func (w *network) forward(port int) error {
	var listener net.Listener
	err := w.gateway.do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf("%s:%d", gatewayAddress, port))
		return err
	})
	if err != nil {
		return err
	}
	w.closeLater(listener)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				target, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
				if err != nil {
					connection.Close()
					return
				}
				splice(connection, target)
			}()
		}
	}()
	return nil
}

// serveEgress answers the API server's requests for connections to the cluster's network.
func (w *network) serveEgress() error {
	listener, err := net.Listen("unix", w.egress)
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if request.Method != http.MethodConnect {
			http.Error(response, "only CONNECT is answered", http.StatusMethodNotAllowed)
			return
		}
		target, err := w.dial(request.Context(), request.Host)
		if err != nil {
			http.Error(response, err.Error(), http.StatusBadGateway)
			return
		}
		// The client sends nothing before it has the answer, so nothing of what follows is read by the server.
		connection, _, err := http.NewResponseController(response).Hijack()
		if err == nil {
			_, err = io.WriteString(connection, "HTTP/1.1 200 OK\r\n\r\n")
		}
		if err != nil {
			target.Close()
			return
		}
		splice(connection, target)
	})}
	w.closeLater(server)
	go func() { _ = server.Serve(listener) }() // until it is closed
	return nil
}

// egressConfig is what sends an API server through the proxy.
func (w *network) egressConfig() string {
	return fmt.Sprintf(`apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport: {uds: {udsName: %q}}
`, w.egress)
}

func (w *network) closeLater(c io.Closer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = append(w.closers, c)
}

// close removes the network, once no process is left in it.
func (w *network) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, closer := range w.closers {
		_ = closer.Close()
	}
	for _, n := range append(w.nodes, w.gateway) {
		_ = unix.Unmount(string(n), unix.MNT_DETACH)
	}
}

// splice copies between two connections until both directions have ended, and closes them.
func splice(a, b net.Conn) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // an end by error is an end
			if half, ok := way[0].(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
		})
	}
	both.Wait()
	a.Close()
	b.Close()
}

// namespace is a network namespace, by the file that it is mounted on.
type namespace string

func (n namespace) make() error {
	file, err := os.Create(string(n))
	if err != nil {
		return err
	}
	file.Close()
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", string(n), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("keep a network namespace: %w", err)
		}
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
	})
}

// do runs f in the namespace. Sockets that f makes stay in it; f must leave that to its own goroutine, so addresses are numbers.
func (n namespace) do(f func() error) error {
	return onThread(func() error {
		file, err := os.Open(string(n))
		if err != nil {
			return err
		}
		defer file.Close()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace %s: %w", n, err)
		}
		return f()
	})
}

// onThread runs f, which may change the network namespace, on a thread that no other code runs on until it is back in its own.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // where it is not unlocked, the runtime ends the thread with the goroutine
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			result <- err
			return
		}
		defer own.Close()
		result <- f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-result
}

func (n namespace) dial(ctx context.Context, address string) (connection net.Conn, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("dial %s in the cluster's network: the host must be an IP address", address)
	}
	err = n.do(func() error {
		connection, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	return connection, err
}

// route runs commands of ip(8) in the namespace.
func (n namespace) route(commands ...string) error {
	return n.do(func() error {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ip: %s: %w: %s", strings.Join(commands, "; "), err, bytes.TrimSpace(out))
		}
		return nil
	})
}

// spec makes a component run in the namespace.
func (n namespace) spec(s proc.Spec) proc.Spec {
	s.Path, s.Args = "nsenter", append([]string{"--net=" + string(n), s.Path}, s.Args...)
	return s
}

// ready is a readiness check of a component that listens on an address in the namespace.
func (n namespace) ready(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		connection, err := n.dial(ctx, address)
		if err != nil {
			return err
		}
		return connection.Close()
	}
}
