// Package layout holds the rules of which package may import which: docs/design/layout.md draws them.
package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ebbtide-dev/ebbtide/"

// mayImport lists, for each folder of the product, the folders of this project that its packages may import. A folder
// stands for everything below it, and a package may always import what is in a folder below its own. Data flows one way:
// backlog -> sizing <- calendar, then decision; lifetime -> packing -> draining -> drainpack.
var mayImport = map[string][]string{
	"api":   {},
	"proto": {},

	"scaler/calendar":       {},
	"scaler/sizing":         {"scaler/calendar"},
	"scaler/backlog":        {"api", "internal", "scaler/backlog", "scaler/sizing"},
	"scaler/policy":         {"api", "internal", "manifests/crd", "scaler/backlog", "scaler/calendar", "scaler/sizing"},
	"scaler/workload":       {"api", "scaler/policy", "worker/summary"},
	"scaler/decision":       {"api", "internal", "proto", "scaler/backlog", "scaler/calendar", "scaler/policy", "scaler/sizing", "scaler/workload"},
	"scaler/status":         {"api", "internal", "scaler/backlog", "scaler/calendar", "scaler/decision", "scaler/policy", "scaler/sizing"},
	"scaler/externalscaler": {"scaler/decision", "scaler/sizing"},

	"scheduler-plugin/lowerbound": {},
	"scheduler-plugin/lifetime":   {},
	"scheduler-plugin/packing":    {"scheduler-plugin/lifetime"},
	"scheduler-plugin/fleet":      {"scheduler-plugin/lifetime", "scheduler-plugin/packing"},
	"scheduler-plugin/placement":  {"scheduler-plugin/packing"},
	"scheduler-plugin/draining":   {"scheduler-plugin/fleet", "scheduler-plugin/lifetime", "scheduler-plugin/packing"},
	"scheduler-plugin/streams":    {"proto"},
	"scheduler-plugin/drainpack": {
		"api", "internal", "scheduler-plugin/draining", "scheduler-plugin/fleet", "scheduler-plugin/lifetime", "scheduler-plugin/lowerbound",
		"scheduler-plugin/packing", "scheduler-plugin/placement", "scheduler-plugin/streams",
	},

	"worker": {"internal", "proto", "worker"},

	"simulator": {
		"api", "internal", "scaler/calendar", "scaler/policy", "scaler/sizing", "scheduler-plugin/draining", "scheduler-plugin/fleet",
		"scheduler-plugin/lifetime", "scheduler-plugin/lowerbound", "scheduler-plugin/packing", "simulator",
	},

	"cmd/ebbtide-scaler":    {"api", "internal", "scaler"},
	"cmd/ebbtide-scheduler": {"internal", "scheduler-plugin"},
	"cmd/ebbtide-worker":    {"internal", "worker"},
	// The command explains and simulates both sides.
	"cmd/ebbtide": {"api", "internal", "proto", "scaler", "scheduler-plugin", "simulator"},
}

// pure packages take values and return values: they know no API types, and neither a network nor a file.
var pure = []string{
	"scaler/calendar", "scaler/sizing", "scheduler-plugin/packing", "scheduler-plugin/lifetime", "scheduler-plugin/draining",
	"scheduler-plugin/lowerbound",
}

// impure are what they may not import; a name stands for everything below it.
var impure = []string{"net", "os", "io/fs", "log", "k8s.io/api", "k8s.io/client-go", "k8s.io/kubernetes", "sigs.k8s.io", "google.golang.org", module + "api", module + "proto", "math/rand"}

// mayNotLink says for programs and packages what their dependencies, of any depth, may not hold.
var mayNotLink = map[string][]string{
	"scaler/":               {"k8s.io/kubernetes", module + "scheduler-plugin", module + "simulator"},
	"cmd/ebbtide-scaler":    {"k8s.io/kubernetes", module + "scheduler-plugin", module + "simulator"},
	"cmd/ebbtide-scheduler": {module + "simulator", module + "scaler"},
	"cmd/ebbtide-worker":    {"k8s.io", module + "simulator", module + "scaler", module + "scheduler-plugin"},
}

