package sizing

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ebbtide-dev/ebbtide/internal/doctable"
	"github.com/ebbtide-dev/ebbtide/internal/keda"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// A replay sends messages to a queue, lets KEDA start jobs for them by its own arithmetic, second by second, and counts
// what came of it. Jobs take time to boot (half of it until the pod runs, half until its worker consumes), and a little to be seen as finished once their worker has left the queue;
// statistics lag; KEDA's own view of jobs is a moment old, and so may be the sample of the queue, where others have just asked for it;
// workers crash, and their message is delivered again.

// metric is what a trigger reports for a queue.
type metric func(q *queue) int64

// metrics are those that exist for a RabbitMQ queue.
var metrics = map[string]metric{
	// KEDA's rabbitmq trigger over AMQP
	"rabbitmq, AMQP": func(q *queue) int64 { return q.ready },
	// KEDA's rabbitmq trigger over HTTP: a statistic, up to five seconds old
	"rabbitmq, HTTP": func(q *queue) int64 { return q.statistic },
	"ebbtide": func(q *queue) int64 {
		d := Decide(now, Observation{Time: now, Ready: q.ready, Consumers: q.consumers}, nil, q.limits, Parameters{MessagesPerReplica: 1}, 0)
		return int64(d.Target)
	},
}

// queue is what can be seen of a queue.
type queue struct {
	ready, consumers int64
	statistic        int64 // ready + unacknowledged, as of the last tick of five seconds
	limits           calendar.Limits
}

// load is how messages come and how long things take, in seconds.
type load struct {
	seed                   uint64
	messages               int
	perSecond              float64 // trickle
	burst                  int     // at most
	bootMin, bootMax       int
	workMin                int
	workMean               float64
	poll, stale            int // stale: how old KEDA's view of jobs is; less than poll
	crashes                float64
	maxReplicas            int64
	sampleAge              int // of what the metric is made of
	leavingMin, leavingMax int // from leaving the queue until the Job is seen as finished
}

// outcome is what came of a replay.
type outcome struct {
	jobs, empty, taken, redelivered int
	waits                           []int
}

type job struct {
	created, running, starts, leaves, finished int
	taken                                      bool
	crash                                      bool
}

func replay(l load, m metric, strategy string) outcome {
	s, err := keda.NewStrategy(strategy)
	if err != nil {
		panic(err)
	}
	random := rand.New(rand.NewPCG(l.seed, 0))
	q := &queue{limits: calendar.Limits{MaxReplicas: int32(l.maxReplicas)}}
	var waiting []int // since when
	var jobs []*job   // unfinished, or finished a moment ago
	var out outcome
	sent := 0
	past := make([]queue, l.sampleAge+1) // the oldest first
	for second := 0; sent < l.messages || len(jobs) > 0 || len(waiting) > 0; second++ {
		if second > 1_000_000 {
			break // starved
		}
		for n := arrivals(random, l); n > 0 && sent < l.messages; n-- {
			waiting = append(waiting, second)
			sent++
		}
		q.consumers = 0
		var unacknowledged int64
		for _, j := range jobs {
			if j.starts == second {
				if len(waiting) == 0 {
					out.empty++
					j.leaves = second
				} else {
					out.waits = append(out.waits, second-waiting[0])
					waiting = waiting[1:]
					j.taken, out.taken = true, out.taken+1
					j.leaves = second + l.workMin + int(random.ExpFloat64()*l.workMean)
					j.crash = random.Float64() < l.crashes
				}
				j.finished = j.leaves + l.leavingMin + random.IntN(l.leavingMax-l.leavingMin+1)
			}
			if j.taken && j.leaves == second && j.crash { // delivered again, at the front
				waiting = slices.Insert(waiting, 0, second)
				out.redelivered++
			}
			if j.starts <= second && second < j.leaves {
				q.consumers++
				unacknowledged++
			}
		}
		q.ready = int64(len(waiting))
		if second%5 == 1 { // just after a poll that is as frequent
			q.statistic = q.ready + unacknowledged
		}
		past = append(past[1:], *q)
		jobs = slices.DeleteFunc(jobs, func(j *job) bool { return j.finished+l.stale < second })
		if second%l.poll != 0 {
			continue
		}
		var unfinished, pending int64
		for _, j := range jobs {
			if seen := second - l.stale; j.created <= seen && seen < j.finished {
				unfinished++
				if seen < j.running {
					pending++
				}
			}
		}
		for range s.Create(m(&past[0]), keda.Jobs{Unfinished: unfinished, Pending: pending, Max: l.maxReplicas}) {
			boot := l.bootMin + random.IntN(l.bootMax-l.bootMin+1)
			jobs = append(jobs, &job{created: second, running: second + boot/2, starts: second + boot, leaves: math.MaxInt, finished: math.MaxInt - 100})
			out.jobs++
		}
	}
	return out
}

