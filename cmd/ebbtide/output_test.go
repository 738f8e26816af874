package main

import (
	"strings"
	"testing"
	"text/tabwriter"
)

// Whatever a name holds, it is a cell of one row.
func TestRowIsOneLine(t *testing.T) {
	var out strings.Builder
	rows := &table{w: tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)}
	rows.row("PERIOD", "x\nTARGET\t0\x1b[2J\xff")
	if err := rows.w.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "PERIOD  x\\nTARGET\\t0\\x1b[2J\uFFFD\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
