package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/doctable"
)

// healthy is a set of objects in which nothing is wrong. Every check has an edit of it that makes it speak.
const healthy = `
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog: {rabbitmq: {uri: {secretKeyRef: {name: broker, key: uri}}, queue: scans}}
  calendar: {periods: [{name: day, limits: {minReplicas: 5}}]}
status: {conditions: [{type: Ready, status: "True"}, {type: Accepted, status: "True"}, {type: CredentialsResolved, status: "True"}, {type: BacklogReachable, status: "True", reason: Reachable, message: x}]}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: scans, namespace: scan}
spec:
  maxReplicaCount: 1000
  rollout: {strategy: gradual}
  scalingStrategy: {strategy: default}
  triggers:
  - type: external
    metadata: {scalerAddress: "dns:///ebbtide-scaler.ebbtide-system:8443", policy: scans}
    authenticationRef: {name: ebbtide}
  jobTargetRef:
    backoffLimit: 0
    template:
      spec:
        schedulerName: ebbtide
        containers:
        - name: scan
          command: [ebbtide-worker]
          args: [--idle-timeout, 15m, --, scan.sh]
          resources: {requests: {cpu: 1, memory: 1Gi}}
---
apiVersion: v1
kind: Service
metadata: {name: ebbtide-scaler, namespace: ebbtide-system}
spec: {clusterIP: None}
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: scans}
spec: {disruption: {consolidationPolicy: WhenEmpty}, limits: {cpu: "2000"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: scheduler, namespace: kube-system}
data:
  config.yaml: |
    kind: KubeSchedulerConfiguration
    profiles:
    - schedulerName: ebbtide
      plugins:
        multiPoint: {enabled: [{name: DrainPack}]}
        score: {disabled: [{name: NodeResourcesFit}, {name: NodeResourcesBalancedAllocation}, {name: ImageLocality}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: keda-operator, namespace: keda, labels: {app.kubernetes.io/version: 2.21.0}}
`

// anotherPolicy reads the queue of the first, among others.
const anotherPolicy = `---
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: more, namespace: scan}
spec: {backlog: {rabbitmq: {uri: {secretKeyRef: {name: broker, key: uri}}, queues: [others, scans]}}}
`

// anotherJob is a second ScaledJob, with nothing wrong in itself.
func anotherJob(policy string) string {
	return `---
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: more, namespace: scan}
spec:
  maxReplicaCount: 1000
  rollout: {strategy: gradual}
  triggers:
  - type: external
    metadata: {scalerAddress: "dns:///ebbtide-scaler.ebbtide-system:8443", policy: ` + policy + `}
    authenticationRef: {name: ebbtide}
  jobTargetRef:
    backoffLimit: 0
    template: {spec: {schedulerName: ebbtide, containers: [{name: scan, command: [scan.sh], resources: {requests: {cpu: 1, memory: 1Gi}}}]}}
`
}

func examine(t *testing.T, text string) []Finding {
	t.Helper()
	objects, err := Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return Examine(objects, Scope{Now: now})
}

