// Package v1alpha1 holds the ScalingPolicy API: what a queue's replica target is made of.
//
// The same YAML is served as a custom resource and read from a directory of files, so every rule that the CRD's
// schema enforces is enforced again in Go. The package imports no Ebbtide package.
//
// +kubebuilder:object:generate=true
// +groupName=ebbtide.dev
package v1alpha1
