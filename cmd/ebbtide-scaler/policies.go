package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/status"
	"github.com/ebbtide-dev/ebbtide/scaler/workload"
)

// cluster is what the scaler has to do with an API server.
type cluster struct {
	manager  manager.Manager
	dynamic  dynamic.Interface
	events   record.EventBroadcaster
	workload *workload.Watch
}

// newCluster reaches for the API server. Nothing is asked of it yet.
func newCluster(o options, watch *workload.Watch) (*cluster, error) {
	config, err := restConfig(o.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("no API server to read ScalingPolicies from (--policy-dir reads files instead): %w", err)
	}
	config.QPS, config.Burst = 100, 200 // a start-up reads one Secret for each queue, at worst
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	c := &cluster{workload: watch, events: record.NewBroadcaster()}
	if c.manager, err = manager.New(config, manager.Options{
		Scheme: scheme, Cache: cache.Options{ByObject: workload.Objects()}, Metrics: metricsserver.Options{BindAddress: "0"},
		LeaderElection: o.leaderElect, LeaderElectionID: o.lease, LeaderElectionNamespace: o.namespace, LeaderElectionReleaseOnCancel: true,
	}); err != nil {
		return nil, err
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	c.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: clientset.CoreV1().Events("")})
	return c, nil
}

// published returns what the leader wrote into a policy's status.
func (c *cluster) published(name types.NamespacedName) (decision.Published, bool) {
	var object v1alpha1.ScalingPolicy
	// The cache answers at once, or has nothing yet; nothing of its object is changed.
	if err := c.manager.GetCache().Get(context.Background(), name, &object, client.UnsafeDisableDeepCopy); err != nil {
		return decision.Published{}, false
	}
	var p decision.Published
	if group := object.Status.Group; group != nil {
		p.Group, p.Share = group.Name, group.Replicas
	}
	if mean := object.Status.ServiceTime; mean != nil {
		p.ServiceTime = mean.Duration
	}
	if last := object.Status.LastDecision; last != nil {
		p.Target = int64(last.Target)
	}
	return p, true
}

// run follows policies and what runs for them until ctx ends. It ends, too, when this replica was the leader and is no more: what it knows of
// shares of caps is another one's to say then, and whoever restarts it makes it a follower.
func (c *cluster) run(ctx context.Context, store *policy.Store, decider *decision.Decider, recorder *decision.Recorder, loaded func()) error {
	defer c.events.Shutdown()
	writer := status.New(status.Reconciler{
		Reader: c.manager.GetClient(), Client: c.manager.GetClient(), Policies: store, Ledger: recorder.Ledger, Decider: decider, Now: time.Now,
		Events: c.events.NewRecorder(c.manager.GetScheme(), corev1.EventSource{Component: "ebbtide-scaler"}),
	})
	if err := writer.SetUp(c.manager); err != nil {
		return err
	}
	recorder.OnChange(writer.Changed)
	for _, task := range []struct {
		leads bool
		run   func(context.Context) error
	}{
		{false, func(ctx context.Context) error {
			return policy.Follow(ctx, c.manager.GetCache(), c.manager.GetAPIReader(), store, loaded)
		}},
		{false, func(ctx context.Context) error { return c.workload.Follow(ctx, c.dynamic) }},
		{true, func(ctx context.Context) error { return c.workload.Lead(ctx, c.manager.GetCache()) }},
		{true, func(ctx context.Context) error {
			decider.ShareOut(ctx, func(name types.NamespacedName) { writer.Changed(name, true) })
			return nil
		}},
	} {
		if err := c.manager.Add(runnable{task.run, task.leads}); err != nil {
			return err
		}
	}
	if err := c.manager.Start(ctx); err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	return nil
}

// runnable is a task of a manager.
type runnable struct {
	run   func(context.Context) error
	leads bool // only the leader runs it
}

// Start implements manager.Runnable.
func (r runnable) Start(ctx context.Context) error { return r.run(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (r runnable) NeedLeaderElection() bool { return r.leads }

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		kubeconfig = os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
	}
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}
