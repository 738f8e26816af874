package compat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/auth/rbac/validation"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

// Step is a part of what is run in a cell.
type Step struct {
	Name string
	// Says what the step shows, for the page.
	Shows string
	play  func(*stage, context.Context) error
}

// Steps in their order. The second half needs the cluster of the first.
var Steps = []Step{
	{"messages", "25 messages in two bursts lead to 25 jobs and 25 results; Karpenter creates nodes and removes all of them. No message is lost, no job is empty", (*stage).messages},
	{"packing", "in a cluster with CoreDNS, the eight pods of a Deployment with a Service share one of four nodes", (*stage).packing},
	{"policy edit", "an edit of the policy raises the floor and jobs start; another lowers it and no job is killed", (*stage).policyEdit},
	{"leader change", "the scheduler's leader is killed, and the other replica places the next pod", (*stage).leaderChange},
	{"draining", "with `scheduler.draining` on, idle workers stay while another works on their node, two of them give way to a pod that finds no room, and a " +
		"node whose pods fit elsewhere is tainted: its idle worker leaves at once, the busy one after its message", (*stage).draining},
	{"RBAC", "the API server refused no request of the scaler or the scheduler, each with its own service account, and the roles of this cluster and of the " +
		"manifests together allow all that kube-scheduler 1.36 may do", (*stage).rbac},
	{"charts", "helm installs the three charts with the CRD, upgrades them and removes them", (*stage).charts},
}

// stage is a cluster on which steps are run.
type stage struct {
	c        *cluster.Cluster
	client   kubernetes.Interface
	root     string
	tools    toolchain.Toolchain
	progress io.Writer
}

// Play starts a cell's cluster in a folder and runs steps on it: those with the names, or all. It returns at the first that fails.
func Play(ctx context.Context, cell Cell, root string, tools toolchain.Toolchain, dir string, progress io.Writer, names ...string) error {
	tools, err := tools.With(ctx, progress, cell.Releases...)
	if err != nil {
		return err
	}
	c, err := cluster.Start(ctx, cluster.Options{Dir: dir, Root: root, Tools: tools, Progress: progress, Audit: true, SecondScheduler: true, Draining: true})
	if err != nil {
		return err
	}
	defer c.Stop()
	s := &stage{c: c, root: root, tools: tools, progress: progress}
	if s.client, err = kubernetes.NewForConfig(c.Admin()); err != nil {
		return err
	}
	version, err := s.client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	if want := "v" + cell.Version("kubernetes"); version.GitVersion != want {
		return fmt.Errorf("the API server is %s, want %s", version.GitVersion, want)
	}
	if err := scans.Install(ctx, c); err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	podsCtx, stopPods := context.WithCancel(ctx)
	work.Go(func() error { return scans.RunPods(podsCtx, c, nil) })
	work.Go(func() error {
		defer stopPods()
		for _, step := range Steps {
			if len(names) > 0 && !slices.Contains(names, step.Name) {
				continue
			}
			begin := time.Now()
			if err := step.play(s, ctx); err != nil {
				return fmt.Errorf("%s: %w", step.Name, err)
			}
			fmt.Fprintf(progress, "%s: %s passed after %.0f s\n", cell.Name, step.Name, time.Since(begin).Seconds())
		}
		if name := c.Failed(); name != "" {
			return fmt.Errorf("%s ended by itself", name)
		}
		return nil
	})
	return work.Wait()
}

