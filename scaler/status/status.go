// Package status writes to a ScalingPolicy's status what `kubectl get scalingpolicies` shows: the limits in force, their
// next change, the last decision and what is wrong. Only the elected leader of the scaler's replicas writes.
package status

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const (
	// Every is how often statuses are compared, and so how often one is written at most.
	Every = 3 * time.Second
	// refresh is how often an unchanged decision's time is written again.
	refresh = time.Minute
)

// Writer writes the statuses of a store's policies.
type Writer struct {
	// Reader reads policies, from a cache; Client writes their status.
	Reader   client.Reader
	Client   client.StatusClient
	Policies *policy.Store
	Ledger   *decision.Ledger
	Events   record.EventRecorder
	Now      func() time.Time
	Log      *slog.Logger

	told map[types.NamespacedName]told
}

// told is what the last events of a policy said.
type told struct {
	constraint sizing.Constraint
	invalid    string
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	w.told = map[types.NamespacedName]told{}
	for {
		names := w.Policies.Names()
		maps.DeleteFunc(w.told, func(name types.NamespacedName, _ told) bool { return !slices.Contains(names, name) })
		for _, name := range names {
			err := w.write(ctx, name)
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
				w.Log.Warn("write the status of a policy", "policy", name.String(), "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// write brings one policy's status up to date.
func (w *Writer) write(ctx context.Context, name types.NamespacedName) error {
	var object v1alpha1.ScalingPolicy
	if err := w.Reader.Get(ctx, name, &object); err != nil {
		return err
	}
	inForce, invalid, known := w.Policies.Get(name)
	if !known {
		return nil
	}
	w.tell(&object, invalid)
	before := object.DeepCopy()
	w.render(&object, inForce, invalid)
	if equality.Semantic.DeepEqual(before.Status, object.Status) || onlyTimeDiffers(&before.Status, &object.Status) {
		return nil
	}
	return w.Client.Status().Patch(ctx, &object, client.MergeFrom(before))
}

// tell makes an event of a policy when what binds its target changed, and when a new version turned out not to be valid.
func (w *Writer) tell(object *v1alpha1.ScalingPolicy, invalid error) {
	name := types.NamespacedName{Namespace: object.Namespace, Name: object.Name}
	before, known := w.told[name]
	if !known { // the status says what the leader before this one has told
		if last := object.Status.LastDecision; last != nil {
			before.constraint = sizing.Constraint(last.Constraint)
		}
		if c := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionValid); c != nil && invalid != nil &&
			strings.HasPrefix(c.Message, invalid.Error()) {
			before.invalid = invalid.Error()
		}
	}
	now := told{constraint: before.constraint}
	if invalid != nil {
		now.invalid = invalid.Error()
	}
	if last := w.Ledger.Last(name, 1); len(last) > 0 {
		now.constraint = last[0].Constraint
		if now.constraint != before.constraint {
			kind := corev1.EventTypeNormal
			if last[0].Failure != nil {
				kind = corev1.EventTypeWarning
			}
			w.Events.Eventf(object, kind, eventReasons[now.constraint], "target %d: %s", last[0].Target, last[0].Reason)
		}
	}
	if now.invalid != "" && now.invalid != before.invalid {
		w.Events.Event(object, corev1.EventTypeWarning, "Invalid", now.invalid)
	}
	w.told[name] = now
}

// eventReasons are the reasons of events, in the form that Kubernetes gives them.
var eventReasons = map[sizing.Constraint]string{
	sizing.Backlog: "BoundByBacklog", sizing.Drain: "BoundByDrain", sizing.Floor: "BoundByFloor", sizing.Idle: "BoundByIdle",
	sizing.Cap: "BoundByCap", sizing.ScaleIn: "BoundByScaleIn", sizing.Hold: "BacklogHeld", sizing.Outage: "BacklogOutage",
}

// onlyTimeDiffers reports whether a new status says nothing new but that the same decision was taken again just now.
func onlyTimeDiffers(before, after *v1alpha1.ScalingPolicyStatus) bool {
	if before.LastDecision == nil || after.LastDecision == nil ||
		after.LastDecision.Time.Sub(before.LastDecision.Time.Time) >= refresh {
		return false
	}
	same := after.DeepCopy()
	same.LastDecision.Time = before.LastDecision.Time
	return equality.Semantic.DeepEqual(before, same)
}

// render fills in a policy's status.
func (w *Writer) render(object *v1alpha1.ScalingPolicy, inForce *policy.Policy, invalid error) {
	status := &object.Status
	condition := func(kind string, ok bool, reason, message string) {
		c := metav1.Condition{
			Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: object.Generation,
		}
		if ok {
			c.Status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&status.Conditions, c)
	}
	if invalid != nil {
		message := invalid.Error()
		if inForce != nil {
			message += fmt.Sprintf("; generation %d stays in force", inForce.Generation)
		}
		condition(v1alpha1.ConditionValid, false, "Invalid", message)
	} else {
		condition(v1alpha1.ConditionValid, true, "Valid", "the newest version is in force")
	}
	reachable := false
	if inForce != nil {
		reachable = w.renderDecision(status, inForce, condition)
	}
	switch {
	case invalid != nil:
		condition(v1alpha1.ConditionReady, false, "Invalid", "the newest version is not valid")
	case !reachable:
		condition(v1alpha1.ConditionReady, false, "NoBacklog", "the backlog has not been read")
	default:
		condition(v1alpha1.ConditionReady, true, "Ready", "the newest version is in force and its backlog is read")
	}
}

// renderDecision fills in what is known of the version in force, and reports whether its backlog is read.
func (w *Writer) renderDecision(
	status *v1alpha1.ScalingPolicyStatus, inForce *policy.Policy, condition func(kind string, ok bool, reason, message string),
) bool {
	now := w.Now()
	limits := inForce.Calendar.Limits(now)
	status.ObservedGeneration = inForce.Generation
	status.Current = &v1alpha1.CurrentLimits{
		Period: limits.Period, MinReplicas: limits.MinReplicas, IdleReplicas: limits.IdleReplicas, MaxReplicas: limits.MaxReplicas,
	}
	status.NextChange = nil
	if at, next, ok := inForce.Calendar.NextChange(now); ok {
		status.NextChange = &v1alpha1.NextChange{Time: metav1.NewTime(at), Period: next.Period}
	}
	last := w.Ledger.Last(inForce.Name, 1)
	if len(last) == 0 {
		condition(v1alpha1.ConditionBacklogReachable, false, "NotAsked", "no trigger has asked for a target yet")
		return false
	}
	d := last[0]
	status.LastDecision = &v1alpha1.LastDecision{
		// An API server keeps whole seconds.
		Time: metav1.NewTime(d.Time.Truncate(time.Second)), Ready: d.Observation.Ready, InFlight: d.InFlight, Target: d.Target,
		Constraint: string(d.Constraint), Reason: d.Reason,
	}
	if d.Failure != nil {
		reason := "Unreachable"
		if d.Constraint == sizing.Hold {
			reason = "Held"
		}
		condition(v1alpha1.ConditionBacklogReachable, false, reason, d.Failure.Error())
		return false
	}
	condition(v1alpha1.ConditionBacklogReachable, true, "Reachable", "the backlog is read")
	return true
}
