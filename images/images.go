// Package images builds container images of the project's programs without a container engine or a registry: static
// binaries in a layer on an empty base. The same source gives the same digest: nothing in an image depends on the time
// or the machine of its build.
package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1" // SPDX asks for it beside SHA-256
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

const (
	// binDir is where programs lie in an image; it is on the PATH.
	binDir = "/usr/local/bin"
	// nonRoot is the user that programs run as.
	nonRoot = "65532:65532"
	// source is where the project lives.
	source = "https://github.com/ebbtide-dev/ebbtide"
)

// Registry is where releases are published, and the first part of the images' names everywhere: the charts' defaults are held to it.
const Registry = "ghcr.io/ebbtide-dev"

// Reference is the name of an image of the project.
func Reference(name, tag string) string { return Registry + "/" + name + ":" + tag }

// epoch is the time of everything in an image.
var epoch = time.Unix(0, 0).UTC()

// Spec says what an image holds.
type Spec struct {
	// Name of the image, and its main program.
	Name string
	// Packages of the programs, relative to the project's folder; the first is the entry point.
	Packages []string
	// Arch is amd64 or arm64; the system is linux.
	Arch string
	// Version and Revision of the source, for the image's labels; empty: none is told.
	Version, Revision string
}

// Specs are the project's images, without an architecture.
func Specs(version, revision string) []Spec {
	specs := make([]Spec, 0, 4)
	for _, name := range []string{"ebbtide-scaler", "ebbtide-scheduler", "ebbtide-worker", "ebbtide"} {
		specs = append(specs, Spec{Name: name, Packages: []string{"./cmd/" + name}, Version: version, Revision: revision})
	}
	return specs
}

// Quickstart is the image of the tutorial's scan service, which is no part of a release.
func Quickstart(version, revision string) Spec {
	return Spec{
		Name: "ebbtide-quickstart", Packages: []string{"./examples/quickstart", "./cmd/ebbtide-worker"}, Version: version, Revision: revision,
	}
}

// Image is an image of several architectures under one digest, and what it is made of.
type Image struct {
	Spec Spec
	// Platforms are the images by architecture, Index is all of them.
	Platforms map[string]v1.Image
	Index     v1.ImageIndex
	// SBOM is a list of the modules in the image: SPDX 2.3 in JSON.
	SBOM []byte
}

// BuildIndexes compiles the programs of root, the project's folder, and calls use with the image of each spec, in the order of specs. All
// programs of an architecture are one build, and the architectures are built at the same time: they have no compiled package in common.
func BuildIndexes(ctx context.Context, root string, specs []Spec, architectures []string, use func(Image) error) error {
	dir, err := os.MkdirTemp("", "ebbtide-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var packages []string
	for _, spec := range specs {
		packages = append(packages, spec.Packages...)
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	builds, buildCtx := errgroup.WithContext(ctx)
	builds.SetLimit(runtime.GOMAXPROCS(0))
	for _, arch := range architectures {
		builds.Go(func() error { return compile(buildCtx, root, packages, filepath.Join(dir, arch), arch) })
	}
	if err := builds.Wait(); err != nil {
		return err
	}
	for _, spec := range specs {
		image, err := index(dir, spec, architectures)
		if err != nil {
			return err
		}
		if err := use(image); err != nil {
			return err
		}
	}
	return nil
}

// index makes an image of the programs in dir/ARCHITECTURE.
func index(dir string, spec Spec, architectures []string) (Image, error) {
	built := Image{Spec: spec, Platforms: map[string]v1.Image{}}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var programs []program
	for _, spec.Arch = range architectures {
		image, more, err := build(filepath.Join(dir, spec.Arch), spec)
		if err != nil {
			return built, err
		}
		programs = append(programs, more...)
		built.Platforms[spec.Arch] = image
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: spec.Arch}},
		})
	}
	built.Index = mutate.Annotations(index, labels(spec)).(v1.ImageIndex)
	digest, err := built.Index.Digest()
	if err != nil {
		return built, err
	}
	built.SBOM, err = sbom(spec, digest.String(), programs)
	return built, err
}

// Build compiles the programs of root, the project's folder, and puts them into an image.
func Build(ctx context.Context, root string, spec Spec) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "ebbtide-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := compile(ctx, root, spec.Packages, dir, spec.Arch); err != nil {
		return nil, err
	}
	image, _, err := build(dir, spec)
	return image, err
}

// program is a binary in an image.
type program struct {
	path, arch   string
	sha1, sha256 string // in hexadecimal
	info         *buildinfo.BuildInfo
}

