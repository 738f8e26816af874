// release makes everything that a release consists of, in a folder: container images with their SBOMs, Helm charts, the command ebbtide for
// every platform, a krew manifest, metadata for Artifact Hub, release notes and checksums. With -push it pushes images and charts to a
// registry; with -serve it starts a registry in memory, pushes there, and serves until it is interrupted.
//
// The workflow .github/workflows/release.yaml and make release-dry-run run it; what only GitHub can do (signatures, provenance, the
// release itself) is in the workflow.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/images"
)

// charts that are released, in charts/.
var charts = []string{"ebbtide", "scan-jobs", "batch-jobs-min-nodes"}

// platforms that the command ebbtide is built for.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64"}

type release struct {
	version, output, push string
	helm                  []string // the command
	architectures         []string // of images
	platforms             []string
	out                   io.Writer
}

// plainHTTP reports whether the registry is one of this machine, which has no certificate.
func (r *release) plainHTTP() bool {
	host, _, _ := strings.Cut(r.push, "/")
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return net.ParseIP(host).IsLoopback()
}

func main() {
	r := release{out: os.Stdout}
	var serve bool
	var helm, architectures, only string
	flag.StringVar(&r.version, "version", "", "version of the release, such as 0.1.0")
	flag.StringVar(&r.output, "output", "bin/release", "folder to write to; what is in it is removed")
	flag.StringVar(&r.push, "push", "", "registry and path to push images to, and charts below charts/: ghcr.io/ebbtide-dev, say")
	flag.BoolVar(&serve, "serve", false, "start a registry in memory, push to it, and serve until interrupted")
	flag.StringVar(&helm, "helm", "go tool -modfile=e2e/tools/charts/go.mod helm", "the helm program")
	flag.StringVar(&architectures, "arch", "amd64,arm64", "architectures of the images")
	flag.StringVar(&only, "platforms", strings.Join(platforms, ","), "platforms of the command ebbtide")
	flag.Parse()
	r.helm, r.architectures, r.platforms = strings.Fields(helm), strings.Split(architectures, ","), strings.Split(only, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := r.main(ctx, serve); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func (r *release) main(ctx context.Context, serve bool) error {
	if serve {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = server.Serve(listener) }() // until Close
		defer func() { _ = server.Close() }()      // it served from memory
		r.push = listener.Addr().String() + "/ebbtide-dev"
	}
	if err := r.run(ctx); err != nil {
		return err
	}
	if serve {
		fmt.Fprintf(r.out, `
Files are in %s. Images and charts are served from this machine until you press Ctrl+C:

  helm pull oci://%s/charts/ebbtide --version %s --plain-http
  helm install ebbtide oci://%[2]s/charts/ebbtide --version %[3]s --plain-http -n ebbtide-system --create-namespace \
    --set image.registry=%[2]s   # if the nodes can pull from this address
`, r.output, r.push, r.version)
		<-ctx.Done()
	}
	return nil
}

// run makes all artifacts.
func (r *release) run(ctx context.Context) error {
	if !regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`).MatchString(r.version) {
		return fmt.Errorf("-version %q: must be a semantic version without a v, such as 0.1.0", r.version)
	}
	notes, err := notesOf("CHANGELOG.md", r.version)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.output); err != nil {
		return err
	}
	if err := os.MkdirAll(r.output, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.output, "notes.md"), []byte(notes), 0o644); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"images", r.images}, {"charts", r.charts}, {"command line", r.commands}, {"metadata", r.metadata}, {"checksums", r.checksums},
	} {
		begin := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(r.out, "%-13s %4.0f s\n", step.name, time.Since(begin).Seconds())
	}
	return nil
}

// notesOf is the section of a version in a changelog.
func notesOf(file, version string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	_, after, found := strings.Cut(string(text), "\n## "+version+" - ")
	_, notes, rest := strings.Cut(after, "\n")
	if !found || !rest {
		return "", fmt.Errorf("%s has no section \"## %s - DATE\"", file, version)
	}
	if strings.Contains(after, "\n## "+version+" - ") {
		return "", fmt.Errorf("%s has two sections of %s: make them one", file, version)
	}
	notes, _, _ = strings.Cut(notes, "\n## ")
	return strings.TrimSpace(notes) + "\n", nil
}

func (r *release) images(ctx context.Context) error {
	var digests strings.Builder
	if err := images.BuildIndexes(ctx, ".", images.Specs(r.version, revision(ctx)), r.architectures, func(image images.Image) error {
		name := image.Spec.Name
		folder := filepath.Join(r.output, "images", name)
		if err := images.WriteLayout(folder, images.Reference(name, r.version), image); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.output, name+".spdx.json"), image.SBOM, 0o644); err != nil {
			return err
		}
		digest, err := image.Index.Digest()
		if err != nil {
			return err
		}
		fmt.Fprintf(&digests, "%s@%s\n", images.Registry+"/"+name, digest)
		if r.push == "" {
			return nil
		}
		if _, err := images.Push(ctx, folder, path.Join(r.push, name), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
			return fmt.Errorf("push %s: %w", name, err)
		}
		return nil
	}); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.output, "images.txt"), []byte(digests.String()), 0o644)
}

func (r *release) charts(ctx context.Context) error {
	for _, chart := range charts {
		if err := r.runHelm(ctx, "package", filepath.Join("charts", chart), "--version", r.version, "--app-version", r.version, "--destination", r.output); err != nil {
			return err
		}
		if r.push == "" {
			continue
		}
		args := []string{"push", filepath.Join(r.output, chart+"-"+r.version+".tgz"), "oci://" + path.Join(r.push, "charts")}
		if r.plainHTTP() {
			args = append(args, "--plain-http")
		}
		if err := r.runHelm(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) runHelm(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, r.helm[0], append(r.helm[1:len(r.helm):len(r.helm)], args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("helm %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// commands builds the command ebbtide for people's machines. Platforms have no compiled package in common, so each is a build of its own,
// and one links while another compiles.
func (r *release) commands(ctx context.Context) error {
	builds, ctx := errgroup.WithContext(ctx)
	builds.SetLimit(runtime.GOMAXPROCS(0))
	for _, platform := range r.platforms {
		builds.Go(func() error {
			if err := r.command(ctx, platform); err != nil {
				return fmt.Errorf("%s: %w", platform, err)
			}
			return nil
		})
	}
	return builds.Wait()
}

func (r *release) command(ctx context.Context, platform string) error {
	system, arch, ok := strings.Cut(platform, "/")
	if !ok {
		return errors.New("a platform must be SYSTEM/ARCHITECTURE")
	}
	dir, err := os.MkdirTemp("", "ebbtide-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "ebbtide")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w -buildid= -X main.version="+r.version, "-o", binary, "./cmd/ebbtide")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch, "GOFLAGS=-mod=readonly -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return pack(filepath.Join(r.output, archive(r.version, system, arch)), system, binary, "LICENSE")
}

// archive is the file of a platform's command.
func archive(version, system, arch string) string {
	extension := "tar.gz"
	if system == "windows" {
		extension = "zip"
	}
	return fmt.Sprintf("ebbtide_%s_%s_%s.%s", version, system, arch, extension)
}

// revision is the commit of the source, or nothing where that is not known.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "HEAD").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
