// Package podrunner is the kubelet's stand-in for nodes that KWOK keeps. KWOK reports a pod there as running but runs
// nothing; the runner starts the program that the pod's container names as a process, and finishes the pod with that
// process's exit code and termination message. So a worker on a simulated node really consumes and acks messages.
//
// It does what a kubelet does as far as a worker can tell: environment from values, Secrets and the pod's own fields,
// SIGTERM and then SIGKILL after the grace period when the pod is deleted. It knows one container a pod, runs only
// programs that it was given, and gives them no isolation.
package podrunner

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

const (
	// kwokNode is the annotation by which KWOK knows its nodes.
	kwokNode = "kwok.x-k8s.io/node"
	// runFor is the annotation of pods that KWOK ends by itself: no process stands for them.
	runFor = "e2e.ebbtide.dev/run-for"
)

// Runner runs pods. Make one with New.
type Runner struct {
	client   kubernetes.Interface
	programs map[string]string
	dir      string
	log      *slog.Logger
	fault    Fault
	group    *proc.Group
	nodes    corelisters.NodeLister

	mu      sync.Mutex
	running map[types.UID]*run
	wait    sync.WaitGroup
}

// run is one pod's process.
type run struct {
	process  *proc.Process
	once     sync.Once // ends it
	finished bool      // its end is reported
	outcome  corev1.ContainerStateTerminated
	lost     bool // with its node: nobody reports its end
}

// Fault says of a pod that starts whether its process is to be killed, without warning, and how long after its start. Nil
// spares all.
type Fault func() (after time.Duration, kill bool)

// New returns a runner that starts the given programs, by the name that a container's command gives (ebbtide-worker)
// and the path of the binary. Output and termination messages go to dir.
func New(client kubernetes.Interface, programs map[string]string, dir string, log *slog.Logger, fault Fault) *Runner {
	return &Runner{
		client: client, programs: programs, dir: dir, log: log, fault: fault,
		group: proc.NewGroup(dir), running: map[types.UID]*run{},
	}
}

// Run runs pods until ctx ends, then ends their processes and returns.
func (r *Runner) Run(ctx context.Context) error {
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(r.client, 0)
	r.nodes = factory.Core().V1().Nodes().Lister()
	nodesSynced := factory.Core().V1().Nodes().Informer().HasSynced
	pods := factory.Core().V1().Pods().Informer()
	registration, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { r.sync(ctx, object.(*corev1.Pod)) },
		UpdateFunc: func(_, object any) { r.sync(ctx, object.(*corev1.Pod)) },
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	cache.WaitForCacheSync(ctx.Done(), nodesSynced, registration.HasSynced)
	<-ctx.Done()
	factory.Shutdown()

	r.mu.Lock()
	for _, run := range r.running {
		run.end(0)
	}
	r.mu.Unlock()
	r.wait.Wait()
	return nil
}

// sync compares a pod with what runs for it.
func (r *Runner) sync(ctx context.Context, pod *corev1.Pod) {
	if !r.owns(pod) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.running[pod.UID]
	switch {
	case pod.DeletionTimestamp != nil && current != nil && !current.finished:
		current.end(gracePeriod(pod))
	case pod.DeletionTimestamp != nil:
		r.wait.Go(func() { r.remove(ctx, pod) })
	case current == nil && pod.Annotations[runFor] != "":
	case pod.Status.Phase == corev1.PodRunning && current == nil:
		current = &run{}
		r.running[pod.UID] = current
		r.wait.Add(1)
		go func() {
			defer r.wait.Done()
			r.run(ctx, pod, current)
			r.mu.Lock()
			current.finished = true
			r.mu.Unlock()
		}()
	case pod.Status.Phase == corev1.PodRunning && current.finished && !current.lost:
		// The API server has forgotten the pod's end: it was restored from a backup.
		r.wait.Go(func() { r.report(ctx, pod, current.outcome) })
	}
}

