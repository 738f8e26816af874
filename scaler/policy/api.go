package policy

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// Follow keeps a store in step with the API server's ScalingPolicies, by the informers of a cache, until ctx ends.
// Reader is not cached: Secrets are read one by one, only where a policy refers to them.
func Follow(ctx context.Context, informers cache.Cache, reader client.Reader, store *Store, synced func()) error {
	informer, err := informers.GetInformer(ctx, &v1alpha1.ScalingPolicy{})
	if err != nil {
		return fmt.Errorf("watch ScalingPolicies (is the CRD installed?): %w", err)
	}
	resolver := secrets{reader}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { store.Set(object.(*v1alpha1.ScalingPolicy), resolver) },
		UpdateFunc: func(before, after any) {
			// A new status is no new policy.
			if after := after.(*v1alpha1.ScalingPolicy); before.(*v1alpha1.ScalingPolicy).Generation != after.Generation {
				store.Set(after, resolver)
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
		return context.Cause(ctx)
	}
	synced()
	<-ctx.Done()
	return nil
}

// secrets resolves values of policies that come from the API server.
type secrets struct{ reader client.Reader }

func (s secrets) Resolve(ctx context.Context, namespace string, value v1alpha1.ValueSource) (string, error) {
	ref := value.SecretKeyRef
	switch {
	case value.Env != "":
		return "", errors.New("env is for policies read from files: use secretKeyRef")
	case ref == nil:
		return value.Value, nil
	}
	var secret corev1.Secret
	if err := s.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, &secret); err != nil {
		return "", fmt.Errorf("secretKeyRef: %w", err)
	}
	text, ok := secret.Data[ref.Key]
	if !ok {
		return "", fmt.Errorf("secretKeyRef: Secret %s/%s has no key %q", namespace, ref.Name, ref.Key)
	}
	return string(text), nil
}
