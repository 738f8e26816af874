// Package cobradoc makes the reference page of a program of its command tree.
package cobradoc

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Page is a program's page in Markdown, with a section for every command that is not hidden. It reads the same wherever it is made:
// the default of a flag whose usage states it, as one that the environment gives does, is not shown.
func Page(root *cobra.Command) string {
	var page strings.Builder
	fmt.Fprintf(&page, "<!-- Generated from the program: go test ./cmd/%s -run Reference -update -->\n\n", root.Name())
	section(&page, root, "#")
	return page.String()
}

func section(page *strings.Builder, cmd *cobra.Command, level string) {
	fmt.Fprintf(page, "%s %s\n\n%s.\n", level, cmd.CommandPath(), cmd.Short)
	if cmd.Runnable() {
		fmt.Fprintf(page, "\n```\n%s\n```\n", cmd.UseLine())
	}
	if cmd.Long != "" {
		fmt.Fprintf(page, "\n```text\n%s\n```\n", cmd.Long)
	}
	if cmd.Example != "" {
		fmt.Fprintf(page, "\n```sh\n%s\n```\n", unindent(cmd.Example))
	}
	flags(page, cmd)
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" && c.Name() != "completion" {
			page.WriteString("\n")
			section(page, c, "##")
		}
	}
}

func flags(page *strings.Builder, cmd *cobra.Command) {
	var rows strings.Builder
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		kind, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(&rows, "| %s | %s | %s | %s |\n", name, kind, defaultOf(f), strings.ReplaceAll(usage, "|", `\|`))
	})
	if rows.Len() > 0 {
		fmt.Fprintf(page, "\n| flag | | default | |\n|---|---|---|---|\n%s", rows.String())
	}
}

// defaultOf a flag, empty where it says nothing.
func defaultOf(f *pflag.Flag) string {
	if strings.Contains(strings.ToLower(f.Usage), "default:") {
		return ""
	}
	switch f.DefValue {
	case "", "[]", "false":
		return ""
	}
	return "`" + f.DefValue + "`"
}

// unindent takes the two blanks of cobra's help from every line.
func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}