// LoseNodes kills everything that runs, as nodes do that lose their power: nobody reports how the pods ended.
func (r *Runner) LoseNodes() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, current := range r.running {
		if current.finished {
			continue
		}
		current.lost = true
		if current.process != nil {
			_ = syscall.Kill(-current.process.PID(), syscall.SIGKILL)
		}
	}
}

// owns reports whether the pod is on a node that KWOK keeps.
func (r *Runner) owns(pod *corev1.Pod) bool {
	if pod.Spec.NodeName == "" {
		return false
	}
	node, err := r.nodes.Get(pod.Spec.NodeName)
	return err == nil && node.Annotations[kwokNode] == "fake"
}

// run starts the pod's process, waits for its end and reports it.
func (r *Runner) run(ctx context.Context, pod *corev1.Pod, current *run) {
	outcome := r.execute(ctx, pod, current)
	r.mu.Lock()
	current.outcome = outcome
	lost := current.lost
	r.mu.Unlock()
	if ctx.Err() != nil || lost {
		return
	}
	r.report(ctx, pod, outcome)
	// A pod whose deletion was asked for meanwhile goes now.
	latest, err := r.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err == nil && latest.UID == pod.UID && latest.DeletionTimestamp != nil {
		r.remove(ctx, latest)
	}
}

func (r *Runner) execute(ctx context.Context, pod *corev1.Pod, current *run) corev1.ContainerStateTerminated {
	outcome := corev1.ContainerStateTerminated{StartedAt: metav1.Now(), ExitCode: 128, Reason: "StartError"}
	own := files{filepath.Join(r.dir, string(pod.UID)+".termination"), filepath.Join(r.dir, string(pod.UID)+".scratch")}
	var process *proc.Process
	spec, err := r.spec(ctx, pod, own)
	if err == nil {
		r.mu.Lock()
		process, err = r.group.Start(ctx, spec)
		current.process = process
		r.mu.Unlock()
	}
	if err != nil {
		outcome.FinishedAt, outcome.Message = metav1.Now(), err.Error()
		return outcome
	}
	defer os.RemoveAll(own.scratch)
	if r.fault != nil {
		if after, kill := r.fault(); kill {
			defer time.AfterFunc(after, func() { _ = syscall.Kill(-process.PID(), syscall.SIGKILL) }).Stop()
		}
	}
	<-process.Done()
	outcome.FinishedAt = metav1.Now()
	outcome.ExitCode, outcome.Reason = int32(process.ExitCode()), "Completed"
	if outcome.ExitCode != 0 {
		outcome.Reason = "Error"
	}
	if outcome.ExitCode < 0 {
		outcome.ExitCode = 128 + int32(syscall.SIGKILL)
	}
	outcome.Message = readTerminationLog(own.terminationLog)
	return outcome
}

// maxTerminationMessage is what a kubelet keeps of a termination message.
const maxTerminationMessage = 4096

func readTerminationLog(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return "" // a container need not write one
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxTerminationMessage))
	if err != nil {
		return ""
	}
	return string(text)
}

// files of a pod that stand for some of its container's own.
type files struct{ terminationLog, scratch string }

// scratchFlag names folders that a worker empties, which in a container are the container's own: /tmp and /dev/shm.
const scratchFlag = "--scratch="

