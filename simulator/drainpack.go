package simulator

import (
	"strconv"
	"time"

	schedulerv1 "github.com/ebbtide-dev/ebbtide/api/scheduler/v1"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/fleet"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/lifetime"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// drainPack is the scheduler plugin's own code.
type drainPack struct {
	fleet *fleet.Fleet
	nodes map[string]*Node
	args  schedulerv1.DrainPackArgs
	// all nodes with room are ranked, not only those that the index finds first.
	all bool
}

func newDrainPack(args schedulerv1.DrainPackArgs, all bool) *drainPack {
	args.SetDefaults()
	lifetimes := lifetime.New(lifetime.Options{
		HalfLife: args.HalfLife.Duration, MinCorrelation: args.MinCorrelation, Unknown: args.UnknownRunTime.Duration,
	})
	return &drainPack{
		fleet: fleet.New(lifetimes, fleet.Options{Quantile: args.Quantile, Horizon: args.Horizon.Duration}),
		nodes: map[string]*Node{}, args: args, all: all,
	}
}

func podOf(id int, job *Job) fleet.Pod {
	return fleet.Pod{ID: strconv.Itoa(id), Class: job.Class, Stated: job.Stated, Requests: job.Requests}
}

// Place does what the plugin does: the index finds a few nodes with room, and the order ranks them.
func (d *drainPack) Place(id int, job *Job, now time.Duration, nodes []*Node) *Node {
	pod := podOf(id, job)
	var fitting []*Node
	if d.all {
		for _, n := range nodes {
			if n.Free.Fit(job.Requests) {
				fitting = append(fitting, n)
			}
		}
	} else {
		for _, name := range d.fleet.Candidates(pod, packing.Query{
			Now: Epoch.Add(now), Most: d.args.Candidates, Tries: indexTries, Accept: func(string) bool { return true },
		}) {
			fitting = append(fitting, d.nodes[name])
		}
	}
	switch len(fitting) {
	case 0:
		return nil
	case 1:
		return fitting[0]
	}
	return d.best(pod, Epoch.Add(now), fitting)
}

// indexTries is how many nodes of the index the plugin looks at for one pod.
const indexTries = 100

// best is the first of nodes with room for a pod in the plugin's order.
func (d *drainPack) best(pod fleet.Pod, now time.Time, fitting []*Node) *Node {
	var requested []int // the resources that the pod requests: pods themselves are not counted
	for r := range 3 {
		if pod.Requests[r] > 0 {
			requested = append(requested, r)
		}
	}
	used, allocatable := d.fleet.Used()
	scarcity := packing.Scarcity(used[:], allocatable[:])
	weights := make([]float64, len(requested))
	for i, r := range requested {
		weights[i] = max(scarcity[r], 0.01)
		if given, ok := d.args.Weights[[...]string{"cpu", "memory", "ephemeral-storage"}[r]]; ok {
			weights[i] = given
		}
	}
	described := make([]packing.Node, len(fitting))
	for i, n := range fitting {
		of := packing.Node{Name: n.Name, Created: Epoch.Add(n.Created)}
		for _, r := range requested {
			of.Allocatable, of.Free = append(of.Allocatable, n.Shape.Capacity[r]), append(of.Free, n.Free[r]-pod.Requests[r])
		}
		described[i] = of
	}
	expected := d.fleet.Expect(pod, now)
	d.fleet.Describe(described, &expected, "", now)
	return d.nodes[packing.Order(described, &expected, weights, 1)[0].Name]
}

// expects implements expecter.
func (d *drainPack) expects(job *Job, now time.Duration) time.Duration {
	return d.fleet.Expect(fleet.Pod{Class: job.Class, Stated: job.Stated}, Epoch.Add(now)).Remaining
}

func (d *drainPack) Bound(id int, job *Job, now time.Duration, n *Node) {
	d.fleet.AddPod(podOf(id, job), n.Name, Epoch.Add(now))
}

func (d *drainPack) Ended(id int, job *Job, ran, now time.Duration, _ *Node) {
	pod := podOf(id, job)
	d.fleet.RemovePod(pod.ID)
	d.fleet.Finished(fleet.Ended{Pod: pod, Ran: ran, At: Epoch.Add(now), Well: true})
}

func (d *drainPack) Added(n *Node) {
	d.nodes[n.Name] = n
	d.set(n, false)
}

// set tells the fleet of a node, which is offered last while it drains.
func (d *drainPack) set(n *Node, draining bool) {
	price := packing.SizePrice(n.Shape.Capacity)
	if n.Shape.Price > 0 {
		price = n.Shape.Price * 1000 // as priceFactors would say; of any currency's nodes the cheapest cost more than a thousandth
	}
	d.fleet.SetNode(fleet.Node{
		Name: n.Name, Created: Epoch.Add(n.Created), Allocatable: n.Shape.Capacity, Price: packing.PriceClass(price), Leaving: draining,
	})
}

func (d *drainPack) Removed(n *Node) {
	delete(d.nodes, n.Name)
	d.fleet.RemoveNode(n.Name)
}
