package dashboards

import (
	"bytes"
	"encoding/json"
)

// What we use of Grafana's dashboard JSON, in its terms; a test checks what is made of it against Grafana's own schema.

// Dashboard is one dashboard.
type Dashboard struct {
	UID           string           `json:"uid"`
	Title         string           `json:"title"`
	Description   string           `json:"description"`
	Tags          []string         `json:"tags"`
	SchemaVersion int              `json:"schemaVersion"`
	Editable      bool             `json:"editable"`
	GraphTooltip  int              `json:"graphTooltip"` // 1: one crosshair for all panels
	Refresh       string           `json:"refresh"`
	Time          timeRange        `json:"time"`
	Timezone      string           `json:"timezone"`
	Templating    list[Variable]   `json:"templating"`
	Annotations   list[annotation] `json:"annotations"`
	Links         []link           `json:"links"`
	Panels        []*Panel         `json:"panels"`
}

type timeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type list[T any] struct {
	List []T `json:"list"`
}

// Variable that a person chooses above the panels.
type Variable struct {
	Name    string  `json:"name"`
	Label   string  `json:"label"`
	Type    string  `json:"type"` // datasource, query, custom or textbox
	Query   string  `json:"query,omitempty"`
	Source  *source `json:"datasource,omitempty"`
	Refresh int     `json:"refresh,omitempty"` // 2: whenever the time range changes
	Sort    int     `json:"sort,omitempty"`    // 1: by name

	// Of one with a choice of everything: the value that stands for it.
	IncludeAll bool   `json:"includeAll,omitempty"`
	AllValue   string `json:"allValue,omitempty"`

	Current *option  `json:"current,omitempty"`
	Options []option `json:"options,omitempty"`
}

type option struct {
	Text     string `json:"text"`
	Value    string `json:"value"`
	Selected bool   `json:"selected"`
}

type source struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type annotation struct {
	Name   string `json:"name"`
	Enable bool   `json:"enable"`
	Color  string `json:"iconColor"`
	Source source `json:"datasource"`

	// Of Prometheus.
	Expr        string `json:"expr"`
	Step        string `json:"step"`
	TitleFormat string `json:"titleFormat"`
}

type link struct {
	Type        string   `json:"type"`
	Title       string   `json:"title"`
	Tags        []string `json:"tags"`
	KeepTime    bool     `json:"keepTime"`
	IncludeVars bool     `json:"includeVars"`
	AsDropdown  bool     `json:"asDropdown"`
	TargetBlank bool     `json:"targetBlank"`
	Icon        string   `json:"icon"`
	Tooltip     string   `json:"tooltip"`
}

// Panel is one picture.
type Panel struct {
	ID              int              `json:"id"`
	Type            string           `json:"type"`
	Title           string           `json:"title"`
	Description     string           `json:"description"`
	Source          source           `json:"datasource"`
	GridPos         gridPos          `json:"gridPos"`
	Targets         []Target         `json:"targets"`
	FieldConfig     fieldConfig      `json:"fieldConfig"`
	Options         any              `json:"options"`
	Transformations []transformation `json:"transformations,omitempty"`

	// Panels of a row, which is of the type row and collapsed.
	Panels []*Panel `json:"-"`
}

// MarshalJSON implements json.Marshaler: a row has other fields than a panel.
func (p *Panel) MarshalJSON() ([]byte, error) {
	type plain Panel
	var fields any = (*plain)(p)
	if p.Type == rowType {
		fields = struct {
			ID        int      `json:"id"`
			Type      string   `json:"type"`
			Title     string   `json:"title"`
			GridPos   gridPos  `json:"gridPos"`
			Collapsed bool     `json:"collapsed"`
			Panels    []*Panel `json:"panels"`
		}{p.ID, p.Type, p.Title, p.GridPos, true, p.Panels}
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // queries compare
	err := encoder.Encode(fields)
	return text.Bytes(), err
}

// gridPos is where a panel is, on a grid of 24 columns.
type gridPos struct {
	X int `json:"x"`
	Y int `json:"y"`
	W int `json:"w"`
	H int `json:"h"`
}

// Target is a query.
type Target struct {
	RefID   string `json:"refId"`
	Expr    string `json:"expr"`
	Legend  string `json:"legendFormat"`
	Range   bool   `json:"range"`
	Instant bool   `json:"instant"`
	Format  string `json:"format"` // time_series or table
}

type fieldConfig struct {
	Defaults  field      `json:"defaults"`
	Overrides []override `json:"overrides"`
}

type field struct {
	Unit       string      `json:"unit,omitempty"`
	Decimals   *int        `json:"decimals,omitempty"`
	Min        *float64    `json:"min,omitempty"`
	Max        *float64    `json:"max,omitempty"`
	NoValue    string      `json:"noValue,omitempty"`
	Color      color       `json:"color"`
	Thresholds *thresholds `json:"thresholds,omitempty"`
	Mappings   []mapping   `json:"mappings,omitempty"`
	Custom     any         `json:"custom,omitempty"`
}

type color struct {
	Mode  string `json:"mode"` // palette-classic, fixed, thresholds or continuous-...
	Fixed string `json:"fixedColor,omitempty"`
}

type thresholds struct {
	Mode  string `json:"mode"`
	Steps []step `json:"steps"`
}

// step is a color from a value on; the first one has none.
type step struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"`
}

