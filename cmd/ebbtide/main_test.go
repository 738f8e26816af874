package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/doctor"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
	"github.com/ebbtide-dev/ebbtide/simulator/recommend"
)

const testPolicy = `apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog:
    rabbitmq:
      uri: {env: URI}
      queue: scans
  target: {maxReplicas: 200}
  calendar:
    timeZone: Europe/Prague
    periods:
    - name: workday
      days: [Mon-Fri]
      from: "07:00"
      to: "19:00"
      limits: {minReplicas: 5, idleReplicas: 3}
`

// run runs the program.
func run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := newCommand("ebbtide")
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errOut.String(), err
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	out, _, err := run(t, args...)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out
}

func fileOf(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExplain(t *testing.T) {
	path := fileOf(t, "p.yaml", testPolicy)
	got := must(t, "explain", "-f", path, "--at", "2026-11-27T18:55", "--ready", "40", "--consumers", "10", "--changes", "2")
	want := `POLICY  scan/scans
AT      Fri 27 Nov 2026 18:55 CET
PERIOD  workday: at least 5, 3 idle, at most 200
TARGET  53 (idle)
WHY     40 ready and 10 in flight ask for 50, and period workday keeps 3 idle
NEXT    Fri 27 Nov 2026 19:00 CET  default: at least 0, 0 idle, at most 200
        Mon 30 Nov 2026 07:00 CET  workday: at least 5, 3 idle, at most 200

WEEK  0     3     6     9     12    15    18    21      warm replicas, up to 5
`
	for _, day := range []string{"Mon", "Tue", "Wed", "Thu", "Fri"} {
		want += day + "   " + strings.Repeat("·", 14) + strings.Repeat("█", 24) + strings.Repeat("·", 10) + "\n"
	}
	want += "Sat   " + strings.Repeat("·", 48) + "\nSun   " + strings.Repeat("·", 48) + "\n"
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var asJSON []explanation
	picture := filepath.Join(t.TempDir(), "week.svg")
	text := must(t, "explain", "-f", path, "--at", "2026-11-28T12:00:00Z", "-o", "json", "--svg", picture)
	if err := json.Unmarshal([]byte(text), &asJSON); err != nil || len(asJSON) != 1 || asJSON[0].Target != 0 || asJSON[0].Constraint != "backlog" {
		t.Errorf("%v: %s", err, text)
	}
	svg, err := os.ReadFile(picture)
	if err != nil || strings.Count(string(svg), "<rect") != 5 {
		t.Errorf("%v: a picture of %d bars, want 5", err, strings.Count(string(svg), "<rect"))
	}
	wellFormed(t, string(svg))
}

func wellFormed(t *testing.T, text string) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
	}
}

// On two weeks that people make, what is ours is on the front, and every peer shows its fault.
func TestCompare(t *testing.T) {
	path, page := fileOf(t, "p.yaml", testPolicy), filepath.Join(t.TempDir(), "r.html")
	text := must(t, "compare", "--generate", "weeks=2,perDay=2500", "-f", path, "--node", "cpu=8,memory=32Gi,price=0.4", "--runs", "2", "-o", "json", "--report", page)
	var trials []trial
	if err := json.Unmarshal([]byte(text), &trials); err != nil {
		t.Fatal(err)
	}
	by := map[string]trial{}
	ours := false
	for _, r := range trials {
		by[r.Name] = r
		ours = ours || r.Ours && r.Front
		if r.Unserved > 0 || r.Messages != trials[0].Messages || len(r.Series.Nodes) > 0 {
			t.Errorf("%s: %d of %d unserved", r.Name, r.Unserved, r.Messages)
		}
	}
	if !ours || len(trials) != 13 {
		t.Errorf("%d configurations, one of ours on the front: %v", len(trials), ours)
	}
	mine := by["ebbtide scans, DrainPack"]
	if starved := by["keda rabbitmq AMQP, default"]; starved.Wait.P95 < 2*mine.Wait.P95 {
		t.Errorf("over AMQP the p95 wait is %.0f s, ours %.0f s", starved.Wait.P95, mine.Wait.P95)
	}
	if spread := by["ebbtide scans, stock scheduler"]; spread.NodeHours < mine.NodeHours {
		t.Errorf("spread pods need %.0f node-hours, packed ones %.0f", spread.NodeHours, mine.NodeHours)
	}
	html, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<!doctype html>", "prefers-color-scheme", "keda rabbitmq AMQP, default", "Cost against wait"} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, not := range []string{"http://", "https://", "<script", "NaN", "Inf", "ZgotmplZ"} {
		if strings.Contains(string(html), not) {
			t.Errorf("the page holds %q", not)
		}
	}
	pictures := 0
	for rest := string(html); ; pictures++ {
		_, after, found := strings.Cut(rest, "<svg")
		if !found {
			break
		}
		svg, remaining, _ := strings.Cut(after, "</svg>")
		wellFormed(t, "<svg"+svg+"</svg>")
		rest = remaining
	}
	if pictures != 1+5+3*len(trials) { // cost against wait, what all share, and what each has
		t.Errorf("%d pictures", pictures)
	}
}

