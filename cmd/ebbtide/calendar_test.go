package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const importedTriggers = `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: scans, namespace: scan}
spec:
  triggers:
  - {type: rabbitmq, metadata: {queueName: scans}}
  - {type: cron, metadata: {timezone: Europe/Prague, start: 0 7 * * 1-5, end: 0 19 * * 1-5, desiredReplicas: "5"}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: web, namespace: shop}
spec:
  triggers:
  - {type: cron, metadata: {timezone: Europe/Prague, start: 0 22 * * 1-5, end: 0 6 * * 1-5, desiredReplicas: "3"}}
`

func TestCalendarImport(t *testing.T) {
	path := fileOf(t, "keda.yaml", importedTriggers)
	text := must(t, "calendar", "import", "-f", path, "--from", "2026-11-26")
	if strings.Count(text, "kind: ScalingPolicy") != 2 || !strings.Contains(text, "# weekends and the like: KEDA has 3 from Sat 2026-11-28 06:00") {
		t.Errorf("%s", text)
	}
	// What is printed can be explained.
	week := must(t, "explain", "-f", fileOf(t, "policy.yaml", text), "--at", "2026-11-27T12:00")
	if !strings.Contains(week, "cron-2: at least 5") || !strings.Contains(week, "cron-1: at least 3") {
		t.Errorf("%s", week)
	}
	var list []importedCalendar
	text = must(t, "calendar", "import", "-f", path, "--from", "2026-11-26", "-o", "json", "--namespace", "shop")
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	const weekends = 52
	if c := list[0].Check; c.Minutes != 365*24*60 || c.Minutes-c.Same != weekends*48*60 || len(c.Differences) != weekends || c.Differences[0].Reason != "on purpose" {
		t.Errorf("%d of %d minutes, %d differences", c.Same, c.Minutes, len(c.Differences))
	}
	if list[0].Policy.Name != "web" || len(list[0].Periods["cron-1"]) == 0 {
		t.Errorf("%+v", list[0])
	}
}

// One that can't be imported is an error, and the others are printed.
func TestCalendarImportErrors(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a trigger": {
			[]string{"-f", fileOf(t, "a.yaml", importedTriggers+strings.Replace("---\n"+importedTriggers[strings.Index(importedTriggers, "---\n")+4:], "0 22", "0 32", 1))},
			`a.yaml:16), trigger 1 (cron), start, end: start "0 32 * * 1-5"`,
		},
		"a format": {[]string{"-o", "table"}, `--output "table": must be one of yaml, json`},
		"a date":   {[]string{"--from", "soon"}, `--from "soon" must be a date`},
		"no file":  {[]string{"-f", "none.yaml"}, "--filename: open none.yaml"},
		"nothing":  {[]string{"-f", fileOf(t, "b.yaml", "kind: Pod\napiVersion: v1\n")}, "nothing here scales on a schedule"},
	} {
		out, _, err := run(t, append([]string{"calendar", "import"}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if name == "a trigger" && strings.Count(out, "kind: ScalingPolicy") != 2 {
			t.Errorf("the others: %s", out)
		}
	}
}

// From a cluster too, of which one kind may not be read and others are not installed.
func TestCalendarImportOfACluster(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/apis/keda.sh/v1alpha1/namespaces/scan/scaledjobs":
			fmt.Fprint(w, `{"kind":"ScaledJobList","apiVersion":"keda.sh/v1alpha1","metadata":{},"items":[{"apiVersion":"keda.sh/v1alpha1","kind":"ScaledJob",`+
				`"metadata":{"name":"scans","namespace":"scan"},"spec":{"triggers":[{"type":"cron","metadata":{"timezone":"UTC","start":"0 7 * * *","end":"0 8 * * *","desiredReplicas":"4"}}]}}]}`)
		case "/apis/batch/v1/namespaces/scan/cronjobs":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"cronjobs are forbidden"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
		}
	}))
	defer server.Close()
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: a}}]
clusters: [{name: a, cluster: {server: "%s"}}]
`, server.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, warned, err := run(t, "calendar", "import", "--kubeconfig", config, "--namespace", "scan")
	if err != nil || !strings.Contains(out, "# Of ScaledJob scan/scans.") || !strings.Contains(out, "limits: {minReplicas: 4}") {
		t.Errorf("%v: %s", err, out)
	}
	if !strings.Contains(warned, "warning: cronjobs are not looked at") {
		t.Errorf("%q", warned)
	}
}
