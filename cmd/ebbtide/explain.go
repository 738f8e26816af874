package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/simulator/report"
)

// explanation is what a policy says at an instant.
type explanation struct {
	Policy string    `json:"policy"`
	At     time.Time `json:"at"`
	// Note says how a time was interpreted that clocks skip or show twice.
	Note   string `json:"note,omitempty"`
	Limits limits `json:"limits"`
	Target int32  `json:"target"`
	// Demand is what the work asks for, limits aside; InFlight the messages that are worked on.
	Demand      int64    `json:"demand"`
	InFlight    int64    `json:"inFlight"`
	Constraint  string   `json:"constraint"`
	Reason      string   `json:"reason"`
	NextChanges []change `json:"nextChanges"`
	// Holidays are what each of the policy's files has.
	Holidays []coverage `json:"holidays,omitempty"`
}

type limits struct {
	Period       string `json:"period"`
	MinReplicas  int32  `json:"minReplicas"`
	IdleReplicas int32  `json:"idleReplicas"`
	MaxReplicas  int32  `json:"maxReplicas"`
	// Surplus while messages wait; empty: none.
	Surplus string `json:"surplus,omitempty"`
}

type change struct {
	Time time.Time `json:"time"`
	limits
}

func limitsOf(l calendar.Limits) limits {
	return limits{l.Period, l.MinReplicas, l.IdleReplicas, l.MaxReplicas, l.Surplus.Text()}
}

func (l limits) String() string {
	most := fmt.Sprint(l.MaxReplicas)
	if l.MaxReplicas >= reactiveCap {
		most = "any"
	}
	surplus := ""
	if l.Surplus != "" {
		surplus = fmt.Sprintf(", %s more while messages wait", l.Surplus)
	}
	return fmt.Sprintf("at least %d, %d idle%s, at most %s", l.MinReplicas, l.IdleReplicas, surplus, most)
}

func explainCommand() *cobra.Command {
	var at, svg string
	var seen sizing.Observation
	var serviceTime time.Duration
	var changes int
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Explain the target and the limits of a policy at an instant",
		Long: `Prints the limits of a policy at an instant, the target for a backlog, the constraint that determined it, the next changes of the limits, and the
week. It reads the policy's file and contacts no broker and no cluster.`,
		Example: `  # now, with an empty queue
  ebbtide explain -f policy.yaml

  # on a Friday evening with 40 messages waiting and 10 workers
  ebbtide explain -f policy.yaml --at 2026-11-27T18:55:00+01:00 --ready 40 --consumers 10`,
		Args: cobra.NoArgs,
	}
	files := policyFlag(cmd, "YAML file with ScalingPolicies")
	out := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&at, "at", "", "instant in RFC 3339, or a local time in the policy's time zone, such as 2026-11-27T18:55; default: now")
	flags.Int64Var(&seen.Ready, "ready", 0, "messages that wait")
	flags.Int64Var(&seen.Consumers, "consumers", 0, "workers that consume")
	flags.Int64Var(&seen.Unacknowledged, "unacked", -1, "messages in progress; default: unknown")
	flags.DurationVar(&serviceTime, "service-time", 0, "mean run time of a message, for drainWithin; default: the policy's")
	flags.IntVar(&changes, "changes", 5, "number of next changes to list")
	flags.StringVar(&svg, "svg", "", "write a picture of the week to this file")
	if err := cmd.MarkFlagRequired("policy"); err != nil {
		panic(err) // the flag is there
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if seen.Ready < 0 || seen.Consumers < 0 {
			return errors.New("--ready and --consumers must be at least 0")
		}
		if seen.UnacknowledgedKnown = seen.Unacknowledged >= 0; !seen.UnacknowledgedKnown {
			seen.Unacknowledged = 0
		}
		policies, err := readPolicies(cmd.Context(), *files)
		if err != nil {
			return err
		}
		if svg != "" && len(policies) > 1 {
			return fmt.Errorf("--svg: the files hold %d policies, and a picture is of one", len(policies))
		}
		explained := make([]explanation, len(policies))
		for i, p := range policies {
			read, err := readInstant("--at", at, p.TimeZone)
			if err != nil {
				return err
			}
			now := read.Time
			explained[i] = explain(p, now, seen, serviceTime, changes)
			explained[i].Note = read.Note
			if svg != "" {
				if err := os.WriteFile(svg, []byte(report.Calendar(p.Calendar, monday(now))), 0o644); err != nil { //nolint:gosec // a picture for all
					return fmt.Errorf("--svg: %w", err)
				}
			}
		}
		return out.print(cmd, explained, func(t *table) {
			for i, e := range explained {
				printExplanation(t, e, policies[i], isTerminal(cmd.OutOrStdout()))
			}
		})
	}
	return cmd
}

// instant reads the value of a flag: now when it is empty.
func instant(flag, text string, zone *time.Location) (time.Time, error) {
	read, err := readInstant(flag, text, zone)
	return read.Time, err
}

