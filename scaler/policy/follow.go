package policy

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// followers is how many policies are compiled at a time: one whose values are slow to come holds up no other.
const followers = 16

// Follow keeps a store in step with the API server's ScalingPolicies, by the informers of a cache, until ctx ends.
// Reader is not cached: it reads Secrets and ConfigMaps that policies refer to. Synced is called when all policies that were there at the
// start are in the store.
func Follow(ctx context.Context, informers cache.Cache, reader client.Reader, store *Store, synced func()) error {
	informer, err := informers.GetInformer(ctx, &v1alpha1.ScalingPolicy{})
	if err != nil {
		return fmt.Errorf("watch ScalingPolicies (is the CRD installed?): %w", err)
	}
	f := &follower{
		store: store, resolver: newObjects(reader, time.Now), newest: map[types.NamespacedName]*v1alpha1.ScalingPolicy{},
		inStore: map[types.NamespacedName]types.UID{}, pending: map[types.NamespacedName]bool{}, loaded: make(chan struct{}),
		queue: workqueue.NewTyped[types.NamespacedName](),
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			p := object.(*v1alpha1.ScalingPolicy)
			f.changed(client.ObjectKeyFromObject(p), p)
		},
		UpdateFunc: func(before, after any) {
			// A new status is no new policy. One that was deleted and created again begins at the first generation.
			old, p := before.(*v1alpha1.ScalingPolicy), after.(*v1alpha1.ScalingPolicy)
			if old.Generation != p.Generation || old.UID != p.UID {
				f.changed(client.ObjectKeyFromObject(p), p)
			}
		},
		DeleteFunc: func(object any) {
			if unknown, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			f.changed(client.ObjectKeyFromObject(object.(*v1alpha1.ScalingPolicy)), nil)
		},
	})
	if err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	for range followers {
		work.Go(func() error { f.work(ctx); return nil })
	}
	work.Go(func() error {
		defer f.queue.ShutDown()
		if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			return nil // ctx has ended
		}
		if f.wait(ctx); ctx.Err() == nil {
			synced()
		}
		<-ctx.Done()
		return nil
	})
	return work.Wait()
}

// follower brings policies into a store, several at a time, and the versions of each in their order.
type follower struct {
	store    *Store
	resolver Resolver
	queue    workqueue.TypedInterface[types.NamespacedName]

	mu      sync.Mutex
	newest  map[types.NamespacedName]*v1alpha1.ScalingPolicy // to be put in force; nil: deleted
	inStore map[types.NamespacedName]types.UID
	pending map[types.NamespacedName]bool // in newest, or taken out of it just now
	initial map[types.NamespacedName]bool // of pending, those that loaded waits for
	loaded  chan struct{}                 // closed when initial is empty
}

// changed takes note of a policy's newest version; nil: it was deleted.
func (f *follower) changed(name types.NamespacedName, p *v1alpha1.ScalingPolicy) {
	f.mu.Lock()
	f.newest[name], f.pending[name] = p, true
	f.store.Announce(name, p != nil)
	f.mu.Unlock()
	f.queue.Add(name)
}

// wait returns when everything that was told until now is in the store, or ctx ends.
func (f *follower) wait(ctx context.Context) {
	f.mu.Lock()
	f.initial = maps.Clone(f.pending)
	if len(f.initial) == 0 {
		close(f.loaded)
	}
	f.mu.Unlock()
	select {
	case <-f.loaded:
	case <-ctx.Done():
	}
}

// work brings policies into the store until the queue is shut down.
func (f *follower) work(ctx context.Context) {
	for {
		name, ended := f.queue.Get()
		if ended {
			return
		}
		f.mu.Lock()
		p, seen := f.newest[name]
		delete(f.newest, name)
		f.mu.Unlock()
		if seen {
			f.apply(ctx, name, p)
		}
		f.queue.Done(name)
		f.mu.Lock()
		if _, again := f.newest[name]; !again {
			delete(f.pending, name)
		}
		if f.initial[name] {
			if delete(f.initial, name); len(f.initial) == 0 {
				close(f.loaded)
			}
		}
		f.mu.Unlock()
	}
}

// apply brings one policy into the store. The queue hands a name to one worker at a time.
func (f *follower) apply(ctx context.Context, name types.NamespacedName, p *v1alpha1.ScalingPolicy) {
	f.mu.Lock()
	uid, known := f.inStore[name]
	if p == nil {
		delete(f.inStore, name)
	} else {
		f.inStore[name] = p.UID
	}
	f.mu.Unlock()
	if known && (p == nil || p.UID != uid) { // nothing is kept of another policy of that name
		f.store.Delete(name)
	}
	if p != nil {
		f.store.Set(ctx, p, f.resolver)
	}
}
