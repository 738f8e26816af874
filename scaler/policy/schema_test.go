package policy

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/manifests/crd"
)

// wholePolicies have, together, every field of the API, except those that only files may use.
var wholePolicies = []string{`
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog:
    rabbitmq:
      uri: {value: "amqp://broker"}
      username: {secretKeyRef: {name: mq, key: user, optional: false}}
      password: {configMapKeyRef: {name: mq, key: password, optional: false}}
      managementURI: {value: "http://broker"}
      tls: {ca: {value: x}, certificate: {value: x}, key: {value: x}, serverName: broker}
      queue: scans
      onMissingQueue: Error
      otherConsumers: 1
  target:
    messagesPerReplica: 2
    maxReplicas: 50
    drainWithin: 10m
    serviceTime: 30s
    scaleInStabilization: 5m
    maxReplicasGroup: {name: seats, maxReplicas: 20, weight: 2}
  outage: {holdFor: 5m}
  calendar:
    timeZone: Europe/Prague
    default: {minReplicas: 0, idleReplicas: 0, maxReplicas: 50, surplus: "30%"}
    periods:
    - {name: workday, days: [Mon-Fri], from: "07:00", to: "19:00", leadTime: 10m, limits: {minReplicas: 5, idleReplicas: 1, maxReplicas: 40, surplus: 2}}
    exceptions:
    - {name: christmas, from: 12-24, to: 12-26, use: workday}
    - {name: audit, from: 2026-11-02, limits: {minReplicas: 1, idleReplicas: 1, maxReplicas: 40, surplus: "30%"}}
    holidays: {ics: {value: "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:1\nDTSTART;VALUE=DATE:20260501\nEND:VEVENT\nEND:VCALENDAR\n"}, use: workday}
`, `
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog: {rabbitmq: {uri: {value: "amqp://broker"}, queues: [scans, more]}}
  calendar:
    holidays: {ics: {value: "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:1\nDTSTART;VALUE=DATE:20260501\nEND:VEVENT\nEND:VCALENDAR\n"}, limits: {minReplicas: 1, idleReplicas: 1, maxReplicas: 40, surplus: "30%"}}
`, `
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog: {rabbitmq: {uri: {value: "amqp://broker"}, managementURI: {value: "http://broker"}, queuePattern: scans-*}}
`, `
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog:
    kafka:
      brokers: ["kafka:9092"]
      consumerGroup: scans
      topics: [scans]
      onMissingOffset: Earliest
      isolationLevel: ReadCommitted
      sasl: {mechanism: PLAIN, username: {value: u}, password: {value: p}}
      tls: {ca: {value: x}}
`, `
apiVersion: ebbtide.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: scans, namespace: scan}
spec:
  backlog:
    prometheus:
      url: {value: "http://prometheus:9090"}
      query: sum(work)
      onNoData: Error
      bearerToken: {value: t}
      headers: [{name: X-Scope-OrgID, value: {value: scans}}]
      queryParameters: [{name: dedup, value: "true"}]
      tls: {ca: {value: x}}
  calendar:
    weekend: [Fri, Sat]
    periods:
    - {name: day, days: [Sun-Thu], months: [Jan-Nov], weeks: {every: 2, from: 2026-01-05}, from: "09:00", to: "17:00", limits: {minReplicas: 1}}
    exceptions:
    - {name: launch, from: 2026-12-01, sameAs: Sun, periods: [{from: "09:00", to: "17:00", leadTime: 5m, limits: {minReplicas: 3, idleReplicas: 1, maxReplicas: 9, surplus: "0%"}}]}
    - {name: sale, from: 2026-12-02, periods: [{from: "09:00", to: "17:00", use: day}]}
    holidays:
      ics: {value: "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:1\nDTSTART;VALUE=DATE:20260501\nEND:VEVENT\nEND:VCALENDAR\n"}
      only: {categories: [public], summaries: [day], transparency: Transparent}
      except: {categories: [school], summaries: [half], transparency: Opaque}
      strict: true
      sameAs: Fri
      periods: [{from: "09:00", to: "12:00", leadTime: 5m, limits: {minReplicas: 1, idleReplicas: 1, maxReplicas: 5, surplus: 0}}, {from: "13:00", to: "14:00", use: day}]
    additionalHolidays:
    - ics: {value: "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:2\nDTSTART;VALUE=DATE:20260502\nEND:VEVENT\nEND:VCALENDAR\n"}
      only: {categories: [public], summaries: [day], transparency: Transparent}
      except: {categories: [school], summaries: [half], transparency: Opaque}
      strict: true
      use: day
      periods: [{from: "09:00", to: "12:00", leadTime: 5m, limits: {minReplicas: 1, idleReplicas: 1, maxReplicas: 5, surplus: 0}}, {from: "13:00", to: "14:00", use: day}]
    - ics: {value: "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:3\nDTSTART;VALUE=DATE:20260503\nEND:VEVENT\nEND:VCALENDAR\n"}
      limits: {minReplicas: 1, idleReplicas: 1, maxReplicas: 5, surplus: 0}
    - ics: {value: "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:4\nDTSTART;VALUE=DATE:20260504\nEND:VEVENT\nEND:VCALENDAR\n"}
      sameAs: Sun
`}

