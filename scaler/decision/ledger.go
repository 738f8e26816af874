package decision

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const (
	// ledgerTotal bounds the decisions that are kept of all policies together, some 50 MB of them: the more policies, the fewer of each.
	ledgerTotal = 100_000
	// ledgerLeast is how many are kept of each policy at least.
	ledgerLeast = 4
)

// Ledger keeps the newest decisions of each policy in memory. It is safe for concurrent use.
type Ledger struct {
	size int

	mu       sync.RWMutex
	policies map[types.NamespacedName]*history
	watchers map[*Watcher]struct{}
}

// history holds the last decisions of a policy, the newest last.
type history struct {
	entries []sizing.Decision
	count   int // of all decisions ever added
}

func (h *history) newest() *sizing.Decision { return &h.entries[len(h.entries)-1] }

// add appends a decision, and keeps no more than a number of them.
func (h *history) add(d sizing.Decision, most int) {
	if len(h.entries) >= most {
		kept := h.entries[len(h.entries)-most+1:]
		if cap(h.entries) > 2*most {
			h.entries = make([]sizing.Decision, 0, most)
		}
		n := copy(h.entries[:cap(h.entries)], kept)
		clear(h.entries[n:])
		h.entries = h.entries[:n]
	}
	if len(h.entries) == cap(h.entries) { // it grows as slowly as most histories do
		h.entries = append(make([]sizing.Decision, 0, min(most, len(h.entries)+4)), h.entries...)
	}
	h.entries = append(h.entries, d)
}

// NewLedger keeps at most size decisions of each policy.
func NewLedger(size int) *Ledger {
	return &Ledger{size: size, policies: map[types.NamespacedName]*history{}, watchers: map[*Watcher]struct{}{}}
}

// Add appends a decision and returns the one before it, if there was any. One that says nothing new takes the place of the
// one before it, so that the ledger of a quiet queue reaches back far.
func (l *Ledger) Add(policy types.NamespacedName, d sizing.Decision) (previous sizing.Decision, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watchers) > 0 {
		e := &Entry{policy, d} // one for all
		for w := range l.watchers {
			w.send(e)
		}
	}
	h := l.policies[policy]
	if h == nil {
		h = &history{}
		l.policies[policy] = h
	}
	h.count++
	if len(h.entries) > 0 {
		newest := h.newest()
		previous, ok = *newest, true
		if previous.Target == d.Target && previous.Constraint == d.Constraint && previous.Reason == d.Reason {
			*newest = d
			return previous, ok
		}
	}
	h.add(d, min(l.size, max(ledgerLeast, ledgerTotal/len(l.policies))))
	return previous, ok
}

// Last returns at most n decisions of a policy, newest first.
func (l *Ledger) Last(policy types.NamespacedName, n int) []sizing.Decision {
	l.mu.RLock()
	defer l.mu.RUnlock()
	h := l.policies[policy]
	if h == nil {
		return nil
	}
	last := slices.Clone(h.entries[max(0, len(h.entries)-n):])
	slices.Reverse(last)
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
	for name, h := range l.policies {
		list = append(list, newestEntry{Entry{name, *h.newest()}, h.count})
	}
	return list
}

// Policies lists policies that have decisions, in the order of namespace and name: at most n of those after a name, of a namespace or of a policy's
// name or of both where these are not empty. More tells whether there are others behind them.
func (l *Ledger) Policies(namespace, policy string, after types.NamespacedName, n int) (names []types.NamespacedName, more bool) {
	l.mu.RLock()
	for name := range l.policies {
		if selected(name, namespace, policy) && compareNames(name, after) > 0 {
			names = append(names, name)
		}
	}
	l.mu.RUnlock()
	slices.SortFunc(names, compareNames)
	if len(names) > n {
		return names[:n], true
	}
	return names, false
}

// pageBytes bounds a page of decisions, whatever is asked for: an answer of a gRPC server may have 4 MiB, and several are written at once.
const pageBytes = 2 << 20

// page returns the last decisions, at most n of each, of at most policies policies, in the order of namespace and name, and behind which policy the next
// page begins, if there is one. It has those of one policy at least.
func (l *Ledger) page(namespace, policy string, n, policies int, from string) (page []Entry, next string) {
	names, more := l.Policies(namespace, policy, after(from), policies)
	size := 0
	for i, name := range names {
		for _, d := range l.Last(name, n) {
			page = append(page, Entry{name, d})
			size += entryBytes + 2*len(d.Reason) // an outage's has the failure in it
		}
		if size >= pageBytes && i < len(names)-1 {
			return page, name.String()
		}
	}
	if more {
		next = names[len(names)-1].String()
	}
	return page, next
}

// entryBytes is about what a decision has in an answer, without its reason.
const entryBytes = 400

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
	entries chan *Entry
	ledger  *Ledger
}

// Watch returns a watcher that can fall behind by some decisions. Close it.
func (l *Ledger) Watch() *Watcher {
	w := &Watcher{entries: make(chan *Entry, 1024), ledger: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers[w] = struct{}{}
	return w
}

// Entries must not be changed. It is closed when the watcher fell too far behind, or was closed.
func (w *Watcher) Entries() <-chan *Entry { return w.entries }

// send is called with the ledger locked.
func (w *Watcher) send(e *Entry) {
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
