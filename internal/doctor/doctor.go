// Package doctor finds in Kubernetes objects what will go wrong with scaling and packing, and says how to fix it. It reads objects that
// others fetched, from files or from a cluster, and changes nothing.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Severity of a finding.
type Severity string

const (
	// Error loses, repeats or kills work, or scales wrongly.
	Error Severity = "error"
	// Warning costs money or time, or will bite one day.
	Warning Severity = "warning"
)

// Finding is one thing that is wrong.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Object as Kind namespace/name.
	Object  string `json:"object"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
	// Source is FILE:LINE of the object; empty for one of a cluster.
	Source string `json:"source,omitempty"`
	// Doc is the page that says more.
	Doc string `json:"doc"`
}

// Object is a Kubernetes object and where it was found.
type Object struct {
	*unstructured.Unstructured
	// Source is FILE:LINE; empty for one of a cluster.
	Source string
}

// Check is one thing to look for.
type Check struct {
	ID       string
	Severity Severity
	// Title says what is wrong, Why what comes of it, Fix what to do.
	Title, Why, Fix string

	find func(*objects, func(Object, string, ...any))
}

// Checks are all of them, by their ID.
func Checks() []Check {
	all := slices.Concat(scaledJobChecks(), triggerChecks(), podChecks(), jobChecks(), clusterChecks(), policyChecks(), nodePoolChecks(), profileChecks())
	slices.SortFunc(all, func(a, b Check) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Scope says what the objects are that are examined.
type Scope struct {
	// Cluster is true for the objects of a cluster: what is not among them is not there. It is false for those of files.
	Cluster bool
	// Namespace that was read; empty: all.
	Namespace string
	// Unknown are the resources that the cluster does not know, Refused those that may not be read.
	Unknown, Refused []string
	// Unfit says why the cluster can't serve the scheduler, if it can't; OnlyDevices is true if it could serve one that allocates no devices.
	Unfit       string
	OnlyDevices bool
	Now         time.Time
}

// Examine runs all checks on objects. Findings come by severity, then by ID and object.
func Examine(found []Object, scope Scope) []Finding {
	set := &objects{all: found, scope: scope}
	findings := []Finding{}
	for _, c := range Checks() {
		c.find(set, func(o Object, message string, args ...any) {
			name := o.GetName()
			if o.GetNamespace() != "" {
				name = o.GetNamespace() + "/" + name
			}
			findings = append(findings, Finding{
				ID: c.ID, Severity: c.Severity, Object: o.GetKind() + " " + name, Message: fmt.Sprintf(message, args...), Fix: c.Fix,
				Source: o.Source, Doc: "docs/reference/doctor.md#" + strings.ToLower(c.ID),
			})
		})
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Object, b.Object))
	})
	return findings
}

// objects are what is there.
type objects struct {
	all   []Object
	scope Scope
}

// absent is true if an object of a resource that is not among those of a namespace, "" for a cluster's, is not there at all.
func (o *objects) absent(resource, namespace string) bool {
	return o.scope.Cluster && !slices.Contains(o.scope.Refused, resource) &&
		(o.scope.Namespace == "" || namespace == "" || o.scope.Namespace == namespace)
}

// of a kind.
func (o *objects) of(kinds ...string) []Object {
	var found []Object
	for _, object := range o.all {
		if slices.Contains(kinds, object.GetKind()) {
			found = append(found, object)
		}
	}
	return found
}

// get is an object by kind, namespace and name.
func (o *objects) get(kind, namespace, name string) (Object, bool) {
	for _, object := range o.of(kind) {
		if object.GetName() == name && (object.GetNamespace() == namespace || namespace == "" || object.GetNamespace() == "") {
			return object, true
		}
	}
	return Object{}, false
}

// content of an object, nil of none.
func content(o Object) map[string]any {
	if o.Unstructured == nil {
		return nil
	}
	return o.Object
}

// text at a path, "" where there is none.
func text(content map[string]any, path ...string) string {
	value, found, err := unstructured.NestedFieldNoCopy(content, path...)
	if err != nil || !found || value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

// list at a path of maps.
func list(content map[string]any, path ...string) []map[string]any {
	values, _, err := unstructured.NestedSlice(content, path...)
	if err != nil {
		return nil
	}
	var maps []map[string]any
	for _, v := range values {
		if m, ok := v.(map[string]any); ok {
			maps = append(maps, m)
		}
	}
	return maps
}

// texts at a path.
func texts(content map[string]any, path ...string) []string {
	values, _, err := unstructured.NestedSlice(content, path...)
	if err != nil {
		return nil
	}
	var all []string
	for _, v := range values {
		all = append(all, fmt.Sprint(v))
	}
	return all
}

// triggers of a ScaledJob or ScaledObject that ask Ebbtide, and all of them.
func triggers(o Object) (ours, all []map[string]any) {
	all = list(o.Object, "spec", "triggers")
	for _, t := range all {
		if kind := text(t, "type"); (kind == "external" || kind == "external-push") && text(t, "metadata", "policy") != "" {
			ours = append(ours, t)
		}
	}
	return ours, all
}

// ourScaledJobs are those that ask Ebbtide.
func (o *objects) ourScaledJobs() []Object {
	var found []Object
	for _, job := range o.of("ScaledJob") {
		if ours, _ := triggers(job); len(ours) > 0 {
			found = append(found, job)
		}
	}
	return found
}
