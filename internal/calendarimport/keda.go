package calendarimport

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/ptr"

	"github.com/ebbtide-dev/ebbtide/internal/doctor"
	"github.com/ebbtide-dev/ebbtide/internal/keda"
)

// scaled is what is read of a ScaledObject or ScaledJob.
type scaled struct {
	Spec struct {
		MinReplicaCount *int32 `json:"minReplicaCount"`
		MaxReplicaCount *int32 `json:"maxReplicaCount"`
		ScalingStrategy struct {
			MultipleScalersCalculation string `json:"multipleScalersCalculation"`
		} `json:"scalingStrategy"`
		Advanced struct {
			ScalingModifiers struct {
				Formula string `json:"formula"`
			} `json:"scalingModifiers"`
		} `json:"advanced"`
		Triggers []trigger `json:"triggers"`
	} `json:"spec"`
}

type trigger struct {
	Type     string         `json:"type"`
	Name     string         `json:"name"`
	Metadata map[string]any `json:"metadata"` // texts, if KEDA is to take it
}

func (t trigger) text(name string) string {
	if t.Metadata[name] == nil {
		return ""
	}
	return fmt.Sprint(t.Metadata[name])
}

// defaultMax is the maxReplicaCount of KEDA.
const defaultMax = 100

// readScaled reads a ScaledObject or ScaledJob; nil when it has no cron trigger.
func readScaled(o doctor.Object, h horizon) (*original, error) {
	var s scaled
	if err := decode(o, &s); err != nil {
		return nil, err
	}
	made := &original{
		object: o, name: o.GetName(), namespace: o.GetNamespace(), together: larger,
		floor: ptr.Deref(s.Spec.MinReplicaCount, 0), limit: ptr.Deref(s.Spec.MaxReplicaCount, defaultMax),
		limitNote: "maxReplicaCount", floorNote: "minReplicaCount",
	}
	if s.Spec.MaxReplicaCount == nil {
		made.limitNote = "KEDA's default maxReplicaCount"
	}
	queues := 0
	for _, t := range s.Spec.Triggers {
		if t.Type != "cron" {
			queues++
			made.beside = append(made.beside, t.Type)
			if t.Type == "rabbitmq" && made.queue == "" {
				made.queue = t.text("queueName")
			}
		}
	}
	if queues == len(s.Spec.Triggers) {
		return nil, nil
	}
	if s.Spec.Advanced.ScalingModifiers.Formula != "" {
		return nil, fault(o, "", "spec.advanced.scalingModifiers.formula", "a calendar has no formula: write the floor that it makes of the cron triggers by hand")
	}
	if o.GetKind() == "ScaledJob" {
		made.additive = made.floor > 0
		switch how := s.Spec.ScalingStrategy.MultipleScalersCalculation; how {
		case "", "max":
		case "sum":
			made.together, made.idle = sum, queues > 0
		default:
			if len(s.Spec.Triggers) > 1 {
				return nil, fault(o, "", "spec.scalingStrategy.multipleScalersCalculation", fmt.Sprintf("%q of several triggers has no like in a calendar, whose floors "+
					"only raise a target: take the cron triggers' hours as periods by hand", how))
			}
		}
	}
	for i, t := range s.Spec.Triggers {
		if t.Type != "cron" {
			continue
		}
		where := fmt.Sprintf("trigger %d (cron)", i+1)
		if t.Name != "" {
			where = fmt.Sprintf("trigger %d (%s)", i+1, t.Name)
		}
		part, err := readCron(o, where, t, h)
		if err != nil {
			return nil, err
		}
		if part.name = t.Name; part.name == "" {
			part.name = fmt.Sprintf("cron-%d", i+1)
		}
		if part.replicas > made.limit {
			part.capped = made.limit
		}
		made.parts = append(made.parts, part)
	}
	return made, nil
}

