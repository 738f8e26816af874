package compat

import (
	"context"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// Parts of the step draining. The message lasts until all but its worker have left.
const (
	drainingPool   = "draining"
	drainingQueue  = "draining"
	messageSeconds = 60
	idleTimeout    = 8 * time.Second
)

// draining runs the three rules on two nodes. Who has no message leaves after idleTimeout, unless the scheduler says that the node works; so that
// all stay shows that it hears them.
func (s *stage) draining(ctx context.Context) error {
	connection, err := amqp.Dial(s.c.Broker.AMQPURL("/"))
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if _, err := channel.QueueDeclare(drainingQueue, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}); err != nil {
		return err
	}
	settled, err := scans.Collect(connection)
	if err != nil {
		return err
	}
	sender, err := scans.NewPublisher(connection)
	if err != nil {
		return err
	}
	if err := sender.PublishTo(ctx, drainingQueue, scans.Scan{ID: "compat-draining", Seconds: messageSeconds}); err != nil {
		return err
	}
	settled.Published()

	const workers, apart = 4, "taints: [{key: compat, value: draining, effect: NoSchedule}]"
	var objects strings.Builder
	objects.WriteString(node("draining-0", drainingPool, workers, "", apart))
	for i := range workers {
		objects.WriteString(s.drainingWorker(i))
	}
	if err := s.c.ApplyYAML(ctx, []byte(objects.String())); err != nil {
		return err
	}
	phases := func() (on map[corev1.PodPhase]int, err error) {
		list, err := s.client.CoreV1().Pods(scans.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "compat=worker"})
		if err != nil {
			return nil, err
		}
		on = map[corev1.PodPhase]int{}
		for i := range list.Items {
			on[list.Items[i].Status.Phase]++
		}
		return on, nil
	}
	have := func(phase corev1.PodPhase, n int) func() (string, bool, error) {
		return func() (string, bool, error) {
			on, err := phases()
			return fmt.Sprintf("workers are %v, want %d %s", on, n, phase), on[phase] == n, err
		}
	}
	if err := eventually(ctx, time.Minute, have(corev1.PodRunning, workers)); err != nil {
		return err
	}

	// Stay.
	for end := time.Now().Add(2 * idleTimeout); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if seen, ok, err := have(corev1.PodRunning, workers)(); !ok {
			return fmt.Errorf("workers left although their node works: %s: %w", seen, err)
		}
	}

	// Give way.
	if err := s.c.ApplyYAML(ctx, []byte(drainingPod("large", "2", "draining-0"))); err != nil {
		return err
	}
	if _, err := s.placed(ctx, scans.Namespace, "compat=large", 1, 20*time.Second); err != nil {
		return err
	}
	if settled.Open() != 1 {
		return fmt.Errorf("the pod that needs room was placed after the message's end: it shows nothing")
	}
	if err := eventually(ctx, 20*time.Second, have(corev1.PodSucceeded, 2)); err != nil {
		return err
	}
	if err := eventually(ctx, 20*time.Second, func() (string, bool, error) {
		events, err := s.client.EventsV1().Events(scans.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=GivenWay"})
		if err != nil {
			return "", false, err
		}
		return fmt.Sprintf("%d events GivenWay", len(events.Items)), len(events.Items) > 0, nil
	}); err != nil {
		return err
	}
	now := int64(0)
	if err := s.client.CoreV1().Pods(scans.Namespace).Delete(ctx, "large", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		return err
	}

	// Drain: the other node takes its pods.
	if err := s.c.ApplyYAML(ctx, []byte(node("draining-1", drainingPool, 4*workers, `, ebbtide.dev/do-not-drain: "true"`, apart)+
		drainingPod("anchor", "500m", "draining-1"))); err != nil {
		return err
	}
	if err := eventually(ctx, time.Minute, func() (string, bool, error) {
		node, err := s.client.CoreV1().Nodes().Get(ctx, "draining-0", metav1.GetOptions{})
		if err != nil {
			return "", false, err
		}
		for _, taint := range node.Spec.Taints {
			if taint.Key == "ebbtide.dev/draining" {
				return "", true, nil
			}
		}
		return fmt.Sprintf("taints are %v", node.Spec.Taints), false, nil
	}); err != nil {
		return err
	}
	if err := eventually(ctx, 2*time.Minute, have(corev1.PodSucceeded, workers)); err != nil {
		return err
	}
	if err := eventually(ctx, 20*time.Second, func() (string, bool, error) {
		return "the message has no result", settled.Open() == 0, nil
	}); err != nil {
		return err
	}
	if ends := settled.Ends()["compat-draining"]; len(ends) != 1 || ends[0].Dead {
		return fmt.Errorf("the message's ends are %+v, want one result", ends)
	}
	return nil
}

// drainingWorker is a pod that takes one message after the other. Four fill a node.
func (s *stage) drainingWorker(i int) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: draining-worker-%d, namespace: %s, labels: {compat: worker}}
spec:
  schedulerName: ebbtide
  restartPolicy: Never
  nodeSelector: {pool: %s}
  tolerations: [{key: compat, operator: Exists}]
  automountServiceAccountToken: false
  containers:
  - name: worker
    image: ebbtide-worker
    command: [ebbtide-worker]
    args: [--queue, %s, --result-exchange, %s, --dead-letter-exchange, %s, --max-messages, "0", --idle-timeout, %s, --scheduler, "%s", --, e2e-scan]
    env:
    - {name: AMQP_URI, valueFrom: {secretKeyRef: {name: scan-mq, key: uri}}}
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: EBBTIDE_POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
    resources: {requests: {cpu: "1", memory: 100Mi}}
`, i, scans.Namespace, drainingPool, drainingQueue, scans.ExchangeResults, scans.ExchangeDead, idleTimeout, s.c.SchedulerWorkers())
}

// drainingPod is a pod that is no worker, for one of the step's nodes.
func drainingPod(name, cpu, node string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: {compat: %[1]s}, annotations: {e2e.ebbtide.dev/run-for: 1h}}
spec:
  schedulerName: ebbtide
  restartPolicy: Never
  nodeSelector: {kubernetes.io/hostname: %[4]s}
  tolerations: [{key: compat, operator: Exists}]
  automountServiceAccountToken: false
  containers: [{name: main, image: main, resources: {requests: {cpu: %[3]s, memory: 100Mi}}}]
`, name, scans.Namespace, cpu, node)
}
