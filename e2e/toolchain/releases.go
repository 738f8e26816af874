package toolchain

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // for the releases' checksums
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Release is a release of a part of the cluster that takes the place of the one that e2e/tools pins.
type Release struct {
	// Part is kubernetes, keda or karpenter.
	Part string
	// Version of the part's module, without a v.
	Version string
}

func (r Release) String() string { return r.Part + " " + r.Version }

// Releases that a cluster can be made of, by part, the oldest first. The release in between that is missing is e2e/tools' own. releases.sum has
// their checksums; make compat SUMS=1 writes it.
var Releases = map[string][]Release{
	"kubernetes": {{"kubernetes", "1.33.13"}, {"kubernetes", "1.34.3"}, {"kubernetes", "1.35.4"}, {"kubernetes", "1.37.2"}},
	"keda":       {{"keda", "2.16.1"}, {"keda", "2.20.2"}},
	"karpenter":  {{"karpenter", "1.9.0"}, {"karpenter", "1.12.1"}},
}

// part is how the programs of a release are built. Each module is the main module of its own build, so its go.mod and go.sum are in force:
// the programs are those that its maintainers build, and its checksum pins all of them.
type part struct {
	module   string
	programs []tool
	assets   []string
	// staging: k8s.io/... modules that the release's repository holds, and its module does not.
	staging bool
}

var parts = map[string]part{
	"kubernetes": {
		module: "k8s.io/kubernetes", staging: true,
		programs: []tool{{name: "kube-apiserver", pkg: "./cmd/kube-apiserver"}, {name: "kube-controller-manager", pkg: "./cmd/kube-controller-manager"}},
	},
	"keda": {
		module:   "github.com/kedacore/keda/v2",
		programs: []tool{{name: "keda-operator", pkg: "./cmd/operator"}, {name: "keda-adapter", pkg: "./cmd/adapter"}},
		assets:   []string{"keda-config", "keda-crd", "keda-rbac", "keda-metrics-server"},
	},
	"karpenter": {
		module: "sigs.k8s.io/karpenter", programs: []tool{{name: "karpenter", pkg: "./kwok"}},
		assets: []string{"karpenter-crd", "karpenter-kwok-crd"},
	},
}

// releaseSums are lines of go.sum: of the releases' modules, and of the staging modules of Kubernetes.
//
//go:embed releases.sum
var releaseSums []byte

// With returns these tools with releases in the place of some. It builds what is missing; a line for each program that has to be built goes
// to progress. Programs are kept beside the other tools. Each has a lock of its own, so that a cluster starts while other releases are built.
func (t Toolchain) With(ctx context.Context, progress io.Writer, releases ...Release) (Toolchain, error) {
	if len(releases) == 0 {
		return t, nil
	}
	all := filepath.Dir(t.dir)
	set := sha256.New()
	fmt.Fprint(set, filepath.Base(t.dir), runtime.Version(), assets)
	for _, r := range releases {
		fmt.Fprint(set, r, parts[r.Part], r.pins())
	}
	mixed := Toolchain{filepath.Join(all, "releases", hex.EncodeToString(set.Sum(nil))[:16])}
	if exists(mixed.dir) {
		return mixed, nil
	}
	if err := os.MkdirAll(filepath.Dir(mixed.dir), 0o755); err != nil {
		return t, err
	}
	unlock, err := lock(ctx, mixed.dir+".lock", progress)
	if err != nil {
		return t, err
	}
	defer unlock()
	if exists(mixed.dir) { // another process was faster
		return mixed, nil
	}
	partial := Toolchain{mixed.dir + ".partial"}
	if err := os.RemoveAll(partial.dir); err != nil {
		return t, err
	}
	for _, r := range releases {
		if err := r.addTo(ctx, partial, filepath.Join(all, "store"), progress); err != nil {
			return t, fmt.Errorf("%s: %w", r, err)
		}
	}
	for _, tool := range tools {
		if !exists(partial.Bin(tool.name)) {
			if err := os.Link(t.Bin(tool.name), partial.Bin(tool.name)); err != nil {
				return t, err
			}
		}
	}
	for _, asset := range assets {
		if !exists(partial.Asset(asset.name)) {
			if err := os.CopyFS(partial.Asset(asset.name), os.DirFS(t.Asset(asset.name))); err != nil {
				return t, err
			}
		}
	}
	return mixed, os.Rename(partial.dir, mixed.dir)
}

// staged is the version of Kubernetes' staging modules that a release of it is made of.
func (r Release) staged() string { return "v0." + strings.TrimPrefix(r.Version, "1.") }

// pins are the checksums that decide what the release is.
func (r Release) pins() string {
	var pins strings.Builder
	for line := range strings.Lines(string(releaseSums)) {
		fields := strings.Fields(line)
		version, _, _ := strings.Cut(fields[1], "/")
		if fields[0] == parts[r.Part].module && version == "v"+r.Version || parts[r.Part].staging && version == r.staged() {
			pins.WriteString(line)
		}
	}
	return pins.String()
}

