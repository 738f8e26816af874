// Package report makes a page of what came of simulations: one HTML file with everything in it, plots as SVG, no scripts, for light and
// dark.
package report

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

//go:embed report.html
var files embed.FS

// Run is one simulation.
type Run struct {
	Name string
	// Ours is one of Ebbtide's; Front one that no other beats.
	Ours, Front bool
	simulator.Outcome
}

// Plots are a run's pictures, in a time zone.
func (r Run) Plots(zone *time.Location) []Plot {
	s := r.Series
	x := axis{start: s.Start.In(zone), step: time.Duration(s.StepSeconds * float64(time.Second)), count: len(s.Nodes)}
	arrivals := make([]float64, len(s.Arrivals))
	for i, n := range s.Arrivals {
		arrivals[i] = float64(n) * 60 / s.StepSeconds
	}
	plots := []Plot{
		plot("Arrivals", "messages a minute", x, line{"arrivals", "a", arrivals}),
		plot("Backlog", "messages that wait", x, line{"backlog", "a", s.Backlog}),
		plot("Jobs", "how many", x, line{"target", "a", s.Target}, line{"pods", "b", s.Pods}, line{"pods at work", "c", s.Busy}),
	}
	var shares []line
	for i, c := range sizing.Constraints {
		if slices.Max(s.Constraints[c]) > 0 {
			shares = append(shares, line{string(c), constraintClasses[i], s.Constraints[c]})
		}
	}
	return append(plots, bands("What decides the target", "share of the time", x, shares...),
		plot("Nodes", "how many; the bound is the fewest for these pods", x, line{"nodes", "a", s.Nodes}, line{"bound", "c", s.Bound}),
		plot("Waits", "seconds that this share of the messages does not exceed", axis{count: len(s.WaitQuantiles)}, line{"wait", "a", s.WaitQuantiles}))
}

// constraintClasses are the colours of sizing.Constraints, in their order.
var constraintClasses = [len(sizing.Constraints)]string{"a", "c", "b", "d", "e", "f", "g", "h"}

// Week is what nodes cost by hour of the week, in a time zone; how many there are where they have no price.
type Week struct {
	Unit string
	// Hours are rows of days from Monday on.
	Hours [7][24]Cell
}

// Cell is an hour of the week: its mean, and that as a share of the highest.
type Cell struct{ Mean, Share float64 }

// Week of the run.
func (r Run) Week(zone *time.Location) Week {
	week, values := Week{Unit: "price of an hour's nodes"}, r.Series.Price
	if slices.Max(values) == 0 {
		week.Unit, values = "nodes", r.Series.Nodes
	}
	var sum, count [7][24]float64
	for i, v := range values {
		at := r.Series.Start.Add(time.Duration(float64(i) * r.Series.StepSeconds * float64(time.Second))).In(zone)
		day := (int(at.Weekday()) + 6) % 7
		sum[day][at.Hour()] += v
		count[day][at.Hour()]++
	}
	highest := 0.0
	for d := range sum {
		for h := range sum[d] {
			week.Hours[d][h].Mean = sum[d][h] / max(1, count[d][h])
			highest = max(highest, week.Hours[d][h].Mean)
		}
	}
	for d := range week.Hours {
		for h := range week.Hours[d] {
			week.Hours[d][h].Share = math.Round(100*week.Hours[d][h].Mean/max(highest, 1e-9)) / 100
		}
	}
	return week
}

// Write writes the page, with times in a zone. There is at least one run, with its series.
func Write(w io.Writer, runs []Run, zone *time.Location) error {
	page, err := template.New("report.html").Funcs(template.FuncMap{
		"number": func(i int) int { return i + 1 },
		"day":    func(i int) string { return [...]string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}[i] },
		"wait": func(seconds float64) string {
			return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
		},
		"per": func(a, b int) string { return fmt.Sprintf("%.3f", float64(a)/float64(max(1, b))) },
	}).ParseFS(files, "report.html")
	if err != nil {
		return err
	}
	return page.Execute(w, struct {
		Runs  []Run
		Front Plot
		Zone  *time.Location
	}{runs, front(runs), zone})
}