// Each check speaks of its fault, names the object and the line, and no other check speaks of it.
func TestChecks(t *testing.T) {
	if found := examine(t, healthy); len(found) > 0 {
		t.Fatalf("all is well, but: %+v", found)
	}
	edits := map[string][][2]string{
		"EBB001": {{"strategy: default", "strategy: accurate"}},
		"EBB002": {{"  maxReplicaCount: 1000", "  maxReplicaCount: 1000\n  minReplicaCount: 5"}},
		"EBB003": {{"  rollout: {strategy: gradual}\n", ""}},
		"EBB004": {
			{"  maxReplicaCount: 1000\n", ""}, {"  maxReplicaCount: 1000", "  maxReplicaCount: 99"},
			{"  calendar: {periods", "  target: {maxReplicas: 1001}\n  calendar: {periods"},
		},
		"EBB005": {
			{"  jobTargetRef:", "  - type: cron\n    metadata: {start: 0 7 * * 1-5, end: 0 19 * * 1-5}\n  jobTargetRef:"},
			{"policy: scans}\n", "policy: scans, timezone: Europe/Prague}\n"},
		},
		"EBB006": {{"clusterIP: None", "clusterIP: 10.0.0.7"}, {"dns:///ebbtide-scaler.ebbtide-system:", "scaler.elsewhere.svc:"}},
		"EBB007": {{"policy: scans}\n", "policy: scan}\n"}},
		"EBB008": {{"    authenticationRef: {name: ebbtide}\n", ""}},
		"EBB009": {
			{"---\napiVersion: v1\nkind: Service\n", anotherJob("scans") + "---\napiVersion: v1\nkind: Service\n"},
			{"---\napiVersion: v1\nkind: Service\n", anotherPolicy + anotherJob("more") + "---\napiVersion: v1\nkind: Service\n"},
		},
		"EBB011": {{"  - type: external\n", "  - type: external\n    metricType: Value\n"}},
		"EBB012": {{"  - type: external\n", "  - type: external\n    useCachedMetrics: true\n"}},
		"EBB013": {{"kind: ScaledJob", "kind: ScaledObject"}},
		"EBB106": {{"    backoffLimit: 0\n", "    backoffLimit: 0\n    parallelism: 4\n    completions: 4\n"}, {"    backoffLimit: 0\n", "    backoffLimit: 0\n    completions: 2\n"}},
		"EBB107": {
			{"    backoffLimit: 0\n", "    backoffLimit: 0\n    activeDeadlineSeconds: 20\n"}, {"        schedulerName", "        activeDeadlineSeconds: 20\n        schedulerName"},
			{"    backoffLimit: 0\n", "    backoffLimit: 0\n    activeDeadlineSeconds: 900\n"},
		},
		"EBB108": {{"        schedulerName", "        terminationGracePeriodSeconds: 1\n        schedulerName"}},
		"EBB109": {{"    backoffLimit: 0\n", "    backoffLimit: 0\n    ttlSecondsAfterFinished: 0\n"}, {"  rollout: {strategy: gradual}", "  failedJobsHistoryLimit: 0\n  rollout: {strategy: gradual}"}},
		"EBB112": {{"      spec:\n        schedulerName", "      metadata: {annotations: {ebbtide.dev/expected-duration: 1d}}\n      spec:\n        schedulerName"}},
		"EBB111": {{"        schedulerName: ebbtide\n", ""}, {"        schedulerName: ebbtide\n", "        schedulerName: default-scheduler\n"}},
		"EBB101": {
			{"--idle-timeout, 15m,", "--idle-timeout, 15m, --prefetch, \"10\","}, {"--idle-timeout, 15m,", "--idle-timeout, 15m, --prefetch=10,"},
			{"          resources:", "          env: [{name: AMQP_PREFETCH_COUNT, value: \"10\"}]\n          resources:"},
			{"scan.sh]", "rabbitmqadmin get queue=scans]"},
		},
		"EBB102": {{"--idle-timeout, 15m,", "--idle-timeout, \"0\","}, {"--idle-timeout, 15m,", "--idle-timeout=0s,"}},
		"EBB103": {{"{cpu: 1, memory: 1Gi}", "{cpu: 1}"}},
		"EBB104": {{"        containers:", "        topologySpreadConstraints: [{topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]\n        containers:"}},
		"EBB105": {{"    backoffLimit: 0\n", ""}, {"backoffLimit: 0", "backoffLimit: 3"}},
		"EBB110": {
			{"        containers:", "        nodeSelector: {karpenter.sh/capacity-type: spot}\n        terminationGracePeriodSeconds: 310\n        containers:"},
			{"--idle-timeout, 15m,", "--idle-timeout, 15m, --grace-period=5m,"}, {"--idle-timeout, 15m,", "--idle-timeout, 15m, --grace-period, 30s,"},
		},
		"EBB201": {{"{name: NodeResourcesFit}, ", ""}},
		"EBB202": {{"consolidationPolicy: WhenEmpty", "consolidationPolicy: WhenEmptyOrUnderutilized"}, {"{consolidationPolicy: WhenEmpty}", "{}"}},
		"EBB203": {{`BacklogReachable, status: "True"`, `BacklogReachable, status: "False"`}},
		"EBB204": {{`type: Accepted, status: "True"`, `type: Accepted, status: "False", message: "spec.target: no"`}},
		"EBB206": {{`type: CredentialsResolved, status: "True"`, `type: CredentialsResolved, status: "False", message: "no Secret"`}},
		"EBB207": {{`reason: Reachable`, `reason: QueueMissing`}, {`status: "True", reason: Reachable`, `status: "False", reason: QueueMissing`}},
		"EBB215": {{`reason: Reachable`, `reason: ManagementUnreachable`}},
		"EBB208": {
			{"  calendar: {", "  calendar: {holidays: {ics: {value: \"BEGIN:VCALENDAR\\nVERSION:2.0\\nPRODID:x\\nBEGIN:VEVENT\\nUID:1\\nDTSTART;VALUE=DATE:20240501\\nEND:VEVENT\\nEND:VCALENDAR\\n\"}, use: day}, "},
			{"  calendar: {", "  calendar: {holidays: {ics: {value: nonsense}, use: day}, "},
			{`{type: Ready, status: "True"}`, `{type: Ready, status: "True"}, {type: HolidaysRead, status: "False", reason: HolidaysExpired, message: x}`},
		},
		"EBB216": {
			{"  calendar: {", "  calendar: {additionalHolidays: [{ics: {value: \"BEGIN:VCALENDAR\\nBEGIN:VEVENT\\nDTSTART;VALUE=DATE:20261224\\nRRULE:FREQ=YEARLY\\nEND:VEVENT\\n" +
				"BEGIN:VEVENT\\nDTSTART:soon\\nEND:VEVENT\\nEND:VCALENDAR\\n\"}, use: day}], "},
			{`{type: Ready, status: "True"}`, `{type: Ready, status: "True"}, {type: HolidaysRead, status: "False", reason: HolidaysSkipped, message: x}`},
		},
		"EBB209": {
			{"{consolidationPolicy: WhenEmpty}", "{consolidationPolicy: WhenEmpty, consolidateAfter: Never}"},
			{"{consolidationPolicy: WhenEmpty}", "{consolidationPolicy: WhenEmpty, consolidateAfter: 10m}"},
			{"{consolidationPolicy: WhenEmpty}", "{consolidationPolicy: WhenEmpty, budgets: [{nodes: \"0\"}]}"},
		},
		"EBB210": {{"limits: {cpu: \"2000\"}", "template: {spec: {expireAfter: 10m}}"}},
		"EBB211": {{"limits: {cpu: \"2000\"}", "limits: {cpu: 50}"}},
		"EBB212": {
			{"multiPoint: {enabled", "filter: {enabled"},
			{"        score: {", "        postFilter: {enabled: [{name: DefaultPreemption}, {name: DrainPack}]}\n        score: {"},
		},
		"EBB205": {{"2.21.0", "2.15.1"}, {", labels: {app.kubernetes.io/version: 2.21.0}}", "}\nspec: {template: {spec: {containers: [{image: \"ghcr.io/kedacore/keda:v2.15.1\"}]}}}"}},
	}
	for _, c := range Checks() {
		if len(edits[c.ID]) == 0 && !slices.Contains([]string{"EBB010", "EBB014", "EBB217"}, c.ID) { // TestCluster
			t.Errorf("%s has no test", c.ID)
		}
		for _, edit := range edits[c.ID] {
			text := strings.Replace(healthy, edit[0], edit[1], 1)
			if text == healthy {
				t.Fatalf("%s: the edit %q changes nothing", c.ID, edit)
			}
			found := examine(t, text)
			if len(found) != 1 || found[0].ID != c.ID || found[0].Severity != c.Severity || found[0].Message == "" || !strings.HasPrefix(found[0].Source, "x.yaml:") {
				t.Errorf("%s, %q: %+v", c.ID, edit, found)
			}
		}
	}
}

