// Package placement is what the scheduler says of where it put a pod, for those who ask. It links no scheduler.
package placement

import (
	"time"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
)

// Placement says why a pod is where it is.
type Placement struct {
	Time      time.Time `json:"time"`
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	Class     string    `json:"class"`
	Node      string    `json:"node"`
	// RunSeconds that the pod is expected to run; null when it never ends or keeps no node.
	RunSeconds *float64 `json:"runSeconds"`
	// Tier is what the node is to the pod, as in the metric ebbtide_drainpack_placements_total.
	Tier string `json:"tier"`
	// Offer is what the pod was offered, as in the metric ebbtide_drainpack_candidates_total.
	Offer string `json:"offer"`
	// Feasible nodes, among those that were offered.
	Feasible int `json:"feasible"`
	// Key of the node, and of the best that were not chosen; DecidedBy is what the first of these lost by.
	Key       *packing.Key  `json:"key"`
	RunnersUp []packing.Key `json:"runnersUp"`
	DecidedBy string        `json:"decidedBy,omitempty"`
	Reason    string        `json:"reason"`
	// GaveWay are the names of the pods of idle workers that left to make room for it.
	GaveWay []string `json:"gaveWay,omitempty"`
}
