package recommend

import (
	"context"
	"fmt"
	"time"

	"github.com/ebbtide-dev/ebbtide/simulator"
)

// Table simulates a configuration beside the peer on the same shapes and with one lever changed at a time, on the half of a load from which nothing was
// learned, with queues by the name of the way in which they are shared out and the requests that the load states. The function is called with every result.
func Table(ctx context.Context, trace simulator.Trace, o Options, queues string, shapes ShapeSet, played func(Result)) error {
	cut, err := split(trace, o.Zone)
	if err != nil {
		return err
	}
	learned, later := trace.Until(cut), trace.After(cut)
	classes, requests := classesOf(trace.Jobs), stated(trace.Jobs)
	base := Configuration{Stack: Ours, Shapes: shapes, Queues: oneQueue(classes), Requests: requests, Workers: withRules, Poll: Duration(2 * time.Second)}
	found := queues == base.Queues.Name
	for _, q := range partitions(classes, requests.Of, hoursOf(learned.Jobs)) {
		if q.Name == queues {
			base.Queues, found = q, true
		}
	}
	if !found {
		return fmt.Errorf("queues %q: the load has no such way to share classes out", queues)
	}
	w := &world{trace: later, base: o.System, learn: newFloors(learned, later, &o), most: o.MaxReplicas, zone: o.Zone, removal: o.Removal}
	if w.removal == (simulator.Range{}) {
		w.removal = removal
	}
	seconds := func(n int) Duration { return Duration(time.Duration(n) * time.Second) }
	play := func(name string, change func(*Configuration)) {
		if err != nil || ctx.Err() != nil {
			return
		}
		c := base
		if change(&c); !w.possible(&c) {
			return
		}
		var r Result
		if r, err = w.play(&c, &o.Objective, judgeSeeds); err == nil {
			r.Name = name
			played(r)
		}
	}
	peer := func(workers Workers, after int) func(*Configuration) {
		return func(c *Configuration) { c.Stack, c.Workers, c.ConsolidateAfter = Peer, workers, seconds(after) }
	}
	for _, after := range []int{0, 15, 30} {
		play(fmt.Sprintf("peer, workers keep consuming, consolidateAfter %ds", after), peer(Workers{IdleTimeout: seconds(5)}, after))
		play(fmt.Sprintf("peer, one message a pod, consolidateAfter %ds", after), peer(Workers{MaxMessages: 1, IdleTimeout: seconds(5)}, after))
	}
	play("base: stay, give way, drain; consolidateAfter 0s; polls every 2s", func(*Configuration) {})
	play("one message a pod", func(c *Configuration) { c.Workers = Workers{MaxMessages: 1, IdleTimeout: seconds(5)} })
	for _, n := range []int{5, 30, 120} {
		play(fmt.Sprintf("keep consuming, exit after %ds idle", n), func(c *Configuration) { c.Workers = Workers{IdleTimeout: seconds(n)} })
	}
	for _, n := range []int{15, 30, 60, 300} {
		play(fmt.Sprintf("consolidateAfter %ds", n), func(c *Configuration) { c.ConsolidateAfter = seconds(n) })
	}
	for _, n := range []int{5, 15} {
		play(fmt.Sprintf("polls every %ds", n), func(c *Configuration) { c.Poll = seconds(n) })
	}
	for _, surplus := range surpluses[1:] {
		play("surplus of "+surplus, func(c *Configuration) { c.Surplus = surplus })
	}
	for _, n := range []int32{1, 2, 4} {
		play(fmt.Sprintf("%d idle while there is work", n), func(c *Configuration) { c.Calendar.Reserve = n })
	}
	for _, level := range []float64{0.1, 0.5} {
		play(fmt.Sprintf("floors at %.0f%% of demand", 100*level), func(c *Configuration) { c.Calendar.Level = level })
	}
	for _, n := range []int{15, 60} {
		play(fmt.Sprintf("drainWithin %ds", n), func(c *Configuration) { c.DrainWithin = seconds(n) })
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}