// now is when these objects are examined.
var now = time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)

// scaler is what is installed in a cluster besides the objects of healthy.
const scaler = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ebbtide-scaler, namespace: ebbtide-system}
spec: {template: {spec: {containers: [{name: scaler, args: [--tls-cert=/tls/tls.crt, --tls-client-ca=/tls/ca.crt]}]}}}
status: {availableReplicas: 2}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ebbtide-scheduler, namespace: ebbtide-system, labels: {app.kubernetes.io/name: ebbtide-scheduler}}
spec: {template: {spec: {containers: [{name: scheduler, args: [--config=/x]}]}}}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: ebbtide, namespace: scan}
spec: {secretTargetRef: [{parameter: caCert, name: x, key: x}, {parameter: tlsClientCert, name: x, key: x}, {parameter: tlsClientKey, name: x, key: x}]}
`

// For a cluster, the report also names what is missing.
func TestCluster(t *testing.T) {
	without := func(kind, name string) func(Object) bool {
		return func(o Object) bool { return o.GetKind() == kind && (name == "" || o.GetName() == name) }
	}
	for name, tc := range map[string]struct {
		gone     func(Object) bool
		from, to string
		scope    Scope
		want     string // IDs
	}{
		"all there":                      {},
		"no policy":                      {gone: without("ScalingPolicy", ""), want: "EBB007"},
		"policies may not be read":       {gone: without("ScalingPolicy", ""), scope: Scope{Refused: []string{"scalingpolicies"}}},
		"no Service":                     {gone: without("Service", ""), want: "EBB014"},
		"a Service of another namespace": {gone: without("Service", ""), scope: Scope{Namespace: "scan"}},
		"no replica":                     {from: "availableReplicas: 2", to: "replicas: 2", want: "EBB014"},
		"Ebbtide uninstalled": {
			gone: func(o Object) bool {
				return o.GetKind() == "ScalingPolicy" || o.GetKind() == "Service" || o.GetKind() == "Deployment" && o.GetName() == "ebbtide-scaler"
			},
			scope: Scope{Unknown: []string{"scalingpolicies"}}, want: "EBB007 EBB014 EBB014",
		},
		"nothing at all":                {gone: func(Object) bool { return true }, scope: Scope{Unknown: []string{"scalingpolicies"}}, want: "EBB014"},
		"no authenticationRef":          {from: "    authenticationRef: {name: ebbtide}\n", to: "", want: "EBB010"},
		"no TriggerAuthentication":      {gone: without("TriggerAuthentication", ""), want: "EBB010"},
		"TriggerAuthentication of a CA": {from: ", {parameter: tlsClientKey, name: x, key: x}", to: "", want: "EBB010"},
		"a cluster that is too old":     {scope: Scope{Unfit: "too old"}, want: "EBB217"},
		"too old, without a scheduler":  {scope: Scope{Unfit: "too old"}, gone: without("Deployment", "ebbtide-scheduler")},
		"too old, devices or not":       {scope: Scope{Unfit: "too old"}, from: "--config=/x", to: "--emulated-version=1.33", want: "EBB217"},
		"no devices":                    {scope: Scope{Unfit: "no devices", OnlyDevices: true}, want: "EBB217"},
		"no devices, and none needed":   {scope: Scope{Unfit: "no devices", OnlyDevices: true}, from: "--config=/x", to: "--emulated-version=1.33"},
		"no authenticationRef, no mTLS": {from: "    authenticationRef: {name: ebbtide}\n", to: "", gone: without("Deployment", "ebbtide-scaler"), want: "EBB008"},
	} {
		text := strings.Replace(healthy+scaler, tc.from, tc.to, 1)
		objects, err := Parse("x.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if tc.gone != nil {
			objects = slices.DeleteFunc(objects, tc.gone)
		}
		tc.scope.Cluster, tc.scope.Now = true, now
		var got []string
		for _, f := range Examine(objects, tc.scope) {
			got = append(got, f.ID)
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %v, want %s", name, got, tc.want)
		}
	}
}

// What was never asked for is no error.
func TestNeverAsked(t *testing.T) {
	text := strings.NewReplacer(`type: BacklogReachable, status: "True", reason: Reachable`, `type: BacklogReachable, status: Unknown, reason: NotAsked`,
		`type: CredentialsResolved, status: "True"`, `type: CredentialsResolved, status: Unknown`, `type: Ready, status: "True"`, `type: Ready, status: Unknown`).Replace(healthy)
	if found := examine(t, text); text == healthy || len(found) > 0 {
		t.Errorf("%+v", found)
	}
}

func TestNodePoolIsFineWithProtectedPods(t *testing.T) {
	text := strings.Replace(healthy, "consolidationPolicy: WhenEmpty", "consolidationPolicy: WhenEmptyOrUnderutilized", 1)
	text = strings.Replace(text, "      spec:\n        schedulerName", "      metadata: {annotations: {karpenter.sh/do-not-disrupt: \"true\"}}\n      spec:\n        schedulerName", 1)
	if found := examine(t, text); len(found) > 0 {
		t.Errorf("%+v", found)
	}
}

// Pods that a NodePool with spot nodes may take are theirs, and no others.
func TestGraceOnSpotNodes(t *testing.T) {
	pool := func(capacity string) string {
		text := strings.Replace(healthy, "spec: {disruption: {consolidationPolicy: WhenEmpty}, limits: {cpu: \"2000\"}}", "spec: {disruption: {consolidationPolicy: WhenEmpty}, template: "+
			"{metadata: {labels: {pool: scans}}, spec: {requirements: [{key: karpenter.sh/capacity-type, operator: In, values: ["+capacity+"]}]}}}", 1)
		return strings.Replace(text, "        containers:", "        nodeSelector: {pool: scans}\n        terminationGracePeriodSeconds: 310\n        containers:", 1)
	}
	for capacity, want := range map[string]int{"on-demand": 0, "spot": 1, "spot, on-demand": 1} {
		if found := examine(t, pool(capacity)); len(found) != want || want == 1 && found[0].ID != "EBB110" {
			t.Errorf("%s: %+v", capacity, found)
		}
	}
	if found := examine(t, strings.Replace(pool("spot"), "310", "110", 1)); len(found) > 0 {
		t.Errorf("two minutes are enough: %+v", found)
	}
}

// A deadline after the last scan that a worker may begin, and its time limit, kills none.
func TestDeadline(t *testing.T) {
	for args, want := range map[string]bool{
		"--idle-timeout, 15m": true, "--idle-timeout=15m, --scan-timeout=30m": true, "--idle-timeout=15m, --scan-timeout=50m": false,
		"--max-messages, \"0\"": false, "--max-messages=0, --max-lifetime=5m": true, "--max-messages=0, --max-lifetime=1h": false,
		"--max-messages=0, --max-lifetime=5m, --scan-timeout=55m": false, "--idle-timeout=0": false, "--idle-timeout=2h, --max-lifetime=5m": true,
	} {
		found := examine(t, strings.Replace(strings.Replace(healthy, "--idle-timeout, 15m", args, 1), "    backoffLimit: 0\n", "    backoffLimit: 0\n    activeDeadlineSeconds: 3600\n", 1))
		if got := !slices.ContainsFunc(found, func(f Finding) bool { return f.ID == "EBB107" }); got != want {
			t.Errorf("%s: fine %t, want %t", args, got, want)
		}
	}
}

// Queues of the same name at brokers of their own are two.
func TestQueuesOfDifferentBrokers(t *testing.T) {
	text := healthy + strings.Replace(anotherPolicy, "name: broker", "name: other-broker", 1) + anotherJob("more")
	if found := examine(t, text); len(found) > 0 {
		t.Errorf("%+v", found)
	}
}

func TestParse(t *testing.T) {
	objects, err := Parse("x.yaml", []byte("kind: List\nitems:\n- {kind: A, metadata: {name: a}}\n- {kind: B}\n---\n# nothing\n---\nkind: C\n"))
	if err != nil || len(objects) != 3 || objects[0].GetName() != "a" || objects[2].Source != "x.yaml:8" {
		t.Errorf("%+v, %v", objects, err)
	}
	if _, err := Parse("x.yaml", []byte("a: b\n---\na: [\n")); err == nil || !strings.HasPrefix(err.Error(), "x.yaml:3:") {
		t.Errorf("error %v", err)
	}
}

// What the project ships is healthy.
func TestOwnManifests(t *testing.T) {
	var all []Object
	for _, pattern := range []string{"../../manifests/*/*.yaml", "../../manifests/*/*/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			objects, err := Parse(file, text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, objects...)
		}
	}
	for _, f := range Examine(all, Scope{Now: now}) {
		t.Errorf("%+v", f)
	}
	if !slices.ContainsFunc(all, func(o Object) bool { return o.GetKind() == "KubeSchedulerConfiguration" }) {
		t.Error("the scheduler's configuration was not read")
	}
}

func TestReferencePage(t *testing.T) {
	var page strings.Builder
	for _, c := range Checks() {
		fmt.Fprintf(&page, "\n### %s\n\n**%s** (%s). %s\n\nFix: %s.\n", c.ID, strings.ToUpper(c.Title[:1])+c.Title[1:], c.Severity, c.Why, c.Fix)
	}
	doctable.Check(t, "../../docs/reference/doctor.md", "checks", page.String())
}
