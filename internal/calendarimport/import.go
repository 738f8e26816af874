// Package calendarimport makes calendars from what scales on a schedule today: KEDA's cron triggers, CronJobs that scale, and Zalando's
// ScalingSchedules. It reads objects that others fetched.
//
// A calendar has what the author meant: hours on days. What the original did besides is told: what happens to it when clocks change, and
// that a cron trigger stays on where no end comes. Three readings of a schedule are compared for a year, in every minute of it: what it does
// in its zone, by the cron library that KEDA and Kubernetes use; what it would do if clocks never changed; and what was meant. The calendar
// must agree with the last of them wherever clocks are not changing, and may differ from the first only where one of those two reasons holds.
package calendarimport

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/doctor"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

// Kinds that are read of a cluster.
func Kinds() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Group: "keda.sh", Version: "v1alpha1", Resource: "scaledobjects"},
		{Group: "keda.sh", Version: "v1alpha1", Resource: "scaledjobs"},
		{Group: "batch", Version: "v1", Resource: "cronjobs"},
		{Group: "zalando.org", Version: "v1", Resource: "scalingschedules"},
		{Group: "zalando.org", Version: "v1", Resource: "clusterscalingschedules"},
		{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
	}
}

// Imported is the calendar of what scales one workload.
type Imported struct {
	// Source is the object, or the objects, that it is made of.
	Source string
	Policy *v1alpha1.ScalingPolicy
	// Notes are about the whole, and about each period, by its name, what the original does otherwise.
	Notes       []string
	PeriodNotes map[string][]string
	Check       Check

	floorNote, limitNote string
	zone                 *time.Location
}

// original is what scales one workload on a schedule.
type original struct {
	object               doctor.Object
	source               string // of several objects; empty: the object's
	name, namespace      string
	floor, limit         int32
	floorNote, limitNote string
	// together is what happens to parts that are on at the same time; idle that they are added to what work asks for.
	together func(a, b int32) int32
	idle     bool
	additive bool     // the floor is added too
	beside   []string // types of triggers that are not imported
	queue    string   // of one of them
	parts    []*part
	notes    []string
}

// part is one schedule of an original.
type part struct {
	where, name string
	written     string // by its author
	zone        *time.Location
	replicas    int32 // the most of them
	base        int32 // outside of its windows
	windows     []window
	// ran is what it does between two instants; plain what it would do by a clock that never changes, here UTC.
	ran, plain func(from, to time.Time) steps
	who        string // does it
	purpose    string // why it does something that is not meant
	capped     int32  // its replicas, if they are more than the cap
	notes      []string

	daysOverMidnight bool // an end counts on days on which it does not fire
}

// Import makes a calendar for each workload that objects scale on a schedule. Its check is of the year from an instant on. An original that no
// calendar can say is an error that names the object, the trigger and the field; the others are imported all the same.
func Import(objects []doctor.Object, from time.Time) ([]Imported, error) {
	h := horizonFrom(from)
	var originals []*original
	var errs []error
	take := func(made *original, err error) {
		if err != nil {
			errs = append(errs, err)
		} else if made != nil {
			originals = append(originals, made)
		}
	}
	for _, o := range objects {
		switch {
		case (o.GetKind() == "ScaledObject" || o.GetKind() == "ScaledJob") && strings.HasPrefix(o.GetAPIVersion(), "keda.sh/"):
			take(readScaled(o, h))
		}
	}
	jobs, err := readCronJobs(objects, h)
	originals = append(originals, jobs...)
	errs = append(errs, err...)
	schedules, err := readSchedules(objects, h)
	originals = append(originals, schedules...)
	errs = append(errs, err...)
	var imported []Imported
	for _, o := range originals {
		made, err := o.build(h, from)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		imported = append(imported, made)
	}
	if len(imported)+len(errs) == 0 {
		errs = append(errs, errors.New("nothing here scales on a schedule: no ScaledObject or ScaledJob with a cron trigger, no CronJob that scales, no ScalingSchedule"))
	}
	return imported, errors.Join(errs...)
}

// identity of an object for messages: Kind namespace/name (FILE:LINE).
func identity(o doctor.Object) string {
	text := o.GetKind() + " "
	if o.GetNamespace() != "" {
		text += o.GetNamespace() + "/"
	}
	text += o.GetName()
	if o.Source != "" {
		text += " (" + o.Source + ")"
	}
	return text
}

