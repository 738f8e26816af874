package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

// findings is the error of a command that did its work and found something wrong.
type findings struct{ error }

// exitCode is 2 when something was found, else 1.
func exitCode(err error) int {
	if errors.As(err, &findings{}) {
		return 2
	}
	return 1
}

// output is how a command prints its result.
type output string

var outputs = []string{"table", "json", "yaml"}

func outputFlag(cmd *cobra.Command) *output {
	o := output("table")
	cmd.Flags().VarP(&o, "output", "o", "how to print the result: "+strings.Join(outputs, ", "))
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is there
	}
	return &o
}

// String implements pflag.Value.
func (o *output) String() string { return string(*o) }

// Type implements pflag.Value.
func (*output) Type() string { return "format" }

// Set implements pflag.Value.
func (o *output) Set(text string) error {
	for _, known := range outputs {
		if text == known {
			*o = output(text)
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", strings.Join(outputs, ", "))
}

// print writes a value as JSON or YAML, or as the table that is made of it.
func (o *output) print(cmd *cobra.Command, value any, asTable func(*table)) error {
	w := cmd.OutOrStdout()
	switch *o {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	case "yaml":
		text, err := yaml.Marshal(value)
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	default:
		t := newTable(w)
		asTable(t)
		return t.w.Flush()
	}
}

// table aligns cells.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) *table { return &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = sizing.OneLine(fmt.Sprint(c)) // a name that holds newlines or tabs forges no row
	}
	fmt.Fprintln(t.w, strings.Join(texts, "\t"))
}

// line is one that is not aligned.
func (t *table) line(format string, args ...any) {
	_ = t.w.Flush() // its error comes again with the last one
	fmt.Fprintf(t.w, format+"\n", args...)
	_ = t.w.Flush()
}

// isTerminal is true for a terminal that wants colours.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == ""
}

// progress says on a terminal how far something is, from two seconds on. Call done when it is over. It is safe for concurrent use.
type progress struct {
	w     io.Writer
	begin time.Time

	mu    sync.Mutex
	text  string
	shown bool
	stop  chan struct{} // nil until there is a message
}

func newProgress(w io.Writer) *progress { return &progress{w: w, begin: time.Now()} }

func (p *progress) say(format string, args ...any) {
	if !isTerminal(p.w) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.text = fmt.Sprintf(format, args...); p.stop == nil {
		p.stop = make(chan struct{})
		go p.run(p.stop)
	}
}

// run shows the last message, and for how long it has been shown.
func (p *progress) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(250 * time.Millisecond):
		}
		p.mu.Lock()
		if took := time.Since(p.begin); took > 2*time.Second && p.stop != nil {
			fmt.Fprintf(p.w, "\r\x1b[2K%s (%s)", p.text, took.Round(time.Second))
			p.shown = true
		}
		p.mu.Unlock()
	}
}

func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[2K")
		p.shown = false
	}
}
