package main

import (
	"os"
	"slices"
	"testing"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/internal/secret"
	"github.com/ebbtide-dev/ebbtide/worker/sourcestore"
)

// Only this program, which hides it, gets the git token: what is scanned could read it from any other command's environment.
func TestWhoGetsTheToken(t *testing.T) {
	for program, want := range map[string]bool{"sh": false, os.Args[0]: true} {
		var o runOptions
		o.addFlags(&cobra.Command{})
		o.confine, o.resultFormat, o.MaxAttempts = "off", "json", 1
		if err := o.complete([]string{program, "source", "get"}, secret.Values{sourcestore.TokenVariable: "t0ken"}); err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(o.Environment, sourcestore.TokenVariable+"=t0ken"); got != want {
			t.Errorf("%s gets it: %t, want %t", program, got, want)
		}
		if !slices.Contains(o.HiddenVariables, sourcestore.TokenVariable) {
			t.Error("it is not hidden")
		}
	}
}