// On loads of other sizes and with other seeds DrainPack is on the front, and nothing needs 2% fewer node-hours than the cheapest of ours.
func TestOursOnTheFront(t *testing.T) {
	path := fileOf(t, "p.yaml", testPolicy)
	for seed, perDay := range map[string]string{"2": "600", "3": "3000", "4": "9000"} {
		text := must(t, "compare", "--generate", "weeks=1,perDay="+perDay, "--seed", seed, "-f", path, "--node", "cpu=8,memory=32Gi", "--runs", "2", "-o", "json")
		var trials []trial
		if err := json.Unmarshal([]byte(text), &trials); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(trials, func(r trial) bool { return strings.Contains(r.Name, "DrainPack") && r.Front }) {
			t.Errorf("seed %s, %s messages a day: DrainPack is not on the front", seed, perDay)
		}
		fewer := func(a, b trial) int { return cmp.Compare(a.NodeHours, b.NodeHours) }
		cheapest := slices.MinFunc(trials, fewer)
		ours := slices.MinFunc(slices.DeleteFunc(trials, func(r trial) bool { return !r.Ours }), fewer)
		if ours.NodeHours > 1.02*cheapest.NodeHours {
			t.Errorf("seed %s, %s messages a day: %s needs %.1f node-hours, %s %.1f", seed, perDay, cheapest.Name, cheapest.NodeHours, ours.Name, ours.NodeHours)
		}
	}
}

func TestSimulate(t *testing.T) {
	trace := fileOf(t, "t.csv", "start,seconds,class\n2026-03-02T09:00:00Z,30,scan\n2026-03-02T09:00:05Z,30,scan\n")
	got := must(t, "simulate", "--trace", trace, "-f", fileOf(t, "p.yaml", testPolicy))
	if !strings.HasPrefix(got, "CONFIGURATION") || !strings.Contains(got, "scans ") {
		t.Errorf("%s", got)
	}
	if again := must(t, "simulate", "--trace", trace, "-f", fileOf(t, "p.yaml", testPolicy)); again != got {
		t.Errorf("another result:\n%s", again)
	}
	if text := must(t, "simulate", "--trace", trace, "--rules", "-o", "json"); !strings.Contains(text, `"jobs": 2`) {
		t.Errorf("with rules: %s", text)
	}
	if text := must(t, "compare", "--trace", trace, "--rules", "--runs", "1"); strings.Count(text, ", rules ") != 1 {
		t.Errorf("no row with rules: %s", text)
	}
	if text := must(t, "simulate", "--trace", trace, "-o", "json", "--series"); !strings.Contains(text, `"backlog": [`) {
		t.Error("no series")
	}
}

