package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// SBOMType is the media type of a list of modules, and of the artifact that refers to an image with it.
	SBOMType = "application/spdx+json"

	tagAnnotation  = "org.opencontainers.image.ref.name" // by which oras and skopeo find an image in a layout
	nameAnnotation = "io.containerd.image.name"          // which containerd gives an image when it imports a layout
)

// WriteTarball writes an image as a file that `ctr images import` and `kind load image-archive` take, under a
// reference such as ebbtide.dev/worker:v1.
func WriteTarball(file, reference string, image v1.Image) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return fmt.Errorf("image reference %q: %w", reference, err)
	}
	return tarball.WriteToFile(file, tag, image)
}

// WriteLayout writes an image of all its architectures, and an artifact with its SBOM that refers to it, to a folder as an OCI layout.
// What was in the folder is removed.
func WriteLayout(dir, reference string, image Image) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return fmt.Errorf("image reference %q: %w", reference, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	names := map[string]string{tagAnnotation: tag.TagStr(), nameAnnotation: reference}
	if err := path.AppendIndex(image.Index, layout.WithAnnotations(names)); err != nil {
		return err
	}
	subject, err := partial.Descriptor(image.Index)
	if err != nil {
		return err
	}
	referrer, err := newArtifact(image.SBOM, image.Spec.Name+".spdx.json", *subject)
	if err != nil {
		return err
	}
	return path.AppendImage(referrer)
}

// Push sends an OCI layout that WriteLayout wrote to a repository of a registry, such as registry.example/ebbtide/ebbtide-scaler, and
// returns the image's reference with its digest.
func Push(ctx context.Context, dir, repository string, options ...remote.Option) (string, error) {
	to, err := name.NewRepository(repository)
	if err != nil {
		return "", fmt.Errorf("repository %q: %w", repository, err)
	}
	from, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return "", err
	}
	manifest, err := from.IndexManifest()
	if err != nil {
		return "", err
	}
	options = append(options, remote.WithContext(ctx))
	pushed := ""
	for _, descriptor := range manifest.Manifests {
		if descriptor.MediaType.IsIndex() {
			image, err := from.ImageIndex(descriptor.Digest)
			if err != nil {
				return "", err
			}
			if err := remote.WriteIndex(to.Tag(descriptor.Annotations[tagAnnotation]), image, options...); err != nil {
				return "", err
			}
			pushed = to.Digest(descriptor.Digest.String()).String()
			continue
		}
		artifact, err := from.Image(descriptor.Digest)
		if err != nil {
			return "", err
		}
		if err := remote.Write(to.Digest(descriptor.Digest.String()), artifact, options...); err != nil {
			return "", err
		}
	}
	if pushed == "" {
		return "", fmt.Errorf("%s holds no image", dir)
	}
	return pushed, nil
}

// artifact is a document about an image, in the form in which a registry lists it for those who ask what refers to the image.
type artifact struct {
	layer    v1.Layer
	manifest []byte
}

// emptyConfig is what an artifact has in place of a configuration.
const emptyConfig = "{}"

func newArtifact(document []byte, title string, subject v1.Descriptor) (v1.Image, error) {
	layer := static.NewLayer(document, SBOMType)
	content, err := partial.Descriptor(layer)
	if err != nil {
		return nil, err
	}
	content.Annotations = map[string]string{"org.opencontainers.image.title": title}
	digest, size, err := v1.SHA256(bytes.NewReader([]byte(emptyConfig)))
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: SBOMType,
		Config: v1.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: digest, Size: size},
		Layers: []v1.Descriptor{*content}, Subject: &v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{"org.opencontainers.image.created": epoch.Format(time.RFC3339)},
	})
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(artifact{layer, manifest})
}

func (artifact) RawConfigFile() ([]byte, error)      { return []byte(emptyConfig), nil }
func (artifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (a artifact) RawManifest() ([]byte, error)      { return a.manifest, nil }
func (a artifact) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	if own, err := a.layer.Digest(); err != nil || digest != own {
		return nil, errors.Join(err, fmt.Errorf("no layer %s", digest))
	}
	return a.layer, nil
}
