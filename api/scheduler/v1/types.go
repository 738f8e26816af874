// Package v1 holds the arguments of the scheduler's plugins, as pluginConfig of a KubeSchedulerConfiguration gives them. Fields
// that are left out, or zero, have their defaults. It imports no Ebbtide package.
//
// +groupName=kubescheduler.config.k8s.io
// +versionName=v1
package v1

//go:generate go tool -modfile=../../../hack/tools/go.mod crd-ref-docs --source-path=. --config=../../../hack/tools/crd-ref-docs.yaml --renderer=markdown --output-path=../../../docs/reference/scheduler-args.md

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DrainPackArgs are the arguments of the plugin DrainPack.
//
// +kubebuilder:object:root=true
type DrainPackArgs struct {
	metav1.TypeMeta `json:",inline"`
	// Candidates is the number of nodes of the index that are compared for a pod, each with proven room, from 1 to 100;
	// default 4. The best one is offered, or all of them if other plugins may rank them too.
	Candidates int `json:"candidates,omitempty"`
	// Quantile of the expected run time by which a pod is placed if little is known about it, between 0 and 1; default 0.5.
	// With a higher one, fewer pods count as short.
	Quantile float64 `json:"quantile,omitempty"`
	// HalfLife after which a learned run time counts half; at least 1m, default 168h. At most about the last 300 of a class
	// count.
	HalfLife metav1.Duration `json:"halfLife,omitempty"`
	// UnknownRunTime is the median run time assumed for a class without history; at least 1s, default 5m.
	UnknownRunTime metav1.Duration `json:"unknownRunTime,omitempty"`
	// Horizon beyond which run times count as endless; at least 1m. 0, the default: none.
	Horizon metav1.Duration `json:"horizon,omitempty"`
	// MinCorrelation is the correlation between stated and real run times below which statements are not used, more than 0
	// and at most 1; default 0.3.
	MinCorrelation float64 `json:"minCorrelation,omitempty"`
	// ClassLabel is the label with the class of a pod; default ebbtide.dev/duration-class. A pod without it has the class
	// of its ScaledJob or other owner.
	ClassLabel string `json:"classLabel,omitempty"`
	// GroupLabel is the label with the group of a pod, whose pods should be on one node; default
	// scheduling.x-k8s.io/pod-group.
	GroupLabel string `json:"groupLabel,omitempty"`
	// Weights of resources in the fullness of a node, more than 0, by name: cpu, memory, nvidia.com/gpu. A resource without
	// a weight weighs by the share that the fleet uses, from 0.01 to 1. Resources other than CPU, memory and ephemeral
	// storage weigh 1.
	Weights map[string]float64 `json:"weights,omitempty"`
	// PriceFactors are prices of nodes relative to others of their size, which is their CPUs plus an eighth of their GiB of
	// memory. The first whose labels match a node applies; the default is 1.
	PriceFactors []PriceFactor `json:"priceFactors,omitempty"`
	// ExplainAddress is where placements are explained over HTTP, such as 127.0.0.1:10260. It must be a loopback address,
	// because it has no authentication; use kubectl port-forward. Default: none.
	ExplainAddress string `json:"explainAddress,omitempty"`
}

// PriceFactor is the price of some nodes.
type PriceFactor struct {
	// Labels of such nodes; at least one, and all must match.
	Labels map[string]string `json:"labels"`
	// Factor of the price, more than 0, such as 0.3 for spot capacity.
	Factor float64 `json:"factor"`
}

// DrainPackQueueArgs are the arguments of the queue sort DrainPackQueue.
//
// +kubebuilder:object:root=true
type DrainPackQueueArgs struct {
	metav1.TypeMeta `json:",inline"`
	// MaxAdvance is how much older the largest and longest pod counts than it is, from 1s to 1h; default 30s. No pod waits
	// longer than this for younger pods of its priority.
	MaxAdvance metav1.Duration `json:"maxAdvance,omitempty"`
}