func definition(t *testing.T) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	var d apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(crd.ScalingPolicy, &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// The API server takes the definition: its rules compile and cost no more than they may.
func TestDefinition(t *testing.T) {
	d := definition(t)
	apiextensionsv1.SetDefaults_CustomResourceDefinition(d)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&d.Spec)
	var internal apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(d, &internal, nil); err != nil {
		t.Fatal(err)
	}
	internal.Status.StoredVersions = []string{"v1alpha1"}
	if errs := crdvalidation.ValidateCustomResourceDefinition(t.Context(), &internal); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
	for _, files := range []bool{false, true} {
		if _, err := loadRules(files); err != nil {
			t.Error(err)
		}
	}
}

// violation of a schema's node: what to put there instead.
type violation struct {
	what  string
	value any
}

// violations of everything that a node's schema says.
func violations(s *apiextensionsv1.JSONSchemaProps) []violation {
	var found []violation
	add := func(what string, value any) { found = append(found, violation{what, value}) }
	switch s.Type {
	case "object":
		add("no object", "text")
		add("unknown field", map[string]any{"noSuchField": int64(1)})
	case "array":
		add("no list", "text")
	case "string":
		add("a number", int64(7))
	case "integer":
		add("a text", "7")
		add("a fraction", 1.5)
		if s.Format == "int32" {
			add("too large for it", int64(1)<<31)
		}
	case "boolean":
		add("a text", "true")
	}
	if s.Minimum != nil {
		add("below the minimum", int64(*s.Minimum)-1)
	}
	if s.Maximum != nil {
		add("above the maximum", int64(*s.Maximum)+1)
	}
	if s.MinLength != nil {
		add("too short", "")
	}
	if s.MaxLength != nil {
		add("too long", strings.Repeat("a", int(*s.MaxLength)+1))
	}
	if s.Pattern != "" {
		add("a text that does not fit its pattern", "\u2028 \n")
	}
	if len(s.Enum) > 0 {
		add("none of the values", "NoSuchValue")
	}
	if s.MaxItems != nil {
		var list []any
		for i := range *s.MaxItems + 1 {
			list = append(list, fmt.Sprint("item", i))
		}
		add("too many", list)
	}
	if s.MinItems != nil {
		add("too few", []any{})
	}
	if s.XListType != nil && *s.XListType == "set" {
		add("the same twice", []any{"same", "same"})
	}
	return found
}

// walk calls f for each node of an object that its schema knows, with what replaces the node.
func walkSchema(s *apiextensionsv1.JSONSchemaProps, path string, node any, replace func(any), f func(path string, s *apiextensionsv1.JSONSchemaProps, node any, replace func(any))) {
	f(path, s, node, replace)
	switch node := node.(type) {
	case map[string]any:
		for name, child := range node {
			if schema, ok := s.Properties[name]; ok {
				walkSchema(&schema, path+"."+name, child, func(v any) { node[name] = v }, f)
			}
		}
	case []any:
		for i, child := range node {
			walkSchema(s.Items.Schema, path+"[]", child, func(v any) { node[i] = v }, f)
		}
	}
}

// leaves are all paths of a schema.
func leaves(s *apiextensionsv1.JSONSchemaProps, path string, into map[string]bool) {
	into[path] = true
	for name, child := range s.Properties {
		leaves(&child, path+"."+name, into)
	}
	if s.Items != nil {
		leaves(s.Items.Schema, path+"[]", into)
	}
}

