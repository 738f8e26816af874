package scenario

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// On two nodes of eight CPUs: a group that needs more than both blocks nobody, one whose pods are not all there makes nobody look for nodes, and one
// that fits starts, on one node. When the large group's room comes it starts too.
func TestPodGroups(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c, root := startCluster(ctx, t, scans.Programs)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/scheduler-plugins")
	list.Dir = root
	module, err := list.Output()
	must(err)
	must(c.Apply(ctx, filepath.Join(strings.TrimSpace(string(module)), "manifests", "coscheduling", "crd.yaml")))
	// A scheduler that runs looks for the CRD every 30 s.
	must(c.Crash(cluster.Scheduler))
	must(c.Restart(ctx, cluster.Scheduler))
	client, err := kubernetes.NewForConfig(c.Admin())
	must(err)

	const namespace = "groups"
	node := func(name string) string {
		return fmt.Sprintf(`---
apiVersion: v1
kind: Node
metadata:
  name: %[1]s
  annotations: {kwok.x-k8s.io/node: fake, node.alpha.kubernetes.io/ttl: "0"}
  labels: {groups: "true", kubernetes.io/hostname: %[1]s, kubernetes.io/os: linux, kubernetes.io/arch: amd64}
status:
  allocatable: {cpu: "8", memory: 32Gi, pods: "110"}
  capacity: {cpu: "8", memory: 32Gi, pods: "110"}
`, name)
	}
	group := func(name string, minMember, pods int) string {
		var text strings.Builder
		fmt.Fprintf(&text, "---\napiVersion: scheduling.x-k8s.io/v1alpha1\nkind: PodGroup\nmetadata: {name: %s, namespace: %s}\nspec: {minMember: %d}\n",
			name, namespace, minMember)
		for i := range pods {
			fmt.Fprintf(&text, `---
apiVersion: v1
kind: Pod
metadata:
  name: %[1]s-%[2]d
  namespace: %[3]s
  labels: {scheduling.x-k8s.io/pod-group: %[1]s}
spec:
  schedulerName: ebbtide
  nodeSelector: {groups: "true"}
  containers: [{name: engine, image: engine, resources: {requests: {cpu: "2", memory: 1Gi}}}]
`, name, i, namespace)
		}
		return text.String()
	}
	// pods by name, those of a group.
	podsOf := func(name string) []corev1.Pod {
		list, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "scheduling.x-k8s.io/pod-group=" + name})
		must(err)
		return list.Items
	}
	bound := func(name string) (nodes []string) {
		for _, pod := range podsOf(name) {
			if pod.Spec.NodeName != "" {
				nodes = append(nodes, pod.Spec.NodeName)
			}
		}
		slices.Sort(nodes)
		return nodes
	}
	// condition is the message of the condition that says why a pod has no node.
	condition := func(pod corev1.Pod) string {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				return c.Message
			}
		}
		return ""
	}
	eventually := func(what string, is func() bool) {
		t.Helper()
		for !is() {
			if ctx.Err() != nil {
				t.Fatal("not in time: ", what)
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	must(c.ApplyYAML(ctx, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: "+namespace+"}\n"+node("group-node-0")+node("group-node-1"))))
	must(c.ApplyYAML(ctx, []byte(group("large", 9, 9)))) // eight have room
	eventually("all of the large group have a reason", func() bool {
		pods := podsOf("large")
		return len(pods) == 9 && !slices.ContainsFunc(pods, func(p corev1.Pod) bool {
			return !strings.Contains(condition(p), "pod group groups/large: 8 of 9 pods have room")
		})
	})
	must(c.ApplyYAML(ctx, []byte(group("half", 3, 2))))
	must(c.ApplyYAML(ctx, []byte(group("fits", 4, 4))))
	eventually("the group that fits has nodes", func() bool { return len(bound("fits")) == 4 })
	if nodes := bound("fits"); len(slices.Compact(nodes)) != 1 {
		t.Errorf("the group that fits is on %v, want one node", nodes)
	}
	if nodes := append(bound("large"), bound("half")...); len(nodes) > 0 {
		t.Errorf("pods of groups that can't start are on %v", nodes)
	}
	for _, pod := range podsOf("half") {
		if why := condition(pod); why != "" {
			t.Errorf("%s, whose group is not complete, says: %s", pod.Name, why)
		}
	}
	must(c.ApplyYAML(ctx, []byte(node("group-node-2")+node("group-node-3"))))
	eventually("the large group has nodes", func() bool { return len(bound("large")) == 9 })
}
