package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// startupSteps are the names of steps, in their order, and what ends each.
var startupSteps = [...]string{
	"poll",      // KEDA has asked the scaler, and made a Job
	"job",       // the Job has a pod
	"schedule",  // the pod has a node
	"sandbox",   // the pod has its volumes, its network and its cgroup
	"image",     // what had to be pulled is there
	"install",   // the init container has put the worker beside the scanner
	"container", // the container of the scan has started
	"process",   // the worker runs
	"connect",   // it is a consumer
	"message",   // it has the message
	"source",    // the command runs, in its checkout
	"total",
}

// measure works out the steps of a message from what was observed of its job.
func (s *startup) measure(
	ctx context.Context, v startupVariant, id string, published time.Time, job string,
) (map[string]time.Duration, error) {
	pods, err := s.client.CoreV1().Pods(scans.Namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	if err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("job %s has %d pods, want one", job, len(pods.Items))
	}
	pod := pods.Items[0]
	text, err := s.client.CoreV1().Pods(scans.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: "scan", Timestamps: true}).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	log, err := parseStartupLog(text, id)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", pod.Name, err)
	}
	took := map[string]time.Duration{"source": log.begun.Sub(log.taken), "total": log.begun.Sub(published)}
	if v.warm {
		took["message"] = log.taken.Sub(published)
		return took, nil
	}
	seen := s.observed.StartOf(pod)
	tasks := s.tasksOf(pod)
	pulls, err := s.pullsOf(ctx, pod)
	if err != nil {
		return nil, err
	}
	from, missing := published, ""
	step := func(name string, until time.Time, less time.Duration) {
		if until.IsZero() {
			missing = name
		}
		took[name] = until.Sub(from) - less
		from = until
	}
	step("poll", seen.Job, 0)
	step("job", seen.Pod, 0)
	step("schedule", seen.Bound, 0)
	step("sandbox", tasks.sandbox, 0)
	took["image"] = pulls["worker"] + pulls["scan"]
	if !tasks.installed.IsZero() {
		step("install", tasks.installed, pulls["worker"])
	}
	step("container", tasks.scan, pulls["scan"])
	step("process", log.process, 0)
	step("connect", log.connected, 0)
	step("message", log.taken, 0)
	if missing != "" {
		return nil, fmt.Errorf("pod %s: nobody saw the end of step %s", pod.Name, missing)
	}
	return took, nil
}

// podTasks are the starts of a pod's sandbox and container, and the end of its init container.
type podTasks struct{ sandbox, installed, scan time.Time }

func (s *startup) tasksOf(pod corev1.Pod) podTasks {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := func(container string, ended bool) time.Time {
		for _, task := range s.tasks {
			if task.Container == container && task.Ended == ended {
				return task.At
			}
		}
		return time.Time{}
	}
	id := func(status []corev1.ContainerStatus) string {
		if len(status) == 0 {
			return ""
		}
		return strings.TrimPrefix(status[0].ContainerID, "containerd://")
	}
	install, scan := id(pod.Status.InitContainerStatuses), id(pod.Status.ContainerStatuses)
	t := podTasks{installed: at(install, true), scan: at(scan, false)}
	// The sandbox is what started last on the node before the pod's first container: nothing else starts there meanwhile.
	first := cmp.Or(at(install, false), t.scan)
	for _, task := range s.tasks {
		if task.Node == pod.Spec.NodeName && !task.Ended && task.At.Before(first) {
			t.sandbox = task.At
		}
	}
	return t
}

// pulled finds how long a pull took in the kubelet's event of it.
var pulled = regexp.MustCompile(`Successfully pulled image .* in (\S+) \(`)

// pullsOf are the times of pulls, by the container.
func (s *startup) pullsOf(ctx context.Context, pod corev1.Pod) (map[string]time.Duration, error) {
	events, err := s.client.CoreV1().Events(scans.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "reason=Pulled,involvedObject.uid=" + string(pod.UID),
	})
	if err != nil {
		return nil, err
	}
	pulls := map[string]time.Duration{}
	for _, event := range events.Items {
		if match := pulled.FindStringSubmatch(event.Message); match != nil {
			length, err := time.ParseDuration(match[1])
			if err != nil {
				return nil, fmt.Errorf("event %q: %w", event.Message, err)
			}
			_, container, _ := strings.Cut(strings.TrimSuffix(event.InvolvedObject.FieldPath, "}"), "{")
			pulls[container] += length
		}
	}
	return pulls, nil
}

// startupLog are the moments that the log of a worker's container tells.
type startupLog struct{ process, connected, taken, begun time.Time }

// parseStartupLog reads a container's log with timestamps, for one message.
func parseStartupLog(text []byte, id string) (startupLog, error) {
	var l startupLog
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		_, line, _ := strings.Cut(lines.Text(), " ") // after the time at which the container's runtime read it
		var entry struct {
			Time    time.Time
			Msg     string
			Message string
			Line    string // that the command wrote
			Seconds float64
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue // it is not of the worker's log
		}
		switch {
		case entry.Msg == "connected":
			l.connected = entry.Time
			l.process = entry.Time.Add(-time.Duration(entry.Seconds * float64(time.Second)))
		case entry.Msg == "scan starts" && entry.Message == id:
			l.taken = entry.Time
		case entry.Msg == "scan says" && entry.Message == id && entry.Line == startupBegins && l.begun.IsZero():
			l.begun = entry.Time
		}
	}
	if l.connected.IsZero() || l.begun.IsZero() {
		return l, fmt.Errorf("it does not tell when the worker connected and when the scan of %s began:\n%s", id, text)
	}
	return l, nil
}
