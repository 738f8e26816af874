package decision

import (
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Ledger keeps the newest decisions of each policy in memory. It is safe for concurrent use.
type Ledger struct {
	size int

	mu       sync.RWMutex
	policies map[types.NamespacedName]*ring
	watchers map[*Watcher]struct{}
}

// ring holds the last decisions; next is where the following one goes.
type ring struct {
	entries []sizing.Decision
	next    int
	count   int // of all decisions ever added
}

func (r *ring) newest() *sizing.Decision {
	return &r.entries[(r.next+len(r.entries)-1)%len(r.entries)]
}

// NewLedger keeps size decisions of each policy.
func NewLedger(size int) *Ledger {
	return &Ledger{size: size, policies: map[types.NamespacedName]*ring{}, watchers: map[*Watcher]struct{}{}}
}

// Add appends a decision and returns the one before it, if there was any. One that says nothing new takes the place of the
// one before it, so that the ledger of a quiet queue reaches back far.
func (l *Ledger) Add(policy types.NamespacedName, d sizing.Decision) (previous sizing.Decision, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.watchers {
		w.send(Entry{policy, d})
	}
	r := l.policies[policy]
	if r == nil {
		r = &ring{}
		l.policies[policy] = r
	}
	r.count++
	if len(r.entries) > 0 {
		newest := r.newest()
		previous, ok = *newest, true
		if previous.Target == d.Target && previous.Constraint == d.Constraint && previous.Reason == d.Reason {
			*newest = d
			return previous, ok
		}
	}
	if len(r.entries) < l.size {
		r.entries = append(r.entries, d)
		return previous, ok
	}
	r.entries[r.next] = d
	r.next = (r.next + 1) % l.size
	return previous, ok
}

// Last returns at most n decisions of a policy, newest first.
func (l *Ledger) Last(policy types.NamespacedName, n int) []sizing.Decision {
	l.mu.RLock()
	defer l.mu.RUnlock()
	r := l.policies[policy]
	if r == nil {
		return nil
	}
	n = min(n, len(r.entries))
	last := make([]sizing.Decision, 0, n)
	for i := range n {
		last = append(last, r.entries[(r.next+2*len(r.entries)-1-i)%len(r.entries)])
	}
	return last
}

// newestEntry is a policy's newest decision, and how many there were.
type newestEntry struct {
	Entry
	count int
}

// newest returns the newest decision of each policy.
func (l *Ledger) newest() []newestEntry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := make([]newestEntry, 0, len(l.policies))
	for name, r := range l.policies {
		list = append(list, newestEntry{Entry{name, *r.newest()}, r.count})
	}
	return list
}

// Policies lists the policies that have decisions, in the order of namespace and name.
func (l *Ledger) Policies() []types.NamespacedName {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(l.policies), compareNames)
}

// Forget drops a deleted policy's decisions.
func (l *Ledger) Forget(policy types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.policies, policy)
}

// Entry is a decision and whose it is.
type Entry struct {
	Policy   types.NamespacedName
	Decision sizing.Decision
}

// Watcher receives decisions as they are taken.
type Watcher struct {
	entries chan Entry
	ledger  *Ledger
}

// Watch returns a watcher that can fall behind by some decisions. Close it.
func (l *Ledger) Watch() *Watcher {
	w := &Watcher{entries: make(chan Entry, 1024), ledger: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers[w] = struct{}{}
	return w
}

// Entries is closed when the watcher fell too far behind, or was closed.
func (w *Watcher) Entries() <-chan Entry { return w.entries }

// send is called with the ledger locked.
func (w *Watcher) send(e Entry) {
	select {
	case w.entries <- e:
	default: // nobody waits for a watcher that is too slow
		delete(w.ledger.watchers, w)
		close(w.entries)
	}
}

// Close ends the watcher.
func (w *Watcher) Close() {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	if _, open := w.ledger.watchers[w]; open {
		delete(w.ledger.watchers, w)
		close(w.entries)
	}
}