// eventually waits until a state is as it should be; what was seen last is in the error.
func eventually(ctx context.Context, within time.Duration, state func() (seen string, ok bool, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	for {
		seen, ok, err := state()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%w: %s", context.Cause(ctx), seen), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *stage) messages(ctx context.Context) error {
	var arrivals []scans.Arrival
	for i := range 25 {
		after := time.Duration(0)
		if i >= 15 {
			after = 12 * time.Second
		}
		arrivals = append(arrivals, scans.Arrival{After: after, Scan: scans.Scan{ID: fmt.Sprintf("compat-%02d", i), Seconds: 2 + float64(i%4)}})
	}
	summary, _, err := scans.PlayOn(ctx, s.c, arrivals, time.Now(), io.Discard)
	if err != nil {
		return err
	}
	if summary.Messages != len(arrivals) || summary.Jobs != len(arrivals) || summary.PeakNodes == 0 {
		return fmt.Errorf("%d messages, %d jobs on %d nodes, want %d of both", summary.Messages, summary.Jobs, summary.PeakNodes, len(arrivals))
	}
	return summary.Check()
}

// node is a node that KWOK keeps, of a pool of its own.
func node(name, pool string, cpus int, annotations, spec string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Node
metadata:
  name: %[1]s
  annotations: {kwok.x-k8s.io/node: fake, node.alpha.kubernetes.io/ttl: "0"%[4]s}
  labels: {pool: %[2]s, kubernetes.io/hostname: %[1]s, kubernetes.io/os: linux, kubernetes.io/arch: amd64}
spec: {%[5]s}
status:
  allocatable: {cpu: "%[3]d", memory: 32Gi, pods: "110"}
  capacity: {cpu: "%[3]d", memory: 32Gi, pods: "110"}
`, name, pool, cpus, annotations, spec)
}

// ordinary is a namespace with nodes of its own.
const ordinary = "ordinary"

func (s *stage) packing(ctx context.Context) error {
	const nodes, replicas = 4, 8
	var objects strings.Builder
	fmt.Fprintf(&objects, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", ordinary)
	for i := range nodes {
		objects.WriteString(node(fmt.Sprintf("ordinary-%d", i), "ordinary", 8, "", ""))
	}
	deployment := func(namespace, name, scheduler string, replicas int, cpu, more string) {
		fmt.Fprintf(&objects, `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: %[4]d
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}, annotations: {e2e.ebbtide.dev/run-for: 1h}}
    spec:
      schedulerName: %[3]s
      nodeSelector: {pool: ordinary}%[6]s
      containers:
      - {name: main, image: main, resources: {requests: {cpu: %[5]s, memory: 100Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: %[2]s, namespace: %[1]s}
spec: {selector: {app: %[2]s}, ports: [{port: 80}]}
`, namespace, name, scheduler, replicas, cpu, more)
	}
	// As kubeadm installs it.
	deployment("kube-system", "coredns", "default-scheduler", 2, "100m", `
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - {weight: 100, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: coredns}}}}`)
	if err := s.c.ApplyYAML(ctx, []byte(objects.String())); err != nil {
		return err
	}
	if _, err := s.placed(ctx, "kube-system", "app=coredns", 2, time.Minute); err != nil {
		return err
	}
	objects.Reset()
	deployment(ordinary, "web", "ebbtide", replicas, "500m", "")
	if err := s.c.ApplyYAML(ctx, []byte(strings.TrimPrefix(objects.String(), "---\n"))); err != nil {
		return err
	}
	on, err := s.placed(ctx, ordinary, "app=web", replicas, time.Minute)
	if err == nil && len(on) != 1 {
		err = fmt.Errorf("the pods are on %d nodes, want 1: %v", len(on), on)
	}
	return err
}

// placed waits until so many pods have nodes, and returns how many each node has.
func (s *stage) placed(ctx context.Context, namespace, selector string, pods int, within time.Duration) (on map[string]int, err error) {
	err = eventually(ctx, within, func() (string, bool, error) {
		list, err := s.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return "", false, err
		}
		on, have := map[string]int{}, 0
		for i := range list.Items {
			if node := list.Items[i].Spec.NodeName; node != "" {
				on[node]++
				have++
			}
		}
		return fmt.Sprintf("%d of %d pods have a node", have, pods), have == pods, nil
	})
	if err != nil {
		return nil, err
	}
	list, err := s.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	on = map[string]int{}
	for i := range list.Items {
		on[list.Items[i].Spec.NodeName]++
	}
	return on, nil
}

// unfinished are the jobs that work or wait, and how many there were at all.
func (s *stage) unfinished(ctx context.Context) (unfinished []batchv1.Job, err error) {
	jobs, err := s.client.BatchV1().Jobs(scans.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, job := range jobs.Items {
		done := false
		for _, condition := range job.Status.Conditions {
			done = done || condition.Status == corev1.ConditionTrue && (condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed)
		}
		if !done {
			unfinished = append(unfinished, job)
		}
	}
	return unfinished, nil
}

func (s *stage) policyEdit(ctx context.Context) error {
	setFloor := func(floor int32) error {
		policy := v1alpha1.ScalingPolicy{}
		policy.Name, policy.Namespace = "scans", scans.Namespace
		patch := fmt.Appendf(nil, `{"spec":{"calendar":{"periods":[{"name":"every-day","from":"00:00","to":"24:00","limits":{"minReplicas":%d,"maxReplicas":%d}}]}}}`, floor, scans.MaxReplicas)
		return s.c.Client().Patch(ctx, &policy, client.RawPatch(types.MergePatchType, patch))
	}
	const floor = 3
	if err := setFloor(floor); err != nil {
		return err
	}
	if err := eventually(ctx, time.Minute, func() (string, bool, error) {
		jobs, err := s.unfinished(ctx)
		return fmt.Sprintf("%d jobs for a floor of %d", len(jobs), floor), len(jobs) == floor, err
	}); err != nil {
		return err
	}
	if err := setFloor(0); err != nil {
		return err
	}
	// They end by themselves, having found nothing for a while.
	if err := eventually(ctx, 2*time.Minute, func() (string, bool, error) {
		jobs, err := s.unfinished(ctx)
		return fmt.Sprintf("%d jobs after the floor went", len(jobs)), len(jobs) == 0, err
	}); err != nil {
		return err
	}
	jobs, err := s.client.BatchV1().Jobs(scans.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, job := range jobs.Items {
		if job.Status.Failed > 0 {
			return fmt.Errorf("job %s was killed", job.Name)
		}
	}
	return nil
}

func (s *stage) leaderChange(ctx context.Context) error {
	leases := s.client.CoordinationV1().Leases("ebbtide-system")
	holder := func() (string, error) {
		lease, err := leases.Get(ctx, "ebbtide-scheduler", metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return "", err
		}
		return *lease.Spec.HolderIdentity, nil
	}
	before, err := holder()
	if err != nil || before == "" {
		return fmt.Errorf("no scheduler leads: %w", err)
	}
	// Both run on this host, so the lease does not say which it is: the one that is killed without a change was the other.
	for _, name := range []string{cluster.Scheduler, cluster.SecondScheduler} {
		if err := s.c.Crash(name); err != nil {
			return err
		}
		if err := s.pod(ctx, name); err != nil {
			return err
		}
		after, err := holder()
		if err != nil {
			return err
		}
		if err := s.c.Restart(ctx, name); err != nil {
			return err
		}
		if after != before {
			return nil
		}
	}
	return errors.New("both replicas were killed, and the leader stayed")
}

// pod makes a pod and waits until it has a node.
func (s *stage) pod(ctx context.Context, name string) error {
	if err := s.c.ApplyYAML(ctx, fmt.Appendf(nil, `
