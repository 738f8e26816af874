package report

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// Calendar is the week from an instant on as an SVG, a row a day: bars as high as the floor or the idle reserve, and, where caps differ, a
// line as high as the cap, each by a scale of its own that the legend names. Tooltips have the period's name and all figures. It follows the
// viewer's light or dark.
func Calendar(c *calendar.Calendar, start time.Time) string {
	const row, hour, names = 44.0, 34.0, 44.0
	spans := c.Timeline(start, start.AddDate(0, 0, 7))
	highest, most, least := int32(1), int32(1), int32(math.MaxInt32)
	for _, s := range spans {
		highest = max(highest, s.Limits.MinReplicas, s.Limits.IdleReplicas)
		most, least = max(most, s.Limits.MaxReplicas), min(least, s.Limits.MaxReplicas)
	}
	var svg strings.Builder
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="system-ui, sans-serif" font-size="11">
<style>text{fill:#5d6b7a}.bar{fill:#0b6bcb}.day{stroke:#dfe5ea}.cap{stroke:#c2410c;stroke-width:2;stroke-dasharray:4 2}@media (prefers-color-scheme:dark){text{fill:#98a6b5}.bar{fill:#5aa9f7}.day{stroke:#2c3742}.cap{stroke:#fb923c}}</style>
`, names+24*hour+8, 7*row+44)
	for h := 0; h <= 24; h += 3 {
		fmt.Fprintf(&svg, `<text x="%.0f" y="%.0f" text-anchor="middle">%d</text>`+"\n", names+float64(h)*hour, 7*row+18, h)
	}
	legend := fmt.Sprintf("bars: warm replicas, up to %d", highest)
	if least < most {
		legend += fmt.Sprintf("; dashed: cap, from %d to %d", least, most)
	}
	fmt.Fprintf(&svg, `<text x="%.0f" y="%.0f">%s</text>`+"\n", names, 7*row+36, legend)
	for d := range 7 {
		from := start.AddDate(0, 0, d)
		to := start.AddDate(0, 0, d+1)
		base := float64(d+1) * row
		fmt.Fprintf(&svg, `<text x="4" y="%.0f">%s</text><line class="day" x1="%.0f" x2="%.0f" y1="%.0f" y2="%.0f"/>`+"\n",
			base-row/2+4, from.Format("Mon 2"), names, names+24*hour, base, base)
		for _, s := range spans {
			begin, end := latest(s.From, from), s.To
			if end.After(to) {
				end = to
			}
			if !end.After(begin) {
				continue
			}
			x, width := names+begin.Sub(from).Hours()*hour, end.Sub(begin).Hours()*hour
			title := fmt.Sprintf("<title>%s: at least %d, %d idle, at most %d</title>",
				html.EscapeString(s.Limits.Period), s.Limits.MinReplicas, s.Limits.IdleReplicas, s.Limits.MaxReplicas)
			if warm := max(s.Limits.MinReplicas, s.Limits.IdleReplicas); warm > 0 {
				height := float64(warm) / float64(highest) * (row - 8)
				fmt.Fprintf(&svg, `<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f">%s</rect>`+"\n", x, base-height, width, height, title)
			}
			if least < most {
				y := base - float64(s.Limits.MaxReplicas)/float64(most)*(row-8)
				fmt.Fprintf(&svg, `<line class="cap" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f">%s</line>`+"\n", x, x+width, y, y, title)
			}
		}
	}
	svg.WriteString("</svg>\n")
	return svg.String()
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
