// Package cluster runs a real Kubernetes cluster with RabbitMQ, KEDA, Karpenter and Ebbtide as child processes of one
// program: a control plane, nodes, brokers and controllers are the programs that run in production, started with flags
// instead of images. Everything they write lies in one folder, they listen on free loopback ports, and they end with
// their parent.
//
// Each component has credentials of its own, and RBAC and the default admission plugins are in force; only the harness
// itself is an administrator.
package cluster

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/e2e/rabbitmq"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

//go:embed manifests
var manifests embed.FS

// Options of a cluster.
type Options struct {
	// Dir holds everything that the cluster writes. It is created; what an earlier cluster left in it is removed.
	Dir string
	// Root is the project's folder.
	Root string
	// Tools are the programs that the cluster is made of.
	Tools toolchain.Toolchain
	// Progress gets a line for each component that is ready.
	Progress io.Writer
	// Audit makes the API server note the requests of Ebbtide, for Refusals.
	Audit bool
	// SecondScheduler starts a second replica of the scheduler; the two elect a leader.
	SecondScheduler bool
	// Draining lets the scheduler drain nodes, with the chart's role, and hear workers at SchedulerWorkers, without TLS.
	Draining bool
}

// Cluster is a running cluster.
type Cluster struct {
	// Dir holds everything that the cluster writes.
	Dir string
	// Broker is the cluster's RabbitMQ.
	Broker *rabbitmq.Broker

	root     string
	tools    toolchain.Toolchain
	progress io.Writer
	group    *proc.Group
	ca, keda *authority
	ports    ports
	network  *network // of real nodes; nil without them
	config   *rest.Config
	started  time.Time
	audit    bool
	replicas bool // of the scheduler there are two
	draining bool
	// prometheus is the URL of the one that StartPrometheus or StartPodPrometheus started.
	prometheus string

	client    client.Client
	discovery discovery.DiscoveryInterface

	mu     sync.Mutex
	nodes  []*node
	images []string // tarballs that every node has
	// registry is the address of the nodes' registry on the machine, if there is one.
	registry string
}

// ports of the components, all on 127.0.0.1.
type ports struct {
	Etcd, EtcdPeer, EtcdMetrics       int
	APIServer, Controllers, Scheduler int
	SchedulerExplain                  int
	SchedulerWorkers                  int
	Scheduler2, SchedulerExplain2     int
	KWOK                              int
	KarpenterMetrics, KarpenterHealth int
	KEDAMetrics, KEDAHealth           int
	KEDAMetricsService                int
	KEDAAdapter, KEDAAdapterMetrics   int
	Scaler, ScalerMetrics             int
}

// stateFile tells other programs where a running cluster is.
const stateFile = "cluster.json"

// State is what a running cluster says of itself to other programs, in the file cluster.json of its folder.
type State struct {
	// PID of the program that owns the cluster, as the machine sees it.
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
	APIServer  string    `json:"apiServer"`
	Kubeconfig string    `json:"kubeconfig"`
	Kubectl    string    `json:"kubectl"`
	AMQP       string    `json:"amqp"`
	Management string    `json:"management"`
	// Helm is there where Ebbtide is to be installed, on real nodes; where it runs already, the others say where.
	Helm           string `json:"helm,omitempty"`
	Scaler         string `json:"scaler,omitempty"`
	ScalerMetrics  string `json:"scalerMetrics,omitempty"`
	SchedulerHTTPS string `json:"schedulerHTTPS,omitempty"`
	Placements     string `json:"placements,omitempty"`
	Prometheus     string `json:"prometheus,omitempty"`
}

func newPorts() (ports, error) {
	var p ports
	all := []*int{
		&p.Etcd, &p.EtcdPeer, &p.EtcdMetrics, &p.APIServer, &p.Controllers, &p.Scheduler, &p.KWOK, &p.KarpenterMetrics,
		&p.KarpenterHealth, &p.KEDAMetrics, &p.KEDAHealth, &p.KEDAMetricsService, &p.KEDAAdapter, &p.KEDAAdapterMetrics,
		&p.Scaler, &p.ScalerMetrics, &p.SchedulerExplain, &p.SchedulerWorkers, &p.Scheduler2, &p.SchedulerExplain2,
	}
	free, err := proc.FreePorts(len(all))
	for i, port := range free {
		*all[i] = port
	}
	return p, err
}

// StartControlPlane starts an API server with the project's own definitions and KEDA's, and nothing that acts on them.
func StartControlPlane(ctx context.Context, o Options) (*Cluster, error) {
	return start(o, func(c *Cluster) error {
		if err := c.startControlPlane(ctx); err != nil {
			return err
		}
		return c.Apply(ctx, filepath.Join(c.root, "manifests", "crd"), c.tools.Asset("keda-crd"))
	})
}