func TestErrorsNameTheFlag(t *testing.T) {
	load := []string{"--generate", "weeks=1,perDay=100"}
	for want, args := range map[string][]string{
		"--generate: weeks is":          {"simulate", "--generate", "weeks=0"},
		`--generate: "days=1"`:          {"simulate", "--generate", "days=1"},
		"--trace":                       {"simulate", "--trace", "nowhere.csv"},
		"--node: cpu is":                append([]string{"simulate", "--node", "cpu=x,memory=1Gi"}, load...),
		"--node: price is":              append([]string{"simulate", "--node", "cpu=4,memory=8Gi,price=-1"}, load...),
		"--pod: memory is":              append([]string{"simulate", "--pod", "cpu=4"}, load...),
		"--autoscaler is":               append([]string{"simulate", "--autoscaler", "x"}, load...),
		"--pod-boot":                    append([]string{"simulate", "--pod-boot", "20s..5s"}, load...),
		"--node-overhead: cpu is":       append([]string{"simulate", "--node-overhead", "cpu=-1"}, load...),
		"smaller than --node-overhead":  append([]string{"simulate", "--node", "cpu=200m,memory=8Gi"}, load...),
		"--node-limits: \"gpu=1\"":      append([]string{"simulate", "--node-limits", "gpu=1"}, load...),
		"no node is so small":           append([]string{"simulate", "--node-limits", "cpu=8"}, load...),
		"--statements is":               append([]string{"simulate", "--statements", "x"}, load...),
		"quantile is 1.5":               append([]string{"simulate", "--quantile", "1.5"}, load...),
		"horizon is 1s":                 append([]string{"simulate", "--horizon", "1s"}, load...),
		"unknown field \"quantil\"":     append([]string{"simulate", "--drainpack-args", "{quantil: 0.5}"}, load...),
		"--static is 2":                 append([]string{"compare", "--static", "2", "--queue-per-class"}, load...),
		"no node is so large":           append([]string{"simulate", "--pod", "cpu=400,memory=1Gi"}, load...),
		"must be one of table":          append([]string{"simulate", "-o", "xml"}, load...),
		"--time-zone":                   append([]string{"simulate", "--time-zone", "Prague"}, load...),
		":2: apiVersion":                append([]string{"simulate", "-f", fileOf(t, "p.yaml", "# ScalingPolicy\nkind: ScalingPolicy\n")}, load...),
		"idleTimeout":                   append([]string{"simulate", "--idle-timeout", "0s"}, load...),
		"holds no ScalingPolicy":        {"explain", "-f", fileOf(t, "p.yaml", "kind: ConfigMap\n")},
		"want an instant":               {"explain", "-f", fileOf(t, "p.yaml", testPolicy), "--at", "noon"},
		"--from":                        {"simulate", "--prometheus", "http://127.0.0.1:1", "--from", "2026-02-01", "--to", "2026-01-01"},
		"--prometheus http://127.0.0.1": {"simulate", "--prometheus", "http://127.0.0.1:1", "--from", "2026-01-01", "--to", "2026-01-02"},
	} {
		_, _, err := run(t, args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", strings.Join(args, " "), err, want)
		}
	}
}

// regular is a CSV of people at work from nine to five, Monday to Friday, for two weeks: a message every two minutes for one.
func regular() string {
	var text strings.Builder
	text.WriteString("start,seconds,class,milliCPU,memoryMiB,usedMilliCPU,usedMemoryMiB\n")
	for day := range 12 {
		date := time.Date(2026, 3, 2+day, 0, 0, 0, 0, time.UTC)
		if date.Weekday() == time.Saturday || date.Weekday() == time.Sunday {
			continue
		}
		for n := range 8 * 30 {
			at := date.Add(9*time.Hour + time.Duration(n)*2*time.Minute)
			fmt.Fprintf(&text, "%s,%d,%s,2000,4096,900,1000\n", at.Format(time.RFC3339), 30+n%60, []string{"small", "large"}[n%2])
		}
	}
	return text.String()
}

const testToday = `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: scans}
spec:
  pollingInterval: 15
  scalingStrategy: {strategy: accurate}
  triggers:
  - type: rabbitmq
    metadata: {protocol: amqp, queueName: scans, mode: QueueLength, value: "1"}
  - type: cron
    metadata: {timezone: UTC, start: 0 9 * * 1-5, end: 0 17 * * 1-5, desiredReplicas: "2"}
  jobTargetRef:
    template:
      spec:
        containers:
        - {name: scan, args: [--max-messages=1], resources: {requests: {cpu: "2", memory: 4Gi}}}
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: scans}
spec:
  template:
    spec:
      requirements:
      - {key: node.kubernetes.io/instance-type, operator: In, values: [m6i.4xlarge]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
  disruption: {consolidationPolicy: WhenEmpty, consolidateAfter: 1m}
`