type mapping struct {
	Type    string            `json:"type"`
	Options map[string]result `json:"options"`
}

type result struct {
	Text  string `json:"text"`
	Color string `json:"color,omitempty"`
	Index int    `json:"index"`
}

type override struct {
	Matcher    matcher    `json:"matcher"`
	Properties []property `json:"properties"`
}

type matcher struct {
	ID      string `json:"id"`
	Options string `json:"options"`
}

type property struct {
	ID    string `json:"id"`
	Value any    `json:"value"`
}

type transformation struct {
	ID      string         `json:"id"`
	Options map[string]any `json:"options"`
}

// Options and custom fields of the kinds of panels.
type (
	timeseriesOptions struct {
		Legend  legend  `json:"legend"`
		Tooltip tooltip `json:"tooltip"`
	}
	timeseriesField struct {
		DrawStyle         string   `json:"drawStyle"`
		LineWidth         int      `json:"lineWidth"`
		LineInterpolation string   `json:"lineInterpolation"`
		FillOpacity       int      `json:"fillOpacity"`
		ShowPoints        string   `json:"showPoints"`
		SpanNulls         bool     `json:"spanNulls"`
		Stacking          stacking `json:"stacking"`
		AxisSoftMin       float64  `json:"axisSoftMin"`
		AxisWidth         int      `json:"axisWidth,omitempty"`
	}
	stacking struct {
		Mode  string `json:"mode"` // none or normal
		Group string `json:"group"`
	}
	lineStyle struct {
		Fill string `json:"fill"`
		Dash []int  `json:"dash,omitempty"`
	}
	statOptions struct {
		ColorMode              string        `json:"colorMode"`
		GraphMode              string        `json:"graphMode"`
		JustifyMode            string        `json:"justifyMode"`
		TextMode               string        `json:"textMode"`
		WideLayout             bool          `json:"wideLayout"`
		Orientation            string        `json:"orientation"`
		ReduceOptions          reduceOptions `json:"reduceOptions"`
		ShowPercentChange      bool          `json:"showPercentChange"`
		PercentChangeColorMode string        `json:"percentChangeColorMode"`
	}
	reduceOptions struct {
		Calcs  []string `json:"calcs"`
		Fields string   `json:"fields"`
		Values bool     `json:"values"`
	}
	timelineOptions struct {
		Legend      legend  `json:"legend"`
		Tooltip     tooltip `json:"tooltip"`
		AlignValue  string  `json:"alignValue"`
		MergeValues bool    `json:"mergeValues"`
		RowHeight   float64 `json:"rowHeight"`
		ShowValue   string  `json:"showValue"`
	}
	timelineField struct {
		FillOpacity int `json:"fillOpacity"`
		LineWidth   int `json:"lineWidth"`
	}
	tableOptions struct {
		ShowHeader bool   `json:"showHeader"`
		CellHeight string `json:"cellHeight"`
		FrameIndex int    `json:"frameIndex"`
	}
	tableField struct {
		Align       string      `json:"align"`
		CellOptions cellOptions `json:"cellOptions"`
		Inspect     bool        `json:"inspect"`
		MinWidth    int         `json:"minWidth"`
	}
	cellOptions struct {
		Type string `json:"type"`
		Mode string `json:"mode,omitempty"`
	}
	legend struct {
		DisplayMode string   `json:"displayMode"`
		Placement   string   `json:"placement"`
		ShowLegend  bool     `json:"showLegend"`
		Calcs       []string `json:"calcs"`
	}
	tooltip struct {
		Mode string `json:"mode"`
		Sort string `json:"sort"`
	}
)
