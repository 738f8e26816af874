// Package status writes to a ScalingPolicy's status what `kubectl get scalingpolicies` shows: the limits in force, their
// next change, the last decision and what is wrong; and what other replicas of the scaler, and those after them, need to know. Only the elected
// leader writes.
//
// What `kubectl wait` and people act on (conditions, generation, constraint, period, shares of caps) is written at once. Figures that change with every
// poll are in metrics; the status has them at most every few seconds, and less often when there are so many policies that the API server would notice.
package status

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const (
	// FiguresEvery is how often a policy's figures are written at most.
	FiguresEvery = 5 * time.Second
	// writesPerSecond bounds the writes of all policies together; writesAtOnce may come in a burst. Figures alone leave half of them to what matters more.
	writesPerSecond, writesAtOnce = 20, 100
	// compiledSoon is how soon a version is looked at again that is not compiled yet.
	compiledSoon = 500 * time.Millisecond
	// stateEvery is how often a policy is looked at that nothing happens to: a next change that has passed, say.
	stateEvery = time.Minute
)

// Reconciler writes the statuses of a store's policies. Make one with New.
type Reconciler struct {
	// Reader reads policies, from a cache; Client writes their status.
	Reader   client.Reader
	Client   client.StatusClient
	Policies *policy.Store
	Ledger   *decision.Ledger
	// Decider has shares of caps and service times. Nil: neither is written.
	Decider *decision.Decider
	Events  record.EventRecorder
	Now     func() time.Time

	queue  *atomic.Pointer[workqueue.TypedRateLimitingInterface[reconcile.Request]] // empty while this replica does not lead
	writes *rate.Limiter
	mu     *sync.Mutex
	told   map[types.NamespacedName]announced
}

// announced is what the last events of a policy said, and when its figures were last written.
type announced struct {
	uid        types.UID
	constraint sizing.Constraint
	invalid    string
	missing    string
	writtenAt  time.Time
}

// New completes a reconciler.
func New(r Reconciler) *Reconciler {
	r.queue, r.mu = &atomic.Pointer[workqueue.TypedRateLimitingInterface[reconcile.Request]]{}, &sync.Mutex{}
	r.writes = newLimiter(writesPerSecond)
	r.told = map[types.NamespacedName]announced{}
	return &r
}

func newLimiter(perSecond rate.Limit) *rate.Limiter { return rate.NewLimiter(perSecond, writesAtOnce) }

// Reconcile implements reconcile.Reconciler: it brings one policy's status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	name := request.NamespacedName
	var object v1alpha1.ScalingPolicy
	if err := r.Reader.Get(ctx, name, &object); err != nil {
		r.forget(name)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	newest := r.Policies.Newest(name)
	if newest == nil || newest.UID != object.UID || newest.Generation != object.Generation {
		return reconcile.Result{RequeueAfter: compiledSoon}, nil // nothing is known of this version yet
	}
	inForce, invalid, _ := r.Policies.Get(name)
	before := object.DeepCopy()
	next := r.render(&object, inForce, invalid)
	told := r.announce(&object, before, invalid)
	result := reconcile.Result{RequeueAfter: next}
	if equality.Semantic.DeepEqual(before.Status, object.Status) {
		return result, nil
	}
	if onlyFiguresDiffer(&before.Status, &object.Status) {
		if wait := FiguresEvery - r.Now().Sub(told.writtenAt); wait > 0 && wait <= FiguresEvery {
			return reconcile.Result{RequeueAfter: min(wait, next)}, nil
		}
		if r.writes.Tokens() < writesAtOnce/2 {
			return reconcile.Result{RequeueAfter: min(FiguresEvery, next)}, nil
		}
	}
	if err := r.writes.Wait(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if err := r.Client.Status().Patch(ctx, &object, client.MergeFrom(before)); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	told.writtenAt = r.Now()
	r.mu.Lock()
	r.told[name] = told
	r.mu.Unlock()
	return result, nil
}

func (r *Reconciler) forget(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told, name)
}

