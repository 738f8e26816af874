package decision

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Shown is a decision as the scaler's HTTP port shows it.
type Shown struct {
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
}

// ShownList is the answer of /decisions.
type ShownList struct {
	Decisions []Shown `json:"decisions"`
}

// Show renders a policy's decision.
func Show(policy types.NamespacedName, d sizing.Decision) Shown {
	return Shown{
		Time: d.Time, Namespace: policy.Namespace, Policy: policy.Name, Ready: d.Observation.Ready, InFlight: d.InFlight,
		Target: d.Target, Constraint: d.Constraint, Reason: d.Reason, Period: d.Limits.Period,
		MinReplicas: d.Limits.MinReplicas, IdleReplicas: d.Limits.IdleReplicas, MaxReplicas: d.Limits.MaxReplicas,
	}
}
