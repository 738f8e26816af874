package drainpack

import (
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// Args are the plugin's arguments, given as pluginConfig in a scheduler's configuration. All may be left out, or
// be zero, for the default.
type Args struct {
	metav1.TypeMeta `json:",inline"`
	// Candidates is how many nodes a pod is offered that the index proves to have room for it, from 1 to 100; default 4.
	Candidates int `json:"candidates,omitempty"`
	// Quantile of a class's run times that is expected of its pods, between 0 and 1; default 0.5. A higher one takes fewer
	// pods for short.
	Quantile float64 `json:"quantile,omitempty"`
	// HalfLife after which a run time that was learned counts half; at least 1m, default 168h.
	HalfLife metav1.Duration `json:"halfLife,omitempty"`
	// UnknownRunTime is how long a pod is taken to run of whose class nothing is known; at least 1s, default 5m.
	UnknownRunTime metav1.Duration `json:"unknownRunTime,omitempty"`
	// MinCorrelation between expected and real run times below which the order is best fit, more than 0 and at
	// most 1; default 0.5.
	MinCorrelation float64 `json:"minCorrelation,omitempty"`
	// ClassLabel names the class of a pod; default ebbtide.dev/duration-class. A pod without it has the class of its
	// ScaledJob, or of what owns it.
	ClassLabel string `json:"classLabel,omitempty"`
	// GroupLabel names the group of pods that had better be on one node; default scheduling.x-k8s.io/pod-group.
	GroupLabel string `json:"groupLabel,omitempty"`
	// PriceFactors say what nodes cost beside others of their size, which is their CPUs and an eighth of their GiB of memory. The
	// first whose labels a node has counts; a node that has those of none costs 1.
	PriceFactors []PriceFactor `json:"priceFactors,omitempty"`
	// ExplainAddress is where placements are explained over HTTP, 127.0.0.1:10260 say: see Explain. It must be a loopback
	// address, as it asks nobody who they are; reach it by kubectl port-forward. Empty, the default: nowhere.
	ExplainAddress string `json:"explainAddress,omitempty"`
}

// PriceFactor is the price of some nodes.
type PriceFactor struct {
	// Labels that such a node has, all of them; at least one.
	Labels map[string]string `json:"labels"`
	// Factor on the price of a node of that size, more than 0: 0.3 for spot capacity, say.
	Factor float64 `json:"factor"`
}

// ParseArgs reads arguments, fills in defaults and validates. An error names the fields.
func ParseArgs(object runtime.Object) (Args, error) {
	return parseArgs(Name, object, func(a *Args, check checker) {
		a.setDefaults()
		a.validate(check)
	})
}

// checker reports a field whose value is not what is allowed.
type checker func(ok bool, field string, value any, allowed string)

// parseArgs reads the arguments of a plugin, which complete fills in and checks.
func parseArgs[T any](plugin string, object runtime.Object, complete func(*T, checker)) (args T, err error) {
	switch given := object.(type) {
	case nil:
	case *runtime.Unknown:
		if err := yaml.UnmarshalStrict(given.Raw, &args); err != nil {
			return args, fmt.Errorf("arguments of plugin %s: %w", plugin, err)
		}
	default:
		return args, fmt.Errorf("arguments of plugin %s: want a %sArgs, got %T", plugin, plugin, object)
	}
	var wrong []error
	complete(&args, func(ok bool, field string, value any, allowed string) {
		if !ok {
			wrong = append(wrong, fmt.Errorf("%s is %v, want %s", field, value, allowed))
		}
	})
	if len(wrong) > 0 {
		return args, fmt.Errorf("arguments of plugin %s: %w", plugin, errors.Join(wrong...))
	}
	return args, nil
}

func (a *Args) setDefaults() {
	setDefault(&a.Candidates, 4)
	setDefault(&a.Quantile, 0.5)
	setDefault(&a.HalfLife.Duration, 7*24*time.Hour)
	setDefault(&a.UnknownRunTime.Duration, 5*time.Minute)
	setDefault(&a.MinCorrelation, 0.5)
	setDefault(&a.ClassLabel, "ebbtide.dev/duration-class")
	setDefault(&a.GroupLabel, "scheduling.x-k8s.io/pod-group")
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (a *Args) validate(check checker) {
	check(a.Candidates >= 1 && a.Candidates <= 100, "candidates", a.Candidates, "1 to 100")
	check(a.Quantile > 0 && a.Quantile < 1, "quantile", a.Quantile, "more than 0 and less than 1")
	check(a.HalfLife.Duration >= time.Minute, "halfLife", a.HalfLife.Duration, "at least 1m")
	check(a.UnknownRunTime.Duration >= time.Second, "unknownRunTime", a.UnknownRunTime.Duration, "at least 1s")
	check(a.MinCorrelation > 0 && a.MinCorrelation <= 1, "minCorrelation", a.MinCorrelation, "more than 0, at most 1")
	for i, f := range a.PriceFactors {
		field := fmt.Sprintf("priceFactors[%d]", i)
		check(len(f.Labels) > 0, field+".labels", "empty", "at least one label")
		check(f.Factor > 0 && !math.IsInf(f.Factor, 1), field+".factor", f.Factor, "more than 0")
	}
	if a.ExplainAddress != "" {
		host, _, err := net.SplitHostPort(a.ExplainAddress)
		ip := net.ParseIP(host)
		check(err == nil && ip != nil && ip.IsLoopback(), "explainAddress", a.ExplainAddress,
			"a loopback address and a port, 127.0.0.1:10260 say, to be reached by kubectl port-forward")
	}
}