apiVersion: v1
kind: Pod
metadata: {name: after-%[1]s, namespace: default, labels: {after: %[1]s}, annotations: {e2e.ebbtide.dev/run-for: 1h}}
spec:
  schedulerName: ebbtide
  nodeSelector: {pool: ordinary}
  automountServiceAccountToken: false
  containers: [{name: main, image: main, resources: {requests: {cpu: 100m, memory: 10Mi}}}]
`, name)); err != nil {
		return err
	}
	_, err := s.placed(ctx, "default", "after="+name, 1, time.Minute) // a lease lasts 15 s
	return err
}

// rbac: the API server's own roles and the project's manifests are all that the scaler and the scheduler have.
func (s *stage) rbac(ctx context.Context) error {
	requests, refused, err := s.c.Requests()
	if err != nil {
		return err
	}
	if requests < 20 {
		return fmt.Errorf("the API server noted %d requests", requests)
	}
	if len(refused) > 0 {
		return fmt.Errorf("the API server refused %v", refused)
	}
	return s.rights(ctx)
}

// rights checks what a run has no occasion to ask for: with the roles of the cluster and of the manifests, the scheduler may do all that the
// kube-scheduler of its own release may.
func (s *stage) rights(ctx context.Context) error {
	bindings, err := s.client.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var granted []rbacv1.PolicyRule
	for _, binding := range bindings.Items {
		if !slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool {
			return s.Kind == rbacv1.ServiceAccountKind && s.Name == "ebbtide-scheduler" && s.Namespace == "ebbtide-system"
		}) {
			continue
		}
		role, err := s.client.RbacV1().ClusterRoles().Get(ctx, binding.RoleRef.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		granted = append(granted, role.Rules...)
	}
	for _, role := range bootstrappolicy.ClusterRoles() {
		if role.Name != "system:kube-scheduler" && role.Name != "system:volume-scheduler" {
			continue
		}
		if ok, missing := validation.Covers(granted, role.Rules); !ok {
			return fmt.Errorf("the scheduler lacks rights of %s: %+v", role.Name, missing)
		}
	}
	return nil
}

// charts are tried on an API server of their own: the cluster has the objects already.
func (s *stage) charts(ctx context.Context) error {
	dir, err := filepath.Abs(filepath.Join(s.c.Dir, "charts"))
	if err != nil {
		return err
	}
	c, err := cluster.StartControlPlane(ctx, cluster.Options{Dir: dir, Root: s.root, Tools: s.tools, Progress: s.progress})
	if err != nil {
		return err
	}
	defer c.Stop()
	for _, command := range [][]string{
		{"kubectl", "delete", "customresourcedefinitions/scalingpolicies.ebbtide.dev"}, // which the control plane starts with, and the chart brings
		{"kubectl", "create", "namespace", "keda"},
		{"helm", "install", "ebbtide", "charts/ebbtide", "-n", "ebbtide-system", "--create-namespace"},
		{"kubectl", "wait", "--for=condition=Established", "crd/scalingpolicies.ebbtide.dev", "--timeout=60s"},
		// Its hook is a Job, which nothing runs here.
		{"helm", "install", "scans", "charts/scan-jobs", "-n", "scans", "--create-namespace", "-f", "charts/scan-jobs/values-test.yaml", "--no-hooks"},
		{"helm", "install", "batch", "charts/batch-jobs-min-nodes", "-n", "batch", "--create-namespace", "-f", "charts/batch-jobs-min-nodes/test_values.yaml"},
		{"helm", "upgrade", "ebbtide", "charts/ebbtide", "-n", "ebbtide-system", "--set", "scaler.replicas=3"},
		{"helm", "uninstall", "batch", "-n", "batch"},
		{"helm", "uninstall", "scans", "-n", "scans", "--no-hooks"},
		{"helm", "uninstall", "ebbtide", "-n", "ebbtide-system"},
		{"kubectl", "get", "crd", "scalingpolicies.ebbtide.dev"}, // it stays with the policies
		{"kubectl", "delete", "crd", "scalingpolicies.ebbtide.dev"},
	} {
		if _, err := c.Exec(ctx, command[0], command[1:]...); err != nil {
			return err
		}
	}
	left, err := c.Exec(ctx, "kubectl", "get", "deployments,services,secrets,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,jobs,"+
		"poddisruptionbudgets,networkpolicies,scaledjobs.keda.sh,clustertriggerauthentications.keda.sh", "-A", "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name")
	if err == nil && strings.TrimSpace(left) != "" {
		err = fmt.Errorf("left after the uninstall: %s", left)
	}
	return err
}