// skipped are names of folders that tools pass over everywhere.
var skipped = []string{"target", "build", "vendor", "dist"}

type goPackage struct {
	ImportPath    string
	Imports, Deps []string
}

func TestImports(t *testing.T) {
	packages := list(t)
	if len(packages) < 20 {
		t.Fatalf("go list finds %d packages of the product", len(packages))
	}
	for _, fault := range faults(packages) {
		t.Error(fault)
	}
}

// Each of these is an import turned round, or one that a rule forbids.
func TestTurnedImports(t *testing.T) {
	for from, to := range map[string]string{
		"scaler/sizing":               module + "scaler/backlog",
		"scaler/calendar":             module + "api/v1alpha1",
		"scaler/backlog/kafka":        module + "scaler/decision",
		"scaler/decision":             module + "scaler/externalscaler",
		"scaler/policy":               module + "scheduler-plugin/fleet",
		"scheduler-plugin/packing":    module + "scheduler-plugin/fleet",
		"scheduler-plugin/lowerbound": "k8s.io/api/core/v1",
		"scheduler-plugin/drainpack":  module + "simulator",
		"worker/rabbitmq":             module + "scaler/backlog",
		"cmd/ebbtide-worker":          module + "scaler/policy",
		"scheduler-plugin/lifetime":   "os",
		"scaler/new":                  module + "scaler/sizing",
	} {
		if len(faults([]goPackage{{ImportPath: module + from, Imports: []string{to}}})) == 0 {
			t.Errorf("%s may import %s", from, to)
		}
	}
	if len(faults([]goPackage{{ImportPath: module + "cmd/ebbtide-scaler", Deps: []string{"k8s.io/kubernetes/pkg/scheduler"}}})) == 0 {
		t.Error("the scaler may link the scheduler")
	}
}

func TestNoFolderIsSkipped(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !entry.IsDir():
			return nil
		case entry.Name() == ".git" || entry.Name() == "node_modules":
			return fs.SkipDir
		case slices.Contains(skipped, entry.Name()):
			t.Errorf("tools skip folders that are called %s: rename %s", entry.Name(), path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// list asks go for the packages of the product.
func list(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps",
		"./api/...", "./cmd/...", "./proto/...", "./scaler/...", "./scheduler-plugin/...", "./simulator/...", "./worker/...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages
		case err != nil:
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// faults are what breaks the rules.
func faults(packages []goPackage) []string {
	var all []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module)
		room, known := roomOf(name)
		if !known {
			all = append(all, fmt.Sprintf("%s is in no folder of mayImport: say there what it may import", name))
			continue
		}
		for _, imported := range p.Imports {
			if own, isOwn := strings.CutPrefix(imported, module); isOwn && !within(own, room) && !slices.ContainsFunc(mayImport[room], func(allowed string) bool { return within(own, allowed) }) {
				all = append(all, fmt.Sprintf("%s imports %s, which mayImport does not let %s", name, own, room))
			}
			if slices.Contains(pure, room) && slices.ContainsFunc(impure, func(banned string) bool { return within(imported, banned) }) {
				all = append(all, fmt.Sprintf("%s is pure, and imports %s", name, imported))
			}
		}
		for prefix, banned := range mayNotLink {
			if name != prefix && !strings.HasPrefix(name, strings.TrimSuffix(prefix, "/")+"/") {
				continue
			}
			for _, dependency := range p.Deps {
				if slices.ContainsFunc(banned, func(b string) bool { return within(dependency, b) }) {
					all = append(all, fmt.Sprintf("%s links %s", name, dependency))
				}
			}
		}
	}
	return all
}

// roomOf is the longest folder of mayImport that a package is in.
func roomOf(name string) (room string, known bool) {
	for folder := range mayImport {
		if within(name, folder) && len(folder) > len(room) {
			room, known = folder, true
		}
	}
	return room, known
}

// within reports whether a path is a folder or is below it.
func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}
