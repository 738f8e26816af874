package policy

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// Store holds policies by name. It is safe for concurrent use.
type Store struct {
	opener   Opener
	observer Observer
	log      *slog.Logger
	parsed   parsedFiles

	// set is held while a policy is put in force, so that calls to the observer for one come one after the other. Nothing is read or
	// compiled under it: what that takes is up to the policy's author.
	set sync.Mutex

	mu      sync.RWMutex
	entries map[types.NamespacedName]entry
	groups  map[types.NamespacedName]map[types.NamespacedName]*Policy // by namespace and name of a group
}

// Observer is told what becomes of policies. Calls for one policy come one after the other.
type Observer interface {
	// Validated tells whether a policy's newest version is valid.
	Validated(name types.NamespacedName, err error)
	// Forget is called for a policy that is deleted.
	Forget(name types.NamespacedName)
}

// entry is a policy's last good version, if any, what is wrong with its newest, and where that came from.
type entry struct {
	policy   *Policy
	err      error
	newest   *v1alpha1.ScalingPolicy
	resolver Resolver
	holidays *holidayFile // of the newest version; nil: it has none
}

// NewStore returns an empty store.
func NewStore(opener Opener, observer Observer, log *slog.Logger) *Store {
	return &Store{
		opener: opener, observer: observer, log: log, entries: map[types.NamespacedName]entry{},
		groups: map[types.NamespacedName]map[types.NamespacedName]*Policy{},
	}
}

// Get returns a policy's last good version, nil if there is none, and what is wrong with its newest version. Known is
// false for a policy that does not exist.
func (s *Store) Get(name types.NamespacedName) (policy *Policy, err error, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, known := s.entries[name]
	return e.policy, e.err, known
}

// Newest returns the newest version of a policy, valid or not, that was looked at; nil when there is none. It must not be changed.
func (s *Store) Newest(name types.NamespacedName) *v1alpha1.ScalingPolicy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[name].newest
}

// Group returns the policies that share a cap with p, p included.
func (s *Store) Group(p *Policy) []*Policy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.groups[p.groupKey()]))
}

// groupKey is the group of a policy; those of different namespaces never share one.
func (p *Policy) groupKey() types.NamespacedName {
	return types.NamespacedName{Namespace: p.Name.Namespace, Name: p.Group.Name}
}

// Set puts a policy in force, or keeps the last good version when it does not compile.
func (s *Store) Set(ctx context.Context, p *v1alpha1.ScalingPolicy, resolver Resolver) {
	ready := s.prepare(ctx, p, resolver)
	s.set.Lock()
	defer s.set.Unlock()
	s.put(p, resolver, ready)
}

// put is Set with the lock held.
func (s *Store) put(p *v1alpha1.ScalingPolicy, resolver Resolver, ready prepared) {
	name := types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
	old, _, _ := s.Get(name)
	compiled, err := ready.policy, ready.err
	inForce := compiled
	if err != nil {
		inForce = old
	} else {
		s.open(compiled, old, resolver)
	}
	s.mu.Lock()
	s.entries[name] = entry{policy: inForce, err: err, newest: p, resolver: resolver, holidays: ready.holidays}
	s.regroup(old, inForce)
	s.mu.Unlock()
	s.observer.Validated(name, err)
	if err != nil {
		s.log.Error("policy is not valid", "policy", name.String(), "error", err, "lastGoodInForce", old != nil)
		return
	}
	s.log.Info("policy in force", "policy", name.String(), "generation", p.Generation)
	if old != nil && old.Source != compiled.Source {
		s.close(old)
	}
}

// regroup moves a policy from its old version's group to its new one's. Either may be nil.
func (s *Store) regroup(old, current *Policy) {
	if old != nil && old.Group != nil {
		key := old.groupKey()
		if delete(s.groups[key], old.Name); len(s.groups[key]) == 0 {
			delete(s.groups, key)
		}
	}
	if current != nil && current.Group != nil {
		key := current.groupKey()
		if s.groups[key] == nil {
			s.groups[key] = map[types.NamespacedName]*Policy{}
		}
		s.groups[key][current.Name] = current
	}
}

// Delete removes a policy.
func (s *Store) Delete(name types.NamespacedName) {
	s.set.Lock()
	defer s.set.Unlock()
	s.mu.Lock()
	old, known := s.entries[name]
	delete(s.entries, name)
	s.regroup(old.policy, nil)
	s.mu.Unlock()
	if !known {
		return
	}
	s.log.Info("policy deleted", "policy", name.String())
	s.close(old.policy)
	s.observer.Forget(name)
}

// FollowHolidays takes up, until ctx ends, what changes in the files of holidays that policies refer to: a ConfigMap that
// comes after its policy, or next year's dates.
func (s *Store) FollowHolidays(ctx context.Context) {
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.refreshHolidays(ctx)
		}
	}
}

func (s *Store) refreshHolidays(ctx context.Context) {
	for _, name := range s.Names() {
		s.mu.RLock()
		e := s.entries[name]
		s.mu.RUnlock()
		if e.holidays == nil {
			continue
		}
		if now := s.parsed.read(ctx, e.newest, e.resolver); now.text == e.holidays.text && (now.errs == nil) == (e.holidays.errs == nil) {
			continue
		}
		ready := s.prepare(ctx, e.newest, e.resolver)
		s.set.Lock()
		s.mu.RLock()
		same := s.entries[name].newest == e.newest // nothing newer came meanwhile
		s.mu.RUnlock()
		if same {
			s.put(e.newest, e.resolver, ready)
		}
		s.set.Unlock()
	}
}

// Names lists the policies.
func (s *Store) Names() []types.NamespacedName {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Keys(s.entries))
}

func (s *Store) close(p *Policy) {
	if p == nil {
		return
	}
	if err := p.Source.Close(); err != nil {
		s.log.Warn("close the backlog of an earlier version", "policy", p.Name.String(), "error", err)
	}
}
