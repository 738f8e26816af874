package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiversion "k8s.io/apimachinery/pkg/version"
)

// inside makes the test's program the scheduler.
const inside = "EBBTIDE_SCHEDULER_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		main()
	}
	os.Exit(m.Run())
}

// double is an API server of a version that serves some resources, all of them empty, and notes which are asked for.
type double struct {
	version apiversion.Info
	served  map[string][]string

	mu    sync.Mutex
	asked map[string]bool // GROUPVERSION/RESOURCE of lists and watches
	more  chan struct{}   // gets one when asked grows
}

// all that kube-scheduler 1.36 asks for.
func all() map[string][]string {
	return map[string][]string{
		"v1":                     {"namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes", "pods", "replicationcontrollers", "services"},
		"apps/v1":                {"replicasets", "statefulsets"},
		"coordination.k8s.io/v1": {"leases"},
		"events.k8s.io/v1":       {"events"},
		"policy/v1":              {"poddisruptionbudgets"},
		"storage.k8s.io/v1":      {"csidrivers", "csinodes", "csistoragecapacities", "storageclasses", "volumeattachments"},
		"resource.k8s.io/v1":     {"deviceclasses", "resourceclaims", "resourceslices"},
	}
}

func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(object any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(object)
	}
	if r.URL.Path == "/version" {
		answer(d.version)
		return
	}
	groupVersion, rest := "v1", strings.TrimPrefix(r.URL.Path, "/api/v1")
	if path, ok := strings.CutPrefix(r.URL.Path, "/apis/"); ok {
		parts := strings.SplitN(path, "/", 3)
		groupVersion, rest = strings.Join(parts[:min(2, len(parts))], "/"), "/"+strings.Join(parts[min(2, len(parts)):], "/")
	}
	resources, ok := d.served[groupVersion]
	if resource := strings.Trim(rest, "/"); resource != "" {
		d.mu.Lock()
		d.asked[groupVersion+"/"+resource] = true
		d.mu.Unlock()
		select {
		case d.more <- struct{}{}:
		default:
		}
		ok = false
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		answer(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: 404})
		return
	}
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: groupVersion}
	for _, resource := range resources {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: resource})
	}
	answer(list)
}

// start starts the scheduler with the double, and returns what it prints once it has ended.
func (d *double) start(ctx context.Context, t *testing.T, args ...string) (cmd *exec.Cmd, output *bytes.Buffer) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the scheduler")
	}
	d.asked, d.more = map[string]bool{}, make(chan struct{}, 1)
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kubeconfig := write("kubeconfig", fmt.Sprintf(`{clusters: [{name: c, cluster: {server: "%s"}}], contexts: [{name: c, context: {cluster: c}}], current-context: c}`, server.URL))
	config := write("config.yaml", fmt.Sprintf(`
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %s}
profiles: [{schedulerName: ebbtide, plugins: {multiPoint: {enabled: [{name: DrainPack}]}}}]
`, kubeconfig))
	output = &bytes.Buffer{}
	cmd = exec.CommandContext(ctx, os.Args[0], append([]string{"--config=" + config, "--secure-port=0"}, args...)...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, output
}

