package calendarimport

import (
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/internal/doctor"
)

// scalingSchedule is what is read of a ScalingSchedule or ClusterScalingSchedule (zalando.org/v1).
type scalingSchedule struct {
	Spec struct {
		ScalingWindowDurationMinutes *int64     `json:"scalingWindowDurationMinutes"`
		Schedules                    []schedule `json:"schedules"`
	} `json:"spec"`
}

type schedule struct {
	Type   string `json:"type"`
	Period *struct {
		StartTime string   `json:"startTime"`
		EndTime   string   `json:"endTime"`
		Days      []string `json:"days"`
		Timezone  string   `json:"timezone"`
	} `json:"period"`
	Date            string `json:"date"`
	EndDate         string `json:"endDate"`
	DurationMinutes int64  `json:"durationMinutes"`
	Value           int64  `json:"value"`
}

const (
	// zalandoZone, rampMinutes and rampSteps are the defaults of kube-metrics-adapter.
	zalandoZone            = "Europe/Berlin"
	rampMinutes, rampSteps = 10, 10
)

// readSchedules makes an original of each HorizontalPodAutoscaler that follows schedules, and one of each schedule that none here follows.
func readSchedules(objects []doctor.Object, h horizon) ([]*original, []error) {
	schedules := map[string]doctor.Object{}
	var names []string
	key := func(kind, namespace, name string) string {
		if kind == "ClusterScalingSchedule" {
			namespace = ""
		}
		return kind + " " + namespace + "/" + name
	}
	for _, o := range objects {
		if k := o.GetKind(); (k == "ScalingSchedule" || k == "ClusterScalingSchedule") && strings.HasPrefix(o.GetAPIVersion(), "zalando.org/") {
			id := key(k, o.GetNamespace(), o.GetName())
			schedules[id] = o
			names = append(names, id)
		}
	}
	var list []*original
	var errs []error
	followed := map[string]bool{}
	for _, o := range objects {
		if o.GetKind() != "HorizontalPodAutoscaler" || len(schedules) == 0 {
			continue
		}
		var hpa autoscalingv2.HorizontalPodAutoscaler
		if err := decode(o, &hpa); err != nil {
			errs = append(errs, err)
			continue
		}
		made := &original{
			object: o, name: hpa.Spec.ScaleTargetRef.Name, namespace: hpa.Namespace, together: larger,
			floor: ptr.Deref(hpa.Spec.MinReplicas, 1), floorNote: "minReplicas of the HorizontalPodAutoscaler",
			limit: hpa.Spec.MaxReplicas, limitNote: "maxReplicas of the HorizontalPodAutoscaler",
		}
		var err error
		for i, m := range hpa.Spec.Metrics {
			field := fmt.Sprintf("spec.metrics[%d].object.target", i)
			if m.Object == nil {
				made.beside = append(made.beside, string(m.Type))
				continue
			}
			id := key(m.Object.DescribedObject.Kind, hpa.Namespace, m.Object.DescribedObject.Name)
			source, ok := schedules[id]
			if !ok {
				made.beside = append(made.beside, m.Object.DescribedObject.Kind)
				continue
			}
			followed[id] = true
			if m.Object.Target.AverageValue == nil || m.Object.Target.AverageValue.MilliValue() <= 0 {
				err = fault(o, "", field, "only averageValue says how many replicas a value is: write the periods' minReplicas by hand")
				break
			}
			var parts []*part
			var notes []string
			if parts, notes, err = readSchedule(source, h, m.Object.Target.AverageValue.MilliValue(), made.limit); err != nil {
				break
			}
			made.parts, made.notes = append(made.parts, parts...), append(made.notes, notes...)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case len(made.parts) > 0:
			list = append(list, made)
		}
	}
	for _, id := range names {
		if followed[id] {
			continue
		}
		o := schedules[id]
		parts, notes, err := readSchedule(o, h, 1000, 0)
		if err == nil && len(parts) == 0 {
			err = fault(o, "", "spec.schedules", "all of them are over: "+strings.Join(notes, "; "))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		made := &original{
			object: o, name: o.GetName(), namespace: o.GetNamespace(), together: larger, parts: parts, limitNote: "the highest value: write what you allow",
			notes: append(notes, "no HorizontalPodAutoscaler here follows it, so a value of 1 counts as a replica: import it with the HorizontalPodAutoscaler for others"),
		}
		for _, p := range parts {
			made.limit = max(made.limit, p.replicas)
		}
		list = append(list, made)
	}
	return list, errs
}

// readSchedule reads the schedules of one object; target is what a replica takes of their value, in thousandths.
func readSchedule(o doctor.Object, h horizon, target int64, limit int32) (parts []*part, notes []string, err error) {
	var s scalingSchedule
	if err := decode(o, &s); err != nil {
		return nil, nil, err
	}
	if len(s.Spec.Schedules) == 0 {
		return nil, nil, fault(o, "", "spec.schedules", "it has none")
	}
	// Dates are written in the zone of the schedules beside them.
	zone, err := loadZone(zalandoZone)
	if err != nil {
		return nil, nil, err
	}
	for _, one := range s.Spec.Schedules {
		if one.Period != nil {
			if found, err := loadZone(one.Period.Timezone); err == nil && one.Period.Timezone != "" {
				zone = found
				break
			}
		}
	}
	ramp := ptr.Deref(s.Spec.ScalingWindowDurationMinutes, rampMinutes)
	for i, one := range s.Spec.Schedules {
		where := fmt.Sprintf("schedule %d", i+1)
		wrong := func(field, text string) error {
			return fault(o, where, fmt.Sprintf("spec.schedules[%d].%s", i, field), text)
		}
		if one.Value < 1 || (one.Value*1000+target-1)/target > 1_000_000 {
			return nil, nil, wrong("value", fmt.Sprintf("%d makes no number of replicas", one.Value))
		}
		perReplica := func(value int64) int32 { return int32((value*1000 + target - 1) / target) }
		p := &part{where: o.GetKind() + " " + o.GetName() + ", " + where, name: o.GetName(), replicas: perReplica(one.Value), who: "the schedule"}
		if len(s.Spec.Schedules) > 1 {
			p.name = fmt.Sprintf("%s-%d", o.GetName(), i+1)
		}
		if limit > 0 && p.replicas > limit {
			p.capped = limit
		}
		z := zalando{zone: zone, value: one.Value, replicas: perReplica, ramp: time.Duration(ramp) * time.Minute}
		var field string
		var err error
		switch one.Type {
		case "Repeating":
			field, err = z.repeating(one, p, h)
		case "OneTime":
			if field, err = z.oneTime(one, p); err == nil && p.windows[0].from < h.first*dayMinutes {
				notes = append(notes, fmt.Sprintf("%s, of %s, has begun before the first day that is compared, and is left out", p.where, one.Date))
				continue
			}
		default:
			field, err = "type", fmt.Errorf("%q must be OneTime or Repeating", one.Type)
		}
		if err != nil {
			return nil, nil, wrong(field, err.Error())
		}
		if ramp > 0 {
			p.notes = append(p.notes, fmt.Sprintf("it rises and falls over %d minutes before and after its hours; the period holds at once, so give it a leadTime where "+
				"the first minutes matter", ramp))
		}
		parts = append(parts, p)
	}
	return parts, notes, nil
}

// zalando is one schedule as kube-metrics-adapter follows it: it looks at the start of the day that it is, and no other.
type zalando struct {
	value    int64
	replicas func(value int64) int32
	ramp     time.Duration
	zone     *time.Location
	days     [7]bool
	from, to minute // of a day
	duration time.Duration
	start    time.Time // of one that comes once
	end      time.Time
}

func (z zalando) repeating(s schedule, p *part, h horizon) (field string, err error) {
	if s.Period == nil {
		return "period", fmt.Errorf("it is missing: write startTime, days and timezone")
	}
	if z.from, err = parseClock(s.Period.StartTime); err != nil {
		return "period.startTime", err
	}
	z.to, z.duration = z.from, time.Duration(s.DurationMinutes)*time.Minute
	if s.Period.EndTime != "" {
		if z.to, err = parseClock(s.Period.EndTime); err != nil {
			return "period.endTime", err
		}
		if z.to < z.from && z.duration == 0 {
			return "period.endTime", fmt.Errorf("%s is before startTime %s, so that it is never on: correct it, or write a period of the night by hand",
				s.Period.EndTime, s.Period.StartTime)
		}
	}
	name := s.Period.Timezone
	if z.zone, err = loadZone(name); err != nil || name == "" {
		if z.zone, err = loadZone(zalandoZone); err != nil {
			return "period.timezone", err
		}
		p.notes = append(p.notes, fmt.Sprintf("its timezone %q is not known, and %s is taken, as kube-metrics-adapter does unless told otherwise", name, zalandoZone))
	}
	p.zone = z.zone
	if len(s.Period.Days) == 0 {
		return "period.days", fmt.Errorf("it has none, so that it is never on")
	}
	for _, text := range s.Period.Days {
		d := slices.IndexFunc([]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}, func(name string) bool { return name == text })
		if d < 0 {
			return "period.days", fmt.Errorf("%q must be Mon, Tue, Wed, Thu, Fri, Sat or Sun", text)
		}
		z.days[d] = true
	}
	length := max(z.to-z.from, s.DurationMinutes)
	if length <= 0 {
		return "durationMinutes", fmt.Errorf("it is 0, and there is no endTime: the schedule has no hours")
	}
	for d := h.first - leadIn; d < h.last+leadIn; d++ {
		if z.days[dateOf(d).Weekday()] {
			p.windows = append(p.windows, window{d*dayMinutes + z.from, d*dayMinutes + z.from + length, p.replicas})
		}
	}
	p.written = fmt.Sprintf("%s from %s for %s, value %d, %d replicas", strings.Join(s.Period.Days, ", "), s.Period.StartTime, hours(length), s.Value, p.replicas)
	p.purpose = "kube-metrics-adapter looks at the start of the same day only, which ends it at midnight, and raises and lowers its value by steps"
	p.ran = func(from, to time.Time) steps { return z.steps(z.zone, from, to) }
	p.plain = func(from, to time.Time) steps { return z.steps(time.UTC, from, to) }
	return "", nil
}

