package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// wording is an expression that readers stumble over, with an example and what to write instead.
type wording struct {
	pattern string // of whole words, in any case; a space also matches a line break
	not     string // an example that the pattern matches
	but     string // the same in plain English, which no pattern matches
}

// everywhere are wordings that neither the documentation nor programs use: private words, dated words, inversions, and clauses in place of
// nouns. To add one, give an example of it and what to write instead.
var everywhere = []wording{
	{`mend(s|ed|ing)?`, "mend the Secret", "fix the Secret"},
	{`dear(er|est)?`, "dear nodes", "expensive nodes"},
	{`(go|goes|going|went|gone) on`, "the worker goes on", "the worker keeps consuming"},
	{`as a rule`, "as a rule, pods end", "pods usually end"},
	{`(give|gives|giving|gave|given)( \w+){0,3} back`, "workers give their messages back", "workers requeue their messages"},
	{`(take|takes|taking|took|taken)( \w+){0,2} back`, "take the edit back", "revert the edit"},
	{`play(s|ed|ing)?`, "it plays a load on a policy", "it replays a workload against a policy"},
	{`(un)?settl(e|es|ed|ing|ement|ements)`, "until the message is settled", "until the message is acked, requeued or dead-lettered"},
	{`of the moment`, "the limits of the moment", "the current limits"},
	{`who(ever)? asks`, "whoever asks first", "the first caller"},
	{`(is|are|was|were|be) taken (to be|to run|to have|for)`, "how long a pod is taken to run", "the run time assumed for a pod"},
	{`least (level|longer)`, "least level of what is logged", "log level"},
	{`(its|the|their) messages? taken`, "no job finds its message taken", "no empty jobs"},
	{`want of`, "killed for want of memory", "killed because it ran out of memory"},
	{`made-up`, "a made-up load", "a synthetic load"},
	{`anew`, "it is built anew", "it is rebuilt"},
	{`overrul(e|es|ed|ing)`, "weights overrules it", "weights overrides it"},
	{`foret(ell|ells|old|elling)`, "as well as it foretold", "as well as it predicted"},
	{`(to|can|can't|cannot|could|may|not) be had`, "it can't be had soon", "it is not available soon"},
	{`becomes? of|became of`, "what becomes of a message", "what happens to a message"},
	{`(is|are|was|were) said`, "a missing queue is said in the reason", "the reason reports a missing queue"},
	{`(is|are|was|were) told by`, "other consumers are told by a field", "a field sets the number of other consumers"},
	{`(speaks?|spoke) alone`, "the calendar speaks alone", "only the calendar applies"},
	{`takes? it that`, "the commands take it that", "the commands assume that"},
	{`lest|hitherto|thereof|therein|wherein|whereof|thereby|hereby|herein|whilst|amongst|hence|ere|whence|whither`, "lest it fails", "so that it does not fail"},
	{`as it were|as ever|that is to say|which is to say`, "it works as ever", "it works as before"},
	{`nothing to (gain|give)`, "there is nothing to gain", "packing does not help"},
	{`stands? beside|stood beside`, "the number stands beside it", "the number is next to it"},
	{`and nothing else`, "you are blind to it, and nothing else", "only scraping is broken"},
	{`whatever( \w+){1,3} says?`, "whatever the policy says", "regardless of the policy"},
	{`worth (a|the|their|its) (look|price)`, "it is worth a look", "check it"},
	{`sees? to it`, "see to it that it runs", "make sure that it runs"},
	{`(the|with the) way out`, "the error names the way out", "the error names the fix"},
	{`luck`, "by more than luck", "by more than random variation"},
	{`by the clock|on the wall`, "what scales by the clock", "what scales on a schedule"},
	{`at (its|their|your) word`, "taken at its word", "trusted"},
	{`but for (its|the|a|that|those|their)`, "real but for its nodes", "real except for its nodes"},
	{`lets? (it|them|him|her|the \w+) be`, "let the backlog be", "leave the backlog"},
	{`asunder|astray|amiss|afresh|naught|aught|nigh|betimes`, "it is started afresh", "it is restarted"},
	{`what will go wrong\?|and now$`, "What will go wrong?", "Check your setup"},
}

// onPages are wordings that are common in comments of programs, but hard to read on a page or in a message.
var onPages = []wording{
	{`(what|all|everything) there (is|are|was|were)`, "it lists what there is", "it lists the queues"},
	{`(what|that|those|they|who|one|everything|it) (is|are|was|were) there`, "queues that are there", "existing queues"},
	{`(one|ones|that|which|those|nodes|queues) (that )?there (is|are|was|were)( not)?`, "the queues that there are", "the existing queues"},
	{`of (which|whose|whom)`, "a pod of whose class nothing is known", "a pod whose class has no history"},
	{`so many`, "there are so many workers", "there are that many workers"},
	{`made of`, "the page is made of the code", "the page is generated from the code"},
	{`some (\d+|two|three|five|ten|half|seconds|minutes|hours|nanoseconds)`, "it takes some ten seconds", "it takes about ten seconds"},
	{`of (its|their|your|our|my|his) own`, "a queue of its own", "its own queue"},
	{`(a|one|an|name|value) that is none`, "a name that is none", "an invalid name"},
	{`(come|comes|came) and (go|goes|went)`, "as queues come and go", "as queues are created and deleted"},
	{`in short`, "in short", "summary"},
}

