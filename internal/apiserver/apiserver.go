// Package apiserver tells whether a cluster's API server has what ebbtide-scheduler needs, and what to do if it does not.
package apiserver

import (
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	apiversion "k8s.io/apimachinery/pkg/version"
)

// Oldest is the oldest release of Kubernetes that the scheduler can behave as: kube-scheduler emulates its last three minor releases.
var Oldest = version.MajorMinor(1, 33)

// Discovery is the part of a discovery client that the package uses.
type Discovery interface {
	ServerVersion() (*apiversion.Info, error)
	ServerResourcesForGroupVersion(groupVersion string) (*metav1.APIResourceList, error)
}

// UnfitError says in one sentence what a cluster has, what is needed, and what to do.
type UnfitError struct {
	Sentence string
	// OnlyDevices is true if a scheduler that allocates no devices would do.
	OnlyDevices bool
}

func (e *UnfitError) Error() string { return e.Sentence }

// withoutScheduler says what to do where the scheduler can't run.
const withoutScheduler = "install Ebbtide with scheduler.enabled=false"

// needs are the resources of API groups that kube-scheduler watches or writes with its default feature gates.
var needs = []struct {
	groupVersion string
	resources    []string
}{
	{"v1", []string{"namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes", "pods", "replicationcontrollers", "services"}},
	{"apps/v1", []string{"replicasets", "statefulsets"}},
	{"coordination.k8s.io/v1", []string{"leases"}},
	{"events.k8s.io/v1", []string{"events"}},
	{"policy/v1", []string{"poddisruptionbudgets"}},
	{"storage.k8s.io/v1", []string{"csidrivers", "csinodes", "csistoragecapacities", "storageclasses", "volumeattachments"}},
	{devices, []string{"deviceclasses", "resourceclaims", "resourceslices"}},
}

// devices is what dynamic resource allocation needs.
const devices = "resource.k8s.io/v1"

// allocatesDevices is the first release whose scheduler does so by default.
var allocatesDevices = version.MajorMinor(1, 34)

// Release returns the minor release of Kubernetes that an API server behaves as, and its version as it says it. One that is older than the
// scheduler can serve is an UnfitError.
func Release(client Discovery) (release *version.Version, server string, err error) {
	info, err := client.ServerVersion()
	if err != nil {
		return nil, "", fmt.Errorf("ask the API server for its version: %w", err)
	}
	if release, err = releaseOf(info); err != nil {
		return nil, info.GitVersion, err
	}
	if release.LessThan(Oldest) {
		err = &UnfitError{Sentence: fmt.Sprintf("the API server is Kubernetes %s, but ebbtide-scheduler needs %s or later: upgrade the cluster, or %s",
			info.GitVersion, Oldest, withoutScheduler)}
	}
	return release, info.GitVersion, err
}

// releaseOf is the minor release that an API server behaves as. Providers add to versions: v1.34.2-eks-3cfe0ce, or minor 34+.
func releaseOf(info *apiversion.Info) (*version.Version, error) {
	major, minor := info.Major, info.Minor
	if info.EmulationMajor != "" && info.EmulationMinor != "" {
		major, minor = info.EmulationMajor, info.EmulationMinor
	}
	release, err := version.ParseGeneric(major + "." + strings.TrimRight(minor, "+"))
	if err != nil {
		release, err = version.ParseGeneric(info.GitVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("the API server's version %q is not one of Kubernetes: %w", info.GitVersion, err)
	}
	return version.MajorMinor(release.Major(), release.Minor()), nil
}

// Check returns an UnfitError if an API server of a version lacks what the scheduler needs; withDevices if it allocates devices. What the
// caller may not ask for counts as there.
func Check(client Discovery, server string, withDevices bool) error {
	var missing []string
	onlyDevices := true
	for _, n := range needs {
		if n.groupVersion == devices && !withDevices {
			continue
		}
		served, err := client.ServerResourcesForGroupVersion(n.groupVersion)
		switch {
		case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
			continue
		case err != nil && !apierrors.IsNotFound(err):
			return fmt.Errorf("ask the API server for %s: %w", n.groupVersion, err)
		}
		var lacking []string
		for _, resource := range n.resources {
			if served == nil || !slices.ContainsFunc(served.APIResources, func(r metav1.APIResource) bool { return r.Name == resource }) {
				lacking = append(lacking, resource)
			}
		}
		if len(lacking) > 0 {
			missing = append(missing, fmt.Sprintf("%s (%s)", n.groupVersion, strings.Join(lacking, ", ")))
			onlyDevices = onlyDevices && n.groupVersion == devices
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fix := withoutScheduler
	if onlyDevices {
		fix = "start the scheduler with --emulated-version=1.33, which does without dynamic resource allocation"
	}
	return &UnfitError{OnlyDevices: onlyDevices, Sentence: fmt.Sprintf("the API server (Kubernetes %s) does not serve %s, which ebbtide-scheduler needs: "+
		"turn it on with the API server's --runtime-config, or %s", server, strings.Join(missing, ", "), fix)}
}

// Fit checks an API server for a scheduler with its default settings.
func Fit(client Discovery) error {
	release, server, err := Release(client)
	if err != nil {
		return err
	}
	return Check(client, server, release.AtLeast(allocatesDevices))
}
