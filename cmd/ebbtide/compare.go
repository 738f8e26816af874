package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/policy"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

func compareCommand() *cobra.Command {
	var f trialFlags
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Compare a policy with what you run today on the same workload",
		Long: `Replays a workload with KEDA's own rabbitmq trigger (over AMQP and HTTP, strategies default and accurate, also with MostAllocated, and with cron
triggers for the policy's floors as a careful user writes them), with a pool of a fixed size, with Ebbtide without a calendar, and with Ebbtide with
the stock scheduler, with MostAllocated and with DrainPack.

An asterisk in the last column marks the front: no other configuration has a shorter p95 wait without more node-hours, or fewer node-hours
without a longer wait, by more than 1% and by more than random variation (two standard errors of the difference over --runs seeds). Those that
differ less in both are equal. With fewer than 100 messages nothing is marked.`,
		Example: `  ebbtide compare --trace month.csv -f policy.yaml
  ebbtide compare --generate weeks=4,perDay=2000 --report compare.html -o json`,
		Args: cobra.NoArgs,
	}
	f.add(cmd, 5)
	static := cmd.Flags().Int64("static", 0, "size of the fixed pool for all queues; default: enough for all messages at once in 99% of the time")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.run(cmd, func(system simulator.System, trace simulator.Trace, policies []*policy.Policy) ([]trial, error) {
			pools, err := staticPools(trace, *static, system.QueuePerClass)
			if err != nil {
				return nil, err
			}
			return comparison(system, policies, pools, f.system.idleTimeoutGiven(), f.rules)
		})
	}
	return cmd
}

// peersIdleFor is the idle timeout of KEDA's rows without a floor: a job that finds no message should not stay.
const peersIdleFor = 5 * time.Second

// comparison is a load's trials; those with rules are there when they are wanted.
func comparison(system simulator.System, policies []*policy.Policy, pools map[string]int64, idleTimeoutGiven, rules bool) ([]trial, error) {
	var trials []trial
	add := func(name string, ours bool, change func(*simulator.System)) {
		s := system
		s.Packer = "spread"
		change(&s)
		trials = append(trials, trial{Name: name, System: s, Ours: ours})
	}
	peer := func(name string, change func(*simulator.System)) {
		add("keda rabbitmq "+name, false, func(s *simulator.System) {
			if !idleTimeoutGiven {
				s.Worker.IdleTimeout = peersIdleFor
			}
			change(s)
		})
	}
	accurate, err := keda.NewStrategy("accurate")
	if err != nil {
		return nil, err
	}
	total := int64(0)
	for _, pool := range pools {
		total += pool
	}
	add(fmt.Sprintf("static pool of %d", total), false, func(s *simulator.System) {
		s.Scaler, s.Worker.MaxMessages, s.Worker.IdleTimeout = simulator.Static(pools), 0, 365*24*time.Hour
	})
	peer("AMQP, default", func(s *simulator.System) { s.Scaler = simulator.RabbitMQ(false) })
	peer("HTTP, default", func(s *simulator.System) { s.Scaler = simulator.RabbitMQ(true) })
	peer("AMQP, accurate", func(s *simulator.System) { s.Scaler, s.Strategy = simulator.RabbitMQ(false), accurate })
	peer("AMQP, accurate, MostAllocated", func(s *simulator.System) {
		s.Scaler, s.Strategy, s.Packer = simulator.RabbitMQ(false), accurate, "most-allocated"
	})
	peer("AMQP, accurate, MostAllocated, reuse", func(s *simulator.System) {
		s.Scaler, s.Strategy, s.Packer, s.Worker.MaxMessages = simulator.RabbitMQ(false), accurate, "most-allocated", 0
	})
	if reactive, err := reactivePolicy(); err != nil {
		return nil, err
	} else if !slices.ContainsFunc(policies, func(p *policy.Policy) bool { return p.Name == reactive.Name }) {
		add("ebbtide reactive, DrainPack", true, func(s *simulator.System) {
			s.Scaler, s.Packer = simulator.Ebbtide(reactive.Calendar, reactive.Target), "drainpack"
		})
	}
	for _, p := range policies {
		triggers, err := cronTriggers(p)
		if err != nil {
			return nil, err
		}
		if len(triggers) > 0 {
			// Workers of a floor stay for messages to come, as ours do.
			cron := func(packer string) func(*simulator.System) {
				return func(s *simulator.System) {
					s.Scaler, s.Packer = simulator.WithCron(simulator.RabbitMQ(true), triggers...), packer
				}
			}
			add("keda rabbitmq HTTP + cron of "+p.Name.Name, false, cron("spread"))
			add("keda rabbitmq HTTP + cron of "+p.Name.Name+", MostAllocated", false, cron("most-allocated"))
		}
		ours := simulator.Ebbtide(p.Calendar, p.Target)
		name := "ebbtide " + p.Name.Name
		add(name+", stock scheduler", true, func(s *simulator.System) { s.Scaler = ours })
		add(name+", MostAllocated", true, func(s *simulator.System) { s.Scaler, s.Packer = ours, "most-allocated" })
		add(name+", DrainPack", true, func(s *simulator.System) { s.Scaler, s.Packer = ours, "drainpack" })
		add(name+", DrainPack, reuse", true, func(s *simulator.System) {
			s.Scaler, s.Packer, s.Worker.MaxMessages, s.Worker.IdleTimeout, s.Worker.OldestFirst = ours, "drainpack", 0, 30*time.Second, true
		})
		if rules {
			add(name+", DrainPack, rules", true, func(s *simulator.System) {
				s.Scaler, s.Packer = ours, "drainpack"
				followRules(s)
			})
		}
	}
	return trials, nil
}

