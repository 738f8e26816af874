package v1alpha1

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/scheme"
)

//go:generate go tool -modfile=../../hack/tools/go.mod controller-gen object crd paths=. output:crd:dir=../../manifests/crd

var (
	// GroupVersion of the API.
	GroupVersion = schema.GroupVersion{Group: "ebbtide.dev", Version: "v1alpha1"}
	// SchemeBuilder registers the API's types.
	SchemeBuilder = (&scheme.Builder{GroupVersion: GroupVersion}).Register(&ScalingPolicy{}, &ScalingPolicyList{})
	// AddToScheme adds the API's types to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)
