package drainpack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/placement"
)

const (
	// remembered is how many placements can be explained: some 2 MiB of them.
	remembered = 2000
	// runnersUp is how many of the nodes that were not chosen are remembered with each.
	runnersUp = 4
)

// placed is a placement, and how much longer its node must live for it: negative when that is not known.
type placed struct {
	placement.Placement
	extension time.Duration
}

// explain says why a pod is put on a node.
func (d *DrainPack) explain(c *cycle, pod *v1.Pod, nodeName string, now time.Time) *placed {
	node, expected := []packing.Node{{Name: nodeName}}, d.fleet.Expect(c.pod, now)
	d.fleet.Describe(node, &expected, c.pod.Group, now)
	p := placed{extension: -1, Placement: placement.Placement{
		Time: now, Namespace: pod.Namespace, Pod: pod.Name, Class: c.pod.Class, Node: nodeName, Offer: c.offer,
		Feasible: c.feasible, RunnersUp: make([]packing.Key, 0, runnersUp),
	}}
	for i := range c.order {
		if c.order[i].Name == nodeName {
			p.Key = &c.order[i]
		} else if len(p.RunnersUp) < runnersUp {
			p.RunnersUp = append(p.RunnersUp, c.order[i])
		}
	}
	if p.Key != nil {
		key := *p.Key // and not the whole order
		p.Key, node[0].Leaving = &key, key.Leaving
		if len(p.RunnersUp) > 0 {
			_, p.DecidedBy = key.Decide(&p.RunnersUp[0])
		}
	}
	remaining := expected.Remaining
	extension := packing.Extension(remaining, node[0].Exit)
	if remaining != packing.Unknown && remaining != packing.Never {
		seconds := remaining.Seconds()
		p.RunSeconds = &seconds
		p.extension = extension
	}
	p.Tier, p.Reason = tier(node[0], remaining, extension)
	if expected.Spread >= packing.Vague {
		p.Reason += "; little is known of the pod's run time"
	}
	if p.DecidedBy != "" {
		p.Reason += fmt.Sprintf("; the next best, %s, lost by %s", p.RunnersUp[0].Name, p.DecidedBy)
	}
	return &p
}

// record counts a placement and remembers why it was made.
func (d *DrainPack) record(p *placed) {
	if p.extension >= 0 {
		extensionSeconds.Observe(p.extension.Seconds())
	}
	placementsTotal.WithLabelValues(p.Tier).Inc()
	d.placements.add(p.Placement)
}

// tierNames are all names of tiers.
var tierNames = []string{"leaving", "unknown", "endless", "outlasts", "empty", "extended"}

// tier is what a node is to a pod, and that in words.
func tier(n packing.Node, remaining, extension time.Duration) (name, reason string) {
	exit := n.Exit.Round(time.Second)
	switch {
	case n.Leaving:
		return "leaving", n.Name + " is being taken away, but no other node fits"
	case remaining == packing.Unknown:
		return "unknown", "the pod keeps no node, so " + n.Name + " was chosen by room and age"
	case n.Exit == packing.Never:
		return "endless", n.Name + " has a pod that never ends, so it stays anyway"
	case extension == 0:
		return "outlasts", fmt.Sprintf("%s stays for %s anyway, the pod runs for %s", n.Name, exit, remaining.Round(time.Second))
	case n.Exit == 0:
		return "empty", n.Name + " has no pod that keeps it, and no other node was better"
	case extension == packing.Never:
		return "extended", n.Name + " would drain in " + exit.String() + ", but stays for this pod, which never ends"
	default:
		return "extended", fmt.Sprintf("%s stays for %s anyway and %s longer for the pod", n.Name, exit, extension.Round(time.Second))
	}
}

// placements are the last ones. It is safe for concurrent use.
type placements struct {
	mu   sync.Mutex
	ring []placement.Placement
	next int
}

func (p *placements) add(placed placement.Placement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ring) < remembered {
		p.ring = append(p.ring, placed)
		return
	}
	p.ring[p.next] = placed
	p.next = (p.next + 1) % remembered
}

// list returns up to limit placements, the newest first, of a namespace and a pod; empty for all.
func (p *placements) list(namespace, pod string, limit int) []placement.Placement {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := []placement.Placement{}
	for i := range p.ring {
		placed := p.ring[(p.next+len(p.ring)-1-i)%len(p.ring)]
		if len(found) < limit && (namespace == "" || placed.Namespace == namespace) && (pod == "" || placed.Pod == pod) {
			found = append(found, placed)
		}
	}
	return found
}

// serve answers at the address that the arguments name, until ctx ends; without one it does nothing.
func (d *DrainPack) serve(ctx context.Context) error {
	if d.args.ExplainAddress == "" {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.args.ExplainAddress)
	if err != nil {
		return fmt.Errorf("%w (profiles of one scheduler need an address each)", err)
	}
	server := &http.Server{Handler: d.Explain(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			klog.FromContext(ctx).Error(err, "Placements are not explained any more", "address", d.args.ExplainAddress)
		}
	}()
	return nil
}

// Explain answers, in JSON:
//
//	GET /placements?namespace=NAMESPACE&pod=POD&limit=50   the last placements, the newest first: a list of placement.Placement
//	GET /nodes                                             what is known of all nodes: a list of fleet.View
//
// Only the leader places pods.
func (d *DrainPack) Explain() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /placements", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		limit, err := strconv.Atoi(cmp.Or(query.Get("limit"), "50"))
		if err != nil || limit < 1 {
			http.Error(w, fmt.Sprintf("limit is %q, want a number from 1 on", query.Get("limit")), http.StatusBadRequest)
			return
		}
		found := d.placements.list(query.Get("namespace"), query.Get("pod"), limit)
		if len(found) == 0 && query.Get("pod") != "" {
			http.Error(w, fmt.Sprintf("no pod %q is among the last %d that this scheduler placed: it is older, waits, has another "+
				"schedulerName, or another replica leads", query.Get("pod"), remembered), http.StatusNotFound)
			return
		}
		writeJSON(w, found)
	})
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, _ *http.Request) {
		views := d.fleet.Views(d.now())
		if d.drains != nil {
			d.drains.complete(views)
		}
		writeJSON(w, views)
	})
	return mux
}

func writeJSON[T any](w http.ResponseWriter, list []T) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(list) // an error means that whoever asked is gone
}
