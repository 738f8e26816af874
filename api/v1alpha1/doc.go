// Package v1alpha1 holds the ScalingPolicy API: the inputs of a queue's replica target.
//
// The same YAML is served as a custom resource and read from a directory of files. Its rules and defaults are written once, as markers
// of these types: package policy validates policies with the CRD that is generated from them. The package imports no Ebbtide package.
//
// +kubebuilder:object:generate=true
// +groupName=ebbtide.dev
package v1alpha1
