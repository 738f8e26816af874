package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// holidayList is what a file says of a range of dates.
type holidayList struct {
	Holidays []calendar.Holiday `json:"holidays"`
	Skipped  []calendar.Skipped `json:"skipped"`
}

func holidaysCommand() *cobra.Command {
	var zone, from, to string
	var only, except calendar.Filter
	cmd := &cobra.Command{
		Use:   "holidays FILE.ics",
		Short: "List the holidays and the skipped events of an iCalendar file",
		Long: `Lists the holidays of an iCalendar file in a time zone, with the name and the line of each event. Below them are the skipped events with the reason:
events that are marked as no holidays, such as cancelled ones, and events that can't be interpreted. An incomplete file is an error.`,
		Example: `  ebbtide holidays cz.ics --time-zone Europe/Prague --from 2026-01-01 --to 2026-12-31`,
		Args:    cobra.ExactArgs(1),
	}
	out := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&zone, "time-zone", "UTC", "time zone of the calendar")
	flags.StringVar(&from, "from", "", "first date, such as 2026-01-01; default: January 1st of this year")
	flags.StringVar(&to, "to", "", "last date, included; default: December 31st of the year after --from")
	flags.StringSliceVar(&only.Categories, "category", nil, "only events of one of these categories")
	flags.StringSliceVar(&only.Summaries, "summary", nil, "only events whose summary contains one of these texts")
	flags.StringSliceVar(&except.Summaries, "except-summary", nil, "no events whose summary contains one of these texts")
	flags.StringVar(&only.Transparency, "transparency", "", "only events that show as busy (Opaque) or as free (Transparent)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		list, h, err := readHolidays(args[0], zone, from, to, only, except)
		if err != nil {
			return err
		}
		return out.print(cmd, list, func(t *table) {
			t.row("DATE", "DAY", "LINE", "NAME")
			for _, h := range list.Holidays {
				day := ""
				if d, err := time.Parse(time.DateOnly, h.Date); err == nil {
					day = d.Weekday().String()[:3]
				}
				t.row(h.Date, day, h.Line, h.Name)
			}
			if first, last := h.Years(); h.Len() > 0 {
				t.line("\n%d here; the file has %d, from %d to %d.", len(list.Holidays), h.Len(), first, last)
			}
			for _, s := range list.Skipped {
				t.line("skipped: %s", s)
			}
		})
	}
	return cmd
}

func readHolidays(path, zoneName, from, to string, only, except calendar.Filter) (holidayList, *calendar.Holidays, error) {
	zone, err := calendar.LoadZone(zoneName)
	if err != nil {
		return holidayList{}, nil, fmt.Errorf("--time-zone %q %w", zoneName, err)
	}
	if t := only.Transparency; t != "" && t != "Opaque" && t != "Transparent" {
		return holidayList{}, nil, fmt.Errorf("--transparency %q: must be Opaque or Transparent", t)
	}
	if from == "" {
		from = fmt.Sprintf("%04d-01-01", time.Now().In(zone).Year())
	}
	begin, err := time.Parse(time.DateOnly, from)
	if err != nil {
		return holidayList{}, nil, fmt.Errorf("--from %q must be a date such as 2026-01-01", from)
	}
	if to == "" {
		to = fmt.Sprintf("%04d-12-31", begin.Year()+1)
	}
	if end, err := time.Parse(time.DateOnly, to); err != nil || end.Before(begin) {
		return holidayList{}, nil, fmt.Errorf("--to %q must be a date such as 2026-12-31, and not before --from", to)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return holidayList{}, nil, err
	}
	h, err := calendar.ParseHolidays(string(text), zone)
	if err != nil {
		return holidayList{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	h = h.Select(only, except)
	list := holidayList{Holidays: []calendar.Holiday{}, Skipped: append([]calendar.Skipped{}, h.Skipped()...)}
	list.Holidays, err = h.List(from, to)
	return list, h, err
}

// coverage says how many holidays a file has, and for which years.
type coverage struct {
	Dates     int                `json:"dates"`
	FirstYear int                `json:"firstYear,omitempty"`
	LastYear  int                `json:"lastYear,omitempty"`
	Skipped   []calendar.Skipped `json:"skipped,omitempty"`
	// Warning is that the file says nothing of the year in question.
	Warning string `json:"warning,omitempty"`
}

// coverageOf is what an author should know of a file of holidays, at an instant.
func coverageOf(h *calendar.Holidays, at time.Time) coverage {
	c := coverage{Dates: h.Len(), Skipped: h.NotUnderstood()}
	c.FirstYear, c.LastYear = h.Years()
	if year := at.Year(); h.Len() == 0 || year < c.FirstYear || year > c.LastYear {
		c.Warning = fmt.Sprintf("no holiday in %d: the file says nothing of that year", year)
	}
	return c
}

func (c coverage) String() string {
	text := fmt.Sprintf("%d dates", c.Dates)
	if c.Dates > 0 {
		text += fmt.Sprintf(", from %d to %d", c.FirstYear, c.LastYear)
	}
	var more []string
	if c.Warning != "" {
		more = append(more, c.Warning)
	}
	for _, s := range c.Skipped {
		more = append(more, "skipped: "+s.String())
	}
	if len(more) > 0 {
		text += "; " + strings.Join(more, "; ")
	}
	return text
}
