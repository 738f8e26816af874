package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
	"github.com/ebbtide-dev/ebbtide/scaler/sizing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// sets of kinds that can be compared.
var sets = []string{"rules", "peers", "stay", "surplus", "karpenter", "room", "faults"}

// change is a part of a kind.
type change = func(*simulator.System)

func all(changes ...change) change {
	return func(s *simulator.System) {
		for _, c := range changes {
			c(s)
		}
	}
}

// scaler is Ebbtide's with limits at all hours, or from 06:50 to 19:00 from Monday to Friday.
func scaler(bounds calendar.Bounds, office bool) (change, error) {
	spec := &calendar.Spec{Default: bounds}
	if office {
		spec = &calendar.Spec{TimeZone: officeZone, Periods: []calendar.Period{{
			Name: "office", Days: []string{"Mon-Fri"}, Hours: calendar.Hours{From: "07:00", To: "19:00", LeadTime: 10 * time.Minute}, Bounds: bounds,
		}}}
	}
	limits, errs := calendar.New(spec, 100_000, nil)
	if len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	return func(s *simulator.System) {
		s.Scaler = simulator.Ebbtide(limits, sizing.Parameters{MessagesPerReplica: 1})
	}, nil
}

// several messages per worker, the oldest worker first.
func several(idle time.Duration) change {
	return func(s *simulator.System) {
		s.Worker.MaxMessages, s.Worker.IdleTimeout, s.Worker.OldestFirst = 0, idle, true
	}
}

// rules are all three, changed.
func rules(how func(*simulator.Rules)) change {
	return func(s *simulator.System) {
		several(10 * time.Second)(s)
		s.Rules = simulator.ThreeRules()
		if how != nil {
			how(s.Rules)
		}
	}
}

func packer(name string) change { return func(s *simulator.System) { s.Packer = name } }

// kinds are those of a set; the first is what the others are beside.
func kinds(set string, poll time.Duration) ([]kind, error) {
	ours, err := scaler(calendar.Bounds{}, false)
	if err != nil {
		return nil, err
	}
	accurate, err := keda.NewStrategy("accurate")
	if err != nil {
		return nil, err
	}
	base := all(ours, func(s *simulator.System) { s.PollEvery, s.Worker.IdleTimeout = poll, 5*time.Second })
	peer := func(s *simulator.System) {
		s.Scaler, s.Strategy, s.Packer = simulator.RabbitMQ(false), accurate, "most-allocated"
	}
	three := rules(nil)
	var list []kind
	add := func(name string, changes ...change) {
		list = append(list, kind{name, all(append([]change{base}, changes...)...)})
	}
	surplus := func(text string) change {
		c, e := scaler(calendar.Bounds{Surplus: text}, false)
		if e != nil {
			err = e
			return base
		}
		return c
	}
	add("one message a pod")
	switch set {
	case "rules", "peers":
		add("KEDA accurate, MostAllocated", peer)
		add("the same, several messages", peer, several(5*time.Second))
		add("several messages, idle 30s", several(30*time.Second))
		add("the three rules", three)
		if set == "peers" {
			break
		}
		add("and surplus 1", three, surplus("1"))
		add("and surplus 30%", three, surplus("30%"))
		add("without staying", rules(func(r *simulator.Rules) { r.Stay.Longest = r.Stay.AfterWork }))
		add("without giving way", rules(func(r *simulator.Rules) { r.GiveWay = false }))
		add("without drains", rules(func(r *simulator.Rules) { r.Every = 0 }))
	case "stay":
		for _, longest := range []time.Duration{20 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute} {
			for _, after := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second} {
				add(fmt.Sprintf("stay %s, after work %s", longest, after), rules(func(r *simulator.Rules) { r.Stay.Longest, r.Stay.AfterWork = longest, after }))
			}
		}
	case "surplus":
		for _, text := range []string{"1", "2", "5", "10%", "30%", "60%", "100%"} {
			add("surplus "+text, surplus(text))
		}
		add("the three rules", three)
		for _, text := range []string{"1", "2", "5", "10%", "30%", "60%", "100%"} {
			add("the three rules, surplus "+text, three, surplus(text))
		}
	case "karpenter":
		list = nil
		for _, policy := range simulator.Consolidations() {
			for _, after := range []time.Duration{0, 30 * time.Second, 2 * time.Minute, 5 * time.Minute} {
				settings := func(s *simulator.System) {
					s.Nodes.Consolidation = policy
					s.Nodes.Delay = simulator.Range{Min: after + 15*time.Second, Max: after + 15*time.Second} // and its validation
				}
				name := policy + " " + after.String()
				if after != 30*time.Second && policy != simulator.WhenEmpty {
					continue
				}
				add(name+", spread", packer("spread"), settings)
				add(name+", MostAllocated", packer("most-allocated"), settings)
				add(name+", DrainPack", settings)
				add(name+", the three rules", three, settings)
			}
		}
		list[0], list[4] = list[4], list[0] // the usual setting first: consolidateAfter 30s
	case "room":
		for _, n := range []int64{4, 8, 16, 32} {
			idle, e := scaler(calendar.Bounds{IdleReplicas: new(int32(n))}, true)
			if e != nil {
				return nil, e
			}
			floor, e := scaler(calendar.Bounds{MinReplicas: new(int32(n))}, true)
			if e != nil {
				return nil, e
			}
			add(fmt.Sprintf("room for %d pods", n), room(n))
			add(fmt.Sprintf("idleReplicas %d", n), several(30*time.Second), idle)
			add(fmt.Sprintf("the three rules, room for %d pods", n), three, room(n))
			add(fmt.Sprintf("the three rules, idleReplicas %d", n), three, idle)
			add(fmt.Sprintf("the three rules, minReplicas %d", n), three, floor)
		}
		add("the three rules", three)
	case "faults":
		broken := func(s *simulator.System) { s.Faults = simulator.Faults{Crashes: 0.01, NodeLossPerHour: 0.2} }
		list = nil
		add("one message a pod", broken)
		add("KEDA accurate, MostAllocated", peer, broken)
		add("the same, several messages", peer, several(5*time.Second), broken)
		add("several messages, idle 30s", several(30*time.Second), broken)
		add("the three rules", three, broken)
	default:
		return nil, fmt.Errorf("-set %s: want one of %s", set, strings.Join(sets, ", "))
	}
	return list, err
}

// room for so many scans of a core at office hours, as a CapacityBuffer keeps it.
func room(pods int64) change {
	return func(s *simulator.System) {
		zone, err := calendar.LoadZone(officeZone)
		if err != nil {
			panic(err) // it was loaded before
		}
		s.Nodes.Buffer = &simulator.Buffer{Pod: packing.Amounts{1000, 2 << 30, 0, 1}, Pods: func(now time.Time) int64 {
			now = now.In(zone)
			minutes := now.Hour()*60 + now.Minute()
			if day := now.Weekday(); day == time.Saturday || day == time.Sunday || minutes < 6*60+50 || minutes >= 19*60 {
				return 0
			}
			return pods
		}}
	}
}
