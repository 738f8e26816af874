package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/images"
)

// podScaler is a scaler in a pod, with the restrictions and the probes of manifests/scaler, one policy from a file and a broker that
// can't be reached.
const podScaler = `apiVersion: v1
kind: Namespace
metadata: {name: ebbtide-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: policies, namespace: ebbtide-system}
data:
  scans.yaml: |
    apiVersion: ebbtide.dev/v1alpha1
    kind: ScalingPolicy
    metadata: {name: scans, namespace: scan}
    spec:
      backlog: {rabbitmq: {uri: {env: URI}, queue: scans}}
      target: {maxReplicas: 9}
      calendar: {default: {minReplicas: 4}}
---
apiVersion: v1
kind: Pod
metadata: {name: ebbtide-scaler, namespace: ebbtide-system, labels: {app.kubernetes.io/name: ebbtide-scaler}}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  nodeSelector: {kubernetes.io/hostname: NODE}
  tolerations: [{operator: Exists}]
  containers:
  - name: scaler
    image: ebbtide.dev/ebbtide-scaler:e2e
    imagePullPolicy: Never
    args: [--policy-dir=/policies]
    env: [{name: URI, value: "amqp://127.0.0.1:1/"}]
    readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
    volumeMounts: [{name: policies, mountPath: /policies}]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
  volumes: [{name: policies, configMap: {name: policies}}]
`

// decisionsOfPod runs a scaler from its image in a pod of a node, asks it as KEDA does, and returns what the command ebbtide says of its
// decisions through the port-forward that it makes.
func decisionsOfPod(ctx context.Context, c *cluster.Cluster, root string, node *cluster.Node) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not answered within two minutes"))
	defer cancel()
	tarball := filepath.Join(c.Dir, "scaler.tar")
	built, err := images.Build(ctx, root, images.Spec{Name: "ebbtide-scaler", Packages: []string{"./cmd/ebbtide-scaler"}, Arch: runtime.GOARCH})
	if err != nil {
		return "", err
	}
	if err := images.WriteTarball(tarball, "ebbtide.dev/ebbtide-scaler:e2e", built); err != nil {
		return "", err
	}
	if err := node.Import(ctx, tarball); err != nil {
		return "", err
	}
	if err := c.ApplyYAML(ctx, bytes.ReplaceAll([]byte(podScaler), []byte("NODE"), []byte(node.Name))); err != nil {
		return "", err
	}
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return "", err
	}
	address, err := readyPod(ctx, client, "ebbtide-system", "ebbtide-scaler")
	if err != nil {
		return "", err
	}
	connection, err := grpc.NewClient(address+":9090", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	asked := &pb.GetMetricsRequest{ScaledObjectRef: &pb.ScaledObjectRef{Name: "scans", Namespace: "scan", ScalerMetadata: map[string]string{"policy": "scans"}}}
	// The broker can't be reached: an answer by the calendar alone and an error are both right.
	_, asking := pb.NewExternalScalerClient(connection).GetMetrics(ctx, asked, grpc.WaitForReady(true))
	out, err := exec.CommandContext(ctx, c.Bin("ebbtide"), "decisions", "scans", "-n", "scan", "--kubeconfig", c.Kubeconfig("admin"), "-o", "json").CombinedOutput()
	if err != nil {
		return "", errors.Join(fmt.Errorf("ebbtide decisions: %w: %s", err, out), asking)
	}
	return string(out), nil
}

// readyPod waits for a pod and returns its address.
func readyPod(ctx context.Context, client kubernetes.Interface, namespace, name string) (string, error) {
	for {
		pod, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return pod.Status.PodIP, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("pod %s/%s is not ready: %+v: %w", namespace, name, pod.Status, context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
