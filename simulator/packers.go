package simulator

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"time"

	schedulerv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Packers are the names of all packers. drainpack ranks the few nodes that the scheduler's index finds, as it does for most pods;
// drainpack-all ranks every node with room, as it does for pods that other plugins have a say about.
func Packers() []string {
	return []string{"spread", "most-allocated", "first-fit", "duration-tiers", "drainpack", "drainpack-all"}
}

// PackerOptions are what packers need besides their name.
type PackerOptions struct {
	// Seed of the ties that the stock scheduler breaks by chance. A pod's ties depend on the seed and the pod's id alone.
	Seed uint64
	// Args of the scheduler's plugin DrainPack, valid; zero fields have their defaults. Weights, Quantile, Horizon and what is learned
	// count; what concerns labels of pods and nodes does not exist in a simulation.
	Args schedulerv1.DrainPackArgs
}

// NewPacker makes one of Packers.
func NewPacker(name string, o PackerOptions) (Packer, error) {
	switch name {
	case "spread":
		return newStock(o.Seed, false), nil
	case "most-allocated":
		return newStock(o.Seed, true), nil
	case "first-fit":
		return &firstFit{}, nil
	case "duration-tiers":
		return &tiers{stock: newStock(o.Seed, true), tierOf: map[*Node]int{}}, nil
	case "drainpack":
		return newDrainPack(o.Args, false), nil
	case "drainpack-all":
		return newDrainPack(o.Args, true), nil
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

// stock is kube-scheduler 1.36: with its defaults, LeastAllocated and BalancedAllocation over CPU and memory; or with MostAllocated in place
// of both. Scores are whole numbers, of each node by its own size; ties are broken by chance, and of more than 100 feasible nodes a sample is
// scored, from where the last one ended.
type stock struct {
	deaf
	seed   uint64
	source *rand.PCG
	random *rand.Rand
	most   bool
	next   int
}

func newStock(seed uint64, most bool) *stock {
	source := rand.NewPCG(seed, 0)
	return &stock{seed: seed, source: source, random: rand.New(source), most: most}
}

func (s *stock) Place(id int, job *Job, _ time.Duration, nodes []*Node) *Node {
	s.source.Seed(s.seed, uint64(id))
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

// score is the sum of the scores of the scheduler's plugins.
func (s *stock) score(job *Job, n *Node) int64 {
	if s.most {
		return allocationScore(job, n, func(requested, capacity int64) int64 { return 100 * requested / capacity })
	}
	least := func(requested, capacity int64) int64 { return 100 * (capacity - requested) / capacity }
	return allocationScore(job, n, least) + balanceScore(job, n)
}

// allocationScore is NodeResourcesFit's: the mean over CPU and memory, each rounded down. Pods that request none count with a little.
func allocationScore(job *Job, n *Node, of func(requested, capacity int64) int64) int64 {
	requested := n.scored.Plus(scored(job.Requests))
	var sum, counted int64
	for d := range 2 {
		if capacity := n.Shape.Capacity[d]; capacity > 0 {
			sum, counted = sum+of(min(requested[d], capacity), capacity), counted+1
		}
	}
	if counted == 0 {
		return 0
	}
	return sum / counted
}

// scored is what a pod counts for in NodeResourcesFit's score: 100m of CPU and 200 MB of memory where it requests none.
func scored(requests packing.Amounts) packing.Amounts {
	for d, least := range [...]int64{100, 200 * 1024 * 1024} {
		if requests[d] == 0 {
			requests[d] = least
		}
	}
	return requests
}

// balanceScore is NodeResourcesBalancedAllocation's: 75, more where the pod makes the node's use of CPU and memory more alike.
func balanceScore(job *Job, n *Node) int64 {
	if job.Requests[0] == 0 && job.Requests[1] == 0 {
		return 0
	}
	used := n.Shape.Capacity.Minus(n.Free)
	return 50 + (50+balance(used.Plus(job.Requests), n.Shape.Capacity)-balance(used, n.Shape.Capacity))/2
}

func balance(used, capacity packing.Amounts) int64 {
	deviation := 0.0
	if capacity[0] > 0 && capacity[1] > 0 {
		share := func(d int) float64 { return min(1, float64(used[d])/float64(capacity[d])) }
		deviation = math.Abs(share(0)-share(1)) / 2
	}
	return int64(100 * (1 - deviation))
}

// tiers is packing by duration tiers: powers of two of the expected run time. A node has the tier of its longest pod. Nodes
// of the pod's tier come first, then those of longer ones, the nearest first, then those of shorter ones; within a tier by
// MostAllocated.
type tiers struct {
	*stock
	tierOf map[*Node]int
}

// tier is 1 up to 15 s, 2 up to 30 s, and so on by powers of two; 0 for a job that states nothing.
func tier(job *Job) int {
	if job.Stated <= 0 {
		return 0
	}
	return 1 + bits.Len64(uint64((job.Stated-1)/(15*time.Second)))
}

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
