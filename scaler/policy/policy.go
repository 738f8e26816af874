// Package policy holds the scaling policies in force. They come from the API server or from a directory of files; each
// is validated and compiled once, and immutable from then on. An edit that does not compile leaves the last good
// version in force, and its error beside it.
package policy

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/target"
)

// Policy is a compiled ScalingPolicy.
type Policy struct {
	Name       types.NamespacedName
	Generation int64
	Calendar   *calendar.Calendar
	Target     target.Policy
	Source     backlog.Source
}

// Resolver finds the text of a value that a policy refers to.
type Resolver interface {
	Resolve(ctx context.Context, namespace string, value v1alpha1.ValueSource) (string, error)
}

// Opener opens the source of a policy's backlog.
type Opener interface {
	Open(namespace string, spec v1alpha1.Backlog, resolver Resolver) backlog.Source
}

// compile validates a policy, fills in defaults and compiles it. It does not change p.
func compile(p *v1alpha1.ScalingPolicy, opener Opener, resolver Resolver) (*Policy, error) {
	p = p.DeepCopy()
	v1alpha1.SetDefaults(p)
	errs := v1alpha1.Validate(p)
	compiled, more := calendar.New(p.Spec.Calendar, *p.Spec.Target.MaxReplicas, field.NewPath("spec", "calendar"))
	if errs = append(errs, more...); len(errs) > 0 {
		return nil, fmt.Errorf("ScalingPolicy %s/%s: %w", p.Namespace, p.Name, errs.ToAggregate())
	}
	return &Policy{
		Name:       types.NamespacedName{Namespace: p.Namespace, Name: p.Name},
		Generation: p.Generation,
		Calendar:   compiled,
		Target: target.Policy{
			MessagesPerReplica: int64(p.Spec.Target.MessagesPerReplica), HoldFor: p.Spec.Outage.HoldFor.Duration,
		},
		Source: opener.Open(p.Namespace, p.Spec.Backlog, resolver),
	}, nil
}
