package calendarimport

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/doctor"
	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

// begin is the first day of the year that is compared.
var begin = time.Date(2026, 11, 26, 15, 0, 0, 0, time.UTC)

func parse(t *testing.T, text string) []doctor.Object {
	t.Helper()
	objects, err := doctor.Parse("a.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func scaledObject(triggers string) string {
	return "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: web, namespace: shop}\nspec:\n  maxReplicaCount: 50\n  triggers:\n" + triggers
}

func cronTrigger(zone, start, end, replicas string) string {
	return fmt.Sprintf("  - {type: cron, metadata: {timezone: %s, start: %q, end: %q, desiredReplicas: %q}}\n", zone, start, end, replicas)
}

func cronJob(name, schedule, zone, command string) string {
	if zone != "" {
		zone = "\n  timeZone: " + zone
	}
	return fmt.Sprintf("---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: %s, namespace: shop}\nspec:\n  schedule: %q%s\n"+
		"  jobTemplate: {spec: {template: {spec: {containers: [{name: kubectl, image: kubectl, %s}]}}}}\n", name, schedule, zone, command)
}

func schedules(list string) string {
	return "---\napiVersion: zalando.org/v1\nkind: ScalingSchedule\nmetadata: {name: event, namespace: shop}\nspec:\n  scalingWindowDurationMinutes: 0\n  schedules:\n" + list
}

func follower(average string) string {
	return `---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: hpa, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 40
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
  - type: Object
    object:
      describedObject: {apiVersion: zalando.org/v1, kind: ScalingSchedule, name: event}
      metric: {name: event}
      target: ` + average + "\n"
}

// periodsOf are those of a calendar on one line each.
func periodsOf(i Imported) string {
	var rows []string
	for _, p := range i.Policy.Spec.Calendar.Periods {
		text := strings.Join(append(append([]string{}, p.Days...), p.Months...), ",") + " " + p.From + "-" + p.To
		switch {
		case p.Limits.MinReplicas != nil:
			text += fmt.Sprintf(" %d", *p.Limits.MinReplicas)
		case p.Limits.IdleReplicas != nil:
			text += fmt.Sprintf(" idle %d", *p.Limits.IdleReplicas)
		}
		rows = append(rows, strings.TrimSpace(text))
	}
	return strings.Join(rows, "; ")
}

// What happens to schedules, what the import reports about them, and in how many minutes of the year both are the same: of 525,600.
func TestImport(t *testing.T) {
	const all = 365 * 24 * 60
	const weekends = 52 * 48 * 60 // from Saturday 06:00 until Monday 06:00
	for name, c := range map[string]struct {
		text, periods string
		same          int64
		notes         []string // parts of what the document says
	}{
		"hours of weekdays": {
			scaledObject(cronTrigger("Europe/Prague", "0 7 * * 1-5", "0 19 * * 1-5", "5")), "Mon-Fri 07:00-19:00 5", all,
			[]string{"# clock changes (2027-03-28, 2027-10-31): the same", "# weekends: the same", "target: {maxReplicas: 50} # maxReplicaCount"},
		},
		"nights of weekdays": { // KEDA is on from Friday evening until Monday morning
			scaledObject(cronTrigger("Europe/Prague", "0 22 * * 1-5", "0 6 * * 1-5", "5")), "Mon-Fri 22:00-06:00 5", all - weekends,
			[]string{"KEDA has 5 from Sat 2026-11-28 06:00 until Mon 2026-11-30 06:00, the calendar 0, 52 times", "left out on purpose: no start comes between"},
		},
		"nights that end on the days after": {
			scaledObject(cronTrigger("Europe/Prague", "0 22 * * 1-5", "0 6 * * 2-6", "5")), "Mon-Fri 22:00-06:00 5", all, []string{"weekends: the same"},
		},
		"ends at the weekend too": { // from Friday 19:00 until Sunday 19:00
			scaledObject(cronTrigger("UTC", "0 7 * * 1-5", "0 19 * * *", "5")), "Mon-Fri 07:00-19:00 5", all - 52*48*60,
			[]string{"KEDA has 5 from Fri 2026-11-27 19:00 until Sun 2026-11-29 19:00", "clock changes: UTC has none"},
		},
		"over the weekend": {
			scaledObject(cronTrigger("Europe/Prague", "0 18 * * 5", "0 6 * * 1", "5")), "Fri 18:00-Mon 06:00 5", all, nil,
		},
		"a start that clocks skip": { // on from 03:30 of the day before, until 03:00 when the period's half hour begins and ends
			scaledObject(cronTrigger("America/New_York", "30 2 * * *", "30 3 * * *", "5")), "02:30-03:30 5", all - (23*60 - 30),
			[]string{"clock change: KEDA has 5 from Sat 2027-03-13 03:30 until Sun 2027-03-14 03:00, the calendar 0"},
		},
		"an end that clocks skip": { // 01:30-02:30: that night the hour is lost
			scaledObject(cronTrigger("Europe/Prague", "30 1 * * *", "30 2 * * *", "5")), "01:30-02:30 5", -1, []string{"clock change: KEDA has 0 from Sun 2027-03-28 01:30"},
		},
		"a night of summer": { // KEDA is on from September until June
			scaledObject(cronTrigger("UTC", "0 22 * 6-8 *", "0 6 * 6-8 *", "5")), "Jun-Aug 22:00-06:00 5", -1,
			[]string{"KEDA has 5 from Thu 2026-11-26 00:00 until Tue 2027-06-01 06:00"},
		},
		"the first of the month": {
			scaledObject(cronTrigger("UTC", "0 8 1 * *", "0 20 3 * *", "5")), "day 1 08:00-20:00 +2 5", all, nil,
		},
		"days of the month or the week": {
			scaledObject(cronTrigger("UTC", "0 8 1,15 * 1", "0 20 1,15 * 1", "5")), "Mon,day 1,day 15 08:00-20:00 5", all, nil,
		},
		"days that wrap": {
			scaledObject(cronTrigger("Asia/Kolkata", "0 9 * * 0-4", "30 17 * * 0-4", "5")), "Sun-Thu 09:00-17:30 5", all, nil,
		},
		"several hours a day": {
			scaledObject(cronTrigger("Europe/Prague", "0 8,14 * * 1-5", "0 12,18 * * 1-5", "7")), "Mon-Fri 08:00-12:00 7; Mon-Fri 14:00-18:00 7", all, nil,
		},
		"several starts": {
			scaledObject(cronTrigger("UTC", "0 7-9 * * *", "0 19 * * *", "5")), "09:00-19:00 5", all, []string{"KEDA is on from the last one"},
		},
		"two triggers, two zones that are one, more than the cap": {
			scaledObject(cronTrigger("Europe/Prague", "0 7 * * 1-5", "0 19 * * 1-5", "5") + cronTrigger("Europe/Berlin", "0 9 * * 1-5", "0 12 * * 1-5", "60")),
			"Mon-Fri 07:00-19:00 5; Mon-Fri 09:00-12:00 50", all, []string{"its times of Europe/Berlin are written as those of Europe/Prague", "60 replicas are more than maxReplicaCount"},
		},
		"a zone half an hour away": {
			scaledObject(cronTrigger("UTC", "0 7 * * 1", "0 19 * * 1", "5") + cronTrigger("Asia/Kolkata", "0 3 * * 1-5", "0 7 * * 1-5", "9")),
			"Mon 07:00-19:00 5; Sun-Thu 21:30-01:30 9", all, nil,
		},
		"beside a queue, of a ScaledJob": {
			strings.Replace(strings.Replace(scaledObject(cronTrigger("UTC", "0 7 * * *", "0 19 * * *", "5")+"  - {type: rabbitmq, metadata: {queueName: scans}}\n"),
				"ScaledObject", "ScaledJob", 1), "spec:", "spec:\n  minReplicaCount: 2", 1),
			"07:00-19:00 5", all, []string{"queue: scans", "the triggers beside it (rabbitmq)", "default: {minReplicas: 2} # minReplicaCount"},
		},
		"added to a queue": {
			strings.Replace(strings.Replace(scaledObject(cronTrigger("UTC", "0 7 * * *", "0 19 * * *", "5")+cronTrigger("UTC", "0 9 * * *", "0 12 * * *", "3")+
				"  - {type: kafka, metadata: {}}\n"), "ScaledObject", "ScaledJob", 1), "spec:", "spec:\n  scalingStrategy: {multipleScalersCalculation: sum}", 1),
			"07:00-09:00 idle 5; 09:00-12:00 idle 8; 12:00-19:00 idle 5", all, nil,
		},
		"on and off": {
			cronJob("up", "0 7 * * 1-5", "Europe/Prague", "command: [kubectl, scale, deployment/web, --replicas=10]") +
				cronJob("down", "0 19 * * 1-5", "Europe/Prague", `command: [/bin/sh, -c], args: ["set -e\nkubectl scale -n shop deploy web --replicas $N # night"], env: [{name: "N", value: "2"}]`) +
				cronJob("backup", "0 1 * * *", "", "command: [pg_dump]"),
			"Mon-Fri 07:00-19:00 10", all, []string{"default: {minReplicas: 2}", "# Of CronJob shop/up (a.yaml:2), CronJob shop/down"},
		},
		"off at the weekend, by patches, in no zone": {
			cronJob("sleep", "0 20 * * 5", "", `args: [patch, scaledobject, web, --type=merge, -p, '{"spec":{"minReplicaCount":0}}']`) +
				cronJob("wake", "0 6 * * 1", "", `args: [patch, so/web, --type=json, -p, '[{"op":"replace","path":"/spec/minReplicaCount","value":4}]']`),
			"Mon 06:00-Fri 20:00 4", all, []string{"assumed to be UTC"},
		},
		"three steps": {
			cronJob("a", "0 6 * * *", "UTC", "args: [scale, sts/web, --replicas=3]") + cronJob("b", "0 9 * * *", "UTC", "args: [scale, sts/web, --replicas=8]") +
				cronJob("c", "0 20 * * *", "UTC", "args: [scale, sts/web, --replicas=0]"),
			"06:00-09:00 3; 09:00-20:00 8", all, nil,
		},
		"a CronJob that clocks skip": { // it is not run on that day
			cronJob("up", "30 2 * * *", "Europe/Prague", "args: [scale, deploy/web, --replicas=$(UP)], env: [{name: UP, value: '3'}]") + cronJob("down", "0 9 * * *", "Europe/Prague", "args: [scale, deploy/web, --replicas=0]"),
			"02:30-09:00 3", all - 6*60, []string{"clock change: the CronJob has 0 from Sun 2027-03-28 03:00 until Sun 2027-03-28 09:00, the calendar 3"},
		},
		"a schedule that nobody follows": {
			schedules("  - {type: Repeating, value: 12, durationMinutes: 90, period: {startTime: \"15:45\", timezone: Europe/Berlin, days: [Mon, Wed, Fri]}}\n"),
			"Mon,Wed,Fri 15:45-17:15 12", all, []string{"a value of 1 counts as a replica"},
		},
		"a schedule over midnight, followed": { // what is after midnight is lost
			schedules("  - {type: Repeating, value: 115, durationMinutes: 120, period: {startTime: \"23:00\", timezone: Europe/Berlin, days: [Mon]}}\n") + follower("{type: AverageValue, averageValue: 10}"),
			"Mon 23:00-01:00 12", all - 52*60, []string{"default: {minReplicas: 2}", "looks at the start of the same day only", "the triggers beside it (Resource)"},
		},
		"once": {
			schedules("  - {type: OneTime, value: 3, date: \"2027-10-02T22:00:00+02:00\", endDate: \"2027-10-04T06:00:00+02:00\"}\n  - {type: OneTime, value: 3, date: \"2021-10-02T22:00:00Z\", durationMinutes: 5}\n"),
			"2027-10-02 22:00-06:00 +2 3", all, []string{"has begun before the first day"},
		},
		"by steps": {
			strings.Replace(schedules("  - {type: Repeating, value: 10, durationMinutes: 60, period: {startTime: \"12:00\", timezone: UTC, days: [Mon]}}\n"), "Minutes: 0", "Minutes: 10", 1),
			"Mon 12:00-13:00 10", all - 52*19, []string{"it rises and falls over 10 minutes"}, // 9 minutes before, 10 after
		},
	} {
		t.Run(name, func(t *testing.T) {
			imported, err := Import(parse(t, c.text), begin)
			if err != nil || len(imported) != 1 {
				t.Fatalf("%d calendars: %v", len(imported), err)
			}
			if got := periodsOf(imported[0]); got != c.periods {
				t.Errorf("periods %s, want %s", got, c.periods)
			}
			document := imported[0].YAML()
			if got := imported[0].Check.Same; c.same >= 0 && got != c.same {
				t.Errorf("the same in %d minutes, want %d:\n%s", got, c.same, document)
			}
			unfolded := strings.NewReplacer("\n#   ", " ", "\n    #   ", " ").Replace(document)
			for _, want := range c.notes {
				if !strings.Contains(unfolded, want) {
					t.Errorf("%q is missing from:\n%s", want, document)
				}
			}
			// The document loads as it is, and means what was checked.
			path := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
				t.Fatal(err)
			}
			loaded, err := policy.ReadFile(t.Context(), path)
			if err != nil {
				t.Fatalf("%v:\n%s", err, document)
			}
			same := compiledOf(t, imported[0].Policy.Spec.Calendar)
			for at := begin; at.Before(begin.AddDate(1, 0, 0)); at = at.Add(97 * time.Minute) {
				if got, want := loaded[0].Calendar.Limits(at).MinReplicas, same.Limits(at).MinReplicas; got != want {
					t.Fatalf("at %s the document says %d, and not %d", at, got, want)
				}
			}
		})
	}
}