func (z zalando) oneTime(s schedule, p *part) (field string, err error) {
	if z.start, err = time.Parse(time.RFC3339, s.Date); err != nil {
		return "date", fmt.Errorf("%q must be a time such as 2026-11-27T09:00:00+01:00", s.Date)
	}
	z.end = z.start
	if s.EndDate != "" {
		if z.end, err = time.Parse(time.RFC3339, s.EndDate); err != nil {
			return "endDate", fmt.Errorf("%q must be a time such as 2026-11-27T17:00:00+01:00", s.EndDate)
		}
	}
	if by := z.start.Add(time.Duration(s.DurationMinutes) * time.Minute); by.After(z.end) {
		z.end = by
	}
	if !z.end.After(z.start) {
		return "endDate", fmt.Errorf("it ends when it starts: write endDate or durationMinutes")
	}
	p.zone = z.zone
	from, to := shown(z.start, z.zone).Unix()/60, (shown(z.end, z.zone).Unix()+59)/60
	p.windows = []window{{from, to, p.replicas}}
	p.written = fmt.Sprintf("once, from %s until %s, value %d, %d replicas", s.Date, z.end.Format(time.RFC3339), s.Value, p.replicas)
	p.purpose = "kube-metrics-adapter raises and lowers its value by steps"
	p.ran = func(_, _ time.Time) steps { return z.once(z.start, z.end) }
	p.plain = func(_, _ time.Time) steps { return z.once(shown(z.start, z.zone), shown(z.end, z.zone)) }
	return "", nil
}