// announce makes an event of a policy when what binds its target changed, when a new version turned out not to be valid, and when a queue turned out not
// to exist.
func (r *Reconciler) announce(object, before *v1alpha1.ScalingPolicy, invalid error) announced {
	name := types.NamespacedName{Namespace: object.Namespace, Name: object.Name}
	r.mu.Lock()
	told, known := r.told[name]
	r.mu.Unlock()
	if !known || told.uid != object.UID { // the status says what the leader before this one has told
		told = announced{uid: object.UID}
		if last := before.Status.LastDecision; last != nil {
			told.constraint = sizing.Constraint(last.Constraint)
		}
		if c := meta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionAccepted); c != nil && invalid != nil && strings.HasPrefix(c.Message, shortLine(invalid.Error())) {
			told.invalid = invalid.Error()
		}
		if c := meta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionBacklogReachable); c != nil && c.Reason == v1alpha1.ReasonQueueMissing {
			told.missing = c.Message
		}
	}
	now := announced{uid: object.UID, constraint: told.constraint, writtenAt: told.writtenAt}
	if invalid != nil {
		now.invalid = invalid.Error()
	}
	if last := r.Ledger.Last(name, 1); len(last) > 0 {
		now.constraint = last[0].Constraint
		if now.constraint != told.constraint {
			kind := corev1.EventTypeNormal
			if last[0].Failure != nil {
				kind = corev1.EventTypeWarning
			}
			r.Events.Eventf(object, kind, eventReasons[now.constraint], "target %d: %s", last[0].Target, last[0].Reason)
		}
	}
	if now.invalid != "" && now.invalid != told.invalid {
		r.Events.Event(object, corev1.EventTypeWarning, v1alpha1.ReasonInvalid, now.invalid)
	}
	if c := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionBacklogReachable); c != nil && c.Reason == v1alpha1.ReasonQueueMissing {
		if now.missing = c.Message; now.missing != told.missing {
			r.Events.Event(object, corev1.EventTypeWarning, v1alpha1.ReasonQueueMissing, now.missing)
		}
	}
	r.mu.Lock()
	r.told[name] = now
	r.mu.Unlock()
	return now
}

// eventReasons are the reasons of events, in the form that Kubernetes gives them.
var eventReasons = map[sizing.Constraint]string{
	sizing.Backlog: "BoundByBacklog", sizing.Drain: "BoundByDrain", sizing.Floor: "BoundByFloor", sizing.Idle: "BoundByIdle",
	sizing.Surplus: "BoundBySurplus",
	sizing.Cap:     "BoundByCap", sizing.ScaleIn: "BoundByScaleIn", sizing.Hold: "BacklogHeld", sizing.Outage: "BacklogOutage",
}

// onlyFiguresDiffer reports whether a new status differs only in what changes with every poll.
func onlyFiguresDiffer(before, after *v1alpha1.ScalingPolicyStatus) bool {
	if before.LastDecision == nil || after.LastDecision == nil || before.LastDecision.Constraint != after.LastDecision.Constraint {
		return false
	}
	same := after.DeepCopy()
	same.LastDecision, same.ServiceTime = before.LastDecision, before.ServiceTime
	return equality.Semantic.DeepEqual(before, same)
}

// render fills in a policy's status, and returns after how long it changes by itself.
func (r *Reconciler) render(object *v1alpha1.ScalingPolicy, inForce *policy.Policy, invalid error) (next time.Duration) {
	status := &object.Status
	known := status.ObservedGeneration == object.Generation
	status.ObservedGeneration = object.Generation
	next = stateEvery
	set := func(kind string, verdict metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: kind, Status: verdict, Reason: reason, Message: shortLine(message), ObservedGeneration: object.Generation,
		})
	}
	meta.RemoveStatusCondition(&status.Conditions, "Valid") // of earlier versions
	if invalid == nil {
		set(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "the newest version is in force")
	} else {
		message := invalid.Error()
		if inForce != nil {
			message += fmt.Sprintf("; generation %d stays in force", inForce.Generation)
		}
		set(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonInvalid, message)
	}
	var last []sizing.Decision
	if inForce != nil {
		next = min(next, r.renderLimits(status, inForce))
		renderHolidays(status, inForce, r.Now(), set)
		last = r.Ledger.Last(inForce.Name, 1)
	}
	switch {
	case len(last) > 0:
		renderDecision(status, &last[0], set)
	case known && meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionBacklogReachable) != nil:
		// This replica was not asked yet. What the leader before it saw stands until it is.
	default:
		const notAsked = "no trigger has asked for a target yet"
		set(v1alpha1.ConditionBacklogReachable, metav1.ConditionUnknown, v1alpha1.ReasonNotAsked, notAsked)
		set(v1alpha1.ConditionCredentialsResolved, metav1.ConditionUnknown, v1alpha1.ReasonNotAsked, notAsked)
	}
	summarize(status, set)
	return next
}

