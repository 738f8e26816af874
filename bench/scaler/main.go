// bench/scaler compares the cost of polling a thousand RabbitMQ queues once a second with Ebbtide's scaler and with KEDA's
// own rabbitmq scaler, over AMQP and over HTTP, on a real broker, one after the other. It writes bench/out/scaler.json.
//
// Then it polls a tenth of the queues with several pollers each: at the same time, one after the other over the second, and with a
// policy for each. What that costs the broker should not depend on how many there are.
//
// Who polls is a process of its own, as KEDA is: KEDA's scaler is called in it, Ebbtide's from it through gRPC. This process only
// counts what goes to the broker.
package main

import (
	"bufio"
	"cmp"
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

	amqp "github.com/rabbitmq/amqp091-go"

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

// severalPollers are the figures of queues that are each polled by several.
type severalPollers struct {
	Queues int `json:"queues"`
	// Together poll at the same time, Spread one after the other over the second, by one policy of the queue.
	Together []figuresWithPollers `json:"together"`
	Spread   []figuresWithPollers `json:"spread"`
	// OwnPolicies are spread, too, and have a policy of the queue each.
	OwnPolicies []figuresWithPollers `json:"ownPolicies"`
}

type figuresWithPollers struct {
	Pollers int `json:"pollersPerQueue"`
	figures
}

type options struct {
	queues, seconds int
	output          string
	only, beside    string
	pollers         []int

	// of a process that polls
	poll, calls string
	perQueue    int
	spread, own bool
}

func main() {
	var o options
	flag.IntVar(&o.queues, "queues", 1000, "how many queues and policies")
	flag.IntVar(&o.seconds, "seconds", 60, "how long each scaler is polled")
	flag.StringVar(&o.output, "o", "bench/out/scaler.json", "file of the figures")
	flag.StringVar(&o.only, "only", "", "measure only these, comma-separated: ebbtide, severalPollers, emptyCalls, builtin, builtinAMQP")
	flag.StringVar(&o.beside, "beside", "", "another ebbtide-scaler to measure in the same run, an earlier version say")
	pollers := flag.String("pollers", "1,2,4,8", "how many poll each queue in severalPollers, one measurement each")
	flag.StringVar(&o.poll, "poll", "", "used by the benchmark itself: poll the scaler at this address")
	flag.StringVar(&o.calls, "calls", "", "used by the benchmark itself: which calls make a poll")
	flag.IntVar(&o.perQueue, "per-queue", 1, "used by the benchmark itself: how many poll each queue")
	flag.BoolVar(&o.spread, "spread", false, "used by the benchmark itself: those of a queue poll one after the other")
	flag.BoolVar(&o.own, "own", false, "used by the benchmark itself: each of them has a separate policy")
	flag.Parse()
	for text := range strings.SplitSeq(*pollers, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "error: -pollers %q: must be numbers from 1, comma-separated\n", *pollers)
			os.Exit(2)
		}
		o.pollers = append(o.pollers, n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	work := run
	if o.poll != "" {
		work = poll
	} else if err := proc.Contain(); err != nil {
		fmt.Fprintln(os.Stderr, "warning: should this be killed by SIGKILL, a few processes may stay:", err)
	}
	if err := work(ctx, o); err != nil {
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
	wanted := func(name string) bool { return o.only == "" || slices.Contains(strings.Split(o.only, ","), name) }
	if err := toolchain.BuildProject(ctx, root, filepath.Join(root, "bin"), os.Stderr, "./cmd/ebbtide-scaler"); err != nil {
		return err
	}
	builtin := filepath.Join(dir, "builtin-rabbitmq")
	if wanted("builtin") || wanted("builtinAMQP") {
		build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", builtin, "./builtin-rabbitmq")
		build.Dir, build.Stderr = filepath.Join(root, "e2e", "tools"), os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build KEDA's scaler: %w", err)
		}
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
	own := filepath.Join(root, "bin", "ebbtide-scaler")
	ebbtide := func(o options, binary, calls string) func(amqp, http *proxy) (figures, error) {
		return func(amqp, http *proxy) (figures, error) {
			return measureEbbtide(ctx, o, binary, calls, dir, amqp, http)
		}
	}
	measured := func(name string, measure func(amqp, http *proxy) (figures, error)) (figures, error) {
		fmt.Fprintln(os.Stderr, name)
		amqpProxy, err := newProxy(strings.TrimSuffix(strings.TrimPrefix(broker.AMQPURL("/"), "amqp://guest:guest@"), "/%2f"))
		if err != nil {
			return figures{}, err
		}
		defer amqpProxy.close()
		httpProxy, err := newProxy(strings.TrimPrefix(broker.ManagementURL(), "http://guest:guest@"))
		if err != nil {
			return figures{}, err
		}
		defer httpProxy.close()
		f, err := measure(amqpProxy, httpProxy)
		if err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(os.Stderr, "  %+v\n", f)
		return f, nil
	}
	results := map[string]any{}
	for _, scaler := range []struct {
		name    string
		measure func(amqp, http *proxy) (figures, error)
	}{
		{"beside", ebbtide(o, o.beside, keda)},
		{"ebbtide", ebbtide(o, own, keda)},
		{"emptyCalls", ebbtide(o, own, empty)},
		{"builtin", func(_, http *proxy) (figures, error) {
			return measureBuiltin(ctx, o, builtin, "http", fmt.Sprintf("http://guest:guest@%s/", http.address()), http)
		}},
		{"builtinAMQP", func(amqp, _ *proxy) (figures, error) {
			return measureBuiltin(ctx, o, builtin, "amqp", fmt.Sprintf("amqp://guest:guest@%s/", amqp.address()), amqp)
		}},
	} {
		if scaler.name == "beside" && o.beside == "" || scaler.name != "beside" && !wanted(scaler.name) {
			continue
		}
		name := fmt.Sprintf("%s: %d queues, once a second for %d s", scaler.name, o.queues, o.seconds)
		if results[scaler.name], err = measured(name, scaler.measure); err != nil {
			return err
		}
	}
	if wanted("severalPollers") {
		several := severalPollers{Queues: max(1, o.queues/10)}
		for _, how := range []struct {
			name        string
			spread, own bool
			list        *[]figuresWithPollers
		}{
			{"together", false, false, &several.Together}, {"spread", true, false, &several.Spread},
			{"with a policy each", true, true, &several.OwnPolicies},
		} {
			for _, pollers := range o.pollers {
				o := o
				o.queues, o.seconds, o.perQueue, o.spread, o.own = several.Queues, max(5, o.seconds/6), pollers, how.spread, how.own
				name := fmt.Sprintf("severalPollers: %d queues, %d pollers each, %s, for %d s", o.queues, pollers, how.name, o.seconds)
				f, err := measured(name, ebbtide(o, own, keda))
				if err != nil {
					return err
				}
				*how.list = append(*how.list, figuresWithPollers{pollers, f})
			}
		}
		results["severalPollers"] = several
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

// policyName is the policy by which the poller which asks for a queue.
func (o options) policyName(queue, which int) string {
	if !o.own {
		which = 0
	}
	return fmt.Sprintf("%s-%d", queueName(queue), which)
}

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

func measureEbbtide(ctx context.Context, o options, binary, calls, dir string, amqpProxy, httpProxy *proxy) (figures, error) {
	policies := filepath.Join(dir, "policies")
	if err := os.MkdirAll(policies, 0o755); err != nil {
		return figures{}, err
	}
	var text strings.Builder
	for i := range o.queues * o.perQueue {
		queue, which := i/o.perQueue, i%o.perQueue
		if which > 0 && !o.own {
			continue
		}
		fmt.Fprintf(&text, `---
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: %[1]s, namespace: scan}
spec:
  backlog:
    rabbitmq: {uri: {value: "amqp://guest:guest@%[2]s/"}, managementURI: {value: "http://%[3]s"}, queue: %[4]s}
  calendar:
    timeZone: Europe/Prague
    periods:
    - {name: workday, days: [Mon-Fri], from: "07:00", to: "19:00", limits: {minReplicas: 1, idleReplicas: 1}}
`, o.policyName(queue, which), amqpProxy.address(), httpProxy.address(), queueName(queue))
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
	self, err := os.Executable()
	if err != nil {
		return figures{}, err
	}
	return measure(ctx, o, exec.CommandContext(ctx, self, "-poll", address, "-calls", calls, "-queues", fmt.Sprint(o.queues),
		"-seconds", fmt.Sprint(o.seconds), "-per-queue", fmt.Sprint(o.perQueue), "-spread="+strconv.FormatBool(o.spread), "-own="+strconv.FormatBool(o.own)), process.PID(), amqpProxy, httpProxy)
}

func measureBuiltin(ctx context.Context, o options, binary, protocol, host string, through *proxy) (figures, error) {
	return measure(ctx, o, exec.CommandContext(ctx, binary, "-host", host, "-protocol", protocol, "-queues", fmt.Sprint(o.queues),
		"-seconds", fmt.Sprint(o.seconds)), 0, through)
}

// measure starts who polls, and reads the use of a process while it polls: that of scaler, or with 0 its own. Who polls prints
// "ready" when all is warm, and in the end its polls' percentiles as figures.
func measure(ctx context.Context, o options, poller *exec.Cmd, scaler int, proxies ...*proxy) (figures, error) {
	poller.Stderr = os.Stderr
	out, err := poller.StdoutPipe()
	if err != nil {
		return figures{}, err
	}
	if err := poller.Start(); err != nil {
		return figures{}, err
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		return figures{}, fmt.Errorf("it did not start: %w", poller.Wait())
	}
	usage := begin(cmp.Or(scaler, poller.Process.Pid), proxies...)
	// The process may end when polling does, so its use is read just before.
	select {
	case <-time.After(time.Duration(o.seconds)*time.Second - 500*time.Millisecond):
	case <-ctx.Done():
		return figures{}, ctx.Err()
	}
	f, err := usage.end()
	if err != nil {
		return f, err
	}
	if !lines.Scan() {
		return f, fmt.Errorf("it printed no figures: %w", poller.Wait())
	}
	if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
		return f, err
	}
	return f, poller.Wait()
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
