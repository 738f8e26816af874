package policy

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// Follow keeps a store in step with the API server's ScalingPolicies, by the informers of a cache, until ctx ends.
// Reader is not cached: it reads Secrets and ConfigMaps that policies refer to.
func Follow(ctx context.Context, informers cache.Cache, reader client.Reader, store *Store, synced func()) error {
	informer, err := informers.GetInformer(ctx, &v1alpha1.ScalingPolicy{})
	if err != nil {
		return fmt.Errorf("watch ScalingPolicies (is the CRD installed?): %w", err)
	}
	resolver := newObjects(reader)
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { store.Set(ctx, object.(*v1alpha1.ScalingPolicy), resolver) },
		UpdateFunc: func(was, is any) {
			// A new status is no new policy. One that was deleted and created anew while the watch was broken has another UID.
			before, after := was.(*v1alpha1.ScalingPolicy), is.(*v1alpha1.ScalingPolicy)
			if before.UID != after.UID {
				store.Delete(types.NamespacedName{Namespace: before.Namespace, Name: before.Name})
			}
			if before.UID != after.UID || before.Generation != after.Generation {
				store.Set(ctx, after, resolver)
			}
		},
		DeleteFunc: func(object any) {
			if unknown, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			policy := object.(*v1alpha1.ScalingPolicy)
			store.Delete(types.NamespacedName{Namespace: policy.Namespace, Name: policy.Name})
		},
	})
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil // ctx has ended
	}
	synced()
	<-ctx.Done()
	return nil
}
