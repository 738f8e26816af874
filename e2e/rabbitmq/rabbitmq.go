// Package rabbitmq runs a private RabbitMQ node from the Debian package: its own name, ports, data, plugins, cookie and
// port mapper, so that a broker that already runs on the machine is left alone.
package rabbitmq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

// server is the start script of the Debian package. The one in /usr/sbin is a wrapper that changes the user.
const server = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// Options of a broker.
type Options struct {
	// Dir holds everything that the broker writes. It must exist.
	Dir string
	// Group owns the broker's processes. Nil: a group of its own, ended by Stop.
	Group *proc.Group
	// Config is added to rabbitmq.conf: listeners with TLS, say.
	Config string
	// Plugins are enabled beside the management plugin.
	Plugins []string
	// Release is what to run; the zero value is what the machine has installed.
	Release Release
}

// Broker is a running node.
type Broker struct {
	port, managementPort int
	epmdPort             int
	options              Options
	env                  []string // of the node
	group                *proc.Group
	ownGroup             bool
	process              *proc.Process
	cluster              *members // nil: it is alone
}

// Available reports why no broker can run here, or nil.
func Available() error {
	if _, err := os.Stat(server); err != nil {
		return errors.New("RabbitMQ is not installed: apt-get install rabbitmq-server (or: make tools)")
	}
	return nil
}

// Start starts a node and returns once its AMQP listener and its management API answer.
func Start(ctx context.Context, options Options) (*Broker, error) {
	b, err := newNode(options)
	if err != nil {
		return nil, err
	}
	if err := b.startPortMapper(ctx); err != nil {
		return nil, b.failed(err)
	}
	if err := b.startNode(ctx); err != nil {
		return nil, b.failed(err)
	}
	return b, nil
}

// newNode makes a node's files.
func newNode(options Options) (*Broker, error) {
	if err := options.Release.available(); err != nil {
		return nil, err
	}
	ports, err := proc.FreePorts(4)
	if err != nil {
		return nil, err
	}
	b := &Broker{port: ports[0], managementPort: ports[1], epmdPort: ports[3], options: options, group: options.Group}
	if b.group == nil {
		b.group, b.ownGroup = proc.NewGroup(options.Dir), true
	}
	return b, b.configure(ports[2])
}

// Name is the node's, as a cluster knows it.
func (b *Broker) Name() string { return fmt.Sprintf("ebbtide-%d@localhost", b.port) }