// Overlay draws what was seen over what was simulated, as a picture of its own for light and dark.
func Overlay(title, unit string, start time.Time, step time.Duration, seen, simulated []float64) string {
	p := plot(title, unit, axis{start, step, max(len(seen), len(simulated))}, line{"seen", "a", seen}, line{"simulated", "b", simulated})
	const style = `<style>text{font:11px system-ui,sans-serif;fill:#5d6b7a}text.y{text-anchor:end}.grid{stroke:#dfe5ea}polyline{fill:none;` +
		`stroke-width:1.5}.a{stroke:#0b6bcb}.b{stroke:#d9730d}@media (prefers-color-scheme:dark){text{fill:#98a6b5}.grid{stroke:#2c3742}}</style>`
	head, rest, _ := strings.Cut(string(p.SVG), ">")
	return strings.Replace(head, "<svg", `<svg xmlns="http://www.w3.org/2000/svg"`, 1) + ">" + style + rest + "\n"
}

// Plot is a picture; SVG is safe, as it is made of numbers and of texts that were escaped.
type Plot struct {
	Title, Unit string
	SVG         template.HTML
	Legend      []Legend
}

// Legend is what a colour means.
type Legend struct{ Class, Name string }

type line struct {
	name, class string
	values      []float64
}

// axis of time; of percentiles when it has no step.
type axis struct {
	start time.Time
	step  time.Duration
	count int
}

func (x axis) at(i float64) float64 { return left + i/float64(max(1, x.count-1))*(width-left-right) }

// draw draws the axis, ten marks or so.
func (x axis) draw(svg *strings.Builder) {
	mark := func(i float64, label string) {
		const widest = 36.0 // label
		if at := x.at(i); at >= left && at < width-right-widest {
			fmt.Fprintf(svg, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.0f" y2="%.0f"/><text x="%.1f" y="%.0f">%s</text>`,
				at, at, top, height-bottom, at+3, height-6, label)
		}
	}
	if x.step == 0 {
		for p := 0; p < 100; p += 10 {
			mark(float64(p), fmt.Sprintf("%d%%", p))
		}
		mark(95, "95%")
		return
	}
	length := time.Duration(x.count) * x.step
	every, days, format := ticks(length)
	year, month, day := x.start.Date()
	for t := time.Date(year, month, day, 0, 0, 0, 0, x.start.Location()); t.Before(x.start.Add(length)); t = t.AddDate(0, 0, days).Add(every) {
		mark(float64(t.Sub(x.start))/float64(x.step), t.Format(format))
	}
}

const (
	width, height            = 900.0, 180.0
	left, right, top, bottom = 52.0, 8.0, 8.0, 22.0
)

// plot draws lines over time.
func plot(title, unit string, x axis, lines ...line) Plot {
	p := Plot{Title: title, Unit: unit}
	highest := 0.0
	for _, l := range lines {
		for _, v := range l.values {
			highest = max(highest, v)
		}
	}
	highest = round(highest)
	svg := begin(title, unit)
	scaleY(svg, highest)
	x.draw(svg)
	for _, l := range lines {
		fmt.Fprintf(svg, `<polyline class="%s" points="`, l.class)
		for i, v := range l.values {
			fmt.Fprintf(svg, "%.1f,%.1f ", x.at(float64(i)), atY(v, highest))
		}
		fmt.Fprintf(svg, `"><title>%s</title></polyline>`, template.HTMLEscapeString(l.name))
		p.Legend = append(p.Legend, Legend{l.class, l.name})
	}
	p.end(svg)
	return p
}