// shortLine is a message as a condition holds it: one line, and no longer than a person reads.
func shortLine(message string) string {
	const most = 2000
	if message = sizing.OneLine(message); len(message) > most {
		message = strings.ToValidUTF8(message[:most], "") + "..."
	}
	return message
}

// renderLimits fills in what the version in force says by itself, and returns after how long that changes.
func (r *Reconciler) renderLimits(status *v1alpha1.ScalingPolicyStatus, inForce *policy.Policy) (next time.Duration) {
	now := r.Now()
	limits := inForce.Calendar.Limits(now)
	status.Current = &v1alpha1.CurrentLimits{
		Period: limits.Period, MinReplicas: limits.MinReplicas, IdleReplicas: limits.IdleReplicas, MaxReplicas: limits.MaxReplicas,
		Surplus: limits.Surplus.Text(),
	}
	status.NextChange, next = nil, stateEvery
	if at, after, ok := inForce.Calendar.NextChange(now); ok {
		status.NextChange = &v1alpha1.NextChange{Time: metav1.NewTime(at), Period: after.Period}
		next = max(at.Sub(now), time.Second)
	}
	if r.Decider == nil {
		return next
	}
	if inForce.Group == nil {
		status.Group = nil
	} else if share, known := r.Decider.ShareOf(inForce); known {
		status.Group = &v1alpha1.GroupShare{Name: inForce.Group.Name, Replicas: share}
	}
	if mean := r.Decider.ServiceTime(inForce.Name); mean > 0 && (status.ServiceTime == nil || differ(mean, status.ServiceTime.Duration)) {
		status.ServiceTime = &metav1.Duration{Duration: mean.Round(time.Millisecond)}
	}
	return next
}

// toldSkipped is how many events that are not understood a condition names.
const toldSkipped = 5

// renderHolidays says how the policy's iCalendar files were read: a holiday does not vanish without a word.
func renderHolidays(status *v1alpha1.ScalingPolicyStatus, p *policy.Policy, now time.Time, set func(kind string, verdict metav1.ConditionStatus, reason, message string)) {
	files := p.HolidayFiles()
	if len(files) == 0 {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionHolidaysRead)
		return
	}
	year := now.In(p.TimeZone).Year()
	var read, skipped, expired []string
	dropped := 0
	for _, file := range files {
		first, last := file.Days.Years()
		switch {
		case file.Days.Len() == 0:
			expired = append(expired, fmt.Sprintf("%s: none of its events is a holiday", file.Field))
		case last < year:
			expired = append(expired, fmt.Sprintf("%s: its last holiday is of %d, and %d has none: put a newer file in its place", file.Field, last, year))
		default:
			read = append(read, fmt.Sprintf("%s: %d dates, from %d to %d", file.Field, file.Days.Len(), first, last))
		}
		for _, s := range file.Days.NotUnderstood() {
			if dropped++; dropped <= toldSkipped {
				skipped = append(skipped, fmt.Sprintf("%s: %s", file.Field, s))
			}
		}
	}
	if dropped > toldSkipped {
		skipped = append(skipped, fmt.Sprintf("%d more", dropped-toldSkipped))
	}
	switch {
	case dropped > 0:
		set(v1alpha1.ConditionHolidaysRead, metav1.ConditionFalse, v1alpha1.ReasonHolidaysSkipped,
			"events that are not understood are no holidays: "+strings.Join(append(skipped, expired...), "; "))
	case len(expired) > 0:
		set(v1alpha1.ConditionHolidaysRead, metav1.ConditionFalse, v1alpha1.ReasonHolidaysExpired, strings.Join(expired, "; "))
	default:
		set(v1alpha1.ConditionHolidaysRead, metav1.ConditionTrue, v1alpha1.ReasonHolidaysRead, strings.Join(read, "; "))
	}
}

