// Command recommend recommends configurations for loads, and prints a table of what each decision is worth on each of them. It compares
// with KEDA at its best on nodes of 16 cores: strategy accurate, MostAllocated, workers that leave 5 s after they found no message, polled every 5 s.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
	"github.com/ebbtide-dev/ebbtide/simulator/recommend"
)

func main() {
	data := flag.String("data", "", "folder of recorded loads, CSV files; without it generated weeks alone")
	only := flag.String("only", "", "names of loads, comma-separated; default: all")
	wait := flag.Duration("wait", time.Minute, "objective: 95% of messages wait no longer")
	families := flag.String("families", "", "families of the AWS price list to choose from, comma-separated; default: all")
	copies := flag.Int("copies", 1, "times each recorded job comes, up to half an hour earlier or later")
	weeks := flag.Int("weeks", 4, "weeks that are generated")
	table := flag.String("table", "", "shapes, comma-separated: no recommendation, but what each lever alone is worth on these")
	queues := flag.String("queues", "one queue", "how classes share queues for -table: one queue, a queue for each class, 2 queues by size, ...")
	verbose := flag.Bool("v", false, "say what would change each decision")
	flag.Parse()
	list, err := recommend.ReadPriceList("aws")
	if err != nil {
		log.Fatal(err)
	}
	if *families != "" {
		list.Shapes = slices.DeleteFunc(list.Shapes, func(s recommend.PriceShape) bool { return !strings.Contains(","+*families+",", ","+s.Family+",") })
	}
	candidates, err := list.Candidates(false, recommend.DaemonSets)
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range loads(*data, *copies, *weeks) {
		if *only != "" && !strings.Contains(","+*only+",", ","+l.name+",") {
			continue
		}
		trace, err := l.load()
		if err != nil {
			log.Fatalf("%s: %v", l.name, err)
		}
		o := recommend.Options{
			Zone: zone, Objective: recommend.Objective{Wait: *wait, Quantile: 0.95}, MaxReplicas: 100_000, System: simulator.Defaults(), Candidates: candidates,
			Today: recommend.Configuration{
				Stack: recommend.Peer, Shapes: recommend.ShapeSet{Name: "16 cores, 64 GiB", Shapes: simulator.Defaults().Nodes.Shapes},
				Workers: recommend.Workers{MaxMessages: 1, IdleTimeout: recommend.Duration(5 * time.Second)}, Poll: recommend.Duration(5 * time.Second),
				ConsolidateAfter: recommend.Duration(30 * time.Second),
			},
		}
		o.System.Seed = 1
		if *table != "" {
			fmt.Printf("\n## %s on %s, %s\n\n| | cost | p50 / p95 | mean | idle |\n|---|---|---|---|---|\n", l.name, *table, *queues)
			if err := recommend.Table(context.Background(), trace, o, *queues, list.Find(strings.Split(*table, ","), false, recommend.DaemonSets), func(r recommend.Result) {
				fmt.Printf("| %s | %.1f | %.0f / %.0f s | %.1f s | %.0f%% |\n", r.Name, r.CostMonth, r.Outcome.Wait.P50, r.Outcome.Wait.P95, r.Outcome.Wait.Mean, 100*r.IdleShare)
			}); err != nil {
				log.Fatalf("%s: %v", l.name, err)
			}
			continue
		}
		if *verbose {
			begin := time.Now()
			o.Progress = func(share float64) {
				fmt.Fprintf(os.Stderr, "%3.0f%% %s\n", 100*share, time.Since(begin).Round(time.Second))
			}
		}
		begin := time.Now()
		r, err := recommend.Recommend(context.Background(), trace, o)
		fmt.Printf("\n## %s: %d messages\n\n", l.name, len(trace.Jobs))
		if err != nil && !errors.Is(err, recommend.ErrNothing) {
			log.Fatalf("%s: %v", l.name, err)
		}
		if err != nil {
			fmt.Println(err)
		}
		fmt.Println("| | cost | p50 / p95 / p99 | mean | idle |\n|---|---|---|---|---|")
		for _, t := range []recommend.Result{r.Today, r.Alternative, r.Recommended} {
			fmt.Printf("| %s (%s, %s) | %.0f (%+.0f%%) | %.0f / %.0f / %.0f s | %.1f s | %.0f%% |\n", t.Name, t.Configuration.Stack.Name, t.Configuration.Workers, t.CostMonth,
				100*(t.CostMonth/r.Today.CostMonth-1), t.Outcome.Wait.P50, t.Outcome.Wait.P95, t.Outcome.Wait.P99, t.Outcome.Wait.Mean, 100*t.IdleShare)
		}
		fmt.Println("\n| decision | today | recommended | without it |\n|---|---|---|---|")
		for _, d := range r.Decisions {
			without := "the same"
			if d.Impossible {
				without = "impossible"
			} else if d.CostWithout > 0 {
				without = fmt.Sprintf("%+.1f%%, p95 %.0f s", 100*(d.CostWithout/r.Recommended.CostMonth-1), d.WaitWithout)
			}
			fmt.Printf("| %s | %s | %s | %s |\n", d.Lever, d.Today, d.Recommended, without)
			if *verbose {
				fmt.Fprintln(os.Stderr, d.Lever, d.Change)
			}
		}
		for _, note := range r.Notes {
			fmt.Println("\n" + note)
		}
		fmt.Fprintf(os.Stderr, "%s: %d configurations in %s, rhythm %.2f\n", l.name, r.Played, time.Since(begin).Round(time.Second), r.Rhythm)
	}
}

