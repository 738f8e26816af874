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

	number int
}

// sharedPoints are how many points the lines of a plot have at most, and detailPoints those in the folded details of each run: a page stays below 1 MB.
const sharedPoints, detailPoints = 480, 200

// thin is means over neighbours, so that no more than so many are left.
func thin(values []float64, most int) []float64 {
	every := (len(values) + most - 1) / most
	if every <= 1 {
		return values
	}
	thinned := make([]float64, 0, most)
	for part := range slices.Chunk(values, every) {
		sum := 0.0
		for _, v := range part {
			sum += v
		}
		thinned = append(thinned, sum/float64(len(part)))
	}
	return thinned
}

// axisOf a run's series of no more than so many points.
func (r *Run) axisOf(zone *time.Location, most int) axis {
	s := &r.Series
	every := (len(s.Nodes) + most - 1) / most
	return axis{
		start: s.Start.In(zone), step: time.Duration(float64(max(1, every)) * s.StepSeconds * float64(time.Second)), count: len(thin(s.Nodes, most)),
	}
}

// mostLines is how many runs are drawn over each other; there are no more colours that can be told apart.
const mostLines = 6

// shared are plots of runs over each other: of all, or of Ebbtide's, the best of the others and more until there are mostLines.
func shared(runs []Run, zone *time.Location) []Plot {
	drawn := slices.Clone(runs)
	for i := range drawn {
		drawn[i].number = i + 1
	}
	slices.SortStableFunc(drawn, func(a, b Run) int { return rank(&b) - rank(&a) })
	drawn = drawn[:min(len(drawn), mostLines)]
	slices.SortStableFunc(drawn, func(a, b Run) int { return a.number - b.number })
	x := drawn[0].axisOf(zone, sharedPoints)
	arrivals := make([]float64, len(drawn[0].Series.Arrivals))
	for i, n := range drawn[0].Series.Arrivals {
		arrivals[i] = float64(n) * 60 / drawn[0].Series.StepSeconds
	}
	plots := []Plot{plot("Arrivals", "messages a minute", x, line{"all alike", "f", thin(arrivals, sharedPoints)})}
	over := func(title, unit string, x axis, of func(*Run) []float64) {
		var lines []line
		for i := range drawn {
			lines = append(lines, line{drawn[i].Name, runClasses[i], of(&drawn[i])})
		}
		plots = append(plots, plot(title, unit, x, lines...))
	}
	over("Nodes", "how many", x, func(r *Run) []float64 { return thin(r.Series.Nodes, sharedPoints) })
	over("Waiting messages", "how many", x, func(r *Run) []float64 { return thin(r.Series.Backlog, sharedPoints) })
	over("Pods", "how many", x, func(r *Run) []float64 { return thin(r.Series.Pods, sharedPoints) })
	over("Waits", "seconds that this share of the messages does not exceed", axis{count: len(drawn[0].Series.WaitQuantiles)}, func(r *Run) []float64 { return r.Series.WaitQuantiles })
	return plots
}

// rank says which runs are drawn first.
func rank(r *Run) int {
	n := 0
	if r.Front {
		n += 2
	}
	if r.Ours {
		n++
	}
	return n
}

// runClasses are the colours of runs over each other.
var runClasses = [mostLines]string{"b", "d", "a", "c", "e", "g"}

