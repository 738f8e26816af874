package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// pause is an image that is built in no time.
var pause = Spec{Name: "pause", Packages: []string{"./images/pause"}, Version: "1.2.3", Revision: "abc"}

// One digest stands for all architectures, in a layout that a registry takes, together with the list of modules that refers to it.
func TestLayout(t *testing.T) {
	image := buildIndex(t, pause, "amd64", "arm64")
	dir := filepath.Join(t.TempDir(), "layout")
	for range 2 { // the second replaces the first
		if err := WriteLayout(dir, "ghcr.io/ebbtide-dev/pause:1.2.3", image); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	repository := address.Host + "/ebbtide/pause"
	pushed, err := Push(t.Context(), dir, repository)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := image.Index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if want := repository + "@" + digest.String(); pushed != want {
		t.Errorf("pushed %s, want %s", pushed, want)
	}

	tag, err := name.NewTag(repository + ":1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		pulled, err := remote.Image(tag, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
		if err != nil {
			t.Fatal(err)
		}
		config, err := pulled.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != arch || config.OS != "linux" || config.Config.User != nonRoot || config.Config.Entrypoint[0] != "/usr/local/bin/pause" {
			t.Errorf("configuration for %s: %+v", arch, config)
		}
		for label, want := range map[string]string{"title": "pause", "version": "1.2.3", "revision": "abc", "created": "1970-01-01T00:00:00Z"} {
			if got := config.Config.Labels["org.opencontainers.image."+label]; got != want {
				t.Errorf("label %s is %q, want %q", label, got, want)
			}
		}
	}
	// What a client that looks for lists of modules asks.
	referrers, err := remote.Referrers(tag.Digest(digest.String()), remote.WithFilter("artifactType", SBOMType))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := referrers.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 {
		t.Fatalf("%d lists of modules refer to the image, want 1", len(manifest.Manifests))
	}
	list, err := remote.Image(tag.Digest(manifest.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got := layerOf(t, list); !bytes.Equal(got, image.SBOM) {
		t.Errorf("the list in the registry is %s, want %s", got, image.SBOM)
	}
}

func TestTarball(t *testing.T) {
	image := buildIndex(t, pause, runtime.GOARCH).Platforms[runtime.GOARCH]
	file := filepath.Join(t.TempDir(), "pause.tar")
	if err := WriteTarball(file, "ghcr.io/ebbtide-dev/pause:test", image); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("ghcr.io/ebbtide-dev/pause:test")
	if err != nil {
		t.Fatal(err)
	}
	read, err := tarball.ImageFromPath(file, &tag)
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read.ConfigName(); err != nil || got != want {
		t.Errorf("the tarball holds %s, %v; want %s", got, err, want)
	}
}

// A binary that was built elsewhere lies where it was asked for, and is what the image runs.
func TestWrap(t *testing.T) {
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	image, err := Wrap(os.Args[0], "/keda")
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config.Entrypoint; len(got) != 1 || got[0] != "/keda" || config.Config.User != nonRoot {
		t.Errorf("the image runs %v as %q, want /keda as %s", got, config.Config.User, nonRoot)
	}
	plain, err := gzip.NewReader(bytes.NewReader(layerOf(t, image)))
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(plain)
	header, err := archive.Next()
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(archive)
	if err != nil || header.Name != "keda" || header.Mode != 0o755 || !bytes.Equal(content, binary) {
		t.Errorf("the image holds %s with mode %o and %d bytes, %v; want keda with mode 755 and the binary's %d", header.Name, header.Mode,
			len(content), err, len(binary))
	}
}

// The scaler's image is the same twice, tells nothing of the machine that built it, holds one file, is small, and as large as its page says.
func TestScaler(t *testing.T) {
	spec := Specs("dev", "")[0]
	image := buildIndex(t, spec, runtime.GOARCH)
	again := buildIndex(t, spec, runtime.GOARCH)
	if one, two := digestOf(t, image.Index), digestOf(t, again.Index); one != two {
		t.Errorf("digests %s and %s, want the same twice", one, two)
	}
	if !bytes.Equal(image.SBOM, again.SBOM) {
		t.Error("the lists of modules differ")
	}

	files := tar.NewReader(mutate.Extract(image.Platforms[runtime.GOARCH]))
	header, err := files.Next()
	if err != nil {
		t.Fatal(err)
	}
	if header.Name != "usr/local/bin/ebbtide-scaler" || header.FileInfo().Mode() != 0o755 || !header.ModTime.Equal(epoch) {
		t.Errorf("the first file is %+v", header)
	}
	binary, err := io.ReadAll(files)
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{root + "/", home + "/"} {
		if bytes.Contains(binary, []byte(path)) {
			t.Errorf("the binary tells of %s", path)
		}
	}
	if _, err := files.Next(); err != io.EOF {
		t.Errorf("there is more than the binary: %v", err)
	}

	size, err := SizeOf(image.Platforms[runtime.GOARCH])
	if err != nil {
		t.Fatal(err)
	}
	if size.Pulled > 40e6 {
		t.Errorf("%d bytes are pulled, want less than 40 MB", size.Pulled)
	}
	const page = "../docs/reference/images.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(fmt.Sprintf(`\| %s \| %s \| ([0-9.]+) MB \|`, spec.Name, runtime.GOARCH)).FindSubmatch(text)
	if row == nil {
		t.Fatalf("%s does not say how large %s for %s is", page, spec.Name, runtime.GOARCH)
	}
	stated, err := strconv.ParseFloat(string(row[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	if pulled := float64(size.Pulled) / 1e6; pulled < 0.9*stated || pulled > 1.1*stated {
		t.Errorf("%.1f MB are pulled, %s says %.1f: go run ./images/images-build -page docs/reference/images.md", pulled, page, stated)
	}
}

// The list of modules has every field that SPDX 2.3 requires, and identifiers that are told apart and lead somewhere.
func TestSBOM(t *testing.T) {
	spec := Spec{Name: "build", Packages: []string{"./images/images-build"}}
	image := buildIndex(t, spec, runtime.GOARCH)
	var document map[string]any
	if err := json.Unmarshal(image.SBOM, &document); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	check := func(object map[string]any, required ...string) {
		t.Helper()
		for _, field := range required {
			if text, ok := object[field]; !ok || text == "" {
				t.Errorf("%s has no %s", object["SPDXID"], field)
			}
		}
		if id, ok := object["SPDXID"].(string); ok {
			if ids[id] || strings.Trim(strings.TrimPrefix(id, "SPDXRef-"), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != "" {
				t.Errorf("SPDXID %s is there twice, or has other than letters, digits, dots and dashes", id)
			}
			ids[id] = true
		}
	}
	list := func(field string) (objects []map[string]any) {
		t.Helper()
		values, _ := document[field].([]any)
		for _, value := range values {
			objects = append(objects, value.(map[string]any))
		}
		return objects
	}
	check(document, "SPDXID", "spdxVersion", "dataLicense", "name", "documentNamespace", "creationInfo")
	check(document["creationInfo"].(map[string]any), "created", "creators")
	versions := map[string]any{}
	for _, p := range list("packages") {
		check(p, "SPDXID", "name", "downloadLocation")
		if _, coded := p["packageVerificationCode"]; p["filesAnalyzed"] != coded {
			t.Errorf("%s: filesAnalyzed is %v, has a verification code: %v", p["name"], p["filesAnalyzed"], coded)
		}
		versions[p["name"].(string)] = p["versionInfo"]
	}
	for _, file := range list("files") {
		check(file, "SPDXID", "fileName", "checksums")
	}
	linked := 0
	for _, relationship := range list("relationships") {
		check(relationship, "spdxElementId", "relationshipType", "relatedSpdxElement")
		for _, end := range []string{"spdxElementId", "relatedSpdxElement"} {
			if id := relationship[end].(string); !ids[id] {
				t.Errorf("%v leads to nothing", relationship)
			}
		}
		if relationship["relationshipType"] == "STATIC_LINK" {
			linked++
		}
	}
	if linked != len(list("packages"))-1 {
		t.Errorf("%d modules are linked, of %d packages; want all but the image", linked, len(list("packages")))
	}
	if got, want := versions["stdlib"], strings.TrimPrefix(runtime.Version(), "go"); got != want {
		t.Errorf("stdlib is %v, want %s", got, want)
	}
	if got := versions["github.com/google/go-containerregistry"]; got == nil {
		t.Errorf("go-containerregistry is not among %v", versions)
	}
}

func buildIndex(t *testing.T, spec Spec, architectures ...string) Image {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles programs")
	}
	var built Image
	if err := BuildIndexes(t.Context(), "..", []Spec{spec}, architectures, func(image Image) error {
		built = image
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return built
}

func digestOf(t *testing.T, index v1.ImageIndex) v1.Hash {
	t.Helper()
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// layerOf is the content of an artifact's one layer.
func layerOf(t *testing.T, artifact v1.Image) []byte {
	t.Helper()
	layers, err := artifact.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v; want 1", len(layers), err)
	}
	content, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	text, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The images have no certificate authorities of a system, so every program of theirs brings its own.
func TestProgramsBringAuthorities(t *testing.T) {
	for _, spec := range Specs("", "") {
		for _, pkg := range spec.Packages {
			cmd := exec.CommandContext(t.Context(), "go", "list", "-f", `{{join .Imports "\n"}}`, pkg)
			cmd.Dir = ".."
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(strings.Fields(string(out)), "github.com/ebbtide-dev/ebbtide/internal/roots") {
				t.Errorf("%s does not import internal/roots", pkg)
			}
		}
	}
}
