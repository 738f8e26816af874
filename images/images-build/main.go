// images-build writes the project's container images to a folder: an OCI layout of all architectures with an SBOM, and a tarball of each
// architecture. It can push them to a registry, too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/ebbtide-dev/ebbtide/images"
)

type options struct{ output, arch, version, only, push, page string }

func main() {
	var o options
	flag.StringVar(&o.output, "output", "bin/images", "folder to write to")
	flag.StringVar(&o.arch, "arch", "amd64,arm64", "architectures, with commas between them")
	flag.StringVar(&o.version, "version", "dev", "version, and tag, of the images")
	flag.StringVar(&o.only, "image", "", "name of the one image to build; default: all")
	flag.StringVar(&o.push, "push", "", "registry and path to push to, such as registry.example/ebbtide; credentials are those of docker login")
	flag.StringVar(&o.page, "page", "", "page of the documentation to write the sizes of what was built into")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	specs := images.Specs(o.version, revision(ctx))
	if o.only != "" {
		all := append(specs, images.Quickstart(o.version, revision(ctx)))
		specs = slices.DeleteFunc(slices.Clone(all), func(s images.Spec) bool { return s.Name != o.only })
		if len(specs) == 0 {
			return fmt.Errorf("-image %q: must be one of %v", o.only, names(all))
		}
		if o.page != "" {
			return errors.New("-page is of all images: leave -image out")
		}
	}
	if err := os.MkdirAll(o.output, 0o755); err != nil {
		return err
	}
	architectures := strings.Split(o.arch, ",")
	var sizes strings.Builder
	start := time.Now()
	if err := images.BuildIndexes(ctx, ".", specs, architectures, func(image images.Image) error {
		if err := write(o, image); err != nil {
			return err
		}
		digest, err := image.Index.Digest()
		if err != nil {
			return err
		}
		name := image.Spec.Name
		fmt.Printf("%s  after %.0f s\n  %s\n", filepath.Join(o.output, name), time.Since(start).Seconds(), digest)
		for _, arch := range architectures {
			size, err := images.SizeOf(image.Platforms[arch])
			if err != nil {
				return err
			}
			fmt.Printf("  linux/%-6s %5.1f MB, unpacked %.1f MB\n", arch, float64(size.Pulled)/1e6, float64(size.Unpacked)/1e6)
			fmt.Fprintf(&sizes, "| %s | %s | %.1f MB | %.1f MB |\n", name, arch, float64(size.Pulled)/1e6, float64(size.Unpacked)/1e6)
		}
		if o.push == "" {
			return nil
		}
		reference, err := images.Push(ctx, filepath.Join(o.output, name), path.Join(o.push, name), remote.WithAuthFromKeychain(authn.DefaultKeychain))
		if err != nil {
			return fmt.Errorf("push %s: %w", name, err)
		}
		fmt.Println("  pushed", reference)
		return nil
	}); err != nil {
		return err
	}
	if o.page == "" {
		return nil
	}
	return writeSizes(o.page, sizes.String())
}

func names(specs []images.Spec) (all []string) {
	for _, spec := range specs {
		all = append(all, spec.Name)
	}
	return all
}

// writeSizes puts a table's rows into a page.
func writeSizes(page, rows string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, _ := strings.Cut(string(text), "<!-- sizes -->\n")
	_, after, ok := strings.Cut(rest, "<!-- /sizes -->")
	if !ok {
		return fmt.Errorf("%s has no place for the table: <!-- sizes -->", page)
	}
	table := "| image | architecture | pulled | unpacked |\n|---|---|---|---|\n" + rows
	return os.WriteFile(page, []byte(before+"<!-- sizes -->\n"+table+"<!-- /sizes -->"+after), 0o644)
}

func write(o options, image images.Image) error {
	name := image.Spec.Name
	reference := images.Reference(name, o.version)
	for arch, platform := range image.Platforms {
		if err := images.WriteTarball(filepath.Join(o.output, fmt.Sprintf("%s-%s.tar", name, arch)), reference, platform); err != nil {
			return err
		}
	}
	if err := images.WriteLayout(filepath.Join(o.output, name), reference, image); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.output, name+".spdx.json"), image.SBOM, 0o644)
}

// revision is the commit of the source, or nothing where that is not known.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
