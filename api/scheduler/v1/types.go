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
	// Candidates is how many nodes of the index, proven to have room for a pod, are compared for it, from 1 to 100; default 4. It is
	// offered the best; all of them when other plugins may rank them too.
	Candidates int `json:"candidates,omitempty"`
	// Quantile of the run times that can be expected of a pod by which it is placed where little is known of it, between 0 and 1; default
	// 0.5. A higher one takes fewer pods for short.
	Quantile float64 `json:"quantile,omitempty"`
	// HalfLife after which a run time that was learned counts half; at least 1m, default 168h. At most about the last 300 of a class count.
	HalfLife metav1.Duration `json:"halfLife,omitempty"`
	// UnknownRunTime is the median run time that is expected while nothing has been learned; at least 1s, default 5m.
	UnknownRunTime metav1.Duration `json:"unknownRunTime,omitempty"`
	// Horizon beyond which run times are not told apart: a pod that is expected to run longer counts as one that never ends; at least
	// 1m. 0, the default: none.
	Horizon metav1.Duration `json:"horizon,omitempty"`
	// MinCorrelation between the run times that pods state and real ones below which statements are not used, more than 0 and at most 1;
	// default 0.3.
	MinCorrelation float64 `json:"minCorrelation,omitempty"`
	// ClassLabel names the class of a pod; default ebbtide.dev/duration-class. A pod without it has the class of its
	// ScaledJob, or of what owns it.
	ClassLabel string `json:"classLabel,omitempty"`
	// GroupLabel names the group of pods that had better be on one node; default scheduling.x-k8s.io/pod-group.
	GroupLabel string `json:"groupLabel,omitempty"`
	// Weights of resources in how full a node is, more than 0, by name: cpu, memory, nvidia.com/gpu. A resource that is not named weighs by how
	// much of the fleet's is in use, from 0.01 to 1; one that is not CPU, memory or ephemeral storage weighs 1.
	Weights map[string]float64 `json:"weights,omitempty"`
	// PriceFactors say what nodes cost beside others of their size, which is their CPUs and an eighth of their GiB of memory. The
	// first whose labels a node has counts; a node that has those of none costs 1.
	PriceFactors []PriceFactor `json:"priceFactors,omitempty"`
	// ExplainAddress is where placements are explained over HTTP, such as 127.0.0.1:10260. It must be a loopback
	// address, as it asks nobody who they are; reach it by kubectl port-forward. Empty, the default: nowhere.
	ExplainAddress string `json:"explainAddress,omitempty"`
}

// PriceFactor is the price of some nodes.
type PriceFactor struct {
	// Labels that such a node has, all of them; at least one.
	Labels map[string]string `json:"labels"`
	// Factor on the price of a node of that size, more than 0, such as 0.3 for spot capacity.
	Factor float64 `json:"factor"`
}

// DrainPackQueueArgs are the arguments of the queue sort DrainPackQueue.
//
// +kubebuilder:object:root=true
type DrainPackQueueArgs struct {
	metav1.TypeMeta `json:",inline"`
	// MaxAdvance is how much older the largest and longest pod counts than it is, from 1s to 1h; default 30s.
	// No pod waits longer than that for others of its priority that came after it.
	MaxAdvance metav1.Duration `json:"maxAdvance,omitempty"`
}
