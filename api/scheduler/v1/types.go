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
	// Draining empties nodes and lets idle workers give way, with workers that speak to this scheduler. Left out, the default: neither. Only
	// one profile of a scheduler may have it.
	Draining *DrainingArgs `json:"draining,omitempty"`
}

// DrainingArgs say how nodes are emptied and who gives way.
type DrainingArgs struct {
	// ListenAddress where the leader serves workers; default ":10261".
	ListenAddress string `json:"listenAddress,omitempty"`
	// CertFile, KeyFile and ClientCAFile are PEM files: the leader's certificate, its key, and the authority of workers' certificates. All three
	// or none. Without them there is no TLS, and every pod that reaches the address may connect.
	CertFile     string `json:"certFile,omitempty"`
	KeyFile      string `json:"keyFile,omitempty"`
	ClientCAFile string `json:"clientCAFile,omitempty"`
	// AnyAddress lets a worker's stream come from another address than its pod's, as a proxy between both makes it. Its pod's name and UID, and
	// the client certificate, are all that is checked then.
	AnyAddress bool `json:"anyAddress,omitempty"`
	// MaxWorkers that may be connected, from 1 to 100000; default 10000.
	MaxWorkers int `json:"maxWorkers,omitempty"`
	// NodeSelector are labels that a node must have to be drained. Empty, the default: all nodes but those of the control plane.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Spare is how many more pods of the largest kind must fit on the other nodes for a node to be drained, from 1 to 100; default 2.
	Spare int `json:"spare,omitempty"`
	// Longest that a node drains at a stretch, from 1m to 24h; default 1h.
	Longest metav1.Duration `json:"longest,omitempty"`
	// TaintsPerHour bounds how many drains begin in an hour, from 1 to 36000; default 600.
	TaintsPerHour int `json:"taintsPerHour,omitempty"`
	// Promise is how long a pod waits for idle workers to make room before it is treated as if there were none, from 500ms to 30s; default 3s.
	Promise metav1.Duration `json:"promise,omitempty"`
	// Every is the pause between two looks at all nodes, from 1s to 1m; default 5s.
	Every metav1.Duration `json:"every,omitempty"`
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
