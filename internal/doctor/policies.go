package doctor

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// condition of a policy by its type, if the scaler wrote one.
func condition(policy Object, kind string) (status metav1.ConditionStatus, reason, message string) {
	for _, c := range list(policy.Object, "status", "conditions") {
		if text(c, "type") == kind {
			return metav1.ConditionStatus(text(c, "status")), text(c, "reason"), text(c, "message")
		}
	}
	return metav1.ConditionUnknown, "", ""
}

// whenFalse is a check of policies of which a condition is False. Unknown is no error: nobody has asked yet.
func whenFalse(kind string) func(*objects, func(Object, string, ...any)) {
	return func(o *objects, found func(Object, string, ...any)) {
		for _, policy := range o.of("ScalingPolicy") {
			if status, _, message := condition(policy, kind); status == metav1.ConditionFalse {
				found(policy, "%s", message)
			}
		}
	}
}

// policyChecks are of policies, and of what the scaler says of them.
func policyChecks() []Check {
	return []Check{
		{
			ID: "EBB203", Severity: Error, Title: "broker unreachable",
			Why: "The last observation holds for holdFor, then only the calendar applies.",
			Fix: "see the condition's message; ebbtide decisions shows since when",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, policy := range o.of("ScalingPolicy") {
					if credentials, _, _ := condition(policy, v1alpha1.ConditionCredentialsResolved); credentials == metav1.ConditionFalse {
						continue // EBB206 says why
					}
					if status, reason, message := condition(policy, v1alpha1.ConditionBacklogReachable); status == metav1.ConditionFalse && reason != v1alpha1.ReasonQueueMissing {
						found(policy, "%s", message)
					}
				}
			},
		},
		{
			ID: "EBB204", Severity: Error, Title: "policy not valid",
			Why:  "The last valid version stays in force, if there is one.",
			Fix:  "correct the field in the message",
			find: whenFalse(v1alpha1.ConditionAccepted),
		},
		{
			ID: "EBB206", Severity: Error, Title: "credentials not found",
			Why:  "A Secret, a ConfigMap or a key of the policy does not exist. The last values are used while they work.",
			Fix:  "create the object in the message, or correct the reference",
			find: whenFalse(v1alpha1.ConditionCredentialsResolved),
		},
		{
			ID: "EBB207", Severity: Error, Title: "queue that does not exist",
			Why: "A missing queue counts as empty or is an error, depending on onMissingQueue. A wrong name looks like no work.",
			Fix: "declare the queue, or correct its name",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, policy := range o.of("ScalingPolicy") {
					if _, reason, message := condition(policy, v1alpha1.ConditionBacklogReachable); reason == v1alpha1.ReasonQueueMissing {
						found(policy, "%s", message)
					}
				}
			},
		},
		{
			ID: "EBB215", Severity: Warning, Title: "management API that tells nothing",
			Why: "Idle consumers are unknown: they count as busy until no message has waited for outage.holdFor. Service times are not observed.",
			Fix: "correct managementURI, or the user's password or tags; the message says which",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, policy := range o.of("ScalingPolicy") {
					if _, reason, message := condition(policy, v1alpha1.ConditionBacklogReachable); reason == v1alpha1.ReasonManagementUnreachable {
						found(policy, "%s", message)
					}
				}
			},
		},
		{
			ID: "EBB208", Severity: Warning, Title: "file of holidays that has ended",
			Why: "After its last date, every holiday counts as an ordinary day.",
			Fix: "put a newer iCalendar file into the ConfigMap; it is read within a minute",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, policy := range o.of("ScalingPolicy") {
					seen := false
					for _, file := range o.holidayFiles(policy) {
						now := o.scope.Now.In(file.zone)
						if file.err != nil {
							found(policy, "%s can't be read: %s", file.field, firstLine(file.err.Error()))
							seen = true
							continue
						}
						ahead := false
						for day := range 366 {
							ahead = ahead || file.days.Is(now.AddDate(0, 0, day))
						}
						if !ahead {
							found(policy, "%s has none in the year to come", file.field)
							seen = true
						}
					}
					if _, reason, message := condition(policy, v1alpha1.ConditionHolidaysRead); reason == v1alpha1.ReasonHolidaysExpired && !seen {
						found(policy, "%s", message)
					}
				}
			},
		},
		{
			ID: "EBB216", Severity: Warning, Title: "holidays that can't be interpreted",
			Why: "A skipped event is not a holiday; its day counts as an ordinary one.",
			Fix: "correct the event in the iCalendar file, or write its dates under exceptions; ebbtide holidays lists the contents of a file",
			find: func(o *objects, found func(Object, string, ...any)) {
				for _, policy := range o.of("ScalingPolicy") {
					seen := false
					for _, file := range o.holidayFiles(policy) {
						if skipped := file.days.NotUnderstood(); len(skipped) > 0 {
							found(policy, "%s skips %d events; %s", file.field, len(skipped), skipped[0])
							seen = true
						}
					}
					if _, reason, message := condition(policy, v1alpha1.ConditionHolidaysRead); reason == v1alpha1.ReasonHolidaysSkipped && !seen {
						found(policy, "%s", message)
					}
				}
			},
		},
	}
}

// holidayFile is an iCalendar file of a policy.
type holidayFile struct {
	field string
	zone  *time.Location
	days  *calendar.Holidays // nil where there is an error
	err   error
}

// holidayFiles are those of a policy that are among the objects.
func (o *objects) holidayFiles(policy Object) []holidayFile {
	zone, err := calendar.LoadZone(text(policy.Object, "spec", "calendar", "timeZone"))
	if err != nil {
		return nil // the scaler says so
	}
	var files []holidayFile
	add := func(field string, holidays map[string]any) {
		source, _ := nested(holidays, "ics")
		if ics, there := o.textOf(policy, source); there {
			file := holidayFile{field: field, zone: zone}
			file.days, file.err = calendar.ParseHolidays(ics, zone)
			files = append(files, file)
		}
	}
	if holidays, ok := nested(policy.Object, "spec", "calendar", "holidays"); ok {
		add("spec.calendar.holidays", holidays)
	}
	for i, holidays := range list(policy.Object, "spec", "calendar", "additionalHolidays") {
		add(fmt.Sprintf("spec.calendar.additionalHolidays[%d]", i), holidays)
	}
	return files
}

// textOf is what a policy's value refers to, if it is among the objects.
func (o *objects) textOf(policy Object, source map[string]any) (value string, there bool) {
	if ics := text(source, "value"); ics != "" {
		return ics, true
	}
	file, ok := o.get("ConfigMap", policy.GetNamespace(), text(source, "configMapKeyRef", "name"))
	if !ok {
		return "", false
	}
	data, _ := nested(file.Object, "data")
	value, there = data[text(source, "configMapKeyRef", "key")].(string)
	return value, there
}

func firstLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}