// fault is what can't be imported.
func fault(o doctor.Object, where, field, text string) error {
	at := identity(o)
	if where != "" {
		at += ", " + where
	}
	return fmt.Errorf("%s, %s: %s", at, field, text)
}

// decode reads an object's content.
func decode(o doctor.Object, into any) error {
	text, err := json.Marshal(o.Object)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", identity(o), err)
	}
	return nil
}

func loadZone(name string) (*time.Location, error) {
	zone, err := calendar.LoadZone(name)
	if err != nil {
		return nil, fmt.Errorf("%q %w", name, err)
	}
	return zone, nil
}

// shift is by how many minutes clocks of one zone are ahead of those of another, if that never changes.
func shift(of, before *time.Location, from time.Time) (minute, bool) {
	ahead := func(t time.Time) int {
		_, a := t.In(of).Zone()
		_, b := t.In(before).Zone()
		return a - b
	}
	by, end := ahead(from), from.AddDate(5, 0, 0)
	for _, zone := range []*time.Location{of, before} {
		for _, c := range clockChanges(zone, from, end) {
			if ahead(c.at) != by {
				return 0, false
			}
		}
	}
	return minute(by) / 60, by%60 == 0
}

func (o *original) build(h horizon, from time.Time) (Imported, error) {
	zone := o.parts[0].zone
	from = time.Date(from.Year(), from.Month(), from.Day(), 0, 0, 0, 0, zone)
	to := from.AddDate(1, 0, 0)
	made := Imported{
		Source: o.source, Notes: o.notes, PeriodNotes: map[string][]string{}, floorNote: o.floorNote, limitNote: o.limitNote, zone: zone,
	}
	if made.Source == "" {
		made.Source = identity(o.object)
	}
	var behaviours []behaviour
	for _, p := range o.parts {
		by, ok := shift(zone, p.zone, from)
		if !ok {
			return made, fault(o.object, p.where, "timezone", fmt.Sprintf("a calendar has one time zone, here %s as the first schedule, and %s is not always as far from "+
				"it: write the hours of this one in %s by hand, or give it a separate policy", zone, p.zone, zone))
		}
		if zone.String() != p.zone.String() {
			p.notes = append(p.notes, fmt.Sprintf("its times of %s are written as those of %s", p.zone, zone))
		}
		behaviours = append(behaviours, p.behaviour(by, from, to, o.limit))
		for i := range p.windows {
			p.windows[i] = window{p.windows[i].from + by, p.windows[i].to + by, min(p.windows[i].replicas, o.limit)}
		}
		if p.capped > 0 {
			p.notes = append(p.notes, fmt.Sprintf("%d replicas are more than %s: it never has more than %d", p.replicas, o.limitNote, p.capped))
		}
	}
	parts := o.parts
	if sums := o.together(1, 1) == 2; sums && len(parts) > 1 {
		parts = []*part{sumOf(parts)}
		behaviours = []behaviour{togetherOf(behaviours, sum)}
	}
	c := &v1alpha1.Calendar{TimeZone: zone.String()}
	if o.floor > 0 {
		c.Default.MinReplicas = ptr.To(min(o.floor, o.limit))
	}
	replicas := func(l calendar.Limits) int32 { return l.MinReplicas }
	if o.idle {
		replicas = func(l calendar.Limits) int32 { return l.IdleReplicas }
	}
	var names []string
	for i, p := range parts {
		periods, err := h.periods(merge(p.windows))
		if err != nil {
			return made, fault(o.object, p.where, "its hours", err.Error())
		}
		if len(periods) == 0 {
			return made, fault(o.object, p.where, "its hours", "it is over: no hours of it are still to come")
		}
		for j := range periods {
			periods[j].Name = uniqueName(p.name, j, len(periods), names)
			names = append(names, periods[j].Name)
			if o.idle {
				periods[j].Limits = v1alpha1.Limits{IdleReplicas: periods[j].Limits.MinReplicas}
			}
		}
		alone, err := o.compile(&v1alpha1.Calendar{TimeZone: c.TimeZone, Default: v1alpha1.Limits{MinReplicas: &p.base}, Periods: periods})
		if err != nil {
			return made, fault(o.object, p.where, "its hours", err.Error())
		}
		check, err := compare(behaviours[i], alone, replicas, zone, from, to)
		if err != nil {
			return made, fault(o.object, p.where, "its hours", err.Error())
		}
		made.PeriodNotes[periods[0].Name] = append(append([]string{p.where + ": " + p.written}, p.notes...), p.differences(check, zone)...)
		for _, period := range periods[1:] {
			made.PeriodNotes[period.Name] = []string{p.where + ", its other hours"}
		}
		c.Periods = append(c.Periods, periods...)
	}
	if len(c.Periods) > maxPeriods {
		return made, fault(o.object, "", "its hours", fmt.Sprintf("they take %d periods, and a calendar holds %d: write them by hand", len(c.Periods), maxPeriods))
	}
	compiled, err := o.compile(c)
	if err != nil {
		return made, fault(o.object, "", "its hours", err.Error())
	}
	floor, begin := o.floor, from.AddDate(0, 0, -2)
	if o.idle {
		floor = 0
	}
	whole := togetherOf(behaviours, o.together)
	whole = behaviour{whole.ran.bounded(begin, floor, o.limit), whole.plain.bounded(begin, floor, o.limit), whole.meant.bounded(begin, floor, o.limit)}
	if made.Check, err = compare(whole, compiled, replicas, zone, from, to); err != nil {
		return made, fault(o.object, "", "its hours", err.Error())
	}
	made.Policy = o.policy(c)
	o.addNotes(&made)
	return made, nil
}