// staticPools are the sizes of a fixed pool, total workers together. With a queue for each class every class has workers of its own, one at
// least, shared out by how many it needs. A total of 0 is what 99% of the time is enough for each queue.
func staticPools(trace simulator.Trace, total int64, queuePerClass bool) (map[string]int64, error) {
	byClass := map[string][]simulator.Job{}
	for _, job := range trace.Jobs {
		class := ""
		if queuePerClass {
			class = job.Class
		}
		byClass[class] = append(byClass[class], job)
	}
	pools, sum := map[string]int64{}, int64(0)
	for class, jobs := range byClass {
		pools[class] = concurrency(jobs, 0.99)
		sum += pools[class]
	}
	if total == 0 {
		return pools, nil
	}
	if total < int64(len(pools)) {
		return nil, fmt.Errorf("--static is %d, want at least one worker for each of the %d classes that have a queue", total, len(pools))
	}
	return shares(pools, sum, total), nil
}

// shares are parts of a total by weight, whole and at least 1 each, whose sum is the total: the largest remainders are rounded up.
func shares(weights map[string]int64, sum, total int64) map[string]int64 {
	names := slices.Sorted(maps.Keys(weights))
	parts, left := map[string]int64{}, total
	exact := func(name string) float64 { return float64(total) * float64(weights[name]) / float64(sum) }
	for _, name := range names {
		parts[name] = max(1, int64(exact(name)))
		left -= parts[name]
	}
	for ; left != 0; left -= int64(cmp.Compare(left, 0)) {
		if left > 0 {
			neediest := slices.MaxFunc(names, func(a, b string) int {
				return cmp.Compare(exact(a)-float64(parts[a]), exact(b)-float64(parts[b]))
			})
			parts[neediest]++
			continue
		}
		richest := slices.MaxFunc(names, func(a, b string) int {
			over := func(name string) float64 {
				if parts[name] == 1 {
					return math.Inf(-1)
				}
				return float64(parts[name]) - exact(name)
			}
			return cmp.Compare(over(a), over(b))
		})
		parts[richest]--
	}
	return parts
}

// concurrency is how many messages are worked on at once for a share of the time, when none has to wait. Time without any is left out.
func concurrency(jobs []simulator.Job, share float64) int64 {
	type change struct {
		at    time.Duration
		delta int
	}
	var changes []change
	for _, job := range jobs {
		changes = append(changes, change{job.Start, 1}, change{job.Start + job.Run, -1})
	}
	slices.SortFunc(changes, func(a, b change) int { return int(a.at - b.at) })
	spent, running, total := map[int]time.Duration{}, 0, time.Duration(0)
	for i, c := range changes {
		running += c.delta
		if i+1 < len(changes) && running > 0 {
			spent[running] += changes[i+1].at - c.at
			total += changes[i+1].at - c.at
		}
	}
	below := time.Duration(0)
	for n := 1; ; n++ {
		if below += spent[n]; float64(below) >= share*float64(total) {
			return int64(n)
		}
	}
}
