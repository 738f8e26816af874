// Package eks checks what can be checked of the example without a cloud. It is a module of its own: the project needs no HCL.
package eks

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// The configuration parses, is formatted as `tofu fmt` does, refers only to what it declares, and gives its template just the values that
// are in it. Whether the providers and modules know the arguments, only `tofu validate` can tell, which downloads them.
func TestTofu(t *testing.T) {
	paths, err := filepath.Glob("tofu/*.tf")
	if err != nil || len(paths) < 5 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	declared := map[string]bool{"path.module": true}
	var expressions []hclsyntax.Expression
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if formatted := hclwrite.Format(text); string(formatted) != string(text) {
			t.Errorf("%s is not formatted: tofu fmt %s", path, path)
		}
		file, diagnostics := hclsyntax.ParseConfig(text, path, hcl.InitialPos)
		if diagnostics.HasErrors() {
			t.Fatal(diagnostics)
		}
		body := file.Body.(*hclsyntax.Body)
		for _, block := range body.Blocks {
			for _, name := range names(block) {
				if declared[name] {
					t.Errorf("%s: %s is declared twice", block.DefRange(), name)
				}
				declared[name] = true
			}
		}
		for _, block := range body.Blocks {
			if block.Type == "variable" {
				delete(block.Body.Attributes, "type") // types are words of their own
			}
		}
		expressions = append(expressions, expressionsOf(body)...)
	}
	for _, expression := range expressions {
		for _, reference := range expression.Variables() {
			if name := nameOf(reference); !declared[name] {
				t.Errorf("%s: %s is not declared", reference.SourceRange(), name)
			}
		}
		for _, call := range callsOf(expression) {
			checkTemplate(t, call)
		}
	}
}

// names by which other expressions refer to a block.
func names(block *hclsyntax.Block) []string {
	switch block.Type {
	case "variable":
		return []string{"var." + block.Labels[0]}
	case "module":
		return []string{"module." + block.Labels[0]}
	case "resource":
		return []string{strings.Join(block.Labels, ".")}
	case "data":
		return []string{"data." + strings.Join(block.Labels, ".")}
	case "locals":
		var all []string
		for name := range block.Body.Attributes {
			all = append(all, "local."+name)
		}
		return all
	}
	return nil // outputs, providers and settings
}

// nameOf is the part of a reference that a block declares.
func nameOf(reference hcl.Traversal) string {
	length := 2
	if reference.RootName() == "data" {
		length = 3
	}
	var parts []string
	for _, step := range reference[:min(length, len(reference))] {
		switch s := step.(type) {
		case hcl.TraverseRoot:
			parts = append(parts, s.Name)
		case hcl.TraverseAttr:
			parts = append(parts, s.Name)
		}
	}
	if parts[0] == "count" || parts[0] == "each" {
		return "path.module" // of the block itself
	}
	return strings.Join(parts, ".")
}

func expressionsOf(body *hclsyntax.Body) []hclsyntax.Expression {
	var all []hclsyntax.Expression
	for _, attribute := range body.Attributes {
		all = append(all, attribute.Expr)
	}
	for _, block := range body.Blocks {
		all = append(all, expressionsOf(block.Body)...)
	}
	return all
}

// callsOf are the calls of templatefile in an expression.
func callsOf(expression hclsyntax.Expression) []*hclsyntax.FunctionCallExpr {
	var calls []*hclsyntax.FunctionCallExpr
	_ = hclsyntax.VisitAll(expression, func(node hclsyntax.Node) hcl.Diagnostics {
		if call, ok := node.(*hclsyntax.FunctionCallExpr); ok && call.Name == "templatefile" {
			calls = append(calls, call)
		}
		return nil
	})
	return calls
}

var placeholder = regexp.MustCompile(`\$\{(\w+)\}`)

// checkTemplate checks that a template and the values that it is given agree.
func checkTemplate(t *testing.T, call *hclsyntax.FunctionCallExpr) {
	t.Helper()
	source := string(call.Args[0].Range().SliceBytes(read(t, call.Args[0].Range().Filename)))
	path := filepath.Join("tofu", strings.Trim(strings.Replace(source, "${path.module}", ".", 1), `"`))
	var got, want []string
	for _, item := range call.Args[1].(*hclsyntax.ObjectConsExpr).Items {
		got = append(got, hcl.ExprAsKeyword(item.KeyExpr))
	}
	for _, match := range placeholder.FindAllStringSubmatch(string(read(t, path)), -1) {
		want = append(want, match[1])
	}
	slices.Sort(got)
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(got, want) {
		t.Errorf("%s: the template has %v, and is given %v", path, want, got)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
