package scans

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Pod is a pod without a message: when it is created, how long it runs, and what it says of that.
type Pod struct {
	After, Runs time.Duration
	// Stated is what it says of its run time; 0 for nothing.
	Stated   time.Duration
	MilliCPU int64
	// Class of run times; empty: scan.
	Class string
}

// PodWaves are pods that come in three waves over four minutes. Most pods run for seconds and some for minutes; what they say of it is
// off by a lognormal factor of sigma 0.3.
func PodWaves(pods int) []Pod {
	random := rand.New(rand.NewPCG(20260302, 5))
	const length, wave = 4 * time.Minute, 80 * time.Second
	load := make([]Pod, pods)
	for i := range load {
		p := &load[i]
		for { // more likely at the height of a wave
			p.After = time.Duration(random.Float64() * float64(length))
			phase := 2 * math.Pi * float64(p.After%wave) / float64(wave)
			if random.Float64() < (1-math.Cos(phase))/2 {
				break
			}
		}
		seconds := min(240, max(3, 15*math.Exp(1.2*random.NormFloat64())))
		p.Runs = time.Duration(seconds * float64(time.Second)).Round(time.Second)
		p.Stated = max(time.Second, time.Duration(seconds*math.Exp(0.3*random.NormFloat64())*float64(time.Second)).Round(time.Second))
		p.MilliCPU = []int64{500, 500, 1000, 2000}[random.IntN(4)]
	}
	slices.SortFunc(load, func(a, b Pod) int { return int(a.After - b.After) })
	return load
}

// PlayPods creates pods at their moments, for a scheduler and the nodes of the NodePool that has the namespace's name.
func PlayPods(ctx context.Context, clientset kubernetes.Interface, namespace, scheduler string, load []Pod) error {
	begin := time.Now()
	for i, p := range load {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Until(begin.Add(p.After))):
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("scan-%04d", i), Namespace: namespace, Labels: map[string]string{"ebbtide.dev/duration-class": cmp.Or(p.Class, "scan")},
				Annotations: map[string]string{"e2e.ebbtide.dev/run-for": p.Runs.String()},
			},
			Spec: corev1.PodSpec{
				SchedulerName: scheduler, RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: new(bool),
				NodeSelector: map[string]string{NodePoolLabel: namespace},
				Tolerations:  []corev1.Toleration{{Key: "ebbtide.dev/scan", Operator: corev1.TolerationOpExists}},
				Containers: []corev1.Container{{Name: "scan", Image: "scan", Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{
						corev1.ResourceCPU: *resource.NewMilliQuantity(p.MilliCPU, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("512Mi"),
					},
				}}},
			},
		}
		if p.Stated > 0 {
			pod.Annotations["ebbtide.dev/expected-duration"] = p.Stated.String()
		}
		if _, err := clientset.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}
