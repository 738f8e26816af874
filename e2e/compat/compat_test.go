package compat

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

const root = "../.."

// The page is that of the results that are kept.
func TestPage(t *testing.T) {
	results, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Page(results)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, PageFile))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not that of e2e/compat/results.json: make compat writes both", PageFile)
	}
}

// A result counts for the releases that it was made with, and no others.
func TestResults(t *testing.T) {
	cell, ok := CellOf("oldest")
	if !ok || len(cell.Releases) != len(Parts) {
		t.Fatalf("the oldest cell is %+v", cell)
	}
	result := Result{Cell: "oldest", Kubernetes: cell.Version("kubernetes"), KEDA: cell.Version("keda"), Karpenter: cell.Version("karpenter")}
	if _, ok := (Results{result}).Of(cell); !ok {
		t.Error("its result is not found")
	}
	result.KEDA = "2.1.0"
	if _, ok := (Results{result}).Of(cell); ok {
		t.Error("the result of another release counts")
	}
	page, err := Page(Results{{Cell: "default", Kubernetes: Defaults["kubernetes"], KEDA: Defaults["keda"], Karpenter: Defaults["karpenter"], Error: "messages: 3 lost", Date: "2026-11-26", Commit: "abc"}})
	if err != nil || !strings.Contains(page, "| default | 1.36.3 | 2.21.0 | 1.14.1 | **failed**: messages: 3 lost | 2026-11-26 | abc |") ||
		!strings.Contains(page, "| oldest | 1.33.13 | 2.16.1 | 1.9.0 | not run |  |  |") {
		t.Errorf("%v\n%s", err, page)
	}
}

// The default releases are those that e2e/tools pins.
func TestDefaults(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(toolchain.Module(root), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for part, module := range map[string]string{"kubernetes": "k8s.io/kubernetes", "keda": "github.com/kedacore/keda/v2", "karpenter": "sigs.k8s.io/karpenter"} {
		if !strings.Contains(string(text), module+" v"+Defaults[part]) {
			t.Errorf("e2e/tools does not have %s %s", part, Defaults[part])
		}
	}
}

// The doctor and the chart warn of a KEDA that is older than the oldest with which a cell passed, and of no other.
func TestOldestKEDA(t *testing.T) {
	results, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	oldest := version.MustParseSemantic(Defaults["keda"])
	for _, r := range results {
		if v := version.MustParseSemantic(r.KEDA); r.Error == "" && v.LessThan(oldest) {
			oldest = v
		}
	}
	for file, want := range map[string]string{
		"docs/reference/doctor.md":           fmt.Sprintf("KEDA %d.%d is the oldest tested version", oldest.Major(), oldest.Minor()),
		"charts/ebbtide/templates/NOTES.txt": fmt.Sprintf(`semverCompare "<%d.%d.0-0" $keda`, oldest.Major(), oldest.Minor()),
	} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q: %s is the oldest that passed", file, want, oldest)
		}
	}
}