func compiledOf(t *testing.T, c *v1alpha1.Calendar) *calendar.Calendar {
	t.Helper()
	compiled, errs := policy.CompileCalendar(c, nil, 1000, field.NewPath("spec", "calendar"))
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	return compiled
}

// The check of a year says of every minute what looking at that minute says: near clock changes, and elsewhere.
func TestCheckIsThatOfEveryMinute(t *testing.T) {
	random := rand.New(rand.NewPCG(19, 1)) //nolint:gosec // no secret
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	expression := func() string {
		days := pick("* * *", "* * 1-5", "* * 1-5", "* * 0,6", "1 * *", "* 3-10 *", "1,15 * 1")
		return fmt.Sprintf("%s %s %s", pick("0", "30", "15"), pick("0", "1", "2", "2", "3", "7", "18", "22", "8,14"), days)
	}
	compared := 0
	for range 40 {
		zone, start, end := pick("Europe/Prague", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Beirut", "UTC"), expression(), expression()
		imported, err := Import(parse(t, scaledObject(cronTrigger(zone, start, end, "5"))), begin)
		if err != nil {
			continue // two that are the same, or windows of months
		}
		compared++
		location, err := loadZone(zone)
		if err != nil {
			t.Fatal(err)
		}
		original, err := keda.NewCron(location, start, end, 5)
		if err != nil {
			t.Fatal(err)
		}
		c, check := compiledOf(t, imported[0].Policy.Spec.Calendar), imported[0].Check
		looked := []time.Time{check.From.AddDate(0, 0, random.IntN(300))}
		for _, change := range clockChanges(location, check.From.AddDate(0, 0, 4), check.To.AddDate(0, 0, -4)) {
			looked = append(looked, change.at.AddDate(0, 0, -4))
		}
		for _, first := range looked {
			for at := first.Truncate(time.Minute); at.Before(first.AddDate(0, 0, 8)); at = at.Add(time.Minute) {
				want, got := int32(original.Value(at)), c.Limits(at).MinReplicas
				inside := slices.ContainsFunc(check.Differences, func(d Difference) bool { return !at.Before(d.From) && at.Before(d.To) })
				if inside != (want != got) {
					t.Fatalf("%s: %q to %q at %s: KEDA %d, the calendar %d, and the check says otherwise", zone, start, end, at.In(location), want, got)
				}
			}
		}
	}
	if compared < 15 {
		t.Errorf("only %d compared", compared)
	}
}

// Every error names the object, where in it, and what would be right.
func TestImportErrors(t *testing.T) {
	const hours = `period: {startTime: "08:00", timezone: UTC, days: [Mon]}`
	for name, c := range map[string]struct{ text, want string }{
		"no zone":     {scaledObject(cronTrigger(`""`, "0 7 * * *", "0 8 * * *", "5")), "ScaledObject shop/web (a.yaml:1), trigger 1 (cron), timezone: it is missing"},
		"wrong zone":  {scaledObject(cronTrigger("Prague", "0 7 * * *", "0 8 * * *", "5")), `trigger 1 (cron), timezone: "Prague" must be an IANA time zone`},
		"no number":   {scaledObject(cronTrigger("UTC", "0 7 * * *", "0 8 * * *", "many")), `desiredReplicas: "many" must be a number from 1 on`},
		"expression":  {scaledObject(cronTrigger("UTC", "0 7 * *", "0 8 * * *", "5")), `start, end: start "0 7 * *"`},
		"descriptor":  {scaledObject(cronTrigger("UTC", "@daily", "0 8 * * *", "5")), "descriptors"},
		"the same":    {scaledObject(cronTrigger("UTC", "0 8 * * *", "0 8 * * *", "5")), "which KEDA refuses"},
		"never":       {scaledObject(cronTrigger("UTC", "0 8 30 2 *", "0 9 * * *", "5")), `start: "0 8 30 2 *": it never fires`},
		"two zones":   {scaledObject(cronTrigger("UTC", "0 7 * * *", "0 8 * * *", "5") + cronTrigger("Europe/Prague", "0 7 * * *", "0 8 * * *", "5")), "trigger 2 (cron), timezone: a calendar has one time zone"},
		"too many":    {scaledObject(cronTrigger("UTC", "*/10 * * * *", "5-59/10 * * * *", "5")), "more than 64 periods"},
		"odd lengths": {scaledObject(cronTrigger("UTC", "0 22 28 * *", "0 8 1 * *", "5")), "write them by hand"},
		"too long":    {scaledObject(cronTrigger("UTC", "0 8 1 3 *", "0 8 1 6 *", "5")), "a period lasts 31 days at most"},
		"a formula": {
			strings.Replace(scaledObject(cronTrigger("UTC", "0 7 * * *", "0 8 * * *", "5")), "spec:", "spec:\n  advanced: {scalingModifiers: {formula: a + b}}", 1),
			"spec.advanced.scalingModifiers.formula: a calendar has no formula",
		},
		"an average": {
			strings.NewReplacer("ScaledObject", "ScaledJob", "spec:", "spec:\n  scalingStrategy: {multipleScalersCalculation: avg}").Replace(
				scaledObject(cronTrigger("UTC", "0 7 * * *", "0 8 * * *", "5") + "  - {type: kafka, metadata: {}}\n")), "spec.scalingStrategy.multipleScalersCalculation: \"avg\"",
		},
		"only up":          {cronJob("up", "0 7 * * *", "UTC", "args: [scale, deploy/web, --replicas=3]"), "CronJob shop/up (a.yaml:2), spec.schedule: nothing here scales deployment/web to another number than 3"},
		"an unknown value": {cronJob("up", "0 7 * * *", "UTC", `command: [sh, -c, "kubectl scale deploy/web --replicas=$N"]`), `container kubectl, args: "kubectl scale deploy/web --replicas=$N": the replicas "$N" are no number`},
		"zones of jobs":    {cronJob("up", "0 7 * * *", "UTC", "args: [scale, deploy/web, --replicas=3]") + cronJob("down", "0 9 * * *", "Europe/Prague", "args: [scale, deploy/web, --replicas=0]"), "spec.timeZone: Europe/Prague, while up of the same"},
		"a wrong type":     {schedules("  - {type: Repeating, value: x, " + hours + "}\n"), "ScalingSchedule shop/event (a.yaml:2): "},
		"no hours":         {schedules("  - {type: Repeating, value: 1, " + hours + "}\n"), "schedule 1, spec.schedules[0].durationMinutes: it is 0"},
		"backwards":        {schedules("  - {type: Repeating, value: 1, period: {startTime: \"22:00\", endTime: \"06:00\", timezone: UTC, days: [Mon]}}\n"), "period.endTime: 06:00 is before startTime"},
		"all over":         {schedules("  - {type: OneTime, value: 1, date: \"2020-01-01T00:00:00Z\", durationMinutes: 5}\n"), "all of them are over"},
		"a ratio":          {schedules("  - {type: Repeating, value: 1, durationMinutes: 5, "+hours+"}\n") + follower("{type: Value, value: 10}"), "spec.metrics[1].object.target: only averageValue"},
		"nothing":          {"kind: Deployment\napiVersion: apps/v1\nmetadata: {name: web}\n", "nothing here scales on a schedule"},
	} {
		_, err := Import(parse(t, c.text), begin)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	// One that can't be imported takes nothing from the others.
	both := scaledObject(cronTrigger("UTC", "0 7 * * *", "0 8 * * *", "many")) + "---\n" + scaledObject(cronTrigger("UTC", "0 7 * * *", "0 8 * * *", "5"))
	if imported, err := Import(parse(t, both), begin); err == nil || len(imported) != 1 {
		t.Errorf("%d calendars, %v", len(imported), err)
	}
}
