// bench/scaler compares the cost of polling a thousand RabbitMQ queues once a second with Ebbtide's scaler and with KEDA's
// own rabbitmq scaler, over AMQP and over HTTP, on a real broker, one after the other. It writes bench/out/scaler.json.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"

	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	amqp "github.com/rabbitmq/amqp091-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

// figures of one scaler.
type figures struct {
	P50Millis            float64 `json:"p50Millis"`
	P99Millis            float64 `json:"p99Millis"`
	CPUCores             float64 `json:"cpuCores"`
	RSSMiB               float64 `json:"rssMiB"`
	BrokerConnections    int64   `json:"brokerConnections"`
	BrokerBytesPerSecond float64 `json:"brokerBytesPerSecond"`
}

type options struct {
	queues, seconds int
	output          string
}

func main() {
	var o options
	flag.IntVar(&o.queues, "queues", 1000, "how many queues and policies")
	flag.IntVar(&o.seconds, "seconds", 60, "how long each scaler is polled")
	flag.StringVar(&o.output, "o", "bench/out/scaler.json", "file of the figures")
	flag.Parse()
	if err := proc.Contain(); err != nil {
		fmt.Fprintln(os.Stderr, "warning: should this be killed by SIGKILL, a few processes may stay:", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	root, err := toolchain.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ebbtide-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := toolchain.BuildProject(ctx, root, filepath.Join(root, "bin"), os.Stderr, "./cmd/ebbtide-scaler"); err != nil {
		return err
	}
	builtin := filepath.Join(dir, "builtin-rabbitmq")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", builtin, "./builtin-rabbitmq")
	build.Dir, build.Stderr = filepath.Join(root, "e2e", "tools"), os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build KEDA's scaler: %w", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "rabbitmq"), 0o755); err != nil {
		return err
	}
	broker, err := rabbitmq.Start(ctx, rabbitmq.Options{Dir: filepath.Join(dir, "rabbitmq")})
	if err != nil {
		return err
	}
	defer broker.Stop()
	held, err := fill(broker, o.queues)
	if err != nil {
		return err
	}
	defer held.Close()
	results := map[string]figures{}
	decide := func(ctx context.Context, client pb.ExternalScalerClient, ref *pb.ScaledObjectRef) error {
		_, err := client.GetMetricSpec(ctx, ref)
		if err == nil {
			_, err = client.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: ref, MetricName: "m"})
		}
		if err == nil {
			_, err = client.IsActive(ctx, ref)
		}
		return err
	}
	// What three calls cost that ask for nothing: the floor of any external scaler.
	onlyCall := func(ctx context.Context, client pb.ExternalScalerClient, ref *pb.ScaledObjectRef) error {
		for range 3 {
			if _, err := client.GetMetricSpec(ctx, ref); err != nil {
				return err
			}
		}
		return nil
	}
	for _, scaler := range []struct {
		name    string
		measure func(ctx context.Context, o options, dir string, amqp, http *proxy) (figures, error)
	}{
		{"ebbtide", func(ctx context.Context, o options, dir string, amqp, http *proxy) (figures, error) {
			return measureEbbtide(ctx, o, filepath.Join(root, "bin", "ebbtide-scaler"), dir, amqp, http, decide)
		}},
		{"emptyCalls", func(ctx context.Context, o options, dir string, amqp, http *proxy) (figures, error) {
			return measureEbbtide(ctx, o, filepath.Join(root, "bin", "ebbtide-scaler"), dir, amqp, http, onlyCall)
		}},
		{"builtin", func(ctx context.Context, o options, _ string, _, http *proxy) (figures, error) {
			return measureBuiltin(ctx, o, builtin, "http", fmt.Sprintf("http://guest:guest@%s/", http.address()), http)
		}},
		{"builtinAMQP", func(ctx context.Context, o options, _ string, amqp, _ *proxy) (figures, error) {
			return measureBuiltin(ctx, o, builtin, "amqp", fmt.Sprintf("amqp://guest:guest@%s/", amqp.address()), amqp)
		}},
	} {
		fmt.Fprintf(os.Stderr, "%s: %d queues, once a second for %d s\n", scaler.name, o.queues, o.seconds)
		amqpProxy, err := newProxy(strings.TrimSuffix(strings.TrimPrefix(broker.AMQPURL("/"), "amqp://guest:guest@"), "/%2f"))
		if err != nil {
			return err
		}
		httpProxy, err := newProxy(strings.TrimPrefix(broker.ManagementURL(), "http://guest:guest@"))
		if err != nil {
			return err
		}
		results[scaler.name], err = scaler.measure(ctx, o, dir, amqpProxy, httpProxy)
		amqpProxy.close()
		httpProxy.close()
		if err != nil {
			return fmt.Errorf("%s: %w", scaler.name, err)
		}
		fmt.Fprintf(os.Stderr, "  %+v\n", results[scaler.name])
	}
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.output), 0o755); err != nil {
		return err
	}
	fmt.Println(string(text))
	return os.WriteFile(o.output, append(text, '\n'), 0o644)
}

