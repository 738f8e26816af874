package decision

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// Ledger keeps the newest decisions of each policy in memory. It is safe for concurrent use.
type Ledger struct {
	size int

	mu       sync.RWMutex
	policies map[types.NamespacedName]*ring
}

// ring holds the last decisions; next is where the following one goes.
type ring struct {
	entries []target.Decision
	next    int
}

// NewLedger keeps size decisions of each policy.
func NewLedger(size int) *Ledger {
	return &Ledger{size: size, policies: map[types.NamespacedName]*ring{}}
}

// Add appends a decision and returns the one before it, if there was any.
func (l *Ledger) Add(policy types.NamespacedName, d target.Decision) (previous target.Decision, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.policies[policy]
	if r == nil {
		r = &ring{}
		l.policies[policy] = r
	}
	if len(r.entries) > 0 {
		previous, ok = r.entries[(r.next+len(r.entries)-1)%len(r.entries)], true
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
func (l *Ledger) Last(policy types.NamespacedName, n int) []target.Decision {
	l.mu.RLock()
	defer l.mu.RUnlock()
	r := l.policies[policy]
	if r == nil {
		return nil
	}
	n = min(n, len(r.entries))
	last := make([]target.Decision, 0, n)
	for i := range n {
		last = append(last, r.entries[(r.next+2*len(r.entries)-1-i)%len(r.entries)])
	}
	return last
}

// Policies lists the policies that have decisions.
func (l *Ledger) Policies() []types.NamespacedName {
	l.mu.RLock()
	defer l.mu.RUnlock()
	names := make([]types.NamespacedName, 0, len(l.policies))
	for name := range l.policies {
		names = append(names, name)
	}
	return names
}

// Forget drops a deleted policy's decisions.
func (l *Ledger) Forget(policy types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.policies, policy)
}