func (o *original) compile(c *v1alpha1.Calendar) (*calendar.Calendar, error) {
	compiled, errs := policy.CompileCalendar(c, nil, o.limit, field.NewPath("spec", "calendar"))
	return compiled, errs.ToAggregate()
}

// behaviour of a part, whose clock is so many minutes behind that of the calendar.
func (p *part) behaviour(by minute, from, to time.Time, limit int32) behaviour {
	later := time.Duration(by) * time.Minute
	clock := func(t time.Time) time.Time { return shown(t, p.zone) }
	begin, end := from.AddDate(0, 0, -3), to.AddDate(0, 0, 3)
	plain := slices.Clone(p.plain(clock(begin), clock(end)))
	for i := range plain {
		plain[i].at = plain[i].at.Add(later)
	}
	var near []window
	for _, w := range p.windows {
		if w.to > clock(begin).Unix()/60 && w.from < clock(end).Unix()/60 {
			near = append(near, w)
		}
	}
	meant := stepsOf(near, func(m minute) time.Time { return onWall(m + by) })
	return behaviour{
		p.ran(begin, end).bounded(begin, p.base, limit), plain.bounded(clock(begin).Add(later), p.base, limit),
		meant.bounded(clock(begin).Add(later), p.base, limit),
	}
}

func togetherOf(all []behaviour, together func(a, b int32) int32) behaviour {
	var ran, plain, meant []steps
	for _, b := range all {
		ran, plain, meant = append(ran, b.ran), append(plain, b.plain), append(meant, b.meant)
	}
	return behaviour{combine(ran, together), combine(plain, together), combine(meant, together)}
}

// sumOf is a part for several whose replicas are added up.
func sumOf(parts []*part) *part {
	first := *parts[0]
	var all []steps
	var where, written []string
	first.notes = []string{"their replicas are added up (multipleScalersCalculation: sum)"}
	for _, p := range parts {
		all = append(all, stepsOf(p.windows, onWall))
		where, written = append(where, p.where), append(written, p.written)
		first.notes = append(first.notes, p.notes...)
	}
	first.where, first.written, first.name = strings.Join(where, ", "), strings.Join(written, "; "), "cron"
	first.windows = combine(all, sum).windows()
	return &first
}

// uniqueName of the jth of n periods.
func uniqueName(base string, j, n int, taken []string) string {
	const most = 63
	base = strings.ToValidUTF8(base[:min(len(base), most-6)], "")
	name := base
	if n > 1 {
		name = fmt.Sprintf("%s-%d", base, j+1)
	}
	for i := 2; slices.Contains(taken, name) || name == calendar.DefaultPeriod; i++ {
		name = fmt.Sprintf("%s-%d", base, j+i)
	}
	return name
}