// arrivals are how many messages a second brings.
func arrivals(random *rand.Rand, l load) int {
	n := 0
	for p := l.perSecond; p > 0; p-- {
		if random.Float64() < p {
			n++
		}
	}
	if random.IntN(300) == 0 {
		n += 1 + random.IntN(l.burst)
	}
	return n
}

// With strategy default, every message gets a job and no job finds none, whatever goes wrong on the way. A sample may be as old as a
// Job takes at least to be finished when its worker has left the queue.
func TestReplayJobsMatchMessages(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		poll, age := 1+random.IntN(10), random.IntN(3)
		l := load{
			seed: seed, messages: 400, perSecond: random.Float64() * 0.6, burst: 1 + random.IntN(80), bootMin: 1,
			bootMax: 1 + random.IntN(90), workMin: 1, workMean: 1 + random.Float64()*40, poll: poll, stale: random.IntN(poll),
			crashes: random.Float64() * 0.1, maxReplicas: int64(1 + random.IntN(60)), sampleAge: age, leavingMin: age,
			leavingMax: age + random.IntN(4),
		}
		got := replay(l, metrics["ebbtide"], "default")
		if got.empty > 0 {
			t.Fatalf("%+v: %d of %d jobs found no message", l, got.empty, got.jobs)
		}
		if got.taken != l.messages+got.redelivered || got.jobs != got.taken {
			t.Fatalf("%+v: %d messages, delivered again %d, taken %d, by %d jobs", l, l.messages, got.redelivered, got.taken, got.jobs)
		}
	}
}

// The table of the documentation is what the replay says.
func TestReplayTable(t *testing.T) {
	l := load{
		seed: 1, messages: 10_000, perSecond: 0.4, burst: 60, bootMin: 20, bootMax: 70, workMin: 3, workMean: 40, poll: 5, stale: 1,
		crashes: 0.01, maxReplicas: 200, leavingMin: 1, leavingMax: 2,
	}
	var table strings.Builder
	fmt.Fprintln(&table, "| trigger | strategy | jobs a message | jobs that found none | wait p50 / p95 |")
	fmt.Fprintln(&table, "|---|---|---|---|---|")
	results := map[string]outcome{}
	for _, trigger := range []string{"rabbitmq, AMQP", "rabbitmq, HTTP", "ebbtide"} {
		for _, name := range []string{"default", "accurate", "eager", "custom"} {
			got := replay(l, metrics[trigger], name)
			results[trigger+" "+name] = got
			slices.Sort(got.waits)
			percentile := func(p int) int { return got.waits[len(got.waits)*p/100] }
			fmt.Fprintf(&table, "| %s | `%s` | %.3f | %.1f%% | %d / %d s |\n", trigger, name,
				float64(got.jobs)/float64(l.messages+got.redelivered), 100*float64(got.empty)/float64(got.jobs), percentile(50), percentile(95))
		}
	}
	// What the project is for, on this load.
	ours := results["ebbtide default"]
	if ours.empty != 0 {
		t.Errorf("%d jobs found no message", ours.empty)
	}
	for name, got := range results {
		if got.empty == 0 && name != "ebbtide default" && name != "ebbtide custom" && slices.Max(got.waits) < slices.Max(ours.waits) {
			t.Errorf("%s is faster, without an empty job", name)
		}
	}
	doctable.Check(t, "../../docs/design/target.md", "replay", table.String())
}
