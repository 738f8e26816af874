package scans

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/scaler/decision"
)

// view shows a demo while it runs: redrawn in place on a terminal, one line a second elsewhere.
type view struct {
	out      io.Writer
	terminal bool
	cluster  *cluster.Cluster
	observed *Observer
	settled  *Settlements
	begin    time.Time
	drawn    int // lines of the last drawing
}

func newView(out io.Writer, c *cluster.Cluster, observed *Observer, settled *Settlements) *view {
	file, ok := out.(*os.File)
	return &view{
		out: out, terminal: ok && term.IsTerminal(int(file.Fd())), cluster: c, observed: observed, settled: settled,
		begin: time.Now(),
	}
}

// start draws once a second until the returned function is called.
func (v *view) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				v.draw(ctx)
			}
		}
	}()
	return sync.OnceFunc(func() { cancel(); <-done })
}

func (v *view) draw(ctx context.Context) {
	s, last := v.observed.Snapshot(), v.decision(ctx)
	sent, done := v.settled.Sent(), v.settled.Done()
	elapsed := time.Since(v.begin).Round(time.Second)
	if !v.terminal {
		fmt.Fprintf(v.out, "%4.0fs  sent %3d  done %3d  ready %3d  in flight %3d  target %3d (%s)  jobs %3d unfinished, %3d in all  "+
			"pods pending %2d, per node %v\n", elapsed.Seconds(), sent, done, last.Ready, last.InFlight, last.Target,
			last.Constraint, s.UnfinishedJobs, s.Jobs, s.Pending, PerNode(s))
		return
	}
	lines := []string{
		fmt.Sprintf("%-10s %s   messages sent %d, done %d of %d", "time", elapsed, sent, done, MorningMessages),
		fmt.Sprintf("%-10s ready %d, in flight %d", "backlog", last.Ready, last.InFlight),
		fmt.Sprintf("%-10s %d: %s", "target", last.Target, last.Reason),
		fmt.Sprintf("%-10s %d unfinished, %d created", "jobs", s.UnfinishedJobs, s.Jobs),
		fmt.Sprintf("%-10s %d pending", "pods", s.Pending),
	}
	names := make([]string, 0, len(s.PodsOnNode))
	for name := range s.PodsOnNode {
		names = append(names, name)
	}
	slices.Sort(names)
	lines = append(lines, fmt.Sprintf("%-10s %d", "nodes", len(names)))
	for _, name := range names {
		lines = append(lines, fmt.Sprintf("  %-56s %s", name, strings.Repeat("█", s.PodsOnNode[name])))
	}
	if v.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA", v.drawn)
	}
	for _, line := range lines {
		fmt.Fprintf(v.out, "\x1b[2K%s\n", line)
	}
	fmt.Fprint(v.out, "\x1b[J")
	v.drawn = len(lines)
}

// PerNode are the pods per node, fullest first.
func PerNode(s Snapshot) []int {
	counts := make([]int, 0, len(s.PodsOnNode))
	for _, n := range s.PodsOnNode {
		counts = append(counts, n)
	}
	slices.SortFunc(counts, func(a, b int) int { return b - a })
	return counts
}

// decision asks the scaler for its newest decision; the zero value when it has none yet.
func (v *view) decision(ctx context.Context) decision.View {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	url := v.cluster.DecisionsURL() + "?namespace=" + Namespace + "&policy=scans&limit=1"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return decision.View{}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return decision.View{} // the view works without it
	}
	defer response.Body.Close()
	var list decision.Views
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil || len(list.Decisions) == 0 {
		return decision.View{}
	}
	return list.Decisions[0]
}
