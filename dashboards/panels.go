package dashboards

import (
	"iter"

	"k8s.io/utils/ptr"
)

// prometheus is the data source that a person chooses.
var prometheus = source{Type: "prometheus", UID: "${datasource}"}

// change makes a panel differ from the kind that it is of.
type change func(*Panel)

func newPanel(kind, title, description string, width, height int, custom, options any, changes []change) *Panel {
	p := &Panel{
		Type: kind, Title: title, Description: description, Source: prometheus, GridPos: gridPos{W: width, H: height}, Options: options,
		FieldConfig: fieldConfig{Defaults: field{Color: color{Mode: "palette-classic"}, Custom: custom}, Overrides: []override{}},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

// graph draws lines over time.
func graph(title, description string, width int, changes ...change) *Panel {
	return newPanel("timeseries", title, description, width, 8,
		&timeseriesField{
			DrawStyle: "line", LineWidth: 2, LineInterpolation: "stepAfter", FillOpacity: 8, ShowPoints: "never",
			Stacking: stacking{Mode: "none", Group: "A"},
		},
		&timeseriesOptions{
			Legend:  legend{DisplayMode: "list", Placement: "bottom", ShowLegend: true, Calcs: []string{}},
			Tooltip: tooltip{Mode: "multi", Sort: "desc"},
		}, changes)
}

// stat shows one number, and how it came to be in the background.
func stat(title, description string, changes ...change) *Panel {
	return newPanel("stat", title, description, 4, 4, nil, &statOptions{
		ColorMode: "value", GraphMode: "area", JustifyMode: "auto", TextMode: "auto", WideLayout: true, Orientation: "auto",
		ReduceOptions: reduceOptions{Calcs: []string{"lastNotNull"}}, PercentChangeColorMode: "standard",
	}, append([]change{steps("text"), noValue("no data")}, changes...))
}

// timeline draws a band for each series, colored and labeled by value.
func timeline(title, description string, width, height int, changes ...change) *Panel {
	return newPanel("state-timeline", title, description, width, height, &timelineField{FillOpacity: 80}, &timelineOptions{
		Legend: legend{DisplayMode: "list", Placement: "bottom", Calcs: []string{}}, Tooltip: tooltip{Mode: "single", Sort: "none"},
		AlignValue: "left", MergeValues: true, RowHeight: 0.85, ShowValue: "auto",
	}, changes)
}

// week is a table of the days and hours of the week, the darker the more. Its query has a series for each, with the labels day (0 is
// Monday), hour (00 to 23), and slot, by which they sort.
func week(title, description string, changes ...change) *Panel {
	days := map[string]result{}
	for i, name := range []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"} {
		days[string(rune('0'+i))] = result{Text: name, Index: i}
	}
	p := newPanel("table", title, description, 24, 10,
		&tableField{Align: "center", CellOptions: cellOptions{Type: "color-background", Mode: "basic"}, MinWidth: 40},
		&tableOptions{ShowHeader: true, CellHeight: "sm"}, changes)
	p.FieldConfig.Defaults.Color, p.FieldConfig.Defaults.Decimals = color{Mode: "continuous-BlPu"}, ptr.To(1)
	p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, override{matcher{"byName", `day\hour`}, []property{
		{"mappings", []mapping{{"value", days}}}, {"displayName", " "},
		{"custom.cellOptions", cellOptions{Type: "auto"}}, {"custom.align", "left"},
	}})
	p.Transformations = []transformation{
		{"sortBy", map[string]any{"sort": []map[string]string{{"field": "slot"}}}},
		{"groupingToMatrix", map[string]any{"columnField": "hour", "rowField": "day", "valueField": "Value", "emptyValue": "null"}},
	}
	for i := range p.Targets {
		p.Targets[i].Range, p.Targets[i].Instant, p.Targets[i].Format = false, true, "table"
	}
	return p
}

// query adds a series, or those that an expression has.
func query(legend, expr string) change {
	return func(p *Panel) {
		p.Targets = append(p.Targets, Target{
			RefID: string(rune('A' + len(p.Targets))), Expr: expr, Legend: legend, Range: true, Format: "time_series",
		})
	}
}

// latest asks for the newest value only: for stats over the whole range, which is costly to ask for at every step.
func latest(legend, expr string) change {
	return func(p *Panel) {
		query(legend, expr)(p)
		last := &p.Targets[len(p.Targets)-1]
		last.Range, last.Instant = false, true
		p.Options.(*statOptions).GraphMode = "none"
	}
}

func unit(name string) change { return func(p *Panel) { p.FieldConfig.Defaults.Unit = name } }

