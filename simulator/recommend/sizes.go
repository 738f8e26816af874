package recommend

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

// mostQueues is how many queues a person would look after.
const mostQueues = 40

// oneQueue for all classes.
func oneQueue(classes []string) Queues {
	q := Queues{Name: "one queue", Of: map[string]string{}}
	for _, c := range classes {
		q.Of[c] = "all"
	}
	return q
}

// queueByClass gives every class a queue.
func queueByClass(classes []string) Queues {
	q := Queues{Name: "a queue for each class", Of: map[string]string{}}
	for _, c := range classes {
		q.Of[c] = c
	}
	return q
}

// kind is the pods of some classes that request alike.
type kind struct {
	classes  []string
	requests packing.Amounts
	hours    float64 // that they ran
}

// size of requests in cores, where 4 GiB count as one: what decides how many fit on most nodes.
func size(a packing.Amounts) float64 {
	return max(float64(a[0])/1000, float64(a[1])/float64(4<<30))
}

// partitions are ways to share classes out over queues: one for all; one for each of 2, 3, 4 and 6 size classes, cut so that the pods, which request
// the most of any message of their queue, request the fewest core-hours that nobody needs; one for each size; one for each class.
func partitions(classes []string, requests map[string]packing.Amounts, hours map[string]float64) []Queues {
	all := []Queues{oneQueue(classes)}
	if len(classes) < 2 {
		return all
	}
	kinds := kindsOf(classes, requests, hours)
	for _, n := range []int{2, 3, 4, 6} {
		if n < len(kinds) {
			all = append(all, cut(kinds, n))
		}
	}
	if n := len(kinds); n > 1 && n <= 8 && n < len(classes) {
		all = append(all, cut(kinds, n))
	}
	if len(classes) <= mostQueues {
		all = append(all, queueByClass(classes))
	}
	return all
}

// kindsOf are the kinds of pods from the smallest on.
func kindsOf(classes []string, requests map[string]packing.Amounts, hours map[string]float64) []kind {
	byRequests := map[packing.Amounts]*kind{}
	for _, c := range classes {
		r := requests[c]
		k := byRequests[r]
		if k == nil {
			k = &kind{requests: r}
			byRequests[r] = k
		}
		k.classes = append(k.classes, c)
		k.hours += hours[c]
	}
	var kinds []kind
	for _, k := range byRequests {
		kinds = append(kinds, *k)
	}
	slices.SortFunc(kinds, func(a, b kind) int {
		if d := size(a.requests) - size(b.requests); d != 0 {
			return int(math.Copysign(1, d))
		}
		return slices.Compare(a.requests[:], b.requests[:])
	})
	return kinds
}

// cut shares kinds out over n queues of neighbours in size, so that the core-hours requested are fewest: the best of the ends of the last queue,
// each with the best cut of what is before it.
func cut(kinds []kind, n int) Queues {
	type best struct {
		cost float64
		from int
	}
	table := make([][]best, n+1)
	table[0] = make([]best, len(kinds)+1)
	for i := 1; i <= len(kinds); i++ {
		table[0][i].cost = math.Inf(1)
	}
	for q := 1; q <= n; q++ {
		table[q] = make([]best, len(kinds)+1)
		for to := range table[q] {
			table[q][to].cost = math.Inf(1)
			var most packing.Amounts
			hours := 0.0
			for from := to - 1; from >= 0; from-- {
				for d := range most {
					most[d] = max(most[d], kinds[from].requests[d])
				}
				hours += kinds[from].hours
				if cost := table[q-1][from].cost + size(most)*hours; cost < table[q][to].cost {
					table[q][to] = best{cost, from}
				}
			}
		}
	}
	queues := Queues{Name: fmt.Sprintf("%d queues by size", n), Of: map[string]string{}}
	for q, to := n, len(kinds); q > 0; q-- {
		from := table[q][to].from
		for _, k := range kinds[from:to] {
			for _, c := range k.classes {
				queues.Of[c] = fmt.Sprintf("size-%d", q)
			}
		}
		to = from
	}
	return queues
}

// usage of the pods of a class: the CPU of each, and the most memory of any.
type usage struct {
	cpu    []int64
	memory int64
}

const (
	// cpuQuantile of the pods' CPU is requested: a pod that needs more borrows it from its neighbours.
	cpuQuantile = 0.9
	// memoryMargin over the most memory that any pod of a class used: nobody lends memory.
	memoryMargin = 1.15
)

// stated requests by class: the most that any job of the class requests.
func stated(jobs []simulator.Job) Requests {
	r := Requests{Name: "as stated", Of: map[string]packing.Amounts{}}
	for i := range jobs {
		j := &jobs[i]
		most := r.Of[j.Class]
		for d := range most {
			most[d] = max(most[d], j.Requests[d])
		}
		r.Of[j.Class] = most
	}
	return r
}

// used are requests by class of what was used: CPU at a quantile, memory at most with a margin. A job that ran out of memory needed more
// than it requested. Classes of whose use nothing is known keep what they state. False when nothing is known of any.
func used(jobs []simulator.Job, keep Requests) (Requests, bool) {
	byClass := map[string]*usage{}
	known := false
	for i := range jobs {
		j := &jobs[i]
		if j.Used == (packing.Amounts{}) && !j.OutOfMemory {
			continue
		}
		known = true
		u := byClass[j.Class]
		if u == nil {
			u = &usage{}
			byClass[j.Class] = u
		}
		u.cpu = append(u.cpu, j.Used[0])
		u.memory = max(u.memory, j.Used[1])
		if j.OutOfMemory {
			u.memory = max(u.memory, j.Requests[1]*5/4)
		}
	}
	r := Requests{Name: "by use", Of: maps.Clone(keep.Of)}
	for class, u := range byClass {
		of := r.Of[class]
		slices.Sort(u.cpu)
		if cpu := u.cpu[min(len(u.cpu)-1, int(cpuQuantile*float64(len(u.cpu))))]; cpu > 0 {
			of[0] = (cpu + 9) / 10 * 10
		}
		if u.memory > 0 {
			const step = 16 << 20
			of[1] = (int64(float64(u.memory)*memoryMargin) + step - 1) / step * step
		}
		r.Of[class] = of
	}
	return r, known
}

// hoursOf each class.
func hoursOf(jobs []simulator.Job) map[string]float64 {
	hours := map[string]float64{}
	for i := range jobs {
		hours[jobs[i].Class] += max(jobs[i].Run, 10*time.Second).Hours()
	}
	return hours
}

func classesOf(jobs []simulator.Job) []string {
	seen := map[string]bool{}
	for i := range jobs {
		seen[jobs[i].Class] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// sized is true when a job requests something else than what is assumed where the history does not say.
func sized(jobs []simulator.Job) bool {
	return slices.ContainsFunc(jobs, func(j simulator.Job) bool { return j.Requests != simulator.DefaultRequests() })
}
