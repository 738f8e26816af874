package simulator

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lifetime"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Packers are the names of all packers.
func Packers() []string {
	return []string{"spread", "most-allocated", "first-fit", "duration-tiers", "drainpack"}
}

// NewPacker makes one of Packers for nodes of a capacity; random breaks the ties of those that leave them to chance.
func NewPacker(name string, capacity packing.Amounts, random *rand.Rand) (Packer, error) {
	switch name {
	case "spread":
		return &stock{capacity: capacity, random: random}, nil
	case "most-allocated":
		return &stock{capacity: capacity, random: random, most: true}, nil
	case "first-fit":
		return &firstFit{}, nil
	case "duration-tiers":
		return &tiers{stock: stock{capacity: capacity, random: random, most: true}, tierOf: map[*Node]int{}}, nil
	case "drainpack":
		return newDrainPack(), nil
	default:
		return nil, fmt.Errorf("packer %q is not known: one of %v", name, Packers())
	}
}

// deaf packers keep no record of their own.
type deaf struct{}

func (deaf) Bound(int, *Job, time.Duration, *Node)                {}
func (deaf) Ended(int, *Job, time.Duration, time.Duration, *Node) {}
func (deaf) Added(*Node)                                          {}
func (deaf) Removed(*Node)                                        {}

// firstFit takes the oldest node with room.
type firstFit struct{ deaf }

func (firstFit) Place(_ int, job *Job, _ time.Duration, nodes []*Node) *Node {
	for _, n := range nodes {
		if n.Free.Fit(job.Requests) {
			return n
		}
	}
	return nil
}

// stock is kube-scheduler 1.36 with NodeResourcesFit's LeastAllocated or MostAllocated over CPU and memory: whole scores from
// 0 to 100, ties broken by chance, and of more than 100 feasible nodes a sample from where the last one ended.
type stock struct {
	deaf
	capacity packing.Amounts
	random   *rand.Rand
	most     bool
	next     int
}

func (s *stock) Place(_ int, job *Job, _ time.Duration, nodes []*Node) *Node {
	best, bestScore, ties := (*Node)(nil), int64(-1), 0
	s.sample(job, nodes, func(n *Node) {
		score := s.score(job, n)
		switch {
		case score > bestScore:
			best, bestScore, ties = n, score, 1
		case score == bestScore:
			if ties++; s.random.IntN(ties) == 0 {
				best = n
			}
		}
	})
	return best
}

// sample visits the nodes that the scheduler would score.
func (s *stock) sample(job *Job, nodes []*Node, visit func(*Node)) {
	wanted := len(nodes)
	if wanted >= 100 {
		wanted = max(100, wanted*max(5, 50-wanted/125)/100)
	}
	seen := 0
	for i := range nodes {
		n := nodes[(s.next+i)%len(nodes)]
		seen = i + 1
		if n.Free.Fit(job.Requests) {
			visit(n)
			if wanted--; wanted == 0 {
				break
			}
		}
	}
	if len(nodes) > 0 {
		s.next = (s.next + seen) % len(nodes)
	}
}

// score is the mean over CPU and memory, each rounded down.
func (s *stock) score(job *Job, n *Node) int64 {
	var sum, counted int64
	for d := range 2 {
		if s.capacity[d] == 0 {
			continue
		}
		free := 100 * (n.Free[d] - job.Requests[d]) / s.capacity[d]
		if s.most {
			free = 100 * (s.capacity[d] - n.Free[d] + job.Requests[d]) / s.capacity[d]
		}
		sum, counted = sum+free, counted+1
	}
	if counted == 0 {
		return 0
	}
	return sum / counted
}

// tiers is packing by duration tiers: powers of two of the expected run time. A node has the tier of its longest pod. Nodes
// of the pod's tier come first, then those of longer ones, the nearest first, then those of shorter ones; within a tier by
// MostAllocated.
type tiers struct {
	stock
	tierOf map[*Node]int
}

func tier(job *Job) int { return packing.ExtensionBucket(job.Stated) }

func (t *tiers) Place(_ int, job *Job, _ time.Duration, nodes []*Node) *Node {
	const furthest = 1000
	want := tier(job)
	best, bestDistance, bestScore := (*Node)(nil), 0, int64(0)
	for _, n := range nodes {
		if !n.Free.Fit(job.Requests) {
			continue
		}
		distance := t.tierOf[n] - want
		if distance < 0 {
			distance = furthest - distance
		}
		score := t.score(job, n)
		if best == nil || distance < bestDistance || distance == bestDistance && score > bestScore {
			best, bestDistance, bestScore = n, distance, score
		}
	}
	return best
}

func (t *tiers) Bound(_ int, job *Job, _ time.Duration, n *Node) {
	t.tierOf[n] = max(t.tierOf[n], tier(job))
}

func (t *tiers) Ended(_ int, _ *Job, _, _ time.Duration, n *Node) {
	if n.Pods == 0 {
		delete(t.tierOf, n)
	}
}

func (t *tiers) Removed(n *Node) { delete(t.tierOf, n) }

// drainPack is the scheduler plugin's own code.
type drainPack struct {
	fleet *fleet.Fleet
	nodes map[string]*Node
}

func newDrainPack() *drainPack {
	return &drainPack{
		fleet: fleet.New(lifetime.New(lifetime.Options{}), fleet.Options{}), nodes: map[string]*Node{},
	}
}

func podOf(id int, job *Job) fleet.Pod {
	return fleet.Pod{ID: strconv.Itoa(id), Class: job.Class, Stated: job.Stated, Requests: job.Requests}
}

func (d *drainPack) Place(id int, job *Job, now time.Duration, _ []*Node) *Node {
	found := d.fleet.Candidates(podOf(id, job), packing.Query{Now: Epoch.Add(now), Most: 1, Tries: 1, Accept: func(string) bool { return true }})
	if len(found) == 0 {
		return nil
	}
	return d.nodes[found[0]]
}

func (d *drainPack) Bound(id int, job *Job, now time.Duration, n *Node) {
	d.fleet.AddPod(podOf(id, job), n.Name, Epoch.Add(now))
}

func (d *drainPack) Ended(id int, job *Job, ran, now time.Duration, _ *Node) {
	pod := podOf(id, job)
	d.fleet.RemovePod(pod.ID)
	d.fleet.Finished(pod, ran, Epoch.Add(now), true)
}

func (d *drainPack) Added(n *Node) {
	d.nodes[n.Name] = n
	price := packing.SizePrice(n.Shape.Capacity)
	if n.Shape.Price > 0 {
		price = n.Shape.Price * 1000 // as priceFactors would say; of any currency's nodes the cheapest cost more than a thousandth
	}
	d.fleet.SetNode(fleet.Node{Name: n.Name, Created: Epoch.Add(n.Created), Allocatable: n.Shape.Capacity, Price: packing.PriceClass(price)})
}

func (d *drainPack) Removed(n *Node) {
	delete(d.nodes, n.Name)
	d.fleet.RemoveNode(n.Name)
}
