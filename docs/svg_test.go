package docs

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebbtide-dev/ebbtide/internal/doctable"
)

// canvas is a picture that follows the viewer's light or dark. Colours are classes: a to d for what is told apart, g for what only
// takes time, with fill; la to ld are lines of them.
type canvas struct {
	strings.Builder
	width, height float64
}

const style = `<style>
text{fill:#1f2933;font:13px system-ui,sans-serif}text.s{fill:#5d6b7a;font-size:12px}text.h{font-weight:600}text.i{fill:#fff}
text.m{text-anchor:middle}text.e{text-anchor:end}
.bg{fill:#fff}.grid{stroke:#dfe5ea}.a{fill:#0b6bcb}.b{fill:#d9730d}.c{fill:#2e8540}.d{fill:#8a4fbf}.g{fill:#9aa7b4}.p{fill:#e8eef4}
.la{stroke:#0b6bcb}.lb{stroke:#d9730d}.lc{stroke:#2e8540}.ld{stroke:#8a4fbf}.lg{stroke:#5d6b7a}.l{fill:none;stroke-width:2}.dash{stroke-dasharray:5 4}
.hatch{fill:url(#hatch)}.hatch-line{stroke:#c5221f}.w{fill:#c5221f}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}text.s{fill:#98a6b5}text.i{fill:#0d1117}
.bg{fill:#0d1117}.grid{stroke:#2c3742}.a{fill:#5aa9f7}.b{fill:#f0a04b}.c{fill:#6fc27f}.d{fill:#c39be8}.g{fill:#5d6b7a}.p{fill:#1d2733}
.la{stroke:#5aa9f7}.lb{stroke:#f0a04b}.lc{stroke:#6fc27f}.ld{stroke:#c39be8}.lg{stroke:#98a6b5}.hatch-line{stroke:#ff8a80}.w{fill:#ff8a80}}
</style>
<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line class="hatch-line" x1="3" x2="3" y1="0" y2="6" stroke-width="3"/></pattern></defs>
`

// newCanvas begins a picture with what it shows in a sentence, for those who can't see it.
func newCanvas(height float64, description string) *canvas {
	const width = 900.0
	c := &canvas{width: width, height: height}
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img"><title>%s</title>`, width, height, html.EscapeString(description))
	c.WriteString("\n" + style)
	c.add(`<rect class="bg" width="%.0f" height="%.0f" rx="8"/>`+"\n", width, height)
	return c
}

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(&c.Builder, format, args...) }

func (c *canvas) text(x, y float64, class, format string, args ...any) {
	c.add(`<text x="%.1f" y="%.1f"`, x, y)
	if class != "" {
		c.add(` class="%s"`, class)
	}
	c.add(">%s</text>\n", html.EscapeString(fmt.Sprintf(format, args...)))
}

func (c *canvas) rect(x, y, width, height float64, class string) {
	c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" class="%s"/>`+"\n", x, y, width, height, class)
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

// point of a curve.
type point struct{ x, y float64 }

// curve through points; a step curve keeps a value until the next point.
func (c *canvas) curve(points []point, step bool, class string) {
	c.add(`<polyline class="l %s" points="`, class)
	for i, p := range points {
		if step && i > 0 {
			if p.y == points[i-1].y && i+1 < len(points) {
				continue
			}
			c.add("%.1f,%.1f ", p.x, points[i-1].y)
		}
		c.add("%.1f,%.1f ", p.x, p.y)
	}
	c.add("\"/>\n")
}

// check ends the picture and compares it with its file.
func (c *canvas) check(t *testing.T, name string) {
	t.Helper()
	c.add("</svg>\n")
	doctable.CheckFile(t, filepath.Join("pictures", name), c.String())
}

// Every picture is XML, drawn for light and dark, says what it shows, and stands in a page.
func TestPictures(t *testing.T) {
	pictures, err := filepath.Glob("pictures/*.svg")
	if err != nil || len(pictures) < 5 {
		t.Fatalf("%v: %d pictures", err, len(pictures))
	}
	var text strings.Builder
	for _, p := range pages(t) {
		for _, l := range p.lines {
			text.WriteString(l.text + "\n")
		}
	}
	for _, name := range pictures {
		svg, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		decoder := xml.NewDecoder(strings.NewReader(string(svg)))
		for err == nil {
			_, err = decoder.Token()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range []string{"prefers-color-scheme", "<title>", `role="img"`} {
			if !strings.Contains(string(svg), want) {
				t.Errorf("%s lacks %s", name, want)
			}
		}
		if !strings.Contains(text.String(), "/"+name+")") {
			t.Errorf("%s is in no page", name)
		}
	}
}