func (b *Broker) configure(distributionPort int) error {
	options := b.options
	file := func(name string) string { return filepath.Join(options.Dir, name) }
	for name, text := range map[string]string{
		"enabled_plugins": "[" + strings.Join(append([]string{"rabbitmq_management"}, options.Plugins...), ",") + "].\n",
		"rabbitmq.conf": fmt.Sprintf("listeners.tcp.default = 127.0.0.1:%d\n", b.port) +
			fmt.Sprintf("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %d\n", b.managementPort) +
			"log.console = true\nlog.console.level = warning\n" + options.Config,
	} {
		if err := os.WriteFile(file(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	home := options.Dir
	if b.cluster != nil {
		home = b.cluster.dir
	}
	b.env = []string{
		"HOME=" + home, // for the cookie
		"RABBITMQ_NODENAME=" + b.Name(),
		fmt.Sprintf("RABBITMQ_NODE_PORT=%d", b.port),
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", distributionPort),
		"RABBITMQ_MNESIA_BASE=" + file("data"),
		"RABBITMQ_LOG_BASE=" + options.Dir,
		"RABBITMQ_LOGS=-",
		"RABBITMQ_CONFIG_FILE=" + strings.TrimSuffix(file("rabbitmq.conf"), ".conf"),
		"RABBITMQ_CONF_ENV_FILE=" + os.DevNull,
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + file("enabled_plugins"),
		fmt.Sprintf("ERL_EPMD_PORT=%d", b.epmdPort),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		// With input allowed the start script becomes the Erlang machine instead of waiting for it, so that the child
		// that is supervised is the broker itself. The extra arguments: no input all the same, and schedulers that
		// sleep when idle, which spin by default.
		"RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput +sbwt none +sbwtdcpu none +sbwtdio none +S 2:2",
	}
	return nil
}

// startPortMapper starts what a node would start as a daemon when there is none. Started first it is a child like any other.
func (b *Broker) startPortMapper(ctx context.Context) error {
	_, err := b.group.Start(ctx, proc.Spec{
		Name: "epmd", Path: "epmd",
		Args:  []string{"-port", fmt.Sprint(b.epmdPort), "-address", "127.0.0.1"},
		Env:   b.env,
		Ready: dial(b.epmdPort),
	})
	return err
}

func (b *Broker) startNode(ctx context.Context) error {
	path, args := b.options.Release.command(b.shared(), server)
	process, err := b.group.Start(ctx, proc.Spec{
		Name: fmt.Sprint("rabbitmq-", b.port), Path: path, Args: args, Env: b.env, Dir: b.options.Dir,
		Ready: b.ready, ReadyWithin: 4 * time.Minute, StopWithin: 20 * time.Second,
	})
	b.process = process
	return err
}

func (b *Broker) failed(err error) error {
	if b.ownGroup {
		b.group.Stop()
	}
	return err
}

// Stop ends the broker. When it was started into somebody else's group, that group ends it.
func (b *Broker) Stop() {
	if b.ownGroup {
		b.group.Stop()
	}
}

// Crash kills the node as a power failure would; Restart brings it back with its data.
func (b *Broker) Crash() {
	_ = b.process.Signal(syscall.SIGKILL)
	<-b.process.Done()
}

// Resume continues a node that Pause stopped.
func (b *Broker) Resume() error { return b.process.Signal(syscall.SIGCONT) }

// Pause stops the node as it is: its connections stay open, and nothing is answered any more. Crash ends it all the same.
func (b *Broker) Pause() error { return b.process.Signal(syscall.SIGSTOP) }

// Restart starts a node again that Crash ended, on the same ports and data.
func (b *Broker) Restart(ctx context.Context) error { return b.startNode(ctx) }

// Data is the folder of the node's messages and metadata: what a backup of its disk holds.
func (b *Broker) Data() string { return filepath.Join(b.options.Dir, "data") }

// Definitions exports users, virtual hosts, queues, exchanges, bindings and policies as JSON, for ImportDefinitions.
func (b *Broker) Definitions(ctx context.Context) ([]byte, error) {
	return b.definitions(ctx, http.MethodGet, nil)
}

// ImportDefinitions makes what an export holds and is not there.
func (b *Broker) ImportDefinitions(ctx context.Context, definitions []byte) error {
	_, err := b.definitions(ctx, http.MethodPost, bytes.NewReader(definitions))
	return err
}

func (b *Broker) definitions(ctx context.Context, method string, body io.Reader) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, b.ManagementURL()+"/api/definitions", body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("definitions: %s: %s", response.Status, answer)
	}
	return answer, err
}

// Control runs rabbitmqctl on the node.
func (b *Broker) Control(ctx context.Context, args ...string) error {
	_, err := b.control(ctx, args...)
	return err
}

func (b *Broker) control(ctx context.Context, args ...string) (string, error) {
	path, all := b.options.Release.command(b.shared(), "/usr/lib/rabbitmq/bin/rabbitmqctl", args...)
	command := exec.CommandContext(ctx, path, all...)
	command.Env = append(os.Environ(), b.env...)
	out, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// shared is the folder that the node's program must see.
func (b *Broker) shared() string {
	if b.cluster != nil {
		return b.cluster.dir
	}
	return b.options.Dir
}

// AMQPURL is the broker's URL for a virtual host; "/" is the default one.
func (b *Broker) AMQPURL(vhost string) string {
	return fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/%s", b.port, strings.ReplaceAll(vhost, "/", "%2f"))
}

// Port of AMQP on 127.0.0.1.
func (b *Broker) Port() int { return b.port }

// ManagementPort is the management API's on 127.0.0.1.
func (b *Broker) ManagementPort() int { return b.managementPort }

// ManagementURL is the base URL of the management API, credentials included.
func (b *Broker) ManagementURL() string {
	return fmt.Sprintf("http://guest:guest@127.0.0.1:%d", b.managementPort)
}

func (b *Broker) ready(ctx context.Context) error {
	connection, err := amqp.DialConfig(b.AMQPURL("/"), amqp.Config{Dial: amqp.DefaultDial(2 * time.Second)})
	if err != nil {
		return err
	}
	connection.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.ManagementURL()+"/api/health/checks/alarms", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("management API: %s: %s", response.Status, body)
	}
	return nil
}

func dial(port int) func(context.Context) error {
	return func(ctx context.Context) error {
		return proc.Dial(ctx, fmt.Sprintf("127.0.0.1:%d", port))
	}
}
