package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadFile(t *testing.T) {
	head := "apiVersion: ebbtide.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {name: scans, namespace: scan}\nspec:\n"
	backlog := "  backlog:\n    rabbitmq:\n      uri: {env: URI}\n      queue: scans\n"
	for name, tc := range map[string]struct{ text, want string }{
		"a misspelt field": {
			head + backlog + "  target: {maxReplicas: 5}\n  calender: {}\n", `:10: spec.calender: Forbidden: unknown field`,
		},
		"a bad value": {
			head + backlog + "  target: {maxReplicas: 5}\n  calendar:\n    timeZone: Europe/Prague\n    periods:\n    - name: day\n      days: [Mon]\n" +
				"      from: \"07:00\"\n      to: \"25:00\"\n      limits: {minReplicas: 1}\n", `:16: spec.calendar.periods[0].to`,
		},
		"in the second document": {
			"kind: ConfigMap\n---\n" + head + backlog + "  target:\n    maxReplicas: -1\n", `:12: spec.target.maxReplicas`,
		},
		"not YAML":       {head + "  target: {maxReplicas: [\n# ScalingPolicy\n", ":"},
		"no policy":      {"kind: ConfigMap\n", "holds no ScalingPolicy"},
		"what is absent": {head + "  target: {maxReplicas: 5}\n", `:4: spec.backlog`},
	} {
		path := filepath.Join(t.TempDir(), "p.yaml")
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadFile(t.Context(), path)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), path+":") {
			t.Errorf("%s: error %v, want one that begins with the file and has %q", name, err, tc.want)
		}
	}
	path := filepath.Join(t.TempDir(), "p.yaml")
	text := head + backlog + "  target: {maxReplicas: 5}\n  calendar: {timeZone: Europe/Prague}\n---\n" + strings.Replace(head, "scans", "other", 1) + backlog + "  target: {maxReplicas: 7}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	policies, err := ReadFile(t.Context(), path)
	if err != nil || len(policies) != 2 || policies[0].TimeZone.String() != "Europe/Prague" || policies[1].Name.Name != "other" {
		t.Errorf("%+v, %v", policies, err)
	}
}
