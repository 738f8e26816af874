package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ebbtide-dev/ebbtide/scaler/decision"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
)

const (
	// sameFor is how close together replicas take the same decision, as KEDA asks more than one of them in a poll.
	sameFor = time.Second
	// lookAgainAfter is how often replicas are looked up again: those that came since are asked too.
	lookAgainAfter = 30 * time.Second
	// rememberFor is how long decisions are known as shown. The scaler keeps none longer that was not shown.
	rememberFor = time.Hour
)

// follower follows the decisions of all replicas of a scaler, which may be replaced meanwhile.
type follower struct {
	reach func(context.Context) ([]string, error)
	list  func(ctx context.Context, addresses []string) ([]decision.View, error)
	now   func() time.Time
	warn  io.Writer

	addresses []string
	release   context.CancelFunc // of the connections to addresses
	reachedAt time.Time
	warned    bool
	seen      map[decisionKey]bool
	newest    map[decisionKey]decision.View // of each policy, without a time
}

// decisionKey tells decisions apart.
type decisionKey struct {
	namespace, policy string
	time              int64
}

// next returns the decisions that were not returned before, each once, whichever replicas took it. Replicas that do not answer are looked
// up again; until there is one it returns none. It fails if there never was one.
func (f *follower) next(ctx context.Context) ([]decision.View, error) {
	if f.addresses == nil || f.now().Sub(f.reachedAt) > lookAgainAfter {
		if err := f.connect(ctx); err != nil {
			return nil, err
		}
	}
	list, err := f.list(ctx, f.addresses)
	if err != nil {
		first := f.seen == nil
		f.disconnect()
		if first || ctx.Err() != nil {
			return nil, err
		}
		f.say("the scaler does not answer, looking for its replicas: %v", err)
		return nil, nil
	}
	if f.warned {
		f.say("the scaler answers again")
		f.warned = false
	}
	return f.fresh(list), nil
}

// connect finds the replicas. An error is no end once there were some.
func (f *follower) connect(ctx context.Context) error {
	f.disconnect()
	reaching, release := context.WithCancel(ctx)
	addresses, err := f.reach(reaching)
	if err != nil {
		release()
		if f.seen == nil || ctx.Err() != nil {
			return err
		}
		f.say("no replica of the scaler can be reached, trying again: %v", err)
		return nil
	}
	f.addresses, f.release, f.reachedAt = addresses, release, f.now()
	return nil
}

func (f *follower) disconnect() {
	if f.release != nil {
		f.release()
	}
	f.addresses, f.release = nil, nil
}

// say warns once, until replicas answer again.
func (f *follower) say(format string, args ...any) {
	if !f.warned || len(args) == 0 {
		fmt.Fprintf(f.warn, format+"\n", args...)
	}
	f.warned = true
}

// fresh leaves out what was returned before, and what another replica decided at the same time.
func (f *follower) fresh(list []decision.View) []decision.View {
	if f.seen == nil {
		f.seen, f.newest = map[decisionKey]bool{}, map[decisionKey]decision.View{}
	}
	found := []decision.View{}
	for _, d := range list {
		policy := decisionKey{namespace: d.Namespace, policy: d.Policy}
		key := policy
		key.time = d.Time.UnixNano()
		if f.seen[key] {
			continue
		}
		f.seen[key] = true
		before, ok := f.newest[policy]
		same := before
		same.Time = d.Time
		if ok && same == d && d.Time.Sub(before.Time).Abs() < sameFor {
			continue
		}
		f.newest[policy] = d
		found = append(found, d)
	}
	forget := f.now().Add(-rememberFor).UnixNano()
	for key := range f.seen {
		if key.time < forget {
			delete(f.seen, key)
		}
	}
	return found
}

// columns prints rows in batches. A column is as wide as its widest cell so far, the last one aside; so the header of the first batch is above its cells.
type columns struct {
	w      io.Writer
	batch  [][]string
	widths []int
}

// row adds a row to the batch.
func (c *columns) row(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = sizing.OneLine(fmt.Sprint(cell)) // a name that holds newlines or tabs forges no row
		if i == len(c.widths) {
			c.widths = append(c.widths, 0)
		}
		c.widths[i] = max(c.widths[i], utf8.RuneCountInString(row[i]))
	}
	c.batch = append(c.batch, row)
}

// flush prints the batch.
func (c *columns) flush() {
	for _, row := range c.batch {
		last := len(row) - 1
		for i, text := range row[:last] {
			fmt.Fprint(c.w, text, strings.Repeat(" ", c.widths[i]-utf8.RuneCountInString(text)+2))
		}
		fmt.Fprintln(c.w, row[last])
	}
	c.batch = nil
}
