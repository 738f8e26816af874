// Package docs holds the documentation. Its tests check it: links lead somewhere, commands call what exists, YAML is valid, and the
// pictures are those that the code draws.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root of the repository, from here.
const root = ".."

// page is a Markdown file.
type page struct {
	path  string // from the root
	lines []line
}

// line of a page. Language and fenced are those of the block that it stands in, its fences excluded.
type line struct {
	number         int
	text, language string
	fenced         bool
}

// block is a fenced block.
type block struct {
	page     string
	number   int // of its first line
	language string
	text     string
}

var fence = regexp.MustCompile("^\\s*(```+|~~~+)\\s*([a-zA-Z0-9-]*)")

// pages are all Markdown files of the repository.
func pages(t *testing.T) []page {
	t.Helper()
	var found []page
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules" || entry.Name() == "testdata"):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		found = append(found, parse(name, string(text)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 20 {
		t.Fatalf("only %d pages", len(found))
	}
	return found
}

func parse(name, text string) page {
	p := page{path: name}
	open, language := "", ""
	for i, text := range strings.Split(text, "\n") {
		marks := fence.FindStringSubmatch(text)
		switch {
		case open == "" && marks != nil:
			open, language = marks[1], marks[2]
		case open != "" && marks != nil && strings.HasPrefix(marks[1], open) && marks[2] == "":
			open, language = "", ""
		default:
			p.lines = append(p.lines, line{i + 1, text, language, open != ""})
		}
	}
	return p
}

// blocks of a page.
func (p page) blocks() []block {
	var found []block
	for i, l := range p.lines {
		if !l.fenced {
			continue
		}
		if i == 0 || p.lines[i-1].number != l.number-1 {
			found = append(found, block{page: p.path, number: l.number, language: l.language})
		}
		found[len(found)-1].text += l.text + "\n"
	}
	return found
}

func TestBlocks(t *testing.T) {
	got := parse("x.md", "a\n```yaml\nb: 1\n```\n\n  ```sh\n  ls\n  ```\n").blocks()
	if len(got) != 2 || got[0].language != "yaml" || got[0].text != "b: 1\n" || got[1].number != 7 || got[1].language != "sh" {
		t.Errorf("%+v", got)
	}
}
