package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"flag"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
	"github.com/ebbtide-dev/ebbtide/images"
)

const version = "0.1.0"

// artifacts lets TestRelease make a release, which compiles every program again.
var artifacts = flag.Bool("artifacts", false, "make a release and install from it")

func TestNotes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "CHANGELOG.md")
	if err := os.WriteFile(file, []byte("# Changelog\n\n## Unreleased\n\n- three\n\n## 1.1.0 - 2026-01-02\n\n- two\n\n## 1.0.0 - 2026-01-01\n\n- one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{"1.1.0": "- two\n", "1.0.0": "- one\n"} {
		if got, err := notesOf(file, version); err != nil || got != want {
			t.Errorf("notes of %s: %q, %v; want %q", version, got, err, want)
		}
	}
	for _, version := range []string{"1.2.0", "1.1", "Unreleased"} {
		if got, err := notesOf(file, version); err == nil {
			t.Errorf("notes of %s: %q, want an error", version, got)
		}
	}
	if err := os.WriteFile(file, []byte("# Changelog\n\n## 1.0.0 - 2026-01-01\n\n- one\n\n## 1.0.0 - 2026-01-01\n\n- two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := notesOf(file, "1.0.0"); err == nil {
		t.Errorf("notes of a version with two sections: %q, want an error", got)
	}
}

func TestPlainHTTP(t *testing.T) {
	for push, want := range map[string]bool{
		"127.0.0.1:5000/ebbtide-dev": true, "[::1]:5000/x": true, "ghcr.io/ebbtide-dev": false, "registry.example:5000/x": false, "": false,
	} {
		if got := (&release{push: push}).plainHTTP(); got != want {
			t.Errorf("plain HTTP to %q: %t, want %t", push, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, version := range []string{"", "v0.1.0", "0.1", "0.1.0/x", "latest"} {
		if err := (&release{version: version}).run(t.Context()); err == nil || !strings.Contains(err.Error(), "-version") {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

// Charts and images have one registry and one version everywhere.
func TestOneRegistryAndVersion(t *testing.T) {
	t.Chdir("../..")
	if _, err := notesOf("CHANGELOG.md", version); err != nil {
		t.Error(err)
	}
	files, err := filepath.Glob("charts/*/Chart.yaml")
	if err != nil || len(files) != len(charts) {
		t.Fatalf("%v: %v, want a chart for each of %v", files, err, charts)
	}
	for _, file := range files {
		var chart struct {
			Version, AppVersion string
			Annotations         map[string]string
		}
		decode(t, file, &chart)
		if chart.Version != version || chart.AppVersion != version {
			t.Errorf("%s: version %s, appVersion %s; want %s", file, chart.Version, chart.AppVersion, version)
		}
		var listed []struct{ Name, Image string }
		if err := yaml.Unmarshal([]byte(chart.Annotations["artifacthub.io/images"]), &listed); err != nil || len(listed) == 0 {
			t.Errorf("%s: artifacthub.io/images: %v", file, err)
		}
		for _, one := range listed {
			if want := images.Reference(one.Name, version); one.Image != want {
				t.Errorf("%s: image %s, want %s", file, one.Image, want)
			}
		}
	}
	var values struct{ Image struct{ Registry string } }
	decode(t, "charts/ebbtide/values.yaml", &values)
	if values.Image.Registry != images.Registry {
		t.Errorf("charts/ebbtide: registry %s, want %s", values.Image.Registry, images.Registry)
	}
	for _, chart := range []string{"scan-jobs", "batch-jobs-min-nodes"} {
		var values struct {
			Worker struct{ Image struct{ Registry string } }
		}
		decode(t, "charts/"+chart+"/values.yaml", &values)
		if values.Worker.Image.Registry != images.Registry {
			t.Errorf("charts/%s: registry %s, want %s", chart, values.Worker.Image.Registry, images.Registry)
		}
	}
}

// A release's charts come from its registry and name images that are there; its command says its version; checksums are right.
func TestRelease(t *testing.T) {
	if !*artifacts {
		t.Skip("make test-release runs it")
	}
	t.Chdir("../..")
	tools, err := toolchain.Ensure(t.Context(), toolchain.Module("."), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	for _, variable := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		t.Setenv(variable, t.TempDir())
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	r := release{
		version: version, output: filepath.Join(t.TempDir(), "release"), push: strings.TrimPrefix(server.URL, "http://") + "/ebbtide-dev",
		helm: []string{tools.Bin("helm")}, architectures: []string{runtime.GOARCH},
		platforms: []string{"linux/" + runtime.GOARCH, "windows/amd64"}, out: os.Stderr,
	}
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkFiles(t, r)
	checkRegistry(t, r)
}

func checkFiles(t *testing.T, r release) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "checksums.txt")
	cmd.Dir = r.output
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	unix, windows := archive(version, "linux", runtime.GOARCH), archive(version, "windows", "amd64")
	program := filepath.Join(t.TempDir(), "ebbtide")
	if err := os.WriteFile(program, fromTar(t, filepath.Join(r.output, unix), "ebbtide"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), program, "version").CombinedOutput(); err != nil || !strings.Contains(string(out), version) {
		t.Errorf("ebbtide version: %s, %v", out, err)
	}
	inZip, err := zip.OpenReader(filepath.Join(r.output, windows))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inZip.Close() }() // it was only read
	if _, err := inZip.Open("ebbtide.exe"); err != nil {
		t.Error(err)
	}
	var plugin struct {
		Metadata struct{ Name string }
		Spec     struct {
			Version   string
			Platforms []struct{ URI, SHA256, Bin string }
		}
	}
	decode(t, filepath.Join(r.output, "krew.yaml"), &plugin)
	if plugin.Metadata.Name != "ebbtide" || plugin.Spec.Version != "v"+version || len(plugin.Spec.Platforms) != 2 {
		t.Errorf("krew manifest: %+v", plugin)
	}
	for _, platform := range plugin.Spec.Platforms {
		sum, err := checksum(filepath.Join(r.output, filepath.Base(platform.URI)))
		if err != nil || sum != platform.SHA256 {
			t.Errorf("krew manifest: %s has the checksum %s, %v; want %s", platform.URI, platform.SHA256, err, sum)
		}
	}
	var scaler struct{ Version, Name, Install string }
	decode(t, filepath.Join(r.output, "artifacthub-pkg.yml"), &scaler)
	if scaler.Version != version || !strings.Contains(scaler.Install, "--version "+version) {
		t.Errorf("metadata for Artifact Hub: %+v", scaler)
	}
}

func checkRegistry(t *testing.T, r release) {
	t.Helper()
	named := regexp.MustCompile(`image: (` + regexp.QuoteMeta(r.push) + `/[\w-]+:\S+)`)
	var all []string
	for chart, set := range map[string]string{
		"ebbtide":              "image.registry=" + r.push,
		"scan-jobs":            "worker.image.registry=" + r.push + ",image.repository=example.com/scanner,command={scan}",
		"batch-jobs-min-nodes": "worker.image.registry=" + r.push + ",jobs[0].name=a,jobs[0].image=example.com/a,jobs[0].command={a},jobs[0].repository=https://example.com/a",
	} {
		cmd := exec.CommandContext(t.Context(), r.helm[0], "template", "x", "oci://"+r.push+"/charts/"+chart, "--version", version, "--plain-http", "--set", set)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", chart, err, out)
		}
		for _, match := range named.FindAllStringSubmatch(string(out), -1) {
			all = append(all, match[1])
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) != 4 {
		t.Errorf("the charts name %v, want the four images of the release", all)
	}
	for _, image := range all {
		tag, err := name.NewTag(image)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := remote.Image(tag, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}), remote.WithContext(context.Background())); err != nil {
			t.Errorf("%s: %v", image, err)
		}
	}
}

func fromTar(t *testing.T, file, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	uncompressed, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for reader := tar.NewReader(uncompressed); ; {
		header, err := reader.Next()
		if err != nil {
			t.Fatalf("%s in %s: %v", name, file, err)
		}
		if header.Name == name {
			text, err := io.ReadAll(reader)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
	}
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
