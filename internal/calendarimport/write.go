package calendarimport

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"sigs.k8s.io/yaml"
)

// YAML is a document of the policy, with what was found as comments. It loads as it is; what must be written by hand says so.
func (i *Imported) YAML() string {
	var b strings.Builder
	line := func(indent int, format string, args ...any) {
		b.WriteString(strings.Repeat(" ", indent) + fmt.Sprintf(format, args...) + "\n")
	}
	p, c := i.Policy, i.Policy.Spec.Calendar
	comment(&b, 0, "Of "+i.Source+".")
	for _, note := range i.Notes {
		comment(&b, 0, note+".")
	}
	comment(&b, 0, i.Check.summary(i.zone))
	line(0, "apiVersion: %s", p.APIVersion)
	line(0, "kind: %s", p.Kind)
	if p.Namespace == "" {
		line(0, "metadata: {name: %s}", scalar(p.Name))
	} else {
		line(0, "metadata: {name: %s, namespace: %s}", scalar(p.Name), scalar(p.Namespace))
	}
	line(0, "spec:")
	line(2, "backlog: # not imported: say where the work is")
	line(4, "rabbitmq:")
	line(6, "uri: {secretKeyRef: {name: %s, key: uri}}", p.Spec.Backlog.RabbitMQ.URI.SecretKeyRef.Name)
	line(6, "queue: %s", scalar(p.Spec.Backlog.RabbitMQ.Queue))
	line(2, "target: {maxReplicas: %d} # %s", *p.Spec.Target.MaxReplicas, i.limitNote)
	line(2, "calendar:")
	line(4, "timeZone: %s", c.TimeZone)
	if floor := c.Default.MinReplicas; floor != nil {
		line(4, "default: {minReplicas: %d} # %s", *floor, i.floorNote)
	}
	line(4, "periods:")
	for _, period := range c.Periods {
		for _, note := range i.PeriodNotes[period.Name] {
			comment(&b, 4, note)
		}
		line(4, "- name: %s", scalar(period.Name))
		for _, list := range []struct {
			name string
			of   []string
		}{{"days", period.Days}, {"months", period.Months}} {
			if len(list.of) > 0 {
				line(6, "%s: [%s]", list.name, strings.Join(list.of, ", "))
			}
		}
		if period.From != "" {
			line(6, "from: %q", period.From)
		}
		if period.To != "" {
			line(6, "to: %q", period.To)
		}
		if floor := period.Limits.MinReplicas; floor != nil {
			line(6, "limits: {minReplicas: %d}", *floor)
		} else {
			line(6, "limits: {idleReplicas: %d}", *period.Limits.IdleReplicas)
		}
	}
	return b.String()
}

func (c Check) summary(zone *time.Location) string {
	at := func(t time.Time) string { return t.In(zone).Format(time.DateOnly) }
	text := fmt.Sprintf("Checked from %s until %s: the same in %d of %d minutes", at(c.From), at(c.To), c.Same, c.Minutes)
	if c.Same == c.Minutes {
		return text + "."
	}
	minutes := map[Reason]int64{}
	for _, d := range c.Differences {
		minutes[d.Reason] += int64(d.To.Sub(d.From) / time.Minute)
	}
	var reasons []string
	if n := minutes[ClockChange]; n > 0 {
		reasons = append(reasons, fmt.Sprintf("%d by clock changes", n))
	}
	if n := minutes[OnPurpose]; n > 0 {
		reasons = append(reasons, fmt.Sprintf("%d left out on purpose", n))
	}
	return text + "; " + strings.Join(reasons, ", ") + "."
}

// comment writes a text as lines of a comment, whatever is in it.
func comment(b *strings.Builder, indent int, text string) {
	const most = 118
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	row := ""
	for i, word := range words {
		if row != "" && indent+2+len(row)+1+len(word) > most {
			fmt.Fprintf(b, "%s# %s\n", strings.Repeat(" ", indent), row)
			row = "  "
		} else if i > 0 {
			row += " "
		}
		row += word
	}
	fmt.Fprintf(b, "%s# %s\n", strings.Repeat(" ", indent), row)
}

// scalar is a text as YAML, quoted where it would be something else.
func scalar(text string) string {
	var read any
	if !strings.ContainsAny(text, ",[]{}#:&*!|>'\"%@`") && yaml.Unmarshal([]byte(text), &read) == nil && read == text {
		return text
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err) // a text is JSON
	}
	return string(quoted)
}