// A recommendation beside the files of what runs today: cheaper and no slower on the week that was not learned from, in files that the other commands
// and Helm take.
func TestRecommend(t *testing.T) {
	load := fileOf(t, "load.csv", regular())
	today := fileOf(t, "today.yaml", testToday)
	folder := filepath.Join(t.TempDir(), "recommended")
	shapes := fileOf(t, "shapes.yaml", `{date: 2026-11, currency: EUR, shapes: [{name: four, cpu: 4, memory: 16Gi, price: 0.2}, {name: eight, cpu: 8, memory: 32Gi, price: 0.4}, {name: m6i.4xlarge, cpu: 16, memory: 64Gi, price: 0.8}]}`)
	text := must(t, "recommend", "--trace", load, "--today", today, "--shapes", shapes, "--wait", "60s", "--keep", "polling,consolidation", "-o", "json", "-o", folder)
	var r recommendation
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	before, after := &r.Today, &r.Recommended
	if after.CostMonth >= before.CostMonth || after.Wait > before.Wait || r.Currency != "EUR" {
		t.Errorf("%.0f %s a month and %.1f s, today %.0f and %.1f s", after.CostMonth, r.Currency, after.Wait, before.CostMonth, before.Wait)
	}
	if c := before.Configuration; c.Stack.Strategy != "accurate" || c.Shapes.Name != "m6i.4xlarge" {
		t.Errorf("today: %+v", c)
	}
	if r.NodePool["kind"] != "NodePool" || !strings.Contains(fmt.Sprint(r.NodePool), "consolidateAfter:1m") {
		t.Errorf("%v", r.NodePool)
	}
	if !strings.Contains(fmt.Sprint(r.Values), "cpu:900m") || !strings.Contains(fmt.Sprint(r.Values), "memory:1152Mi") {
		t.Errorf("requests are not what was used: %v", r.Values)
	}
	names := []string{"nodepool.yaml", "policy.yaml", "report.html"}
	for name := range r.Values {
		if len(r.Values) == 1 {
			names = append(names, "values.yaml")
			continue
		}
		names = append(names, "values-"+strings.TrimPrefix(name, "scans-")+".yaml")
	}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text := must(t, "explain", "-f", filepath.Join(folder, "policy.yaml"), "--at", "2026-03-04T10:00"); !strings.Contains(text, "TARGET") {
		t.Errorf("%s", text)
	}
}

// Workers that follow the scheduler's rules are told where it is.
func TestValues(t *testing.T) {
	r := &recommend.Recommendation{Requests: recommend.Requests{Of: map[string]packing.Amounts{"a": {250, 1 << 30, 0, 1}, "b": {500, 1 << 29, 0, 1}, "c": {8000, 1 << 40, 0, 1}}}}
	c := &r.Recommended.Configuration
	c.Queues.Of = map[string]string{"a": "small", "b": "small", "c": "large"}
	c.Workers = recommend.Workers{Rules: true, IdleTimeout: recommend.Duration(10 * time.Second)}
	p := &v1alpha1.ScalingPolicy{}
	p.Name = "scans-small"
	got := fmt.Sprint(values(p, "scans", r, "small"))
	for _, want := range []string{"requests:map[cpu:500m memory:1Gi]", "idleTimeout:10s", "address:" + drainingAddress, "queue:scans-small", "ebbtide.dev/pool:scans"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	c.Workers.Rules = false
	if got := fmt.Sprint(values(p, "scans", r, "small")); strings.Contains(got, drainingAddress) {
		t.Errorf("workers without rules ask the scheduler: %s", got)
	}
	c.Surplus = "30%"
	surplus := r.CalendarOf("small")
	for want, calendar := range map[string]*v1alpha1.Calendar{
		`"calendar":{"timeZone":"Etc/UTC","default":{},"periods":[]}`:                                 nil,
		`"calendar":{"timeZone":"Etc/UTC","default":{"surplus":"30%"},"periods":[]}`:                  surplus,
		`"calendar":{"timeZone":"Europe/Prague","default":{},"periods":[{"name":"day","limits":{}}]}`: {TimeZone: "Europe/Prague", Periods: []v1alpha1.Period{{Name: "day"}}},
	} {
		p.Spec.Calendar = calendar
		text, err := json.Marshal(values(p, "scans", r, "small")["policy"])
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("the chart's periods would stay: %s, error %v, want %s", text, err, want)
		}
	}
}

// Notes count the messages whose requests are assumed, and say why a policy gets no surplus.
func TestRecommendNotes(t *testing.T) {
	load := fileOf(t, "few.csv", "start,seconds,class,milliCPU,memoryMiB\n0,1,a,1000,2048\n60,1,b,500,\n90,1,c,,\n")
	_, notes, err := run(t, "recommend", "--trace", load)
	if want := "2 of 3 messages do not state both"; exitCode(err) != 2 || !strings.Contains(notes, want) {
		t.Errorf("error %v, notes %s, want %q", err, notes, want)
	}
	stated := fileOf(t, "stated.csv", "start,seconds,class,milliCPU,memoryMiB\n0,1,a,1000,2048\n60,1,a,1000,2048\n")
	if _, notes, err = run(t, "recommend", "--trace", stated); exitCode(err) != 2 || strings.Contains(notes, "assumed where") || strings.Contains(notes, "surplus") {
		t.Errorf("error %v; requests are all stated: %s", err, notes)
	}
	policy := fileOf(t, "policy.yaml", `apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog: {prometheus: {url: {value: "http://prometheus:9090"}, query: "sum(waiting)"}}
  target: {maxReplicas: 10}
`)
	if _, notes, err = run(t, "recommend", "--trace", stated, "-f", policy); exitCode(err) != 2 || !strings.Contains(notes, "a surplus is not decided on") {
		t.Errorf("error %v; a Prometheus query: %s", err, notes)
	}
}