// spec is the process that stands for a pod's container. Where it would use a file or folder of its container it uses one of the pod's own:
// the machine's are not its to write and to empty.
func (r *Runner) spec(ctx context.Context, pod *corev1.Pod, own files) (proc.Spec, error) {
	if len(pod.Spec.Containers) != 1 || len(pod.Spec.InitContainers) > 0 {
		return proc.Spec{}, fmt.Errorf("the pod runner knows pods of one container, %s has %d and %d init containers",
			pod.Name, len(pod.Spec.Containers), len(pod.Spec.InitContainers))
	}
	container := pod.Spec.Containers[0]
	command := append(append([]string(nil), container.Command...), container.Args...)
	if len(command) == 0 {
		return proc.Spec{}, fmt.Errorf("pod %s names no command, and there is no image to take one from", pod.Name)
	}
	for i, word := range command {
		switch {
		case r.programs[filepath.Base(word)] != "":
			command[i] = r.programs[filepath.Base(word)]
		case strings.HasPrefix(word, scratchFlag):
			if err := os.MkdirAll(own.scratch, 0o755); err != nil {
				return proc.Spec{}, err
			}
			command[i] = scratchFlag + own.scratch
		case word == strings.TrimSuffix(scratchFlag, "="):
			return proc.Spec{}, fmt.Errorf("pod %s: write %sFOLDERS as one word, so that the pod runner sees the folders", pod.Name, scratchFlag)
		case container.TerminationMessagePath != "" && (word == container.TerminationMessagePath || strings.HasSuffix(word, "="+container.TerminationMessagePath)):
			command[i] = strings.TrimSuffix(word, container.TerminationMessagePath) + own.terminationLog // a kubelet mounts a file there
		case i == 0:
			return proc.Spec{}, fmt.Errorf("pod %s wants to run %q, which the pod runner was not given", pod.Name, word)
		}
	}
	env, err := r.environment(ctx, pod, container)
	if err != nil {
		return proc.Spec{}, err
	}
	return proc.Spec{
		Name: pod.Namespace + "_" + pod.Name, Path: command[0], Args: command[1:], Env: env,
	}, nil
}

// end sends SIGTERM, and, without being waited for, SIGKILL to the whole group once grace is over. The runner's lock
// must be held.
func (run *run) end(grace time.Duration) {
	process := run.process
	if process == nil {
		return
	}
	run.once.Do(func() {
		_ = process.Signal(syscall.SIGTERM)
		go func() {
			select {
			case <-process.Done():
			case <-time.After(grace):
			}
			_ = syscall.Kill(-process.PID(), syscall.SIGKILL)
		}()
	})
}

func gracePeriod(pod *corev1.Pod) time.Duration {
	if pod.DeletionGracePeriodSeconds == nil {
		return 30 * time.Second
	}
	return time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
}

// report says how a pod ended until the API server has heard it, or no longer knows the pod.
func (r *Runner) report(ctx context.Context, pod *corev1.Pod, outcome corev1.ContainerStateTerminated) {
	for {
		err := r.finish(ctx, pod, outcome)
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || ctx.Err() != nil {
			return
		}
		r.log.Error("report the end of a pod", "pod", pod.Name, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// finish reports the end of the pod's container.
func (r *Runner) finish(ctx context.Context, pod *corev1.Pod, outcome corev1.ContainerStateTerminated) error {
	phase := corev1.PodSucceeded
	if outcome.ExitCode != 0 {
		phase = corev1.PodFailed
	}
	notReady := func(kind corev1.PodConditionType) map[string]any {
		return map[string]any{
			"type": kind, "status": corev1.ConditionFalse, "reason": "PodCompleted", "lastTransitionTime": outcome.FinishedAt,
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID}, // not a later pod of the same name
		"status": map[string]any{
			"phase":      phase,
			"conditions": []any{notReady(corev1.PodReady), notReady(corev1.ContainersReady)},
			"containerStatuses": []corev1.ContainerStatus{{
				Name: pod.Spec.Containers[0].Name, Image: pod.Spec.Containers[0].Image,
				State: corev1.ContainerState{Terminated: &outcome},
			}},
		},
	})
	if err != nil {
		return err
	}
	_, err = r.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{}, "status")
	return err
}

// remove deletes a pod that has nothing running any more.
func (r *Runner) remove(ctx context.Context, pod *corev1.Pod) {
	now := int64(0)
	err := r.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		r.log.Error("delete a pod", "pod", pod.Name, "error", err)
	}
}