// readInstant is instant with what is to be said of it.
func readInstant(flag, text string, zone *time.Location) (calendar.Reading, error) {
	if text == "" {
		return calendar.Reading{Time: time.Now().In(zone).Truncate(time.Second)}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return calendar.Reading{Time: t.In(zone)}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return calendar.ReadClock(zone, t), nil
		}
	}
	return calendar.Reading{}, fmt.Errorf("%s %q: want an instant as 2026-11-27T18:55:00+01:00, or a local time as 2026-11-27T18:55", flag, text)
}

func explain(p *policy.Policy, now time.Time, seen sizing.Observation, serviceTime time.Duration, changes int) explanation {
	seen.Time, seen.ReadyHoldsInFlight = now, p.ReadyHoldsInFlight()
	d := sizing.Decide(now, seen, nil, p.Calendar.Limits(now), p.Target, serviceTime)
	e := explanation{
		Policy: p.Name.String(), At: now, Limits: limitsOf(d.Limits), Target: d.Target, Demand: d.Demand, InFlight: d.InFlight,
		Constraint: string(d.Constraint), Reason: d.Reason, NextChanges: []change{},
	}
	for _, file := range p.Calendar.Holidays() {
		e.Holidays = append(e.Holidays, coverageOf(file, now))
	}
	for t := now; len(e.NextChanges) < changes; {
		next, l, ok := p.Calendar.NextChange(t)
		if !ok {
			break
		}
		e.NextChanges = append(e.NextChanges, change{next, limitsOf(l)})
		t = next
	}
	return e
}

func printExplanation(t *table, e explanation, p *policy.Policy, colours bool) {
	const layout = "Mon 2 Jan 2006 15:04 MST"
	t.row("POLICY", e.Policy)
	at := e.At.Format(layout)
	if e.Note != "" {
		at += ": " + e.Note
	}
	t.row("AT", at)
	t.row("PERIOD", fmt.Sprintf("%s: %s", e.Limits.Period, e.Limits))
	t.row("TARGET", fmt.Sprintf("%d (%s)", e.Target, e.Constraint))
	t.row("WHY", e.Reason)
	for i, h := range e.Holidays {
		title := ""
		if i == 0 {
			title = "HOLIDAYS"
		}
		t.row(title, h)
	}
	for i, c := range e.NextChanges {
		title := ""
		if i == 0 {
			title = "NEXT"
		}
		t.row(title, fmt.Sprintf("%s  %s: %s", c.Time.In(e.At.Location()).Format(layout), c.Period, c.limits))
	}
	t.line("")
	for _, row := range strip(p.Calendar, e.At, colours) {
		t.line("%s", row)
	}
}

// strip is the week of an instant, a row a day and a character for each half hour: floor and idle reserve as the height of a bar; and
// where caps differ, a second picture of them.
func strip(c *calendar.Calendar, now time.Time, colours bool) []string {
	start := monday(now)
	warm, highest := func(l calendar.Limits) int32 { return max(l.MinReplicas, l.IdleReplicas) }, int32(1)
	limit, most, least := func(l calendar.Limits) int32 { return l.MaxReplicas }, int32(1), int32(math.MaxInt32)
	for _, span := range c.Timeline(start, start.AddDate(0, 0, 7)) {
		highest = max(highest, warm(span.Limits))
		most, least = max(most, limit(span.Limits)), min(least, limit(span.Limits))
	}
	rows := picture(c, now, colours, fmt.Sprintf("warm replicas, up to %d", highest), highest, warm)
	if least < most {
		rows = append(rows, "")
		rows = append(rows, picture(c, now, colours, fmt.Sprintf("cap, from %d to %d", least, most), most, limit)...)
	}
	return rows
}

func picture(c *calendar.Calendar, now time.Time, colours bool, title string, highest int32, height func(calendar.Limits) int32) []string {
	const halfHours = 48
	bars := []rune("·▁▂▃▄▅▆▇█")
	start := monday(now)
	rows := []string{"WEEK  0     3     6     9     12    15    18    21      " + title}
	for d := range 7 {
		day := start.AddDate(0, 0, d)
		var row strings.Builder
		row.WriteString(day.Format("Mon") + "   ")
		for h := range halfHours {
			at := time.Date(day.Year(), day.Month(), day.Day(), h/2, h%2*30, 0, 0, day.Location())
			level := int64(height(c.Limits(at))) * int64(len(bars)-1)
			bar := string(bars[(level+int64(highest)-1)/int64(highest)])
			if isNow := !now.Before(at) && now.Before(at.Add(30*time.Minute)); isNow && colours {
				bar = "\x1b[7m" + bar + "\x1b[0m"
			}
			row.WriteString(bar)
		}
		rows = append(rows, row.String())
	}
	return rows
}

// monday is when the week of an instant begins.
func monday(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day()-(int(t.Weekday())+6)%7, 0, 0, 0, 0, t.Location())
}
