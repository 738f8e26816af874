package docs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	schedulerconfig "k8s.io/kube-scheduler/config/v1"
	podgroupv1 "sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"
	"sigs.k8s.io/yaml"

	schedulerargs "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/internal/doctor"
	"github.com/ebbtide-dev/ebbtide/internal/yamldoc"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
)

// notDecoded are kinds whose types are not linked: they must only be YAML.
var notDecoded = []string{
	"Certificate", "ClusterIssuer", "CustomResourceDefinition", "EC2NodeClass", "Issuer", "KWOKNodeClass", "Kustomization", "NodePool",
	"PodMonitor", "PrometheusRule", "ServiceMonitor", "Cluster",
}

// YAML of the pages is valid: whole objects, and parts of a policy, a ScaledJob, a scheduler's profile or a chart's values.
func TestYAML(t *testing.T) {
	r := newReader(t)
	count := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks() {
			if b.language != "yaml" {
				continue
			}
			count++
			if err := r.check(t, []byte(b.text)); err != nil {
				t.Errorf("%s:%d: %v", b.page, b.number, err)
			}
		}
	}
	if count < 5 {
		t.Errorf("only %d blocks", count)
	}
}

// The files of examples/ are valid, and the doctor finds no error in those of a folder together, and in the first that people see nothing at all.
func TestExamples(t *testing.T) {
	r := newReader(t)
	folders := map[string][]doctor.Object{}
	for _, pattern := range []string{"*.yaml", "*/*.yaml"} {
		paths, err := filepath.Glob(filepath.Join(root, "examples", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(text, []byte("kind:")) {
				continue // a tool's own: values of a chart, a helmfile
			}
			if err := r.check(t, text); err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			objects, err := doctor.Parse(path, text)
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			folders[filepath.Dir(path)] = append(folders[filepath.Dir(path)], objects...)
		}
	}
	for folder, objects := range folders {
		for _, found := range doctor.Examine(objects, doctor.Scope{Now: time.Now()}) {
			if found.Severity == doctor.Error || filepath.Base(folder) == "quickstart" {
				t.Errorf("%s: %s %s: %s", found.Source, found.ID, found.Object, found.Message)
			}
		}
	}
}

// reader checks YAML.
type reader struct {
	strict runtime.Decoder
	values map[string]*schema
}

func newReader(t *testing.T) *reader {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientscheme.AddToScheme, kedav1alpha1.AddToScheme, v1alpha1.AddToScheme, schedulerconfig.AddToScheme, podgroupv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	options := serializer.SerializerOptions{Yaml: true, Strict: true}
	return &reader{serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme, scheme, options), newVocabulary(t).values}
}

// check every document of a text.
func (r *reader) check(t *testing.T, text []byte) error {
	documents, err := yamldoc.Split(text)
	if err != nil {
		return err
	}
	for _, d := range documents {
		content := map[string]any{}
		if err := yaml.Unmarshal(d.Text, &content); err != nil {
			return err
		}
		kind, _ := content["kind"].(string)
		switch {
		case len(content) == 0:
		case bytes.HasPrefix(d.Text, []byte("# values.yaml")):
			err = r.checkValues(content)
		case kind == "":
			err = checkPart(t, d.Text, content)
		case slices.Contains(notDecoded, kind):
		default:
			err = r.checkObject(t, d.Text)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", d.Line, err)
		}
	}
	return nil
}