// Start starts a cluster and returns when every component answers its own health check. On error nothing is left
// running.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	return start(o, func(c *Cluster) error { return c.start(ctx) })
}

func start(o Options, parts func(*Cluster) error) (*Cluster, error) {
	c, err := prepare(o)
	if err != nil {
		return nil, err
	}
	if err := parts(c); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func prepare(o Options) (*Cluster, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Dir: dir, root: o.Root, tools: o.Tools, progress: o.Progress, group: proc.NewGroup(filepath.Join(dir, "logs")),
		started: time.Now(), audit: o.Audit, replicas: o.SecondScheduler, draining: o.Draining,
	}
	if owner, err := ReadState(dir); err == nil && owner.Running() {
		return nil, fmt.Errorf("a cluster already runs in %s (process %d): stop it first (make down)", dir, owner.PID)
	}
	for _, sub := range []string{"pki", "kubeconfig", "logs", "rabbitmq", "etcd", "config", "keda", "network", "prometheus"} {
		if err := os.RemoveAll(c.path(sub)); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(c.path(sub), 0o755); err != nil {
			return nil, err
		}
	}
	if c.ports, err = newPorts(); err != nil {
		return nil, err
	}
	return c, c.writePKI()
}

func (c *Cluster) start(ctx context.Context) error {
	first, firstCtx := errgroup.WithContext(ctx)
	first.Go(func() error { return c.startBroker(firstCtx) })
	first.Go(func() error { return c.startControlPlane(firstCtx) })
	if err := first.Wait(); err != nil {
		return err
	}
	if err := c.install(ctx); err != nil {
		return err
	}
	controllers, err := c.controllers()
	if err != nil {
		return err
	}
	second, secondCtx := errgroup.WithContext(ctx)
	for _, spec := range controllers {
		second.Go(func() error { return c.run(secondCtx, spec) })
	}
	return second.Wait()
}

func (c *Cluster) startBroker(ctx context.Context) error {
	begin := time.Now()
	broker, err := rabbitmq.Start(ctx, rabbitmq.Options{Dir: c.path("rabbitmq"), Group: c.group})
	if err != nil {
		return err
	}
	c.Broker = broker
	c.ready("rabbitmq", begin)
	return nil
}

func (c *Cluster) startControlPlane(ctx context.Context) error {
	if err := c.run(ctx, c.etcd()); err != nil {
		return err
	}
	apiServer, err := c.kubeAPIServer()
	if err != nil {
		return err
	}
	if err := c.run(ctx, apiServer); err != nil {
		return err
	}
	return c.connect()
}

// run starts a component and says so.
func (c *Cluster) run(ctx context.Context, spec proc.Spec) error {
	begin := time.Now()
	if _, err := c.group.Start(ctx, spec); err != nil {
		return err
	}
	c.ready(spec.Name, begin)
	return nil
}

func (c *Cluster) ready(name string, begin time.Time) {
	fmt.Fprintf(c.progress, "%-24s ready after %4.1f s\n", name, time.Since(begin).Seconds())
}

// connect makes the administrator's client.
func (c *Cluster) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig("admin"))
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	c.config = config
	if c.discovery, err = discovery.NewDiscoveryClientForConfig(config); err != nil {
		return err
	}
	c.client, err = client.New(config, client.Options{Scheme: scheme})
	return err
}

// Admin is a configuration with all rights.
func (c *Cluster) Admin() *rest.Config { return rest.CopyConfig(c.config) }

// Config is a configuration with the rights of a kubeconfig's user.
func (c *Cluster) Config(user string) (*rest.Config, error) {
	return clientcmd.BuildConfigFromFlags("", c.Kubeconfig(user))
}

// Client has all rights, and knows the project's own types.
func (c *Cluster) Client() client.Client { return c.client }

// Failed returns the name of a component that ended by itself, or "".
func (c *Cluster) Failed() string {
	for _, child := range c.group.Children() {
		select {
		case <-c.running(child.Name).Done():
			return child.Name
		default:
		}
	}
	return ""
}

// Stop ends every component. The folder stays, for its logs.
func (c *Cluster) Stop() {
	c.group.Stop()
	if c.network != nil {
		proc.RemoveCgroups() // and what is in them: containers outlive their kubelets
		c.network.close()
		unmountBelow(c.Dir)
	}
	_ = os.Remove(c.path(stateFile))
}

func (c *Cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.Dir}, elements...)...)
}

