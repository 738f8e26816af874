package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var namedTest = regexp.MustCompile("`(Test[A-Za-z0-9]+)(?:/([^`]+))?`")

// Every row of the tables of faults and of attacks names tests, and each is there: a test function, and its subtests as strings in what it runs.
func TestFaultsAreTested(t *testing.T) {
	for _, table := range []struct{ page, head string }{{"reference/faults.md", "| fault |"}, {"concepts/security.md", "| attack |"}} {
		t.Run(table.page, func(t *testing.T) { testTable(t, table.page, table.head) })
	}
}

func testTable(t *testing.T, page, head string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), head)
	table, _, _ := strings.Cut(after, "\n\n")
	rows, packages := 0, map[string]*testFunctions{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		rows++
		// `TestA/sub`, `TestB` in `folder`, `TestC` in `folder`
		tests := 0
		for _, group := range regexp.MustCompile("((?:`Test[^`]+`(?:, )?(?: and )?)+) in `([^`]+)`").FindAllStringSubmatch(line, -1) {
			known := packages[group[2]]
			if known == nil {
				known = parseTests(t, group[2])
				packages[group[2]] = known
			}
			for _, match := range namedTest.FindAllStringSubmatch(group[1], -1) {
				tests++
				if missing := known.missing(match[1], match[2]); missing != "" {
					t.Errorf("%s in %s: %s", match[0], group[2], missing)
				}
			}
		}
		// Templates of charts and whole scenarios have tests that are no Go functions of their own.
		for _, match := range regexp.MustCompile("`([^`]+)` in `(charts/[^`]+/tests)`").FindAllStringSubmatch(line, -1) {
			tests++
			if !anyFileHolds(t, filepath.Join("..", match[2], "*.yaml"), "it: "+match[1]) {
				t.Errorf("no test in %s is called %q", match[2], match[1])
			}
		}
		for _, match := range regexp.MustCompile("`make ([a-z0-9-]+)`").FindAllStringSubmatch(cells[len(cells)-1], -1) {
			tests++
			if !anyFileHolds(t, "../Makefile", "\n"+match[1]+": ") {
				t.Errorf("the Makefile has no target %s", match[1])
			}
		}
		if tests == 0 {
			t.Errorf("no test is named for: %s", strings.TrimSpace(cells[0]))
		}
	}
	if rows < 15 {
		t.Errorf("the table has %d rows", rows)
	}
}

// anyFileHolds reports whether a text is in one of the files that a pattern means.
func anyFileHolds(t *testing.T, pattern, text string) bool {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), text) {
			return true
		}
	}
	return false
}

// testFunctions are the functions of a package's tests: the strings that each holds and the functions that each names.
type testFunctions struct {
	strings map[string]map[string]bool
	names   map[string]map[string]bool
}

func parseTests(t *testing.T, folder string) *testFunctions {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	f := &testFunctions{strings: map[string]map[string]bool{}, names: map[string]map[string]bool{}}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || function.Body == nil {
				continue
			}
			name := function.Name.Name
			if f.strings[name] == nil { // methods of several types may share a name
				f.strings[name], f.names[name] = map[string]bool{}, map[string]bool{}
			}
			ast.Inspect(function.Body, func(node ast.Node) bool {
				switch node := node.(type) {
				case *ast.BasicLit:
					if text, err := strconv.Unquote(node.Value); node.Kind == token.STRING && err == nil {
						f.strings[name][text] = true
					}
				case *ast.Ident:
					f.names[name][node.Name] = true
				}
				return true
			})
		}
	}
	return f
}

// missing says what of a test is not there: "" when all is.
func (f *testFunctions) missing(test, subtests string) string {
	if f.strings[test] == nil {
		return "there is no such test"
	}
	reached := map[string]bool{}
	var reach func(name string)
	reach = func(name string) {
		if reached[name] || f.strings[name] == nil {
			return
		}
		reached[name] = true
		for other := range f.names[name] {
			reach(other)
		}
	}
	reach(test)
	// Subtests' names may hold slashes themselves: the whole, or each part.
	holds := func(text string) bool {
		for name := range reached {
			if f.strings[name][text] {
				return true
			}
		}
		return false
	}
	if subtests == "" || holds(subtests) {
		return ""
	}
	for part := range strings.SplitSeq(subtests, "/") {
		if !holds(part) {
			return "nothing in it is called " + strconv.Quote(part)
		}
	}
	return ""
}