// bands draws shares of one over time, each on top of those before.
func bands(title, unit string, x axis, shares ...line) Plot {
	p := Plot{Title: title, Unit: unit}
	svg := begin(title, unit)
	scaleY(svg, 1)
	x.draw(svg)
	below := make([]float64, x.count)
	for _, s := range shares {
		fmt.Fprintf(svg, `<polygon class="%s" points="`, s.class)
		for i, v := range below {
			fmt.Fprintf(svg, "%.1f,%.1f ", x.at(float64(i)), atY(v, 1))
		}
		for i := x.count - 1; i >= 0; i-- {
			below[i] += s.values[i]
			fmt.Fprintf(svg, "%.1f,%.1f ", x.at(float64(i)), atY(min(1, below[i]), 1))
		}
		fmt.Fprintf(svg, `"><title>%s</title></polygon>`, template.HTMLEscapeString(s.name))
		p.Legend = append(p.Legend, Legend{s.class, s.name})
	}
	p.end(svg)
	return p
}

func begin(title, unit string) *strings.Builder {
	var svg strings.Builder
	fmt.Fprintf(&svg, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s, %s">`, width, height, title, unit)
	return &svg
}

func (p *Plot) end(svg *strings.Builder) {
	svg.WriteString("</svg>")
	p.SVG = template.HTML(svg.String()) //nolint:gosec // numbers, and names that were escaped
}

func atY(v, highest float64) float64 { return height - bottom - v/highest*(height-top-bottom) }

func scaleY(svg *strings.Builder, highest float64) {
	for i := range 5 {
		v := highest * float64(i) / 4
		fmt.Fprintf(svg, `<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/><text class="y" x="%.0f" y="%.1f">%s</text>`,
			left, width-right, atY(v, highest), atY(v, highest), left-5, atY(v, highest)+4, short(v))
	}
}

// round to what an axis ends with: 1, 2 or 5 times a power of ten.
func round(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*power {
			return m * power
		}
	}
	return 10 * power
}

func short(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.3gk", v/1000)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

// ticks of a time axis, ten or so: every so many days or so long.
func ticks(length time.Duration) (every time.Duration, days int, format string) {
	for _, t := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour} {
		if length/t <= 12 {
			return t, 0, "15:04"
		}
	}
	for _, days := range []int{1, 2, 7, 28} {
		if int(length.Hours()/24)/days <= 12 {
			return 0, days, "2 Jan"
		}
	}
	return 0, 91, "Jan 2006"
}

// front draws p95 waits against node-hours.
func front(runs []Run) Plot {
	p := Plot{Title: "Wait against node-hours", Unit: "p95 wait in seconds, up; node-hours, right"}
	hours, waits := 0.0, 0.0
	for _, r := range runs {
		hours, waits = max(hours, r.NodeHours), max(waits, r.Wait.P95)
	}
	hours, waits = round(hours), round(waits)
	svg := begin(p.Title, p.Unit)
	scaleY(svg, waits)
	for i := 1; i < 5; i++ {
		v := hours * float64(i) / 4
		at := left + v/hours*(width-left-right)
		fmt.Fprintf(svg, `<text class="y" x="%.1f" y="%.0f">%s</text>`, at, height-6, short(v))
	}
	type label struct {
		x, y float64
		text string
	}
	var labels []label // points that hide each other share one
	for i, r := range runs {
		class := "b"
		if r.Ours {
			class = "a"
		}
		x, y := left+r.NodeHours/hours*(width-left-right), atY(r.Wait.P95, waits)
		fmt.Fprintf(svg, `<circle class="%s" cx="%.1f" cy="%.1f" r="5"><title>%s: %.0f node-hours, %.0f s</title></circle>`,
			class, x, y, template.HTMLEscapeString(r.Name), r.NodeHours, r.Wait.P95)
		hidden := slices.IndexFunc(labels, func(l label) bool { return math.Abs(l.x-x) < 14 && math.Abs(l.y-y) < 14 })
		if hidden < 0 {
			labels = append(labels, label{x, y, strconv.Itoa(i + 1)})
		} else {
			labels[hidden].text += " " + strconv.Itoa(i+1)
		}
	}
	for _, l := range labels {
		fmt.Fprintf(svg, `<text class="y" x="%.1f" y="%.1f">%s</text>`, l.x-7, l.y-6, l.text)
	}
	p.end(svg)
	p.Legend = []Legend{{"a", "Ebbtide"}, {"b", "others"}}
	return p
}