func readCron(o doctor.Object, where string, t trigger, h horizon) (*part, error) {
	zoneName, start, end, desired := t.text("timezone"), t.text("start"), t.text("end"), t.text("desiredReplicas")
	for _, required := range []struct{ field, value, example string }{
		{"timezone", zoneName, "Europe/Prague"}, {"start", start, "0 7 * * 1-5"}, {"end", end, "0 19 * * 1-5"}, {"desiredReplicas", desired, "5"},
	} {
		if required.value == "" {
			return nil, fault(o, where, required.field, fmt.Sprintf("it is missing, and KEDA asks for it: write one such as %q", required.example))
		}
	}
	zone, err := loadZone(zoneName)
	if err != nil {
		return nil, fault(o, where, "timezone", err.Error())
	}
	replicas, err := strconv.ParseInt(desired, 10, 32)
	if err != nil || replicas < 1 {
		return nil, fault(o, where, "desiredReplicas", fmt.Sprintf("%q must be a number from 1 on", desired))
	}
	for _, expression := range [][2]string{{"start", start}, {"end", end}} {
		if strings.Contains(expression[1], "TZ=") {
			return nil, fault(o, where, expression[0], fmt.Sprintf("%q names a time zone: write it as timezone", expression[1]))
		}
	}
	if start == end {
		return nil, fault(o, where, "end", fmt.Sprintf("%q is the start too, which KEDA refuses", end))
	}
	original, err := keda.NewCron(zone, start, end, replicas)
	if err != nil {
		return nil, fault(o, where, "start, end", err.Error())
	}
	from, to := original.Schedules()
	starts, err := h.ticks(from)
	if err != nil {
		return nil, fault(o, where, "start", fmt.Sprintf("%q: %v", start, err))
	}
	ends, err := h.ticks(to)
	if err != nil {
		return nil, fault(o, where, "end", fmt.Sprintf("%q: %v", end, err))
	}
	p := &part{
		where: where, zone: zone, replicas: int32(replicas), daysOverMidnight: sameDays(from, to),
		written: fmt.Sprintf("start %s, end %s, %d replicas", start, end, replicas),
		purpose: "no start comes between two ends, and KEDA keeps a cron trigger on until its next end",
		who:     "KEDA",
	}
	// An end counts on days on which it does not fire where both are written with the same days: nobody means that a night of Friday lasts
	// until Monday.
	if p.daysOverMidnight {
		ends = nil
		at := times(to)
		for d := h.first - leadIn; d < h.last+leadIn; d++ {
			for _, m := range at {
				ends = append(ends, d*dayMinutes+m)
			}
			if len(ends) > maxTicks {
				return nil, fault(o, where, "end", "it fires too often for periods of a calendar: write the hours by hand")
			}
		}
	}
	next, repeated := 0, false
	for i, s := range starts {
		for next < len(ends) && ends[next] <= s {
			next++
		}
		if next == len(ends) {
			break
		}
		if i+1 < len(starts) && starts[i+1] < ends[next] {
			repeated = true
			continue
		}
		p.windows = append(p.windows, window{s, ends[next], int32(replicas)})
	}
	if repeated {
		p.notes = append(p.notes, "of several starts before an end, KEDA is on from the last one, and so is the period")
	}
	inUTC, err := keda.NewCron(time.UTC, start, end, replicas)
	if err != nil {
		return nil, fault(o, where, "start, end", err.Error())
	}
	p.ran = func(from, to time.Time) steps { return cronSteps(original, zone, from, to) }
	p.plain = func(from, to time.Time) steps { return cronSteps(inUTC, time.UTC, from, to) }
	return p, nil
}

// cronSteps are the changes of a trigger's value. Between two ticks of its schedules nothing changes, as long as the library that looks for the
// next ones finds the same ones: on days on which clocks change that depends on when it is asked, so there it is asked every minute.
func cronSteps(c *keda.Cron, zone *time.Location, from, to time.Time) steps {
	var list steps
	changes := clockChanges(zone, from.AddDate(0, 0, -2), to.AddDate(0, 0, 2))
	for t := from; t.Before(to); {
		list = list.add(t, int32(c.Value(t)))
		for len(changes) > 0 && t.After(changes[0].at.Add(nearChange)) {
			changes = changes[1:]
		}
		next := t.Truncate(24 * time.Hour).Add(24 * time.Hour)
		if tick := c.NextChange(t); !tick.IsZero() && tick.Before(next) {
			next = tick
		}
		if len(changes) > 0 {
			if near := changes[0].at.Add(-nearChange); !t.Before(near) {
				next = t.Truncate(time.Minute).Add(time.Minute)
			} else if near.Before(next) {
				next = near
			}
		}
		t = next
	}
	return list
}

// nearChange is how near a clock change is when it matters.
const nearChange = 26 * time.Hour
