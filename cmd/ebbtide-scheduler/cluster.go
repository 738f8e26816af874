package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/kubernetes/pkg/features"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/internal/apiserver"
)

const (
	// emulatedVersion is kube-scheduler's flag for the release that it behaves as.
	emulatedVersion = "emulated-version"
	// reachWithin bounds the wait for an API server that does not answer. kube-scheduler itself would wait for ever.
	reachWithin = time.Minute
	askEvery    = time.Second
)

// setGates sets feature gates as kube-scheduler does, but those of the cluster's release if the cluster is older than the scheduler. It returns an
// error if the API server lacks what the scheduler then needs: informers would wait for it for ever, and no pod would get a node.
func setGates(ctx context.Context, flags *pflag.FlagSet, set func() error) error {
	if flags.Changed("write-config-to") {
		return set() // it writes its configuration and ends
	}
	client, err := discoveryClient(flags)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	var release *version.Version
	var server string
	if err := untilAnswered(ctx, func() (err error) {
		release, server, err = apiserver.Release(client)
		return err
	}); err != nil {
		return err
	}
	own := compatibility.DefaultBuildEffectiveVersion().BinaryVersion()
	if !flags.Changed(emulatedVersion) && release.LessThan(version.MajorMinor(own.Major(), own.Minor())) {
		klog.FromContext(ctx).Info("The cluster is older than this scheduler, which behaves as one of the cluster's release", "server", server, emulatedVersion, release)
		if err := flags.Set(emulatedVersion, release.String()); err != nil {
			return err
		}
	}
	if err := set(); err != nil {
		return err
	}
	return untilAnswered(ctx, func() error {
		return apiserver.Check(client, server, utilfeature.DefaultFeatureGate.Enabled(features.DynamicResourceAllocation))
	})
}

// untilAnswered asks the API server until it answers, or says that it is unfit.
func untilAnswered(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if err == nil || errors.As(err, new(*apiserver.UnfitError)) {
			return err
		}
		klog.FromContext(ctx).Info("Waiting for the API server", "reason", err.Error())
		select {
		case <-ctx.Done():
			return err
		case <-time.After(askEvery):
		}
	}
}

// discoveryClient connects as the scheduler itself will.
func discoveryClient(flags *pflag.FlagSet) (*discovery.DiscoveryClient, error) {
	value := func(name string) string {
		if flag := flags.Lookup(name); flag != nil {
			return flag.Value.String()
		}
		return ""
	}
	kubeconfig := value("kubeconfig")
	if file := value("config"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
		var config configv1.KubeSchedulerConfiguration
		if err := yaml.Unmarshal(text, &config); err != nil {
			return nil, fmt.Errorf("--config: %s: %w", file, err)
		}
		kubeconfig = config.ClientConnection.Kubeconfig
	}
	config, err := clientcmd.BuildConfigFromFlags(value("master"), kubeconfig)
	if err != nil {
		return nil, err
	}
	config.Timeout = 10 * time.Second
	return discovery.NewDiscoveryClientForConfig(config)
}