// A NodePool names instance types; shapes of --node have none, and are asked for by their size.
func TestNodePool(t *testing.T) {
	for name, want := range map[string]string{
		"m6i.xlarge":        "key:node.kubernetes.io/instance-type operator:In values:[m6i.xlarge]",
		"cpu=4,memory=16Gi": "key:karpenter.k8s.aws/instance-cpu operator:In values:[4]] map[key:karpenter.k8s.aws/instance-memory operator:In values:[16384]",
	} {
		shape := simulator.NewShape(name, packing.Amounts{4000, 16 << 30, 0, 110}, packing.Amounts{}, 1)
		c := &recommend.Configuration{Shapes: recommend.ShapeSet{Name: name, Shapes: []simulator.Shape{shape}}}
		f := recommendFlags{capacity: "spot"}
		if got := fmt.Sprint(f.nodePool("scans", c)); !strings.Contains(got, want) || !strings.Contains(got, "values:[spot]") {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// What runs today is found in a cluster's objects: the ScaledJob, its policy and the NodePool that its pods are bound to; the recommended NodePool keeps
// that one's class and zones.
func TestTodayOfCluster(t *testing.T) {
	var objects []doctor.Object
	for _, text := range []string{testToday, `
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans}
spec: {target: {drainWithin: 2m}, calendar: {timeZone: UTC, default: {surplus: 30%, minReplicas: 1}}}
---
kind: ScalingPolicy
metadata: {name: others}
spec: {target: {drainWithin: 9m}}
---
kind: ScaledJob
metadata: {name: others}
---
kind: NodePool
metadata: {name: mine}
spec:
  template:
    metadata: {labels: {team: scan}}
    spec:
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: own}
      taints: [{key: scan, effect: NoSchedule}]
      requirements:
      - {key: node.kubernetes.io/instance-type, operator: In, values: [m6i.xlarge]}
      - {key: topology.kubernetes.io/zone, operator: In, values: [eu-1a]}
`} {
		parsed, err := doctor.Parse("objects", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, parsed...)
	}
	pod := map[string]any{"nodeSelector": map[string]any{"team": "scan", "kubernetes.io/os": "linux"}, "tolerations": []any{map[string]any{"key": "scan", "operator": "Exists"}}}
	spec := objects[0].Object["spec"].(map[string]any)
	spec["jobTargetRef"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["nodeSelector"] = pod["nodeSelector"]
	spec["jobTargetRef"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["tolerations"] = pod["tolerations"]
	spec["triggers"] = []any{map[string]any{"type": "external", "metadata": map[string]any{"policy": "scans"}}}
	text, err := todayOf(objects, "scan", "scans")
	if err != nil {
		t.Fatal(err)
	}
	list, err := recommend.ReadPriceList("aws")
	if err != nil {
		t.Fatal(err)
	}
	f, o := recommendFlags{daemonSets: "cpu=230m,memory=512Mi", capacity: "on-demand"}, recommend.Options{MaxReplicas: 10}
	if err := f.readObjects(text, &o, &list); err != nil {
		t.Fatal(err)
	}
	if c := &o.Today; !c.Stack.Ebbtide || c.Shapes.Name != "m6i.xlarge" || c.DrainWithin != recommend.Duration(2*time.Minute) || c.Poll != recommend.Duration(15*time.Second) {
		t.Errorf("today is %+v of\n%s", c, text)
	}
	if given := o.Today.Calendar.Given[""]; o.Today.Surplus != "30%" || given.Default.Surplus != nil || *given.Default.MinReplicas != 1 {
		t.Errorf("today's surplus is %q, its calendar %+v", o.Today.Surplus, given)
	}
	pool := fmt.Sprint(f.nodePool("scans", &o.Today))
	for _, want := range []string{"name:own", "values:[eu-1a]", "values:[m6i.xlarge]", "values:[on-demand]"} {
		if !strings.Contains(pool, want) {
			t.Errorf("%s, want %s", pool, want)
		}
	}
	for name, want := range map[string]string{"": "name one, cluster:scan/scans", "nothing": "no ScaledJob nothing"} {
		if _, err := todayOf(objects, "scan", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ScaledJob %q: error %v, want one with %q", name, err, want)
		}
	}
}

// What can't be understood is named.
func TestRecommendRefuses(t *testing.T) {
	load := fileOf(t, "load.csv", regular())
	for want, args := range map[string][]string{
		"--wait-quantile":               {"--wait-quantile", "1"},
		`--wait: "soon"`:                {"--wait", "soon"},
		`--keep: "color"`:               {"--keep", "color"},
		"shipped lists are aws":         {"--shapes", "nowhere.yaml"},
		"want on-demand or spot":        {"--capacity", "cheap"},
		"two folders":                   {"-o", "a", "-o", "b"},
		"Karpenter's NodePool":          {"--autoscaler", "cluster-autoscaler"},
		"holds no ScaledJob":            {"--today", fileOf(t, "x.yaml", "kind: ConfigMap\n")},
		"instance types":                {"--today", fileOf(t, "x.yaml", strings.ReplaceAll(testToday, "m6i.4xlarge", "x.large"))},
		"want a price of each":          {"--node", "cpu=4,memory=16Gi"},
		"no shorter":                    {"--today", fileOf(t, "x.yaml", testToday), "--node-delay", "45s"},
		"messages in its first half":    {"--trace", fileOf(t, "few.csv", "0,1,a\n60,1,a\n")},
		`strategy "eagerly" is not kno`: {"--today", fileOf(t, "x.yaml", strings.ReplaceAll(testToday, "accurate", "eagerly"))},
	} {
		_, _, err := run(t, append([]string{"recommend", "--trace", load}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", strings.Join(args, " "), err, want)
		}
	}
}

func TestDoctor(t *testing.T) {
	job := `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: scans, namespace: scan}
spec:
  triggers: [{type: external, metadata: {policy: scans, scalerAddress: x}}]
`
	out, _, err := run(t, "doctor", "-f", fileOf(t, "job.yaml", job))
	if exitCode(err) != 2 || !strings.Contains(out, "EBB003 error  ScaledJob scan/scans (") || !strings.Contains(out, "fix: set spec.rollout") {
		t.Errorf("%v: %s", err, out)
	}
	if out := must(t, "doctor", "-f", fileOf(t, "p.yaml", testPolicy)); !strings.Contains(out, "nothing wrong") {
		t.Error(out)
	}
	if _, _, err := run(t, "doctor", "-f", fileOf(t, "p.yaml", strings.Replace(testPolicy, "07:00", "25:00", 1))); exitCode(err) != 2 {
		t.Errorf("a bad policy: %v", err)
	}
	if out := must(t, "doctor", "--list-checks"); strings.Count(out, "\n") < 15 {
		t.Error(out)
	}
}

func TestDecisionsAndPlacements(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/decisions":
			known := map[string]string{
				"scans": `{"time": "2026-03-02T09:00:05Z", "namespace": "scan", "policy": "scans", "ready": 4, "target": 9, "constraint": "backlog", "reason": "because"}`,
				"other": `{"time": "2026-03-02T09:00:00Z", "namespace": "scan", "policy": "other"}`,
			}
			list := known[r.URL.Query().Get("policy")]
			if r.URL.Query().Get("policy") == "" {
				list = known["scans"] + "," + known["other"]
			}
			fmt.Fprintf(w, `{"decisions": [%s]}`, list)
		case r.URL.Query().Get("pod") == "gone":
			http.Error(w, `no pod "gone"`, http.StatusNotFound)
		default:
			fmt.Fprint(w, `[{"time": "2026-03-02T09:00:00Z", "namespace": "scan", "pod": "p", "node": "n", "tier": "empty", "reason": "why not"}]`)
		}
	}))
	defer server.Close()
	if out := must(t, "decisions", "--url", server.URL); strings.Count(out, "\n") != 3 || strings.Index(out, "other") > strings.Index(out, "because") {
		t.Error(out)
	}
	if out := must(t, "decisions", "scans", "--url", server.URL); strings.Contains(out, "other") || !strings.Contains(out, "because") {
		t.Error(out)
	}
	if _, _, err := run(t, "decisions", "nothing", "--url", server.URL); err == nil {
		t.Error("decisions of no policy: no error")
	}
	if out := must(t, "placements", "--url", server.URL); !strings.Contains(out, "why not") {
		t.Error(out)
	}
	if _, _, err := run(t, "placements", "gone", "--url", server.URL); err == nil || !strings.Contains(err.Error(), `no pod "gone"`) {
		t.Errorf("error %v", err)
	}
}

func TestFront(t *testing.T) {
	trialOf := func(name string, wait, hours float64) trial {
		return trial{Name: name, Outcome: simulator.Outcome{Wait: simulator.Waits{P95: wait}, NodeHours: hours}}
	}
	trials := []trial{trialOf("fast", 1, 100), trialOf("cheap", 100, 10), trialOf("between", 50, 50), trialOf("worse", 60, 60), trialOf("tie", 50.2, 50.2)}
	markFront(trials)
	for _, r := range trials {
		if want := r.Name != "worse"; r.Front != want {
			t.Errorf("%s: on the front %v, beaten by %v", r.Name, r.Front, r.BeatenBy)
		}
	}
}

// A wait that is shorter with one seed beats nobody; one that is shorter with every seed does.
func TestFrontByLuck(t *testing.T) {
	trialOf := func(name string, waits ...float64) trial {
		r := trial{Name: name}
		for _, wait := range waits {
			r.runs = append(r.runs, simulator.Outcome{Wait: simulator.Waits{P95: wait}, NodeHours: 10})
		}
		r.Outcome = simulator.Mean(r.runs)
		return r
	}
	for name, c := range map[string]struct {
		other []float64
		front bool
	}{
		"3% shorter in the mean, longer with some seeds": {[]float64{90, 103, 94, 101, 97}, true},
		"3% shorter with every seed":                     {[]float64{97, 98, 96, 97, 97}, false},
		"0.5% shorter with every seed":                   {[]float64{99.5, 99.4, 99.6, 99.5, 99.5}, true},
	} {
		trials := []trial{trialOf("ours", 100, 100, 100, 100, 100), trialOf(name, c.other...)}
		if markFront(trials); trials[0].Front != c.front || !trials[1].Front {
			t.Errorf("beside one %s: on the front %v, want %v", name, trials[0].Front, c.front)
		}
	}
}

// With few messages nothing is marked, and the output says why.
func TestCompareFewMessages(t *testing.T) {
	trace := fileOf(t, "t.csv", "start,seconds,class\n"+strings.Repeat("2026-03-02T09:00:00Z,30,scan\n", 5))
	text := must(t, "compare", "--trace", trace, "--runs", "1")
	if !strings.Contains(text, "5 messages are too few") || strings.Contains(text, "*") {
		t.Error(text)
	}
	text, note, err := run(t, "compare", "--trace", trace, "--runs", "1", "-o", "json")
	if err != nil || !strings.Contains(note, "5 messages are too few") || strings.Contains(text, `"paretoFront": true`) {
		t.Errorf("%v: %s\n%s", err, note, text)
	}
}

// Tables fit a terminal of 120 columns, whatever the names are and however long all takes.
func TestTableFits(t *testing.T) {
	var trials []trial
	for i := range 14 {
		out := simulator.Outcome{
			Messages: 1_000_000, Unserved: 123_456, Jobs: 1_999_999, EmptyJobs: 999_999, PodHours: 1e7, IdlePodHours: 9.99e6, NodeHours: 1e6, PeakNodes: 6654, Cost: 1e6,
			Wait: simulator.Waits{P50: 86_399, P95: 604_799, Mean: 99_999},
		}
		trials = append(trials, trial{Name: "keda rabbitmq HTTP + cron of " + strings.Repeat("é", 63) + fmt.Sprint(i), Outcome: out})
	}
	markFront(trials)
	var b bytes.Buffer
	table := newTable(&b)
	printTrials(table, trials)
	if err := table.w.Flush(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(b.String()) {
		if width := utf8.RuneCountInString(strings.TrimRight(line, " \n")); width > 120 || seen[line] {
			t.Errorf("%d columns, or twice: %s", width, line)
		}
		seen[line] = true
	}
}

// Cron triggers of floors are on exactly when the periods are, over nights, weekends and whole days too.
func TestCronTriggersAgreeWithTheCalendar(t *testing.T) {
	policyOf := func(text string) *policy.Policy {
		found, err := policy.ReadFile(t.Context(), fileOf(t, "p.yaml", text))
		if err != nil {
			t.Fatal(err)
		}
		return found[0]
	}
	for name, period := range map[string]string{
		"a day's hours":       `{name: p, days: [Mon-Fri], from: "07:00", to: "19:00", limits: {minReplicas: 5}}`,
		"over night":          `{name: p, days: [Mon-Fri], from: "22:00", to: "06:00", limits: {minReplicas: 5}}`,
		"Sunday night":        `{name: p, days: [Sun], from: "20:30", to: "02:15", limits: {minReplicas: 5}}`,
		"whole days":          `{name: p, days: [Mon-Fri], limits: {minReplicas: 5}}`,
		"until midnight":      `{name: p, days: [Sun-Thu], from: "18:00", to: "24:00", limits: {minReplicas: 5}}`,
		"a lead time":         `{name: p, days: [Mon-Fri], from: "00:05", to: "08:00", leadTime: 10m, limits: {minReplicas: 5}}`,
		"always":              `{name: p, limits: {minReplicas: 5}}`,
		"a reserve":           `{name: p, days: [Sat-Sun], from: "10:00", to: "16:00", limits: {minReplicas: 2, idleReplicas: 5}}`,
		"two, and a default":  `{name: p, days: [Mon], from: "10:00", to: "16:00", limits: {minReplicas: 5}}, {name: q, days: [Fri], from: "23:00", to: "01:00", limits: {minReplicas: 3}}`,
		"the weekend's night": `{name: p, days: [Sat], from: "22:00", to: "06:00", limits: {minReplicas: 5}}`,
	} {
		text := strings.Replace(testPolicy, testPolicy[strings.Index(testPolicy, "    periods:"):], "    periods: ["+period+"]\n", 1)
		if strings.Contains(name, "default") {
			text = strings.Replace(text, "    periods:", "    default: {minReplicas: 1}\n    periods:", 1)
		}
		p := policyOf(text)
		triggers, err := cronTriggers(p)
		if err != nil {
			t.Fatal(err)
		}
		scaler := simulator.WithCron(simulator.Static(nil), triggers...)
		wrong := 0
		for at := time.Date(2026, 5, 4, 0, 0, 30, 0, p.TimeZone); at.Before(time.Date(2026, 5, 18, 0, 0, 0, 0, p.TimeZone)); at = at.Add(5 * time.Minute) {
			limits := p.Calendar.Limits(at)
			got, _ := scaler.Target(at, simulator.Seen{})
			if want := int64(max(limits.MinReplicas, limits.IdleReplicas)); got != want {
				if wrong++; wrong == 1 {
					t.Errorf("%s: %d at %s, want %d", name, got, at.Format("Mon 15:04"), want)
				}
			}
		}
	}
}

// A fixed pool is shared out among queues, whole and one at least, and its size is the given one.
func TestStaticPools(t *testing.T) {
	var trace simulator.Trace
	for i, class := range []string{"a", "a", "a", "a", "a", "a", "b", "b", "c"} {
		trace.Jobs = append(trace.Jobs, simulator.Job{Start: time.Duration(i), Run: time.Hour, Class: class})
	}
	for total, want := range map[int64]string{0: "map[a:6 b:2 c:1]", 3: "map[a:1 b:1 c:1]", 4: "map[a:2 b:1 c:1]", 9: "map[a:6 b:2 c:1]", 20: "map[a:13 b:5 c:2]"} {
		got, err := staticPools(trace, total, true)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%d workers: %v, want %s; %v", total, got, want, err)
		}
	}
	if got, err := staticPools(trace, 7, false); err != nil || fmt.Sprint(got) != "map[:7]" {
		t.Errorf("one queue: %v, %v", got, err)
	}
}

func TestCronDays(t *testing.T) {
	for days, want := range map[string]string{"Mon-Fri": "[1 2 3 4 5]", "Fri-Mon": "[0 1 5 6]", "Sat,Sunday": "[0 6]", "": "[0 1 2 3 4 5 6]", "first Monday": "none"} {
		var list []string
		if days != "" {
			list = strings.Split(days, ",")
		}
		numbers, ok := cronDays(list)
		got := fmt.Sprint(numbers)
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%q is %s, want %s", days, got, want)
		}
	}
}

// The commands of the how-to run, and print what it shows, the first lines at least.
func TestHowTo(t *testing.T) {
	t.Chdir("../..")
	page, err := os.ReadFile("docs/how-to/try-a-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for block := range strings.SplitSeq(string(page), "```") {
		text, ok := strings.CutPrefix(block, "console\n$ ebbtide ")
		if !ok {
			continue
		}
		commands++
		line, want, _ := strings.Cut(text, "\n")
		want, _, _ = strings.Cut(want, "...\n")
		got := must(t, strings.Fields(line)...)
		var trimmed strings.Builder // tables end their lines with spaces where a cell is empty
		for l := range strings.Lines(got) {
			trimmed.WriteString(strings.TrimRight(l, " \n") + "\n")
		}
		if !strings.HasPrefix(trimmed.String(), want) {
			t.Errorf("%s: (-documented +real):\n%s", line, gocmp.Diff(want, trimmed.String()))
		}
	}
	if commands != 3 {
		t.Errorf("%d commands", commands)
	}
}
