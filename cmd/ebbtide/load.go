package main

import (
	"bufio"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// loadFlags say what messages come.
type loadFlags struct {
	trace, generate, zone string
	seed                  uint64
}

func (l *loadFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&l.trace, "trace", "", "recorded load: a CSV of start,seconds,class[,milliCPU,memoryMiB], or a .swf of the Parallel Workloads Archive; - for standard input")
	flags.StringVar(&l.generate, "generate", "", "made-up load instead: weeks=4,perDay=2000, with the rhythm of weekdays, bursts and heavy tails")
	flags.StringVar(&l.zone, "time-zone", "UTC", "zone in which generated days begin")
	flags.Uint64Var(&l.seed, "seed", 1, "of all that is left to chance; the same seed gives the same result")
	cmd.MarkFlagsMutuallyExclusive("trace", "generate")
	cmd.MarkFlagsOneRequired("trace", "generate")
}

func (l *loadFlags) read() (simulator.Trace, error) {
	if l.generate != "" {
		return l.make()
	}
	from := os.Stdin
	if l.trace != "-" {
		file, err := os.Open(l.trace)
		if err != nil {
			return simulator.Trace{}, fmt.Errorf("--trace: %w", err)
		}
		defer file.Close()
		from = file
	}
	read := simulator.ReadCSV
	if filepath.Ext(l.trace) == ".swf" {
		read = simulator.ReadSWF
	}
	trace, err := read(bufio.NewReaderSize(from, 1<<20))
	if err != nil {
		return trace, fmt.Errorf("--trace %s: %w", l.trace, err)
	}
	return trace, nil
}

func (l *loadFlags) make() (simulator.Trace, error) {
	values, err := pairs("--generate", l.generate, "weeks", "perDay")
	if err != nil {
		return simulator.Trace{}, err
	}
	weeks, err := strconv.Atoi(cmp.Or(values["weeks"], "4"))
	if err != nil || weeks < 1 || weeks > 520 {
		return simulator.Trace{}, fmt.Errorf("--generate: weeks is %q, want 1 to 520", values["weeks"])
	}
	perDay, err := strconv.ParseFloat(cmp.Or(values["perDay"], "2000"), 64)
	if err != nil || !(perDay >= 1 && perDay <= 1e7) {
		return simulator.Trace{}, fmt.Errorf("--generate: perDay is %q, want 1 to 1e7", values["perDay"])
	}
	zone, err := calendar.LoadZone(l.zone)
	if err != nil {
		return simulator.Trace{}, fmt.Errorf("--time-zone: %w", err)
	}
	return simulator.Weeks(rand.New(rand.NewPCG(l.seed, 0)), weeks, perDay, zone), nil
}

// pairs reads name=value,name=value. Unknown names are errors.
func pairs(flag, text string, known ...string) (map[string]string, error) {
	values := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		valid := false
		for _, k := range known {
			valid = valid || k == name
		}
		if !ok || !valid {
			return nil, fmt.Errorf("%s: %q is not one of %s=VALUE", flag, part, strings.Join(known, "=VALUE, "))
		}
		values[name] = value
	}
	return values, nil
}

// rangeFlag is a duration, or two of them: 5s..20s.
type rangeFlag struct{ *simulator.Range }

// String implements pflag.Value.
func (r rangeFlag) String() string {
	switch {
	case r.Range == nil:
		return ""
	case r.Max <= r.Min:
		return r.Min.String()
	}
	return r.Min.String() + ".." + r.Max.String()
}

// Type implements pflag.Value.
func (rangeFlag) Type() string { return "duration[..duration]" }

// Set implements pflag.Value.
func (r rangeFlag) Set(text string) error {
	low, high, both := strings.Cut(text, "..")
	from, err := time.ParseDuration(low)
	to := from
	if err == nil && both {
		to, err = time.ParseDuration(high)
	}
	if err != nil || from < 0 || to < from {
		return fmt.Errorf("want a duration, or two of them as in 5s..20s")
	}
	r.Min, r.Max = from, to
	return nil
}