func queueName(i int) string { return fmt.Sprintf("queue-%04d", i) }

// fill declares the queues. A third of them hold messages, and a tenth a message that a consumer works on.
func fill(broker *rabbitmq.Broker, queues int) (*amqp.Connection, error) {
	connection, err := amqp.Dial(broker.AMQPURL("/"))
	if err != nil {
		return nil, err
	}
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	if err := channel.Qos(1, 0, false); err != nil {
		return nil, err
	}
	for i := range queues {
		if _, err := channel.QueueDeclare(queueName(i), true, false, false, false, nil); err != nil {
			return nil, err
		}
		messages := 0
		switch {
		case i%10 == 1:
			messages = 1
			if _, err := channel.Consume(queueName(i), "", false, false, false, false, nil); err != nil {
				return nil, err
			}
		case i%3 == 0:
			messages = 3
		}
		for range messages {
			if err := channel.Publish("", queueName(i), false, false, amqp.Publishing{Body: []byte("scan")}); err != nil {
				return nil, err
			}
		}
	}
	return connection, nil
}

// pollOnce asks for one policy.
type pollOnce func(context.Context, pb.ExternalScalerClient, *pb.ScaledObjectRef) error

func measureEbbtide(
	ctx context.Context, o options, binary, dir string, amqpProxy, httpProxy *proxy, once pollOnce,
) (figures, error) {
	policies := filepath.Join(dir, "policies")
	if err := os.MkdirAll(policies, 0o755); err != nil {
		return figures{}, err
	}
	var text strings.Builder
	for i := range o.queues {
		fmt.Fprintf(&text, `---
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: %[1]s, namespace: scan}
spec:
  backlog:
    rabbitmq: {uri: {value: "amqp://guest:guest@%[2]s/"}, managementURI: {value: "http://%[3]s"}, queue: %[1]s}
  calendar:
    timeZone: Europe/Prague
    periods:
    - {name: workday, days: [Mon-Fri], from: "07:00", to: "19:00", limits: {minReplicas: 1, idleReplicas: 1}}
`, queueName(i), amqpProxy.address(), httpProxy.address())
	}
	if err := os.WriteFile(filepath.Join(policies, "policies.yaml"), []byte(text.String()), 0o600); err != nil {
		return figures{}, err
	}
	ports, err := proc.FreePorts(2)
	if err != nil {
		return figures{}, err
	}
	group := proc.NewGroup(dir)
	defer group.Stop()
	address, web := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	process, err := group.Start(ctx, proc.Spec{
		Name: "ebbtide-scaler", Path: binary,
		Args:  []string{"--policy-dir=" + policies, "--listen=" + address, "--metrics-listen=" + web},
		Ready: proc.HTTPReady("http://"+web+"/readyz", nil), ReadyWithin: time.Minute,
	})
	if err != nil {
		return figures{}, err
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return figures{}, err
	}
	defer connection.Close()
	client := pb.NewExternalScalerClient(connection)
	if _, err := poll(ctx, client, once, o.queues, 3); err != nil { // warm: connected, every policy asked once
		return figures{}, err
	}
	usage := begin(process.PID(), amqpProxy, httpProxy)
	polls, err := poll(ctx, client, once, o.queues, o.seconds)
	if err != nil {
		return figures{}, err
	}
	f, err := usage.end()
	f.P50Millis, f.P99Millis = percentile(polls, 50), percentile(polls, 99)
	return f, err
}

