package status

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// SetUp makes a controller of the manager's, which runs while this replica leads.
func (r *Reconciler) SetUp(m manager.Manager) error {
	c, err := controller.New("status", m, controller.Options{
		Reconciler: r, NeedLeaderElection: ptr.To(true), MaxConcurrentReconciles: 4,
		SkipNameValidation: ptr.To(true), // several scalers run in one process in tests
	})
	if err != nil {
		return err
	}
	// Its own writes change no generation.
	if err := c.Watch(source.Kind(m.GetCache(), &v1alpha1.ScalingPolicy{}, &handler.TypedEnqueueRequestForObject[*v1alpha1.ScalingPolicy]{},
		predicate.TypedGenerationChangedPredicate[*v1alpha1.ScalingPolicy]{})); err != nil {
		return err
	}
	return c.Watch(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		r.queue.Store(&queue)
		return nil
	}))
}

// Changed says that there is something to write of a policy: at once where it is material, else when its figures are due. While this replica does
// not lead nothing happens.
func (r *Reconciler) Changed(name types.NamespacedName, material bool) {
	queue := r.queue.Load()
	if queue == nil {
		return
	}
	request := reconcile.Request{NamespacedName: name}
	if material {
		(*queue).Add(request)
	} else {
		(*queue).AddAfter(request, FiguresEvery)
	}
}
