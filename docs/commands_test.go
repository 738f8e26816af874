package docs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Commands of the pages call targets, subcommands, flags, values and files that exist.
func TestCommands(t *testing.T) {
	checked := 0
	v := newVocabulary(t)
	for _, p := range pages(t) {
		if p.path == "CHANGELOG.md" {
			continue // what was there once
		}
		for _, b := range p.blocks() {
			for _, c := range commands(b) {
				checked++
				for _, words := range simpleCommands(c.text) {
					if err := v.check(words); err != nil {
						t.Errorf("%s:%d: %s: %v", b.page, c.number, strings.Join(words, " "), err)
					}
				}
			}
		}
		for _, l := range p.lines {
			if l.fenced {
				continue
			}
			for _, code := range inlineCode.FindAllString(l.text, -1) {
				if text := strings.Trim(code, "`"); isCommand(text) && !strings.Contains(text, "...") && !strings.Contains(text, "…") {
					checked++
					for _, words := range simpleCommands(text) {
						if err := v.check(words); err != nil {
							t.Errorf("%s:%d: %s: %v", p.path, l.number, text, err)
						}
					}
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d commands", checked)
	}
}

// command of a block.
type command struct {
	number int
	text   string
}

var commandWords = []string{"make", "ebbtide", "ebbtide-scaler", "ebbtide-worker", "kubectl", "helm", "go", "bin/ebbtide"}

func isCommand(text string) bool {
	first, rest, _ := strings.Cut(text, " ")
	return slices.Contains(commandWords, first) && rest != ""
}

// commands of a block: all lines of a script; those after a prompt of a console; those that look like one where no language is named.
func commands(b block) []command {
	var found []command
	lines := strings.Split(b.text, "\n")
	for i := 0; i < len(lines); i++ {
		text, prompt := strings.CutPrefix(strings.TrimSpace(lines[i]), "$ ")
		switch b.language {
		case "sh", "bash", "shell":
		case "console":
			if !prompt {
				continue
			}
		case "":
			if !prompt && !isCommand(text) {
				continue
			}
		default:
			continue
		}
		c := command{b.number + i, text}
		for strings.HasSuffix(c.text, `\`) && i+1 < len(lines) {
			i++
			c.text = strings.TrimSuffix(c.text, `\`) + " " + strings.TrimSpace(lines[i])
		}
		found = append(found, c)
	}
	return found
}

// simpleCommands splits a line of shell into its commands, and those into words without quotes, assignments in front and redirections.
// It knows what the pages use: quotes, comments, lists, pipes, and commands in $(...), which come first.
func simpleCommands(text string) [][]string {
	var all [][]string
	var words []string
	var word strings.Builder
	open := false // in a word
	end := func() {
		if open {
			words = append(words, word.String())
		}
		word.Reset()
		open = false
	}
	finish := func() {
		end()
		for len(words) > 0 && assignment.MatchString(words[0]) {
			words = words[1:]
		}
		if len(words) > 0 {
			all = append(all, words)
		}
		words = nil
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\'' || c == '"':
			open = true
			if n := strings.IndexByte(text[i+1:], c); n >= 0 {
				word.WriteString(text[i+1 : i+1+n])
				i += n + 1
			}
		case c == '$' && strings.HasPrefix(text[i:], "$("):
			depth, j := 1, i+2
			for ; j < len(text) && depth > 0; j++ {
				switch text[j] {
				case '(':
					depth++
				case ')':
					depth--
				}
			}
			all = append(all, simpleCommands(text[i+2:max(i+2, j-1)])...)
			word.WriteString("$()")
			open = true
			i = j - 1
		case c == '#' && !open:
			i = len(text)
		case c == ' ' || c == '\t':
			end()
		case c == '|' || c == '&' || c == ';' || c == '(' || c == ')':
			finish()
		case c == '>' || c == '<':
			if strings.Trim(word.String(), "0123456789") == "" { // which file is redirected
				open = false
			}
			end()
			for i+1 < len(text) && strings.IndexByte(">& ", text[i+1]) >= 0 {
				i++
			}
			for i+1 < len(text) && strings.IndexByte(" ;|", text[i+1]) < 0 {
				i++
			}
		default:
			word.WriteByte(c)
			open = true
		}
	}
	finish()
	return all
}

var assignment = regexp.MustCompile(`^[A-Z_]+=`)

func TestSimpleCommands(t *testing.T) {
	got := fmt.Sprintf("%q", simpleCommands(`X=1 make up N=2 > log 2>&1 && ebbtide explain -f "a b" | grep 'x y' # why`+"\n"))
	if want := `[["make" "up" "N=2"] ["ebbtide" "explain" "-f" "a b"] ["grep" "x y"]]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got = fmt.Sprintf("%q", simpleCommands(`folder=$(go run ./a --b) && cd "$folder"`))
	if want := `[["go" "run" "./a" "--b"] ["folder=$()"] ["cd" "$folder"]]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What does not exist is found.
func TestCheck(t *testing.T) {
	v := newVocabulary(t)
	for text, want := range map[string]string{
		"make demo":             "",
		"make deno":             "no target deno",
		"make publish N=5":      "",
		"make publish NUMBER=5": "no variable NUMBER",
		"ebbtide doctor -f examples/scans-policy.yaml --strict":                       "",
		"kubectl ebbtide docter":                                                      "no command docter",
		"bin/ebbtide explain --redy 4":                                                "no flag --redy",
		"ebbtide explain -f examples/none.yaml":                                       "no examples/none.yaml",
		"ebbtide-worker topology apply -f x.json":                                     "",
		"ebbtide-worker topology aply":                                                "ebbtide-worker topology has no command aply",
		"ebbtide-worker --queue q -- scan --x":                                        "",
		"ebbtide-worker --queu q -- scan":                                             "no flag --queu",
		"helm install e charts/ebbtid":                                                "no chart",
		"helm install e ./charts/ebbtide --set tls.mode=none,scaler.nodeSelector.a=b": "",
		"helm install e charts/ebbtide --set tls.mood=none":                           "no value mood",
		"helm install e charts/ebbtide --set scheduler.replicas.x=1":                  "no fields",
		"kubectl apply -k manifests/nowhere":                                          "no manifests/nowhere",
		"kubectl apply -f https://example.com/a/b.yaml":                               "",
		"go test ./scaler/sizing -run TestReplayTable":                                "",
		"go test ./scaler/sizing -run TestNothing":                                    "no test",
		"go run ./e2e/cmd/none up":                                                    "no package",
	} {
		err := v.check(simpleCommands(text)[0])
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// vocabulary is what may be called.
type vocabulary struct {
	makefile string
	programs map[string]program
	values   map[string]*schema // of charts, by their folder
}

// program is what its reference page says: commands in it, "" for itself, and their flags.
type program map[string][]string

// runnable stands among the flags of a command that does something by itself.
const runnable = "runnable"

func newVocabulary(t *testing.T) *vocabulary {
	t.Helper()
	read := func(path string) string {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	v := &vocabulary{makefile: read("Makefile"), programs: map[string]program{}, values: map[string]*schema{}}
	for _, name := range []string{"ebbtide", "ebbtide-scaler", "ebbtide-worker"} {
		v.programs[name] = readProgram(name, read("docs/reference/"+name+".md"))
	}
	charts, err := filepath.Glob(root + "/charts/*/values.schema.json")
	if err != nil || len(charts) == 0 {
		t.Fatalf("%v: %d charts with a schema of their values", err, len(charts))
	}
	for _, file := range charts {
		values := &schema{}
		if err := json.Unmarshal([]byte(read(file[len(root):])), values); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		v.values["charts/"+filepath.Base(filepath.Dir(file))] = values
	}
	return v
}

var flagRow = regexp.MustCompile("^\\| (?:`(-[a-zA-Z])`, )?`(--[a-z0-9-]+)` \\|")

// readProgram reads a program's reference page, which is made of its commands.
func readProgram(name, text string) program {
	p, at := program{}, ""
	for _, l := range parse("", text).lines {
		if h := heading.FindStringSubmatch(l.text); h != nil && !l.fenced {
			at = strings.TrimSpace(strings.TrimPrefix(h[1], name))
			p[at] = []string{"--help", "-h"}
		}
		if l.fenced && l.language == "" && strings.HasPrefix(l.text, strings.TrimSpace(name+" "+at)) {
			p[at] = append(p[at], runnable)
		}
		if f := flagRow.FindStringSubmatch(l.text); f != nil {
			p[at] = append(p[at], f[1], f[2])
		}
	}
	return p
}

// check says what a command calls that does not exist.
func (v *vocabulary) check(words []string) error {
	name, args := filepath.Base(words[0]), words[1:]
	switch {
	case name == "kubectl" && len(args) > 0 && args[0] == "ebbtide":
		return v.program("ebbtide", args[1:])
	case v.programs[name] != nil:
		return v.program(name, args)
	case name == "make":
		return v.make(args)
	case name == "helm":
		return v.helm(args)
	case name == "go":
		return golang(args)
	case name == "kubectl":
		return files(args, "-f", "--filename", "-k", "--kustomize")
	}
	return nil
}

var makeTarget = regexp.MustCompile(`(?m)^([a-z0-9-]+):`)

func (v *vocabulary) make(args []string) error {
	for _, arg := range args {
		if name, _, set := strings.Cut(arg, "="); set {
			if !strings.Contains(v.makefile, "$("+name+")") && !strings.Contains(v.makefile, "$(or $("+name) {
				return fmt.Errorf("the Makefile has no variable %s", name)
			}
			continue
		}
		if !slices.ContainsFunc(makeTarget.FindAllStringSubmatch(v.makefile, -1), func(m []string) bool { return m[1] == arg }) {
			return fmt.Errorf("the Makefile has no target %s", arg)
		}
	}
	return nil
}

func (v *vocabulary) program(name string, args []string) error {
	p, at := v.programs[name], ""
	for _, arg := range args {
		deeper := strings.TrimSpace(at + " " + arg)
		if p[deeper] == nil {
			break
		}
		at = deeper
	}
	if rest := args[len(strings.Fields(at)):]; !slices.Contains(p[at], runnable) && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return fmt.Errorf("%s has no command %s", strings.TrimSpace(name+" "+at), rest[0])
	}
	for _, arg := range args {
		if arg == "--" {
			break
		}
		flag, _, _ := strings.Cut(arg, "=")
		if strings.HasPrefix(arg, "-") && arg != "-" && !slices.Contains(p[at], flag) {
			return fmt.Errorf("%s has no flag %s", strings.TrimSpace(name+" "+at), flag)
		}
	}
	return files(args, "-f", "--filename", "--policy-dir")
}

func (v *vocabulary) helm(args []string) error {
	chart := ""
	for i, arg := range args {
		if i > 0 && slices.Contains([]string{"-f", "--values"}, args[i-1]) {
			continue // files of values may be in a chart's folder
		}
		if clean := filepath.Clean(arg); strings.HasPrefix(clean, "charts/") {
			if chart = clean; v.values[chart] == nil {
				return fmt.Errorf("there is no chart %s", chart)
			}
		}
	}
	if chart == "" {
		return nil
	}
	for i, arg := range args {
		if arg != "--set" && arg != "--set-string" || i+1 == len(args) {
			continue
		}
		for _, pair := range splitPairs(args[i+1]) {
			key, _, _ := strings.Cut(pair, "=")
			if err := v.values[chart].find(strings.Split(key, ".")); err != nil {
				return fmt.Errorf("%s: %w", chart, err)
			}
		}
	}
	return files(args, "-f", "--values")
}

// splitPairs splits the argument of --set at commas outside braces.
func splitPairs(text string) []string {
	depth := 0
	return strings.FieldsFunc(text, func(r rune) bool {
		switch r {
		case '{':
			depth++
		case '}':
			depth--
		}
		return r == ',' && depth == 0
	})
}

// schema is the part of a JSON Schema that says which fields there are.
type schema struct {
	Type                 any                `json:"type"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties any                `json:"additionalProperties"`
}

// find is nil when there is such a field. What an object's schema does not close may hold anything.
func (s *schema) find(path []string) error {
	name, _, _ := strings.Cut(path[0], "[")
	switch {
	case s.Type != "object":
		return fmt.Errorf("it has no fields, and so no %s", name)
	case s.Properties[name] == nil && s.AdditionalProperties == false:
		return fmt.Errorf("there is no value %s", name)
	case s.Properties[name] == nil || len(path) == 1:
		return nil
	}
	return s.Properties[name].find(path[1:])
}

var testFunction = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark|Example)?[A-Z][A-Za-z0-9]+`)

// golang checks the packages of go run, test and build, and the tests that they name.
func golang(args []string) error {
	for _, arg := range args {
		folder, all := strings.CutSuffix(arg, "/...")
		if !strings.HasPrefix(arg, "./") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, folder)); err != nil {
			return fmt.Errorf("there is no package %s", arg)
		}
		for _, flag := range []string{"-run", "-bench", "-fuzz"} {
			i := slices.Index(args, flag)
			if i < 0 || i+1 == len(args) || all {
				continue
			}
			for _, name := range testFunction.FindAllString(args[i+1], -1) {
				if !hasFunction(folder, name) {
					return fmt.Errorf("%s has no test with %s in its name", arg, name)
				}
			}
		}
	}
	return nil
}

func hasFunction(folder, part string) bool {
	tests, _ := filepath.Glob(filepath.Join(root, folder, "*_test.go")) // the pattern is well-formed
	pattern := regexp.MustCompile(`(?m)^func (Test|Fuzz|Benchmark|Example)?\w*` + part)
	return slices.ContainsFunc(tests, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && pattern.Match(text)
	})
}

var placeholder = regexp.MustCompile(`^[A-Z]+|[$*]|://|^/|^-$`)

// files checks that the files and folders of these flags exist, where they are in folders of this repository.
func files(args []string, flags ...string) error {
	var wrong []error
	for i, arg := range args {
		if !slices.Contains(flags, arg) || i+1 == len(args) || placeholder.MatchString(args[i+1]) || !strings.Contains(args[i+1], "/") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, args[i+1])); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: there is no %s", arg, args[i+1]))
		}
	}
	return errors.Join(wrong...)
}
