package cluster_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/proc"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
	"github.com/ebbtide-dev/ebbtide/scaler/status"
)

// checkReplicas runs two scalers, and checks that both answer, that one of them alone writes the policy's status and events, and that
// the other one continues with that when it stops.
func checkReplicas(t *testing.T, c *cluster.Cluster) {
	root, _ := toolsOf(t)
	bin := t.TempDir()
	if err := toolchain.BuildProject(t.Context(), root, bin, t.Output(), "./cmd/ebbtide-scaler"); err != nil {
		t.Fatal(err)
	}
	api, name := c.Client(), types.NamespacedName{Namespace: "default", Name: "replicas"}
	// No broker is there, so the calendar speaks; its next change is two months away.
	day := time.Now().AddDate(0, 2, 0).Format("01-02")
	policy := &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name},
		Spec: v1alpha1.ScalingPolicySpec{
			Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{Value: "amqp://127.0.0.1:1"}, Queue: "q"}},
			Calendar: &v1alpha1.Calendar{
				Default:    v1alpha1.Limits{MinReplicas: ptr.To[int32](2)},
				Exceptions: []v1alpha1.Exception{{Name: "fair", From: day, To: day, Limits: &v1alpha1.Limits{MinReplicas: ptr.To[int32](1)}}},
			},
		},
	}
	if err := api.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	logs := t.TempDir()
	group := proc.NewGroup(logs)
	t.Cleanup(group.Stop)
	start := func(replica string) (*proc.Process, pb.ExternalScalerClient) {
		t.Helper()
		ports, err := proc.FreePorts(2)
		if err != nil {
			t.Fatal(err)
		}
		address, web := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
		process, err := group.Start(t.Context(), proc.Spec{
			Name: "scaler-" + replica, Path: filepath.Join(bin, "ebbtide-scaler"),
			Args:  []string{"--kubeconfig=" + c.Kubeconfig("admin"), "--namespace=default", "--listen=" + address, "--metrics-listen=" + web},
			Ready: proc.HTTPReady("http://"+web+"/readyz", nil),
		})
		if err != nil {
			t.Fatal(err)
		}
		connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { connection.Close() })
		return process, pb.NewExternalScalerClient(connection)
	}
	until := func(what string, f func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within a minute: %s", what)
			}
		}
	}
	get := func(object client.Object, name types.NamespacedName) {
		t.Helper()
		if err := api.Get(t.Context(), name, object); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
	leader := func() string {
		var lease coordinationv1.Lease
		get(&lease, types.NamespacedName{Namespace: "default", Name: "ebbtide-scaler"})
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	ask := func(scaler pb.ExternalScalerClient, want int64) {
		t.Helper()
		until(fmt.Sprintf("the target %d", want), func() bool {
			answer, err := scaler.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: &pb.ScaledObjectRef{
				Namespace: name.Namespace, Name: "job", ScalerMetadata: map[string]string{"policy": name.Name},
			}})
			if err != nil {
				t.Fatal(err)
			}
			return answer.MetricValues[0].MetricValue == want
		})
	}
	written := func(want int32) {
		t.Helper()
		until(fmt.Sprintf("the target %d in the status", want), func() bool {
			get(policy, name)
			return policy.Status.LastDecision != nil && policy.Status.LastDecision.Target == want
		})
	}

	first, firstClient := start("first")
	until("a leader", func() bool { return leader() != "" })
	leading := leader()
	_, secondClient := start("second")
	ask(firstClient, 2)
	ask(secondClient, 2)
	written(2)

	var table metav1.Table
	discovered, err := discovery.NewDiscoveryClientForConfig(c.Admin())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := discovered.RESTClient().Get().AbsPath("/apis/ebbtide.dev/v1alpha1/namespaces/default/scalingpolicies", name.Name).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &table); err != nil {
		t.Fatal(err)
	}
	var shown []string
	for i, column := range table.ColumnDefinitions {
		shown = append(shown, fmt.Sprintf("%s: %v", column.Name, table.Rows[0].Cells[i]))
	}
	change := policy.Status.NextChange.Time.UTC().Format(time.RFC3339)
	for _, want := range []string{"Ready: False", "Period: default", "Waiting: 0", "In flight: 0", "Target: 2", "Constraint: outage", "Next change: " + change} {
		if !slices.Contains(shown, want) {
			t.Errorf("kubectl get shows %q, want %q among it", shown, want)
		}
	}

	// An edit that is not valid, and one that is; then the leader stops: the other one writes what it decides from then on.
	policy.Spec.Calendar.TimeZone = "Prague"
	if err := api.Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	until("a condition that says so", func() bool {
		get(policy, name)
		return meta.IsStatusConditionFalse(policy.Status.Conditions, v1alpha1.ConditionAccepted)
	})
	ask(firstClient, 2)
	ask(secondClient, 2)
	time.Sleep(status.FiguresEvery) // one that wrote in vain would have told it by now, too
	policy.Spec.Calendar.TimeZone = "Europe/Prague"
	policy.Spec.Calendar.Default.MinReplicas = ptr.To[int32](3)
	if err := api.Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	if err := first.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if <-first.Done(); first.ExitCode() != 0 {
		t.Errorf("the scaler ends with %d", first.ExitCode())
	}
	ask(secondClient, 3)
	written(3)
	if now := leader(); now == leading || now == "" {
		t.Errorf("the leader is %q, and was %q", now, leading)
	}
	// Both took the same decisions and saw the same edits. Each is told once.
	var events corev1.EventList
	if err := api.List(t.Context(), &events, client.InNamespace("default")); err != nil {
		t.Fatal(err)
	}
	told := map[string]int32{}
	for _, event := range events.Items {
		if event.InvolvedObject.Name == name.Name {
			told[event.Reason] += event.Count
		}
	}
	if diff := cmp.Diff(map[string]int32{"BacklogOutage": 1, "Invalid": 1}, told); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
