package dashboards

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	alertsFile = "../charts/ebbtide/files/alerts.yaml"
	runbooks   = "../docs/runbooks"
)

// alert is a rule of the file of alerts.
type alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// Every alert names metrics that there are, how bad it is, and a page of its own; and there is no page without an alert.
func TestAlerts(t *testing.T) {
	metrics, pages := known(t), map[string]bool{}
	for _, a := range alerts(t) {
		if _, err := checkExpr(a.Expr, metrics); err != nil {
			t.Errorf("%s: %v\n%s", a.Alert, err, a.Expr)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels["severity"]) || a.Annotations["summary"] == "" ||
			!strings.HasSuffix(a.Annotations["description"], ".") {
			t.Errorf("%s: %v %v", a.Alert, a.Labels, a.Annotations)
		}
		page := a.Alert + ".md"
		if !strings.HasPrefix(a.Annotations["dashboard_url"], "/d/ebbtide-") {
			t.Errorf("%s: dashboard_url %q", a.Alert, a.Annotations["dashboard_url"])
		}
		if !strings.HasSuffix(a.Annotations["runbook_url"], "/docs/runbooks/"+page) {
			t.Errorf("%s: runbook_url %q", a.Alert, a.Annotations["runbook_url"])
		}
		pages[page] = true
		text, err := os.ReadFile(filepath.Join(runbooks, page))
		if err != nil {
			t.Error(err)
			continue
		}
		at := 0
		for _, part := range []string{"# " + a.Alert + "\n", "\n## What it means\n", "\n## What to look at\n", "\n## What to do\n"} {
			next := strings.Index(string(text)[at:], part)
			if next < 0 {
				t.Fatalf("%s has no %q, in its place", page, part)
			}
			at += next
		}
	}
	files, err := filepath.Glob(runbooks + "/Ebbtide*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !pages[filepath.Base(file)] {
			t.Errorf("%s is of no alert", file)
		}
	}
}

// Every alert fires for what it is about, and is silent before and for what looks like it: by Prometheus' own tests of rules.
func TestAlertsFire(t *testing.T) {
	needsPromtool(t)
	const tests = "testdata/alerts_test.yaml"
	if out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", tests).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(tests)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tests []struct {
			Rules []struct {
				Alert  string `json:"alertname"`
				Expect []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, rule := range test.Rules {
			if len(rule.Expect) > 0 {
				fires[rule.Alert] = true
			} else {
				silent[rule.Alert] = true
			}
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Alert] || !silent[a.Alert] {
			t.Errorf("%s: a test makes it fire: %t; a test finds it silent: %t; want both", a.Alert, fires[a.Alert], silent[a.Alert])
		}
	}
}

func needsPromtool(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("in CI this must run: ", err)
		}
		t.Skip(err)
	}
}

// The example of a configuration is one, but for how it finds pods: Debian's Prometheus can't look into a cluster.
func TestPrometheusConfig(t *testing.T) {
	needsPromtool(t)
	text, err := os.ReadFile("../manifests/prometheus/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	for _, job := range config["scrape_configs"].([]any) {
		delete(job.(map[string]any), "kubernetes_sd_configs")
	}
	if text, err = yaml.Marshal(config); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", "check", "config", "--syntax-only", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