// differ reports whether two service times differ by more than a tenth.
func differ(a, b time.Duration) bool { return (a - b).Abs() > b/10 }

// renderDecision fills in the last decision and what it says of the backlog.
func renderDecision(status *v1alpha1.ScalingPolicyStatus, d *sizing.Decision, set func(kind string, verdict metav1.ConditionStatus, reason, message string)) {
	decided := &v1alpha1.LastDecision{
		// An API server keeps whole seconds.
		Time: metav1.NewTime(d.Time.Truncate(time.Second)), Ready: d.Observation.Ready, InFlight: d.InFlight, Target: d.Target,
		Constraint: string(d.Constraint), Reason: d.Reason,
	}
	// That the same was decided again just now is no news.
	if was := status.LastDecision; was != nil {
		again := *was
		again.Time = decided.Time
		if again == *decided {
			decided = was
		}
	}
	status.LastDecision = decided
	var unresolved *backlog.UnresolvedError
	switch {
	case errors.As(d.Failure, &unresolved):
		set(v1alpha1.ConditionCredentialsResolved, metav1.ConditionFalse, v1alpha1.ReasonUnresolved, d.Failure.Error())
	case d.Observation.CredentialsFailure != "":
		set(v1alpha1.ConditionCredentialsResolved, metav1.ConditionFalse, v1alpha1.ReasonUnresolved,
			d.Observation.CredentialsFailure+"; the values that were read last are in use")
	default:
		set(v1alpha1.ConditionCredentialsResolved, metav1.ConditionTrue, v1alpha1.ReasonResolved, "all values that the policy refers to are found")
	}
	var absent *backlog.MissingQueuesError
	switch missing := d.Observation.Missing; {
	case errors.As(d.Failure, &absent):
		set(v1alpha1.ConditionBacklogReachable, metav1.ConditionFalse, v1alpha1.ReasonQueueMissing, d.Failure.Error())
	case d.Failure != nil && d.Constraint == sizing.Hold:
		set(v1alpha1.ConditionBacklogReachable, metav1.ConditionFalse, v1alpha1.ReasonHeld, d.Failure.Error())
	case d.Failure != nil:
		set(v1alpha1.ConditionBacklogReachable, metav1.ConditionFalse, v1alpha1.ReasonUnreachable, d.Failure.Error())
	case len(missing) > 0:
		set(v1alpha1.ConditionBacklogReachable, metav1.ConditionTrue, v1alpha1.ReasonQueueMissing,
			sizing.MissingQueues(missing)+": declare it, correct the name, or set onMissingQueue to Error")
	case d.Observation.ManagementFailure != "":
		set(v1alpha1.ConditionBacklogReachable, metav1.ConditionTrue, v1alpha1.ReasonManagementUnreachable,
			d.Observation.ManagementFailure+"; consumers count as busy until nothing has waited for outage.holdFor, and the service time is not observed")
	default:
		set(v1alpha1.ConditionBacklogReachable, metav1.ConditionTrue, v1alpha1.ReasonReachable, "the backlog is read")
	}
}

// summarize sets Ready by the other conditions: what is False, else what is Unknown, else what deserves a word though it is True.
func summarize(status *v1alpha1.ScalingPolicyStatus, set func(kind string, verdict metav1.ConditionStatus, reason, message string)) {
	kinds := []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionCredentialsResolved, v1alpha1.ConditionBacklogReachable}
	for _, verdict := range []metav1.ConditionStatus{metav1.ConditionFalse, metav1.ConditionUnknown} {
		for _, kind := range kinds {
			if c := meta.FindStatusCondition(status.Conditions, kind); c != nil && c.Status == verdict {
				set(v1alpha1.ConditionReady, verdict, c.Reason, c.Message)
				return
			}
		}
	}
	if c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionBacklogReachable); c != nil && c.Status == metav1.ConditionTrue &&
		(c.Reason == v1alpha1.ReasonQueueMissing || c.Reason == v1alpha1.ReasonManagementUnreachable) {
		set(v1alpha1.ConditionReady, metav1.ConditionTrue, c.Reason, c.Message)
		return
	}
	set(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "the newest version is in force and its backlog is read")
}
