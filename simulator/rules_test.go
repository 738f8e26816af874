package simulator

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// withRules has workers that follow all three rules.
func withRules(s *System) {
	s.Worker.MaxMessages, s.Worker.OldestFirst, s.Rules = 0, true, ThreeRules()
}

// Every message is done with the rules too, whatever dies on the way, and no node that is there is left draining for nobody.
func TestRulesSettleAll(t *testing.T) {
	var all Drains
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 5))
		s := Defaults()
		s.Scaler, s.Seed, s.QueuePerClass, s.PollEvery = ours(t), seed, seed%2 == 0, time.Duration(2+random.IntN(20))*time.Second
		s.Faults = Faults{Crashes: random.Float64() * 0.05, NodeLossPerHour: random.Float64()}
		s.Nodes.Shapes = []Shape{NewShape("4x", packing.Amounts{4000, 16 << 30, 0, 110}, DefaultOverhead, 0.19)}
		s.Packer = Packers()[random.IntN(len(Packers()))]
		withRules(&s)
		out, err := s.Run(scans(500, seed))
		if err != nil {
			t.Fatal(err)
		}
		if out.Unserved > 0 || out.RatioToBound < 1 {
			t.Errorf("seed %d, %s: %+v", seed, s.Packer, out)
		}
		d := out.Drains
		if d.Begun < d.Finished+d.Stopped || d.Begun > d.Finished+d.Stopped+out.PeakNodes {
			t.Errorf("seed %d, %s: %+v do not add up", seed, s.Packer, d)
		}
		all.Begun, all.Finished, all.Stopped, all.Left, all.Yields = all.Begun+d.Begun, all.Finished+d.Finished, all.Stopped+d.Stopped, all.Left+d.Left, all.Yields+d.Yields
	}
	if all.Finished < 20 || all.Stopped < 20 || all.Left < 20 || all.Yields < 5 {
		t.Errorf("%+v: the loads test too little", all)
	}
}

// An idle worker gives way to a pod of another queue, and no node is made for it. Nodes hold one pod; the first worker is idle when the second
// queue's message comes.
func TestGiveWayByHand(t *testing.T) {
	play := func(change func(*System)) Outcome {
		s := Defaults()
		s.Scaler, s.QueuePerClass, s.PollEvery = ours(t), true, 5*time.Second
		s.Nodes.Shapes = []Shape{{Name: "one", Capacity: packing.Amounts{1000, 4 << 30, 0, 10}, Price: 1}}
		withRules(&s)
		s.Worker.Connect = Range{Min: 2 * time.Second}
		s.Rules.Stay.AfterWork = s.Rules.Stay.Longest
		change(&s)
		out, err := s.Run([]Job{
			{Run: 30 * time.Second, Class: "a", Requests: requests(1000, 1024)},
			{Start: 2 * time.Minute, Run: 30 * time.Second, Class: "b", Requests: requests(1000, 1024)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	with, without := play(func(*System) {}), play(func(s *System) { s.Rules.GiveWay = false })
	if with.PeakNodes != 1 || with.Drains.Yields != 1 || with.Wait.Mean >= without.Wait.Mean-10 {
		t.Errorf("%d nodes, %+v, mean wait %.1f s; without giving way %.1f s", with.PeakNodes, with.Drains, with.Wait.Mean, without.Wait.Mean)
	}
	if without.PeakNodes != 2 || without.Drains.Yields != 0 {
		t.Errorf("without giving way: %d nodes, %+v", without.PeakNodes, without.Drains)
	}
	// Where the worker takes longer than it was given, a node is made as if nothing had been promised.
	late := play(func(s *System) { s.Rules.Answer = 50 * time.Second })
	if late.PeakNodes != 2 || late.Wait.Mean > without.Wait.Mean+late3/2 {
		t.Errorf("a broken promise: %d nodes, mean wait %.1f s, %.1f s without any", late.PeakNodes, late.Wait.Mean, without.Wait.Mean)
	}
}

// late3 is how much longer a pod waits whose promise is broken, in seconds: the promise, and a batch.
const late3 = 4.0

// What the figures promise of the three rules, on a week of one queue and one of five: about the cost of a pod for each message, and much less
// of its mean wait; with one queue less of both than KEDA at its best, and than workers that take several messages without rules.
func TestThreeRulesPay(t *testing.T) {
	accurate, err := keda.NewStrategy("accurate")
	if err != nil {
		t.Fatal(err)
	}
	for _, queues := range []bool{false, true} {
		play := func(change func(*System)) Outcome {
			var outs []Outcome
			for seed := range uint64(2) {
				trace := Weeks(rand.New(rand.NewPCG(seed, 0)), 1, 2000, time.UTC)
				s := Defaults()
				s.Scaler, s.Seed, s.Origin, s.QueuePerClass, s.PollEvery, s.Worker.IdleTimeout = ours(t), seed, trace.Origin, queues, 5*time.Second, 5*time.Second
				change(&s)
				out, err := s.Run(trace.Jobs)
				if err != nil {
					t.Fatal(err)
				}
				outs = append(outs, out)
			}
			return Mean(outs)
		}
		one, rules := play(func(*System) {}), play(withRules)
		peers := map[string]Outcome{
			"KEDA": play(func(s *System) { s.Scaler, s.Strategy, s.Packer = RabbitMQ(false), accurate, "most-allocated" }),
			"KEDA, go on": play(func(s *System) {
				s.Scaler, s.Strategy, s.Packer, s.Worker.MaxMessages, s.Worker.OldestFirst = RabbitMQ(false), accurate, "most-allocated", 0, true
			}),
			"as today": play(func(s *System) {
				s.Worker.MaxMessages, s.Worker.OldestFirst, s.Worker.IdleTimeout = 0, true, 30*time.Second
			}),
		}
		cost, wait := 1.02, 0.6
		if queues {
			cost, wait = 1.06, 0.75
		}
		if rules.Cost > cost*one.Cost || rules.Wait.Mean > wait*one.Wait.Mean || rules.Wait.P95 > one.Wait.P95 {
			t.Errorf("queues %v: the rules cost %.2f, one message a pod %.2f; waits %+v and %+v", queues, rules.Cost, one.Cost, rules.Wait, one.Wait)
		}
		for name, peer := range peers {
			if !queues && (rules.Cost > peer.Cost || rules.Wait.Mean > peer.Wait.Mean) {
				t.Errorf("queues %v: the rules cost %.2f with a mean wait of %.1f s, %s %.2f with %.1f s", queues, rules.Cost, rules.Wait.Mean, name, peer.Cost, peer.Wait.Mean)
			}
		}
		if rules.Drains.Begun == 0 {
			t.Errorf("queues %v: nothing drained", queues)
		}
	}
}
