package images

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestBuildIsReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles programs")
	}
	spec := Spec{Name: "pause", Packages: []string{"./images/pause"}, Arch: runtime.GOARCH}
	first, err := Build(t.Context(), "..", spec)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Build(t.Context(), "..", spec)
	if err != nil {
		t.Fatal(err)
	}
	want, err := first.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := second.Digest(); err != nil || got != want {
		t.Errorf("digests %s and %s (%v), want the same twice", want, got, err)
	}

	const reference = "ebbtide.dev/pause:test"
	file, dir := filepath.Join(t.TempDir(), "pause.tar"), filepath.Join(t.TempDir(), "layout")
	if err := WriteTarball(file, reference, first); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		t.Fatal(err)
	}
	read, err := tarball.ImageFromPath(file, &tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := read.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != nonRoot || config.OS != "linux" || config.Config.Entrypoint[0] != "/usr/local/bin/pause" {
		t.Errorf("configuration %+v", config.Config)
	}
	if err := WriteLayout(dir, reference, first); err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].Digest != want {
		t.Errorf("the layout holds %+v, want one image with digest %s", manifest.Manifests, want)
	}
}
