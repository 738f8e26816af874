package dashboards

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// committed are the files of the dashboards.
func committed(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../charts/ebbtide/files/dashboards/*.json")
	if err != nil || len(files) != len(All()) {
		t.Fatalf("%d files of %d dashboards (%v)", len(files), len(All()), err)
	}
	return files
}

// Dashboards are what Grafana's own types say. The types, and what makes a schema of them, are installed into the cache once.
func TestIntegrationSchema(t *testing.T) {
	if testing.Short() {
		t.Skip("installs npm packages")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("in CI this must run: ", err)
		}
		t.Skip(err)
	}
	check, err := schemaChecker(t)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "node", append([]string{check}, committed(t)...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}

	// The check finds wrong fields, at the top and in what a panel leaves open.
	text, err := os.ReadFile(committed(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	faults := map[string]string{
		`"graphTooltip"`: `"graphToolTip"`, `"showLegend": true`: `"showLegend": "yes"`, `"fillOpacity"`: `"opacity"`,
		`"custom.lineStyle"`: `"custom.lineStile"`,
	}
	dir, args := t.TempDir(), []string{check}
	for right, wrong := range faults {
		file := filepath.Join(dir, fmt.Sprintf("%x.json", wrong))
		if err := os.WriteFile(file, bytes.Replace(text, []byte(right), []byte(wrong), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	out, err := exec.CommandContext(t.Context(), "node", args...).CombinedOutput()
	for _, wrong := range faults {
		if err == nil || !bytes.Contains(out, fmt.Appendf(nil, "%x.json", wrong)) {
			t.Errorf("%s passes: %s", wrong, out)
		}
	}
}

// schemaChecker is the path of the installed program of the folder schema.
func schemaChecker(t *testing.T) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	files := []string{"package.json", "package-lock.json", "check.mjs"}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("schema", file))
		if err != nil {
			return "", err
		}
		hash.Write(text)
	}
	parent := filepath.Join(cache, "ebbtide")
	dir := filepath.Join(parent, "grafana-schema-"+hex.EncodeToString(hash.Sum(nil))[:16])
	check := filepath.Join(dir, "check.mjs")
	if _, err := os.Stat(check); err == nil {
		return check, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	partial, err := os.MkdirTemp(parent, "grafana-schema-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(partial)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("schema", file))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(partial, file), text, 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps")
	cmd.Dir = partial
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("%s", out)
		return "", err
	}
	if err := os.Rename(partial, dir); err != nil && !os.IsExist(err) { // another process may have been first
		return "", err
	}
	return check, nil
}
