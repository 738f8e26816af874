// testrun runs the parts of make test, each a target of the Makefile, several at a time, and prints at the end how long each
// took, longest first. A part's output is printed when it ends, so that parts do not mix; every part runs, whatever fails, and
// the exit status is 1 when any did.
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// atOnce is how many parts run at the same time. Scenarios mostly wait, so three share two cores.
const atOnce = 3

// What only one part at a time may use.
const (
	// processors are what compiling and checking take all of.
	processors = "processors"
	// realNodes are kubelets and containerd. Those of two clusters side by side keep each other busy in the kernel.
	realNodes = "real nodes"
)

// step is a part of the run, and what it may not share.
type step struct{ target, exclusive string }

// stages follow one another. The steps of a stage begin in the order they have here, and one that would have to share what it may not
// lets others pass.
//
// Generating rewrites files that other parts read, so it is a stage of its own; so is the calibration, which compares times with
// those of a simulation.
var stages = [][]step{
	{{target: "tools"}},
	{{target: "generated"}},
	{
		{target: "e2e-recovery"}, {"e2e-install", realNodes}, {target: "e2e-calendar"},
		{"lint", processors}, {"race", processors}, {"test-release", processors}, {target: "e2e-demo"}, {"e2e-scans", realNodes},
		{"unit", processors}, {target: "e2e-scheduler"}, {target: "e2e-compat"},
	},
	{{target: "e2e-calibration"}},
}

// reportEvery is how often the parts that run are named.
const reportEvery = time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r := run{begin: time.Now(), out: os.Stdout, running: map[string]time.Time{}}
	go r.reportRunning(ctx)
	for _, steps := range stages {
		q := newQueue(steps)
		var all sync.WaitGroup
		for range min(atOnce, len(steps)) {
			all.Go(func() {
				for s, ok := q.next(); ok; s, ok = q.next() {
					if ctx.Err() == nil {
						r.part(ctx, s.target)
					}
					q.ended(s)
				}
			})
		}
		all.Wait()
		if ctx.Err() != nil || r.failed("tools") {
			break // nothing runs without the tools
		}
	}
	if !r.summarize() || ctx.Err() != nil {
		os.Exit(1)
	}
}

// queue hands out the steps of a stage. It is safe for concurrent use.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []step
	taken   map[string]bool
}

func newQueue(steps []step) *queue {
	q := &queue{waiting: slices.Clone(steps), taken: map[string]bool{}}
	q.changed.L = &q.mu
	return q
}

// next returns the first step that has what it needs to itself, and waits for one. It is not ok when none is left.
func (q *queue) next() (s step, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 {
		if i := slices.IndexFunc(q.waiting, func(s step) bool { return !q.taken[s.exclusive] }); i >= 0 {
			s = q.waiting[i]
			q.waiting = slices.Delete(q.waiting, i, i+1)
			q.taken[s.exclusive] = s.exclusive != ""
			return s, true
		}
		q.changed.Wait()
	}
	return step{}, false
}

// ended lets other steps use what s had to itself.
func (q *queue) ended(s step) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken[s.exclusive] = false
	q.changed.Broadcast()
}

// run is the state of a run. It is safe for concurrent use.
type run struct {
	begin time.Time

	mu      sync.Mutex
	out     io.Writer
	running map[string]time.Time
	ended   []part
}

type part struct {
	name string
	took time.Duration
	err  error
}

// part runs a target, and prints its output.
func (r *run) part(ctx context.Context, name string) {
	begin := time.Now()
	r.mu.Lock()
	r.running[name] = begin
	fmt.Fprintf(r.out, "--- %s begins after %s\n", name, begin.Sub(r.begin).Round(time.Second))
	r.mu.Unlock()

	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", name)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	// A group of its own, so that all that the target started is told to end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	err := cmd.Run()

	r.mu.Lock()
	defer r.mu.Unlock()
	took := time.Since(begin)
	delete(r.running, name)
	r.ended = append(r.ended, part{name, took, err})
	fmt.Fprintf(r.out, "%s--- %s: %s after %s\n", output.Bytes(), name, verdict(err), took.Round(time.Second))
}

// reportRunning names from time to time what runs, until ctx ends.
func (r *run) reportRunning(ctx context.Context) {
	for tick := time.NewTicker(reportEvery); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.printRunning()
		}
	}
}

func (r *run) printRunning() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name, since := range r.running {
		names = append(names, fmt.Sprintf("%s for %s", name, time.Since(since).Round(time.Second)))
	}
	slices.Sort(names)
	fmt.Fprintf(r.out, "--- %s: running %s\n", time.Since(r.begin).Round(time.Second), strings.Join(names, ", "))
}

func (r *run) failed(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.ended, func(p part) bool { return p.name == name && p.err != nil })
}

// summarize prints the table of times, and reports whether all parts passed.
func (r *run) summarize() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.ended, func(a, b part) int { return cmp.Compare(b.took, a.took) })
	failed := 0
	fmt.Fprintf(r.out, "\n%-18s %8s\n", "part", "seconds")
	for _, p := range r.ended {
		if p.err != nil {
			failed++
		}
		fmt.Fprintf(r.out, "%-18s %8.0f  %s\n", p.name, p.took.Seconds(), verdict(p.err))
	}
	fmt.Fprintf(r.out, "%-18s %8.0f\n\nparts: %d passed, %d failed\n", "all", time.Since(r.begin).Seconds(), len(r.ended)-failed, failed)
	return failed == 0
}

func verdict(err error) string {
	if err != nil {
		return "FAILED, " + err.Error()
	}
	return "passed"
}
