package cluster_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

// toolsOf are the tools that are built, and the project's folder.
func toolsOf(t *testing.T) (root string, tools toolchain.Toolchain) {
	t.Helper()
	root, err := toolchain.Root()
	if err != nil {
		t.Fatal(err)
	}
	if tools, err = toolchain.Ensure(t.Context(), toolchain.Module(root), os.Stderr); err != nil {
		t.Fatal(err)
	}
	return root, tools
}

func startControlPlane(t *testing.T) *cluster.Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an API server")
	}
	t.Parallel() // an API server is waited for most of the time that such a test takes
	root, tools := toolsOf(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c, err := cluster.StartControlPlane(ctx, cluster.Options{Dir: t.TempDir(), Root: root, Tools: tools, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// The API server accepts what the scaler accepts, and refuses what it refuses, but for rules that a schema can't
// express: those only the scaler knows.
func TestIntegrationValidation(t *testing.T) {
	c := startControlPlane(t)
	const good = `
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: default}
spec:
  backlog: {rabbitmq: {uri: {secretKeyRef: {name: mq, key: uri}}, queue: scans}}
  target: {maxReplicas: 50}
  calendar:
    timeZone: Europe/Prague
    default: {minReplicas: 0}
    periods:
    - {name: workday, days: [Mon-Fri], from: "07:00", to: "19:00", leadTime: 10m, limits: {minReplicas: 5, maxReplicas: 40}}
    - {name: night, days: [Fri-Mon], from: "22:00", to: "06:00", limits: {maxReplicas: 20}}
    exceptions: [{name: christmas, from: 12-24, to: 12-26, use: night}]
`
	cases := map[string]struct {
		from, to string // what is changed in the good policy
		want     string // part of the API server's error; empty: it accepts
		only     bool   // only the scaler refuses
	}{
		"good":                       {},
		"whole day":                  {`to: "19:00"`, `to: "24:00"`, "", false},
		"no source":                  {`{rabbitmq: {uri: {secretKeyRef: {name: mq, key: uri}}, queue: scans}}`, `{}`, "spec.backlog", false},
		"no queue":                   {`, queue: scans`, ``, "set exactly one of queue, queues and queuePattern", false},
		"queue and queues":           {`queue: scans`, `queue: scans, queues: [more]`, "set exactly one of queue, queues and queuePattern", false},
		"queues":                     {`queue: scans`, `queues: [scans, more]`, "", false},
		"a queue twice":              {`queue: scans`, `queues: [scans, scans]`, "duplicate entries", false},
		"two URIs":                   {`uri: {secretKeyRef: {name: mq, key: uri}}`, `uri: {value: "amqp://x", secretKeyRef: {name: mq, key: uri}}`, "set exactly one of value, secretKeyRef", false},
		"onMissingQueue":             {`queue: scans`, `queue: scans, onMissingQueue: Ignore`, `supported values: "Zero", "Error"`, false},
		"otherConsumers":             {`queue: scans`, `queue: scans, otherConsumers: -1`, "should be greater than or equal to 0", false},
		"messagesPerReplica":         {`maxReplicas: 50`, `messagesPerReplica: -1`, "should be greater than or equal to 1", false},
		"maxReplicas":                {`{maxReplicas: 50}`, `{maxReplicas: -1}`, "should be greater than or equal to 0", false},
		"from":                       {`from: "07:00"`, `from: "7:00"`, "spec.calendar.periods[0].from", false},
		"from 24:00":                 {`from: "07:00"`, `from: "24:00"`, "spec.calendar.periods[0].from", false},
		"to":                         {`to: "19:00"`, `to: "24:30"`, "spec.calendar.periods[0].to", false},
		"floor above cap":            {`maxReplicas: 40`, `maxReplicas: 4`, "minReplicas must not exceed maxReplicas", false},
		"exception's date":           {`from: 12-24`, `from: 24-12`, "spec.calendar.exceptions[0].from", false},
		"exception's use and limits": {`use: night`, `use: night, limits: {}`, "set either use", false},
		"no name":                    {`name: workday`, `name: ""`, "spec.calendar.periods[0].name", false},
		"time zone":                  {`Europe/Prague`, `Prague`, "", true},
		"day":                        {`[Mon-Fri]`, `[Mo]`, "", true},
		"days of the month":          {`[Mon-Fri]`, `[first Monday, last business day, day 15]`, "", false},
		"no such period":             {`use: night`, `use: holiday`, "use of an exception must name a period", false},
		"kafka":                      {`{rabbitmq: {uri: {secretKeyRef: {name: mq, key: uri}}, queue: scans}}`, `{kafka: {brokers: ["k:9092"], consumerGroup: scans, topics: [scans], sasl: {mechanism: PLAIN, username: {value: u}, password: {secretKeyRef: {name: k, key: p}}}}}`, "", false},
		"kafka's mechanism":          {`{rabbitmq: {uri: {secretKeyRef: {name: mq, key: uri}}, queue: scans}}`, `{kafka: {brokers: ["k:9092"], consumerGroup: scans, topics: [scans], sasl: {mechanism: LDAP, username: {value: u}, password: {value: p}}}}`, "supported values", false},
		"prometheus":                 {`{rabbitmq: {uri: {secretKeyRef: {name: mq, key: uri}}, queue: scans}}`, `{prometheus: {url: {value: "http://p:9090"}, query: "sum(work)"}}`, "", false},
		"two sources":                {`queue: scans}`, `queue: scans}, prometheus: {url: {value: "http://p:9090"}, query: "sum(work)"}`, "set exactly one source", false},
		"certificate without key":    {`queue: scans`, `queue: scans, tls: {certificate: {value: x}}`, "set certificate and key together", false},
		"drainWithin":                {`{maxReplicas: 50}`, `{maxReplicas: 50, drainWithin: 10m, serviceTime: 30s}`, "", false},
		"drainWithin of a moment":    {`{maxReplicas: 50}`, `{maxReplicas: 50, drainWithin: 1ns, serviceTime: 30s}`, "must be from 1s to 168h", false},
		"serviceTime of centuries":   {`{maxReplicas: 50}`, `{maxReplicas: 50, drainWithin: 10m, serviceTime: 2562047h}`, "must be more than 0s and at most 168h", false},
		"serviceTime alone":          {`{maxReplicas: 50}`, `{maxReplicas: 50, serviceTime: 30s}`, "serviceTime is used by drainWithin only", false},
		"drainWithin, not observed":  {`{maxReplicas: 50}`, `{maxReplicas: 50, drainWithin: 10m}`, "drainWithin must know the service time", false},
		"group":                      {`{maxReplicas: 50}`, `{maxReplicas: 50, maxReplicasGroup: {name: seats, maxReplicas: 20, weight: 2}}`, "", false},
		"group's weight":             {`{maxReplicas: 50}`, `{maxReplicas: 50, maxReplicasGroup: {name: seats, maxReplicas: 20, weight: 1001}}`, "should be less than or equal to 1000", false},
		"stabilisation":              {`{maxReplicas: 50}`, `{maxReplicas: 50, scaleInStabilization: 2h}`, "must be from 0s to 1h", false},
		"holdFor":                    {`  calendar:`, "  outage: {holdFor: -1m}\n  calendar:", "must be from 0s to 8760h", false},
		"65 queues":                  {`queue: scans`, `queues: [` + list("q%d", 65) + `]`, "must have at most 64 items", false},
		"a queue of 300 characters":  {`queue: scans`, `queue: ` + strings.Repeat("q", 300), "spec.backlog.rabbitmq.queue", false},
		"a queue of 260 bytes":       {`queue: scans`, `queue: ` + strings.Repeat("\u0436", 130), "at most 255 bytes", false},
		"17 brokers":                 {`{rabbitmq: {uri: {secretKeyRef: {name: mq, key: uri}}, queue: scans}}`, `{kafka: {brokers: [` + list(`"k%d:9092"`, 17) + `], consumerGroup: scans, topics: [scans]}}`, "must have at most 16 items", false},
		"65 periods":                 {`    exceptions:`, "    - " + strings.ReplaceAll(list("{name: p%d, limits: {}}", 63), "}, {", "}\n    - {") + "\n    exceptions:", "must have at most 64 items", false},
		"explicit zero":              {`{maxReplicas: 50}`, `{messagesPerReplica: 0}`, "should be greater than or equal to 1", false},
		"drainWithin of 1ns":         {`{maxReplicas: 50}`, `{drainWithin: 1ns, serviceTime: 1h}`, "must be from 1s to 168h", false},
		"a newline in a name":        {`name: workday`, `name: "work\nday"`, "spec.calendar.periods[0].name", false},
		"more than an int32":         {`{maxReplicas: 50}`, `{maxReplicas: 3000000000}`, "spec.target.maxReplicas", false},
		"an unknown field":           {`{maxReplicas: 50}`, `{maxReplica: 50}`, "maxReplica", false},
		"a value of 70,000":          {`uri: {secretKeyRef: {name: mq, key: uri}}`, `uri: {value: "` + strings.Repeat("x", 70000) + `"}`, "Too long", false},
		"lead time":                  {`leadTime: 10m`, `leadTime: 25h`, "must be from 0s to 24h", false},
		"holidays":                   {`    exceptions:`, "    holidays: {ics: {configMapKeyRef: {name: holidays, key: cz.ics}}, use: night}\n    exceptions:", "", false},
		"holidays of no period":      {`    exceptions:`, "    holidays: {ics: {configMapKeyRef: {name: holidays, key: cz.ics}}, use: feast}\n    exceptions:", "use of holidays must name a period", false},
		"floor above another's cap":  {`minReplicas: 5, maxReplicas: 40`, `minReplicas: 21`, "", false},
		"overlap":                    {`to: "19:00", leadTime: 10m, limits: {minReplicas: 5, maxReplicas: 40}`, `to: "23:00", limits: {minReplicas: 21}`, "", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, tc.from, tc.to, 1)
			if tc.from != "" && text == good {
				t.Fatal("the case changes nothing")
			}
			serverErr := c.ApplyYAML(t.Context(), []byte(text))
			if (serverErr == nil) != (tc.want == "") || serverErr != nil && !strings.Contains(serverErr.Error(), tc.want) {
				t.Errorf("the API server says %v, want %q", serverErr, tc.want)
			}
			scalerErr := validate(t, text)
			if refuses := tc.want != "" || tc.only; (scalerErr != nil) != refuses {
				t.Errorf("the scaler says %v, want that it refuses: %v", scalerErr, refuses)
			}
		})
	}
}

// list is numbered items.
func list(item string, n int) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(item, i)
	}
	return strings.Join(items, ", ")
}

// validate is what the scaler does with a policy of a file.
func validate(t *testing.T, text string) error {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"p.yaml": strings.ReplaceAll(text, "configMapKeyRef: {name: holidays, key: cz.ics}", "file: cz.ics"), "cz.ics": holidays} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := policy.ReadFile(t.Context(), filepath.Join(dir, "p.yaml"))
	return err
}

const holidays = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART;VALUE=DATE:20260501\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
