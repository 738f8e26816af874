package compat

import (
	"cmp"
	_ "embed" // for the page
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"
)

// Result is how a cell went.
type Result struct {
	Cell       string `json:"cell"`
	Kubernetes string `json:"kubernetes"`
	KEDA       string `json:"keda"`
	Karpenter  string `json:"karpenter"`
	// Date of the run, YYYY-MM-DD, and the commit it was made with; -dirty if files differed from it.
	Date    string `json:"date"`
	Commit  string `json:"commit"`
	Seconds int    `json:"seconds"`
	// Error is empty if every step passed.
	Error string `json:"error,omitempty"`
}

// NewResult is the result of a cell that ends now.
func NewResult(cell Cell, commit string, begin time.Time, err error) Result {
	r := Result{
		Cell: cell.Name, Kubernetes: cell.Version("kubernetes"), KEDA: cell.Version("keda"), Karpenter: cell.Version("karpenter"),
		Date: time.Now().UTC().Format(time.DateOnly), Commit: commit, Seconds: int(time.Since(begin).Seconds()),
	}
	if err != nil {
		r.Error, _, _ = strings.Cut(err.Error(), "\n")
	}
	return r
}

// Results are those of the cells that were run, kept in the project.
type Results []Result

// Of a cell that it has with the releases of today.
func (r Results) Of(cell Cell) (Result, bool) {
	for _, result := range r {
		if result.Cell == cell.Name && result.Kubernetes == cell.Version("kubernetes") && result.KEDA == cell.Version("keda") && result.Karpenter == cell.Version("karpenter") {
			return result, true
		}
	}
	return Result{}, false
}

func file(root string) string { return filepath.Join(root, "e2e", "compat", "results.json") }

// PageFile is the page that WritePage writes, in the project's folder.
const PageFile = "docs/reference/compatibility.md"

// Read reads the results that the project has.
func Read(root string) (Results, error) {
	text, err := os.ReadFile(file(root))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var results Results
	return results, errors.Join(err, json.Unmarshal(text, &results))
}

// Keep adds a result to those that the project has, in the place of an earlier one of its cell, and writes the page.
func Keep(root string, result Result) error {
	kept, err := Read(root)
	if err != nil {
		return err
	}
	kept = append(slices.DeleteFunc(kept, func(old Result) bool { return old.Cell == result.Cell }), result)
	order := map[string]int{}
	for i, cell := range Cells() {
		order[cell.Name] = i
	}
	slices.SortFunc(kept, func(a, b Result) int { return cmp.Compare(order[a.Cell], order[b.Cell]) })
	text, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return err
	}
	page, err := Page(kept)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(file(root), append(text, '\n'), 0o644), os.WriteFile(filepath.Join(root, PageFile), []byte(page), 0o644))
}

//go:embed compatibility.md.tmpl
var pageTemplate string

// Page is the reference page of results.
func Page(results Results) (string, error) {
	t, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return "", err
	}
	type row struct {
		Result
		Run bool
	}
	var rows []row
	passed, failed := 0, 0
	for _, cell := range Cells() {
		result, run := results.Of(cell)
		if !run {
			result = Result{Cell: cell.Name, Kubernetes: cell.Version("kubernetes"), KEDA: cell.Version("keda"), Karpenter: cell.Version("karpenter")}
		}
		switch {
		case run && result.Error == "":
			passed++
		case run:
			failed++
		}
		rows = append(rows, row{result, run})
	}
	var page strings.Builder
	err = t.Execute(&page, map[string]any{"Rows": rows, "Steps": Steps, "Passed": passed, "Failed": failed})
	return page.String(), err
}