// asides and inversions depend on what is around the words, so their patterns are complete.
var asides = []wording{
	{`, say[,.;:)]|\d[a-z]* say\b`, "a nightly batch, say, ends", "a nightly batch, for example, ends"},
	{`(?-i:(?:^|[.:;!?|] |\n\s*(?:[-*] )?)Of (?:[b-z]|a |an |all )\w*)`, "Of two definitions the older wins", "If there are two definitions, the older wins"},
}

type finding struct {
	number int
	text   string
	advice string
}

type checker struct {
	expressions []*regexp.Regexp
	advice      []string
}

// newChecker checks for wordings, and for asides if they count too.
func newChecker(wordings, asides []wording) *checker {
	c := &checker{}
	space := strings.NewReplacer(" ", `[ \t]*(?:[ \t]|\r?\n)[ \t]*`)
	for _, w := range wordings {
		c.expressions = append(c.expressions, regexp.MustCompile(`(?im)\b(?:`+space.Replace(w.pattern)+`)(?:\b|$)`))
		c.advice = append(c.advice, fmt.Sprintf("not %q, but %q", w.not, w.but))
	}
	for _, w := range asides {
		c.expressions = append(c.expressions, regexp.MustCompile(`(?i)`+w.pattern))
		c.advice = append(c.advice, fmt.Sprintf("not %q, but %q", w.not, w.but))
	}
	return c
}

func (c *checker) check(text string) []finding {
	var found []finding
	for i, expression := range c.expressions {
		for _, at := range expression.FindAllStringIndex(text, -1) {
			match := text[at[0]:at[1]]
			start := at[0] + len(match) - len(strings.TrimLeft(match, " \t\r\n.:;!?|"))
			found = append(found, finding{1 + strings.Count(text[:start], "\n"), strings.Join(strings.Fields(match), " "), c.advice[i]})
		}
	}
	slices.SortFunc(found, func(a, b finding) int { return a.number - b.number })
	return found
}

var (
	notProse    = regexp.MustCompile("(?s)<!--.*?-->|`[^`\n]+`|\\]\\([^)\n]*\\)|<?https?://[^\\s)>]+|\\{\\{.*?\\}\\}")
	comment     = regexp.MustCompile(`(?m)^\s*# ?(.*)$|^.*$`)
	description = regexp.MustCompile(`(?m)^\s*(?:- )?(?:summary|description|label|value|about|annotations\.description): (.*)$|^.*$`)
	panel       = regexp.MustCompile(`(?m)^\s*"(?:title|description|noValue)": "(.*)",?$|^.*$`)
	help        = regexp.MustCompile(`(?m)^.*?## ?(.*)$|^.*$`)
)

// prose of a Markdown page: code, addresses and everything that is generated by tests from numbers is blank, and lines stay where they are.
// Blocks of text are prose: the help of programs.
func (p page) prose() string {
	var text strings.Builder
	number := 1
	for _, l := range p.lines {
		for ; number < l.number; number++ {
			text.WriteByte('\n')
		}
		if !l.fenced || l.language == "text" {
			text.WriteString(l.text)
		}
	}
	return blank(text.String())
}

// blank replaces what is not prose, and leaves line breaks.
func blank(text string) string {
	return notProse.ReplaceAllStringFunc(text, func(code string) string { return "_" + strings.Repeat("\n", strings.Count(code, "\n")) })
}

// lines of a text that an expression finds prose in, each in its place; other lines are empty.
func lines(text string, prose *regexp.Regexp) string {
	return blank(prose.ReplaceAllString(text, "$1"))
}

// written is all prose that is not in Markdown, by file.
func written(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for glob, prose := range map[string]*regexp.Regexp{
		"charts/*/*values*.yaml":            comment,
		"charts/*/Chart.yaml":               description,
		"charts/ebbtide/files/alerts.yaml":  description,
		"charts/*/files/dashboards/*.json":  panel,
		".github/ISSUE_TEMPLATE/*":          description,
		"Makefile":                          help,
		"charts/*/templates/NOTES.txt":      nil,
		"examples/*/values.yaml":            comment,
		"examples/quickstart/*.yaml":        comment,
		"examples/eks/helmfile/*.yaml":      comment,
		"hack/release/artifacthub-pkg.yml*": description,
	} {
		files, err := filepath.Glob(filepath.Join(root, glob))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %d files", glob, err, len(files))
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if prose == nil {
				found[file] = blank(string(text))
			} else {
				found[file] = lines(string(text), prose)
			}
		}
	}
	return found
}