func (r *reader) checkObject(t *testing.T, text []byte) error {
	object, _, err := r.strict.Decode(text, nil, nil)
	if err != nil {
		return err
	}
	switch o := object.(type) {
	case *v1alpha1.ScalingPolicy:
		return checkPolicy(t, o)
	case *schedulerconfig.KubeSchedulerConfiguration:
		for _, profile := range o.Profiles {
			if err := checkProfile(&profile); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPolicy compiles a policy as the scaler does. Holidays of a ConfigMap come from a file instead.
func checkPolicy(t *testing.T, p *v1alpha1.ScalingPolicy) error {
	folder := t.TempDir()
	if c := p.Spec.Calendar; c != nil && c.Holidays != nil {
		c.Holidays.ICS = v1alpha1.ValueSource{File: "holidays.ics"}
		for i := range c.AdditionalHolidays {
			c.AdditionalHolidays[i].ICS = v1alpha1.ValueSource{File: "holidays.ics"}
		}
		const ics = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:a day\r\nDTSTART;VALUE=DATE:20261228\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
		if err := os.WriteFile(filepath.Join(folder, "holidays.ics"), []byte(ics), 0o600); err != nil {
			return err
		}
	}
	p.APIVersion, p.Kind = "ebbtide.dev/v1alpha1", "ScalingPolicy"
	text, err := yaml.Marshal(p)
	if err != nil {
		return err
	}
	path := filepath.Join(folder, "policy.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	_, err = policy.ReadFile(t.Context(), path)
	return err
}

// checkPart checks a part of an object: all of its fields must be some type's.
func checkPart(t *testing.T, text []byte, content map[string]any) error {
	var spec v1alpha1.ScalingPolicySpec
	if policyErr := yaml.UnmarshalStrict(text, &spec); policyErr == nil {
		whole := &v1alpha1.ScalingPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "scans"}, Spec: spec}
		if content["backlog"] == nil {
			uri := v1alpha1.ValueSource{Value: "amqp://broker"}
			whole.Spec.Backlog = v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: uri, Queue: "scans"}}
		}
		if most := int32(200); content["target"] == nil {
			whole.Spec.Target.MaxReplicas = &most
		}
		return checkPolicy(t, whole)
	}
	var profile schedulerconfig.KubeSchedulerProfile
	if yaml.UnmarshalStrict(text, &profile) == nil {
		return checkProfile(&profile)
	}
	if yaml.UnmarshalStrict(text, &kedav1alpha1.ScaledJobSpec{}) == nil {
		return nil
	}
	return fmt.Errorf("%s are no fields of a policy's spec, a scheduler's profile or a ScaledJob's spec", strings.Join(slices.Sorted(maps.Keys(content)), ", "))
}

// checkProfile checks the arguments of our plugins.
func checkProfile(profile *schedulerconfig.KubeSchedulerProfile) error {
	for _, plugin := range profile.PluginConfig {
		var args any
		switch plugin.Name {
		case "DrainPack":
			args = &schedulerargs.DrainPackArgs{}
		case "DrainPackQueue":
			args = &schedulerargs.DrainPackQueueArgs{}
		default:
			return fmt.Errorf("pluginConfig of %s is none of ours", plugin.Name)
		}
		if err := yaml.UnmarshalStrict(plugin.Args.Raw, args); err != nil {
			return fmt.Errorf("arguments of %s: %w", plugin.Name, err)
		}
	}
	return nil
}

// checkValues checks that a chart knows every value.
func (r *reader) checkValues(content map[string]any) error {
	var wrong []error
	for _, chart := range slices.Sorted(maps.Keys(r.values)) {
		err := hasAll(r.values[chart], nil, content)
		if err == nil {
			return nil
		}
		wrong = append(wrong, fmt.Errorf("%s: %w", chart, err))
	}
	return errors.Join(wrong...)
}

func hasAll(known *schema, path []string, content map[string]any) error {
	for name, value := range content {
		at := append(slices.Clone(path), name)
		if err := known.find(at); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(at, "."), err)
		}
		if inner, ok := value.(map[string]any); ok {
			if err := hasAll(known, at, inner); err != nil {
				return err
			}
		}
	}
	return nil
}

// What is wrong is found.
func TestYAMLReader(t *testing.T) {
	r := newReader(t)
	for text, want := range map[string]string{
		"calendar: {default: {minReplicas: 3}}\n":                                        "",
		"calendar: {default: {minReplicas: 300}}\n":                                      "300",
		"calendar: {defalt: {minReplicas: 3}}\n":                                         "calendar are no fields",
		"pluginConfig: [{name: DrainPack, args: {candidates: 4}}]\n":                     "",
		"pluginConfig: [{name: DrainPack, args: {candidate: 4}}]\n":                      "candidate",
		"triggers: [{type: external, metadata: {policy: scans}}]\n":                      "",
		"# values.yaml\nscheduler: {drainPack: {horizon: 1h}, replicas: 3}\n":            "",
		"# values.yaml\nscheduler: {drainPack: {horizons: 1h}}\n":                        "horizons",
		"# values.yaml\nscheduler: {replica: 3}\n":                                       "no value replica",
		"apiVersion: keda.sh/v1alpha1\nkind: ScaledJob\nspec: {minReplicas: 3}\n":        "minReplicas",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringdata: {a: b}\n":        "stringdata",
		"apiVersion: ebbtide.dev/v1alpha1\nkind: ScalingPolicies\nmetadata: {name: a}\n": "ScalingPolicies",
	} {
		err := r.check(t, []byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