// policy with a calendar, and with what must be written by hand.
func (o *original) policy(c *v1alpha1.Calendar) *v1alpha1.ScalingPolicy {
	p := &v1alpha1.ScalingPolicy{}
	p.APIVersion, p.Kind = v1alpha1.GroupVersion.String(), "ScalingPolicy"
	p.Name, p.Namespace = o.name, o.namespace
	queue := o.queue
	if queue == "" {
		queue = o.name
	}
	p.Spec.Backlog.RabbitMQ = &v1alpha1.RabbitMQBacklog{
		URI:   v1alpha1.ValueSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "CHANGE-ME"}, Key: "uri"}},
		Queue: queue,
	}
	p.Spec.Target.MaxReplicas = ptr.To(o.limit)
	p.Spec.Calendar = c
	return p
}

func (o *original) addNotes(made *Imported) {
	if len(o.beside) > 0 {
		made.Notes = append(made.Notes, fmt.Sprintf("not imported: the triggers beside it (%s). The work they count is the policy's backlog", strings.Join(o.beside, ", ")))
	}
	if o.additive {
		made.Notes = append(made.Notes, "KEDA adds minReplicaCount to the jobs that a ScaledJob's triggers ask for; the policy takes it for a floor, and makes fewer jobs")
	}
	if o.idle {
		made.Notes = append(made.Notes, "KEDA adds the cron triggers to the others (multipleScalersCalculation: sum): idleReplicas do the same")
	}
}

// differences are what a part does otherwise than its periods, in words.
func (p *part) differences(check Check, zone *time.Location) []string {
	const layout, most = "Mon 2006-01-02 15:04", 4
	at := func(t time.Time) string { return t.In(zone).Format(layout) }
	told := func(d stretch) string {
		has := fmt.Sprint(d.least)
		if d.most > d.least {
			has = fmt.Sprintf("%d to %d", d.least, d.most)
		}
		return fmt.Sprintf("%s has %s from %s until %s, the calendar %d", p.who, has, at(d.From), at(d.To), d.Calendar)
	}
	byClock, onPurpose := stretches(check.Differences, ClockChange), stretches(check.Differences, OnPurpose)
	var changes, list []string
	for _, c := range clockChanges(zone, check.From, check.To) {
		changes = append(changes, c.at.In(zone).Format(time.DateOnly))
	}
	switch {
	case len(changes) == 0:
		list = append(list, fmt.Sprintf("clock changes: %s has none", zone))
	case len(byClock) == 0:
		list = append(list, "clock changes ("+strings.Join(changes, ", ")+"): the same")
	}
	for i, d := range byClock {
		if i == most {
			list = append(list, fmt.Sprintf("clock changes: %d more differences", len(byClock)-most))
			break
		}
		list = append(list, "clock change: "+told(d))
	}
	if len(onPurpose) == 0 {
		return append(list, "weekends: the same")
	}
	type pattern struct {
		from, to              string
		least, most, calendar int32
	}
	times, example := map[pattern]int{}, map[pattern]stretch{}
	var order []pattern
	for _, d := range onPurpose {
		const hour = "Mon 15:04"
		k := pattern{d.From.In(zone).Format(hour), d.To.In(zone).Format(hour), d.least, d.most, d.Calendar}
		if times[k]++; times[k] == 1 {
			order, example[k] = append(order, k), d
		}
	}
	slices.SortStableFunc(order, func(a, b pattern) int { return times[b] - times[a] })
	for i, k := range order {
		if i == most {
			list = append(list, fmt.Sprintf("weekends and the like: differences at %d other times of the week", len(order)-most))
			break
		}
		often := "once in the year"
		if times[k] > 1 {
			often = fmt.Sprintf("%d times in the year", times[k])
		}
		list = append(list, fmt.Sprintf("weekends and the like: %s, %s", told(example[k]), often))
	}
	return append(list, "left out on purpose: "+p.purpose+". To keep it, add a period of those hours")
}

// stretch are differences that follow each other, with the least and the most that the original has.
type stretch struct {
	Difference
	least, most int32
}

func stretches(differences []Difference, reason Reason) []stretch {
	var list []stretch
	for _, d := range differences {
		if d.Reason != reason {
			continue
		}
		if n := len(list); n > 0 && list[n-1].To.Equal(d.From) && list[n-1].Calendar == d.Calendar {
			last := &list[n-1]
			last.To, last.least, last.most = d.To, min(last.least, d.Original), max(last.most, d.Original)
			continue
		}
		list = append(list, stretch{d, d.Original, d.Original})
	}
	return list
}
