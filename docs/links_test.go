package docs

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

var (
	inlineCode = regexp.MustCompile("`[^`]*`")
	// Of a Markdown link or picture, and of the HTML that GitHub takes.
	linkTarget = regexp.MustCompile(`\]\(([^()\s]+(?:\([^()\s]*\))?)(?:\s+"[^"]*")?\)|(?:href|src|srcset)="([^"]+)"`)
	heading    = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*$`)
	setAnchor  = regexp.MustCompile(`<a (?:name|id)="([^"]+)"`)
	markup     = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// hosts that pages link to. Links to them can't be followed here: look at a new one in a browser.
var hosts = []string{"cert-manager.io", "github.com", "karpenter.sh", "keda.sh", "keepachangelog.com", "kind.sigs.k8s.io", "kubernetes.io", "prometheus.io", "semver.org"}

// Links lead to files and headings that exist.
func TestLinks(t *testing.T) {
	anchors := map[string][]string{}
	all := pages(t)
	for _, p := range all {
		anchors[p.path] = p.anchors()
	}
	for _, p := range all {
		for _, l := range p.lines {
			if l.fenced {
				continue
			}
			for _, found := range linkTarget.FindAllStringSubmatch(inlineCode.ReplaceAllString(l.text, "``"), -1) {
				link := found[1] + found[2]
				to, err := url.Parse(link)
				if err != nil {
					t.Errorf("%s:%d: %v", p.path, l.number, err)
					continue
				}
				if to.Host != "" {
					if !slices.Contains(hosts, to.Host) {
						t.Errorf("%s:%d: %s: look whether the page is there, then add its host to the test", p.path, l.number, link)
					}
					continue
				}
				target := p.path
				if to.Path != "" {
					target = filepath.Join(filepath.Dir(p.path), to.Path)
				}
				if _, err := os.Stat(filepath.Join(root, target)); err != nil {
					t.Errorf("%s:%d: %s: there is no %s", p.path, l.number, link, target)
				} else if to.Fragment != "" && !slices.Contains(anchors[target], to.Fragment) {
					t.Errorf("%s:%d: %s: %s has no heading for it, but %s", p.path, l.number, link, target, strings.Join(anchors[target], ", "))
				}
			}
		}
	}
}

// anchors are those that GitHub gives to the headings of a page.
func (p page) anchors() []string {
	var found []string
	for _, l := range p.lines {
		if l.fenced {
			continue
		}
		for _, a := range setAnchor.FindAllStringSubmatch(l.text, -1) {
			found = append(found, a[1])
		}
		h := heading.FindStringSubmatch(l.text)
		if h == nil {
			continue
		}
		var slug strings.Builder
		for _, r := range strings.ToLower(markup.ReplaceAllString(h[1], "$1")) {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				slug.WriteRune(r)
			case r == ' ':
				slug.WriteByte('-')
			}
		}
		found = append(found, slug.String())
	}
	return found
}

var pageName = regexp.MustCompile(`\b(docs/[A-Za-z0-9/-]+\.md)(#[a-z0-9-]+)?`)

// Pages that code, charts and manifests name are there: alerts and findings lead to them.
func TestPagesThatCodeNames(t *testing.T) {
	anchors := map[string][]string{}
	for _, p := range pages(t) {
		anchors[p.path] = p.anchors()
	}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".go", ".yaml", ".yml", ".tpl", ".txt", ".json":
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range pageName.FindAllStringSubmatch(string(text), -1) {
			headings, exists := anchors[found[1]]
			if !exists {
				t.Errorf("%s names %s, which is not there", path, found[1])
			} else if a := strings.TrimPrefix(found[2], "#"); a != "" && !slices.Contains(headings, a) {
				t.Errorf("%s names %s%s: the page has no such heading", path, found[1], found[2])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every page is reached from the index, the README or a page that is.
func TestEveryPageIsReached(t *testing.T) {
	links := map[string][]string{}
	var all []string
	for _, p := range pages(t) {
		if strings.HasPrefix(p.path, "docs/") {
			all = append(all, p.path)
		}
		for _, l := range p.lines {
			for _, found := range linkTarget.FindAllStringSubmatch(l.text, -1) {
				to, _, _ := strings.Cut(found[1]+found[2], "#")
				links[p.path] = append(links[p.path], filepath.Join(filepath.Dir(p.path), to))
			}
		}
	}
	reached := map[string]bool{}
	var visit func(string)
	visit = func(path string) {
		if !reached[path] {
			reached[path] = true
			for _, to := range links[path] {
				visit(to)
			}
		}
	}
	visit("docs/README.md")
	for _, path := range all {
		if !reached[path] {
			t.Errorf("nothing leads from docs/README.md to %s", path)
		}
	}
}

func TestAnchors(t *testing.T) {
	got := parse("x.md", "# What `ebbtide doctor` looks for\n```\n# no\n```\n## [A](b.md), b & c: d\n<a id=\"e\"></a>").anchors()
	if want := []string{"what-ebbtide-doctor-looks-for", "a-b--c-d", "e"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
