package policy

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
)

// Store holds policies by name. It is safe for concurrent use.
type Store struct {
	opener   Opener
	observer Observer
	log      *slog.Logger
	parsed   parsedFiles

	// turns are taken to validate, read and compile what users wrote: with half of the processors at most, so that decisions wait for none of it.
	turns turns

	// changing holds a policy's name while a version of it is compiled and put in force, so that an older one never replaces a newer
	// one. No policy waits for another.
	changing keyedMutex

	mu      sync.RWMutex
	entries map[types.NamespacedName]entry
	// announced policies exist, and their newest version has not been read yet.
	announced map[types.NamespacedName]bool
	groups    map[types.NamespacedName]map[types.NamespacedName]*Policy // by namespace and name of a group
}

// turns bound how much is done at a time; nil: nothing does.
type turns chan struct{}

// do works when it is its turn.
func (t turns) do(work func()) {
	if t != nil {
		t <- struct{}{}
		defer func() { <-t }()
	}
	work()
}

// Observer is told what happens to policies. Calls for one policy come one after the other.
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
	newest   *version
	holidays *holidayFile // of the newest version; nil: it has none
}

// version of a policy, as its author wrote it.
type version struct {
	policy   *v1alpha1.ScalingPolicy // with its defaults; where there are errors, maybe no more than its name
	errs     field.ErrorList
	resolver Resolver
}

// NewStore returns an empty store.
func NewStore(opener Opener, observer Observer, log *slog.Logger) *Store {
	turns := make(turns, max(1, runtime.GOMAXPROCS(0)/2))
	return &Store{
		turns: turns, parsed: parsedFiles{turns: turns},
		opener: opener, observer: observer, log: log, entries: map[types.NamespacedName]entry{},
		groups:    map[types.NamespacedName]map[types.NamespacedName]*Policy{},
		announced: map[types.NamespacedName]bool{},
	}
}

// Announce takes note of whether a policy exists, before Set or Delete follows.
func (s *Store) Announce(name types.NamespacedName, exists bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if exists {
		s.announced[name] = true
	} else {
		delete(s.announced, name)
	}
}

// Announced reports whether a policy exists that Get may not know yet, because it is being read.
func (s *Store) Announced(name types.NamespacedName) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.announced[name]
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
	if newest := s.entries[name].newest; newest != nil {
		return newest.policy
	}
	return nil
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

// Set puts a policy in force, or keeps the last good version when it is not valid. Calls for one policy come in the order of its versions.
func (s *Store) Set(ctx context.Context, p *v1alpha1.ScalingPolicy, resolver Resolver) {
	s.set(ctx, types.NamespacedName{Namespace: p.Namespace, Name: p.Name}, s.version(p, resolver, func() (*v1alpha1.ScalingPolicy, field.ErrorList) {
		return apiRules().completeTyped(p)
	}))
}

// version is a policy as check completes it.
func (s *Store) version(p *v1alpha1.ScalingPolicy, resolver Resolver, check func() (*v1alpha1.ScalingPolicy, field.ErrorList)) *version {
	v := &version{policy: p, resolver: resolver}
	if err := s.guard().Guard(func() error {
		s.turns.do(func() { v.policy, v.errs = check() })
		return nil
	}); err != nil {
		v.errs = field.ErrorList{field.InternalError(nil, err)}
	}
	return v
}

func (s *Store) set(ctx context.Context, name types.NamespacedName, v *version) {
	defer s.changing.lock(name)()
	s.put(ctx, name, v)
}

// put is set with the policy's name held.
func (s *Store) put(ctx context.Context, name types.NamespacedName, v *version) {
	old, _, _ := s.Get(name)
	compiled, holidays, err := s.compile(ctx, name, v, old)
	inForce := compiled
	if err != nil {
		inForce = old
	}
	s.mu.Lock()
	s.entries[name] = entry{policy: inForce, err: err, newest: v, holidays: holidays}
	delete(s.announced, name)
	s.regroup(old, inForce)
	s.mu.Unlock()
	s.observer.Validated(name, err)
	if err != nil {
		s.log.Error("policy is not valid", "policy", name.String(), "error", err, "lastGoodInForce", old != nil)
		return
	}
	s.log.Info("policy in force", "policy", name.String(), "generation", v.policy.Generation)
	if old != nil && old.Source != compiled.Source {
		s.close(old)
	}
}

// toldErrors is how many errors of a version are told, in conditions, logs and answers.
const toldErrors = 20

// compile makes a policy of a version, with its source: that of the version before it where both read the same backlog. A panic in what works
// on what a user wrote is an error of that policy.
func (s *Store) compile(ctx context.Context, name types.NamespacedName, v *version, old *Policy) (compiled *Policy, holidays *holidayFile, err error) {
	errs := v.errs
	err = s.guard().Guard(func() error {
		if len(errs) == 0 {
			holidays = s.parsed.read(ctx, v.policy, v.resolver)
			s.turns.do(func() { compiled, errs = compile(v.policy, holidays) })
		}
		switch {
		case len(errs) > toldErrors:
			return fmt.Errorf("%w, and %d errors more", errs[:toldErrors].ToAggregate(), len(errs)-toldErrors)
		case len(errs) > 0:
			return errs.ToAggregate()
		case old != nil && sameBacklog(&old.spec, &compiled.spec): // the source of the earlier version stays open
			compiled.Source = old.Source
		default:
			compiled.Source = s.opener.Open(&compiled.spec, valuesOf(name.Namespace, v.resolver))
		}
		return nil
	})
	if err != nil {
		return nil, holidays, fmt.Errorf("ScalingPolicy %s: %w", name, err)
	}
	return compiled, holidays, nil
}

func (s *Store) guard() backlog.SampleBounds { return s.parsed.guard }

// OnPanic lets f be told of a panic that was turned into an error of a policy. Call it before policies are set.
func (s *Store) OnPanic(f func(cause any)) { s.parsed.guard.OnPanic = f }

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
	defer s.changing.lock(name)()
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
		var now *holidayTexts
		if err := s.guard().Guard(func() error { now = lookUpHolidays(ctx, e.newest.policy, e.newest.resolver); return nil }); err != nil || now.sum == e.holidays.sum {
			continue // nothing is read where nothing changed
		}
		unlock := s.changing.lock(name)
		s.mu.RLock()
		same := s.entries[name].newest == e.newest // nothing newer came meanwhile
		s.mu.RUnlock()
		if same {
			s.put(ctx, name, e.newest)
		}
		unlock()
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

// keyedMutex is a mutex for each name. The zero value is ready.
type keyedMutex struct {
	mu    sync.Mutex
	locks map[types.NamespacedName]*countedMutex
}

// countedMutex goes when nobody holds it or waits for it.
type countedMutex struct {
	sync.Mutex
	users int
}

// lock locks a name and returns what unlocks it.
func (k *keyedMutex) lock(name types.NamespacedName) (unlock func()) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[types.NamespacedName]*countedMutex{}
	}
	own := k.locks[name]
	if own == nil {
		own = &countedMutex{}
		k.locks[name] = own
	}
	own.users++
	k.mu.Unlock()
	own.Lock()
	return func() {
		own.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(k.locks, name)
		}
	}
}