// The documentation is in plain English: pages, comments of values, notes, alerts, help and templates of issues.
func TestPlainEnglish(t *testing.T) {
	c := newChecker(slices.Concat(everywhere, onPages), asides)
	for _, p := range pages(t) {
		for _, f := range c.check(p.prose()) {
			t.Errorf("%s:%d: %q: %s", p.path, f.number, f.text, f.advice)
		}
	}
	for file, text := range written(t) {
		for _, f := range c.check(text) {
			t.Errorf("%s:%d: %q: %s", strings.TrimPrefix(file, root+"/"), f.number, f.text, f.advice)
		}
	}
}

// Programs are in plain English: messages, help and other texts as strictly as pages, comments without what is common in them.
func TestPlainEnglishInPrograms(t *testing.T) {
	texts, comments := newChecker(slices.Concat(everywhere, onPages), asides), newChecker(everywhere, nil)
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules" || entry.Name() == "bin") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" || entry.Name() == "prose_test.go" {
			return nil
		}
		file, err := parseProgram(path, nil)
		if err != nil {
			return err
		}
		files++
		for _, p := range file.comments {
			for _, f := range comments.check(p.text) {
				t.Errorf("%s:%d: %q: %s", strings.TrimPrefix(path, root+"/"), p.line+f.number-1, f.text, f.advice)
			}
		}
		for _, p := range file.texts {
			for _, f := range texts.check(p.text) {
				t.Errorf("%s:%d: %q: %s", strings.TrimPrefix(path, root+"/"), p.line, f.text, f.advice)
			}
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Errorf("%d files, %v", files, err)
	}
}

// passage is prose in a program.
type passage struct {
	line int
	text string
}

// source is the prose of a file.
type source struct{ comments, texts []passage }

// parseProgram reads the prose of a file of Go: comments, without the name that a doc comment begins with, and texts of three words and more,
// but not those of tests. Generated files have none.
func parseProgram(path string, text any) (source, error) {
	var found source
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, parser.ParseComments)
	if err != nil || ast.IsGenerated(file) {
		return found, err
	}
	names := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			names[n.Name] = true
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			n.Tag = nil
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && strings.Count(text, " ") > 1 && !strings.HasSuffix(path, "_test.go") {
				found.texts = append(found.texts, passage{set.Position(n.Pos()).Line, blank(text)})
			}
		}
		return true
	})
	for _, group := range file.Comments {
		var text strings.Builder
		first := set.Position(group.Pos()).Line
		for _, c := range group.List {
			for line := first + strings.Count(text.String(), "\n"); line < set.Position(c.Pos()).Line; line++ {
				text.WriteByte('\n')
			}
			if body, ok := strings.CutPrefix(c.Text, "//"); ok && (body == "" || body[0] == ' ' || body[0] == '\t') {
				text.WriteString(body)
			}
		}
		prose := strings.TrimLeft(text.String(), " \t")
		if word, rest, _ := strings.Cut(prose, " "); names[word] {
			prose = "_ " + rest
		}
		found.comments = append(found.comments, passage{first, blank(prose)})
	}
	return found, nil
}

func TestParseProgram(t *testing.T) {
	got, err := parseProgram("a.go", `// Package a goes
// on.
package a

import "go on and on"

// mend mends it.
func mend() { fail("it goes on here") } // anew

//go:generate go on

type s struct { field string `+"`tag:\"go on and on\"`"+` }
`)
	if err != nil {
		t.Fatal(err)
	}
	want := source{
		comments: []passage{{1, "Package a goes\n on."}, {7, "_ mends it."}, {8, "anew"}, {10, ""}},
		texts:    []passage{{8, "it goes on here"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Every wording finds its own example, across lines too, and nothing finds what is recommended.
func TestWordings(t *testing.T) {
	wordings := slices.Concat(everywhere, onPages)
	c := newChecker(wordings, asides)
	for i, w := range slices.Concat(wordings, asides) {
		for _, text := range []string{w.not, strings.ToUpper(w.not[:1]) + w.not[1:], strings.ReplaceAll(w.not, " ", "\n")} {
			if i >= len(wordings) && text != w.not {
				continue
			}
			if !c.expressions[i].MatchString(text) {
				t.Errorf("%s does not match %q", c.expressions[i], text)
			}
		}
		for _, f := range c.check(w.but) {
			t.Errorf("what is recommended is found: %q in %q: %s", f.text, w.but, f.advice)
		}
	}
}

// Code, addresses and comments are not prose; words that contain others are not found.
func TestProse(t *testing.T) {
	c := newChecker(slices.Concat(everywhere, onPages), asides)
	p := parse("x.md", "We recommend `mend`. [a](https://dear.example/settled)\n```sh\ngo on\n```\n<!-- play -->\n\n* Goes\n  on.\n```text\nmended\n```\nPlaywright, of course.\n")
	var got []string
	for _, f := range c.check(p.prose()) {
		got = append(got, fmt.Sprintf("%d %s", f.number, f.text))
	}
	if want := []string{"7 Goes on", "10 mended"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	values := "# mend\nkey: mend # mended\n  # as a\n  # rule\n"
	if got := c.check(lines(values, comment)); len(got) != 2 || got[0].number != 1 || got[1].number != 3 {
		t.Errorf("%+v", got)
	}
}
