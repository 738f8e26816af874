// Package v1alpha1 holds the ScalingPolicy API: what a queue's replica target is made of.
//
// The same YAML is served as a custom resource and read from a directory of files. Its rules and defaults are written once, as markers
// of these types: package policy checks what it reads by the CRD that is made of them. The package imports no Ebbtide package.
//
// +kubebuilder:object:generate=true
// +groupName=ebbtide.dev
package v1alpha1
