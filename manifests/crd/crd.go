// Package crd holds the custom resource definitions, for programs that check objects by them.
package crd

import _ "embed"

// ScalingPolicy is the definition of ScalingPolicies, in YAML. It is generated from package api/v1alpha1.
//
//go:embed ebbtide.dev_scalingpolicies.yaml
var ScalingPolicy []byte
