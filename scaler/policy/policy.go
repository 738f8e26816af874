// Package policy holds the scaling policies in force. They come from the API server or from a directory of files; each
// is validated and compiled once, and immutable from then on. An edit that does not compile leaves the last good
// version in force, and its error beside it.
package policy

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// Policy is a compiled ScalingPolicy.
type Policy struct {
	Name       types.NamespacedName
	Generation int64
	// TimeZone of the calendar; UTC without one.
	TimeZone *time.Location
	Calendar *calendar.Calendar
	Target   sizing.Parameters
	// Group whose cap the policy shares, or nil.
	Group  *Group
	Source backlog.Source

	spec v1alpha1.ScalingPolicySpec // defaulted
}

// Spec is what the policy was made of, with its defaults. It is a copy.
func (p *Policy) Spec() *v1alpha1.ScalingPolicySpec { return p.spec.DeepCopy() }

// ReadyHoldsInFlight reports whether the backlog's source counts messages that are worked on among those that wait.
func (p *Policy) ReadyHoldsInFlight() bool { return p.spec.Backlog.RabbitMQ == nil }

// Group is a policy's part in a cap shared by several.
type Group struct {
	Name                string
	MaxReplicas, Weight int64
}

// Resolver finds the text of a value that a policy refers to.
type Resolver interface {
	Resolve(ctx context.Context, namespace string, value *v1alpha1.ValueSource) (string, error)
}

// valuesOf resolves the values of a namespace's policies. An error begins with the field.
func valuesOf(namespace string, resolver Resolver) backlog.Values {
	return func(ctx context.Context, at string, value *v1alpha1.ValueSource) (string, error) {
		if value == nil {
			return "", nil
		}
		text, err := resolver.Resolve(ctx, namespace, value)
		if err != nil {
			return "", &backlog.UnresolvedError{Field: at, Err: err}
		}
		return text, nil
	}
}

// Opener opens the source of a policy's backlog.
type Opener interface {
	Open(spec *v1alpha1.ScalingPolicySpec, values backlog.Values) backlog.Source
}

// compile makes a policy of one whose schema was checked and whose defaults are filled in, without its source. Where there are errors
// there is none.
func compile(p *v1alpha1.ScalingPolicy, holidays *holidayFile) (*Policy, field.ErrorList) {
	var errs field.ErrorList
	var days []*calendar.Holidays
	if holidays != nil {
		days, errs = holidays.days, holidays.errs
	}
	compiled, more := CompileCalendar(p.Spec.Calendar, days, *p.Spec.Target.MaxReplicas, field.NewPath("spec", "calendar"))
	if p.Spec.Backlog.Prometheus != nil && compiled.HasSurplus() {
		more = append(more, field.Forbidden(field.NewPath("spec", "calendar"), "a surplus is added while messages wait, and a prometheus backlog does not tell "+
			"what waits from what is in progress: remove surplus, or use idleReplicas"))
	}
	if errs = append(errs, more...); len(errs) > 0 {
		return nil, errs
	}
	t := &p.Spec.Target
	policy := &Policy{
		Name:       types.NamespacedName{Namespace: p.Namespace, Name: p.Name},
		Generation: p.Generation,
		Calendar:   compiled, TimeZone: time.UTC,
		Target: sizing.Parameters{MessagesPerReplica: int64(t.MessagesPerReplica), HoldFor: p.Spec.Outage.HoldFor.Duration},
		spec:   p.Spec,
	}
	if c := p.Spec.Calendar; c != nil {
		if zone, err := calendar.LoadZone(c.TimeZone); err == nil { // an error is among those above
			policy.TimeZone = zone
		}
	}
	if t.DrainWithin != nil {
		policy.Target.DrainWithin = t.DrainWithin.Duration
	}
	if t.ServiceTime != nil {
		policy.Target.ServiceTime = t.ServiceTime.Duration
	}
	if t.ScaleInStabilization != nil {
		policy.Target.ScaleInStabilization = t.ScaleInStabilization.Duration
	}
	if g := t.MaxReplicasGroup; g != nil {
		policy.Group = &Group{Name: g.Name, MaxReplicas: int64(g.MaxReplicas), Weight: int64(g.Weight)}
	}
	return policy, nil
}

// sameBacklog reports whether two versions of a policy read the same backlog in the same way.
func sameBacklog(a, b *v1alpha1.ScalingPolicySpec) bool {
	return equality.Semantic.DeepEqual(a.Backlog, b.Backlog) &&
		equality.Semantic.DeepEqual(a.Target.DrainWithin, b.Target.DrainWithin) &&
		equality.Semantic.DeepEqual(a.Target.ServiceTime, b.Target.ServiceTime)
}
