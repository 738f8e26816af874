package report

import (
	"fmt"
	"html/template"
	"io"
	"slices"
	"time"

	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/simulator/recommend"
)

// Recommended is what WriteRecommendation makes a page of.
type Recommended struct {
	Found            *recommend.Recommendation
	Currency, Prices string
	Objective        recommend.Objective
	MaxReplicas      int32
}

// WriteRecommendation writes the page of a recommendation, with times in a zone.
func WriteRecommendation(w io.Writer, r *Recommended, zone *time.Location) error {
	found := r.Found
	p := &page{Title: "Recommended configuration", Zone: zone, Notes: slices.Concat(found.Notes, []string{"Prices: " + r.Prices + ". Check them."})}
	saved := 100 * (1 - found.Recommended.CostMonth/found.Today.CostMonth)
	p.Sentence = fmt.Sprintf("%.0f %s a month in place of %.0f, %.0f%% less, and %g%% of the messages wait at most %s in place of %s, on %.0f days that the search had not seen.",
		found.Recommended.CostMonth, r.Currency, found.Today.CostMonth, saved, 100*r.Objective.Quantile, seconds(found.Recommended.Wait), seconds(found.Today.Wait), 7*found.JudgedWeeks)
	for _, result := range []*recommend.Result{&found.Today, &found.Alternative, &found.Recommended} {
		ours := result == &found.Recommended
		out := result.Outcome
		out.Cost = result.CostMonth
		p.Runs = append(p.Runs, Run{Name: result.Name, Ours: ours, Outcome: out})
		wait := &result.Outcome.Wait
		p.Rows = append(p.Rows, Row{
			Name: result.Name, Configuration: result.Configuration.Stack.Name + ", " + result.Configuration.Workers.String() + ", " + result.Configuration.Shapes.Name,
			Cost: fmt.Sprintf("%.0f", result.CostMonth), P50: seconds(wait.P50), P95: seconds(wait.P95), P99: seconds(wait.P99), Mean: seconds(wait.Mean),
			Idle: fmt.Sprintf("%.0f%%", 100*result.IdleShare), Ours: ours,
		})
	}
	most := 0.0
	for _, d := range found.Decisions {
		most = max(most, d.CostWithout-found.Recommended.CostMonth)
	}
	for _, d := range found.Decisions {
		row := DecisionRow{Lever: d.Lever, Today: d.Today, Recommended: d.Recommended, Change: d.Change, Without: "no change"}
		switch {
		case d.Impossible:
			row.Without = "not possible"
		case d.CostWithout > 0:
			row.Without = fmt.Sprintf("%+.0f %s, wait %s", d.CostWithout-found.Recommended.CostMonth, r.Currency, seconds(d.WaitWithout))
			row.Share = max(0, d.CostWithout-found.Recommended.CostMonth) / max(most, 1e-9)
		}
		p.Decisions = append(p.Decisions, row)
	}
	for _, queue := range found.Recommended.Configuration.Queues.Names() {
		c := found.Calendars[queue]
		if c == nil || len(p.Calendars) == 6 {
			continue
		}
		limits, errs := policy.CompileCalendar(c, nil, r.MaxReplicas, nil)
		if len(errs) > 0 {
			return errs.ToAggregate()
		}
		monday := found.Cut.In(zone)
		monday = time.Date(monday.Year(), monday.Month(), monday.Day()-(int(monday.Weekday())+6)%7, 0, 0, 0, 0, zone)
		p.Calendars = append(p.Calendars, Picture{Title: "Calendar of queue " + queue, SVG: template.HTML(Calendar(limits, monday))}) //nolint:gosec // it escapes names
	}
	return p.write(w)
}
