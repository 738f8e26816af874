package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

// feed keeps the store in step with the directory or the API server until ctx ends.
func feed(ctx context.Context, o options, store *policy.Store, log *slog.Logger, loaded func()) error {
	if o.policyDir != "" {
		return policy.NewDirectory(o.policyDir, store, log).Run(ctx, loaded)
	}
	ctrllog.SetLogger(logr.FromSlogHandler(log.Handler()))
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
	informers, err := cache.New(config, cache.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	direct, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	work, workCtx := errgroup.WithContext(ctx)
	work.Go(func() error { return informers.Start(workCtx) })
	work.Go(func() error { return policy.Follow(workCtx, informers, direct, store, loaded) })
	return work.Wait()
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		kubeconfig = os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
	}
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}
