package drainpack

import (
	"context"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
)

// watch keeps the fleet up to nodes and pods, and learns from pods that finished: at start from all that are still there, in the order in
// which they ended, so that what was learned survives a restart and a change of leader as far back as finished Jobs are kept, with nothing
// to store. Until the first list is in, nothing is known of run times.
func (d *DrainPack) watch(ctx context.Context) error {
	shared := d.handle.SharedInformerFactory().Core().V1()
	if _, err := shared.Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { d.setNode(object.(*v1.Node)) },
		UpdateFunc: func(_, object any) { d.setNode(object.(*v1.Node)) },
		DeleteFunc: func(object any) {
			if node, ok := last(object).(*v1.Node); ok {
				if empty := d.fleet.RemoveNode(node.Name); !empty.IsZero() {
					emptySeconds.Observe(d.now().Sub(empty).Seconds())
				}
			}
		},
	}); err != nil {
		return err
	}
	// The scheduler's own informer holds pods that have not finished; one that finishes is deleted from it.
	if _, err := shared.Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { d.setPod(object.(*v1.Pod)) },
		UpdateFunc: func(_, object any) { d.setPod(object.(*v1.Pod)) },
		DeleteFunc: func(object any) {
			if pod, ok := last(object).(*v1.Pod); ok {
				d.forget(pod)
			}
		},
	}); err != nil {
		return err
	}
	finished := informers.NewSharedInformerFactoryWithOptions(d.handle.ClientSet(), 0,
		informers.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.FieldSelector = "status.phase!=Pending,status.phase!=Running,status.phase!=Unknown"
		}),
		informers.WithTransform(trim))
	h := &pastPods{}
	registration, err := finished.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			pod := object.(*v1.Pod)
			d.groups.end(pod)
			ended, ok := d.ended(pod)
			if !ok || initial && h.add(ended) {
				return
			}
			d.learn(ended)
		},
		DeleteFunc: func(object any) {
			if pod, ok := last(object).(*v1.Pod); ok {
				d.groups.forgetEnded(pod)
			}
		},
	})
	if err != nil {
		return err
	}
	finished.Start(ctx.Done())
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			d.fleet.Restored(h.close(), d.now())
			d.reportLearned()
		}
	}()
	return nil
}

// pastPods gathers the pods that had ended before the scheduler started, which a list returns in the order of their names.
type pastPods struct {
	mu     sync.Mutex
	pods   []fleet.Ended
	closed bool
}

// add reports whether it was in time.
func (p *pastPods) add(e fleet.Ended) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.pods = append(p.pods, e)
	}
	return !p.closed
}

func (p *pastPods) close() []fleet.Ended {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.pods
}

func (d *DrainPack) setNode(node *v1.Node) {
	d.groups.changed()
	d.fleet.SetNode(fleet.Node{
		Name: node.Name, Created: node.CreationTimestamp.Time, Allocatable: allocatableOf(node.Status.Allocatable),
		Price: d.price(node), Leaving: leaving(node), Draining: drainingSince(node, d.now()),
	})
}

func (d *DrainPack) setPod(pod *v1.Pod) {
	switch {
	case hasEnded(pod):
		d.forget(pod)
	case pod.Spec.NodeName != "":
		d.groups.settle(pod)
		d.reserved.remove(pod.UID)
		d.fleet.AddPod(d.describePod(pod, requests(pod)), pod.Spec.NodeName, startedAt(pod))
	default:
		d.groups.came(pod)
	}
}

func (d *DrainPack) forget(pod *v1.Pod) {
	d.groups.settle(pod)
	d.groups.changed()
	if group, ok := d.gang(nil, pod); ok && group.planned[pod.UID] != "" {
		d.disband(pod, group) // the others would wait for it
	}
	d.reserved.remove(pod.UID)
	d.fleet.RemovePod(string(pod.UID))
	d.offered.forget(pod.UID)
}

// ended is the run that a finished pod tells of; false when it does not say how long it ran.
func (d *DrainPack) ended(pod *v1.Pod) (fleet.Ended, bool) {
	at, known := finishedAt(pod)
	if !known || pod.Status.StartTime == nil {
		return fleet.Ended{}, false
	}
	return fleet.Ended{
		Pod: d.describePod(pod, requests(pod)), Ran: at.Sub(pod.Status.StartTime.Time), At: at, Well: pod.Status.Phase == v1.PodSucceeded,
	}, true
}

func (d *DrainPack) learn(e fleet.Ended) {
	if expected := d.fleet.Finished(e); expected > 0 && e.Well {
		runTimeRatio.Observe(max(0, e.Ran.Seconds()) / expected.Seconds())
	}
	d.reportLearned()
}

func (d *DrainPack) reportLearned() {
	count, correlation := d.fleet.Learned()
	classes.Set(float64(count))
	runTimeCorrelation.Set(correlation)
}

// trim leaves of a finished pod what learn needs: there may be very many.
func trim(object any) (any, error) {
	pod, ok := object.(*v1.Pod)
	if !ok {
		return object, nil
	}
	slim := &v1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion, Labels: pod.Labels,
		OwnerReferences: pod.OwnerReferences,
	}}
	if stated, ok := pod.Annotations[durationAnnotation]; ok {
		slim.Annotations = map[string]string{durationAnnotation: stated}
	}
	slim.Spec.RestartPolicy, slim.Spec.ActiveDeadlineSeconds = pod.Spec.RestartPolicy, pod.Spec.ActiveDeadlineSeconds
	slim.Status.Phase, slim.Status.StartTime = pod.Status.Phase, pod.Status.StartTime
	for i := range pod.Status.ContainerStatuses {
		if ended := pod.Status.ContainerStatuses[i].State.Terminated; ended != nil {
			slim.Status.ContainerStatuses = append(slim.Status.ContainerStatuses, v1.ContainerStatus{
				State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{FinishedAt: ended.FinishedAt}},
			})
		}
	}
	return slim, nil
}

// last is the object of a delete event, which may have been missed.
func last(object any) any {
	if missed, ok := object.(cache.DeletedFinalStateUnknown); ok {
		return missed.Obj
	}
	return object
}