func decimals(n int) change { return func(p *Panel) { p.FieldConfig.Defaults.Decimals = &n } }

func fromZero(p *Panel) { p.FieldConfig.Defaults.Min = ptr.To(0.0) }

func upTo(most float64) change { return func(p *Panel) { p.FieldConfig.Defaults.Max = &most } }

// noValue is shown where there is no data, for a number that need not be there.
func noValue(text string) change { return func(p *Panel) { p.FieldConfig.Defaults.NoValue = text } }

// stacked adds the series up.
func stacked(p *Panel) {
	custom := p.FieldConfig.Defaults.Custom.(*timeseriesField)
	custom.Stacking.Mode, custom.FillOpacity, custom.LineWidth = "normal", 60, 0
}

// at is where a step begins.
type at struct {
	value float64
	color string
}

// steps colors values: the first color is of the lowest ones.
func steps(first string, more ...at) change {
	return func(p *Panel) {
		t := &thresholds{Mode: "absolute", Steps: []step{{Color: first}}}
		for _, s := range more {
			t.Steps = append(t.Steps, step{s.color, &s.value})
		}
		p.FieldConfig.Defaults.Thresholds, p.FieldConfig.Defaults.Color = t, color{Mode: "thresholds"}
	}
}

// background colors the whole of a stat.
func background(p *Panel) {
	options := p.Options.(*statOptions)
	options.ColorMode, options.GraphMode = "background", "none"
}

// underTimeline gives a graph's axis the width of a timeline's names, so that the times of both are above each other.
func underTimeline(p *Panel) { p.FieldConfig.Defaults.Custom.(*timeseriesField).AxisWidth = 90 }

// over shows a calculation over the time range instead of the newest value, which is often idle.
func over(calculation string) change {
	return func(p *Panel) { p.Options.(*statOptions).ReduceOptions.Calcs = []string{calculation} }
}

// named shows the series' name in a stat: alone, or beside the value.
func named(mode string) change {
	return func(p *Panel) {
		options := p.Options.(*statOptions)
		options.TextMode, options.GraphMode = mode, "none"
	}
}

// words names and colors values.
func words(results map[string]result) change {
	return func(p *Panel) {
		p.FieldConfig.Defaults.Mappings = []mapping{{"value", results}}
		if p.Type == "state-timeline" {
			p.FieldConfig.Defaults.Color = color{Mode: "thresholds"}
		}
	}
}

// colored gives a series its color by name.
func colored(series, name string, more ...property) change {
	return func(p *Panel) {
		p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, override{
			matcher{"byName", series}, append([]property{{"color", color{"fixed", name}}}, more...),
		})
	}
}

// A limit is a dashed line without an area; a line without an area; a bold line.
var (
	dashed = []property{{"custom.lineStyle", lineStyle{"dash", []int{8, 6}}}, {"custom.fillOpacity", 0}, {"custom.lineWidth", 1}}
	bare   = property{"custom.fillOpacity", 0}
	bold   = property{"custom.lineWidth", 3}
)

const rowType = "row"

// collapsed is a row that hides panels until somebody opens it: what rarely changes, and details.
func collapsed(title string, panels ...*Panel) *Panel {
	return &Panel{Type: rowType, Title: title, GridPos: gridPos{W: gridWidth, H: 1}, Panels: panels}
}

// each yields panels, and those of rows.
func each(panels []*Panel) iter.Seq[*Panel] {
	return func(yield func(*Panel) bool) {
		for _, p := range panels {
			if p.Type != rowType && !yield(p) {
				return
			}
			for _, inside := range p.Panels {
				if !yield(inside) {
					return
				}
			}
		}
	}
}

// gridWidth is how many columns Grafana's grid has.
const gridWidth = 24

// arrange puts panels into rows from left to right, wrapping at the width of the grid, and numbers them. Panels of a collapsed row are below it,
// where they are shown when it is opened.
func arrange(panels ...*Panel) []*Panel {
	x, y, height, id := 0, 0, 0, 0
	place := func(p *Panel) {
		if x+p.GridPos.W > gridWidth {
			x, y, height = 0, y+height, 0
		}
		id++
		p.ID, p.GridPos.X, p.GridPos.Y = id, x, y
		x, height = x+p.GridPos.W, max(height, p.GridPos.H)
	}
	for _, p := range panels {
		place(p)
		below := y + p.GridPos.H
		for _, inside := range p.Panels {
			place(inside)
		}
		if p.Type == rowType {
			x, y, height = 0, below, 0
		}
	}
	return panels
}
