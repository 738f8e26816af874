package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/status"
)

// feed keeps the store in step with the directory or the API server until ctx ends; with an API server, it also writes
// the status of policies.
func feed(
	ctx context.Context, o options, store *policy.Store, ledger *decision.Ledger, log *slog.Logger, loaded func(),
) error {
	if o.policyDir != "" {
		return policy.NewDirectory(o.policyDir, store, log).Run(ctx, loaded)
	}
	config, err := restConfig(o.kubeconfig)
	if err != nil {
		return fmt.Errorf("no API server to read ScalingPolicies from (--policy-dir reads files instead): %w", err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	config.QPS, config.Burst = 100, 200 // a start-up reads one Secret for each queue, at worst
	informers, err := cache.New(config, cache.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	direct, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	events := record.NewBroadcaster()
	defer events.Shutdown()
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: clientset.CoreV1().Events("")})
	writer := &status.Writer{
		Reader: informers, Client: direct, Policies: store, Ledger: ledger, Now: time.Now, Log: log,
		Events: events.NewRecorder(scheme, corev1.EventSource{Component: "ebbtide-scaler"}),
	}
	work, workCtx := errgroup.WithContext(ctx)
	work.Go(func() error { return informers.Start(workCtx) })
	work.Go(func() error { return policy.Follow(workCtx, informers, direct, store, loaded) })
	work.Go(func() error {
		if !o.leaderElect {
			writer.Run(workCtx)
			return nil
		}
		return lead(workCtx, config, o.namespace, o.lease, writer.Run)
	})
	return work.Wait()
}

// lead runs f whenever this replica is the leader, until ctx ends.
func lead(ctx context.Context, config *rest.Config, namespace, lease string, f func(context.Context)) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, namespace, lease,
		resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())}, rest.CopyConfig(config), leaseDuration)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		// It returns when the lease is lost: another replica writes then, and this one stands by.
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: 2 * leaseDuration / 3, RetryPeriod: leaseDuration / 6,
			ReleaseOnCancel: true,
			Callbacks:       leaderelection.LeaderCallbacks{OnStartedLeading: f, OnStoppedLeading: func() {}},
		})
	}
	return nil
}

// leaseDuration is how long a leader that vanished is waited for.
const leaseDuration = 15 * time.Second

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		kubeconfig = os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
	}
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}