func (c *Cluster) apiServer() string { return fmt.Sprintf("https://127.0.0.1:%d", c.ports.APIServer) }

// apiServerInside is where nodes find the API server.
func (c *Cluster) apiServerInside() string {
	return fmt.Sprintf("https://%s:%d", gatewayAddress, c.ports.APIServer)
}

// Kubectl is the path of a kubectl of the cluster's version.
func (c *Cluster) Kubectl() string { return c.tools.Bin("kubectl") }

// ScalerAddress is where KEDA finds the scaler.
func (c *Cluster) ScalerAddress() string { return fmt.Sprintf("127.0.0.1:%d", c.ports.Scaler) }

// What the scheduler is told of draining, if Options.Draining is set.
const (
	// DrainLongest is how long a node drains at most.
	DrainLongest = 2 * time.Minute
	// RoomWithin is how soon workers that give way must have made room. They are processes on a machine that may be busy: three seconds, the
	// default, can be too short for them to end.
	RoomWithin = 10 * time.Second
)

// SchedulerWorkers is where the scheduler that leads hears workers, if Options.Draining is set.
func (c *Cluster) SchedulerWorkers() string {
	return fmt.Sprintf("127.0.0.1:%d", c.ports.SchedulerWorkers)
}

// ScalerMetricsURL is where the scaler's Prometheus metrics are.
func (c *Cluster) ScalerMetricsURL() string {
	return fmt.Sprintf("http://127.0.0.1:%d/metrics", c.ports.ScalerMetrics)
}

// KEDAMetricsURL is where the Prometheus metrics of KEDA's operator are.
func (c *Cluster) KEDAMetricsURL() string {
	return fmt.Sprintf("http://127.0.0.1:%d/metrics", c.ports.KEDAMetrics)
}

// DecisionsURL is where the scaler lists its decisions.
func (c *Cluster) DecisionsURL() string {
	return fmt.Sprintf("http://127.0.0.1:%d/decisions", c.ports.ScalerMetrics)
}

// ExplainURL is where the scheduler explains its placements, and what it knows of nodes.
func (c *Cluster) ExplainURL() string {
	return fmt.Sprintf("http://127.0.0.1:%d", c.ports.SchedulerExplain)
}

// Crash kills components as a power failure would; Restart starts them again.
func (c *Cluster) Crash(names ...string) error {
	for _, name := range names {
		crashed := c.running(name)
		if crashed == nil {
			return fmt.Errorf("no %s runs", name)
		}
		if err := crashed.Signal(syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", name, err)
		}
		<-crashed.Done()
	}
	return nil
}

// Restart starts components that ended, one after the other, and returns when they answer their health checks.
func (c *Cluster) Restart(ctx context.Context, names ...string) error {
	for _, name := range names {
		ended := c.running(name)
		if ended == nil {
			return fmt.Errorf("no %s ran", name)
		}
		begin := time.Now()
		if _, err := c.group.Restart(ctx, ended); err != nil {
			return err
		}
		c.ready(name, begin)
	}
	return nil
}

// running is the last process of a component; nil when there is none.
func (c *Cluster) running(name string) *proc.Process {
	var last *proc.Process
	for _, child := range c.group.Children() {
		if child.Name == name {
			last = child
		}
	}
	return last
}

// WriteState publishes where the cluster is, for the commands that look at it.
func (c *Cluster) WriteState() error {
	state := State{
		PID: proc.OuterPID(), Started: c.started, APIServer: c.apiServer(), Kubeconfig: c.Kubeconfig("admin"), Kubectl: c.Kubectl(),
		AMQP: c.Broker.AMQPURL("/"), Management: c.Broker.ManagementURL(), Prometheus: c.prometheus,
	}
	if c.network != nil {
		state.Helm = c.tools.Bin("helm")
	} else {
		state.Scaler, state.ScalerMetrics, state.Placements = c.ScalerAddress(), c.ScalerMetricsURL(), c.ExplainURL()+"/placements"
		state.SchedulerHTTPS = fmt.Sprintf("https://127.0.0.1:%d", c.ports.Scheduler)
	}
	text, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	partial := c.path(stateFile + ".partial")
	if err := os.WriteFile(partial, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(partial, c.path(stateFile))
}

// ReadState reads what the cluster in dir says of itself.
func ReadState(dir string) (State, error) {
	var s State
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return s, fmt.Errorf("no cluster runs in %s (start one: make up)", dir)
	}
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// Running reports whether the process that owns the cluster is there.
func (s State) Running() bool { return s.PID > 0 && syscall.Kill(s.PID, 0) == nil }