// A cluster that the scheduler can't serve is told in one sentence, at once, and nothing is asked of it.
func TestUnfitCluster(t *testing.T) {
	without := func(groupVersion string, resources ...string) map[string][]string {
		served := all()
		served[groupVersion] = slices.DeleteFunc(served[groupVersion], func(r string) bool { return len(resources) == 0 || slices.Contains(resources, r) })
		if len(served[groupVersion]) == 0 {
			delete(served, groupVersion)
		}
		return served
	}
	for name, tc := range map[string]struct {
		version apiversion.Info
		served  map[string][]string
		args    []string
		want    string
	}{
		"too old": {
			apiversion.Info{Major: "1", Minor: "32+", GitVersion: "v1.32.9-eks-3cfe0ce"}, without("resource.k8s.io/v1"), nil,
			"the API server is Kubernetes v1.32.9-eks-3cfe0ce, but ebbtide-scheduler needs 1.33 or later: upgrade the cluster, or install Ebbtide with scheduler.enabled=false",
		},
		"emulates a release that is too old": {
			apiversion.Info{Major: "1", Minor: "34", GitVersion: "v1.34.3", EmulationMajor: "1", EmulationMinor: "31"}, all(), nil,
			"the API server is Kubernetes v1.34.3, but ebbtide-scheduler needs 1.33 or later",
		},
		"an API turned off": {
			apiversion.Info{Major: "1", Minor: "36", GitVersion: "v1.36.3"}, without("resource.k8s.io/v1"), nil,
			"the API server (Kubernetes v1.36.3) does not serve resource.k8s.io/v1 (deviceclasses, resourceclaims, resourceslices), which ebbtide-scheduler needs: " +
				"turn it on with the API server's --runtime-config, or start the scheduler with --emulated-version=1.33",
		},
		"a newer release told to be emulated": {
			apiversion.Info{Major: "1", Minor: "33", GitVersion: "v1.33.13"}, without("resource.k8s.io/v1"), []string{"--emulated-version=1.36"},
			"the API server (Kubernetes v1.33.13) does not serve resource.k8s.io/v1",
		},
		"resources turned off": {
			apiversion.Info{Major: "1", Minor: "35", GitVersion: "v1.35.4"}, without("storage.k8s.io/v1", "volumeattachments"), nil,
			"does not serve storage.k8s.io/v1 (volumeattachments), which ebbtide-scheduler needs: turn it on with the API server's --runtime-config, or install Ebbtide with scheduler.enabled=false",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := &double{version: tc.version, served: tc.served}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd, output := d.start(ctx, t, tc.args...)
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("it ends with %v, want exit status 1", err)
			}
			if lines := strings.Split(strings.TrimSpace(output.String()), "\n"); !strings.Contains(lines[len(lines)-1], tc.want) {
				t.Errorf("it prints\n%s\nwant a last line with %q", output, tc.want)
			}
			if len(d.asked) > 0 {
				t.Errorf("it asks for %v before", d.asked)
			}
		})
	}
}

// In a cluster that has everything the scheduler asks for what was checked, and for nothing else; in an older one for less.
func TestFitCluster(t *testing.T) {
	newest := all()
	older := all()
	delete(older, "resource.k8s.io/v1")
	for name, tc := range map[string]struct {
		version apiversion.Info
		served  map[string][]string
	}{
		"1.33":            {apiversion.Info{Major: "1", Minor: "33", GitVersion: "v1.33.13"}, older},
		"1.34 as 1.33":    {apiversion.Info{Major: "1", Minor: "34", GitVersion: "v1.34.3", EmulationMajor: "1", EmulationMinor: "33"}, older},
		"1.34":            {apiversion.Info{Major: "1", Minor: "34+", GitVersion: "v1.34.2-gke.1"}, newest},
		"its own":         {apiversion.Info{Major: "1", Minor: "36", GitVersion: "v1.36.3"}, newest},
		"a newer one":     {apiversion.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2"}, newest},
		"without a minor": {apiversion.Info{GitVersion: "v1.35.4"}, newest},
	} {
		t.Run(name, func(t *testing.T) {
			d := &double{version: tc.version, served: tc.served}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd, output := d.start(ctx, t)
			var want []string
			for groupVersion, resources := range tc.served {
				for _, resource := range resources {
					if groupVersion != "events.k8s.io/v1" && groupVersion != "coordination.k8s.io/v1" { // those are written, not watched
						want = append(want, groupVersion+"/"+resource)
					}
				}
			}
			lacking := func() []string {
				d.mu.Lock()
				defer d.mu.Unlock()
				return slices.DeleteFunc(slices.Clone(want), func(r string) bool { return d.asked[r] })
			}
			for len(lacking()) > 0 && ctx.Err() == nil {
				select {
				case <-d.more:
				case <-ctx.Done():
				}
			}
			cancel()
			_ = cmd.Wait() // it was killed
			if missing := lacking(); len(missing) > 0 {
				t.Errorf("it does not ask for %v, which is checked; it prints\n%s", missing, output)
			}
			for resource := range d.asked {
				if !slices.Contains(want, resource) {
					t.Errorf("it asks for %s, which is not checked", resource)
				}
			}
		})
	}
}