// poll asks for every policy once a second, spread over it, as KEDA does: three calls, one after the other.
func poll(
	ctx context.Context, client pb.ExternalScalerClient, once pollOnce, queues, seconds int,
) ([]time.Duration, error) {
	var mu sync.Mutex
	var polls []time.Duration
	var firstErr error
	var wait sync.WaitGroup
	start := time.Now()
	for i := range queues {
		ref := &pb.ScaledObjectRef{Name: queueName(i), Namespace: "scan", ScalerMetadata: map[string]string{"policy": queueName(i)}}
		wait.Go(func() {
			for second := range seconds {
				time.Sleep(time.Until(start.Add(time.Duration(second)*time.Second + time.Duration(i)*time.Second/time.Duration(queues))))
				begin := time.Now()
				err := once(ctx, client, ref)
				mu.Lock()
				polls = append(polls, time.Since(begin))
				if err != nil && firstErr == nil {
					firstErr = err
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return polls, firstErr
}

func percentile(polls []time.Duration, p int) float64 {
	slices.Sort(polls)
	return polls[len(polls)*p/100].Seconds() * 1000
}

func measureBuiltin(ctx context.Context, o options, binary, protocol, host string, through *proxy) (figures, error) {
	command := exec.CommandContext(ctx, binary, "-host", host, "-protocol", protocol, "-queues", fmt.Sprint(o.queues),
		"-seconds", fmt.Sprint(o.seconds))
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		return figures{}, err
	}
	if err := command.Start(); err != nil {
		return figures{}, err
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		return figures{}, fmt.Errorf("it did not start: %w", command.Wait())
	}
	usage := begin(command.Process.Pid, through)
	// Its own figures come when it is done, so its use is read just before.
	time.Sleep(time.Duration(o.seconds)*time.Second - 500*time.Millisecond)
	f, err := usage.end()
	if err != nil {
		return f, err
	}
	if !lines.Scan() {
		return f, fmt.Errorf("it printed no figures: %w", command.Wait())
	}
	if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
		return f, err
	}
	return f, command.Wait()
}

// usage is what a process and its connections had used at a moment.
type usage struct {
	pid     int
	at      time.Time
	cpu     time.Duration
	bytes   int64
	proxies []*proxy
}

func begin(pid int, proxies ...*proxy) usage {
	u := usage{pid: pid, proxies: proxies, at: time.Now()}
	u.cpu, _ = cpuTime(pid) // end reports a process that is gone
	for _, p := range proxies {
		u.bytes += p.bytes.Load()
	}
	return u
}

func (u usage) end() (figures, error) {
	elapsed := time.Since(u.at).Seconds()
	cpu, err := cpuTime(u.pid)
	if err != nil {
		return figures{}, err
	}
	resident, err := residentMiB(u.pid)
	f := figures{CPUCores: (cpu - u.cpu).Seconds() / elapsed, RSSMiB: resident}
	total := -u.bytes
	for _, p := range u.proxies {
		total += p.bytes.Load()
		f.BrokerConnections += p.peak.Load()
	}
	f.BrokerBytesPerSecond = float64(total) / elapsed
	return f, err
}

// cpuTime is the user and system time of a process so far; see proc(5).
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const ticksPerSecond = 100 // sysconf(_SC_CLK_TCK) of Linux
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticksPerSecond, err
}

func residentMiB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kib / 1024, err
}

// proxy counts what goes through to a broker.
type proxy struct {
	listener   net.Listener
	to         string
	bytes      atomic.Int64
	open, peak atomic.Int64
}

func newProxy(to string) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: listener, to: to}
	go p.serve()
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) close() { p.listener.Close() }

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			client.Close()
			continue
		}
		p.peak.Store(max(p.peak.Load(), p.open.Add(1)))
		var both sync.WaitGroup
		both.Go(func() { p.copy(server, client) })
		both.Go(func() { p.copy(client, server) })
		go func() { both.Wait(); p.open.Add(-1) }()
	}
}

// copy counts as it goes, and ends both sides when one ends.
func (p *proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.bytes.Add(int64(n))
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			break
		}
	}
	to.Close()
	from.Close()
}