// Whatever the schema does not allow is refused in a file, at every place of the schema, and so is a policy that lacks what is required.
func TestFilesAreHeldToTheSchema(t *testing.T) {
	spec := definition(t).Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	unvisited := map[string]bool{}
	leaves(&spec, "spec", unvisited)
	b := newBundle(t)
	name := types.NamespacedName{Namespace: "scan", Name: "scans"}
	load := func(object map[string]any) error {
		text, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(b.dir, "p.yaml"), string(text))
		b.directory.Load(t.Context())
		_, err, _ = b.store.Get(name)
		return err
	}
	n := 0
	for _, text := range wholePolicies {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			t.Fatal(err)
		}
		object = runtime.DeepCopyJSON(toInt64(object).(map[string]any))
		if err := load(object); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		walkSchema(&spec, "spec", object["spec"], func(v any) { object["spec"] = v }, func(path string, s *apiextensionsv1.JSONSchemaProps, node any, replace func(any)) {
			delete(unvisited, path)
			if fields, ok := node.(map[string]any); ok {
				for _, required := range s.Required {
					value := fields[required]
					delete(fields, required)
					if n++; load(object) == nil {
						t.Errorf("%s without %s is in force", path, required)
					}
					fields[required] = value
				}
			}
			for _, v := range violations(s) {
				if more, ok := v.value.(map[string]any); ok { // beside what is there
					v.value = maps.Clone(node.(map[string]any))
					maps.Copy(v.value.(map[string]any), more)
				}
				replace(v.value)
				n++
				if err := load(object); err == nil {
					t.Errorf("%s: %s is in force: %.80v", path, v.what, v.value)
				} else if strings.Contains(err.Error(), "should match") {
					t.Errorf("%s: what would be right is said by a pattern alone: %.300v", path, err)
				}
				replace(node)
			}
		})
		if err := load(object); err != nil {
			t.Errorf("what was changed was not put back: %v", err)
		}
	}
	maps.DeleteFunc(unvisited, func(path string, _ bool) bool {
		return strings.HasSuffix(path, ".env") || strings.HasSuffix(path, ".file") || valueSource(path)
	})
	if len(unvisited) > 0 {
		t.Errorf("fields that no policy of this test has: %s", slices.Sorted(maps.Keys(unvisited)))
	}
	t.Logf("%d policies refused", n)
}

// valueSource is true for what is in a ValueSource, of which there are many alike: the test has one of each kind.
func valueSource(path string) bool {
	for _, kind := range []string{".secretKeyRef", ".configMapKeyRef", ".value"} {
		if i := strings.Index(path, kind); i >= 0 {
			return !strings.Contains(path[:i], ".username") && !strings.Contains(path[:i], ".password") || strings.Contains(path, ".kafka.") ||
				strings.Contains(path, ".username.configMapKeyRef") || strings.Contains(path, ".password.secretKeyRef") || kind == ".value"
		}
	}
	return strings.Contains(path, ".tls.") && !strings.Contains(path, ".rabbitmq.")
}

func toInt64(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			v[key] = toInt64(child)
		}
	case []any:
		for i, child := range v {
			v[i] = toInt64(child)
		}
	case float64:
		return int64(v)
	}
	return v
}

