package drainpack

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
)

// podSet is a set of pods. It is safe for concurrent use; the zero value is empty.
type podSet struct {
	mu   sync.Mutex
	pods sets.Set[types.UID]
}

func (s *podSet) add(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods == nil {
		s.pods = sets.New[types.UID]()
	}
	s.pods.Insert(uid)
}

// remove reports whether the pod was there.
func (s *podSet) remove(uid types.UID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.pods.Has(uid)
	s.pods.Delete(uid)
	return had
}

func (s *podSet) has(uid types.UID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods.Has(uid)
}

// offeredPods are the pods that were offered candidates and have no node yet. A pod may be deleted while it is being placed: one of the last
// that were is not taken in again.
type offeredPods struct {
	podSet
	deleted [4096]types.UID
	next    int
}

func newOfferedPods() *offeredPods { return &offeredPods{podSet: podSet{pods: sets.New[types.UID]()}} }

func (o *offeredPods) add(uid types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, deleted := range o.deleted {
		if deleted == uid {
			return
		}
	}
	o.pods.Insert(uid)
}

// forget is for a pod that is gone for good.
func (o *offeredPods) forget(uid types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pods.Delete(uid)
	o.deleted[o.next] = uid
	o.next = (o.next + 1) % len(o.deleted)
}
