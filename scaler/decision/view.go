package decision

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// View is a decision as the scaler's HTTP port shows it.
type View struct {
	Time         time.Time         `json:"time"`
	Namespace    string            `json:"namespace"`
	Policy       string            `json:"policy"`
	Ready        int64             `json:"ready"`
	InFlight     int64             `json:"inFlight"`
	Target       int32             `json:"target"`
	Constraint   sizing.Constraint `json:"constraint"`
	Reason       string            `json:"reason"`
	Period       string            `json:"period"`
	MinReplicas  int32             `json:"minReplicas"`
	IdleReplicas int32             `json:"idleReplicas"`
	MaxReplicas  int32             `json:"maxReplicas"`
	// Surplus that holds while messages wait; empty: none.
	Surplus string `json:"surplus,omitempty"`
}

// Views is the answer of /decisions.
type Views struct {
	Decisions []View `json:"decisions"`
	// Continue is what to ask with for the policies behind these; empty: there are none.
	Continue string `json:"continue,omitempty"`
}

// Page returns the last decisions, at most n of each, of at most policies policies, in the order of namespace and name. Namespace and policy select those of
// that name where they are not empty. From is an earlier page's Continue, or empty.
func (l *Ledger) Page(namespace, policy string, n, policies int, from string) Views {
	entries, next := l.page(namespace, policy, n, policies, from)
	page := Views{Decisions: make([]View, len(entries)), Continue: next}
	for i, e := range entries {
		page.Decisions[i] = ViewOf(e.Policy, e.Decision)
	}
	return page
}

// after is the policy behind which a page begins, as an earlier one said it.
func after(token string) (name types.NamespacedName) {
	name.Namespace, name.Name, _ = strings.Cut(token, "/")
	return name
}

// ViewOf renders a policy's decision.
func ViewOf(policy types.NamespacedName, d sizing.Decision) View {
	return View{
		Time: d.Time, Namespace: policy.Namespace, Policy: policy.Name, Ready: d.Observation.Ready, InFlight: d.InFlight,
		Target: d.Target, Constraint: d.Constraint, Reason: d.Reason, Period: d.Limits.Period,
		MinReplicas: d.Limits.MinReplicas, IdleReplicas: d.Limits.IdleReplicas, MaxReplicas: d.Limits.MaxReplicas, Surplus: d.Limits.Surplus.Text(),
	}
}