var zone = func() *time.Location {
	zone, err := time.LoadLocation("Europe/Prague")
	if err != nil {
		log.Fatal(err)
	}
	return zone
}()

type load struct {
	name string
	load func() (simulator.Trace, error)
}

func loads(data string, copies, weeks int) []load {
	generated := func() simulator.Trace { return simulator.Weeks(rand.New(rand.NewPCG(1, 0)), weeks, 2000, zone) }
	all := []load{
		{"weeks", func() (simulator.Trace, error) { return generated(), nil }},
		{"sunday-to-thursday", func() (simulator.Trace, error) {
			t := generated()
			t.Origin = t.Origin.AddDate(0, 0, -1)
			return t, nil
		}},
	}
	if data == "" {
		return all
	}
	files, err := filepath.Glob(filepath.Join(data, "*.csv"))
	if err != nil {
		log.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".csv")
		all = append(all, load{name, func() (simulator.Trace, error) {
			in, err := os.Open(file)
			if err != nil {
				return simulator.Trace{}, err
			}
			defer in.Close()
			t, err := simulator.ReadCSV(in)
			if strings.HasPrefix(name, "ci-") {
				sizesByClass(t.Jobs)
			}
			return multiply(t, copies), err
		}})
	}
	return all
}

// sizesByClass gives jobs whose record does not say requests of half a core to four, by their class.
func sizesByClass(jobs []simulator.Job) {
	for i := range jobs {
		h := fnv.New32a()
		_, _ = h.Write([]byte(jobs[i].Class)) // it never fails
		cpu := []int64{500, 1000, 2000, 4000}[h.Sum32()>>7%4]
		jobs[i].Requests = packing.Amounts{cpu, cpu * 2 << 20, 0, 1}
	}
}

// multiply makes a larger load: each job comes n times, up to half an hour earlier or later.
func multiply(t simulator.Trace, n int) simulator.Trace {
	if n == 1 {
		return t
	}
	random := rand.New(rand.NewPCG(1, 77))
	var jobs []simulator.Job
	for _, j := range t.Jobs {
		for range n {
			other := j
			other.Start += time.Duration(random.Float64() * float64(time.Hour))
			jobs = append(jobs, other)
		}
	}
	t.Jobs = jobs
	return t.Sorted()
}