// build makes an image of the programs in a folder.
func build(dir string, spec Spec) (v1.Image, []program, error) {
	var archive bytes.Buffer
	var programs []program
	writer := tar.NewWriter(&archive)
	for _, pkg := range spec.Packages {
		p, err := add(writer, filepath.Join(dir, path.Base(pkg)), path.Join(binDir, path.Base(pkg)))
		if err != nil {
			return nil, nil, fmt.Errorf("add %s: %w", pkg, err)
		}
		p.arch = spec.Arch
		programs = append(programs, p)
	}
	if err := writer.Close(); err != nil {
		return nil, nil, err
	}
	image, err := pack(archive.Bytes(), tarball.WithCompressedCaching)
	if err != nil {
		return nil, nil, err
	}
	image, err = mutate.ConfigFile(image, configure(image, spec))
	return image, programs, err
}

// Wrap puts a static binary that was built elsewhere into an image, in the place that its own images have it. It is not compressed, as it
// goes to nodes of this machine only.
func Wrap(binary, place string) (v1.Image, error) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	if _, err := add(writer, binary, place); err != nil {
		return nil, fmt.Errorf("add %s: %w", binary, err)
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	image, err := pack(archive.Bytes(), tarball.WithCompressionLevel(gzip.NoCompression))
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	config.Config = v1.Config{Entrypoint: []string{place}, User: nonRoot}
	return mutate.ConfigFile(image, config)
}

// pack makes an image of one layer, given as a tar archive.
func pack(archive []byte, option tarball.LayerOption) (v1.Image, error) {
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive)), nil
	}, tarball.WithMediaType(types.OCILayer), option)
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), layer)
}

// configure describes how the image runs.
func configure(image v1.Image, spec Spec) *v1.ConfigFile {
	config, err := image.ConfigFile()
	if err != nil {
		config = &v1.ConfigFile{} // an image in memory always has one
	}
	config = config.DeepCopy()
	config.Architecture, config.OS, config.Created = spec.Arch, "linux", v1.Time{Time: epoch}
	config.History = nil
	config.Config = v1.Config{
		Entrypoint: []string{path.Join(binDir, path.Base(spec.Packages[0]))},
		Env:        []string{"PATH=" + binDir},
		User:       nonRoot,
		Labels:     labels(spec),
	}
	return config
}

// labels tell a registry's page, and a person, what an image is.
func labels(spec Spec) map[string]string {
	all := map[string]string{
		"org.opencontainers.image.title":    spec.Name,
		"org.opencontainers.image.source":   source,
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.created":  epoch.Format(time.RFC3339),
	}
	for name, value := range map[string]string{"version": spec.Version, "revision": spec.Revision} {
		if value != "" {
			all["org.opencontainers.image."+name] = value
		}
	}
	return all
}

// compile makes static binaries in a folder, which do not tell where they were built.
func compile(ctx context.Context, root string, packages []string, dir, arch string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// A trailing separator says that it is a folder, for one package too.
	args := append([]string{"build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", dir + string(filepath.Separator)}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=readonly -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w\n%s", strings.Join(packages, ", "), arch, err, bytes.TrimSpace(out))
	}
	return nil
}

// add puts a binary into an archive, in a place of the image.
func add(writer *tar.Writer, binary, place string) (program, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return program{}, err
	}
	one, two := sha1.Sum(content), sha256.Sum256(content) // SPDX asks for both
	p := program{path: place, sha1: hex.EncodeToString(one[:]), sha256: hex.EncodeToString(two[:])}
	if p.info, err = buildinfo.Read(bytes.NewReader(content)); err != nil {
		return program{}, err
	}
	header := &tar.Header{
		Name: p.path[1:], Mode: 0o755, Size: int64(len(content)), ModTime: epoch, Typeflag: tar.TypeReg, Format: tar.FormatPAX,
	}
	if err := writer.WriteHeader(header); err != nil {
		return program{}, err
	}
	_, err = writer.Write(content)
	return p, err
}

// Size of an image, in bytes.
type Size struct{ Pulled, Unpacked int64 }

// SizeOf is how much a node pulls, and how much that takes on its disk.
func SizeOf(image v1.Image) (Size, error) {
	var size Size
	layers, err := image.Layers()
	if err != nil {
		return size, err
	}
	for _, layer := range layers {
		pulled, err := layer.Size()
		if err != nil {
			return size, err
		}
		content, err := layer.Uncompressed()
		if err != nil {
			return size, err
		}
		unpacked, err := io.Copy(io.Discard, content)
		if err = errors.Join(err, content.Close()); err != nil {
			return size, err
		}
		size.Pulled, size.Unpacked = size.Pulled+pulled, size.Unpacked+unpacked
	}
	return size, nil
}
