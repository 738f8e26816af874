// Package images builds container images of the project's programs without a container engine or a registry: static
// binaries in a layer on an empty base. The same source gives the same digest: nothing in an image depends on the time
// or the machine of its build.
package images

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// binDir is where programs lie in an image; it is on the PATH.
	binDir = "/usr/local/bin"
	// nonRoot is the user that programs run as.
	nonRoot = "65532:65532"
)

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
}

// Specs are the project's images.
func Specs(arch string) []Spec {
	return []Spec{
		{Name: "ebbtide-scaler", Packages: []string{"./cmd/ebbtide-scaler"}, Arch: arch},
		{Name: "ebbtide-scheduler", Packages: []string{"./cmd/ebbtide-scheduler"}, Arch: arch},
		{Name: "ebbtide-worker", Packages: []string{"./cmd/ebbtide-worker"}, Arch: arch},
	}
}

// Build compiles the programs of root, the project's folder, and puts them into an image.
func Build(ctx context.Context, root string, spec Spec) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "ebbtide-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, pkg := range spec.Packages {
		binary := filepath.Join(dir, path.Base(pkg))
		if err := compile(ctx, root, pkg, binary, spec.Arch); err != nil {
			return nil, err
		}
		if err := add(writer, binary); err != nil {
			return nil, fmt.Errorf("add %s: %w", pkg, err)
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return nil, err
	}
	return mutate.ConfigFile(image, configure(image, spec))
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
		Labels: map[string]string{
			"org.opencontainers.image.title":    spec.Name,
			"org.opencontainers.image.source":   "https://github.com/ebbtide-dev/ebbtide",
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	return config
}

// compile makes a static binary that does not tell where it was built.
func compile(ctx context.Context, root, pkg, binary, arch string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", binary, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=readonly -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, bytes.TrimSpace(out))
	}
	return nil
}

func add(writer *tar.Writer, binary string) error {
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	header := &tar.Header{
		Name: path.Join(binDir, filepath.Base(binary))[1:], Mode: 0o755, Size: int64(len(content)), ModTime: epoch,
		Typeflag: tar.TypeReg, Format: tar.FormatPAX,
	}
	if err := writer.WriteHeader(header); err != nil {
		return err
	}
	_, err = writer.Write(content)
	return err
}

// WriteTarball writes an image as a file that `ctr images import` and `kind load image-archive` take, under a
// reference such as ebbtide.dev/worker:v1.
func WriteTarball(file, reference string, image v1.Image) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return fmt.Errorf("image reference %q: %w", reference, err)
	}
	return tarball.WriteToFile(file, tag, image)
}

// WriteLayout adds an image to an OCI layout in a folder, which is made if it is not there.
func WriteLayout(dir, reference string, image v1.Image) error {
	index, err := layout.FromPath(dir)
	if err != nil {
		if index, err = layout.Write(dir, empty.Index); err != nil {
			return err
		}
	}
	return index.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": reference}))
}