// addTo puts the programs and assets of a release into a toolchain.
func (r Release) addTo(ctx context.Context, t Toolchain, store string, progress io.Writer) error {
	p, ok := parts[r.Part]
	if !ok {
		return fmt.Errorf("no part %q", r.Part)
	}
	source, err := r.download(ctx, p)
	if err != nil {
		return err
	}
	for _, folder := range []string{"bin", "assets"} {
		if err := os.MkdirAll(filepath.Join(t.dir, folder), 0o755); err != nil {
			return err
		}
	}
	for _, program := range p.programs {
		key := sha256.New()
		fmt.Fprint(key, r, runtime.Version(), runtime.GOARCH, program, r.pins())
		kept := filepath.Join(store, fmt.Sprintf("%s-%s-%s", program.name, r.Version, hex.EncodeToString(key.Sum(nil))[:16]))
		if err := r.keep(ctx, p, source, program, kept, progress); err != nil {
			return fmt.Errorf("build %s: %w", program.name, err)
		}
		if err := os.Link(kept, t.Bin(program.name)); err != nil {
			return err
		}
	}
	for _, asset := range assets {
		if slices.Contains(p.assets, asset.name) {
			if err := os.CopyFS(t.Asset(asset.name), os.DirFS(filepath.Join(source, asset.folder))); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep builds a program, if it is not kept yet.
func (r Release) keep(ctx context.Context, p part, source string, program tool, kept string, progress io.Writer) error {
	if exists(kept) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return err
	}
	unlock, err := lock(ctx, kept+".lock", progress)
	if err != nil {
		return err
	}
	defer unlock()
	if exists(kept) { // another process was faster
		return nil
	}
	start := time.Now()
	stop := ticking(progress, fmt.Sprintf("building %s %s", program.name, r.Version), start)
	err = r.build(ctx, p, source, program, kept)
	stop()
	if err == nil {
		fmt.Fprintf(progress, "built %-24s %5.0f s\n", program.name+" "+r.Version, time.Since(start).Seconds())
	}
	return err
}

// downloaded is a module in Go's cache.
type downloaded struct{ Dir, Sum, GoModSum string }

func download(ctx context.Context, module, version string) (got downloaded, err error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module+"@"+version)
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return got, fmt.Errorf("download %s %s: %w\n%s", module, version, err, out)
	}
	return got, json.Unmarshal(out, &got)
}

// download returns the folder of the release's module, after a comparison with its checksum.
func (r Release) download(ctx context.Context, p part) (folder string, err error) {
	got, err := download(ctx, p.module, "v"+r.Version)
	if err == nil && !strings.Contains(r.pins(), fmt.Sprintf("%s v%s %s\n", p.module, r.Version, got.Sum)) {
		err = fmt.Errorf("%s is not the release whose checksum is in e2e/toolchain/releases.sum: its own is %s", p.module, got.Sum)
	}
	return got.Dir, err
}

// build compiles a program of a release as its main module.
func (r Release) build(ctx context.Context, p part, source string, program tool, path string) error {
	temporary, err := os.MkdirTemp("", "ebbtide-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	args, ldflags := []string{"build", "-o", path + ".partial"}, "-s -w"
	if p.staging {
		modfile := filepath.Join(temporary, "go.mod")
		if err := r.writeModule(source, modfile); err != nil {
			return err
		}
		args = append(args, "-modfile="+modfile)
		major, rest, _ := strings.Cut(r.Version, ".")
		minor, _, _ := strings.Cut(rest, ".")
		const stamp = "k8s.io/component-base/version."
		ldflags += fmt.Sprintf(" -X %[1]sgitVersion=v%[2]s -X %[1]sgitMajor=%[3]s -X %[1]sgitMinor=%[4]s", stamp, r.Version, major, minor)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-ldflags", ldflags, program.pkg)...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, bytes.TrimSpace(out))
	}
	return os.Rename(path+".partial", path)
}

var (
	stagedReplace = regexp.MustCompile(`(?m)^\s*(k8s\.io/[a-z-]+) => \./staging/src/.*$`)
	stagedRequire = regexp.MustCompile(`(?m)^\s*(k8s\.io/[a-z-]+) v0\.0\.0( //.*)?$`)
)

// writeModule writes the go.mod of Kubernetes with its staging modules as they are published, and beside it their checksums and those of
// the rest, which are the release's own.
func (r Release) writeModule(source, modfile string) error {
	text, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return err
	}
	version := r.staged()
	pins := r.pins()
	published := func(name []byte) bool { // all but samples, which nothing here needs
		return strings.Contains(pins, fmt.Sprintf("%s %s ", name, version))
	}
	text = stagedRequire.ReplaceAllFunc(text, func(line []byte) []byte {
		name := stagedRequire.FindSubmatch(line)[1]
		if !published(name) {
			return nil
		}
		return fmt.Appendf(nil, "\t%s %s", name, version)
	})
	text = stagedReplace.ReplaceAllFunc(text, func(line []byte) []byte {
		name := stagedReplace.FindSubmatch(line)[1]
		if !published(name) {
			return nil
		}
		return fmt.Appendf(nil, "\t%s => %s %s", name, name, version)
	})
	if err := os.WriteFile(modfile, text, 0o644); err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return err
	}
	return os.WriteFile(strings.TrimSuffix(modfile, ".mod")+".sum", append(sums, releaseSums...), 0o644)
}

// Sums returns the lines of releases.sum, for a person who adds a release. What is downloaded is what the user's Go proxy and checksum database
// give.
func Sums(ctx context.Context) ([]byte, error) {
	var lines []string
	add := func(module, version string, withMod bool) (dir string, err error) {
		got, err := download(ctx, module, version)
		lines = append(lines, fmt.Sprintf("%s %s %s\n", module, version, got.Sum))
		if withMod {
			lines = append(lines, fmt.Sprintf("%s %s/go.mod %s\n", module, version, got.GoModSum))
		}
		return got.Dir, err
	}
	for name, releases := range Releases {
		for _, r := range releases {
			dir, err := add(parts[name].module, "v"+r.Version, false)
			if err != nil {
				return nil, err
			}
			if !parts[name].staging {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err != nil {
				return nil, err
			}
			for _, match := range stagedRequire.FindAllSubmatch(text, -1) {
				name := string(match[1])
				if strings.HasPrefix(name, "k8s.io/sample-") {
					continue
				}
				if _, err := add(name, r.staged(), true); err != nil {
					return nil, err
				}
			}
		}
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, "")), nil
}
