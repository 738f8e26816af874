package policy

import (
	"log/slog"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// Store holds policies by name. It is safe for concurrent use.
type Store struct {
	opener Opener
	log    *slog.Logger
	forget func(types.NamespacedName)

	mu      sync.RWMutex
	entries map[types.NamespacedName]entry
}

// entry is a policy's last good version, if any, and what is wrong with its newest.
type entry struct {
	policy *Policy
	err    error
}

// NewStore returns an empty store. Forget is called for every policy that is deleted.
func NewStore(opener Opener, log *slog.Logger, forget func(types.NamespacedName)) *Store {
	return &Store{opener: opener, log: log, forget: forget, entries: map[types.NamespacedName]entry{}}
}

// Get returns a policy's last good version, nil if there is none, and what is wrong with its newest version. Known is
// false for a policy that does not exist.
func (s *Store) Get(name types.NamespacedName) (policy *Policy, err error, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, known := s.entries[name]
	return e.policy, e.err, known
}

// Set puts a policy in force, or keeps the last good version when it does not compile.
func (s *Store) Set(p *v1alpha1.ScalingPolicy, resolver Resolver) {
	name := types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
	compiled, err := compile(p, s.opener, resolver)
	s.mu.Lock()
	old := s.entries[name]
	if err != nil {
		s.entries[name] = entry{policy: old.policy, err: err}
	} else {
		s.entries[name] = entry{policy: compiled}
	}
	s.mu.Unlock()
	if err != nil {
		s.log.Error("policy is not valid", "policy", name.String(), "error", err, "lastGoodInForce", old.policy != nil)
		return
	}
	s.log.Info("policy in force", "policy", name.String(), "generation", p.Generation)
	s.close(old.policy)
}

// Delete removes a policy.
func (s *Store) Delete(name types.NamespacedName) {
	s.mu.Lock()
	old, known := s.entries[name]
	delete(s.entries, name)
	s.mu.Unlock()
	if !known {
		return
	}
	s.log.Info("policy deleted", "policy", name.String())
	s.close(old.policy)
	s.forget(name)
}

// Names lists the policies.
func (s *Store) Names() []types.NamespacedName {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]types.NamespacedName, 0, len(s.entries))
	for name := range s.entries {
		names = append(names, name)
	}
	return names
}

func (s *Store) close(p *Policy) {
	if p == nil {
		return
	}
	if err := p.Source.Close(); err != nil {
		s.log.Warn("close the backlog of an earlier version", "policy", p.Name.String(), "error", err)
	}
}