// once are the steps of a schedule that comes once.
func (z zalando) once(start, end time.Time) steps {
	var list steps
	for _, t := range z.edges(nil, start, end) {
		list = list.add(t, z.replicas(z.valueAt(t, start, end)))
	}
	return list
}

// at is the value at an instant, in a time zone.
func (z zalando) at(t time.Time, zone *time.Location) int64 {
	local := t.In(zone)
	if !z.days[local.Weekday()] {
		return 0
	}
	start, end := z.today(local, zone)
	return z.valueAt(t, start, end)
}

func (z zalando) valueAt(t, start, end time.Time) int64 {
	switch {
	case !t.Before(start) && t.Before(end):
		return z.value
	case !t.Before(start.Add(-z.ramp)) && t.Before(start):
		return z.part(t.Sub(start.Add(-z.ramp)))
	case !t.Before(end) && t.Before(end.Add(z.ramp)):
		return z.part(end.Add(z.ramp).Sub(t))
	}
	return 0
}

func (z zalando) today(local time.Time, zone *time.Location) (start, end time.Time) {
	at := func(m minute) time.Time {
		return time.Date(local.Year(), local.Month(), local.Day(), int(m/60), int(m%60), 0, 0, zone)
	}
	start, end = at(z.from), at(z.to)
	if by := start.Add(z.duration); by.After(end) {
		end = by
	}
	return start, end
}

func (z zalando) part(of time.Duration) int64 {
	return int64(float64(int64(of*rampSteps/z.ramp)) * float64(z.value) / rampSteps)
}

func (z zalando) steps(zone *time.Location, from, to time.Time) steps {
	var all []time.Time
	for local := from.In(zone).AddDate(0, 0, -1); local.Before(to); local = local.AddDate(0, 0, 1) {
		start, end := z.today(local, zone)
		midnight := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, zone)
		all = append(all, midnight)
		if !z.days[local.Weekday()] {
			continue
		}
		all = z.edges(all, start, end)
	}
	var list steps
	slices.SortFunc(all, time.Time.Compare)
	for _, t := range all {
		list = list.add(t, z.replicas(z.at(t, zone)))
	}
	return list
}

// edges adds the instants at which the value between two may change, and sorts them.
func (z zalando) edges(all []time.Time, start, end time.Time) []time.Time {
	all = append(all, start, end)
	for i := range time.Duration(rampSteps) {
		all = append(all, start.Add(-z.ramp+z.ramp*i/rampSteps), end.Add(z.ramp*(i+1)/rampSteps), end.Add(z.ramp*i/rampSteps+1)) // just after a step is the next one
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}

func parseClock(text string) (minute, error) {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf("%q must be a time HH:MM", text)
	}
	return minute(t.Hour()*60 + t.Minute()), nil
}