// Plots are a run's own pictures, in a time zone.
func (r Run) Plots(zone *time.Location) []Plot {
	s := r.Series
	x := r.axisOf(zone, detailPoints)
	of := func(values []float64) []float64 { return thin(values, detailPoints) }
	var shares []line
	for i, c := range sizing.Constraints {
		if slices.Max(s.Constraints[c]) > 0 {
			shares = append(shares, line{string(c), constraintClasses[i], of(s.Constraints[c])})
		}
	}
	return []Plot{
		plot("Jobs", "how many", x, line{"target", "a", of(s.Target)}, line{"pods", "b", of(s.Pods)}, line{"pods at work", "c", of(s.Busy)}),
		bands("What decides the target", "share of the time", x, shares...),
		plot("Nodes", "how many; the bound is the fewest for these pods", x, line{"nodes", "a", of(s.Nodes)}, line{"bound", "c", of(s.Bound)}),
	}
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

// page is what the template shows.
type page struct {
	Title, Sentence string
	Runs            []Run
	Front           Plot
	Shared          []Plot
	Zone            *time.Location
	// of a recommendation
	Rows      []Row
	Decisions []DecisionRow
	Calendars []Picture
	Notes     []string
}

// Row of a recommendation's table.
type Row struct {
	Name, Configuration, Cost, P50, P95, P99, Mean, Idle string
	Ours                                                 bool
}

// DecisionRow is a decision, and how much it is worth as a share of the largest.
type DecisionRow struct {
	Lever, Today, Recommended, Without, Change string
	Share                                      float64
}

// Picture with a title.
type Picture struct {
	Title string
	SVG   template.HTML
}

// Write writes the page, with times in a zone. There is at least one run, with its series.
func Write(w io.Writer, runs []Run, zone *time.Location) error {
	return (&page{Title: "What policies would have done", Sentence: sentence(runs), Runs: runs, Zone: zone}).write(w)
}

// sentence says what a reader wants to know first.
func sentence(runs []Run) string {
	cost, unit := costs(runs)
	cheapest, quickest := &runs[0], &runs[0]
	for i := range runs {
		r := &runs[i]
		if cost(r) < cost(cheapest) {
			cheapest = r
		}
		if r.Wait.P95 < quickest.Wait.P95 {
			quickest = r
		}
	}
	of := func(r *Run) string {
		return fmt.Sprintf("%s %s, p95 wait %s", short(cost(r)), unit, seconds(r.Wait.P95))
	}
	if len(runs) == 1 {
		return fmt.Sprintf("%s: %s.", runs[0].Name, of(&runs[0]))
	}
	if cheapest == quickest {
		return fmt.Sprintf("%s is the cheapest and the quickest: %s.", cheapest.Name, of(cheapest))
	}
	return fmt.Sprintf("%s is the cheapest: %s. %s is the quickest: %s.", cheapest.Name, of(cheapest), quickest.Name, of(quickest))
}

// costs are what runs are compared by: their cost, or their node-hours where nodes have no price.
func costs(runs []Run) (of func(*Run) float64, unit string) {
	for i := range runs {
		if runs[i].Cost == 0 {
			return func(r *Run) float64 { return r.NodeHours }, "node-hours"
		}
	}
	return func(r *Run) float64 { return r.Cost }, "cost"
}

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

func (p *page) write(w io.Writer) error {
	if len(p.Runs) > 1 {
		p.Front = front(p.Runs)
	}
	p.Shared = shared(p.Runs, p.Zone)
	text, err := template.New("report.html").Funcs(template.FuncMap{
		"number": func(i int) int { return i + 1 },
		"day":    func(i int) string { return [...]string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}[i] },
		"wait":   seconds,
		"per":    func(a, b int) string { return fmt.Sprintf("%.3f", float64(a)/float64(max(1, b))) },
	}).ParseFS(files, "report.html")
	if err != nil {
		return err
	}
	return text.Execute(w, p)
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

// front draws p95 waits against cost, with every configuration's name beside its point. Axes fit the data.
func front(runs []Run) Plot {
	const width, height, left, right, top, bottom = 900.0, 360.0, 60.0, 16.0, 14.0, 40.0
	of, unit := costs(runs)
	p := Plot{Title: "Cost against wait", Unit: "p95 wait in seconds, up; " + unit + ", right: best is down and left"}
	var xs, ys []float64
	for i := range runs {
		xs, ys = append(xs, of(&runs[i])), append(ys, runs[i].Wait.P95)
	}
	xMarks, yMarks := scaleOf(xs), scaleOf(ys)
	atX := func(v float64) float64 { return left + xMarks.share(v)*(width-left-right) }
	atY := func(v float64) float64 { return height - bottom - yMarks.share(v)*(height-top-bottom) }
	var svg strings.Builder
	fmt.Fprintf(&svg, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s, %s">`, width, height, p.Title, p.Unit)
	for _, v := range yMarks.marks {
		fmt.Fprintf(&svg, `<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/><text class="y" x="%.0f" y="%.1f">%s</text>`,
			left, width-right, atY(v), atY(v), left-6, max(12, atY(v)+4), short(v))
	}
	for i, v := range xMarks.marks {
		anchor := "middle"
		if i == len(xMarks.marks)-1 {
			anchor = "end"
		}
		fmt.Fprintf(&svg, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.0f" y2="%.0f"/><text text-anchor="%s" x="%.1f" y="%.0f">%s</text>`,
			atX(v), atX(v), top, height-bottom, anchor, atX(v), height-bottom+16, short(v))
	}
	fmt.Fprintf(&svg, `<text text-anchor="end" x="%.0f" y="%.0f">%s</text>`, width-right, height-6, unit)
	var taken []box
	for i := range runs {
		taken = append(taken, box{atX(xs[i]) - 6, atY(ys[i]) - 6, atX(xs[i]) + 6, atY(ys[i]) + 6})
	}
	for i := range runs {
		r, class, x, y := &runs[i], "b", atX(xs[i]), atY(ys[i])
		if r.Ours {
			class = "a"
		}
		fmt.Fprintf(&svg, `<circle class="%s" cx="%.1f" cy="%.1f" r="5"><title>%s: %s %s, %.0f s</title></circle>`,
			class, x, y, template.HTMLEscapeString(r.Name), short(xs[i]), unit, ys[i])
		label := brief(r.Name)
		b := place(label, x, y, box{left, top, width - right, height - bottom}, taken)
		taken = append(taken, b)
		if math.Abs(b.y0-y) > 16 || b.x0-x > 16 || x-b.x1 > 16 { // far from its point
			fmt.Fprintf(&svg, `<line class="lead" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, x, y, min(max(x, b.x0), b.x1), min(max(y, b.y0), b.y1))
		}
		fmt.Fprintf(&svg, `<text class="label" x="%.1f" y="%.1f">%s</text>`, b.x0, b.y1-3, template.HTMLEscapeString(label))
	}
	p.end(&svg)
	p.Legend = []Legend{{"a", "Ebbtide"}, {"b", "others"}}
	return p
}

// box of a label or a point.
type box struct{ x0, y0, x1, y1 float64 }

func (b box) overlaps(o box) bool { return b.x0 < o.x1 && o.x0 < b.x1 && b.y0 < o.y1 && o.y0 < b.y1 }

// place finds room for a label near a point, within a frame and where nothing is.
func place(label string, x, y float64, frame box, taken []box) box {
	const letter, high = 6.9, 14.0 // of 11px; wide enough for most fonts
	wide := letter * float64(len([]rune(label)))
	var first box
	for n := range 60 { // right, left, then lines above and below in turn
		step := float64((n/2+1)/2) * high
		if n/2%2 == 1 {
			step = -step
		}
		b := box{x + 9, y - high/2 + step, x + 9 + wide, y + high/2 + step}
		if n%2 == 1 {
			b.x0, b.x1 = x-9-wide, x-9
		}
		if n == 0 {
			first = b
		}
		if b.x0 >= frame.x0 && b.x1 <= frame.x1 && b.y0 >= frame.y0 && b.y1 <= frame.y1 && !slices.ContainsFunc(taken, b.overlaps) {
			return b
		}
	}
	first.x0, first.x1 = first.x0-max(0, first.x1-frame.x1), min(first.x1, frame.x1)
	return first
}

// brief is a name that fits beside a point.
func brief(name string) string {
	const most = 40
	text := []rune(strings.TrimPrefix(name, "keda rabbitmq "))
	if len(text) > most {
		text = append(text[:most-1], '…')
	}
	return string(text)
}

// scale of an axis that fits values.
type scale struct {
	marks []float64
	log   bool
}

// share of the axis at which a value is.
func (s *scale) share(v float64) float64 {
	first, last := s.marks[0], s.marks[len(s.marks)-1]
	if s.log {
		return math.Log(v/first) / math.Log(last/first)
	}
	return (v - first) / (last - first)
}

// scaleOf values has marks of 1, 2 or 5 times a power of ten, from below the least to above the highest. It is logarithmic where some are many times as
// large as others, so that one that is far off does not push all others into a corner.
func scaleOf(values []float64) *scale {
	const far = 4
	low, high := slices.Min(values), slices.Max(values)
	if low > 0 && high/low > far {
		s := &scale{log: true}
		for power := math.Pow(10, math.Floor(math.Log10(low))); ; power *= 10 {
			for _, m := range []float64{1, 2, 5} {
				if v := m * power; 2.5*v > low {
					if s.marks = append(s.marks, v); v >= high {
						return s
					}
				}
			}
		}
	}
	if high-low < 1e-9*max(1, math.Abs(high)) {
		low, high = low-max(1, 0.1*low), high+max(1, 0.1*high)
	}
	step := round((high - low) / 6)
	from := math.Floor(low/step-0.15) * step
	if low >= 0 {
		from = max(0, from)
	}
	s := &scale{}
	for v := from; ; v += step {
		if s.marks = append(s.marks, v); v >= high+0.15*step {
			return s
		}
	}
}
