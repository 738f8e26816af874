// Generate writes what is made of the dashboards and of the alerts: run it in the folder of package dashboards.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebbtide-dev/ebbtide/dashboards"
)

const (
	chart     = "../charts/ebbtide/files"
	manifests = "../manifests"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	for name, dashboard := range dashboards.All() {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false) // queries compare
		encoder.SetIndent("", " ")
		if err := encoder.Encode(dashboard); err != nil {
			return err
		}
		for _, folder := range []string{filepath.Join(chart, "dashboards"), filepath.Join(manifests, "grafana")} {
			if err := os.WriteFile(filepath.Join(folder, name+".json"), text.Bytes(), 0o644); err != nil {
				return err
			}
		}
	}
	alerts, err := os.ReadFile(filepath.Join(chart, "alerts.yaml"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(manifests, "prometheus", "rules.yaml"), []byte(prometheusRule(string(alerts))), 0o644)
}

// prometheusRule is a rule file as an object for the Prometheus operator.
func prometheusRule(file string) string {
	rule := "# Generated from charts/ebbtide/files/alerts.yaml by make generate.\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: ebbtide, namespace: ebbtide-system}\nspec:\n"
	for line := range strings.Lines(file) {
		rule += strings.TrimRight("  "+line, " ")
	}
	return rule
}