// What only rules across fields say is refused in files too, and what only files may use is refused from the API server.
func TestRulesAcrossFields(t *testing.T) {
	long := strings.Repeat("\u0436", 130) // 130 characters, 260 bytes
	for name, tc := range map[string]struct{ from, to, want string }{
		"no source":                  {`rabbitmq: {uri: {value: "amqp://broker"}, queue: scans}`, ``, "set exactly one source"},
		"two sources":                {`queue: scans}`, `queue: scans}, prometheus: {url: {value: x}, query: x}`, "set exactly one source"},
		"queue and queues":           {`queue: scans`, `queue: scans, queues: [more]`, "set exactly one of queue, queues and queuePattern"},
		"queue and queuePattern":     {`queue: scans`, `queue: scans, managementURI: {value: "http://broker"}, queuePattern: scans-*`, "set exactly one of queue, queues and queuePattern"},
		"queuePattern alone":         {`queue: scans`, `queuePattern: scans-*`, "queuePattern needs managementURI"},
		"queuePattern of 260 bytes":  {`queue: scans`, `managementURI: {value: "http://broker"}, queuePattern: ` + long, "at most 255 bytes"},
		"a queue of 260 bytes":       {`queue: scans`, `queue: ` + long, "at most 255 bytes"},
		"one of the queues":          {`queue: scans`, `queues: [` + long + `]`, "at most 255 bytes"},
		"a value and a reference":    {`{value: "amqp://broker"}`, `{value: x, secretKeyRef: {name: a, key: b}}`, "exactly one of value"},
		"a reference to nothing":     {`{value: "amqp://broker"}`, `{secretKeyRef: {name: "", key: b}}`, "must name a Secret"},
		"certificate without key":    {`queue: scans`, `queue: scans, tls: {certificate: {value: x}}`, "set certificate and key together"},
		"drainWithin, not observed":  {`maxReplicas: 7`, `drainWithin: 10m`, "must know the service time"},
		"drainWithin of 1ns":         {`maxReplicas: 7`, `drainWithin: 1ns, serviceTime: 1s`, "from 1s to 168h"},
		"serviceTime of centuries":   {`maxReplicas: 7`, `drainWithin: 1s, serviceTime: 2562047h`, "at most 168h"},
		"serviceTime alone":          {`maxReplicas: 7`, `serviceTime: 1s`, "set both, or neither"},
		"no duration":                {`maxReplicas: 7`, `scaleInStabilization: soon`, "spec.target.scaleInStabilization"},
		"stabilisation of two hours": {`maxReplicas: 7`, `scaleInStabilization: 2h`, "from 0s to 1h"},
		"explicit zero":              {`maxReplicas: 7`, `messagesPerReplica: 0`, "spec.target.messagesPerReplica"},
		"name":                       {`name: scans`, `name: Scans`, "metadata.name"},
		"namespace":                  {`namespace: scan}`, `namespace: a.b}`, "metadata.namespace"},
		"label":                      {`namespace: scan}`, `namespace: scan, labels: {a b: c}}`, "metadata.labels"},
		"unknown metadata":           {`namespace: scan}`, `namespace: scan, lables: {}}`, "metadata.lables: Forbidden: unknown field"},
	} {
		text := strings.Replace(scans, tc.from, tc.to, 1)
		if text == scans {
			t.Fatalf("%s changes nothing", name)
		}
		path := filepath.Join(t.TempDir(), "p.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(context.Background(), path); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
		}
	}
	var object map[string]any
	if err := yaml.Unmarshal([]byte(strings.Replace(scans, `{value: "amqp://broker"}`, `{env: MQ_URI}`, 1)), &object); err != nil {
		t.Fatal(err)
	}
	if _, errs := fileRules().complete(runtime.DeepCopyJSON(toInt64(object).(map[string]any))); len(errs) > 0 {
		t.Errorf("env in a file: %v", errs.ToAggregate())
	}
	if _, errs := apiRules().complete(object); len(errs) != 1 || !strings.Contains(errs[0].Error(), onlyFromFiles) {
		t.Errorf("env from the API server: %v", errs.ToAggregate())
	}
}

// A policy gets the same defaults from a file as from the API server, whatever of it is left out.
func TestDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(scans, "  target: {maxReplicas: 7}\n", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	policies, err := ReadFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := yaml.Marshal(policies[0].Spec())
	want := `backlog:
  rabbitmq:
    onMissingQueue: Zero
    queue: scans
    uri:
      value: amqp://broker
outage:
  holdFor: 5m0s
target:
  maxReplicas: 100
  messagesPerReplica: 1
`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

// No error of a file shows what may be a password, whatever mistake is made around it.
func TestFileErrorsHoldNoSecrets(t *testing.T) {
	for name, uri := range map[string]string{
		"not in an object":      `"amqp://u:hunter2@broker"`,
		"as a field":            `{"amqp://u:hunter2@broker"}`,
		"as a field's field":    `{value: {"amqp://u:hunter2@broker": x}}`,
		"as an alias":           `{value: *hunter2}`,
		"twice":                 `{hunter2.x: a, hunter2.x: b}`,
		"as a number":           `{value: 0x4857e2, hunter2: hunter2}`[:0] + `{value: [hunter2]}`,
		"too long":              `{value: "hunter2` + strings.Repeat("x", 70000) + `"}`,
		"beside another":        `{value: hunter2, env: hunter2}`,
		"in a quote not closed": "{value: 'hunter2}",
		"with a bad escape":     `{value: "hunter2\q"}`,
		"as a tag":              `{value: !hunter2 x}`,
		"as YAML's directive":   "%hunter2",
	} {
		path := filepath.Join(t.TempDir(), "p.yaml")
		text := strings.Replace(scans, `{value: "amqp://broker"}`, uri, 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadFile(t.Context(), path)
		if err == nil && name != "as a tag" || err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %.300v", name, err)
		}
		b := newBundle(t)
		write(t, filepath.Join(b.dir, "p.yaml"), text)
		b.directory.Load(t.Context())
		if strings.Contains(b.log.String(), "hunter2") {
			t.Errorf("%s: log %.500s", name, b.log)
		}
	}
}
